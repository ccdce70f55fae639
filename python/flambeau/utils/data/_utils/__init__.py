"""The parts of the loader under the names by which libraries reach for them."""

from . import collate, pin_memory, worker

__all__ = ["collate", "pin_memory", "worker"]
