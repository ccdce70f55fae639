"""The CPU as a device: what PyTorch's `torch.cpu` answers, and what the caching allocator holds."""

from __future__ import annotations

from typing import Any

from .. import _memory

__all__ = [
    "current_device", "device_count", "empty_cache", "is_available", "max_memory_allocated", "memory_allocated",
    "memory_stats", "reset_peak_memory_stats", "set_device", "synchronize",
]  # fmt: skip


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
    """Bytes that tensors use and bytes that the allocator holds, in use or cached for reuse, now and at most, under
    PyTorch's names.

    Small blocks of other threads are counted to within 256 KiB a thread.
    """
    return _memory.stats(None)


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors use."""
    return _memory.allocated(None)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors used since the start or since `reset_peak_memory_stats`."""
    return _memory.max_allocated(None)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Lets peaks count from here on."""
    _memory.reset_peaks(None)


def empty_cache() -> None:
    """Gives blocks that no tensor uses back to the system."""
    _memory.empty_cache(None)
