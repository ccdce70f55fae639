"""The standard library's `multiprocessing`, and processes started together.

Tensors travel between processes by value: what arrives has memory of its own.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing import *  # noqa: F403
from typing import Any

from .spawn import (
    ProcessContext,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    SpawnContext,
    spawn,
    start_processes,
)

_strategy = "file_system"


def get_all_sharing_strategies() -> set[str]:
    """The ways in which tensors can travel."""
    return {"file_descriptor", "file_system"}


def get_sharing_strategy() -> str:
    """The way in use."""
    return _strategy


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepted for compatibility: tensors travel by value."""
    global _strategy
    if new_strategy not in get_all_sharing_strategies():
        raise ValueError(f"unknown sharing strategy {new_strategy!r}")
    _strategy = new_strategy


def __getattr__(name: str) -> Any:
    return getattr(multiprocessing, name)


__all__ = [
    *multiprocessing.__all__,
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "SpawnContext",
    "get_all_sharing_strategies",
    "get_sharing_strategy",
    "set_sharing_strategy",
    "spawn",
    "start_processes",
]
