"""Functions written in Python that autocast computes in float32, as it does the extension's operators of that class."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from .. import _flambeau

F = TypeVar("F", bound=Callable[..., Any])
_HALF = (_flambeau.float16, _flambeau.bfloat16)


def single(function: F) -> F:
    """`function`, with half-precision tensors cast to float32 inside autocast and autocast off in its body."""

    @functools.wraps(function)
    def cast(*args: Any, **kwargs: Any) -> Any:
        if not _flambeau._autocast_on():
            return function(*args, **kwargs)
        device = next((a.device.type for a in (*args, *kwargs.values()) if isinstance(a, _flambeau.Tensor)), "meta")
        if device == "meta" or not _flambeau._is_autocast_enabled(device):
            return function(*args, **kwargs)
        if device == "cuda" and function.__name__ == "binary_cross_entropy":
            raise RuntimeError(
                "binary_cross_entropy is unsafe to autocast: its gradient overflows half types. Use "
                "binary_cross_entropy_with_logits (BCEWithLogitsLoss) on the values before the sigmoid"
            )
        _flambeau._set_autocast_enabled(device, False)
        try:
            return function(*map(_widen, args), **{name: _widen(a) for name, a in kwargs.items()})
        finally:
            _flambeau._set_autocast_enabled(device, True)

    return cast  # type: ignore[return-value]


def _widen(value: Any) -> Any:
    if isinstance(value, _flambeau.Tensor) and value.dtype in _HALF:
        return value.float()
    return value
