"""Profiles over steps of a program: schedules, tables, traces.

with profile(schedule=schedule(wait=1, warmup=1, active=2), on_trace_ready=tensorboard_trace_handler("log")) as prof:
    for batch in loader:
        train(batch)
        prof.step()
print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable
from enum import Enum, IntEnum
from typing import Any

from . import _flambeau
from .autograd.profiler import KinetoStepTracker, Recorder, kineto_available, record_function
from .autograd.profiler_util import DeviceType, EventList, write_json


class ProfilerActivity(IntEnum):
    """What to profile."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3
    HPU = 4
    PrivateUse1 = 5

    def __repr__(self) -> str:
        return f"<ProfilerActivity.{self.name}: {self.value}>"

    def __str__(self) -> str:
        return f"ProfilerActivity.{self.name}"


class ProfilerAction(Enum):
    """What to do at a step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """What can be profiled here."""
    found = {ProfilerActivity.CPU}
    if _flambeau._cuda_is_available():
        found.add(ProfilerActivity.CUDA)
    return found


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """After `skip_first` steps: `wait` steps of nothing, `warmup` steps, `active` recorded ones, again and again or `repeat` times.
    With `skip_first_wait` other than 0 the first cycle does not wait.
    """
    if wait < 0 or warmup < 0 or active <= 0 or repeat < 0 or skip_first < 0:
        raise AssertionError(
            f"Invalid profiler schedule arguments. Got wait={wait} (need >= 0), warmup={warmup} (need >= 0), "
            f"active={active} (need > 0), repeat={repeat} (need >= 0), skip_first={skip_first} (need >= 0)."
        )
    if warmup == 0:
        warnings.warn("Profiler won't be using warmup, this can skew profiler results", stacklevel=2)
    cycle = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        if step < 0:
            raise AssertionError(f"Step must be non-negative. Got {step}.")
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait:
            step += wait
        if repeat > 0 and step // cycle >= repeat:
            return ProfilerAction.NONE
        place = step % cycle
        if place < wait:
            return ProfilerAction.NONE
        if place < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if place < cycle - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def _always(_: int) -> ProfilerAction:
    return ProfilerAction.RECORD


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False, use_python_export: bool = False
) -> Callable[[Any], None]:
    """A function for `on_trace_ready` that writes each trace into a folder which TensorBoard's profiler plugin reads."""

    def write(prof: Any) -> None:
        import socket
        import time

        os.makedirs(dir_name, exist_ok=True)
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        # The time keeps the traces of several cycles apart.
        name = f"{worker}.{time.time_ns()}.pt.trace.json" + (".gz" if use_gzip else "")
        prof.export_chrome_trace(os.path.join(dir_name, name))

    return write


