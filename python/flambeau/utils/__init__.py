"""Utilities: data loading, checkpointing, trees, hooks."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_SUBMODULES = ("_pytree", "checkpoint", "data", "hooks", "dlpack", "tensorboard", "benchmark")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
