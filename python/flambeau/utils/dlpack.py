"""Tensors to and from other libraries by DLPack."""

from __future__ import annotations

import enum
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor


class DLDeviceType(enum.IntEnum):
    """Kinds of devices, as DLPack numbers them."""

    kDLCPU = 1
    kDLCUDA = 2
    kDLCUDAHost = 3
    kDLOpenCL = 4
    kDLVulkan = 7
    kDLMetal = 8
    kDLVPI = 9
    kDLROCM = 10
    kDLROCMHost = 11
    kDLExtDev = 12
    kDLCUDAManaged = 13
    kDLOneAPI = 14
    kDLWebGPU = 15
    kDLHexagon = 16
    kDLMAIA = 17


def to_dlpack(tensor: Tensor) -> Any:
    """A capsule that lends the tensor's memory, once."""
    return _flambeau._to_dlpack(tensor, False, False)


def _number(device: Any) -> tuple[DLDeviceType, int]:
    if device.type == "cpu":
        return DLDeviceType.kDLCPU, 0
    if device.type == "cuda":
        return DLDeviceType.kDLCUDA, device.index or 0
    raise ValueError(f"Unknown device type {device.type} for Dlpack")


def dlpack_device(self: Tensor) -> tuple[DLDeviceType, int]:
    """The kind of device and its number, as DLPack counts them."""
    return _number(self.device)


def dlpack(
    self: Tensor,
    *,
    stream: Any = -1,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[Any, int] | None = None,
    copy: bool | None = None,
) -> Any:
    """A capsule over the tensor for another library's `from_dlpack`; a copy where `dl_device` or `copy` ask for one."""
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if self.is_conj():
        raise BufferError("Can't export tensors with the conjugate bit set")
    if stream is not None and not isinstance(stream, int):
        raise TypeError("stream must be ``int`` or ``none``")
    if stream not in (None, -1) and self.device.type == "cpu":
        raise AssertionError("stream should be None on cpu.")
    exported, copied = self, False
    if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != tuple(map(int, dlpack_device(self))):
        if copy is False:
            raise ValueError(f"cannot move the tensor from {self.device} to {dl_device} without copying.")
        kind = {1: "cpu", 2: "cuda"}.get(int(dl_device[0]))
        if kind is None:
            raise BufferError(f"unsupported device {dl_device} for Dlpack")
        exported, copied = self.to(kind if kind == "cpu" else f"{kind}:{int(dl_device[1])}"), True
    elif copy:
        exported, copied = self.clone(), True
    return _flambeau._to_dlpack(exported, max_version is not None and max_version[0] >= 1, copied)


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object with `__dlpack__`, or of a capsule."""
    if not hasattr(ext_tensor, "__dlpack__"):
        if device is not None or copy is not None:
            raise AssertionError("device and copy kwargs not supported when ext_tensor is already a DLPack capsule.")
        return _flambeau._from_dlpack(ext_tensor)  # type: ignore[no-any-return]
    options: dict[str, Any] = {"max_version": (1, 0)}
    if copy is not None:
        options["copy"] = copy
    kind, index = ext_tensor.__dlpack_device__()
    if device is not None:
        wanted = device if isinstance(device, _flambeau.device) else _flambeau.device(device)
        number = _number(wanted)
        options["dl_device"] = (int(number[0]), number[1])
    if int(kind) == int(DLDeviceType.kDLCUDA):
        # The consumer's stream: the default one.
        options["stream"] = 1
    try:
        capsule = ext_tensor.__dlpack__(**options)
    except TypeError:
        # A library that knows the protocol's first version only.
        options.pop("max_version")
        if copy is None and device is None:
            capsule = ext_tensor.__dlpack__(**options)
        else:
            raise
    return _flambeau._from_dlpack(capsule)  # type: ignore[no-any-return]


__all__ = ["DLDeviceType", "from_dlpack", "to_dlpack"]
