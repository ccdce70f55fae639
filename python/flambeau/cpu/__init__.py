"""The CPU as a device: what PyTorch's `torch.cpu` answers, and what the caching allocator holds."""

from __future__ import annotations

from typing import Any

from .. import _flambeau

__all__ = ["current_device", "device_count", "is_available", "memory_stats", "set_device", "synchronize"]


def is_available() -> bool:
    """Always true."""
    return True


def device_count() -> int:
    """One: the host."""
    return 1


def current_device() -> str:
    """The host's name."""
    return "cpu"


def set_device(device: Any) -> None:
    """Does nothing: there is one."""


def synchronize(device: Any = None) -> None:
    """Does nothing: work on the CPU is done when a call returns."""


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes that tensors use and bytes that the allocator holds, in use or cached for reuse, under PyTorch's names.

    Small blocks of other threads are counted to within 256 KiB a thread.
    """
    used, held = _flambeau._cpu_memory_stats()
    return {"allocated_bytes.all.current": int(used), "reserved_bytes.all.current": int(held)}
