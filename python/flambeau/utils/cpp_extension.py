"""What builds C++ extensions for PyTorch; here it says what to use instead.

An extension is compiled against PyTorch's C++ library, which Flambeau does not have. The module is there so that programs which
build an extension only when they can may ask.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, NoReturn

_INSTEAD = (
    "flambeau builds no C++ or CUDA extensions of PyTorch: write the operator with tensor operators (flambeau.compile fuses them), with "
    "flambeau.autograd.Function where it needs a gradient of its own, or in Rust over the crate `flambeau`; arrays go to other "
    "libraries without a copy through flambeau.utils.dlpack"
)


def _toolkit() -> str | None:
    for found in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if found:
            return found
    compiler = shutil.which("nvcc")
    if compiler is not None:
        return os.path.dirname(os.path.dirname(os.path.realpath(compiler)))
    return "/usr/local/cuda" if os.path.exists("/usr/local/cuda") else None


CUDA_HOME = _toolkit()
ROCM_HOME = None
CUDNN_HOME = os.environ.get("CUDNN_HOME") or os.environ.get("CUDNN_PATH")
IS_HIP_EXTENSION = False


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises, and says what to use instead."""
    raise RuntimeError(_INSTEAD)


load = load_inline = CppExtension = CUDAExtension = SyclExtension = include_paths = library_paths = _refuse


class BuildExtension:
    """The command `build_ext` of setuptools; making one says what to use instead."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(_INSTEAD)

    @classmethod
    def with_options(cls, **options: Any) -> Any:
        """A class with other defaults, as PyTorch has it."""
        return type(cls.__name__, (cls,), {})


def is_ninja_available() -> bool:
    """Whether the build tool ninja is there."""
    return shutil.which("ninja") is not None


def verify_ninja_availability() -> None:
    """Raises where ninja is not there."""
    if not is_ninja_available():
        raise RuntimeError("Ninja is required to load C++ extensions (pip install ninja to get it)")


def check_compiler_ok_for_platform(compiler: str) -> bool:
    """Whether a compiler of this name is there."""
    return shutil.which(compiler) is not None


__all__ = [
    "BuildExtension", "CUDAExtension", "CppExtension", "SyclExtension", "check_compiler_ok_for_platform", "include_paths",
    "is_ninja_available", "library_paths", "load", "load_inline", "verify_ninja_availability",
]  # fmt: skip
