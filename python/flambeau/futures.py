"""Values that come later."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any


class Future:
    """A value that somebody will set, once."""

    def __init__(self, *, devices: Any = None) -> None:
        self._inner: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def done(self) -> bool:
        """Whether the value, or an exception in its place, is there."""
        return self._inner.done()

    def wait(self) -> Any:
        """The value, waited for."""
        return self._inner.result()

    def value(self) -> Any:
        """The value, which must be there."""
        if not self.done():
            raise RuntimeError("the future has no value yet: wait for it, or use then()")
        return self._inner.result()

    def set_result(self, result: Any) -> None:
        """Gives the value."""
        try:
            self._inner.set_result(result)
        except concurrent.futures.InvalidStateError:
            raise RuntimeError("Future can only be completed once") from None

    def set_exception(self, result: BaseException) -> None:
        """Gives an exception in place of the value."""
        if not isinstance(result, BaseException):
            raise AssertionError(f"{result} is of type {type(result)}, not an Exception.")
        self._inner.set_exception(result)

    def add_done_callback(self, callback: Callable[[Future], None]) -> None:
        """Calls a function with this future once it is done."""
        self._inner.add_done_callback(lambda _: callback(self))

    def then(self, callback: Callable[[Future], Any]) -> Future:
        """A future of what `callback` makes of this one."""
        result = Future()

        def run(_: Any) -> None:
            try:
                result.set_result(callback(self))
            except BaseException as failure:  # the future carries it
                result.set_exception(failure)

        self._inner.add_done_callback(run)
        return result


def collect_all(futures: list[Future]) -> Future:
    """A future of the list of futures, done when all are."""
    result = Future()
    if not futures:
        result.set_result([])
        return result
    left = [len(futures)]

    def one(_: Future) -> None:
        left[0] -= 1
        if left[0] == 0:
            failed = next((f for f in futures if f._inner.exception() is not None), None)
            if failed is None:
                result.set_result(list(futures))
            else:
                result.set_exception(failed._inner.exception())  # type: ignore[arg-type]

    for future in futures:
        future.add_done_callback(one)
    return result


def wait_all(futures: list[Future]) -> list[Any]:
    """The values of all futures, waited for."""
    return [f.wait() for f in collect_all(futures).wait()]


__all__ = ["Future", "collect_all", "wait_all"]
