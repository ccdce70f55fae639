"""`Function`: operators whose backward is written in Python."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from .. import _flambeau
from .._flambeau import Tensor
from ..utils import _pytree as pytree
from .grad_mode import enable_grad, in_forward_mode, no_grad


class VmapInfo(NamedTuple):
    """What a `vmap` rule is told: how many examples there are, and what random draws are to be."""

    batch_size: int
    randomness: str


# The levels of `vmap` that are being run, outermost first.
vmap_levels: list[tuple[int, VmapInfo]] = []
# Where a backward is running that sees one example of a batch: the level and the number of examples.
_examples: list[tuple[int, int]] = []

class FunctionCtx:
    """What a `Function` keeps between its forward and its backward.

    The extension reads the underscored attributes after `forward` (or `setup_context`) and fills `saved_tensors`
    before `backward`.
    """

    _to_save: tuple[Any, ...] = ()
    _to_save_forward: tuple[Any, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _non_differentiable: tuple[Tensor, ...] = ()
    _materialize_grads: bool = True
    needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps inputs or outputs for the backward, checked against later in-place changes."""
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors for `jvp`."""
        self._to_save_forward = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Says which inputs the forward changed in place."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Says which outputs carry no gradient."""
        self._non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether missing gradients arrive in backward as zeros (the default) or as None."""
        self._materialize_grads = value


class Function:
    """Base of custom operators: static `forward`, `backward` and, if wanted, `setup_context`, `jvp`, `vmap`."""

    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should invoke "
            "them on the class itself, with apply()."
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs; takes a context first unless the class has `setup_context`."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Keeps what backward needs when `forward` takes no context."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Computes the gradients of the inputs from those of the outputs."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with backward mode AD."
        )

    vjp = backward

    @staticmethod
    def jvp(ctx: Any, *grad_inputs: Any) -> Any:
        """Computes the tangents of the outputs from those of the inputs."""
        raise NotImplementedError("You must implement the jvp function for custom autograd.Function to use it with forward mode AD.")

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Says how the function acts on batched inputs."""
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or set generate_vmap_rule=True.")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs the function and records it."""
        if kwargs:
            # Keyword arguments are bound by the forward's own signature, since backward answers by position.
            import inspect

            own_context = cls.setup_context is Function.setup_context
            bound = inspect.signature(cls.forward).bind(*((None, *args) if own_context else args), **kwargs)
            bound.apply_defaults()
            args = bound.args[1:] if own_context else bound.args
        run = _by_jvp(cls, args) if in_forward_mode() and cls.jvp is not Function.jvp else cls
        for i in reversed(range(len(vmap_levels))):
            level, info = vmap_levels[i]
            if any(_batched(a, level) for a in args):
                # Outside the levels that the arguments are examples of.
                inner = vmap_levels[i:]
                del vmap_levels[i:]
                try:
                    return _by_rule(cls, args, level, info) if cls.vmap is not Function.vmap else _over_batch(run, args, level, info)
                finally:
                    vmap_levels.extend(inner)
        return _flambeau._function_apply(run, args)


def _batched(a: Any, level: int) -> bool:
    return isinstance(a, Tensor) and bool(_flambeau._is_batched_at(a, level))


def _over_batch(cls: Any, args: tuple[Any, ...], level: int, info: VmapInfo) -> Any:
    """A function over all examples of a batch as one node of the graph: forward and backward see one example each."""
    size = info.batch_size

    def whole(t: Any, level: int) -> Any:
        return _flambeau._remove_batch_dim(t, level, size, 0) if isinstance(t, Tensor) else t

    given = tuple(whole(a, level) if _batched(a, level) else a for a in args)
    mapped = tuple(_batched(a, level) for a in args)
    own_context = cls.setup_context is Function.setup_context

    def forward(ctx: Any, *values: Any) -> Any:
        ctx.own = own = FunctionCtx()
        own.needs_input_grad = ctx.needs_input_grad
        examples = tuple(_flambeau._add_batch_dim(v, 0, level) if m else v for v, m in zip(values, mapped, strict=True))
        if own_context:
            output = cls.forward(own, *examples)
        else:
            output = cls.forward(*examples)
            cls.setup_context(own, examples, output)
        if own._dirty:
            raise RuntimeError("vmap: a custom function that changes its inputs in place needs a vmap staticmethod of its own")
        ctx.single = not isinstance(output, tuple)
        outputs = (output,) if ctx.single else output
        results = tuple(whole(o, level) for o in outputs)
        ctx.mark_non_differentiable(
            *(r for o, r in zip(outputs, results, strict=True) if any(o is c for c in own._non_differentiable))
        )
        known = [*zip(examples, values, strict=True), *zip(outputs, results, strict=True)]
        kept = []
        ctx.kept_mapped = [isinstance(t, Tensor) and (_batched(t, level) or any(t is o for o in outputs)) for t in own._to_save]
        for t, m in zip(own._to_save, ctx.kept_mapped, strict=True):
            kept.append(next((v for e, v in known if e is t), whole(t, level) if m else t))
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(own._materialize_grads)
        return results[0] if ctx.single else results

    def backward(ctx: Any, *cotangents: Any) -> Any:
        again = _flambeau._vmap_enter(size, info.randomness)
        vmap_levels.append((again, info))
        _examples.append((again, size))
        try:

            def example(t: Any) -> Any:
                return _flambeau._add_batch_dim(t, 0, again) if isinstance(t, Tensor) else t

            ctx.own.saved_tensors = tuple(
                example(t) if m else t for t, m in zip(ctx.saved_tensors, ctx.kept_mapped, strict=True)
            )
            found = (cls.vjp if cls.backward is Function.backward else cls.backward)(ctx.own, *map(example, cotangents))
            found = found if isinstance(found, tuple) else (found,)
            results = []
            for g, m in zip(found, mapped, strict=True):
                if not isinstance(g, Tensor):
                    results.append(g)
                elif m:
                    results.append(whole(g, again))
                else:
                    results.append(whole(g, again).sum(0) if _batched(g, again) else g * size)
            return tuple(results)
        finally:
            _examples.pop()
            vmap_levels.pop()
            _flambeau._vmap_exit(again)

    node = type(cls.__name__, (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)})
    output = node.apply(*given)
    outputs = (output,) if isinstance(output, Tensor) else output
    results = tuple(_flambeau._add_batch_dim(o, 0, level) if isinstance(o, Tensor) else o for o in outputs)
    return results[0] if isinstance(output, Tensor) else results


