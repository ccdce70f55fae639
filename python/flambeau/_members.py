"""Members of tensors that are written in Python: protocols of other libraries, and what is no operator."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._flambeau import Tensor
from ._ops import ops
from .utils import dlpack as _dlpack

_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12")


def __array_namespace__(self: Tensor, *, api_version: str | None = None) -> Any:
    """The namespace of the array API in which its rules come before PyTorch's: `flambeau.array_api`."""
    if api_version is not None and api_version not in _VERSIONS:
        raise ValueError(f"unsupported version of the array API: {api_version!r}; there are {', '.join(_VERSIONS)}")
    return import_module(".array_api", __package__)


def to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on another device, itself where it is there already."""
    return self.to(device)


def __rdiv__(self: Tensor, other: Any) -> Tensor:
    """`other / self`, by the name that Python 2 had for it."""
    return self.reciprocal() * other


def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    """What NumPy's functions computed from this tensor, as a tensor again; truth values as uint8."""
    return ops.from_numpy(array.astype("uint8") if array.dtype == bool else array)


def install() -> None:
    """Adds the members to `Tensor`."""
    members: dict[str, Any] = {
        "__array_namespace__": __array_namespace__,
        "__array_wrap__": __array_wrap__,
        "__rdiv__": __rdiv__,
        "__dlpack__": _dlpack.dlpack,
        "__dlpack_device__": _dlpack.dlpack_device,
        "to_device": to_device,
    }
    for name, member in members.items():
        if name not in Tensor.__dict__:
            setattr(Tensor, name, member)


__all__ = ["install"]
