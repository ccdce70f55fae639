"""Checks that raise, and the names of symbolic numbers, which are plain numbers here."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

from ._flambeau import Tensor


class _SymbolicNumber:
    """Kept for programs that test for it: sizes are plain numbers, and nothing is an instance of this."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{cls.__name__}: sizes are plain Python numbers, there are no symbolic ones")


class SymInt(_SymbolicNumber):
    """A symbolic integer; there are none."""


class SymFloat(_SymbolicNumber):
    """A symbolic number; there are none."""


class SymBool(_SymbolicNumber):
    """A symbolic truth value; there are none."""


def _check_with(error: type[Exception], cond: Any, message: Callable[[], str] | None) -> None:
    if not isinstance(cond, bool):
        raise TypeError(f"cond must be a bool, but got {type(cond)}")
    if cond:
        return
    if message is None:
        raise error("Expected cond to be True, but got False.")
    if not callable(message):
        raise TypeError("message must be a callable")
    raise error(str(message()))


def _check(cond: Any, message: Callable[[], str] | None = None) -> None:
    """Raises `RuntimeError` unless `cond` holds; `message` makes its text."""
    _check_with(RuntimeError, cond, message)


def _check_value(cond: Any, message: Callable[[], str] | None = None) -> None:
    """Raises `ValueError` unless `cond` holds."""
    _check_with(ValueError, cond, message)


def _check_index(cond: Any, message: Callable[[], str] | None = None) -> None:
    """Raises `IndexError` unless `cond` holds."""
    _check_with(IndexError, cond, message)


def _check_type(cond: Any, message: Callable[[], str] | None = None) -> None:
    """Raises `TypeError` unless `cond` holds."""
    _check_with(TypeError, cond, message)


def _check_not_implemented(cond: Any, message: Callable[[], str] | None = None) -> None:
    """Raises `NotImplementedError` unless `cond` holds."""
    _check_with(NotImplementedError, cond, message)


def _check_is_size(i: int, message: Callable[[], str] | None = None, *, max: int | None = None) -> None:
    """Raises `RuntimeError` unless a number can be a size."""
    _check(i >= 0, message)
    if max is not None:
        _check(i <= max, message)


def _check_tensor_all(cond: Tensor, message: Callable[[], str] | None = None) -> None:
    """Raises `RuntimeError` unless every element holds."""
    if not isinstance(cond, Tensor):
        raise TypeError(f"cond must be a tensor, but got {type(cond)}")
    _check(bool(cond.all().item()), message)


def _assert(condition: Any, message: str) -> None:
    """`assert` as a function."""
    assert condition, message


def _assert_async(condition: Tensor, message: str | None = None) -> None:
    """Raises `RuntimeError` unless a tensor of one element is true."""
    if not bool(condition):
        raise RuntimeError(message if message is not None else "Expected Tensor with single nonzero value, but got zero")


def sym_int(a: Any) -> int:
    """A number rounded towards zero."""
    return math.floor(a) if a >= 0 else math.ceil(a)


def sym_float(a: Any) -> float:
    """A number as a float."""
    return float(a)


def sym_not(a: Any) -> bool:
    """Not `a`."""
    return not a


def sym_max(a: Any, b: Any) -> Any:
    """The larger of two numbers; a float when one is."""
    return float(builtins.max(a, b)) if isinstance(a, float) or isinstance(b, float) else builtins.max(a, b)


def sym_min(a: Any, b: Any) -> Any:
    """The smaller of two numbers; a float when one is."""
    return float(builtins.min(a, b)) if isinstance(a, float) or isinstance(b, float) else builtins.min(a, b)


def sym_sum(args: Any) -> Any:
    """The sum of numbers."""
    return builtins.sum(args)


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    """`t` where `b` holds, else `f`."""
    return t if b else f


NAMES = (
    "SymInt", "SymFloat", "SymBool", "_check", "_check_value", "_check_index", "_check_type", "_check_not_implemented", "_check_is_size",
    "_check_tensor_all", "_assert", "_assert_async", "sym_int", "sym_float", "sym_not", "sym_max", "sym_min", "sym_sum", "sym_ite",
)  # fmt: skip
