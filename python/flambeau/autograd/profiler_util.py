"""What a profile is made of: events, lists of them, their averages, and the table."""

from __future__ import annotations

import json
import math
from collections import defaultdict, namedtuple
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

Kernel = namedtuple("Kernel", ["name", "device", "duration"])


class DeviceType(IntEnum):
    """Where an event ran."""

    CPU = 0
    CUDA = 1

    def __repr__(self) -> str:
        return f"<DeviceType.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"DeviceType.{self.name}"


class Interval:
    """A stretch of time in microseconds."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end

    def elapsed_us(self) -> float:
        """Its length."""
        return self.end - self.start


def _format_time(time_us: float) -> str:
    if time_us >= 1e6:
        return f"{time_us / 1e6:.3f}s"
    if time_us >= 1e3:
        return f"{time_us / 1e3:.3f}ms"
    return f"{time_us:.3f}us"


def _format_memory(nbytes: int) -> str:
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if abs(nbytes) >= unit:
            return f"{nbytes / unit:.2f} {name}"
    return f"{nbytes} B"


def _format_share(part: float, total: float) -> str:
    return "NaN" if total == 0 else f"{part * 100.0 / total:.2f}%"


def _attribute_as_text(name: str) -> property:
    return property(lambda self: _format_time(getattr(self, name)))


class FormattedTimesMixin:
    """Times per call, and times as text."""

    cpu_time_str = _attribute_as_text("cpu_time")
    device_time_str = _attribute_as_text("device_time")
    cpu_time_total_str = _attribute_as_text("cpu_time_total")
    device_time_total_str = _attribute_as_text("device_time_total")
    self_cpu_time_total_str = _attribute_as_text("self_cpu_time_total")
    self_device_time_total_str = _attribute_as_text("self_device_time_total")

    count: int
    cpu_time_total: float
    device_time_total: float

    @property
    def cpu_time(self) -> float:
        """Microseconds a call."""
        return 0.0 if self.count == 0 else self.cpu_time_total / self.count

    @property
    def device_time(self) -> float:
        """Microseconds a call on the device."""
        return 0.0 if self.count == 0 else self.device_time_total / self.count

    @property
    def cuda_time(self) -> float:
        """The older name of `device_time`."""
        return self.device_time


class FunctionEvent(FormattedTimesMixin):
    """One operator, node of a backward pass, or range that ran."""

    def __init__(
        self,
        id: int,
        name: str,
        thread: int,
        start_us: float,
        end_us: float,
        *,
        fwd_thread: int | None = None,
        input_shapes: list[Any] | None = None,
        input_dtypes: list[str] | None = None,
        concrete_inputs: list[Any] | None = None,
        stack: Iterable[str] | None = None,
        scope: int = 0,
        use_device: str | None = None,
        cpu_memory_usage: int = 0,
        device_memory_usage: int = 0,
        sequence_nr: int = -1,
        device_type: DeviceType = DeviceType.CPU,
        device_index: int = 0,
        flops: int | None = None,
        trace_name: str | None = None,
        is_user_annotation: bool = False,
    ) -> None:
        self.id, self.node_id, self.name, self.thread, self.fwd_thread = id, -1, name, thread, fwd_thread
        self.overload_name = ""
        self.trace_name = trace_name if trace_name is not None else name
        self.time_range = Interval(start_us, end_us)
        self.input_shapes = input_shapes or []
        self.input_dtypes, self.concrete_inputs = input_dtypes or [], concrete_inputs or []
        self.stack = list(stack or ())
        self.scope, self.use_device, self.flops = scope, use_device, flops
        self.cpu_memory_usage, self.device_memory_usage = cpu_memory_usage, device_memory_usage
        self.sequence_nr, self.device_type, self.device_index = sequence_nr, device_type, device_index
        self.is_user_annotation, self.is_async, self.is_remote, self.is_legacy = is_user_annotation, False, False, False
        self.count = 1
        self.kernels: list[Kernel] = []
        self.cpu_children: list[FunctionEvent] = []
        self.cpu_parent: FunctionEvent | None = None
        # Time of kernels; filled in for the innermost events of a device.
        self.own_device_time = 0.0
        self.self_cpu_percent = self.total_cpu_percent = 0.0

    @property
    def key(self) -> str:
        """What events are averaged by."""
        return self.name

    def append_kernel(self, name: str, device: int, duration: int) -> None:
        """Adds a kernel of the device to the event."""
        self.kernels.append(Kernel(name, device, duration))

    def append_cpu_child(self, child: FunctionEvent) -> None:
        """Adds an event that ran inside this one."""
        self.cpu_children.append(child)

    def set_cpu_parent(self, parent: FunctionEvent) -> None:
        """Says inside which event this one ran."""
        self.cpu_parent = parent

    @property
    def cpu_time_total(self) -> float:  # type: ignore[override]
        """Microseconds from beginning to end."""
        return self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds outside the events inside."""
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    @property
    def device_time_total(self) -> float:  # type: ignore[override]
        """Microseconds of the device's work, of this event and those inside."""
        return self.own_device_time + sum(c.device_time_total for c in self.cpu_children)

    @property
    def self_device_time_total(self) -> float:
        """Microseconds of the device's work that no event inside accounts for."""
        return self.own_device_time

    cuda_time_total = device_time_total
    self_cuda_time_total = self_device_time_total

    @property
    def self_cpu_memory_usage(self) -> int:
        """Bytes by which the memory in use grew outside the events inside."""
        return self.cpu_memory_usage - sum(c.cpu_memory_usage for c in self.cpu_children)

    @property
    def self_device_memory_usage(self) -> int:
        """The same on the device."""
        return self.device_memory_usage - sum(c.device_memory_usage for c in self.cpu_children)

    def __repr__(self) -> str:
        return (
            f"<FunctionEvent id={self.id} name={self.name} overload_name={self.overload_name} device_type={self.device_type} "
            f"node_id={self.node_id} cpu_time={self.cpu_time_str} start_us={self.time_range.start} end_us={self.time_range.end} "
            f"cpu_children={[c.id for c in self.cpu_children]} {self.use_device}_time={self.device_time_str} name={self.name} "
            f"thread={self.thread} input_shapes={self.input_shapes} cpu_memory_usage={self.cpu_memory_usage} "
            f"{self.use_device}_memory_usage={self.device_memory_usage} is_async={self.is_async} is_remote={self.is_remote} "
            f"seq_nr={self.sequence_nr} is_legacy={self.is_legacy}>"
        )


