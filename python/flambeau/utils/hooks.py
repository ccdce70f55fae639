"""Handles that take a registered hook away again."""

from __future__ import annotations

import itertools
import warnings
import weakref
from collections import OrderedDict
from typing import Any

_ids = itertools.count()


class RemovableHandle:
    """Returned by every `register_…_hook`; `remove()` (or leaving a `with`) takes the hook away."""

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None) -> None:
        self.id = next(_ids)
        self._dicts = [_reference(hooks_dict)]
        extras = extra_dict if isinstance(extra_dict, (list, tuple)) else [] if extra_dict is None else [extra_dict]
        self._dicts.extend(_reference(d) for d in extras)

    def remove(self) -> None:
        """Takes the hook away; more than once does no harm."""
        for reference in self._dicts:
            hooks = reference()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()


def _reference(hooks: Any) -> Any:
    # A plain dict cannot be referred to weakly; the process-wide ones live for ever anyway.
    return weakref.ref(hooks) if isinstance(hooks, OrderedDict) else lambda: hooks


def unserializable_hook(f: Any) -> Any:
    """Marks a hook that is not to go with its tensor into a file."""
    f.__torch_unserializable__ = True
    return f


def warn_if_has_hooks(tensor: Any) -> None:
    """Warns of hooks that do not go with a tensor into a file."""
    hooks = getattr(tensor, "_backward_hooks", None)
    for hook in hooks.values() if hooks else ():
        if not hasattr(hook, "__torch_unserializable__"):
            warnings.warn(
                f"backward hook {hook!r} on tensor will not be serialized. If this is expected, you can decorate the function with "
                "@torch.utils.hooks.unserializable_hook to suppress this warning",
                stacklevel=2,
            )
