"""Joining samples to batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ... import _flambeau
from ..._flambeau import Tensor
from ..._ops import ops


def default_collate(batch: Any) -> Any:
    """Samples to a batch: tensors stacked, numbers to tensors, containers entry by entry, strings as they are."""
    first = batch[0]
    if isinstance(first, Tensor):
        return ops.stack(list(batch), 0)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(first, numpy.ndarray):
        if first.dtype.kind in "OSU":
            raise TypeError(f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {first.dtype}")
        return ops.stack([ops.as_tensor(a) for a in batch], 0)
    if numpy is not None and isinstance(first, numpy.generic):
        return ops.as_tensor(numpy.array(batch))
    if isinstance(first, float):
        return _flambeau.tensor(batch, dtype=_flambeau.float64)
    if isinstance(first, int):
        return _flambeau.tensor(batch)
    if isinstance(first, (str, bytes)):
        return batch
    if isinstance(first, Mapping):
        joined = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return joined if type(first) is dict else _rebuild(first, joined)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(default_collate(column) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, tuple) or type(first) is list else _rebuild(first, columns)
    raise TypeError(f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}")


def _rebuild(like: Any, value: Any) -> Any:
    try:
        return type(like)(value)
    except TypeError:
        return value


def default_convert(data: Any) -> Any:
    """One sample's arrays as tensors."""
    numpy = sys.modules.get("numpy")
    if isinstance(data, Tensor):
        return data
    if numpy is not None and isinstance(data, (numpy.ndarray, numpy.generic)):
        return data if data.dtype.kind in "SU" else ops.as_tensor(data)
    if isinstance(data, Mapping):
        return _rebuild(data, {k: default_convert(v) for k, v in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(v) for v in data))
    if isinstance(data, tuple):
        return [default_convert(v) for v in data]
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _rebuild(data, [default_convert(v) for v in data])
    return data