class _KinetoProfile:
    """A profile without steps."""

    def __init__(
        self,
        *,
        activities: Iterable[Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        custom_trace_id_callback: Callable[[], str] | None = None,
        **_: Any,
    ) -> None:
        chosen = supported_activities() if activities is None else {a for item in activities for a in _names_of(item)}
        if not chosen:
            raise AssertionError("No valid profiler activities found")
        self.activities = chosen
        self.record_shapes, self.with_flops, self.profile_memory = record_shapes, with_flops, profile_memory
        self.with_stack, self.with_modules = with_stack, with_modules
        self.experimental_config, self.execution_trace_observer = experimental_config, execution_trace_observer
        self.acc_events, self.custom_trace_id_callback = acc_events, custom_trace_id_callback
        self.use_device = None
        if ProfilerActivity.CUDA in chosen:
            if _flambeau._cuda_is_available():
                self.use_device = "cuda"
            else:
                warnings.warn("CUDA is not available, disabling CUDA profiling", stacklevel=3)
        self.preset_metadata: dict[str, str] = {}
        self._metadata: dict[str, Any] = {}
        self._recorder: Recorder | None = None
        self._events: EventList | None = None
        self._trace_id = ""

    def start(self) -> None:
        """Begins."""
        self.prepare_trace()
        self.start_trace()

    def stop(self) -> None:
        """Ends."""
        self.stop_trace()

    def prepare_trace(self) -> None:
        """Makes ready to begin."""
        import uuid

        self._trace_id = self.custom_trace_id_callback() if self.custom_trace_id_callback else uuid.uuid4().hex.upper()

    def start_trace(self) -> None:
        """Begins to record."""
        if self._recorder is not None:
            return
        # Operations are counted from shapes, which are shown only on wish.
        self._recorder = Recorder(
            shapes=self.record_shapes, memory=self.profile_memory, flops=self.with_flops, stack=self.with_stack,
            use_device=self.use_device,
        )  # fmt: skip
        self._metadata = {}
        for key, value in self.preset_metadata.items():
            self.add_metadata_json(key, value)
        self._recorder.start()

    def stop_trace(self) -> None:
        """Ends recording."""
        if self._recorder is None:
            return
        events = self._recorder.stop()
        self._recorder = None
        if self.acc_events and self._events is not None:
            self._events.extend(events)
        else:
            self._events = events

    def _recorded(self, purpose: str) -> EventList:
        if self._events is None:
            raise AssertionError(f"Profiler must be initialized before {purpose}")
        return self._events

    def events(self) -> EventList:
        """What ran, in the order in which it began."""
        return self._recorded("accessing events")

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0, group_by_overload_name: bool = False
    ) -> EventList:
        """One entry for each name; on wish for each name with shapes, and with the innermost frames of the stack."""
        events = self._recorded("getting key averages")
        return events.key_averages(group_by_input_shape, group_by_stack_n, group_by_overload_name)

    def export_chrome_trace(self, path: str, use_python_export: bool = False) -> None:
        """Writes a trace for chrome://tracing or Perfetto; a path that ends in .gz is compressed."""
        import socket

        events = self._recorded("exporting chrome trace")
        flags = {
            "with_stack": self.with_stack, "profile_memory": self.profile_memory, "record_shapes": self.record_shapes,
            "with_flops": self.with_flops,
        }  # fmt: skip
        events._metadata = {
            "trace_id": self._trace_id,
            "host_name": socket.gethostname(),
            "deviceProperties": self._devices(),
            **{name: 1 for name, on in flags.items() if on},
            **self._metadata,
            "traceName": str(path),
        }
        events.export_chrome_trace(path)

    def _devices(self) -> list[dict[str, Any]]:
        if self.use_device != "cuda":
            return []
        return [{"id": i, "name": _flambeau._cuda_device_name(i)} for i in range(_flambeau._cuda_device_count())]

    def export_stacks(self, path: str, metric: str = "self_cpu_time_total") -> None:
        """Writes stacks with their times, for flame graphs."""
        self._recorded("exporting stacks").export_stacks(path, metric)

    def export_memory_timeline(self, path: str, device: str | None = None) -> None:
        """Writes `[times, bytes]`: the memory in use, in nanoseconds and bytes, as it changed."""
        events = self._recorded("exporting memory timeline")
        if not (self.record_shapes and self.profile_memory and self.with_stack):
            raise ValueError("record_shapes=True, profile_memory=True, with_stack=True required for memory profiling.")
        changes = [(time, change) for time, change, _ in events._memory]
        changes += [
            (e.time_range.end, e.cpu_memory_usage or e.device_memory_usage) for e in events if e.cpu_parent is None
        ]
        times, totals, total = [], [], 0
        for time, change in sorted(changes):
            if change:
                total += change
                times.append(int(time * 1000))
                totals.append(total)
        if str(path).endswith(".html"):
            raise ValueError(
                "export_memory_timeline writes .json and .json.gz; draw it with flambeau.utils.plot.curves"
            )
        write_json(path, [times, totals])

    def add_metadata(self, key: str, value: str) -> None:
        """Adds a string to the trace."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """Adds a value, given as JSON, to the trace."""
        self._metadata[key] = json.loads(value)

    def preset_metadata_json(self, key: str, value: str) -> None:
        """Adds a value, given as JSON, to every trace that is recorded later."""
        self.preset_metadata[key] = value

    def get_trace_id(self) -> str | None:
        """The trace's own name."""
        return self._trace_id or None

    def set_custom_trace_id_callback(self, callback: Callable[[], str]) -> None:
        """Says how traces are named."""
        self.custom_trace_id_callback = callback

    def toggle_collection_dynamic(self, enable: bool, activities: Iterable[Any]) -> None:
        """Accepted for compatibility: everything between start and stop is recorded."""


def _names_of(item: Any) -> Iterable[ProfilerActivity]:
    """An activity, or the activities that a dict's keys are."""
    return item.keys() if isinstance(item, dict) else (item,)


