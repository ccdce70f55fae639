"""Parameters and buffers: tensors that a module registers by being assigned to it."""

from __future__ import annotations

from typing import Any

from .. import _flambeau
from .._flambeau import Tensor


class Parameter(Tensor):  # type: ignore[misc]
    """A tensor that becomes a module's parameter when it is assigned to an attribute."""

    # Parameters take the plain path of every operator; results are plain tensors.
    __torch_function__ = _flambeau._disabled_torch_function_impl

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        if data is None:
            data = _flambeau.empty(0)
        if type(data) is Tensor or type(data) is Parameter:
            return Tensor._make_subclass(cls, data, requires_grad)  # type: ignore[no-any-return]
        tensor = data.detach().requires_grad_(requires_grad)
        if type(tensor) is not type(data):
            raise RuntimeError(f"Creating a Parameter from an instance of type {type(data).__name__} requires that detach() keeps it")
        return Tensor._make_subclass(cls, tensor, requires_grad)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        if id(self) in memo:
            return memo[id(self)]  # type: ignore[no-any-return]
        with _flambeau_no_grad():
            result = type(self)(self.data.clone(), self.requires_grad)
        memo[id(self)] = result
        return result

    def __repr__(self) -> str:  # type: ignore[override]
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_parameter, (self.data, self.requires_grad)


def _flambeau_no_grad() -> Any:
    from ..autograd.grad_mode import no_grad

    return no_grad()


def _rebuild_parameter(data: Tensor, requires_grad: bool) -> Parameter:
    return Parameter(data, requires_grad)


class Buffer(Tensor):  # type: ignore[misc]
    """A tensor that becomes a module's buffer when it is assigned to an attribute."""

    __torch_function__ = _flambeau._disabled_torch_function_impl

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        if data is None:
            data = _flambeau.empty(0)
        tensor = Tensor._make_subclass(cls, data, data.requires_grad)
        tensor.persistent = persistent
        return tensor  # type: ignore[no-any-return]


class UninitializedTensorMixin:
    """A placeholder whose shape a lazy module learns from its first input."""

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Gives the placeholder a shape; the values are not set."""
        device = self.data.device if device is None else device  # type: ignore[has-type]
        dtype = self.data.dtype if dtype is None else dtype  # type: ignore[has-type]
        self.data = _flambeau.empty(shape, device=device, dtype=dtype)
        self.__class__ = self.cls_to_become  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class UninitializedParameter(UninitializedTensorMixin, Parameter):
    """A parameter without a shape yet."""

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> UninitializedParameter:
        data = _flambeau.empty(0, device=device, dtype=dtype)
        return Tensor._make_subclass(cls, data, requires_grad)  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: dict[int, Any]) -> UninitializedParameter:
        if id(self) not in memo:
            memo[id(self)] = type(self)(self.requires_grad, self.data.device, self.data.dtype)
        return memo[id(self)]  # type: ignore[no-any-return]


class UninitializedBuffer(UninitializedTensorMixin, Tensor):  # type: ignore[misc]
    """A buffer without a shape yet."""

    cls_to_become = Tensor

    def __new__(cls, requires_grad: bool = False, device: Any = None, dtype: Any = None) -> UninitializedBuffer:
        data = _flambeau.empty(0, device=device, dtype=dtype)
        return Tensor._make_subclass(cls, data, requires_grad)  # type: ignore[no-any-return]


def is_lazy(param: Any) -> bool:
    """Whether a parameter or buffer still waits for its shape."""
    return isinstance(param, UninitializedTensorMixin)
