"""Activation checkpointing: forgets intermediate values and computes them again in backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from ..autograd.function import Function
from ..autograd.grad_mode import enable_grad, no_grad
from . import _pytree as pytree


class _Recompute(Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[..., Any], state: Any, *tensors: Tensor) -> Any:
        ctx.run, ctx.state = run, state
        ctx.save_for_backward(*tensors)
        with no_grad():
            return run(tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        inputs = [t.detach().requires_grad_(t.requires_grad) for t in ctx.saved_tensors]
        generator = _flambeau.default_generator
        before = generator.get_state() if ctx.state is not None else None
        if ctx.state is not None:
            generator.set_state(ctx.state)
        try:
            with enable_grad():
                outputs = ctx.run(tuple(inputs))
        finally:
            if before is not None:
                generator.set_state(before)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if isinstance(o, Tensor) and o.requires_grad and g is not None]
        if not pairs:
            raise RuntimeError("none of output has requires_grad=True, this checkpoint() is not necessary")
        # Parameters inside the function get their gradients here, the inputs through the return value.
        _flambeau._engine_backward(tuple(o for o, _ in pairs), tuple(g for _, g in pairs), False, False, None, True, True)
        return (None, None, *(t.grad for t in inputs))


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    context_fn: Any = None,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """Calls `function` without keeping its intermediate values; backward calls it again, with the same random draws."""
    if not _flambeau.is_grad_enabled():
        return function(*args, **kwargs)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    out_spec: list[Any] = []

    def run(tensors: tuple[Tensor, ...]) -> Any:
        full = list(leaves)
        for slot, tensor in zip(slots, tensors, strict=True):
            full[slot] = tensor
        inner_args, inner_kwargs = pytree.tree_unflatten(full, spec)
        outputs, shape = pytree.tree_flatten(function(*inner_args, **inner_kwargs))
        out_spec[:] = [shape]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    tensors = [leaves[i] for i in slots]
    state = _flambeau.default_generator.get_state() if preserve_rng_state else None
    # A function of parameters alone still needs to be recorded: an input that asks for gradients stands in.
    if not any(t.requires_grad for t in tensors):
        stand_in = _flambeau.empty(0).requires_grad_()
        tensors.append(stand_in)
        inner = run
        result = _Recompute.apply(lambda ts: inner(ts[:-1]), state, *tensors)
    else:
        result = _Recompute.apply(run, state, *tensors)
    return pytree.tree_unflatten(list(result) if isinstance(result, tuple) else [result], out_spec[0])


def checkpoint_sequential(
    functions: Any, segments: int, input: Any, use_reentrant: bool | None = None, **kwargs: Any
) -> Any:
    """Calls modules one after the other in checkpointed segments; the last one is kept."""
    functions = list(functions.children()) if hasattr(functions, "children") else list(functions)
    size = len(functions) // segments

    def span(start: int, stop: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for f in functions[start:stop]:
                x = f(x)
            return x

        return run

    stop = 0
    for start in range(0, size * (segments - 1), size):
        stop = start + size
        input = checkpoint(span(start, stop), input, use_reentrant=use_reentrant, **kwargs)
    return span(stop, len(functions))(input)


__all__ = ["checkpoint", "checkpoint_sequential"]
