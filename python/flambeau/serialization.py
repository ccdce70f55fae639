"""Saving and loading. Files are safetensors: tensors by name, nothing that could run."""

from __future__ import annotations

import io
import os
import tempfile
from collections import OrderedDict
from typing import Any

from . import _flambeau
from ._flambeau import Tensor


def _flatten(obj: Any) -> dict[str, Tensor]:
    from collections.abc import Mapping

    if isinstance(obj, Tensor):
        return {"__tensor__": obj}
    if not isinstance(obj, Mapping):
        raise TypeError(
            f"save() writes a tensor or a mapping of names to tensors, such as a state_dict; got {type(obj).__name__}"
        )
    for name, value in obj.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise TypeError(
                f"save() writes a tensor or a mapping of names to tensors, such as a state_dict; the entry {name!r} is of type "
                f"{type(value).__name__}"
            )
    return dict(obj)


def save(obj: Any, f: Any, pickle_module: Any = None, pickle_protocol: int = 2, **_: Any) -> None:
    """Writes a tensor or a state_dict to a path or a file object."""
    tensors = {name: t.detach().contiguous() for name, t in _flatten(obj).items()}
    if isinstance(f, (str, os.PathLike)):
        _flambeau._safetensors_save(tensors, os.fspath(f), {"format": "pt"})
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tensors")
        _flambeau._safetensors_save(tensors, path, {"format": "pt"})
        with open(path, "rb") as written:
            f.write(written.read())


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size


def load(f: Any, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool = True, mmap: Any = None, **_: Any) -> Any:
    """Reads what `save` wrote, or any safetensors file, from a path or a file object."""
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        with open(path, "rb") as file:
            head = file.read(9)
        size = os.path.getsize(path)
        return _read(path, head, size, map_location)
    data = f.read() if isinstance(f, io.IOBase) or hasattr(f, "read") else None
    if data is None:
        raise TypeError(f"load() takes a path or a file object, not {type(f).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tensors")
        with open(path, "wb") as file:
            file.write(data)
        return _read(path, data[:9], len(data), map_location)


def _read(path: str, head: bytes, size: int, map_location: Any) -> Any:
    if not _is_safetensors(head, size):
        raise RuntimeError(
            f"{path} is no safetensors file; files written by pickling are not read, since reading them can run code. Convert it "
            "where it was written, with safetensors.torch.save_file"
        )
    tensors: dict[str, Tensor] = _flambeau._safetensors_load(path)
    if map_location is not None:
        tensors = {name: _move(t, map_location) for name, t in tensors.items()}
    if list(tensors) == ["__tensor__"]:
        return tensors["__tensor__"]
    return OrderedDict(tensors)


def _move(t: Tensor, where: Any) -> Tensor:
    if isinstance(where, dict):
        where = where.get(str(t.device), t.device)
    return t.to(where) if not callable(where) or isinstance(where, _flambeau.device) else where(t, str(t.device))


def add_safe_globals(safe_globals: Any) -> None:
    """Accepted for compatibility: files hold tensors only."""


__all__ = ["add_safe_globals", "load", "save"]
