"""Switches of backends, kept so that programs that set them run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any


def _flags(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(**values)


def _module(name: str, **values: Any) -> ModuleType:
    """A module of switches, which `import flambeau.backends.NAME` finds."""
    full = f"{__name__}.{name}"
    made = ModuleType(full, f"Switches of {name}.")
    made.__spec__ = ModuleSpec(full, None)
    made.__dict__.update(values)
    sys.modules[full] = made
    return made


@contextmanager
def _cudnn_flags(
    enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10, deterministic: bool = False, allow_tf32: bool = True,
    fp32_precision: str = "none",
) -> Iterator[None]:  # fmt: skip
    """Sets the switches for a while."""
    given = {"enabled": enabled, "benchmark": benchmark, "deterministic": deterministic, "allow_tf32": allow_tf32}
    before = {name: getattr(cudnn, name) for name in given}
    cudnn.__dict__.update(given)
    try:
        yield
    finally:
        cudnn.__dict__.update(before)


@contextmanager
def _sdp_kernel(
    enable_flash: bool = True, enable_math: bool = True, enable_mem_efficient: bool = True, enable_cudnn: bool = True
) -> Iterator[None]:
    """Accepted: attention has one implementation."""
    if not (enable_flash or enable_math or enable_mem_efficient or enable_cudnn):
        raise RuntimeError("No viable backend for scaled_dot_product_attention was found.")
    yield


def _cpu_capability() -> str:
    """The vector level that kernels run at, by the names that programs know: DEFAULT, AVX2 or AVX512."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return "DEFAULT"
    return "AVX512" if "avx512bw" in flags else "AVX2" if "avx2" in flags else "DEFAULT"


cudnn = _module(
    "cudnn",
    enabled=True,
    benchmark=False,
    deterministic=True,
    allow_tf32=False,
    is_available=lambda: False,
    version=lambda: None,
    flags=_cudnn_flags,
)
cuda = _module(
    "cuda",
    matmul=_flags(
        allow_tf32=False, allow_fp16_reduced_precision_reduction=False, allow_bf16_reduced_precision_reduction=False
    ),
    is_built=lambda: True,
    flash_sdp_enabled=lambda: True,
    enable_flash_sdp=lambda enabled: None,
    enable_mem_efficient_sdp=lambda enabled: None,
    enable_math_sdp=lambda enabled: None,
    sdp_kernel=_sdp_kernel,
)
mps = _module(
    "mps",
    is_available=lambda: False,
    is_built=lambda: False,
    is_macos_or_newer=lambda major, minor: False,
    is_macos13_or_newer=lambda minor=0: False,
)
mkl = _module("mkl", is_available=lambda: False)
mkldnn = _module("mkldnn", is_available=lambda: False, enabled=False)
openmp = _module("openmp", is_available=lambda: False)
cpu = _module("cpu", get_cpu_capability=_cpu_capability)
