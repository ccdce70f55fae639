"""`autocast` and `GradScaler` with the device already chosen."""

from __future__ import annotations

from typing import Any

from ... import _flambeau
from ...amp import autocast_mode as _mode
from .grad_scaler import GradScaler


class autocast(_mode.autocast):
    """`torch.amp.autocast` for CUDA."""

    def __init__(self, enabled: bool = True, dtype: Any = _flambeau.float16, cache_enabled: bool = True) -> None:
        super().__init__("cuda", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


def custom_fwd(fwd: Any = None, *, cast_inputs: Any = None) -> Any:
    """`torch.amp.custom_fwd` for CUDA."""
    return _mode.custom_fwd(fwd, device_type="cuda", cast_inputs=cast_inputs)


def custom_bwd(bwd: Any = None) -> Any:
    """`torch.amp.custom_bwd` for CUDA."""
    return _mode.custom_bwd(bwd, device_type="cuda")


__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
