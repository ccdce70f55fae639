"""What was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from ... import _flambeau

# A measurement is worth a warning when the middle half of its times spreads wider than this share of the median.
_SPREAD_WARNING = 0.1
_SPREAD_STRONG_WARNING = 0.25
# Shorter differences than this cannot be told apart by the clock.
_LEAST_INTERVAL = 25e-9


@dataclasses.dataclass(init=True, repr=False, eq=True, frozen=True)
class TaskSpec:
    """The statement that was timed, and how it is called in tables."""

    stmt: str
    setup: str
    global_setup: str = ""
    label: str | None = None
    sub_label: str | None = None
    description: str | None = None
    env: str | None = None
    num_threads: int = 1

    @property
    def title(self) -> str:
        """Its name."""
        if self.label is not None:
            return self.label + (f": {self.sub_label}" if self.sub_label else "")
        if "\n" not in self.stmt:
            return self.stmt + (f": {self.sub_label}" if self.sub_label else "")
        return f"stmt:{f' ({self.sub_label})' if self.sub_label else ''}\n{textwrap.indent(self.stmt, '  ')}"

    def setup_str(self) -> str:
        """What ran before."""
        if self.setup == "pass" or not self.setup:
            return ""
        return f"\nsetup:\n{textwrap.indent(self.setup, '  ')}\n" if "\n" in self.setup else f"setup: {self.setup}"

    def summarize(self) -> str:
        """All of it as text."""
        return "\n".join(p for p in (self.title, self.description, self.setup_str()) if p)


@dataclasses.dataclass(init=True, repr=False)
class Measurement:
    """Times of a statement: `raw_times` seconds, each for `number_per_run` runs."""

    number_per_run: int
    raw_times: list[float]
    task_spec: TaskSpec
    metadata: dict[Any, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name != "task_spec" and hasattr(TaskSpec, name) or name in TaskSpec.__dataclass_fields__:
            return getattr(self.task_spec, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @property
    def times(self) -> list[float]:
        """Seconds a run."""
        return [t / self.number_per_run for t in self.raw_times]

    def _sorted(self) -> list[float]:
        if not self.raw_times:
            raise ValueError("No measurements")
        return sorted(self.times)

    @property
    def median(self) -> float:
        """Seconds a run."""
        return statistics.median(self._sorted())

    @property
    def mean(self) -> float:
        """Seconds a run."""
        return statistics.fmean(self._sorted())

    def _quantile(self, q: float) -> float:
        times = self._sorted()
        place = q * (len(times) - 1)
        low = int(place)
        high = min(low + 1, len(times) - 1)
        return times[low] + (times[high] - times[low]) * (place - low)

    @property
    def iqr(self) -> float:
        """How far the middle half of the times spreads."""
        return self._quantile(0.75) - self._quantile(0.25)

    @property
    def significant_figures(self) -> int:
        """How many digits of the median mean something: those above the 90 % interval of the middle half's mean."""
        times = self._sorted()
        middle = times[len(times) // 4 : math.ceil(3 * len(times) / 4)]
        interval = max(1.645 * statistics.pstdev(middle) / math.sqrt(len(middle)), _LEAST_INTERVAL)
        return min(max(math.floor(math.log10(self.median / interval)), 1), 5)

    @property
    def has_warnings(self) -> bool:
        """Whether the times spread too wide."""
        return not self.meets_confidence()

    def meets_confidence(self, threshold: float = _SPREAD_WARNING) -> bool:
        """Whether the middle half spreads less than `threshold` of the median."""
        return self.iqr / self.median < threshold

    @property
    def title(self) -> str:
        """The statement's name."""
        return self.task_spec.title

    @property
    def env(self) -> str | None:
        """Where it ran."""
        return self.task_spec.env

    @property
    def as_row_name(self) -> str:
        """Its name in tables."""
        return self.task_spec.sub_label or self.task_spec.stmt or "[Unknown]"

    def __repr__(self) -> str:
        out = [object.__repr__(self), self.task_spec.summarize()]
        count = len(self.raw_times)
        unit, scale = select_unit(self.median)
        if count > 1:
            out.append(f"  Median: {self.median / scale:.2f} {unit}")
            low, high = self._quantile(0.25), self._quantile(0.75)
            # Quarters of fewer times than four say nothing.
            if count >= 4:
                out.append(f"  IQR:    {self.iqr / scale:.2f} {unit} ({low / scale:.2f} to {high / scale:.2f})")
        else:
            out.append(f"  {self.median / scale:.2f} {unit}")
        runs = f"{self.number_per_run} runs {'per measurement, ' if count > 1 else ', '}"
        threads = self.task_spec.num_threads
        out.append(
            f"  {count} measurement{'s' if count > 1 else ''}, {runs}{threads} thread{'s' if threads > 1 else ''}"
        )
        if count >= 4 and self.has_warnings:
            cause = "significant" if not self.meets_confidence(_SPREAD_STRONG_WARNING) else "possible"
            out.append(
                f"  WARNING: Interquartile range is {self.iqr / self.median * 100:.1f}% of the median measurement."
            )
            out.append(f"           This suggests {cause} environmental influence.")
        return "\n".join(out)

    @staticmethod
    def merge(measurements: Iterable[Measurement]) -> list[Measurement]:
        """Measurements of the same statement as one, with every time for one run."""
        groups: dict[TaskSpec, list[Measurement]] = {}
        for m in measurements:
            groups.setdefault(m.task_spec, []).append(m)
        return [Measurement(1, [t for m in group for t in m.times], spec) for spec, group in groups.items()]


def select_unit(t: float) -> tuple[str, float]:
    """The unit in which `t` seconds is a small number, and its length in seconds."""
    unit = {-3: "ns", -2: "us", -1: "ms"}.get(math.floor(math.log10(t) / 3) if t > 0 else 0, "s")
    return unit, {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[unit]


def unit_to_english(u: str) -> str:
    """A unit's name."""
    return {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second"}[u]


def trim_sigfig(x: float, n: int) -> float:
    """`x` with `n` digits that are not zero."""
    if x == 0:
        return x
    scale = 10.0 ** (math.ceil(math.log10(abs(x))) - n)
    return round(x / scale) * scale


def ordered_unique(elements: Iterable[Any]) -> list[Any]:
    """The elements, each once, where it first was."""
    return list(dict.fromkeys(elements))


@contextlib.contextmanager
def set_torch_threads(n: int) -> Iterator[None]:
    """Within it, operators use `n` threads."""
    before = _flambeau.get_num_threads()
    try:
        _flambeau.set_num_threads(n)
        yield
    finally:
        _flambeau.set_num_threads(before)


__all__ = [
    "Measurement",
    "TaskSpec",
    "ordered_unique",
    "select_unit",
    "set_torch_threads",
    "trim_sigfig",
    "unit_to_english",
]
