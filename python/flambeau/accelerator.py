"""The accelerator of this machine, whatever its kind: the CUDA devices where there are any."""

from __future__ import annotations

from typing import Any

from . import _flambeau, cuda

__all__ = [
    "current_accelerator", "current_device_index", "device_count", "device_index", "empty_cache", "get_device_capability",
    "get_memory_info", "is_available", "max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved",
    "memory_stats", "reset_peak_memory_stats", "set_device_index", "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """Whether there is an accelerator that can be used."""
    return cuda.is_available()


def device_count() -> int:
    """How many devices the accelerator has; 0 without one."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Any:
    """The accelerator as a device without an index; None without one."""
    return _flambeau.device("cuda") if is_available() else None


def _index(device: Any) -> int:
    if not is_available():
        raise RuntimeError("torch.accelerator: there is no accelerator on this machine")
    if device is None:
        return cuda.current_device()
    if isinstance(device, int):
        return device
    device = _flambeau.device(device)
    if device.type != "cuda":
        raise ValueError(f"{device.type} doesn't match the current accelerator cuda.")
    return cuda.current_device() if device.index is None else int(device.index)


def current_device_index() -> int:
    """The index of the device that is used where none is named."""
    return _index(None)


def set_device_index(device: Any, /) -> None:
    """Makes a device the one that is used where none is named; a negative index changes nothing."""
    index = _index(device)
    if index >= 0:
        cuda.set_device(index)


class device_index:  # noqa: N801
    """`with device_index(1): …` uses a device for a while; None changes nothing."""

    def __init__(self, device: int | None, /) -> None:
        self._index = device
        self._before: int | None = None

    def __enter__(self) -> None:
        if self._index is not None:
            self._before = current_device_index()
            set_device_index(self._index)

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            set_device_index(self._before)


def synchronize(device: Any = None, /) -> None:
    """Waits until the device has done what was asked of it."""
    cuda.synchronize(_index(device))


def get_device_capability(device: Any = None, /) -> dict[str, Any]:
    """What the device supports: "supported_dtypes", the dtypes that tensors on it can have."""
    _index(device)
    known = (getattr(_flambeau, name) for name in dir(_flambeau))
    return {"supported_dtypes": {value for value in known if isinstance(value, _flambeau.dtype)}}


def memory_stats(device: Any = None, /) -> dict[str, int]:
    """Bytes that tensors use and bytes held, now and at most; empty without an accelerator."""
    return cuda.memory_stats(_index(device)) if is_available() else {}


def memory_allocated(device: Any = None, /) -> int:
    """Bytes of the device that tensors use; 0 without an accelerator."""
    return cuda.memory_allocated(_index(device)) if is_available() else 0


def max_memory_allocated(device: Any = None, /) -> int:
    """The most bytes that tensors used since the start or the last reset; 0 without an accelerator."""
    return cuda.max_memory_allocated(_index(device)) if is_available() else 0


def memory_reserved(device: Any = None, /) -> int:
    """Bytes of the device that are held, in use or cached; 0 without an accelerator."""
    return cuda.memory_reserved(_index(device)) if is_available() else 0


def max_memory_reserved(device: Any = None, /) -> int:
    """The most bytes held since the start or the last reset; 0 without an accelerator."""
    return cuda.max_memory_reserved(_index(device)) if is_available() else 0


def reset_peak_memory_stats(device: Any = None, /) -> None:
    """Lets peaks count from here on."""
    if is_available():
        cuda.reset_peak_memory_stats(_index(device))


def get_memory_info(device: Any = None, /) -> tuple[int, int]:
    """Bytes free on the device, and bytes that it has."""
    return cuda.mem_get_info(_index(device))


def empty_cache() -> None:
    """Gives blocks that no tensor uses back to the device."""
    if is_available():
        cuda.empty_cache()
