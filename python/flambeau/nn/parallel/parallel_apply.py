"""Several modules, each on its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..modules.module import Module


def parallel_apply(
    modules: Sequence[Module],
    inputs: Sequence[Any],
    kwargs_tup: Sequence[dict[str, Any]] | None = None,
    devices: Any = None,
) -> list[Any]:
    """Calls each module with its input. Devices work while the next is given its kernels, so no threads are needed."""
    if len(modules) != len(inputs):
        raise AssertionError(f"The number of modules {len(modules)} is not equal to the number of inputs {len(inputs)}")
    named = kwargs_tup if kwargs_tup is not None else ({},) * len(modules)
    results = []
    for module, given, keywords in zip(modules, inputs, named, strict=True):
        args = given if isinstance(given, (list, tuple)) else (given,)
        results.append(module(*args, **keywords))
    return results


__all__ = ["parallel_apply"]
