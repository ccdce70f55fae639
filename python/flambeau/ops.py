"""Operators by the names that dispatchers have for them: `ops.aten.add.Tensor(x, y)`, and those that programs add.

An overload's name says which arguments the operator takes. The operators here tell that from the arguments, so every overload of an
operator is the same function."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from . import _flambeau
from . import library as _library
from ._flambeau import Tensor


def _slice(self: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    return self[(slice(None),) * (dim % max(self.dim(), 1)) + (slice(start, end, step),)]


def _require(condition: Any, message: str = "an asserted value is false") -> None:
    if not bool(condition):
        raise RuntimeError(message)


# Names under which dispatchers know what the public operators call otherwise.
_PRIVATE: dict[str, Callable[..., Any]] = {
    "alias": lambda self: self.view_as(self),
    "slice": _slice,
    "sym_size": lambda self, dim=None: self.shape if dim is None else self.shape[dim],
    "sym_numel": lambda self: self.numel(),
    "_to_copy": lambda self, *, layout=None, pin_memory=None, **kw: self.to(copy=True, **{k: v for k, v in kw.items() if v is not None}),
    "_unsafe_view": lambda self, size: self.reshape(size),
    "_assert_scalar": _require,
    "_assert_async": _require,
    "_local_scalar_dense": lambda self: self.item(),
    "_log_softmax": lambda self, dim, half_to_float=False: self.log_softmax(dim),
    "_softmax": lambda self, dim, half_to_float=False: self.softmax(dim),
}


def _find(name: str) -> Callable[..., Any] | None:
    if name in _PRIVATE:
        return _PRIVATE[name]
    operators = _flambeau.operators
    candidates = [name, f"nn.functional.{name}"]
    candidates += [f"{room}.{name[len(room) + 1 :]}" for room in ("linalg", "fft", "special") if name.startswith(room + "_")]
    for candidate in candidates:
        if candidate in operators:
            return operators[candidate]
    method = None if name.startswith("__") else getattr(Tensor, name, None)
    return method if callable(method) else getattr(sys.modules[__package__], name, None)


class OpOverload:
    """One overload of an operator."""

    def __init__(self, packet: OpOverloadPacket, overload: str) -> None:
        self.overloadpacket, self._overloadname = packet, overload
        self.__name__ = f"{packet.__name__}.{overload}"
        self.__doc__ = packet.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.overloadpacket(*args, **kwargs)

    def name(self) -> str:
        """`NAMESPACE::NAME`, and `.OVERLOAD` where it is not the default."""
        own = self.overloadpacket._qualified
        return own if self._overloadname == "default" else f"{own}.{self._overloadname}"

    @property
    def namespace(self) -> str:
        return self.overloadpacket._qualified.partition("::")[0]

    def __repr__(self) -> str:
        return f"<OpOverload(op={self.overloadpacket._qualified.replace('::', '.')!r}, overload={self._overloadname!r})>"


class OpOverloadPacket:
    """An operator, whose overloads are its attributes."""

    def __init__(self, namespace: str, name: str, function: Callable[..., Any]) -> None:
        self._qualified, self._function = f"{namespace}::{name}", function
        self.__name__, self.__doc__ = name, function.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getattr__(self, overload: str) -> OpOverload:
        if overload.startswith("__"):
            raise AttributeError(overload)
        self.__dict__[overload] = found = OpOverload(self, overload)
        return found

    def overloads(self) -> list[str]:
        """`["default"]`: the operator itself tells its overloads apart."""
        return ["default"]

    def __repr__(self) -> str:
        return f"<OpOverloadPacket(op={self._qualified.replace('::', '.')!r})>"


class _Namespace(types.ModuleType):
    def __getattr__(self, name: str) -> OpOverloadPacket:
        space = self.__name__.rpartition(".")[2]
        function = _find(name) if space in ("aten", "prims") and not name.startswith("__") else _library._REGISTERED.get(f"{space}::{name}")
        if function is None:
            raise AttributeError(f"there is no operator {space}::{name}")
        packet = OpOverloadPacket(space, name, function)
        if space in ("aten", "prims"):
            self.__dict__[name] = packet
        return packet


def load_library(path: Any) -> None:
    """Raises: libraries of operators are compiled against PyTorch's own C++ interface."""
    raise OSError(f"{path}: libraries of compiled PyTorch operators cannot be loaded; register Python functions by flambeau.library.custom_op")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    globals()[name] = found = _Namespace(f"{__name__}.{name}")
    return found
