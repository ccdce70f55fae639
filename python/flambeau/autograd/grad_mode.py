"""Gradient modes, each a context manager and a decorator."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from .._flambeau import (
    _set_grad_enabled,
    _set_inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
)

F = TypeVar("F", bound=Callable[..., Any])

_forward_modes = 0


@contextmanager
def forward_mode() -> Iterator[None]:
    """Within it tangents will be asked for: functions that have a `jvp` of their own answer by it."""
    global _forward_modes
    _forward_modes += 1
    try:
        yield
    finally:
        _forward_modes -= 1


def in_forward_mode() -> bool:
    """Whether tangents will be asked for."""
    return _forward_modes > 0


class _Mode:
    """A context manager that also decorates functions, generators and classes' methods."""

    __slots__ = ()

    def _fresh(self) -> _Mode:
        return type(self)()

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exc: Any) -> None:
        raise NotImplementedError

    def __call__(self, function: F) -> F:
        if inspect.isclass(function):
            raise TypeError(f"{type(self).__name__} decorates functions, not classes")
        if inspect.isgeneratorfunction(function):
            return _wrap_generator(self._fresh, function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._fresh():
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def _wrap_generator(fresh: Callable[[], _Mode], function: Any) -> Any:
    """The mode holds while the generator's own code runs, and not between its values."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        generator = function(*args, **kwargs)
        try:
            with fresh():
                value = generator.send(None)
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    with fresh():
                        generator.close()
                    raise
                except BaseException as failure:
                    with fresh():
                        value = generator.throw(failure)
                else:
                    with fresh():
                        value = generator.send(sent)
        except StopIteration as end:
            return end.value

    return wrapped


class no_grad(_Mode):
    """Operators inside record no gradient."""

    __slots__ = ("_before",)

    def __new__(cls, function: Any = None) -> Any:
        self = object.__new__(cls)
        return self if function is None else self(function)

    def __enter__(self) -> None:
        self._before = is_grad_enabled()
        # Tangents are found through the graph, and no_grad does not end them.
        _set_grad_enabled(_forward_modes > 0 and self._before)

    def __exit__(self, *exc: Any) -> None:
        _set_grad_enabled(self._before)


class enable_grad(_Mode):
    """Operators inside record gradients, also within `no_grad`."""

    __slots__ = ("_before",)

    def __new__(cls, function: Any = None) -> Any:
        self = object.__new__(cls)
        return self if function is None else self(function)

    def __enter__(self) -> None:
        self._before = is_grad_enabled()
        _set_grad_enabled(True)

    def __exit__(self, *exc: Any) -> None:
        _set_grad_enabled(self._before)


class set_grad_enabled(_Mode):
    """Turns recording on or off at once; as a context manager, until its end."""

    __slots__ = ("_before", "mode")

    def __init__(self, mode: bool) -> None:
        self._before = is_grad_enabled()
        self.mode = bool(mode)
        _set_grad_enabled(self.mode)

    def _fresh(self) -> _Mode:
        return set_grad_enabled(self.mode)

    def __call__(self, function: F) -> F:
        # As a decorator it must not leave the mode behind in the code around the definition.
        _set_grad_enabled(self._before)
        return super().__call__(function)

    def __enter__(self) -> None:
        _set_grad_enabled(self.mode)

    def __exit__(self, *exc: Any) -> None:
        _set_grad_enabled(self._before)


class inference_mode(_Mode):
    """Operators inside record nothing at all, and their results can never enter a graph."""

    __slots__ = ("_before", "_grad_before", "mode")

    def __new__(cls, mode: Any = True) -> Any:
        self = object.__new__(cls)
        if isinstance(mode, bool):
            self.mode = mode
            return self
        self.mode = True
        return self(mode)

    def __init__(self, mode: Any = True) -> None:
        pass

    def _fresh(self) -> _Mode:
        return inference_mode(self.mode)  # type: ignore[no-any-return]

    def __enter__(self) -> None:
        self._before = is_inference_mode_enabled()
        self._grad_before = is_grad_enabled()
        _set_inference_mode(self.mode)
        _set_grad_enabled(not self.mode)

    def __exit__(self, *exc: Any) -> None:
        _set_inference_mode(self._before)
        _set_grad_enabled(self._grad_before)


class set_multithreading_enabled(_Mode):
    """Accepted for compatibility: the engine's results do not depend on threads."""

    __slots__ = ("mode",)

    def __init__(self, mode: bool) -> None:
        self.mode = mode

    def _fresh(self) -> _Mode:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: Any) -> None:
        pass


__all__ = [
    "enable_grad",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "set_grad_enabled",
    "set_multithreading_enabled",
]
