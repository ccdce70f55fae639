"""Function transforms: gradients, products with Jacobians, batching, and their compositions.

Reverse mode is the engine's, with a graph kept so that transforms nest. Forward mode is the derivative of reverse mode
with respect to its cotangent: with g(u) = Jᵀu linear in u, the derivative of ⟨g(u), v⟩ in u is Jv, whatever u.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from ..autograd.function import VmapInfo, vmap_levels
from ..autograd.grad_mode import enable_grad, forward_mode
from ..utils import _pytree as pytree

_depth = 0


class _Level:
    """One transform that differentiates. Results leave the outermost one without the graph it made for itself."""

    def __enter__(self) -> _Level:
        global _depth
        _depth += 1
        self._mode = enable_grad()
        self._mode.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        global _depth
        _depth -= 1
        self._mode.__exit__(*exc)

    def track(self, tree: Any) -> tuple[list[Tensor], Any, list[Any]]:
        """Aliases of the tensors of a tree, which this level differentiates by and outer levels see through."""
        leaves, spec = pytree.tree_flatten(tree)
        tracked, full = [], []
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                # Inside `vmap` every example has a gradient of its own, also by what the examples share.
                leaf = _flambeau._vmap_lift(leaf)
                alias = leaf.view_as(leaf) if leaf.requires_grad else leaf.detach().requires_grad_(_differentiable(leaf))
                tracked.append(alias)
                full.append(alias)
            else:
                full.append(leaf)
        return tracked, pytree.tree_unflatten(full, spec), leaves


def _differentiable(t: Tensor) -> bool:
    return bool(t.is_floating_point() or t.is_complex())


def _outer_tracks(*trees: Any) -> bool:
    """Whether somebody outside differentiates by these values."""
    return _depth > 0 or (
        _flambeau.is_grad_enabled()
        and any(isinstance(t, Tensor) and t.requires_grad for tree in trees for t in pytree.tree_leaves(tree))
    )


def _leave(tree: Any, keep: bool) -> Any:
    return tree if keep else pytree.tree_map_only(Tensor, lambda t: t.detach(), tree)


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    """Gradients with a graph of their own, zero where an input has no part in the outputs."""
    pairs = [(o, c) for o, c in zip(outputs, cotangents, strict=True) if o.requires_grad]
    used = [x for x in inputs if x.requires_grad]
    found: list[Any] = []
    if pairs and used:
        outs, seeds = zip(*pairs, strict=True)
        found = list(_flambeau._engine_backward(outs, seeds, True, True, tuple(used), False, True))
    else:
        found = [None] * len(used)
    by_id = {id(x): g for x, g in zip(used, found, strict=True)}
    return [ops.zeros_like(x.detach()) if by_id.get(id(x)) is None else by_id[id(x)] for x in inputs]


def _check_argnums(argnums: Any, count: int) -> tuple[int, ...]:
    if not isinstance(argnums, (int, tuple, list)):
        raise RuntimeError(f"argnums must be int or Tuple[int, ...], got: {type(argnums)}")
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in chosen:
        if not -count <= i < count:
            raise RuntimeError(f"Got argnum={i}, but only {count} positional inputs")
    return tuple(i % count for i in chosen)


def _pick(args: tuple[Any, ...], argnums: Any) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    chosen = _check_argnums(argnums, len(args))
    return tuple(args[i] for i in chosen), chosen


def _with(args: tuple[Any, ...], chosen: tuple[int, ...], values: Any) -> list[Any]:
    full = list(args)
    for i, value in zip(chosen, values, strict=True):
        full[i] = value
    return full


def grad_and_value(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of a scalar function and its value (and what it gives besides)."""

    def transformed(*args: Any, **kwargs: Any) -> Any:
        picked, chosen = _pick(args, argnums)
        keep = _outer_tracks(args, kwargs)
        with _Level() as level:
            tracked, inner, _ = level.track(picked)
            for t in tracked:
                if not _differentiable(t):
                    raise RuntimeError(f"grad: only floating point and complex inputs can be differentiated, got {t.dtype}")
            result = func(*_with(args, chosen, inner), **kwargs)
            aux = None
            if has_aux:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError("grad_and_value(f)(*args): output of function f should be a tuple: (output, aux) if has_aux is True")
                result, aux = result
            if not isinstance(result, Tensor):
                raise RuntimeError(f"grad_and_value(f)(*args): Expected f(*args) to return a tensor, got {type(result)}")
            if result.dim() != 0:
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar tensor, got tensor with "
                    f"{result.dim()} dims. Maybe you wanted to use the vjp or jacrev APIs instead?"
                )
            found = iter(_gradients([result], tracked, [ops.ones_like(result)]))
            grads = pytree.tree_map(lambda leaf: next(found) if isinstance(leaf, Tensor) else leaf, inner)
            grads = grads[0] if isinstance(argnums, int) else grads
            value = (result, aux) if has_aux else result
        return _leave((grads, value), keep)

    return transformed


