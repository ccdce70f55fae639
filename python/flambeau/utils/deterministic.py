"""Settings of deterministic execution."""

from __future__ import annotations

import sys
import types


class _Deterministic(types.ModuleType):
    """Accepted for compatibility: every result is deterministic, whatever uninitialised memory holds."""

    _fill = True

    @property
    def fill_uninitialized_memory(self) -> bool:
        """What it was set to."""
        return self._fill

    @fill_uninitialized_memory.setter
    def fill_uninitialized_memory(self, mode: bool) -> None:
        if not isinstance(mode, bool):
            raise TypeError(f"fill_uninitialized_memory has to be a bool, not {type(mode).__name__}")
        type(self)._fill = mode


sys.modules[__name__].__class__ = _Deterministic
