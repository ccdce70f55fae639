"""`Compare`: measurements side by side."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from typing import Any

from .common import Measurement, ordered_unique, select_unit, trim_sigfig, unit_to_english

_BEST, _GOOD, _BAD, _VERY_BAD, _BOLD, _END = "\033[92m", "\033[34m", "\033[2m\033[91m", "\033[31m", "\033[1m", "\033[0m"


class Colorize(enum.Enum):
    """Among which times the best is coloured."""

    NONE = "none"
    COLUMNWISE = "columnwise"
    ROWWISE = "rowwise"


class Compare:
    """A table for each label: a row for each statement and number of threads, a column for each description."""

    def __init__(self, results: list[Measurement]) -> None:
        self._results: list[Measurement] = []
        self.extend_results(results)
        self._trim = self._warnings = False
        self._colorize = Colorize.NONE

    def extend_results(self, results: Iterable[Any]) -> None:
        """Adds measurements."""
        results = list(results)
        for r in results:
            if not isinstance(r, Measurement):
                raise ValueError(f"Expected an instance of `Measurement`, got {type(r)} instead.")
        self._results.extend(results)

    def trim_significant_figures(self) -> None:
        """Leaves out the digits that mean nothing."""
        self._trim = True

    def colorize(self, rowwise: bool = False) -> None:
        """Colours the best and the worst."""
        self._colorize = Colorize.ROWWISE if rowwise else Colorize.COLUMNWISE

    def highlight_warnings(self) -> None:
        """Marks times that spread too wide."""
        self._warnings = True

    def __str__(self) -> str:
        merged = Measurement.merge(self._results)
        tables = [self._table([m for m in merged if m.task_spec.label == label]) for label in self._labels(merged)]
        return "\n".join(tables)

    def _labels(self, merged: list[Measurement]) -> list[Any]:
        return ordered_unique(m.task_spec.label for m in merged)

    def print(self) -> None:
        """Prints the tables."""
        print(str(self))

    def _table(self, results: list[Measurement]) -> str:
        unit, scale = select_unit(min(m.median for m in results))
        columns = ordered_unique(m.task_spec.description for m in results)
        envs = ordered_unique(m.env for m in results)
        keys = ordered_unique((m.task_spec.num_threads, m.env, m.as_row_name) for m in results)
        found = {(m.task_spec.num_threads, m.env, m.as_row_name, m.task_spec.description): m for m in results}
        by_threads = ordered_unique(k[0] for k in keys)
        names = {k: "      " + (f"({k[1]})  " if len(envs) > 1 else "") + k[2] for k in keys}
        first = max(map(len, names.values()))
        cells: dict[tuple[Any, Any], str] = {}
        widths = {}
        for column in columns:
            measured = {k: found[(*k, column)] for k in keys if (*k, column) in found}
            texts = self._numbers(measured, scale)
            widths[column] = max([len(str(column or ""))] + [len(t) for t in texts.values()])
            cells.update({(k, column): t for k, t in texts.items()})
        length = first + sum(5 + w for w in widths.values())
        label = results[0].task_spec.label or ""
        out = ["[" + f" {label} ".center(length - 2, "-") + "]"]
        head = [" " * first] + [str(c or "").center(widths[c]) for c in columns]
        out.append("  |  ".join(head))
        for threads in by_threads:
            out.append(f"{threads} threads: ".ljust(length, "-"))
            for k in keys:
                if k[0] != threads:
                    continue
                row = [names[k].ljust(first)]
                for column in columns:
                    text = cells.get((k, column), "").rjust(widths[column])
                    row.append(self._coloured(text, k, column, keys, columns, found))
                out.append("  |  ".join(row))
        note = "(! XX%) Measurement has high variance, where XX is the IQR / median * 100.\n"
        marked = self._warnings and any(m.has_warnings for m in results)
        return "\n".join(out) + f"\n\nTimes are in {unit_to_english(unit)}s ({unit}).\n" + (note if marked else "")

    def _numbers(self, measured: dict[Any, Measurement], scale: float) -> dict[Any, str]:
        if not measured:
            return {}

        def digits(m: Measurement) -> int:
            return math.ceil(math.log10(m.median / scale))

        decimals = min(max(m.significant_figures - digits(m), 0) for m in measured.values()) if self._trim else 1
        texts = {}
        for k, m in measured.items():
            value = m.median / scale
            texts[k] = f"{trim_sigfig(value, m.significant_figures) if self._trim else value:.{decimals}f}"
            if self._warnings and m.has_warnings:
                texts[k] += f" (! {100 * m.iqr / m.median:.0f}%)"
        return texts

    def _coloured(
        self, text: str, k: Any, column: Any, keys: list[Any], columns: list[Any], found: dict[Any, Measurement]
    ) -> str:
        m = found.get((*k, column))
        if self._colorize is Colorize.NONE or m is None:
            return text
        if self._colorize is Colorize.ROWWISE:
            group = [found[(*k, c)] for c in columns if (*k, c) in found]
        else:
            group = [found[(*r, column)] for r in keys if r[0] == k[0] and (*r, column) in found]
        best = min(g.median for g in group)
        if m.median <= best * 1.05 or m.median - best < 5e-8:
            return f"{_BEST}{_BOLD}{text}{_END}{_END}"
        if m.median <= best * 1.1:
            return f"{_GOOD}{_BOLD}{text}{_END}{_END}"
        if m.median >= best * 10:
            return f"{_VERY_BAD}{_BOLD}{text}{_END}{_END}"
        if m.median >= best * 2:
            return f"{_BAD}{text}{_END}{_END}"
        return text


__all__ = ["Colorize", "Compare"]
