"""Members of tensors that are written in Python: protocols of other libraries, and what is no operator."""

from __future__ import annotations

import math
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


def resize(self: Tensor, *sizes: Any) -> Tensor:
    """The elements in other sizes, as `reshape` gives them; their count cannot change."""
    shape = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    count = math.prod(shape)
    if count != self.numel():
        raise RuntimeError(
            f"requested resize to {'x'.join(map(str, shape))} ({count} elements in total), but the given tensor has a size of "
            f"{'x'.join(map(str, self.shape))} ({self.numel()} elements): resize only changes the shape, resize_ changes the tensor"
        )
    return self.reshape(shape)


def resize_as(self: Tensor, tensor: Tensor) -> Tensor:
    """`resize` to another tensor's sizes."""
    return resize(self, tensor.shape)


def record_stream(self: Tensor, stream: Any) -> None:
    """Nothing to do: memory goes back to its allocator in the order of the one stream that there is."""


def dequantize(self: Tensor) -> Tensor:
    """The tensor in float32, which it is where nothing is quantized."""
    return self.to(ops.float32)


def is_distributed(self: Tensor) -> bool:
    """False: a tensor lies on one device."""
    return False


def map_(self: Tensor, tensor: Tensor, callable: Any) -> Tensor:
    """Replaces each element by `callable(element, other)`, called in Python, with the other tensor's element; on the CPU."""
    if self.requires_grad and ops.is_grad_enabled():
        raise RuntimeError("Can't call map_() on Variable that requires grad. Use var.detach().map_() instead.")
    if self.device.type != "cpu" or tensor.device.type != "cpu":
        raise RuntimeError("map_ is only implemented for tensors on the CPU")
    others = tensor.expand(self.shape).reshape(-1).tolist()
    values = [callable(a, b) for a, b in zip(self.reshape(-1).tolist(), others, strict=True)]
    return self.copy_(ops.as_tensor(values, dtype=self.dtype).reshape(self.shape))


def storage_type(self: Tensor) -> Any:
    """The type of the tensor's storage."""
    return type(self.storage())


def _cdata(self: Tensor) -> int:
    """A number that tells one living tensor from another."""
    return id(self)


def xpu(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Raises: there is no such device."""
    raise AssertionError("no XPU device: flambeau runs on the CPU and on CUDA")


def _absent(name: str, instead: str, failure: type[Exception] = NotImplementedError) -> Any:
    def member(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        raise failure(f"Tensor.{name}: {instead}")

    member.__name__ = name
    member.__doc__ = f"Raises: {instead}."
    return member


_QUANTIZED = "there are no quantized tensors; keep an integer tensor beside its scale and zero point"
_NESTED = "there are no nested tensors; pad by nn.utils.rnn.pad_sequence"


def install() -> None:
    """Adds the members to `Tensor`."""
    members: dict[str, Any] = {
        "__array_namespace__": __array_namespace__,
        "__array_wrap__": __array_wrap__,
        "__rdiv__": __rdiv__,
        "__dlpack__": _dlpack.dlpack,
        "__dlpack_device__": _dlpack.dlpack_device,
        "to_device": to_device,
        "_cdata": property(_cdata),
        "index": _absent("index", "there are no first-class dimensions; index with brackets, x[i, j]", TypeError),
        "solve": _absent("solve", "it is removed; flambeau.linalg.solve(A, B) takes its arguments the other way round", RuntimeError),
        **{name: _absent(name, _QUANTIZED) for name in ("int_repr", "q_scale", "q_zero_point")},
        **{name: _absent(name, _NESTED) for name in ("_nested_tensor_size", "to_padded_tensor")},
        "_make_wrapper_subclass": staticmethod(_absent("_make_wrapper_subclass", "tensors have memory; subclass by Tensor._make_subclass or as_subclass")),
        **{f.__name__: f for f in (dequantize, is_distributed, map_, record_stream, resize, resize_as, storage_type, xpu)},
    }
    for name, member in members.items():
        if name not in Tensor.__dict__:
            setattr(Tensor, name, member)


__all__ = ["install"]
