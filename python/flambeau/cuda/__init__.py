"""CUDA devices. Without one everything here answers quietly that there is none."""

from __future__ import annotations

from typing import Any

from .. import _flambeau, _memory

_current = 0


def is_available() -> bool:
    """Whether a CUDA device can be used."""
    return bool(_flambeau._cuda_is_available())


def device_count() -> int:
    """The number of CUDA devices."""
    return int(_flambeau._cuda_device_count())


def is_initialized() -> bool:
    """Whether CUDA is in use."""
    return is_available()


def init() -> None:
    """Does nothing: devices are opened when first used."""


def _index(device: Any) -> int:
    if device is None:
        return _current
    if isinstance(device, int):
        return device
    found = device if isinstance(device, _flambeau.device) else _flambeau.device(device)
    return _current if found.index is None else int(found.index)


def current_device() -> int:
    """The index of the device that `"cuda"` means."""
    return _current


def set_device(device: Any) -> None:
    """Says which device `"cuda"` means."""
    global _current
    index = _index(device)
    if index >= 0:
        setter = getattr(_flambeau, "_cuda_set_device", None)
        if setter is not None:
            setter(index)
        _current = index


def synchronize(device: Any = None) -> None:
    """Waits until a device has done everything it was given."""
    _flambeau._cuda_synchronize(_index(device))


def _optional(name: str, *args: Any) -> Any:
    function = getattr(_flambeau, name, None)
    if function is None:
        raise RuntimeError(f"flambeau.cuda: this build has no {name.removeprefix('_cuda_')}")
    return function(*args)


def get_device_name(device: Any = None) -> str:
    """A device's name."""
    return str(_optional("_cuda_device_name", _index(device)))


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """A device's compute capability."""
    return tuple(_optional("_cuda_device_capability", _index(device)))


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes that tensors use ("allocated") and bytes held, in use or cached ("reserved"), now and at most; empty without
    a device."""
    return _memory.stats(_index(device)) if is_available() else {}


def memory_allocated(device: Any = None) -> int:
    """Bytes that tensors use; 0 without a device."""
    return _memory.allocated(_index(device)) if is_available() else 0


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that tensors used since the start or since `reset_peak_memory_stats`; 0 without a device."""
    return _memory.max_allocated(_index(device)) if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """Bytes held, in use or cached; 0 without a device."""
    return _memory.reserved(_index(device)) if is_available() else 0


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes held since the start or since `reset_peak_memory_stats`; 0 without a device."""
    return _memory.max_reserved(_index(device)) if is_available() else 0


def reset_peak_memory_stats(device: Any = None) -> None:
    """Lets peaks count from here on."""
    if is_available():
        _memory.reset_peaks(_index(device))


reset_max_memory_allocated = reset_peak_memory_stats
reset_max_memory_cached = reset_peak_memory_stats


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The statistics as a table for people."""
    return _memory.summary(_index(device), f"cuda:{_index(device)}")


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Bytes free on the device, and bytes that it has."""
    free, total = _flambeau._cuda_memory_info(_index(device))
    return free, total


def empty_cache() -> None:
    """Gives cached memory back to the device."""
    if is_available():
        _memory.empty_cache(_current)


def manual_seed(seed: int) -> None:
    """Seeds the current device's stream; quietly nothing without a device."""
    if is_available():
        _optional("_cuda_manual_seed", int(seed))


manual_seed_all = manual_seed


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 can be used on the device."""
    return is_available()


class device:
    """Makes another device the one that `"cuda"` means, for a while."""

    def __init__(self, device: Any) -> None:
        self.index = _index(device)

    def __enter__(self) -> None:
        self._before = _current
        set_device(self.index)

    def __exit__(self, *exc: Any) -> None:
        set_device(self._before)


__all__ = [
    "current_device", "device", "device_count", "empty_cache", "get_device_capability", "get_device_name", "init",
    "is_available", "is_bf16_supported", "is_initialized", "manual_seed", "manual_seed_all", "max_memory_allocated",
    "max_memory_reserved", "mem_get_info", "memory_allocated", "memory_reserved", "memory_stats", "memory_summary",
    "reset_max_memory_allocated", "reset_max_memory_cached", "reset_peak_memory_stats", "set_device", "synchronize",
]  # fmt: skip