def grad(func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that gives the gradient of a scalar function."""
    both = grad_and_value(func, argnums, has_aux)

    def transformed(*args: Any, **kwargs: Any) -> Any:
        grads, value = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return transformed


def _call(func: Callable[..., Any], args: Any, has_aux: bool, name: str) -> tuple[Any, Any]:
    result = func(*args)
    if not has_aux:
        return result, None
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(f"{name}(f, *primals): output of function f should be a tuple: (output, aux) if has_aux is True")
    return result


def _tensors(tree: Any, what: str) -> list[Tensor]:
    leaves = pytree.tree_leaves(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise RuntimeError(f"{what}: expected only tensors, got {type(leaf).__name__}")
    if not leaves:
        raise RuntimeError(f"{what}: expected at least one tensor")
    return leaves


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of a function and the function that multiplies cotangents by its transposed Jacobian."""
    keep = _outer_tracks(primals)
    with _Level() as level:
        tracked, inner, _ = level.track(primals)
        output, aux = _call(func, inner, has_aux, "vjp")
        outs, out_spec = pytree.tree_flatten(output)
        _tensors(output, "vjp(f, *primals)")

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        seeds, spec = pytree.tree_flatten(cotangents)
        if spec != out_spec:
            raise RuntimeError(
                f"Expected pytree structure of cotangents to be the same as pytree structure of outputs to the function. "
                f"cotangents: {spec}, primal output: {out_spec}"
            )
        for seed, out in zip(seeds, outs, strict=True):
            if seed.shape != out.shape:
                raise RuntimeError(f"vjp_fn: a cotangent has shape {tuple(seed.shape)}, its output {tuple(out.shape)}")
        track = keep or _outer_tracks(cotangents)
        with _Level():
            found = iter(_gradients(outs, tracked, seeds))
            grads = pytree.tree_map(lambda leaf: next(found) if isinstance(leaf, Tensor) else leaf, inner)
        return _leave(grads, track)

    value = _leave(output, keep)
    return (value, vjp_fn, _leave(aux, keep)) if has_aux else (value, vjp_fn)


def _push(
    outs: Sequence[Tensor], tracked: Sequence[Tensor], tangents: Sequence[Tensor]
) -> list[Tensor]:
    """Tangents of the outputs by two reverse passes."""
    seeds = [ops.ones_like(o.detach()).requires_grad_(_differentiable(o)) for o in outs]
    back = _gradients(outs, tracked, seeds)
    usable = [(b, t) for b, t in zip(back, tangents, strict=True) if b.requires_grad]
    if not usable:
        return [ops.zeros_like(o.detach()) for o in outs]
    firsts, seconds = zip(*usable, strict=True)
    return _gradients(firsts, seeds, seconds)


def jvp(
    func: Callable[..., Any], primals: Any, tangents: Any, *, strict: bool = False, has_aux: bool = False
) -> Any:
    """The value of a function and the product of its Jacobian with tangents."""
    if not isinstance(primals, tuple):
        raise RuntimeError("jvp(f, primals, tangents): Expected primals to be a tuple. E.g. it should be valid to call f(*primals).")
    if not isinstance(tangents, tuple):
        raise RuntimeError("jvp(f, primals, tangents): Expected tangents to be a tuple of the same structure as primals")
    keep = _outer_tracks(primals, tangents)
    flat_tangents, tangent_spec = pytree.tree_flatten(tangents)
    flat_primals, primal_spec = pytree.tree_flatten(primals)
    if tangent_spec != primal_spec:
        raise RuntimeError(
            "jvp(f, primals, tangents): Expected primals and tangents to have the same python structure. For example, if primals is a "
            f"tuple of 3 tensors, tangents also must be. Got primals with structure {primal_spec} and tangents with structure {tangent_spec}"
        )
    for p, t in zip(flat_primals, flat_tangents, strict=True):
        if p.shape != t.shape:
            raise RuntimeError(f"jvp(f, primals, tangents): a primal has shape {tuple(p.shape)}, its tangent {tuple(t.shape)}")
    with _Level() as level, forward_mode():
        tracked, inner, _ = level.track(primals)
        output, aux = _call(func, inner, has_aux, "jvp")
        outs, out_spec = pytree.tree_flatten(output)
        _tensors(output, "jvp(f, primals, tangents)")
        if strict and not all(o.requires_grad for o in outs):
            raise RuntimeError(
                "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. This is not allowed with "
                "strict=True."
            )
        pushed = pytree.tree_unflatten(_push(outs, tracked, flat_tangents), out_spec)
    result = _leave((output, pushed, aux) if has_aux else (output, pushed), keep)
    return result


def linearize(func: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[..., Any]]:
    """The value of a function and the linear function that its Jacobian is at that point."""
    keep = _outer_tracks(primals)
    with _Level() as level, forward_mode():
        tracked, inner, _ = level.track(primals)
        output = func(*inner)
        outs, out_spec = pytree.tree_flatten(output)

    _, primal_spec = pytree.tree_flatten(primals)

    def jvp_fn(*tangents: Any) -> Any:
        flat, spec = pytree.tree_flatten(tangents)
        if spec != primal_spec:
            raise RuntimeError(f"linearize: expected tangents with structure {primal_spec}, got {spec}")
        for t, p in zip(flat, tracked, strict=True):
            if t.shape != p.shape or t.dtype != p.dtype:
                raise RuntimeError(f"linearize: a tangent of {t.dtype} and shape {tuple(t.shape)} where its primal is of {p.dtype} and shape {tuple(p.shape)}")
        with _Level():
            pushed = pytree.tree_unflatten(_push(outs, tracked, flat), out_spec)
        return _leave(pushed, keep or _outer_tracks(tangents))

    return _leave(output, keep), jvp_fn


# ---- batching ------------------------------------------------------------------------------------------


def vmap(
    func: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function over batches from one over samples. `in_dims` and `out_dims` are trees of dimensions or None."""
    if randomness not in ("error", "different", "same"):
        raise RuntimeError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")

    def transformed(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten(args)
        dims = _in_dims(in_dims, args, leaves)
        size = _batch_size(leaves, dims)
        # Keyword arguments are the same for every example.
        if size is None:
            raise ValueError("vmap: at least one input must have a dimension to map over (in_dims are all None)")

        def run(values: list[Any], count: int) -> Any:
            return _vmap_once(func, values, dims, spec, kwargs, out_dims, randomness, count)

        if chunk_size is None or chunk_size >= size:
            return run(leaves, size)
        parts = []
        for start in range(0, size, chunk_size):
            count = min(chunk_size, size - start)
            piece = [v if d is None else v.narrow(d, start, count) for v, d in zip(leaves, dims, strict=True)]
            parts.append(run(piece, count))
        flats, out_spec = zip(*(pytree.tree_flatten(p) for p in parts), strict=True)
        where = pytree.broadcast_prefix(out_dims, parts[0], "out_dims")
        joined = [column[0] if d is None else ops.cat(list(column), d) for column, d in zip(zip(*flats, strict=True), where, strict=True)]
        return pytree.tree_unflatten(joined, out_spec[0])

    return transformed


def _in_dims(in_dims: Any, args: tuple[Any, ...], leaves: list[Any]) -> list[int | None]:
    if not isinstance(in_dims, (int, tuple)) or isinstance(in_dims, bool):
        raise ValueError(
            f"vmap: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError("vmap: got no inputs. Maybe you forgot to add inputs, or you are trying to vmap over a function with no inputs.")
    dims = pytree.broadcast_prefix(in_dims, args, "in_dims")
    result: list[int | None] = []
    for leaf, dim in zip(leaves, dims, strict=True):
        if dim is None:
            result.append(None)
            continue
        if not isinstance(dim, int):
            raise ValueError(f"vmap: Got in_dim={dim} for an input but in_dim must be either an integer dimension or None.")
        if not isinstance(leaf, Tensor):
            raise ValueError(
                f"vmap: Got in_dim={dim} for an input but the input is of type {type(leaf)}. We cannot vmap over non-Tensor arguments, "
                "please use None as the respective in_dim"
            )
        if not -leaf.dim() <= dim < leaf.dim():
            raise ValueError(
                f"vmap: Got in_dim={dim} for some input, but that input is a Tensor of dimensionality {leaf.dim()} so expected in_dim "
                f"to satisfy -{leaf.dim()} <= in_dim < {leaf.dim()}."
            )
        result.append(dim % leaf.dim())
    return result


def _batch_size(leaves: list[Any], dims: list[int | None]) -> int | None:
    sizes = {leaf.size(dim) for leaf, dim in zip(leaves, dims, strict=True) if dim is not None}
    if len(sizes) > 1:
        raise ValueError(f"vmap: Expected all tensors to have the same size in the mapped dimension, got sizes {sorted(sizes)} for the mapped dimension")
    return sizes.pop() if sizes else None


def _vmap_once(
    func: Callable[..., Any],
    values: list[Any],
    dims: list[int | None],
    spec: Any,
    kwargs: dict[str, Any],
    out_dims: Any,
    randomness: str,
    size: int,
) -> Any:
    level = _flambeau._vmap_enter(size, randomness)
    vmap_levels.append((level, VmapInfo(size, randomness)))
    try:
        batched = [
            v if d is None else _flambeau._add_batch_dim(v, d, level) for v, d in zip(values, dims, strict=True)
        ]
        outputs = func(*pytree.tree_unflatten(batched, spec), **kwargs)
        leaves, out_spec = pytree.tree_flatten(outputs)
        if isinstance(out_dims, int) and not isinstance(outputs, Tensor) and not isinstance(outputs, (tuple, list, dict)):
            raise ValueError(f"vmap: the function must only return Tensors, got type {type(outputs)} as a return.")
        where = pytree.broadcast_prefix(out_dims, outputs, "out_dims")
        results = []
        for leaf, dim in zip(leaves, where, strict=True):
            if not isinstance(leaf, Tensor):
                raise ValueError(f"vmap: the function must only return Tensors, got type {type(leaf)} as a return.")
            if dim is None:
                if _flambeau._is_batched_at(leaf, level):
                    raise ValueError("vmap: the function returned a batched tensor where out_dims says None")
                results.append(leaf)
            else:
                results.append(_flambeau._remove_batch_dim(leaf, level, size, dim))
        return pytree.tree_unflatten(results, out_spec)
    finally:
        vmap_levels.pop()
        _flambeau._vmap_exit(level)


# ---- Jacobians -----------------------------------------------------------------------------------------


def jacrev(
    func: Callable[..., Any],
    argnums: Any = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
    _preallocate_and_copy: bool = False,
) -> Callable[..., Any]:
    """A function that gives the Jacobian, by reverse mode: one row for each element of the outputs."""

    if not (chunk_size is None or chunk_size > 0):
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    def transformed(*args: Any) -> Any:
        picked, chosen = _pick(args, argnums)
        keep = _outer_tracks(args)
        with _Level() as level:
            tracked, inner, _ = level.track(picked)
            output, aux = _call(func, _with(args, chosen, inner), has_aux, "jacrev")
            outs, out_spec = pytree.tree_flatten(output)
            _tensors(output, "jacrev(f)(*args)")
            rows: list[list[Tensor]] = [[] for _ in tracked]
            for out in outs:
                for i, jacobian in enumerate(_rows(out, tracked)):
                    rows[i].append(jacobian)
            # For each output a tree like the inputs.
            trees = []
            for k in range(len(outs)):
                found = iter(row[k] for row in rows)
                tree = pytree.tree_map(lambda leaf, found=found: next(found) if isinstance(leaf, Tensor) else leaf, inner)  # type: ignore[misc]
                trees.append(tree[0] if isinstance(argnums, int) else tree)
            result = pytree.tree_unflatten(trees, out_spec)
        return _leave((result, aux) if has_aux else result, keep)

    return transformed


def _rows(out: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The Jacobian of one output by each input, by a reverse pass for each element."""
    n = out.numel()
    grads: list[list[Tensor]] = [[] for _ in inputs]
    flat = out.reshape(-1)
    unit = ops.eye(n, dtype=out.dtype, device=out.device) if n else None
    for j in range(n):
        for i, g in enumerate(_gradients([flat], inputs, [unit[j]])):  # type: ignore[index]
            grads[i].append(g)
    result = []
    for x, column in zip(inputs, grads, strict=True):
        shape = [*out.shape, *x.shape]
        result.append(ops.stack(column, 0).reshape(shape) if column else ops.zeros(shape, dtype=out.dtype, device=out.device))
    return result


def jacfwd(
    func: Callable[..., Any], argnums: Any = 0, has_aux: bool = False, *, randomness: str = "error"
) -> Callable[..., Any]:
    """A function that gives the Jacobian, by forward mode: one column for each element of the inputs."""

    def transformed(*args: Any) -> Any:
        picked, chosen = _pick(args, argnums)
        keep = _outer_tracks(args)
        with _Level() as level, forward_mode():
            tracked, inner, _ = level.track(picked)
            output, aux = _call(func, _with(args, chosen, inner), has_aux, "jacfwd")
            outs, out_spec = pytree.tree_flatten(output)
            _tensors(output, "jacfwd(f)(*args)")
            seeds = [ops.ones_like(o.detach()).requires_grad_(_differentiable(o)) for o in outs]
            back = _gradients(outs, tracked, seeds)
            columns: list[list[list[Tensor]]] = [[[] for _ in tracked] for _ in outs]
            for i, (b, x) in enumerate(zip(back, tracked, strict=True)):
                n = x.numel()
                unit = ops.eye(n, dtype=x.dtype, device=x.device) if n else None
                for j in range(n):
                    if b.requires_grad:
                        pushed = _gradients([b.reshape(-1)], seeds, [unit[j]])  # type: ignore[index]
                    else:
                        pushed = [ops.zeros_like(o.detach()) for o in outs]
                    for k, p in enumerate(pushed):
                        columns[k][i].append(p)
            trees = []
            for k, out in enumerate(outs):
                jacobians = []
                for i, x in enumerate(tracked):
                    shape = [*out.shape, *x.shape]
                    if columns[k][i]:
                        jacobians.append(ops.stack(columns[k][i], -1).reshape(shape))
                    else:
                        jacobians.append(ops.zeros(shape, dtype=out.dtype, device=out.device))
                found = iter(jacobians)
                tree = pytree.tree_map(lambda leaf, found=found: next(found) if isinstance(leaf, Tensor) else leaf, inner)  # type: ignore[misc]
                trees.append(tree[0] if isinstance(argnums, int) else tree)
            result = pytree.tree_unflatten(trees, out_spec)
        return _leave((result, aux) if has_aux else result, keep)

    return transformed


def hessian(func: Callable[..., Any], argnums: Any = 0) -> Callable[..., Any]:
    """A function that gives the second derivatives: forward over reverse."""
    return jacfwd(jacrev(func, argnums), argnums)


# ---- modules as functions ------------------------------------------------------------------------------


def functional_call(
    module: Any,
    parameter_and_buffer_dicts: Any,
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Calls a module with other parameters and buffers, given by dotted name."""
    if isinstance(parameter_and_buffer_dicts, dict):
        values = dict(parameter_and_buffer_dicts)
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        values = {}
        for d in parameter_and_buffer_dicts:
            repeated = values.keys() & d.keys()
            if repeated:
                raise ValueError(f"{sorted(repeated)} appeared in multiple dictionaries; behavior of functional call is ambiguous")
            values.update(d)
    else:
        raise ValueError(f"Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got {type(parameter_and_buffer_dicts)}")
    args = () if args is None else args if isinstance(args, tuple) else (args,)
    kwargs = kwargs or {}
    own = {
        name: t
        for source in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
        for name, t in source
    }
    if tie_weights:
        by_id: dict[int, list[str]] = {}
        for name, t in own.items():
            by_id.setdefault(id(t), []).append(name)
        for names in by_id.values():
            given = [n for n in names if n in values]
            if len(given) > 1 and any(values[n] is not values[given[0]] for n in given):
                raise ValueError(f"functional_call got multiple values for keys {sorted(names)}, which are tied. Consider using tie_weights=False")
            if given:
                for n in names:
                    values.setdefault(n, values[given[0]])
    if strict:
        missing, unexpected = own.keys() - values.keys(), values.keys() - own.keys()
        if missing or unexpected:
            raise RuntimeError(f"functional_call: missing keys {sorted(missing)}, unexpected keys {sorted(unexpected)}")
    swapped: list[tuple[Any, str, Any]] = []
    try:
        for name, value in values.items():
            if name not in own and name.rpartition(".")[0] not in dict(module.named_modules()):
                continue
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            for registry in (owner._parameters, owner._buffers):
                if leaf in registry:
                    swapped.append((registry, leaf, registry[leaf]))
                    registry[leaf] = value
                    break
        return module(*args, **kwargs)
    finally:
        for registry, leaf, value in reversed(swapped):
            # A buffer that the forward replaced gives its new value to the caller's dict, not to the module.
            registry[leaf] = value


def debug_unwrap(tensor: Tensor, *, recurse: bool = True) -> Tensor:
    """The tensor behind an example of a batch, with the dimension of the batch; any other as it is."""
    while _flambeau._is_batched(tensor):
        tensor = _flambeau._behind_batch(tensor)
        if not recurse:
            break
    return tensor


def stack_module_state(models: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stacked parameters and buffers of several modules of one shape, for `vmap` over `functional_call`."""
    models = list(models)
    if not models:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if not (all(m.training for m in models) or not any(m.training for m in models)):
        raise RuntimeError("stack_module_state: Expected all models to have the same training/eval mode.")
    if not all(type(m) is type(models[0]) for m in models):
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")

    def join(tensors: list[Tensor]) -> Tensor:
        stacked = ops.stack([t.detach() for t in tensors])
        return stacked.requires_grad_(tensors[0].requires_grad)

    params = {n: join([dict(m.named_parameters())[n] for m in models]) for n, _ in models[0].named_parameters()}
    buffers = {n: join([dict(m.named_buffers())[n] for m in models]) for n, _ in models[0].named_buffers()}
    return params, buffers


def functionalize(func: Callable[..., Any], *, remove: str = "mutations") -> Callable[..., Any]:
    """A function that computes with copies of its arguments, and writes what `func` wrote in place into the arguments at its end."""
    if remove not in ("mutations", "mutations_and_views"):
        raise RuntimeError(
            "functionalize(f, remove='mutations'): received an invalid argument for remove. Valid options are: "
            '"mutations", "mutations_and_views"'
        )

    @functools.wraps(func)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        leaves = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        before = [None if t.is_inference() else t._version for t in leaves]
        aliases = {id(t): t.clone() for t in leaves}
        inner_args, inner_kwargs = pytree.tree_map_only(Tensor, lambda t: aliases[id(t)], (args, kwargs))
        fresh = [None if t.is_inference() else aliases[id(t)]._version for t in leaves]
        result = func(*inner_args, **inner_kwargs)
        # The arguments themselves see what was written, as the last thing that happens.
        for t, version, start in zip(leaves, before, fresh, strict=True):
            alias = aliases[id(t)]
            if version is not None and alias._version != start:
                t.copy_(alias) if t.shape == alias.shape else t.set_(alias)
        return result

    return transformed


def replace_all_batch_norm_modules_(root: Any) -> Any:
    """Makes every batch norm of a module forget its running statistics, in place: it then normalises by the batch alone, which
    works inside `vmap`."""
    from ..nn.modules.batchnorm import _BatchNorm

    for module in root.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = None
            module.running_var = None
            module.num_batches_tracked = None
            module.track_running_stats = False
    return root


__all__ = [
    "debug_unwrap", "functional_call", "functionalize", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "replace_all_batch_norm_modules_", "stack_module_state", "vjp", "vmap",
]  # fmt: skip
