"""Batches parted over devices, and results brought together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import _flambeau
from ..._flambeau import Tensor


def _is_named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> Any:
    """One of `inputs` for each device: tensors in parts along `dim`, what is no container of tensors as it is."""
    count = len(target_gpus)

    def part(value: Any) -> Any:
        if isinstance(value, Tensor):
            devices = [_device(d) for d in target_gpus]
            return [t.to(d) for t, d in zip(value.chunk(count, dim), devices, strict=False)]
        if _is_named(value):
            return [type(value)(*row) for row in zip(*map(part, value), strict=False)]
        if isinstance(value, tuple) and value:
            return list(zip(*map(part, value), strict=False))
        if isinstance(value, list) and value:
            return [list(row) for row in zip(*map(part, value), strict=False)]
        if isinstance(value, dict) and value:
            return [type(value)(row) for row in zip(*map(part, value.items()), strict=False)]
        return [value for _ in target_gpus]

    return part(inputs)


def scatter_kwargs(
    inputs: tuple[Any, ...], kwargs: dict[str, Any] | None, target_gpus: Sequence[Any], dim: int = 0
) -> tuple[tuple[Any, ...], tuple[dict[str, Any], ...]]:
    """Positional and keyword arguments for each device."""
    rows = scatter(inputs, target_gpus, dim) if inputs else []
    named = scatter(kwargs, target_gpus, dim) if kwargs else []
    rows.extend(() for _ in range(len(named) - len(rows)))
    named.extend({} for _ in range(len(rows) - len(named)))
    return tuple(rows), tuple(named)


def gather(outputs: Any, target_device: Any, dim: int = 0) -> Any:
    """The results of every device as one: tensors joined along `dim` on `target_device`, numbers of each device as a vector."""
    target = _device(target_device)

    def join(parts: Sequence[Any]) -> Any:
        first = parts[0]
        if isinstance(first, Tensor):
            moved = [t.to(target) for t in parts]
            return _flambeau.cat([t.reshape(1) if t.dim() == 0 else t for t in moved], 0 if first.dim() == 0 else dim)
        if first is None:
            return None
        if isinstance(first, dict):
            if any(len(first) != len(part) for part in parts):
                raise ValueError("All dicts must have the same number of keys")
            return type(first)((key, join([part[key] for part in parts])) for key in first)
        if _is_named(first):
            return type(first)(*map(join, zip(*parts, strict=True)))
        return type(first)(map(join, zip(*parts, strict=True)))

    return join(outputs)


def _device(value: Any) -> Any:
    if isinstance(value, int):
        return _flambeau.device("cpu" if value < 0 else f"cuda:{value}")
    return _flambeau.device(value)


__all__ = ["gather", "scatter", "scatter_kwargs"]
