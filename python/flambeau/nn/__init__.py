"""Neural networks: modules, their functional forms, initial values and utilities."""

from __future__ import annotations

from typing import Any

from . import functional, init, modules, parameter, utils
from .modules import *  # noqa: F403
from .modules import Module
from .parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """The keyword arguments that say where and of what type a module makes its tensors."""
    if kwargs is None:
        return {}
    known = {"device", "dtype", "memory_format"}
    unknown = kwargs.keys() - known - {"factory_kwargs"}
    if unknown:
        raise TypeError(f"unexpected kwargs {unknown}")
    result = dict(kwargs.get("factory_kwargs", {}))
    for name in known & kwargs.keys():
        if name in result:
            raise TypeError(f"{name} specified twice, in **kwargs and in factory_kwargs")
        result[name] = kwargs[name]
    return result


def __getattr__(name: str) -> Any:
    if name in ("parallel", "attention", "intrinsic", "qat", "quantized"):
        from importlib import import_module

        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as failure:
            if failure.name != f"{__name__}.{name}":
                raise
    if name == "DataParallel":
        from .parallel import DataParallel

        return DataParallel
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    *modules.__all__,
    "Buffer",
    "Module",
    "Parameter",
    "UninitializedBuffer",
    "UninitializedParameter",
    "factory_kwargs",
    "functional",
    "init",
    "parameter",
    "utils",
]
