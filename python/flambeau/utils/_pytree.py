"""Nested containers as trees: lists, tuples, named tuples and dicts hold, everything else is a leaf."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
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


# ---- paths to leaves -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SequenceKey:
    """A place in a sequence."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx!r}]"

    def get(self, sequence: Any) -> Any:
        """What is there."""
        return sequence[self.idx]


@dataclasses.dataclass(frozen=True)
class MappingKey:
    """A key of a mapping."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"

    def get(self, mapping: Any) -> Any:
        """What is there."""
        return mapping[self.key]


@dataclasses.dataclass(frozen=True)
class GetAttrKey:
    """An attribute, as of a named tuple."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"

    def get(self, obj: Any) -> Any:
        """What is there."""
        return getattr(obj, self.name)


KeyEntry = Any
KeyPath = tuple[KeyEntry, ...]
Context = Any
PyTreeSpec = TreeSpec
FlattenFn = Callable[[Any], tuple[list[Any], Any]]
UnflattenFn = Callable[[Iterable[Any], Any], Any]
_register_pytree_node = register_pytree_node
_dict_flatten = _flatten_dict


class LeafSpec(TreeSpec):
    """The shape of a tree that is one leaf."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None, None, [])


def _dict_unflatten(values: Iterable[Any], context: Any) -> dict[Any, Any]:
    return dict(zip(context, values, strict=True))


def _list_flatten(d: list[Any]) -> tuple[list[Any], Any]:
    return d, None


def _list_unflatten(values: Iterable[Any], context: Any) -> list[Any]:
    return list(values)


def _dict_flatten_with_keys(d: dict[Any, Any]) -> tuple[list[tuple[KeyEntry, Any]], Any]:
    return [(MappingKey(k), v) for k, v in d.items()], list(d)


def _list_flatten_with_keys(d: list[Any]) -> tuple[list[tuple[KeyEntry, Any]], Any]:
    return [(SequenceKey(i), v) for i, v in enumerate(d)], None


def _get_node_type(tree: Any) -> Any:
    held = _container(tree)
    return type(tree) if held is None else held[0]


def is_namedtuple_class(cls: Any) -> bool:
    """Whether a type is a named tuple."""
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_namedtuple_instance(obj: Any) -> bool:
    """Whether an object is a named tuple."""
    return is_namedtuple_class(type(obj))


def is_namedtuple(obj: Any) -> bool:
    """Whether an object is a named tuple, or a type of such."""
    return is_namedtuple_class(obj if isinstance(obj, type) else type(obj))


def is_structseq_class(cls: Any) -> bool:
    """Whether a type is one of operators' named results."""
    return isinstance(cls, type) and issubclass(cls, tuple) and isinstance(getattr(cls, "n_sequence_fields", None), int)


def is_structseq_instance(obj: Any) -> bool:
    """Whether an object is an operator's named result."""
    return is_structseq_class(type(obj))


def is_structseq(obj: Any) -> bool:
    """Whether an object is an operator's named result, or a type of such."""
    return is_structseq_class(obj if isinstance(obj, type) else type(obj))


