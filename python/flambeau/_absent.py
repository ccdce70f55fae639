"""Kinds of devices that there are none of: programs ask before they use them, and then get an answer."""

from __future__ import annotations

from typing import Any


def functions(kind: str) -> dict[str, Any]:
    """The functions of a module such as `flambeau.xpu`, for a kind of device that is not supported."""

    def is_available() -> bool:
        """False."""
        return False

    def device_count() -> int:
        """0."""
        return 0

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        """False."""
        return False

    def is_initialized() -> bool:
        """False."""
        return False

    def nothing(*args: Any, **kwargs: Any) -> None:
        """Does nothing: there is no such device."""

    def none_used(device: Any = None) -> int:
        """0 bytes."""
        return 0

    def refuse(*args: Any, **kwargs: Any) -> Any:
        """Raises: there is no such device."""
        raise RuntimeError(f"no {kind} device: flambeau runs on the CPU and on CUDA")

    names: dict[str, Any] = {
        "is_available": is_available,
        "device_count": device_count,
        "is_bf16_supported": is_bf16_supported,
        "is_initialized": is_initialized,
    }
    # As for CUDA without a device: seeding and freeing are no errors, asking about a device is one.
    for name in ("empty_cache", "manual_seed", "manual_seed_all", "seed", "seed_all", "reset_peak_memory_stats", "init"):
        names[name] = nothing
    for name in (
        "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_allocated_memory",
        "driver_allocated_memory", "recommended_max_memory",
    ):  # fmt: skip
        names[name] = none_used
    for name in (
        "current_device", "set_device", "get_device_name", "get_device_properties", "get_device_capability", "get_rng_state",
        "set_rng_state", "synchronize", "current_stream", "mem_get_info", "Stream", "Event",
    ):  # fmt: skip
        names[name] = refuse
    return names


__all__ = ["functions"]
