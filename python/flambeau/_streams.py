"""Streams and events. A device has one queue, in which operators run in the order in which they are called; streams all stand for it."""

from __future__ import annotations

import time
from typing import Any

from . import _flambeau


def _device(device: Any) -> Any:
    if device is None:
        device = "cuda" if _flambeau._cuda_is_available() else "cpu"
    elif isinstance(device, int):
        device = f"cuda:{device}"
    return _flambeau.device(device)


def _synchronize(device: Any) -> None:
    if device.type == "cuda":
        _flambeau._cuda_synchronize(device.index or 0)


class Event:
    """A point in a device's queue, and the time at which it was passed where `enable_timing` says so."""

    def __init__(self, device: Any = None, *, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        if interprocess:
            raise NotImplementedError("Event: events are not shared between processes; synchronize before sending")
        self.device = _device(device)
        self._timed, self._time = enable_timing, None

    def record(self, stream: Any = None) -> None:
        """Marks the point that the queue has reached. A timed event waits for it."""
        if self._timed:
            _synchronize(self.device)
        self._time: float | None = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        """Nothing to do: what is called later runs later."""

    def query(self) -> bool:
        """Whether everything before the point has run; this waits for it."""
        _synchronize(self.device)
        return True

    def synchronize(self) -> None:
        """Waits until everything before the point has run."""
        _synchronize(self.device)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this point to another."""
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._time is None or end_event._time is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return (end_event._time - self._time) * 1e3


class Stream:
    """A device's queue."""

    def __init__(self, device: Any = None, *, priority: int = 0) -> None:
        self.device, self.priority = _device(device), priority

    def record_event(self, event: Event | None = None) -> Event:
        """Records an event, a new one where none is given."""
        event = Event(self.device) if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Nothing to do: what is called later runs later."""

    def wait_stream(self, stream: Stream) -> None:
        """Nothing to do: there is one queue."""

    def query(self) -> bool:
        """Whether everything has run; this waits for it."""
        _synchronize(self.device)
        return True

    def synchronize(self) -> None:
        """Waits until everything has run."""
        _synchronize(self.device)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: Any) -> None:
        """Nothing to undo."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.device == other.device

    def __hash__(self) -> int:
        return hash(str(self.device))


__all__ = ["Event", "Stream"]
