"""The older names of tensors by dtype: `FloatTensor(2, 3)`, `LongTensor([1, 2])`, `isinstance(x, FloatTensor)`."""

from __future__ import annotations

from typing import Any

from . import _flambeau
from ._flambeau import Tensor
from ._ops import ops

_DTYPES = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16", "ByteTensor": "uint8",
    "CharTensor": "int8", "ShortTensor": "int16", "IntTensor": "int32", "LongTensor": "int64", "BoolTensor": "bool",
}  # fmt: skip


class _TensorType(type):
    """The type of these types: an instance is a tensor of the dtype, on the device."""

    dtype: Any
    is_cuda: bool

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype == cls.dtype and instance.is_cuda == cls.is_cuda

    def __call__(cls, *args: Any, data: Any = None, device: Any = None) -> Any:
        """A tensor of the data, or of the sizes with whatever the memory held."""
        args = args if data is None else (data, *args)
        device = device if device is not None else "cuda" if cls.is_cuda else "cpu"
        if len(args) == 1 and not isinstance(args[0], (int, _flambeau.Size)):
            data = args[0]
            if isinstance(data, Tensor) and data.dtype != cls.dtype:
                raise TypeError(f"expected {cls.__name__} (got {data.type()})")
            return data if isinstance(data, Tensor) else ops.tensor(data, dtype=cls.dtype, device=device)
        sizes = args[0] if len(args) == 1 and isinstance(args[0], _flambeau.Size) else args
        return ops.empty(tuple(sizes) if args else (0,), dtype=cls.dtype, device=device)

    def __repr__(cls) -> str:
        return f"<class 'torch.{'cuda.' if cls.is_cuda else ''}{cls.__name__}'>"


def types(module: str, cuda: bool) -> dict[str, Any]:
    """The types, by name."""
    return {
        name: _TensorType(name, (), {"dtype": getattr(_flambeau, dtype), "is_cuda": cuda, "__module__": module})
        for name, dtype in _DTYPES.items()
    }


__all__ = ["types"]
