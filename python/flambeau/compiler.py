"""`compile`: regions whose operators are recorded, fused and run when their values are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from . import _flambeau
from .nn.modules.module import Module

_disabled = False


class _Region:
    """Records from its beginning to its end, where what was recorded runs. Regions inside regions belong to the outer one."""

    __slots__ = ()
    depth = 0

    def __enter__(self) -> None:
        if _Region.depth == 0:
            _flambeau._record_enter()
        _Region.depth += 1

    def __exit__(self, *exc: Any) -> None:
        _Region.depth -= 1
        if _Region.depth == 0:
            _flambeau._record_exit()


_region = _Region()


def _wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        if _disabled:
            return function(*args, **kwargs)
        with _region:
            return function(*args, **kwargs)

    return compiled


class OptimizedModule(Module):
    """A module whose calls are compiled; parameters, state and attributes are those of the original."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self._orig_mod = module
        self.__dict__["_compiled"] = _wrap(module)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_compiled"](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return super().__getattr__(name)
        return getattr(self.__dict__["_modules"]["_orig_mod"], name)

    def train(self, mode: bool = True) -> OptimizedModule:
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_compiled", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__["_compiled"] = _wrap(self._modules["_orig_mod"])


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: Any = None,
    mode: str | None = None,
    options: Any = None,
    disable: bool = False,
    **_: Any,
) -> Any:
    """A function or module whose operators are recorded and run fused, with eager's results to the bit.

    Python runs at every call, so nothing is guarded and nothing can break; the options choose between strategies of other
    compilers and are accepted without effect. Usable as a decorator with and without arguments.
    """
    if model is None:
        return lambda function: compile(function, disable=disable)
    if disable:
        return model
    if isinstance(model, OptimizedModule):
        return model
    if isinstance(model, Module):
        return OptimizedModule(model)
    if not callable(model):
        raise RuntimeError(f"compile() takes a function or a module, not {type(model).__name__}")
    return _wrap(model)


def disable(fn: Any = None, recursive: bool = True, **_: Any) -> Any:
    """A function that runs as it is; inside a region it is recorded like everything else."""
    return (lambda f: f) if fn is None else fn


def is_compiling() -> bool:
    """Whether a region is being recorded."""
    return _Region.depth > 0


is_dynamo_compiling = is_compiling


def allow_in_graph(fn: Any) -> Any:
    """Accepted for compatibility: every function is allowed."""
    return fn


def reset() -> None:
    """Forgets all plans."""
    clear = getattr(_flambeau, "_plan_clear", None)
    if clear is not None:
        clear()


def cudagraph_mark_step_begin() -> None:
    """Accepted for compatibility."""


def plan_stats() -> Any:
    """How many plans there are, how often they were found and made."""
    return _flambeau._plan_stats()


__all__ = ["OptimizedModule", "compile", "disable", "is_compiling", "plan_stats", "reset"]
