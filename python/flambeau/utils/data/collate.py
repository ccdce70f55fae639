"""Joining samples to batches."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ... import _flambeau
from ..._flambeau import Tensor
from ..._ops import ops


def default_collate(batch: Any) -> Any:
    """Samples to a batch: tensors stacked, numbers to tensors, containers entry by entry, strings as they are."""
    if len(default_collate_fn_map) != _OWN_TYPES:
        return collate(batch, collate_fn_map=default_collate_fn_map)
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


# Kinds of samples and how they are joined; programs add their own.
default_collate_fn_map: dict[Any, Callable[..., Any]] = {}


def collate(batch: Any, *, collate_fn_map: dict[Any, Callable[..., Any]] | None = None) -> Any:
    """Joins samples by the function given for their type; containers entry by entry.

    A function is called as `fn(batch, collate_fn_map=…)`.
    """
    first = batch[0]
    for kind, function in (collate_fn_map or {}).items():
        if type(first) is kind:
            return function(batch, collate_fn_map=collate_fn_map)
    for kind, function in (collate_fn_map or {}).items():
        if isinstance(first, kind):
            return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        joined = {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in first}
        return joined if type(first) is dict else _rebuild(first, joined)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)))
    if isinstance(first, Sequence) and not isinstance(first, (str, bytes)):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        columns = [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch, strict=True)]
        return columns if isinstance(first, tuple) or type(first) is list else _rebuild(first, columns)
    if collate_fn_map is default_collate_fn_map:
        return _plain(batch)
    raise TypeError(f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(first)}")


def _plain(batch: Any) -> Any:
    """Arrays and NumPy's numbers, for which there is no entry: NumPy need not be there."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(batch[0], numpy.ndarray):
        return collate_numpy_array_fn(batch)
    if numpy is not None and isinstance(batch[0], numpy.generic):
        return ops.as_tensor(numpy.array(batch))
    raise TypeError(f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {type(batch[0])}")


def collate_tensor_fn(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Tensors, stacked."""
    return ops.stack(list(batch), 0)


def collate_numpy_array_fn(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """NumPy's arrays, stacked as tensors."""
    if batch[0].dtype.kind in "OSU":
        raise TypeError(f"default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {batch[0].dtype}")
    return ops.stack([ops.as_tensor(a) for a in batch], 0)


def collate_float_fn(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Numbers to a tensor of float64."""
    return _flambeau.tensor(batch, dtype=_flambeau.float64)


def collate_int_fn(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Whole numbers to a tensor."""
    return _flambeau.tensor(batch)


def collate_str_fn(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Strings as they are."""
    return batch


default_collate_fn_map.update(
    {Tensor: collate_tensor_fn, float: collate_float_fn, int: collate_int_fn, str: collate_str_fn, bytes: collate_str_fn}
)
_OWN_TYPES = len(default_collate_fn_map)
np_str_obj_array_pattern = re.compile("[SaUO]")
