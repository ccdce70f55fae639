"""The version, and what the package was built for."""

from __future__ import annotations

from . import _flambeau

__version__: str = getattr(_flambeau, "__version__", "0.1.0")
debug = False
# CUDA is opened at run time: nothing is built against one of its versions.
cuda: str | None = None
hip: str | None = None
xpu: str | None = None
git_version = "unknown"

__all__ = ["__version__", "cuda", "debug", "git_version", "hip", "xpu"]
