"""A profile as text."""

from __future__ import annotations

from typing import Any

from .profiler_util import EventList, _format_memory, _format_share, _format_time, scale_flops

_WIDTH = 12
_GAP = 2
_UNITS = {"s": 1e-6, "ms": 1e-3, "us": 1.0}


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."


def _shorten_path(text: str, width: int) -> str:
    # The end of a path says more than its beginning.
    return text if len(text) <= width else "..." + text[len(text) - width + 3 :]


class _Columns:
    """Headers and the widths under them; `left` columns begin at their left edge."""

    def __init__(self) -> None:
        self.headers: list[str] = []
        self.widths: list[int] = []
        self.left: list[bool] = []

    def add(self, header: str, width: int = _WIDTH, left: bool = False) -> None:
        self.headers.append(header)
        self.widths.append(width)
        self.left.append(left)

    def row(self, cells: list[str]) -> str:
        parts = (c.ljust(w) if left else c.rjust(w) for c, w, left in zip(cells, self.widths, self.left, strict=True))
        return "".join(p + " " * _GAP for p in parts) + "\n"

    def rule(self) -> str:
        return self.row(["-" * w for w in self.widths])

    @property
    def length(self) -> int:
        return sum(self.widths) + _GAP * (len(self.widths) - 1)


def build(
    events: EventList,
    sort_by: str | None,
    row_limit: int,
    max_src: int,
    max_name: int,
    max_shapes: int,
    header: str | None,
    top_level_only: bool,
    time_unit: str | None,
) -> str:
    """The table of `EventList.table`."""
    if not events:
        return ""
    if time_unit is not None and time_unit not in _UNITS:
        raise ValueError(f"time_unit must be one of {sorted(_UNITS)}, not {time_unit!r}")

    def time(us: float) -> str:
        return _format_time(us) if time_unit is None else f"{us * _UNITS[time_unit]:.3f}{time_unit}"

    device = events._use_device
    has_device = device is not None and any(e.self_device_time_total > 0 for e in events)
    has_device_memory = device is not None and any(e.self_device_memory_usage != 0 for e in events)
    has_shapes = any(e.input_shapes for e in events)
    has_stack = any(e.stack for e in events)
    rows: list[Any] = list(events)
    if sort_by is not None:
        field = sort_by.replace("cuda", "device").replace("xpu", "device")
        if not hasattr(rows[0], field):
            raise AttributeError(f"events have no field {sort_by!r} to sort by")
        rows.sort(key=lambda e: getattr(e, field), reverse=True)

    def fitted(lengths: Any, most: int | None) -> int:
        width = max(lengths) + 4
        return width if most is None else min(width, most)

    columns = _Columns()
    name_width = fitted((len(e.key) for e in rows), max_name)
    columns.add("Name", name_width)
    for title in ("Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg"):
        columns.add(title)
    label = (device or "").upper()
    if has_device:
        for title in (f"Self {label}", f"Self {label} %", f"{label} total", f"{label} time avg"):
            columns.add(title)
    if events._profile_memory:
        columns.add("CPU Mem")
        columns.add("Self CPU Mem")
        if has_device_memory:
            columns.add(f"{label} Mem")
            columns.add(f"Self {label} Mem")
    columns.add("# of Calls")
    shapes_width = src_width = 0
    if has_shapes:
        shapes_width = fitted((len(str(e.input_shapes)) for e in rows), max_shapes)
        columns.add("Input Shapes", shapes_width)
    if has_stack:
        src_width = fitted((len(frame) for e in rows for frame in e.stack), max_src)
        columns.add("Source Location", src_width, left=True)
    most_flops = max((e.flops or 0 for e in rows), default=0) if events._with_flops else 0
    flops_scale, flops_unit = scale_flops(most_flops)
    if most_flops > 0:
        columns.add(f"Total {flops_unit}")

    total_cpu = sum(e.self_cpu_time_total for e in events)
    total_device = sum(e.self_device_time_total for e in events)
    out = []
    if header is not None:
        out += ["=" * columns.length + "\n", header + "\n"]
    if top_level_only:
        out += ["=" * columns.length + "\n", "This report only display top-level ops statistics\n"]
    out += [columns.rule(), columns.row(columns.headers), columns.rule()]
    shown = 0
    for e in rows:
        if shown == row_limit:
            break
        if top_level_only and e.cpu_parent is not None:
            continue
        shown += 1
        cells = [
            _shorten(e.key, name_width),
            _format_share(e.self_cpu_time_total, total_cpu), time(e.self_cpu_time_total),
            _format_share(e.cpu_time_total, total_cpu), time(e.cpu_time_total), time(e.cpu_time),
        ]  # fmt: skip
        if has_device:
            cells += [
                time(e.self_device_time_total), _format_share(e.self_device_time_total, total_device),
                time(e.device_time_total), time(e.device_time),
            ]  # fmt: skip
        if events._profile_memory:
            cells += [_format_memory(e.cpu_memory_usage), _format_memory(e.self_cpu_memory_usage)]
            if has_device_memory:
                cells += [_format_memory(e.device_memory_usage), _format_memory(e.self_device_memory_usage)]
        cells.append(str(e.count))
        if has_shapes:
            cells.append(_shorten(str(e.input_shapes), shapes_width))
        if has_stack:
            cells.append(_shorten_path(e.stack[0], src_width) if e.stack else "")
        if most_flops > 0:
            cells.append(f"{(e.flops or 0) * flops_scale:8.3f}" if e.flops else "--")
        out.append(columns.row(cells))
        if has_stack:
            place = columns.headers.index("Source Location")
            for frame in [*e.stack[1:], ""]:
                blank = [""] * len(columns.headers)
                blank[place] = _shorten_path(frame, src_width)
                out.append(columns.row(blank))
    out.append(columns.rule())
    out.append(f"Self CPU time total: {time(total_cpu)}\n")
    if has_device:
        out.append(f"Self {label} time total: {time(total_device)}\n")
    return "".join(out)
