"""Context managers that also decorate functions."""

from __future__ import annotations

from typing import Any

from ..autograd.grad_mode import _Mode


class _DecoratorContextManager(_Mode):
    """A base for context managers that decorate functions and generators; each call is given a `clone()`."""

    def clone(self) -> Any:
        """A manager with the same settings."""
        return self.__class__()

    def _fresh(self) -> Any:
        return self.clone()


__all__ = ["_DecoratorContextManager"]
