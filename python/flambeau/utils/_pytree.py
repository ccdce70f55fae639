"""Nested containers as trees: lists, tuples, named tuples and dicts hold, everything else is a leaf."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

PyTree = Any


class _Container(NamedTuple):
    flatten: Callable[[Any], tuple[list[Any], Any]]
    unflatten: Callable[[Iterable[Any], Any], Any]


SUPPORTED_NODES: dict[type[Any], _Container] = {}


def register_pytree_node(
    cls: type[Any], flatten_fn: Callable[[Any], tuple[list[Any], Any]], unflatten_fn: Callable[[Iterable[Any], Any], Any], **_: Any
) -> None:
    """Makes `cls` a container: how it is taken apart (children, context) and put together again."""
    SUPPORTED_NODES[cls] = _Container(flatten_fn, unflatten_fn)


def _flatten_dict(d: Any) -> tuple[list[Any], Any]:
    return list(d.values()), list(d.keys())


register_pytree_node(list, lambda x: (x, None), lambda children, _: list(children))
register_pytree_node(tuple, lambda x: (list(x), None), lambda children, _: tuple(children))
register_pytree_node(dict, _flatten_dict, lambda children, keys: dict(zip(keys, children, strict=True)))
register_pytree_node(OrderedDict, _flatten_dict, lambda children, keys: OrderedDict(zip(keys, children, strict=True)))
register_pytree_node(
    defaultdict,
    lambda d: (list(d.values()), (d.default_factory, list(d.keys()))),
    lambda children, context: defaultdict(context[0], zip(context[1], children, strict=True)),
)
register_pytree_node(deque, lambda d: (list(d), d.maxlen), lambda children, maxlen: deque(children, maxlen))
_NAMED = _Container(lambda x: (list(x), type(x)), lambda children, cls: cls(*children))


def _container(tree: Any) -> tuple[type[Any], _Container] | None:
    cls = type(tree)
    found = SUPPORTED_NODES.get(cls)
    if found is not None:
        return cls, found
    if isinstance(tree, tuple) and hasattr(cls, "_fields"):
        return namedtuple, _NAMED  # type: ignore[return-value]
    if isinstance(tree, tuple) and hasattr(cls, "n_sequence_fields"):
        # The named results of operators (values and indices), built from one sequence.
        return cls, _Container(lambda x: (list(x), None), lambda children, _: cls(list(children)))
    return None


class TreeSpec:
    """The shape of a tree without its leaves."""

    __slots__ = ("children_specs", "context", "num_leaves", "type")

    def __init__(self, type_: Any, context: Any, children: list[TreeSpec]) -> None:
        self.type, self.context, self.children_specs = type_, context, children
        self.num_leaves = 1 if type_ is None else sum(c.num_leaves for c in children)

    def is_leaf(self) -> bool:
        """Whether the tree is one leaf."""
        return self.type is None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TreeSpec)
            and self.type is other.type
            and self.context == other.context
            and self.children_specs == other.children_specs
        )

    def __hash__(self) -> int:
        return hash((self.type, self.num_leaves))

    def __repr__(self) -> str:
        if self.type is None:
            return "*"
        return f"TreeSpec({self.type.__name__}, {self.context}, {self.children_specs})"


_LEAF = TreeSpec(None, None, [])


def tree_flatten(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """The leaves in order, and the shape they came from."""
    leaves: list[Any] = []

    def visit(node: Any) -> TreeSpec:
        held = None if is_leaf is not None and is_leaf(node) else _container(node)
        if held is None:
            leaves.append(node)
            return _LEAF
        children, context = held[1].flatten(node)
        return TreeSpec(held[0], context, [visit(c) for c in children])

    spec = visit(tree)
    return leaves, spec


def tree_unflatten(leaves: Iterable[Any], treespec: TreeSpec) -> PyTree:
    """Puts leaves back into a shape."""
    leaves = list(leaves)
    if len(leaves) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten: the tree holds {treespec.num_leaves} leaves, {len(leaves)} were given")
    source = iter(leaves)

    def build(spec: TreeSpec) -> Any:
        if spec.type is None:
            return next(source)
        children = [build(c) for c in spec.children_specs]
        if spec.type is namedtuple:
            return spec.context(*children)
        held = SUPPORTED_NODES.get(spec.type)
        return held.unflatten(children, spec.context) if held is not None else spec.type(children)

    return build(treespec)


def tree_leaves(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves in order."""
    return tree_flatten(tree, is_leaf)[0]


def tree_structure(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> TreeSpec:
    """The shape of a tree."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(fn: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """Applies `fn` leaf by leaf, over several trees of one shape at once."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_flatten(rest, is_leaf)[0] for rest in rests]
    return tree_unflatten([fn(*row) for row in zip(leaves, *others, strict=True)], spec)


def tree_map_only(kind: Any, fn: Callable[[Any], Any], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """Applies `fn` to the leaves of a type (or those a predicate accepts), leaving the others."""
    chosen = kind if callable(kind) and not isinstance(kind, type) else lambda leaf: isinstance(leaf, kind)
    return tree_map(lambda leaf: fn(leaf) if chosen(leaf) else leaf, tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree) -> bool:
    """Whether `pred` holds for every leaf."""
    return all(map(pred, tree_leaves(tree)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree) -> bool:
    """Whether `pred` holds for some leaf."""
    return any(map(pred, tree_leaves(tree)))


def broadcast_prefix(prefix: PyTree, tree: PyTree, what: str) -> list[Any]:
    """Spreads a tree that is a prefix of another's shape over all its leaves."""
    result: list[Any] = []

    def visit(p: Any, t: Any) -> None:
        p_held, t_held = _container(p), _container(t)
        if p_held is None:
            result.extend([p] * len(tree_leaves(t)))
            return
        if t_held is None or p_held[0] is not t_held[0]:
            raise ValueError(f"{what} is not compatible with the structure of its values")
        p_children, p_context = p_held[1].flatten(p)
        t_children, t_context = t_held[1].flatten(t)
        if len(p_children) != len(t_children) or p_context != t_context:
            raise ValueError(f"{what} is not compatible with the structure of its values")
        for a, b in zip(p_children, t_children, strict=True):
            visit(a, b)

    visit(prefix, tree)
    return result