class FunctionEventAvg(FormattedTimesMixin):
    """What events of one kind have in sum."""

    def __init__(self) -> None:
        self.key: Any = None
        self.count = 0
        self.node_id = 0
        self.is_async = self.is_remote = self.is_legacy = self.is_user_annotation = False
        self.use_device: str | None = None
        self.overload_name = ""
        self.cpu_time_total: float = 0  # type: ignore[misc]
        self.device_time_total: float = 0
        self.self_cpu_time_total: float = 0
        self.self_device_time_total: float = 0
        self.input_shapes: Any = None
        self.stack: Any = None
        self.scope: int | None = None
        self.cpu_memory_usage = self.device_memory_usage = 0
        self.self_cpu_memory_usage = self.self_device_memory_usage = 0
        self.cpu_children: list[FunctionEvent] | None = None
        self.cpu_parent: FunctionEvent | None = None
        self.device_type = DeviceType.CPU
        self.flops = 0

    def add(self, other: Any) -> FunctionEventAvg:
        """Counts one more event (or sum of events) of the kind."""
        if self.key is None:
            for name in (
                "key", "node_id", "is_async", "is_remote", "is_legacy", "cpu_parent", "cpu_children", "input_shapes", "stack", "scope",
                "device_type", "use_device", "is_user_annotation", "overload_name",
            ):  # fmt: skip
                setattr(self, name, getattr(other, name))
        if not isinstance(other, (FunctionEvent, FunctionEventAvg)) or other.key != self.key:
            raise AssertionError("only events of one key can be added")
        for name in (
            "cpu_time_total", "device_time_total", "self_cpu_time_total", "self_device_time_total", "cpu_memory_usage",
            "device_memory_usage", "self_cpu_memory_usage", "self_device_memory_usage", "count",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.flops += other.flops or 0
        return self

    __iadd__ = add

    def __repr__(self) -> str:
        device = self.use_device or "cuda"
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} cpu_time={self.cpu_time_str}  "
            f"self_{device}_time={self.self_device_time_total_str} {device}_time={self.device_time_str} "
            f"input_shapes={self.input_shapes} cpu_memory_usage={self.cpu_memory_usage} "
            f"{device}_memory_usage={self.device_memory_usage}>"
        )


