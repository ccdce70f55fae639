"""Batches in memory from which devices copy by themselves."""

from __future__ import annotations

from typing import Any

from .... import _flambeau
from ... import _pytree as pytree


def pin_memory(data: Any, device: Any = None) -> Any:
    """The data with every tensor in pinned memory, where there is a device that gains from it."""
    if not _flambeau._cuda_is_available():
        return data
    return pytree.tree_map_only(_flambeau.Tensor, lambda t: t.pin_memory(), data)


__all__ = ["pin_memory"]
