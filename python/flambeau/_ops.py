"""The extension's operators under plain names, for the parts of the package that are written over them."""

from __future__ import annotations

from typing import Any

from . import _flambeau


class _Operators:
    """`ops.cat` is the operator registered as "cat"; what is no operator comes from the extension module."""

    def __init__(self) -> None:
        for name, function in _flambeau.operators.items():
            if "." not in name:
                self.__dict__[name] = function
                if not hasattr(_flambeau, name):
                    setattr(_flambeau, name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(_flambeau, name)


ops: Any = _Operators()