class profile(_KinetoProfile):
    """Profiles the body of a `with`, or those of its steps that `schedule` chooses.

    `step()` says that a step ends. After the last step of a cycle `on_trace_ready(profile)` is called.

    `record_shapes` notes the sizes of operands, `profile_memory` by how much the memory in use grew (as the allocator rounds it),
    `with_flops` the operations of products and convolutions, `with_stack` where the program was. With `ProfilerActivity.CUDA` every
    operator is waited for, so that its time is that of its kernels.
    """

    def __init__(
        self,
        *,
        activities: Iterable[Any] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[..., Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Callable[[], str] | None = None,
        post_processing_timeout_s: float | None = None,
    ) -> None:
        wanted = supported_activities() if activities is None else list(activities)
        if use_cuda is not None:
            warnings.warn("`use_cuda` is deprecated, use `activities` argument instead", FutureWarning, stacklevel=2)
            wanted = [a for a in wanted if a != ProfilerActivity.CUDA] + ([ProfilerActivity.CUDA] if use_cuda else [])
        super().__init__(
            activities=wanted, record_shapes=record_shapes, profile_memory=profile_memory, with_stack=with_stack,
            with_flops=with_flops, with_modules=with_modules, experimental_config=experimental_config,
            execution_trace_observer=execution_trace_observer, acc_events=acc_events,
            custom_trace_id_callback=custom_trace_id_callback,
        )  # fmt: skip
        self.schedule = schedule or _always
        self.record_steps = schedule is not None
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self.current_action = self.schedule(self.step_num)
        self.step_rec_fn: record_function | None = None

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.stop()
        KinetoStepTracker.erase_step_count("Torch")

    def start(self) -> None:
        """Begins."""
        self._move(ProfilerAction.NONE, self.current_action)
        self._begin_step()

    def stop(self) -> None:
        """Ends; a cycle that has recorded is handed to `on_trace_ready`."""
        self._end_step()
        self._move(self.current_action, None)

    def step(self) -> None:
        """One step of the program has ended."""
        self._end_step()
        before = self.current_action
        self.step_num += 1
        self.current_action = self.schedule(self.step_num)
        self._move(before, self.current_action)
        if KinetoStepTracker._step_dict:
            KinetoStepTracker.increment_step("Torch")
        self._begin_step()

    def set_custom_trace_id_callback(self, callback: Callable[[], str]) -> None:
        """Says how traces are named."""
        super().set_custom_trace_id_callback(callback)

    def _begin_step(self) -> None:
        if self.record_steps:
            self.step_rec_fn = record_function(f"ProfilerStep#{self.step_num}")
            self.step_rec_fn.__enter__()

    def _end_step(self) -> None:
        if self.step_rec_fn is not None:
            self.step_rec_fn.__exit__(None, None, None)
            self.step_rec_fn = None

    def _move(self, before: ProfilerAction, now: ProfilerAction | None) -> None:
        """From one step's action to the next's; None is the end."""
        recording = (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        ends = before is ProfilerAction.RECORD_AND_SAVE or (before is ProfilerAction.RECORD and now is None)
        if before is ProfilerAction.RECORD and now in (ProfilerAction.NONE, ProfilerAction.WARMUP):
            warnings.warn("Incorrect schedule: RECORD followed by " + str(now.name), stacklevel=4)  # type: ignore[union-attr]
            self.stop_trace()
        if before is ProfilerAction.WARMUP and now is ProfilerAction.NONE:
            warnings.warn("Incorrect schedule: WARMUP followed by NONE", stacklevel=4)
        if ends:
            self.stop_trace()
            if self.on_trace_ready is not None:
                self.on_trace_ready(self)
        if now is ProfilerAction.WARMUP or (
            now in recording and self._recorder is None and before is not ProfilerAction.WARMUP
        ):
            self.prepare_trace()
        if now in recording:
            self.start_trace()


class ExecutionTraceObserver:
    """Says what to use instead."""

    def register_callback(self, output_file_path: str) -> Any:
        """Raises."""
        raise NotImplementedError("flambeau writes no execution traces: use profile(...).export_chrome_trace(path)")

    def start(self) -> None:
        """Does nothing before `register_callback`."""

    def stop(self) -> None:
        """Does nothing before `register_callback`."""

    def unregister_callback(self) -> None:
        """Does nothing before `register_callback`."""


class _ExperimentalConfig:
    """Accepted for compatibility."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


__all__ = [
    "DeviceType", "ExecutionTraceObserver", "ProfilerAction", "ProfilerActivity", "kineto_available", "profile", "record_function",
    "schedule", "supported_activities", "tensorboard_trace_handler",
]  # fmt: skip
