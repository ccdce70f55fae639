"""`autocast`: regions in which operators choose their precision. The classes of operators are the extension's."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from .. import _flambeau
from ..utils import _pytree as pytree

_nesting = threading.local()


def is_autocast_available(device_type: str) -> bool:
    """Whether `autocast` knows this kind of device."""
    return device_type in ("cpu", "cuda")


class autocast:
    """A region (context manager or decorator) in which products run in `dtype` and what loses precision in float32.

    Nested regions may switch it off and on again; casts of parameters are kept until the outermost region ends.
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        device_type = device_type.split(":")[0]
        if not is_autocast_available(device_type):
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        self.device = device_type
        self.fast_dtype = _flambeau._get_autocast_dtype(device_type) if dtype is None else dtype
        self._cache_enabled = _flambeau.is_autocast_cache_enabled() if cache_enabled is None else cache_enabled
        if device_type == "cuda" and enabled and not _flambeau._cuda_is_available():
            warnings.warn("User provided device_type of 'cuda', but CUDA is not available. Disabling", stacklevel=2)
            enabled = False
        if enabled and self.fast_dtype not in (_flambeau.bfloat16, _flambeau.float16):
            warnings.warn(
                f"In {device_type} autocast, but the target dtype {self.fast_dtype} is not supported. Disabling autocast. "
                "Autocast only supports torch.bfloat16 and torch.float16.",
                stacklevel=2,
            )
            enabled = False
        self._enabled = enabled
        self._previous: list[tuple[bool, Any, bool]] = []

    def __enter__(self) -> autocast:
        self._previous.append(
            (
                _flambeau._is_autocast_enabled(self.device),
                _flambeau._get_autocast_dtype(self.device),
                _flambeau.is_autocast_cache_enabled(),
            )
        )
        _flambeau._set_autocast_dtype(self.device, self.fast_dtype)
        _flambeau._set_autocast_enabled(self.device, self._enabled)
        _flambeau.set_autocast_cache_enabled(self._cache_enabled)
        _nesting.depth = getattr(_nesting, "depth", 0) + 1
        return self

    def __exit__(self, *exc: Any) -> None:
        _nesting.depth -= 1
        if _nesting.depth == 0:
            _flambeau.clear_autocast_cache()
        on, dtype, caching = self._previous.pop()
        _flambeau._set_autocast_enabled(self.device, on)
        _flambeau._set_autocast_dtype(self.device, dtype)
        _flambeau.set_autocast_cache_enabled(caching)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return func(*args, **kwargs)

        return decorated


def _cast(value: Any, device_type: str, dtype: Any) -> Any:
    def one(t: Any) -> Any:
        change = t.is_floating_point() and t.device.type == device_type and t.dtype != _flambeau.float64
        return t.to(dtype) if change else t

    return pytree.tree_map_only(_flambeau.Tensor, one, value)


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorates a custom function's `forward`: its tensors are cast to `cast_inputs` and autocast is off inside."""
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        ctx = args[0]
        ctx._dtype = _flambeau._get_autocast_dtype(device_type)
        on = _flambeau._is_autocast_enabled(device_type)
        ctx._fwd_used_autocast = on and cast_inputs is None
        if not on or cast_inputs is None:
            return fwd(*args, **kwargs)
        with autocast(device_type, enabled=False):
            return fwd(*_cast(args, device_type, cast_inputs), **_cast(kwargs, device_type, cast_inputs))

    return decorated


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorates a custom function's `backward`: it runs with autocast as `forward` did."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, enabled=args[0]._fwd_used_autocast, dtype=args[0]._dtype):
            return bwd(*args, **kwargs)

    return decorated


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on for a kind of device (CUDA where none is named)."""
    return bool(_flambeau._is_autocast_enabled(device_type or "cuda"))


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Turns autocast on or off for a kind of device (CUDA where only a bool is given)."""
    if enabled is None:
        device_type, enabled = "cuda", device_type
    _flambeau._set_autocast_enabled(device_type, bool(enabled))


def get_autocast_dtype(device_type: str) -> Any:
    """The half type that autocast uses on a kind of device."""
    return _flambeau._get_autocast_dtype(device_type)


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Changes the half type that autocast uses on a kind of device."""
    _flambeau._set_autocast_dtype(device_type, dtype)


def get_autocast_gpu_dtype() -> Any:
    """The half type of CUDA."""
    return get_autocast_dtype("cuda")


def get_autocast_cpu_dtype() -> Any:
    """The half type of the CPU."""
    return get_autocast_dtype("cpu")


def set_autocast_gpu_dtype(dtype: Any) -> None:
    """Changes the half type of CUDA."""
    set_autocast_dtype("cuda", dtype)


def set_autocast_cpu_dtype(dtype: Any) -> None:
    """Changes the half type of the CPU."""
    set_autocast_dtype("cpu", dtype)


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast is on for the CPU."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """Turns autocast on or off for the CPU."""
    set_autocast_enabled("cpu", enabled)
