"""Names for what arguments may be."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, TypeAlias

from ._flambeau import Size, Tensor
from ._flambeau import device as _device

_int = builtins.int
_float = builtins.float
_bool = builtins.bool
_complex = builtins.complex
_TensorOrTensors: TypeAlias = Tensor | Sequence[Tensor]
_size: TypeAlias = Size | list[int] | tuple[int, ...]
_symsize = _size
_dispatchkey: TypeAlias = str
Number: TypeAlias = int | float | bool
Device: TypeAlias = _device | str | int | None
IntLikeType: TypeAlias = int
FloatLikeType: TypeAlias = float
BoolLikeType: TypeAlias = bool
PySymType: TypeAlias = Any
Storage: TypeAlias = Any

__all__ = ["BoolLikeType", "Device", "FloatLikeType", "IntLikeType", "Number", "PySymType", "Storage"]
