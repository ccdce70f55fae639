"""Operators over lists of tensors: each is the operator of one tensor, along the lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._flambeau import Tensor
from ._ops import ops

_UNARY = (
    "abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "exp", "expm1", "floor", "frac", "lgamma", "log", "log10",
    "log1p", "log2", "neg", "reciprocal", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
)  # fmt: skip
_BINARY = ("add", "sub", "mul", "div", "pow", "clamp_max", "clamp_min", "maximum", "minimum")


def _along(value: Any, n: int, name: str) -> list[Any]:
    """A value for each tensor: the list's own, or one number or tensor for all."""
    if isinstance(value, (list, tuple)):
        if len(value) != n:
            raise RuntimeError(f"_foreach_{name}: lists must have the same number of tensors, got {n} and {len(value)}")
        return list(value)
    if isinstance(value, Tensor) and value.dim() == 1 and name in ("addcmul", "addcdiv"):
        return value.tolist()
    return [value] * n


def _each(name: str, function: Callable[..., Any], operands: int, inplace: bool, keywords: tuple[str, ...] = ()) -> Callable[..., Any]:
    def over(self: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        n = len(self)
        if n == 0 and operands:
            raise RuntimeError(f"_foreach_{name}: Tensor list must have at least one tensor.")
        columns = [_along(a, n, name) for a in args]
        named = {k: _along(v, n, name) for k, v in kwargs.items()}
        results = [
            function(t, *(c[i] for c in columns), **{k: v[i] for k, v in named.items()}) for i, t in enumerate(self)
        ]
        return None if inplace else tuple(results)

    over.__name__ = over.__qualname__ = f"_foreach_{name}{'_' if inplace else ''}"
    over.__doc__ = f"`{name}` of every tensor of a list{', in place' if inplace else ''}."
    return over


def _binary(name: str) -> Callable[..., Tensor]:
    operator = {"clamp_max": "minimum", "clamp_min": "maximum"}.get(name, name)

    def one(t: Tensor, other: Any, **kwargs: Any) -> Tensor:
        if operator in ("maximum", "minimum") and not isinstance(other, Tensor):
            return ops.clamp(t, **{"max" if operator == "minimum" else "min": other})
        if operator == "pow" and not isinstance(t, Tensor):
            return ops.pow(t, other)
        return getattr(ops, operator)(t, other, **kwargs)

    return one


def _fused(name: str) -> Callable[..., Tensor]:
    def one(t: Tensor, a: Tensor, b: Tensor, value: Any = 1) -> Tensor:
        return getattr(ops, name)(t, a, b, value=value)

    return one


def _in_place(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def one(t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        result = function(t, *args, **kwargs)
        if not ops.can_cast(result.dtype, t.dtype):
            raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {t.dtype}")
        return t.copy_(result)

    return one


def _method(name: str) -> Callable[..., Tensor]:
    method = getattr(Tensor, name + "_", None)
    if method is not None:
        return method
    return _in_place(getattr(ops, name))


def _pow(self: Any, exponent: Any) -> Any:
    """`pow` of every tensor of a list, or of one number to every tensor."""
    if isinstance(self, (int, float, complex)):
        return tuple(ops.pow(self, e) for e in exponent)
    return _each("pow", _binary("pow"), 1, False)(self, exponent)


def _norm(self: Sequence[Tensor], ord: Any = 2, dtype: Any = None) -> tuple[Tensor, ...]:
    """The norm of every tensor of a list."""
    return tuple(ops.operators["linalg.vector_norm"](t, ord, dtype=dtype) for t in self)


def _copy(self: Sequence[Tensor], src: Sequence[Tensor], non_blocking: bool = False) -> None:
    """Copies every tensor of one list into that of another."""
    for t, s in zip(self, src, strict=True):
        t.copy_(s, non_blocking=non_blocking)


def _zero(self: Sequence[Tensor]) -> None:
    """Fills every tensor of a list with zeros."""
    for t in self:
        t.zero_()


def _max(self: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The largest element of every tensor of a list."""
    return tuple(t.max() for t in self)


def functions() -> dict[str, Any]:
    """All of them, by name."""
    found: dict[str, Any] = {}
    for name in _UNARY:
        if hasattr(ops, name):
            found[f"_foreach_{name}"] = _each(name, getattr(ops, name), 0, False)
            found[f"_foreach_{name}_"] = _each(name, _method(name), 0, True)
    for name in _BINARY:
        found[f"_foreach_{name}"] = _each(name, _binary(name), 1, False)
        found[f"_foreach_{name}_"] = _each(name, _method(name) if name in ("add", "sub", "mul", "div", "pow") else _in_place(_binary(name)), 1, True)
    for name in ("addcmul", "addcdiv"):
        found[f"_foreach_{name}"] = _each(name, _fused(name), 2, False)
        found[f"_foreach_{name}_"] = _each(name, _in_place(_fused(name)), 2, True)
    found["_foreach_lerp"] = _each("lerp", ops.lerp, 2, False)
    found["_foreach_lerp_"] = _each("lerp", _in_place(ops.lerp), 2, True)
    found |= {
        "_foreach_pow": _pow,
        "_foreach_norm": _norm,
        "_foreach_copy_": _copy,
        "_foreach_zero_": _zero,
        "_foreach_max": _max,
    }
    return found


__all__ = ["functions"]