class StringTable(defaultdict[str, str]):
    """Strings that are kept once."""

    def __missing__(self, key: str) -> str:
        self[key] = key
        return key


class MemRecordsAcc:
    """Changes of the memory in use, found by time."""

    def __init__(self, mem_records: Iterable[Any]) -> None:
        self._records = sorted(mem_records, key=lambda record: record[0].start_ns())

    def in_interval(self, start_us: float, end_us: float) -> Any:
        """The changes between two times."""
        for record in self._records:
            if start_us * 1000 <= record[0].start_ns() < end_us * 1000:
                yield record


class EventList(list[Any]):
    """Events in the order in which they began, or averages of them."""

    supported_export_stacks_metrics = ["self_cpu_time_total", "self_cuda_time_total", "self_device_time_total"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._use_device: str | None = kwargs.pop("use_device", None)
        self._profile_memory: bool = kwargs.pop("profile_memory", False)
        self._with_flops: bool = kwargs.pop("with_flops", False)
        self._metadata: dict[str, Any] = kwargs.pop("metadata", {})
        self._memory: list[tuple[float, int, int]] = kwargs.pop("memory", [])
        super().__init__(*args, **kwargs)

    def _like(self, events: Iterable[Any]) -> EventList:
        return EventList(
            events, use_device=self._use_device, profile_memory=self._profile_memory, with_flops=self._with_flops
        )

    def __str__(self) -> str:
        return self.table()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all events together."""
        return sum(e.self_cpu_time_total for e in self)

    def key_averages(
        self, group_by_input_shapes: bool = False, group_by_stack_n: int = 0, group_by_overload_name: bool = False
    ) -> EventList:
        """One entry for each name; on wish for each name with shapes, and with the innermost frames of the stack."""
        groups: dict[Any, FunctionEventAvg] = {}
        for e in self:
            key = (
                e.key, e.device_type, e.is_user_annotation, str(e.input_shapes) if group_by_input_shapes else "",
                tuple(e.stack[:group_by_stack_n]),
            )  # fmt: skip
            groups.setdefault(key, FunctionEventAvg()).add(e)
        result = self._like(groups.values())
        for average in result:
            average.stack = (average.stack or [])[:group_by_stack_n]
            if not group_by_input_shapes:
                average.input_shapes = ""
        return result

    def total_average(self) -> FunctionEventAvg:
        """The sum of all events."""
        total = FunctionEventAvg()
        for e in self:
            before = total.key
            total.key = e.key if before is not None else None
            total.add(e)
        total.key = "Total"
        total.input_shapes = []
        return total

    def table(
        self,
        sort_by: str | None = None,
        row_limit: int = 100,
        max_src_column_width: int = 75,
        max_name_column_width: int = 55,
        max_shapes_column_width: int = 80,
        header: str | None = None,
        top_level_events_only: bool = False,
        time_unit: str | None = None,
    ) -> str:
        """The events as a table, at most `row_limit` of them; `sort_by` names a field, such as `self_cpu_time_total`."""
        from ._profiler_table import build

        return build(
            self, sort_by, row_limit, max_src_column_width, max_name_column_width, max_shapes_column_width, header,
            top_level_events_only, time_unit,
        )  # fmt: skip

    def export_stacks(self, path: str, metric: str) -> None:
        """Writes `frame;frame;… time` lines, which flame graphs are drawn from."""
        if metric not in self.supported_export_stacks_metrics:
            raise ValueError(f"metric should be one of: {self.supported_export_stacks_metrics}")
        metric = metric.replace("cuda", "device")
        clean = str.maketrans(" ;\t\n", "____")
        with open(path, "w", encoding="utf-8") as file:
            for e in self:
                if not e.stack:
                    continue
                value = int(getattr(e, metric))
                if value > 0:
                    file.write(";".join(frame.translate(clean) for frame in reversed(e.stack)) + f" {value}\n")

    def export_chrome_trace(self, path: str) -> None:
        """Writes the events for chrome://tracing or Perfetto; a path that ends in .gz is compressed."""
        write_json(path, self.chrome_trace())

    def chrome_trace(self) -> dict[str, Any]:
        """The events in the format of Chrome's traces."""
        import os

        pid = os.getpid()
        begin = {"ph": "M", "ts": 0, "pid": pid}
        out: list[dict[str, Any]] = [
            {**begin, "name": "process_name", "tid": 0, "args": {"name": "python"}},
            {**begin, "name": "process_labels", "tid": 0, "args": {"labels": "CPU"}},
        ]
        forward: dict[int, FunctionEvent] = {}
        for e in self:
            args: dict[str, Any] = {"External id": e.id + 1, "Ev Idx": e.id}
            if e.sequence_nr >= 0:
                args["Sequence number"] = e.sequence_nr
            if e.input_shapes:
                args["Input Dims"], args["Input type"] = e.input_shapes, e.input_dtypes
                args["Concrete Inputs"] = e.concrete_inputs
            if e.stack:
                args["Call stack"] = ";".join(reversed(e.stack))
            if e.flops:
                args["Flops"] = e.flops
            if self._profile_memory:
                args["Bytes"] = e.cpu_memory_usage
            category = "user_annotation" if e.is_user_annotation else "cpu_op"
            place = {"pid": pid, "tid": e.thread, "ts": e.time_range.start}
            out.append(
                {
                    "ph": "X",
                    "cat": category,
                    "name": e.trace_name,
                    **place,
                    "dur": e.time_range.elapsed_us(),
                    "args": args,
                }
            )
            if e.own_device_time:
                kernel = {"pid": e.device_index, "tid": 7, "ts": e.time_range.start, "dur": e.own_device_time}
                out.append(
                    {"ph": "X", "cat": "kernel", "name": e.trace_name, **kernel, "args": {"External id": e.id + 1}}
                )
            # An arrow from the operator that made a node to the node's run.
            if e.sequence_nr < 0:
                continue
            if e.scope == 1:
                source = forward.pop(e.sequence_nr, None)
                if source is not None:
                    arrow = {"id": e.sequence_nr + 1, "cat": "fwdbwd", "name": "fwdbwd", "pid": pid}
                    out.append({"ph": "s", **arrow, "tid": source.thread, "ts": source.time_range.start})
                    out.append({"ph": "f", **arrow, "tid": e.thread, "ts": e.time_range.start, "bp": "e"})
            else:
                forward[e.sequence_nr] = e
        for time, change, total in self._memory:
            out.append(
                {
                    "ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": pid, "tid": 0, "ts": time,
                    "args": {"Bytes": change, "Total Allocated": total, "Device Type": 0, "Device Id": -1},
                }
            )  # fmt: skip
        return {"schemaVersion": 1, "displayTimeUnit": "ms", **self._metadata, "traceEvents": out}


def write_json(path: str, data: Any) -> None:
    """Writes JSON, compressed where the name ends in .gz."""
    import gzip

    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        json.dump(data, file)


def scale_flops(flops: float) -> tuple[float, str]:
    """A factor and a unit in which `flops` is below a thousand."""
    units = ("FLOPs", "KFLOPs", "MFLOPs", "GFLOPs", "TFLOPs", "PFLOPs")
    step = 0 if flops <= 0 else max(0, min(int(math.log10(flops) // 3), len(units) - 1))
    return 10.0 ** (-3 * step), units[step]


__all__ = [
    "EventList", "FormattedTimesMixin", "FunctionEvent", "FunctionEventAvg", "Interval", "Kernel", "MemRecordsAcc", "StringTable",
]  # fmt: skip
