"""TorchScript's names. Functions and modules run as they are: there is no second language to translate them to, and `compile` is
what makes them fast."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Union, get_args, get_origin

from ..futures import Future
from ..nn import Module

ScriptModule = Module
RecursiveScriptModule = Module
TopLevelTracedModule = Module


class TracerWarning(Warning):
    """Kept for programs that silence it."""

    @staticmethod
    def ignore_lib_warnings() -> None:
        """Nothing to silence."""


class TensorType:
    """TorchScript's type of tensors; annotate with `flambeau.Tensor`."""

    @staticmethod
    def get() -> Any:
        """Raises: there is no TorchScript."""
        raise NotImplementedError("TensorType: there is no TorchScript; annotate with flambeau.Tensor")


class ScriptFunction:
    """Kept for programs that test for it; nothing is an instance of it."""


class Error(RuntimeError):
    """Kept for programs that catch it."""


def script(obj: Any, optimize: Any = None, _frames_up: int = 0, _rcb: Any = None, example_inputs: Any = None) -> Any:
    """The function, class or module itself."""
    if not callable(obj):
        raise TypeError(f"script takes a function, a class or a module, not {type(obj).__name__}")
    return obj


def script_method(fn: Any) -> Any:
    """The method itself."""
    return fn


def trace(func: Any = None, example_inputs: Any = None, *args: Any, example_kwarg_inputs: Any = None, **kwargs: Any) -> Any:
    """The function or module itself, after it has run on the example once."""
    if example_kwarg_inputs is not None:
        func(**example_kwarg_inputs)
    elif example_inputs is not None:
        func(*(example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)))
    return func


def trace_module(mod: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    """The module itself, after the named methods have run on their examples once."""
    for name, example in inputs.items():
        getattr(mod, name)(*(example if isinstance(example, (tuple, list)) else (example,)))
    return mod


def ignore(drop: Any = False, **kwargs: Any) -> Any:
    """A decorator that changes nothing."""
    return drop if callable(drop) else lambda fn: fn


def unused(fn: Any) -> Any:
    """A decorator that changes nothing."""
    return fn


def export(fn: Any) -> Any:
    """A decorator that changes nothing."""
    return fn


def interface(obj: Any) -> Any:
    """A decorator that changes nothing."""
    return obj


def script_if_tracing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


_script_if_tracing = script_if_tracing


def _overload(func: Any) -> Any:
    return func


def _overload_method(func: Any) -> Any:
    return func


def is_scripting() -> bool:
    """False: nothing is translated."""
    return False


def is_tracing() -> bool:
    """False: nothing is traced."""
    return False


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value."""
    return the_value


class Attribute(typing.NamedTuple):
    """A value with its type."""

    value: Any
    type: Any


def freeze(mod: Any, preserved_attrs: Any = None, optimize_numerics: bool = True) -> Any:
    """The module itself."""
    return mod


def optimize_for_inference(mod: Any, other_methods: Any = None) -> Any:
    """The module itself."""
    return mod


def set_fusion_strategy(strategy: Any) -> list[Any]:
    """Accepted for compatibility."""
    return []


@contextmanager
def optimized_execution(should_optimize: bool) -> Iterator[None]:
    """Accepted for compatibility."""
    yield


@contextmanager
def fuser(name: str) -> Iterator[None]:
    """Accepted for compatibility."""
    yield


def fork(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Future:
    """A future of the function's value, computed at once."""
    future = Future()
    try:
        future.set_result(func(*args, **kwargs))
    except BaseException as failure:  # the future carries it
        future.set_exception(failure)
    return future


def wait(future: Future) -> Any:
    """The future's value."""
    return future.wait()


def isinstance(obj: Any, target_type: Any) -> bool:  # noqa: A001
    """Whether a value is of a type, looking into containers: `List[int]`, `Dict[str, Tensor]`, `Optional[int]`."""
    if type(target_type) is tuple:
        return any(isinstance(obj, t) for t in target_type)
    origin, inner = get_origin(target_type), get_args(target_type)
    if origin is None:
        return _plain(obj, target_type)
    if origin is Union or origin is types.UnionType:
        return any(isinstance(obj, t) for t in inner)
    if origin is list:
        return type(obj) is list and all(isinstance(x, inner[0]) for x in obj)
    if origin is dict:
        return type(obj) is dict and all(isinstance(k, inner[0]) and isinstance(v, inner[1]) for k, v in obj.items())
    if origin is tuple:
        if not _plain(obj, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(isinstance(x, inner[0]) for x in obj)
        return len(obj) == len(inner) and all(isinstance(x, t) for x, t in zip(obj, inner, strict=True))
    return _plain(obj, origin)


def _plain(obj: Any, cls: Any) -> bool:
    return cls in type(obj).__mro__ if cls is not None else obj is None


def _refuse(what: str) -> Any:
    raise RuntimeError(
        f"jit.{what}: TorchScript archives hold programs in a language of their own, which flambeau does not run; save the "
        "module's state_dict and load it into the module's class"
    )


def save(m: Any, f: Any, _extra_files: Any = None) -> None:
    """Raises: there is no TorchScript."""
    _refuse("save")


def load(f: Any, map_location: Any = None, _extra_files: Any = None, _restore_shapes: bool = False) -> Any:
    """Raises: there is no TorchScript."""
    return _refuse("load")


__all__ = [
    "Attribute", "Error", "Final", "Future", "ScriptFunction", "ScriptModule", "TracerWarning", "annotate", "export", "fork", "freeze",
    "fuser", "ignore", "interface", "is_scripting", "is_tracing", "isinstance", "load", "optimize_for_inference",
    "optimized_execution", "save", "script", "script_if_tracing", "script_method", "set_fusion_strategy", "trace", "trace_module",
    "unused", "wait",
]  # fmt: skip
