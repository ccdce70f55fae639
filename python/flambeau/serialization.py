"""Saving and loading: PyTorch's zip archives and its older stream of pickles, both ways, and safetensors.

Reading runs nothing that a file brings along unless it is asked to (`weights_only=False`). Files are written whole or not
at all.
"""

from __future__ import annotations

import contextlib
import io
import mmap as _mmap
import os
import pickle
import stat
import struct
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from . import _flambeau, _utils, _weights_unpickler
from ._flambeau import Tensor
from ._weights_unpickler import WeightsUnpickler, file_name
from .nn.modules.module import _Registry
from .storage import _NAME_OF, TypedStorage, UntypedStorage

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
DEFAULT_PROTOCOL = 2

# Of each storage in an archive: pages and vector loads of a mapped file fall on it.
_ALIGNMENT = 64


# ---- names that may be read ----------------------------------------------------------------------------


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Lets files that are read with `weights_only=True` use these classes and functions.

    An entry is the object itself or a pair of it and the name ("module.name") that files give it.
    """
    _weights_unpickler.user_globals.update(_named(safe_globals))


def get_safe_globals() -> list[Any]:
    """What `add_safe_globals` was given."""
    return list(_weights_unpickler.user_globals.values())


def clear_safe_globals() -> None:
    """Forgets what `add_safe_globals` was given."""
    _weights_unpickler.user_globals.clear()


class safe_globals:  # noqa: N801
    """`with safe_globals([MyClass]): …` allows names for a while; see `add_safe_globals`."""

    def __init__(self, safe_globals: list[Any]) -> None:
        self._names = _named(safe_globals)

    def __enter__(self) -> None:
        self._before = dict(_weights_unpickler.user_globals)
        _weights_unpickler.user_globals.update(self._names)

    def __exit__(self, *_: Any) -> None:
        _weights_unpickler.user_globals.clear()
        _weights_unpickler.user_globals.update(self._before)


def _named(entries: list[Any]) -> dict[str, Any]:
    names = {}
    for entry in entries:
        if isinstance(entry, tuple):
            value, name = entry
            if not isinstance(name, str):
                raise TypeError(f"add_safe_globals: the name of {value!r} must be a string, got {type(name).__name__}")
            names[name] = value
        else:
            names[file_name(entry.__module__, entry.__qualname__)] = entry
    return names


def get_unsafe_globals_in_checkpoint(f: Any) -> list[str]:
    """The names in a checkpoint that `weights_only=True` would refuse."""
    import pickletools

    with _opened(f) as (source, _):
        if not source.is_archive():
            raise ValueError(
                "get_unsafe_globals_in_checkpoint: only archives (the format of save) can be looked through"
            )
        data = _Archive(source).bytes_of("data.pkl")
    names, texts = [], []
    for op, arg, _position in pickletools.genops(data):
        if op.name == "GLOBAL":
            names.append(file_name(*str(arg).split(" ", 1)))
        elif "UNICODE" in op.name:
            texts.append(str(arg))
        elif op.name == "STACK_GLOBAL" and len(texts) >= 2:
            names.append(file_name(texts[-2], texts[-1]))
    known = {**_weights_unpickler.known_globals(), **_weights_unpickler.user_globals}
    return [name for name in dict.fromkeys(names) if name not in known]


# ---- writing -------------------------------------------------------------------------------------------


class _Pickler(pickle._Pickler):
    """Writes objects with PyTorch's names for Flambeau's; storages are numbered and kept aside."""

    def __init__(self, file: Any, protocol: int, legacy: bool) -> None:
        super().__init__(file, protocol=protocol)
        self._legacy = legacy
        # By identity: the storage, the dtype it is written in (None for plain bytes), its key.
        self.storages: dict[int, tuple[UntypedStorage, Any, str]] = {}

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, TypedStorage):
            storage, dtype = obj._untyped_storage, obj.dtype
        elif isinstance(obj, UntypedStorage):
            storage, dtype = obj, None
        else:
            return None
        _, known, key = self.storages.setdefault(storage._cdata, (storage, dtype, str(len(self.storages))))
        if known != dtype:
            raise RuntimeError(
                f"save(): tensors of {known or 'bytes'} and of {dtype or 'bytes'} share memory, which the format cannot express; "
                "clone one of them"
            )
        kind: Any = UntypedStorage
        count = storage.nbytes()
        if dtype is not None:
            kind, count = _storage_class(dtype), count // int(dtype.itemsize)
        identity = ("storage", kind, key, str(storage.device), count)
        return (*identity, None) if self._legacy else identity

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return _reduce_tensor(obj)
        if isinstance(obj, _flambeau.layout):
            return _get_layout, (str(obj),)
        return NotImplemented

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None)
        if not isinstance(module, str) or (module != "flambeau" and not module.startswith("flambeau.")):
            super().save_global(obj, name)
            return
        name = name or getattr(obj, "__qualname__", None) or obj.__name__
        full = file_name(module, name)
        if _find(*_split(full, name)) is not obj:
            raise pickle.PicklingError(f"Can't pickle {obj!r}: it is not found as {module}.{name}")
        module = _split(full, name)[0]
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + module.encode() + b"\n" + name.encode() + b"\n")
        self.memoize(obj)

    # Classes and functions reach `save_global` through this table.
    dispatch = dict(pickle._Pickler.dispatch)
    import types as _types

    dispatch[_types.FunctionType] = save_global
    dispatch[_types.BuiltinFunctionType] = save_global
    # Files know no registries: a module's are written as the dicts that PyTorch's are, and become registries again when read.
    dispatch[_Registry] = pickle._Pickler.save_dict  # type: ignore[attr-defined]
    del _types


def _split(full: str, name: str) -> tuple[str, str]:
    return full[: -len(name) - 1], name


def _storage_class(dtype: Any) -> Any:
    from . import storage

    return getattr(storage, _NAME_OF[dtype])


def _get_layout(name: str) -> Any:
    """The layout of a name such as "torch.strided"."""
    found = getattr(_flambeau, str(name).removeprefix("torch."), None)
    if not isinstance(found, _flambeau.layout):
        raise pickle.UnpicklingError(f"{name!r} is no layout")
    return found


def _reduce_tensor(t: Tensor) -> Any:
    from .nn.parameter import Buffer, Parameter

    if t.device.type == "meta":
        raise NotImplementedError("save(): tensors of the meta device have no data to write")
    state = dict(getattr(t, "__dict__", None) or {})
    hooks: Any = OrderedDict()
    if type(t) is Parameter:
        if state:
            return _utils._rebuild_parameter_with_state, (t.data, t.requires_grad, hooks, state)
        return _utils._rebuild_parameter, (t.data, t.requires_grad, hooks)
    if t.layout is not _flambeau.strided:
        return _utils._reduce_sparse_tensor(t)
    plain = t.detach() if type(t) is Tensor else t.detach().as_subclass(Tensor)
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    where = (plain.storage_offset(), tuple(plain.size()), tuple(plain.stride()), t.requires_grad, hooks)
    untyped = UntypedStorage._of(plain)
    if t.dtype in _NAME_OF:
        rebuilt = _utils._rebuild_tensor_v2, (_storage_class(t.dtype)(wrap_storage=untyped, dtype=t.dtype), *where)
    else:
        rebuilt = _utils._rebuild_tensor_v3, (untyped, *where, t.dtype)
    if type(t) is Tensor and not state:
        return rebuilt
    kind: type = type(t)
    if kind is Buffer:
        kind, state = Tensor, {**state, "_is_buffer": True}
    return _utils._rebuild_from_type_v2, (rebuilt[0], kind, rebuilt[1], state)


def save(
    obj: Any,
    f: Any,
    pickle_module: Any = pickle,
    pickle_protocol: int = DEFAULT_PROTOCOL,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Writes an object to a path or a file object, as PyTorch writes it.

    `obj` is anything that can be pickled; its tensors' storages are written once each, shared ones included. A path that
    ends in ".safetensors" gets that format, for a tensor or a mapping of names to tensors. A file at a path is replaced
    when the new one is complete on disk, so that a process that dies meanwhile leaves the old one.

    Raises `RuntimeError` for tensors of different dtypes over one storage, `pickle.PicklingError` for what cannot be pickled,
    `OSError` where the file cannot be written.
    """
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        if path.endswith(".safetensors"):
            _save_safetensors(obj, path)
            return
        name = os.path.basename(path).rsplit(".", 1)[0] or "archive"
        with _replacing(path) as file:
            _write(obj, file, name, pickle_protocol, _use_new_zipfile_serialization)
    elif hasattr(f, "write"):
        _write(obj, f, "archive", pickle_protocol, _use_new_zipfile_serialization)
    else:
        raise AttributeError(f"save() takes a path or a file object with a method write(), not {type(f).__name__}")


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[Any]:
    """A file that takes the place of `path` when all of it is on disk."""
    target = os.path.realpath(path)
    try:
        mode = os.stat(target).st_mode
        if not stat.S_ISREG(mode):
            # A pipe or device: there is nothing to replace.
            with open(target, "wb") as file:
                yield file
            return
    except FileNotFoundError:
        mode = None
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise RuntimeError(f"Parent directory {folder} does not exist.")
    temporary = os.path.join(folder, f".{name[:200]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            if mode is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The new name itself is on disk once its folder is.
    with contextlib.suppress(OSError):
        folder_descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(folder_descriptor)
        finally:
            os.close(folder_descriptor)


def _memory(storage: UntypedStorage) -> memoryview:
    return memoryview(_flambeau.HostMemory(storage._bytes.cpu()))


def _write(obj: Any, file: Any, name: str, protocol: int, archive: bool) -> None:
    if archive:
        _write_archive(obj, file, name, protocol)
    else:
        _write_stream(obj, file, protocol)


def _write_archive(obj: Any, file: Any, name: str, protocol: int) -> None:
    text = io.BytesIO()
    pickler = _Pickler(text, protocol, legacy=False)
    pickler.dump(obj)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def record(path: str, data: Any) -> None:
            info = zipfile.ZipInfo(f"{name}/{path}")
            size = len(data)
            # Larger than what zipfile would guess needs 64-bit sizes, which take 20 bytes before our own field.
            large = size > 0x7FFF_0000
            at = archive.fp.tell() + 30 + len(info.filename.encode()) + (20 if large else 0) + 4  # type: ignore[union-attr]
            info.extra = struct.pack("<HH", 0x4246, -at % _ALIGNMENT) + b"Z" * (-at % _ALIGNMENT)
            info.file_size = size
            with archive.open(info, "w", force_zip64=large) as out:
                out.write(data)

        record("data.pkl", text.getvalue())
        record(".format_version", b"1")
        record(".storage_alignment", str(_ALIGNMENT).encode())
        record("byteorder", sys.byteorder.encode())
        for storage, _, key in pickler.storages.values():
            record(f"data/{key}", _memory(storage))
        record("version", b"3\n")


def _write_stream(obj: Any, file: Any, protocol: int) -> None:
    sizes = {"short": 2, "int": 4, "long": 4}
    about = {"protocol_version": PROTOCOL_VERSION, "little_endian": sys.byteorder == "little", "type_sizes": sizes}
    for part in (MAGIC_NUMBER, PROTOCOL_VERSION, about):
        pickle.dump(part, file, protocol=protocol)
    pickler = _Pickler(file, protocol, legacy=True)
    pickler.dump(obj)
    pickle.dump([key for _, _, key in pickler.storages.values()], file, protocol=protocol)
    for storage, dtype, _ in pickler.storages.values():
        file.write(struct.pack("<q", storage.nbytes() // (1 if dtype is None else int(dtype.itemsize))))
        file.write(_memory(storage))


def _save_safetensors(obj: Any, path: str) -> None:
    tensors = {"__tensor__": obj} if isinstance(obj, Tensor) else obj
    if not isinstance(tensors, dict) or not all(
        isinstance(k, str) and isinstance(t, Tensor) for k, t in tensors.items()
    ):
        raise TypeError(
            "save(): a .safetensors file holds a tensor or a mapping of names to tensors, such as a state_dict"
        )
    _flambeau._safetensors_save({k: t.detach().contiguous() for k, t in tensors.items()}, path, {"format": "pt"})


# ---- reading -------------------------------------------------------------------------------------------


class _Source:
    """A file to read from: size, pieces at given places, and reading straight into memory."""

    def __init__(self, file: Any, path: str | None) -> None:
        self.file, self.path = file, path
        try:
            self.start = file.tell()
            self.size = file.seek(0, os.SEEK_END)
            file.seek(self.start)
            file.read(0)
        except (AttributeError, io.UnsupportedOperation) as failure:
            raise AttributeError(
                f"{failure}. load() takes a path or a file object that can be read and sought; read the data into an io.BytesIO first"
            ) from failure
        if self.size is None:
            self.size = file.tell()
            file.seek(self.start)

    def at(self, offset: int, n: int) -> bytes:
        self.file.seek(offset)
        data = self.file.read(n)
        return bytes(data)

    def into(self, offset: int | None, memory: memoryview) -> None:
        """Fills `memory` from `offset` on, or from where the file stands."""
        if offset is not None:
            self.file.seek(offset)
        done = 0
        while done < len(memory):
            if hasattr(self.file, "readinto"):
                n = self.file.readinto(memory[done:])
            else:
                piece = self.file.read(min(len(memory) - done, 1 << 24))
                n = len(piece)
                memory[done : done + n] = piece
            if not n:
                raise RuntimeError(f"load(): {self.name} ends inside a storage of {len(memory)} bytes")
            done += n

    @property
    def name(self) -> str:
        return self.path or "the file"

    def is_archive(self) -> bool:
        return self.at(self.start, 4) == b"PK\x03\x04"


@contextlib.contextmanager
def _opened(f: Any) -> Iterator[tuple[_Source, bool]]:
    if isinstance(f, (str, os.PathLike)):
        path = os.fspath(f)
        with open(path, "rb") as file:
            yield _Source(file, path), True
    elif hasattr(f, "read"):
        source = _Source(f, None)
        try:
            yield source, False
        finally:
            if source.is_archive():
                f.seek(source.size)
    else:
        raise AttributeError(f"load() takes a path or a file object with a method read(), not {type(f).__name__}")


class _Archive:
    """The records of a zip archive, all under one folder, none compressed."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        try:
            source.file.seek(0)
            with zipfile.ZipFile(source.file) as listing:
                infos = listing.infolist()
        except (
            zipfile.BadZipFile,
            struct.error,
            OSError,
            ValueError,
            EOFError,
            NotImplementedError,
            OverflowError,
        ) as failure:
            raise RuntimeError(
                f"load(): {source.name} is no whole archive: it is cut off or damaged ({failure})"
            ) from failure
        if not infos:
            raise RuntimeError(f"load(): {source.name} is an archive without records")
        folder = infos[0].filename.split("/", 1)[0] + "/"
        self.records = {i.filename[len(folder) :]: i for i in infos if i.filename.startswith(folder)}

    def __contains__(self, name: str) -> bool:
        return name in self.records

    def place(self, name: str) -> tuple[int, int]:
        """Offset and size of a record's data."""
        info = self.records.get(name)
        if info is None:
            raise RuntimeError(f"load(): {self.source.name} has no record {name!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise RuntimeError(
                f"load(): the record {name!r} of {self.source.name} is compressed or encrypted, which checkpoints are not"
            )
        head = self.source.at(info.header_offset, 30) if 0 <= info.header_offset <= self.source.size else b""
        if len(head) != 30 or head[:4] != b"PK\x03\x04":
            raise RuntimeError(f"load(): the record {name!r} of {self.source.name} is damaged")
        offset = info.header_offset + 30 + sum(struct.unpack("<HH", head[26:30]))
        if offset + info.file_size > self.source.size:
            raise RuntimeError(f"load(): the record {name!r} of {self.source.name} reaches beyond the end of the file")
        return offset, info.file_size

    def bytes_of(self, name: str) -> bytes:
        """A record's data."""
        return self.source.at(*self.place(name))


def load(
    f: Any,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Reads an object that `save` or PyTorch's own `torch.save` wrote, or a safetensors file, from a path or a file object.

    `weights_only` (the default) reads tensors, containers and what `add_safe_globals` allows, and runs nothing; with False the
    file is unpickled as Python does it, which runs whatever code the file brings along. `map_location` says where tensors go:
    a device, a dict from device to device, or a function of a storage and its place. `mmap=True` leaves tensors in the file,
    which is mapped; changes to them do not reach it.

    Raises `pickle.UnpicklingError` for names that are not known to be safe, `RuntimeError` for damaged files and for tensors of
    a device that is not there, `ValueError` for `mmap` without a path.
    """
    if weights_only is None:
        weights_only = pickle_module is None
        forced = os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "")
        if forced.lower() in ("1", "y", "yes", "true"):
            weights_only = False
    if weights_only and pickle_module is not None:
        raise RuntimeError("load(): weights_only=True reads without a pickle module; leave pickle_module out")
    mapped = bool(get_default_mmap() if mmap is None else mmap)
    if mapped and not isinstance(f, (str, os.PathLike)):
        raise ValueError("load(): mmap=True needs a path: what is mapped is a file of the file system")
    with _opened(f) as (source, _):
        if source.is_archive():
            return _read_archive(source, map_location, pickle_module, weights_only, mapped, pickle_load_args)
        head = source.at(source.start, 9)
        if len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= source.size:
            return _read_safetensors(source, map_location)
        if mapped:
            raise RuntimeError("load(): mmap=True needs a file in the zip format, the default of save()")
        source.file.seek(source.start)
        return _read_stream(source, map_location, pickle_module, weights_only, pickle_load_args)


_default_mmap = False


def get_default_mmap() -> bool:
    """Whether `load` maps files unless it is told."""
    return _default_mmap


class _Unpickler(pickle.Unpickler):
    """Python's own unpickler, with Flambeau's classes under PyTorch's names."""

    persistent: Callable[[Any], Any] | None = None

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" or module.startswith("torch."):
            return _find(module, name)
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise pickle.UnpicklingError("the file names a storage where none can be")
        return self.persistent(pid)


def _find(module: str, name: str) -> Any:
    """What PyTorch calls `module.name`: under Flambeau's module of the same name, or the nearest package that exports it."""
    import importlib

    known = _weights_unpickler.known_globals().get(f"{module}.{name}")
    if known is not None:
        return known
    # Memory formats call themselves so, whichever module they are found in.
    name = name.removeprefix("torch.")
    parts = module.split(".")[1:]
    while True:
        path = ".".join(["flambeau", *parts])
        try:
            found: Any = importlib.import_module(path)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        except (ImportError, AttributeError):
            if not parts:
                raise AttributeError(f"the file refers to {module}.{name}, which Flambeau does not have") from None
            parts.pop()


def _unpickle(
    file: Any, limit: int, persistent: Any, pickle_module: Any, weights_only: bool, options: dict[str, Any]
) -> Any:
    if weights_only:
        return WeightsUnpickler(file, limit, persistent).load()
    if pickle_module is None or pickle_module is pickle or not hasattr(pickle_module, "Unpickler"):
        unpickler: Any = _Unpickler(file, **options)
        unpickler.persistent = persistent
        return unpickler.load()
    kind = type(
        "_Unpickler",
        (pickle_module.Unpickler,),
        {"find_class": _find_any(pickle_module), "persistent_load": lambda _, p: persistent(p)},
    )
    return kind(file, **options).load()


def _find_any(pickle_module: Any) -> Any:
    def find_class(self: Any, module: str, name: str) -> Any:
        if module == "torch" or module.startswith("torch."):
            return _find(module, name)
        return pickle_module.Unpickler.find_class(self, module, name)

    return find_class


class _Storages:
    """Storages of one file, made when they are first named."""

    def __init__(self, source: _Source, map_location: Any) -> None:
        self.made: dict[str, UntypedStorage] = {}
        self._source = source
        self._map_location = map_location
        # Records that overlap must not be read into more memory than the file has bytes.
        self._budget = source.size

    def identity(self, pid: Any, parts: int) -> tuple[Any, str, str, int, int]:
        """Checks what a file says about a storage: its dtype (None for bytes), key, place, count and bytes."""
        if not isinstance(pid, tuple) or len(pid) < parts or pid[0] != "storage":
            raise pickle.UnpicklingError("the file names something other than a storage where a storage belongs")
        kind, key, location, count = pid[1:5]
        if isinstance(kind, type) and issubclass(kind, TypedStorage) and kind._dtype is not None:
            dtype = kind._dtype
        elif kind is UntypedStorage:
            dtype = None
        else:
            raise pickle.UnpicklingError(f"{kind!r} is no kind of storage")
        key = key.decode("ascii") if isinstance(key, bytes) else str(key) if isinstance(key, int) else key
        if not isinstance(key, str) or not isinstance(location, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(
                "the file says nothing sensible about a storage: its key, place or size is of the wrong type"
            )
        return dtype, key, location, count, count * (1 if dtype is None else int(dtype.itemsize))

    def allocate(self, nbytes: int) -> UntypedStorage:
        self._budget -= nbytes
        if self._budget < 0:
            raise RuntimeError(f"load(): {self._source.name} names storages of more bytes than it has")
        return UntypedStorage(nbytes)

    def keep(self, key: str, storage: UntypedStorage, location: str) -> None:
        self.made[key] = storage if self._map_location is _LATER else _placed(storage, location, self._map_location)

    @staticmethod
    def typed(storage: UntypedStorage, dtype: Any) -> Any:
        return storage if dtype is None else TypedStorage(wrap_storage=storage, dtype=dtype)


_LATER = object()


def _placed(storage: UntypedStorage, location: str, where: Any) -> UntypedStorage:
    """A storage read from a file, moved to where it belongs."""
    if where is not None and not isinstance(where, (str, dict, _flambeau.device)):
        moved = where(storage, location)
        if moved is not None:
            return moved._untyped_storage if isinstance(moved, TypedStorage) else moved  # type: ignore[no-any-return]
        where = None
    if isinstance(where, dict):
        target = where.get(location, location)
    else:
        target = location if where is None else where
    device = _flambeau.device(target)
    if device.type == "cpu":
        return storage
    if device.type == "cuda":
        count = _flambeau._cuda_device_count()
        if count == 0:
            raise RuntimeError(
                f"load(): the file's tensors belong on {device}, and there is no CUDA device here; give map_location='cpu' to have them on the CPU"
            )
        if (device.index or 0) >= count:
            raise RuntimeError(
                f"load(): the file's tensors belong on {device}, and there are {count} CUDA devices; give a map_location"
            )
        return storage.to(device=device)
    raise RuntimeError(
        f"load(): don't know how to restore data location of torch.UntypedStorage (tagged with {target})"
    )


def _swapped(storage: UntypedStorage, dtype: Any) -> UntypedStorage:
    """Numbers of the other byte order."""
    width = 1 if dtype is None else int(dtype.itemsize) // (2 if dtype.is_complex else 1)
    if width == 1 or not storage.nbytes():
        return storage
    return UntypedStorage._of(storage._bytes.view(-1, width).flip(1).contiguous().view(-1))


def _read_archive(
    source: _Source, map_location: Any, pickle_module: Any, weights_only: bool, mapped: bool, options: dict[str, Any]
) -> Any:
    archive = _Archive(source)
    if "constants.pkl" in archive:
        raise RuntimeError(
            f"load(): {source.name} is a TorchScript archive, which holds code; save the module's state_dict instead"
        )
    foreign = "byteorder" in archive and archive.bytes_of("byteorder").strip() == (
        b"big" if sys.byteorder == "little" else b"little"
    )
    storages = _Storages(source, map_location)
    memory: Any = None
    if mapped:
        memory = _mmap.mmap(source.file.fileno(), 0, access=_mmap.ACCESS_COPY)

    def persistent(pid: Any) -> Any:
        dtype, key, location, _, nbytes = storages.identity(pid, 5)
        if key not in storages.made:
            offset, size = archive.place(f"data/{key}")
            if size != nbytes:
                raise RuntimeError(
                    f"load(): the storage {key!r} of {source.name} has {size} bytes and should have {nbytes}"
                )
            if memory is not None and nbytes and offset % (1 if dtype is None else int(dtype.itemsize)) == 0:
                whole = _flambeau.operators["frombuffer"](memory, dtype=_flambeau.uint8, offset=offset, count=nbytes)
                storage = UntypedStorage._of(whole)
            else:
                storage = storages.allocate(nbytes)
                if nbytes:
                    source.into(offset, _memory(storage))
            storages.keep(key, _swapped(storage, dtype) if foreign else storage, location)
        return storages.typed(storages.made[key], dtype)

    data = archive.bytes_of("data.pkl")
    return _unpickle(io.BytesIO(data), len(data), persistent, pickle_module, weights_only, options)


def _read_stream(
    source: _Source, map_location: Any, pickle_module: Any, weights_only: bool, options: dict[str, Any]
) -> Any:
    def part(persistent: Any = None) -> Any:
        return _unpickle(source.file, source.size, persistent, pickle_module, weights_only, options)

    if source.size - source.start < 16:
        raise EOFError(f"load(): {source.name} is no checkpoint: it has {source.size - source.start} bytes")
    try:
        magic = part()
    except pickle.UnpicklingError as failure:
        raise pickle.UnpicklingError(
            f"load(): {source.name} is neither a checkpoint nor a safetensors file: {failure}"
        ) from failure
    if magic != MAGIC_NUMBER:
        raise RuntimeError("Invalid magic number; corrupt file?")
    version = part()
    if version != PROTOCOL_VERSION:
        raise RuntimeError(f"Invalid protocol version: {version}")
    about = part()
    little = about.get("little_endian", True) if isinstance(about, dict) else True
    # Values follow the object: storages are made empty, and filled and placed after it.
    storages = _Storages(source, _LATER)
    kinds: dict[str, tuple[Any, int, str]] = {}

    def persistent(pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], type):
            # A module's class comes with its source text, which PyTorch compares and nobody needs.
            return pid[1]
        dtype, key, location, count, nbytes = storages.identity(pid, 5)
        if key not in storages.made:
            storages.keep(key, storages.allocate(nbytes), location)
            kinds[key] = (dtype, count, location)
        view = pid[5] if len(pid) > 5 else None
        if view is not None and tuple(view[1:]) != (0, count):
            raise pickle.UnpicklingError(
                "the file names a part of a storage as a storage of its own, a form older than PyTorch 0.4"
            )
        return storages.typed(storages.made[key], dtype)

    start, unresolved = source.file.tell(), _utils.unresolved
    _utils.filling = True
    try:
        result = part(persistent)
    finally:
        _utils.filling = False
    keys = part()
    if not isinstance(keys, list) or not all(isinstance(key, (str, int, bytes)) for key in keys):
        raise RuntimeError(f"load(): {source.name} is damaged: the list of its storages is none")
    for given in keys:
        key = given.decode("ascii") if isinstance(given, bytes) else str(given)
        if key not in storages.made:
            raise RuntimeError(f"load(): {source.name} has values of a storage {key!r} that its object does not name")
        dtype, count, _ = kinds[key]
        (stored,) = struct.unpack("<q", source.file.read(8).ljust(8, b"\0"))
        if stored != count:
            raise RuntimeError(
                f"load(): the storage {key!r} of {source.name} has {stored} elements and should have {count}"
            )
        storage = storages.made[key]
        if storage.nbytes():
            source.into(None, _memory(storage))
            if little != (sys.byteorder == "little"):
                storage.copy_(_swapped(storage, dtype))
    if _utils.unresolved != unresolved:
        # Some tensors are calculated from values that had not been read yet: once more, over storages that are full now.
        end = source.file.tell()
        source.file.seek(start)
        result = part(persistent)
        source.file.seek(end)
    places = {storages.made[key]._cdata: location for key, (_, _, location) in kinds.items()}
    if map_location in (None, "cpu") and all(
        location == "cpu" or map_location == "cpu" for location in places.values()
    ):
        return result
    return _moved(result, places, map_location, {})


def _moved(value: Any, places: dict[int, str], where: Any, done: dict[int, Any]) -> Any:
    """Containers with their tensors placed; tensors that share a storage still do afterwards."""
    if isinstance(value, Tensor):
        identity = _flambeau._storage_key(value)
        if identity not in done:
            done[identity] = _placed(UntypedStorage._of(value), places.get(identity, "cpu"), where)
        storage = done[identity]
        if storage._cdata != identity:
            moved = _flambeau._storage_tensor(
                storage._bytes, value.dtype, value.storage_offset(), list(value.size()), list(value.stride())
            )
            value.data = moved
        return value
    if isinstance(value, dict):
        for key in value:
            value[key] = _moved(value[key], places, where, done)
    elif isinstance(value, list):
        value[:] = [_moved(item, places, where, done) for item in value]
    elif type(value) is tuple:
        return tuple(_moved(item, places, where, done) for item in value)
    elif hasattr(value, "__dict__"):
        for key, item in vars(value).items():
            vars(value)[key] = _moved(item, places, where, done)
    return value


def _read_safetensors(source: _Source, map_location: Any) -> Any:
    if source.path is not None:
        tensors = _flambeau._safetensors_load(source.path)
    else:
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(source.at(source.start, source.size - source.start))
            copy.flush()
            tensors = _flambeau._safetensors_load(copy.name)
    if map_location is not None:
        for name, t in tensors.items():
            storage = _placed(UntypedStorage._of(t), "cpu", map_location)
            tensors[name] = _flambeau._storage_tensor(
                storage._bytes, t.dtype, t.storage_offset(), list(t.size()), list(t.stride())
            )
    if list(tensors) == ["__tensor__"]:
        return tensors["__tensor__"]
    return OrderedDict(tensors)


__all__ = [
    "add_safe_globals", "clear_safe_globals", "get_safe_globals", "get_unsafe_globals_in_checkpoint", "load", "safe_globals", "save",
]  # fmt: skip
