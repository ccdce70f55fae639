"""Workers."""

from __future__ import annotations

from typing import Any

from .._workers import get_worker_info


def __getattr__(name: str) -> Any:
    if name == "_worker_info":
        return get_worker_info()
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = ["get_worker_info"]