def _by_rule(cls: Any, args: tuple[Any, ...], level: int, info: VmapInfo) -> Any:
    """Calls a function's own rule for batches."""
    dims = tuple(0 if _batched(a, level) else None for a in args)
    given = [a if d is None else _flambeau._remove_batch_dim(a, level, info.batch_size, 0) for a, d in zip(args, dims, strict=True)]
    result = cls.vmap(info, dims, *given)
    if not (isinstance(result, tuple) and len(result) == 2):
        raise RuntimeError(f"Expected the vmap staticmethod to have two returns, an output and out_dims with pytree compatible with the output. Got {type(result)}")
    output, out_dims = result
    leaves, spec = pytree.tree_flatten(output)
    where = pytree.broadcast_prefix(out_dims, output, "out_dims")
    return pytree.tree_unflatten(
        [
            _flambeau._add_batch_dim(t, d, level) if isinstance(t, Tensor) and d is not None else t
            for t, d in zip(leaves, where, strict=True)
        ],
        spec,
    )


def _by_jvp(cls: Any, args: tuple[Any, ...]) -> Any:
    """A function whose backward is the transpose of its `jvp`. Tangents, which are found by transposing backward, are then what `jvp`
    says.
    """
    from . import grad

    like = [
        (a.shape, a.dtype, a.device) if isinstance(a, Tensor) and a.requires_grad and (a.is_floating_point() or a.is_complex()) else None
        for a in args
    ]

    def seed(shape: Any, dtype: Any, device: Any) -> Tensor:
        ones = _flambeau.operators["ones"]
        if not _examples:
            return ones(shape, dtype=dtype, device=device).requires_grad_()  # type: ignore[no-any-return]
        # Every example has seeds of its own.
        level, size = _examples[-1]
        return _flambeau._add_batch_dim(ones((size, *shape), dtype=dtype, device=device), 0, level).requires_grad_()  # type: ignore[no-any-return]

    def keep(ctx: Any) -> None:
        if ctx._to_save_forward:
            ctx.save_for_backward(*ctx._to_save_forward)

    def forward(*given: Any) -> Any:
        output = cls.forward(*given)
        if cls.setup_context is Function.setup_context:
            keep(given[0])
        return output

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        cls.setup_context(ctx, inputs, output)
        keep(ctx)

    def backward(ctx: Any, *cotangents: Any) -> Any:
        with enable_grad():
            seeds = [None if of is None else seed(*of) for of in like]
            tangents = cls.jvp(ctx, *seeds)
            tangents = tangents if isinstance(tangents, tuple) else (tangents,)
            pairs = [
                (t, g) for t, g in zip(tangents, cotangents, strict=True) if isinstance(t, Tensor) and t.requires_grad and g is not None
            ]
            wanted = [s for s in seeds if s is not None]
            found: list[Any] = [None] * len(wanted)
            if pairs and wanted:
                found = list(grad([t for t, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True))
        return tuple(None if s is None else found.pop(0) for s in seeds)

    own = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    if cls.setup_context is not Function.setup_context:
        own["setup_context"] = staticmethod(setup_context)
    return type(cls.__name__, (cls,), own)


def once_differentiable(backward: Any) -> Any:
    """Marks a backward that cannot be differentiated itself: its result refuses a second backward."""
    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        recording = _flambeau.is_grad_enabled() and any(isinstance(g, Tensor) and g.requires_grad for g in grads)
        with no_grad():
            results = backward(ctx, *grads)
        if not recording:
            return results
        single = not isinstance(results, tuple)
        tensors = (results,) if single else results
        refused = tuple(_Refuse.apply(t) if isinstance(t, Tensor) else t for t in tensors)
        return refused[0] if single else refused

    return wrapped


class _Refuse(Function):
    """An identity that fails when somebody differentiates through it."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        out = tensor.detach().requires_grad_()
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("trying to differentiate twice a function that was marked with @once_differentiable")


class NestedIOFunction(Function):
    """A `Function` whose arguments may be nested containers: they are flattened around `apply`."""

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        leaves, _ = pytree.tree_flatten(args)
        return super().apply(*leaves, **kwargs)


BackwardCFunction = FunctionCtx
InplaceFunction = Function
