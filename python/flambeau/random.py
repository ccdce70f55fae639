"""Random streams: seeds and states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._flambeau import Generator, Tensor, default_generator, manual_seed


def seed() -> int:
    """Seeds the default stream from the system and gives the seed."""
    import os

    value = int.from_bytes(os.urandom(8), "little") >> 1
    manual_seed(value)
    return value


def initial_seed() -> int:
    """The seed the default stream started from."""
    return int(default_generator.initial_seed())


def get_rng_state() -> Tensor:
    """The state of the default stream, as bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Sets the state of the default stream."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True, **_: Any) -> Iterator[None]:
    """Puts the default stream back to where it was, at the end."""
    if not enabled:
        yield
        return
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


__all__ = [
    "Generator", "default_generator", "fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state",
]  # fmt: skip
