"""Padding layers."""

from __future__ import annotations

from typing import Any

from ..._flambeau import Tensor
from .. import functional as F
from .module import Module
from .utils import _ntuple


class _Pad(Module):
    """Pads the last `_dims` dimensions; `padding` is one number or (left, right, top, bottom, …)."""

    _dims = 0
    _mode = "constant"

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = _ntuple(2 * self._dims)(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (self._dims + 1, self._dims + 2):
            raise ValueError(f"expected {self._dims + 1}D or {self._dims + 2}D input (got {input.dim()}D input)")
        return super().forward(input)


class _ReflectionPad(_Pad):
    _mode = "reflect"


class _ReplicationPad(_Pad):
    _mode = "replicate"


def _declare() -> list[str]:
    """One class for each mode and number of dimensions."""
    kinds: list[tuple[str, Any, str]] = [
        ("ConstantPad", _ConstantPad, "Pads with a constant"),
        ("ZeroPad", _ZeroPad, "Pads with zeros"),
        ("CircularPad", _CircularPad, "Pads with the opposite border"),
        ("ReflectionPad", _ReflectionPad, "Pads with the mirrored border"),
        ("ReplicationPad", _ReplicationPad, "Pads with the nearest border value"),
    ]
    names = []
    for kind, base, what in kinds:
        for dims in (1, 2, 3):
            name = f"{kind}{dims}d"
            members = {"_dims": dims, "__module__": __name__, "__doc__": f"{what} in the last {dims} dimension(s)."}
            globals()[name] = type(name, (base,), members)
            names.append(name)
    return names


ConstantPad1d: Any
ConstantPad2d: Any
ConstantPad3d: Any
ZeroPad1d: Any
ZeroPad2d: Any
ZeroPad3d: Any
CircularPad1d: Any
CircularPad2d: Any
CircularPad3d: Any
ReflectionPad1d: Any
ReflectionPad2d: Any
ReflectionPad3d: Any
ReplicationPad1d: Any
ReplicationPad2d: Any
ReplicationPad3d: Any

__all__ = _declare()  # type: ignore[assignment]  # noqa: PLE0605
