"""What the allocators have given out and hold, under the names of PyTorch's memory statistics; `None` is the CPU."""

from __future__ import annotations

from . import _flambeau

__all__ = ["allocated", "empty_cache", "max_allocated", "max_reserved", "reserved", "reset_peaks", "stats", "summary"]


def stats(index: int | None) -> dict[str, int]:
    """Bytes that tensors use ("allocated") and bytes that are held, in use or cached for reuse ("reserved")."""
    allocated, most_allocated, reserved, most_reserved = _flambeau._memory_stats(index)
    return {
        "allocated_bytes.all.current": allocated,
        "allocated_bytes.all.peak": most_allocated,
        "reserved_bytes.all.current": reserved,
        "reserved_bytes.all.peak": most_reserved,
    }


def allocated(index: int | None) -> int:
    return stats(index)["allocated_bytes.all.current"]


def max_allocated(index: int | None) -> int:
    return stats(index)["allocated_bytes.all.peak"]


def reserved(index: int | None) -> int:
    return stats(index)["reserved_bytes.all.current"]


def max_reserved(index: int | None) -> int:
    return stats(index)["reserved_bytes.all.peak"]


def reset_peaks(index: int | None) -> None:
    _flambeau._reset_peak_memory_stats(index)


def empty_cache(index: int | None) -> None:
    _flambeau._empty_cache(index)


def summary(index: int | None, title: str) -> str:
    """The statistics as a table for people."""
    rows = stats(index)
    lines = [f"{title}: memory in MiB", f"{'':10}{'now':>12}{'most':>12}"]
    for name in ("allocated", "reserved"):
        now, most = (rows[f"{name}_bytes.all.{when}"] / 2**20 for when in ("current", "peak"))
        lines.append(f"{name:10}{now:12.1f}{most:12.1f}")
    return "\n".join(lines)
