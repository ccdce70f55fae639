"""Profiles of what runs: operators, nodes of backward passes, ranges that the program names.

    with profile(record_shapes=True) as prof:
        with record_function("forward"):
            loss = model(x).sum()
        loss.backward()
    print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))

A profile is of the thread that makes it. Where nothing is profiled nothing is paid.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from .. import _flambeau
from .._flambeau import _profile_enter, _profile_exit
from .profiler_util import DeviceType, EventList, FunctionEvent, FunctionEventAvg, Kernel, MemRecordsAcc

# The types of tensors as traces have them.
_SCALAR_NAMES = {
    "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16", "int64": "long int",
    "int32": "int", "int16": "short int", "int8": "signed char", "uint8": "unsigned char", "bool": "bool",
    "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
}  # fmt: skip


class record_function:
    """A range with a name: a context manager, or a decorator.

    The events inside appear under it in traces and tables.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name, self.args = name, args
        self._range: int | None = None
        self.run_callbacks_on_exit = True

    def __enter__(self) -> record_function:
        self._range = _profile_enter(self.name)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._range is not None:
            _profile_exit(self._range)
            self._range = None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def ranged(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return ranged


class _Stacks:
    """Remembers where the program was, each place once."""

    def __init__(self) -> None:
        self.places: list[tuple[str, ...]] = [()]
        self._known: dict[tuple[str, ...], int] = {(): 0}

    def __call__(self) -> int:
        frames = []
        frame = sys._getframe(1)
        while frame is not None:  # type: ignore[redundant-expr]
            code = frame.f_code
            if code.co_filename != __file__:
                frames.append(f"{code.co_filename}({frame.f_lineno}): {code.co_name}")
            frame = frame.f_back  # type: ignore[assignment]
        place = tuple(frames)
        number = self._known.get(place)
        if number is None:
            number = self._known[place] = len(self.places)
            self.places.append(place)
        return number


class Recorder:
    """Notes what this thread runs between `start` and `stop`."""

    def __init__(
        self,
        *,
        shapes: bool = False,
        memory: bool = False,
        flops: bool = False,
        stack: bool = False,
        use_device: str | None = None,
    ) -> None:
        self.shapes, self.memory, self.flops, self.use_device = shapes, memory, flops, use_device
        self._stacks = _Stacks() if stack else None
        self._began = 0.0

    def start(self) -> None:
        """Begins."""
        wait_for = None
        if self.use_device == "cuda":
            from ..cuda import current_device

            wait_for = current_device()
        # Shapes are what operations are counted from; the operands are noted on the way.
        _flambeau._profile_start(self.shapes, self.memory, self.flops, self._stacks, wait_for)
        self._began = time.monotonic_ns() / 1000

    def stop(self) -> EventList:
        """Ends; the events in the order in which they began."""
        raw = _flambeau._profile_stop()
        places = self._stacks.places if self._stacks is not None else [()]
        thread = threading.get_native_id()
        events = EventList(use_device=self.use_device, profile_memory=self.memory, with_flops=self.flops)
        by_index: list[FunctionEvent | None] = []
        made_at: dict[int, list[str]] = {}
        in_use = 0
        for name, kind, start, end, parent, sequence, inputs, place, memory, flops, device in raw:
            start_us, end_us = self._began + start / 1000, self._began + end / 1000
            if kind == "memory":
                by_index.append(None)
                in_use += memory
                events._memory.append((start_us, memory, in_use))
                continue
            shapes, dtypes, concrete = _operands(inputs)
            user = kind == "user"
            shown = {"operator": "aten::", "graph": "flambeau::"}.get(kind, "") + name
            on_cuda = device.startswith("cuda")
            event = FunctionEvent(
                len(events),
                "ProfilerStep*" if user and name.startswith("ProfilerStep#") else shown,
                thread,
                start_us,
                end_us,
                input_shapes=shapes,
                input_dtypes=dtypes,
                concrete_inputs=concrete,
                stack=places[place] if place is not None else (),
                scope=1 if kind == "backward" else 7 if user else 0,
                use_device=self.use_device,
                cpu_memory_usage=0 if self.use_device == "cuda" else memory,
                device_memory_usage=memory if self.use_device == "cuda" else 0,
                sequence_nr=-1 if sequence is None else sequence,
                flops=flops or None,
                trace_name=shown,
                is_user_annotation=user,
            )
            if on_cuda:
                event.device_index = int(device.partition(":")[2] or 0)
            above = by_index[parent] if parent is not None else None
            if above is not None:
                event.cpu_parent = above
                above.cpu_children.append(event)
            if event.scope == 0 and sequence is not None and event.stack:
                made_at[sequence] = event.stack
            elif event.scope == 1 and sequence in made_at:
                # Where the forward pass was says more than where `backward()` was called.
                event.stack = made_at[sequence]
            by_index.append(event)
            events.append(event)
            if on_cuda and self.use_device == "cuda":
                event.device_type = DeviceType.CPU
                event.own_device_time = -1.0
        # A device's time is that of its innermost operators, which were waited for.
        for event in events:
            if event.own_device_time < 0:
                inner = any(c.own_device_time != 0 for c in event.cpu_children)
                event.own_device_time = 0.0 if inner else event.time_range.elapsed_us()
                if event.own_device_time:
                    event.append_kernel(event.name, event.device_index, int(event.own_device_time))
        return events


def _operands(inputs: list[Any]) -> tuple[list[Any], list[str], list[Any]]:
    """Sizes, names of types and values of numbers, an entry for each argument."""
    while inputs and inputs[-1] is None:
        inputs.pop()
    shapes: list[Any] = []
    dtypes: list[str] = []
    concrete: list[Any] = []
    for value in inputs:
        if isinstance(value, tuple):
            shapes.append(value[0])
            name = str(value[1]).partition(".")[2]
            dtypes.append(_SCALAR_NAMES.get(name, name))
            concrete.append("")
        elif isinstance(value, list):
            shapes.append([sizes for sizes, _ in value])
            dtypes.append("TensorList")
            concrete.append("")
        else:
            shapes.append([])
            dtypes.append("" if value is None else "Scalar")
            concrete.append("" if value is None else str(value))
    return shapes, dtypes, concrete


class profile:
    """Profiles the body of a `with`; afterwards `function_events` holds what ran.

    `record_shapes` notes the sizes of operands, `profile_memory` by how much the memory in use grew, `with_flops` the operations of
    products and convolutions, `with_stack` where the program was. With `use_device="cuda"` every operator is waited for, so that its
    time is that of its kernels.
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        use_cuda: bool = False,
        use_device: str | None = None,
        record_shapes: bool = False,
        with_flops: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_modules: bool = False,
        use_kineto: bool = False,
        use_cpu: bool = True,
        experimental_config: Any = None,
        acc_events: bool = False,
        custom_trace_id_callback: Any = None,
        **_: Any,
    ) -> None:
        self.enabled, self.entered = enabled, False
        if use_cuda:
            use_device = "cuda"
        if use_device == "cuda" and not _flambeau._cuda_is_available():
            warnings.warn("CUDA is not available, disabling CUDA profiling", stacklevel=2)
            use_device = None
        self.use_device, self.use_cuda = use_device, use_device == "cuda"
        self.record_shapes, self.with_flops = record_shapes or with_flops, with_flops
        self.profile_memory, self.with_stack, self.with_modules = profile_memory, with_stack, with_modules
        self.use_cpu, self.acc_events = use_cpu, acc_events
        self.function_events: EventList | None = None
        self._recorder: Recorder | None = None

    def __enter__(self) -> profile | None:  # type: ignore[return]
        if not self.enabled:
            return None
        if self.entered:
            raise RuntimeError("Profiler context manager is not reentrant")
        self.entered = True
        self._recorder = Recorder(
            shapes=self.record_shapes, memory=self.profile_memory, flops=self.with_flops, stack=self.with_stack,
            use_device=self.use_device,
        )  # fmt: skip
        self._recorder.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._recorder is not None:
            self.function_events = self._recorder.stop()
            self._recorder = None

    def _finished(self) -> EventList:
        if self.function_events is None:
            raise RuntimeError("Profiler didn't finish running")
        return self.function_events

    def __repr__(self) -> str:
        return "<unfinished torch.autograd.profile>" if self.function_events is None else repr(self.function_events)

    def __str__(self) -> str:
        return "<unfinished torch.autograd.profile>" if self.function_events is None else str(self.function_events)

    def table(self, *args: Any, **kwargs: Any) -> str:
        """See `EventList.table`."""
        return self._finished().table(*args, **kwargs)

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, group_by_overload_name: bool = False
    ) -> EventList:
        """See `EventList.key_averages`."""
        return self._finished().key_averages(group_by_input_shape, group_by_stack_n, group_by_overload_name)

    def total_average(self) -> FunctionEventAvg:
        """The sum of all events."""
        return self._finished().total_average()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of all events together."""
        return self._finished().self_cpu_time_total

    def export_chrome_trace(self, path: str) -> None:
        """Writes a trace for chrome://tracing or Perfetto."""
        self._finished().export_chrome_trace(path)

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Writes stacks with their times, for flame graphs."""
        if not self.with_stack:
            raise AssertionError("export_stacks() requires with_stack=True")
        self._finished().export_stacks(path, metric)

    def toggle_collection_dynamic(self, enabled: bool, activities: Any = None) -> None:
        """Accepted for compatibility: what the body of the `with` runs is noted."""


class _Emit:
    """Marks for a profiler that watches the process from outside."""

    _tool = ""

    def __init__(self, enabled: bool = True, record_shapes: bool = False) -> None:
        self.enabled, self.record_shapes = enabled, record_shapes

    def __enter__(self) -> Any:
        if self.enabled:
            raise RuntimeError(
                f"flambeau emits no {self._tool} ranges: profile with flambeau.profiler.profile and look at its export_chrome_trace"
            )
        return None

    def __exit__(self, *exc: Any) -> None:
        pass


class emit_nvtx(_Emit):
    """Ranges for NVIDIA's profilers; says what to use instead."""

    _tool = "NVTX"


class emit_itt(_Emit):
    """Ranges for Intel's profilers; says what to use instead."""

    _tool = "ITT"


def load_nvprof(path: str) -> EventList:
    """Says what to use instead: nvprof is no longer made."""
    return parse_nvprof_trace(path)


def parse_nvprof_trace(path: str) -> EventList:
    """Says what to use instead: nvprof is no longer made."""
    raise RuntimeError(
        "flambeau reads no traces of nvprof: profile with flambeau.profiler.profile(activities=[…, ProfilerActivity.CUDA])"
    )


class EnforceUnique:
    """Raises where a key is seen twice."""

    def __init__(self) -> None:
        self.seen: set[Any] = set()

    def see(self, *key: Any) -> None:
        """Looks at a key."""
        if key in self.seen:
            raise RuntimeError("duplicate key: " + str(key))
        self.seen.add(key)


class KinetoStepTracker:
    """The steps that several parts of a program count, as one number: the largest."""

    _current_step = 0
    _step_dict: dict[str, int] = {}

    @classmethod
    def init_step_count(cls, requester: str) -> None:
        """Begins to count for a part."""
        cls._step_dict[requester] = cls._current_step

    @classmethod
    def erase_step_count(cls, requester: str) -> bool:
        """Ends it; whether it was counted."""
        return cls._step_dict.pop(requester, None) is not None

    @classmethod
    def increment_step(cls, requester: str) -> int:
        """One step more of a part; the step of all."""
        cls._step_dict[requester] = cls._step_dict.get(requester, cls._current_step) + 1
        cls._current_step = max(cls._current_step, *cls._step_dict.values())
        return cls._current_step

    @classmethod
    def current_step(cls) -> int:
        """The step of all."""
        return cls._current_step


def kineto_available() -> bool:
    """True: profiles have what Kineto's have."""
    return True


__all__ = [
    "EnforceUnique", "EventList", "FunctionEvent", "Kernel", "KinetoStepTracker", "MemRecordsAcc", "emit_itt", "emit_nvtx",
    "load_nvprof", "parse_nvprof_trace", "profile", "record_function",
]  # fmt: skip
