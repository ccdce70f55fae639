"""Switches of backends, kept so that programs that set them run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


def _flags(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**values)


cudnn = _flags(
    enabled=True, benchmark=False, deterministic=True, allow_tf32=False, is_available=lambda: False, version=lambda: None
)
cuda = _flags(
    matmul=_flags(allow_tf32=False, allow_fp16_reduced_precision_reduction=False, allow_bf16_reduced_precision_reduction=False),
    is_built=lambda: True,
    flash_sdp_enabled=lambda: True,
    enable_flash_sdp=lambda enabled: None,
    enable_mem_efficient_sdp=lambda enabled: None,
    enable_math_sdp=lambda enabled: None,
)
mps = _flags(is_available=lambda: False, is_built=lambda: False)
mkl = _flags(is_available=lambda: False)
mkldnn = _flags(is_available=lambda: False, enabled=False)
openmp = _flags(is_available=lambda: False)
