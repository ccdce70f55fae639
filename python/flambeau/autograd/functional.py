"""Jacobians, Hessians and products with them, for functions of tensors and tuples of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops
from .grad_mode import enable_grad


def _as_tuple(value: Any, what: str, name: str) -> tuple[bool, tuple[Tensor, ...]]:
    single = not isinstance(value, tuple)
    items = (value,) if single else value
    for i, t in enumerate(items):
        if not isinstance(t, Tensor):
            where = "" if single else f" at index {i}"
            raise TypeError(f"The {what} given to {name} must be either a Tensor or a tuple of Tensors but the value{where} has type {type(t)}.")
    return single, items


def _prepare(inputs: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    if create_graph:
        return tuple(t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs)
    return tuple(t.detach().requires_grad_() for t in inputs)


def _finish(result: Any, create_graph: bool) -> Any:
    if create_graph:
        return result
    if isinstance(result, tuple):
        return tuple(_finish(t, False) for t in result)
    return result.detach()


def _grads(
    outs: tuple[Tensor, ...], ins: tuple[Tensor, ...], seeds: tuple[Any, ...], create: bool, strict: bool = False, name: str = ""
) -> list[Tensor]:
    used = [(o, s) for o, s in zip(outs, seeds, strict=True) if o.requires_grad]
    found: Any = [None] * len(ins)
    if used:
        found = _flambeau._engine_backward(
            tuple(o for o, _ in used), tuple(s for _, s in used), True, create, ins, False, True
        )
    elif strict:
        raise RuntimeError(f"Output 0 of the user-provided function does not require gradients. The outputs must be computed in a differentiable manner from the input when running in strict mode ({name}).")
    if strict and any(g is None for g in found):
        i = [g is None for g in found].index(True)
        raise RuntimeError(f"Output of the user-provided function is independent of input {i}. This is not allowed in strict mode ({name}).")
    return [ops.zeros_like(x.detach()) if g is None else g for g, x in zip(found, ins, strict=True)]


def _cotangents(outs: tuple[Tensor, ...], v: Any, name: str) -> tuple[Tensor, ...]:
    if v is None:
        if len(outs) != 1 or outs[0].numel() != 1:
            raise RuntimeError(f"The vector v can only be None if the user-provided function returns a single Tensor with a single element ({name}).")
        return (ops.ones_like(outs[0].detach()),)
    _, given = _as_tuple(v, "v", name)
    if len(given) != len(outs):
        raise RuntimeError(f"v is a tuple of invalid length: should be {len(outs)} but got {len(given)}.")
    for i, (a, b) in enumerate(zip(given, outs, strict=True)):
        if a.shape != b.shape:
            raise RuntimeError(f"Entry {i} of v has invalid size: should be {b.shape} but got {a.shape}.")
    return given


def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The function's value and vᵀJ."""
    with enable_grad():
        single, raw = _as_tuple(inputs, "inputs", "vjp")
        ins = _prepare(raw, create_graph)
        out_single, outs = _as_tuple(func(*ins), "outputs of the user-provided function", "vjp")
        result = _grads(outs, ins, _cotangents(outs, v, "vjp"), create_graph, strict, "vjp")
    value = outs[0] if out_single else outs
    return _finish(value, create_graph), _finish(result[0] if single else tuple(result), create_graph)


def _push(outs: tuple[Tensor, ...], ins: tuple[Tensor, ...], v: tuple[Tensor, ...], create: bool) -> list[Tensor]:
    seeds = tuple(ops.ones_like(o.detach()).requires_grad_() for o in outs)
    back = tuple(_grads(outs, ins, seeds, True))
    return _grads(back, seeds, v, create)


def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The function's value and Jv."""
    with enable_grad():
        _, raw = _as_tuple(inputs, "inputs", "jvp")
        ins = _prepare(raw, create_graph)
        tangents = _cotangents(ins, v, "jvp")
        out_single, outs = _as_tuple(func(*ins), "outputs of the user-provided function", "jvp")
        if strict and not all(o.requires_grad for o in outs):
            raise RuntimeError(
                "Output 0 of the user-provided function does not require gradients. The outputs must be computed in a differentiable "
                "manner from the input when running in strict mode."
            )
        result = _push(outs, ins, tangents, create_graph)
    value = outs[0] if out_single else outs
    return _finish(value, create_graph), _finish(result[0] if out_single else tuple(result), create_graph)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: a tensor, or tuples by output and input where there are several."""
    if strategy not in ("reverse-mode", "forward-mode"):
        raise ValueError(f'Expected strategy to be either "forward-mode" or "reverse-mode", got: "{strategy}"')
    with enable_grad():
        single, raw = _as_tuple(inputs, "inputs", "jacobian")
        ins = _prepare(raw, create_graph)
        out_single, outs = _as_tuple(func(*ins), "outputs of the user-provided function", "jacobian")
        rows = []
        for out in outs:
            flat = out.reshape(-1)
            columns: list[list[Tensor]] = [[] for _ in ins]
            for j in range(out.numel()):
                seed = ops.zeros_like(flat.detach())
                seed[j] = 1
                for i, g in enumerate(_grads((flat,), ins, (seed,), create_graph, strict, "jacobian")):
                    columns[i].append(g)
            rows.append(
                tuple(
                    ops.stack(c, 0).reshape([*out.shape, *x.shape])
                    if c
                    else ops.zeros([*out.shape, *x.shape], dtype=out.dtype, device=out.device)
                    for c, x in zip(columns, ins, strict=True)
                )
            )
    result: Any = tuple(row[0] if single else row for row in rows)
    return _finish(result[0] if out_single else result, create_graph)


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a function with one scalar output."""
    single, raw = _as_tuple(inputs, "inputs", "hessian")

    def gradient(*args: Tensor) -> Any:
        out = _scalar(func(*args), "hessian")
        grads = _grads((out,), args, (ops.ones_like(out.detach()),), True, strict, "hessian")
        return grads[0] if single else tuple(grads)

    return jacobian(gradient, raw if not single else raw[0], create_graph, strict)


def _scalar(out: Any, name: str) -> Tensor:
    if not isinstance(out, Tensor):
        raise RuntimeError(f"The function given to {name} should return a single Tensor")
    if out.numel() != 1:
        raise RuntimeError(f"The Tensor returned by the function given to {name} should contain a single element")
    return out.reshape(())


def vhp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The function's value and vᵀH."""
    return _second(func, inputs, v, create_graph, strict, "vhp")


def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False) -> Any:
    """The function's value and Hv, by the derivative of the gradient's product with v."""
    return _second(func, inputs, v, create_graph, strict, "hvp")


def _second(func: Callable[..., Any], inputs: Any, v: Any, create_graph: bool, strict: bool, name: str) -> Any:
    with enable_grad():
        single, raw = _as_tuple(inputs, "inputs", name)
        ins = _prepare(raw, create_graph)
        given = _cotangents(ins, v, name)
        out = func(*ins)
        scalar = _scalar(out, name)
        grads = tuple(_grads((scalar,), ins, (ops.ones_like(scalar.detach()),), True, strict, name))
        if name == "vhp":
            result = _grads(grads, ins, given, create_graph)
        else:
            result = _push(grads, ins, given, create_graph)
    return _finish(out, create_graph), _finish(result[0] if single else tuple(result), create_graph)


__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
