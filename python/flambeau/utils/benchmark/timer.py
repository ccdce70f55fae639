"""`Timer`: how long a statement takes."""

from __future__ import annotations

import enum
import textwrap
import time
import timeit
from collections.abc import Callable
from typing import Any

from ... import _flambeau
from .common import Measurement, TaskSpec, set_torch_threads


class Language(enum.Enum):
    """What a statement is written in."""

    PYTHON = 0
    CPP = 1


def timer() -> float:
    """The time in seconds, when the device has done what it was given."""
    if _flambeau._cuda_is_available():
        _flambeau._cuda_synchronize()
    return time.perf_counter()


class Timer:
    """Times a statement of Python like `timeit.Timer`, with a first run for warming up, on `num_threads` threads (1 by default), and
    waiting for devices.
    """

    _timer_cls = timeit.Timer

    def __init__(
        self,
        stmt: str = "pass",
        setup: str = "pass",
        global_setup: str = "",
        timer: Callable[[], float] = timer,
        globals: dict[str, Any] | None = None,
        label: str | None = None,
        sub_label: str | None = None,
        description: str | None = None,
        env: str | None = None,
        num_threads: int = 1,
        language: Language | str = Language.PYTHON,
    ) -> None:
        if language in (Language.CPP, "cpp", "c++"):
            raise ValueError("Timer: statements are Python here; time C++ or Rust with its own tools")
        if language not in (Language.PYTHON, "py", "python"):
            raise ValueError(f"Invalid language `{language}`.")
        if global_setup:
            raise ValueError(
                f"global_setup is C++ only, got `{global_setup}`. Most likely this code can simply be moved to `setup`."
            )
        # The statement's own text, whatever it was indented by.
        stmt, setup = textwrap.dedent(stmt).strip(), textwrap.dedent(setup).strip()
        names = dict(globals or {})
        # As in PyTorch, statements may speak of torch without importing it.
        import flambeau

        names.setdefault("torch", flambeau)
        self._globals = names
        self._timer = self._timer_cls(stmt=stmt, setup=setup, timer=timer, globals=names)
        self._task_spec = TaskSpec(stmt, setup, global_setup, label, sub_label, description, env, num_threads)

    def _timeit(self, number: int) -> float:
        # A clock that stood still would make every rate infinite.
        return max(self._timer.timeit(number), 1e-9)

    def timeit(self, number: int = 1000000) -> Measurement:
        """The time of `number` runs."""
        with set_torch_threads(self._task_spec.num_threads):
            self._timeit(number=max(int(number // 100), 2))
            return Measurement(number, [self._timeit(number)], self._task_spec)

    def repeat(self, repeat: int = -1, number: int = -1) -> None:
        """Says what to use instead."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def autorange(self, callback: Callable[[int, float], Any] | None = None) -> None:
        """Says what to use instead."""
        raise NotImplementedError("See `Timer.blocked_autorange.`")

    def _block_size(self, min_run_time: float) -> int:
        """How many runs make a block that is long beside the clock's own call, and short beside the time there is."""
        with set_torch_threads(self._task_spec.num_threads):
            empty = self._timer_cls("pass", globals=self._globals)
            overhead = sorted(empty.timeit(0) for _ in range(5))[2]
            number = 1
            while True:
                taken = self._timeit(number)
                if overhead / taken <= 1e-4 and taken >= min_run_time / 1000:
                    return number
                if taken > min_run_time:
                    return number
                number *= 10

    def _measure(
        self,
        number: int,
        seconds: float,
        stop: Callable[[list[float]], bool],
        callback: Callable[[int, float], Any] | None,
    ) -> list[float]:
        """Blocks of runs until `stop` says so of the times."""
        times: list[float] = []
        with set_torch_threads(self._task_spec.num_threads):
            self._timeit(min(number, 2))
            total = 0.0
            while total < seconds or not stop(times):
                taken = self._timeit(number)
                if callback is not None:
                    callback(number, taken)
                times.append(taken)
                total += taken
        return times

    def blocked_autorange(
        self, callback: Callable[[int, float], Any] | None = None, min_run_time: float = 0.2
    ) -> Measurement:
        """Blocks of runs, chosen so that the clock does not count, for at least `min_run_time` seconds."""
        number = self._block_size(min_run_time)
        times = self._measure(number, min_run_time, bool, callback)
        return Measurement(number, times, self._task_spec)

    def adaptive_autorange(
        self,
        threshold: float = 0.1,
        *,
        min_run_time: float = 0.01,
        max_run_time: float = 10.0,
        callback: Callable[[int, float], Any] | None = None,
    ) -> Measurement:
        """Blocks of runs until the middle half of their times spreads less than `threshold` of the median, or `max_run_time` is over."""
        number = self._block_size(0.05)

        def settled(times: list[float]) -> bool:
            enough = len(times) > 3 and Measurement(number, times, self._task_spec).meets_confidence(threshold)
            return enough or sum(times) > max_run_time

        return Measurement(number, self._measure(number, min_run_time, settled, callback), self._task_spec)

    def collect_callgrind(
        self, number: int = 100, *, repeats: int | None = None, collect_baseline: bool = True, **_: Any
    ) -> Any:
        """Says what to use instead."""
        raise NotImplementedError(
            "Timer.collect_callgrind: instructions are not counted here; run the program under `valgrind --tool=callgrind` or `perf stat`"
        )


__all__ = ["Language", "Timer", "timer"]
