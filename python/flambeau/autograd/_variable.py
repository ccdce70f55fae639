"""`Variable`, by which old programs make tensors that require gradients."""

from __future__ import annotations

from typing import Any

from .._flambeau import Tensor


class _OfTensors(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_OfTensors):
    """`Variable(t)` is a tensor over the memory of `t`; every tensor is an instance."""

    def __new__(cls, data: Any = None, requires_grad: bool = False, volatile: Any = None) -> Any:
        """A tensor over the memory of `data`, outside its graph."""
        t = Tensor() if data is None else data.detach()
        return t.requires_grad_(requires_grad)


__all__ = ["Variable"]