def tree_is_leaf(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether a tree is one leaf."""
    return (is_leaf is not None and is_leaf(tree)) or _container(tree) is None


def tree_iter(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """The leaves in order, one by one."""
    held = None if is_leaf is not None and is_leaf(tree) else _container(tree)
    if held is None:
        yield tree
        return
    for child in held[1].flatten(tree)[0]:
        yield from tree_iter(child, is_leaf)


def _entries(tree: Any, held: tuple[type[Any], _Container]) -> list[KeyEntry]:
    children, _ = held[1].flatten(tree)
    if isinstance(tree, dict):
        return [MappingKey(k) for k in tree]
    if is_namedtuple_instance(tree):
        return [GetAttrKey(name) for name in type(tree)._fields]
    return [SequenceKey(i) for i in range(len(children))]


def tree_flatten_with_path(
    tree: PyTree, is_leaf: Callable[[Any], bool] | None = None
) -> tuple[list[tuple[KeyPath, Any]], TreeSpec]:
    """The leaves, each with the way to it, and the shape they came from."""
    found: list[tuple[KeyPath, Any]] = []

    def visit(node: Any, path: KeyPath) -> None:
        held = None if is_leaf is not None and is_leaf(node) else _container(node)
        if held is None:
            found.append((path, node))
            return
        for key, child in zip(_entries(node, held), held[1].flatten(node)[0], strict=True):
            visit(child, (*path, key))

    visit(tree, ())
    return found, tree_structure(tree, is_leaf)


def tree_leaves_with_path(tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[KeyPath, Any]]:
    """The leaves, each with the way to it."""
    return tree_flatten_with_path(tree, is_leaf)[0]


def tree_map_with_path(
    func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None
) -> PyTree:
    """Applies `func(path, leaf, …)` leaf by leaf."""
    leaves, spec = tree_flatten_with_path(tree, is_leaf)
    others = [tree_leaves(rest, is_leaf) for rest in rests]
    return tree_unflatten([func(path, leaf, *row) for (path, leaf), *row in zip(leaves, *others, strict=True)], spec)


def keystr(kp: KeyPath) -> str:
    """A path as text: `['a'][0]`."""
    return "".join(str(k) for k in kp)


def key_get(obj: Any, kp: KeyPath) -> Any:
    """What a path leads to."""
    for k in kp:
        obj = k.get(obj)
    return obj


def tree_map_(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """Calls `func` leaf by leaf for its effect; gives the tree."""
    leaves = tree_leaves(tree, is_leaf)
    for row in zip(leaves, *(tree_leaves(rest, is_leaf) for rest in rests), strict=True):
        func(*row)
    return tree


def tree_map_only_(kind: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> PyTree:
    """Calls `func` on the leaves of a type for its effect; gives the tree."""
    tree_map_only(kind, func, tree, is_leaf)
    return tree


def tree_all_only(kind: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether `pred` holds for every leaf of a type."""
    return all(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kind))


def tree_any_only(kind: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: Callable[[Any], bool] | None = None) -> bool:
    """Whether `pred` holds for some leaf of a type."""
    return any(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kind))


def arg_tree_leaves(*args: PyTree, **kwargs: PyTree) -> list[Any]:
    """The leaves of a call's arguments."""
    return [leaf for a in (*args, *kwargs.values()) for leaf in tree_leaves(a)]


# ---- shapes as text --------------------------------------------------------------------------------------------------------

_NAMES: dict[str, Any] = {f"{c.__module__}.{c.__qualname__}": c for c in (list, tuple, dict, OrderedDict, deque)}
_PROTOCOL = 1


def treespec_dumps(treespec: TreeSpec, protocol: int | None = None) -> str:
    """A shape as JSON."""
    if protocol not in (None, _PROTOCOL):
        raise ValueError(f"Unknown protocol {protocol}. Available protocols: [{_PROTOCOL}]")

    def plain(spec: TreeSpec) -> dict[str, Any]:
        if spec.type is None:
            return {"type": None, "context": None, "children_spec": []}
        name = f"{spec.type.__module__}.{spec.type.__qualname__}"
        if name not in _NAMES:
            raise NotImplementedError(f"no name is known under which a {name} can be written")
        return {"type": name, "context": json.dumps(spec.context), "children_spec": [plain(c) for c in spec.children_specs]}

    return json.dumps((_PROTOCOL, plain(treespec)))


def treespec_loads(serialized: str) -> TreeSpec:
    """The shape that `treespec_dumps` wrote."""
    protocol, data = json.loads(serialized)
    if protocol != _PROTOCOL:
        raise ValueError(f"Unknown protocol {protocol}. Available protocols: [{_PROTOCOL}]")

    def build(part: dict[str, Any]) -> TreeSpec:
        if part["type"] is None:
            return LeafSpec()
        if part["type"] not in _NAMES:
            raise NotImplementedError(f"{part['type']} is not known")
        return TreeSpec(_NAMES[part["type"]], json.loads(part["context"]), [build(c) for c in part["children_spec"]])

    return build(data)


def treespec_pprint(treespec: TreeSpec) -> str:
    """A shape as text, with `*` for leaves."""
    return repr(tree_unflatten(["*"] * treespec.num_leaves, treespec)).replace("'*'", "*")
