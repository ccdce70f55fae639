"""Storages: the memory that tensors share, as bytes (`UntypedStorage`) or as numbers of one dtype (`TypedStorage`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _flambeau
from ._flambeau import Tensor

__all__ = ["TypedStorage", "UntypedStorage"]


class UntypedStorage:
    """Bytes in one place, seen by every tensor over them.

    `UntypedStorage(n)` makes `n` bytes, `UntypedStorage([1, 2, 3])` bytes of the given values.
    """

    _bytes: Tensor

    def __init__(self, *args: Any, device: Any = None) -> None:
        if len(args) > 1:
            raise TypeError(f"UntypedStorage takes a size or a sequence of bytes, got {len(args)} arguments")
        given = args[0] if args else 0
        if isinstance(given, int):
            if given < 0:
                raise RuntimeError(f"UntypedStorage: the size must not be negative, got {given}")
            self._bytes = _flambeau.operators["empty"]((given,), dtype=_flambeau.uint8, device=device)
        else:
            self._bytes = _flambeau.operators["tensor"](list(given), dtype=_flambeau.uint8, device=device)

    @classmethod
    def _of(cls, tensor: Tensor) -> UntypedStorage:
        """The storage behind a tensor."""
        self = cls.__new__(cls)
        self._bytes = _flambeau._storage_bytes(tensor)
        return self

    @classmethod
    def from_buffer(cls, buffer: Any, *, offset: int = 0, count: int = -1, **_: Any) -> UntypedStorage:
        """A copy of a buffer's bytes."""
        data = bytearray(
            memoryview(buffer).cast("B")[offset:]
            if count < 0
            else memoryview(buffer).cast("B")[offset : offset + count]
        )
        return cls._of(_flambeau.operators["frombuffer"](data, dtype=_flambeau.uint8)) if data else cls(0)

    @classmethod
    def from_file(cls, filename: str, shared: bool = False, nbytes: int = 0) -> UntypedStorage:
        """A file's bytes, mapped; with `shared`, writes go to the file."""
        import mmap

        with open(filename, "r+b" if shared else "rb") as file:
            if shared and file.seek(0, 2) < nbytes:
                file.truncate(nbytes)
            access = mmap.ACCESS_WRITE if shared else mmap.ACCESS_COPY
            mapped = mmap.mmap(file.fileno(), nbytes, access=access)
        return cls._of(_flambeau.operators["frombuffer"](mapped, dtype=_flambeau.uint8))

    def nbytes(self) -> int:
        """Size in bytes."""
        return int(self._bytes.numel())

    size = nbytes
    __len__ = nbytes

    def element_size(self) -> int:
        """1: the elements are bytes."""
        return 1

    @property
    def device(self) -> Any:
        """Where the bytes are."""
        return self._bytes.device

    @property
    def is_cuda(self) -> bool:
        """Whether the bytes are on a CUDA device."""
        return str(self.device.type) == "cuda"

    @property
    def _cdata(self) -> int:
        return int(_flambeau._storage_key(self._bytes))

    def data_ptr(self) -> int:
        """Address of the first byte."""
        return int(self._bytes.data_ptr())

    def is_pinned(self, device: Any = "cuda") -> bool:
        """False: host memory is not page-locked."""
        return False

    def pin_memory(self, device: Any = "cuda") -> UntypedStorage:
        """The storage itself."""
        return self

    def is_shared(self) -> bool:
        """Whether other processes can see the bytes."""
        return bool(self._bytes.is_shared())

    def share_memory_(self) -> UntypedStorage:
        """The storage itself."""
        return self

    def resize_(self, size: int) -> UntypedStorage:
        """Makes room for `size` bytes."""
        self._bytes.resize_(size)
        return self

    def fill_(self, value: int) -> UntypedStorage:
        """Sets every byte."""
        self._bytes.fill_(value)
        return self

    def copy_(self, source: Any, non_blocking: bool | None = None) -> UntypedStorage:
        """Takes over another storage's bytes."""
        self._bytes.copy_(source._bytes if isinstance(source, UntypedStorage) else source._untyped_storage._bytes)
        return self

    def clone(self) -> UntypedStorage:
        """A copy."""
        return UntypedStorage._of(self._bytes.clone())

    def to(self, *, device: Any, non_blocking: bool = False) -> UntypedStorage:
        """The bytes on another device; the storage itself when it is there already."""
        moved = self._bytes.to(device)
        return self if moved is self._bytes else UntypedStorage._of(moved)

    def cpu(self) -> UntypedStorage:
        """The bytes on the CPU."""
        return self.to(device="cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> UntypedStorage:
        """The bytes on a CUDA device."""
        return self.to(device="cuda" if device is None else device)

    def tolist(self) -> list[int]:
        """The bytes as numbers."""
        return self._bytes.tolist()  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return UntypedStorage._of(self._bytes[index].clone())
        return self._bytes[index].item()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._bytes[index] = value

    def __iter__(self) -> Iterator[int]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self._cdata == other._cdata

    def __hash__(self) -> int:
        return self._cdata

    def __deepcopy__(self, memo: dict[Any, Any]) -> UntypedStorage:
        copies = memo.setdefault("flambeau", {})
        if self._cdata not in copies:
            copies[self._cdata] = self.clone()
        return copies[self._cdata]  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        return _rebuild_storage, (bytes(_flambeau.HostMemory(self._bytes.cpu())),)

    def __repr__(self) -> str:
        values = "".join(f" {value}\n" for value in self._bytes.tolist())
        return f"{values}[torch.storage.UntypedStorage(device={self.device}) of size {self.nbytes()}]"


def _rebuild_storage(data: bytes) -> UntypedStorage:
    return UntypedStorage.from_buffer(data)


class TypedStorage:
    """A storage read as numbers of one dtype: `TypedStorage(wrap_storage=UntypedStorage(16), dtype=torch.float32)`."""

    _dtype: Any = None
    _untyped_storage: UntypedStorage
    dtype: Any

    def __init__(
        self,
        *args: Any,
        wrap_storage: UntypedStorage | None = None,
        dtype: Any = None,
        device: Any = None,
        _internal: bool = False,
    ):
        self.dtype = dtype or type(self)._dtype or _flambeau.get_default_dtype()
        if wrap_storage is not None:
            if args:
                raise RuntimeError("TypedStorage: values and 'wrap_storage' were both given")
            self._untyped_storage = wrap_storage
        elif len(args) == 1 and not isinstance(args[0], int):
            values = _flambeau.operators["tensor"](list(args[0]), dtype=self.dtype, device=device)
            self._untyped_storage = UntypedStorage._of(values)
        else:
            n = args[0] if args else 0
            self._untyped_storage = UntypedStorage(n * self.element_size(), device=device)

    @property
    def _values(self) -> Tensor:
        n = self.size()
        return _flambeau._storage_tensor(self._untyped_storage._bytes, self.dtype, 0, [n], [1])

    def untyped(self) -> UntypedStorage:
        """The bytes."""
        return self._untyped_storage

    def element_size(self) -> int:
        """Bytes of a number."""
        return int(self.dtype.itemsize)

    def nbytes(self) -> int:
        """Size in bytes."""
        return self._untyped_storage.nbytes()

    def size(self) -> int:
        """How many numbers there are."""
        return self.nbytes() // self.element_size()

    __len__ = size

    @property
    def device(self) -> Any:
        """Where the numbers are."""
        return self._untyped_storage.device

    @property
    def is_cuda(self) -> bool:
        """Whether the numbers are on a CUDA device."""
        return self._untyped_storage.is_cuda

    @property
    def _cdata(self) -> int:
        return self._untyped_storage._cdata

    def data_ptr(self) -> int:
        """Address of the first number."""
        return self._untyped_storage.data_ptr()

    def tolist(self) -> list[Any]:
        """The numbers."""
        return self._values.tolist()  # type: ignore[no-any-return]

    def fill_(self, value: Any) -> TypedStorage:
        """Sets every number."""
        self._values.fill_(value)
        return self

    def copy_(self, source: TypedStorage, non_blocking: bool | None = None) -> TypedStorage:
        """Takes over another storage's numbers."""
        self._values.copy_(source._values)
        return self

    def clone(self) -> TypedStorage:
        """A copy."""
        return type(self)(wrap_storage=self._untyped_storage.clone(), dtype=self.dtype)

    def cpu(self) -> TypedStorage:
        """The numbers on the CPU."""
        return type(self)(wrap_storage=self._untyped_storage.cpu(), dtype=self.dtype)

    def cuda(self, device: Any = None, non_blocking: bool = False) -> TypedStorage:
        """The numbers on a CUDA device."""
        return type(self)(wrap_storage=self._untyped_storage.cuda(device), dtype=self.dtype)

    def resize_(self, size: int) -> TypedStorage:
        """Makes room for `size` numbers."""
        self._untyped_storage.resize_(size * self.element_size())
        return self

    def is_shared(self) -> bool:
        """Whether other processes can see the numbers."""
        return self._untyped_storage.is_shared()

    def share_memory_(self) -> TypedStorage:
        """The storage itself."""
        return self

    def is_pinned(self, device: Any = "cuda") -> bool:
        """False: host memory is not page-locked."""
        return False

    def pickle_storage_type(self) -> str:
        """The name under which files know this kind of storage: "FloatStorage"."""
        return _NAME_OF[self.dtype]

    def type(self) -> str:
        """The name of this kind of storage."""
        return f"torch.{_NAME_OF[self.dtype]}"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            raise RuntimeError("slices are only supported in UntypedStorage.__getitem__")
        return self._values[index].item()

    def __setitem__(self, index: Any, value: Any) -> None:
        self._values[index] = value

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TypedStorage) and self._cdata == other._cdata and self.dtype == other.dtype

    def __hash__(self) -> int:
        return self._cdata

    def __repr__(self) -> str:
        values = "".join(f" {value}\n" for value in self.tolist())
        return f"{values}[torch.storage.TypedStorage(dtype={self.dtype}, device={self.device}) of size {len(self)}]"


# The kinds of storage that files name.
_KINDS = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
_NAME_OF: dict[Any, str] = {}


def _declare() -> None:
    for name, dtype_name in _KINDS.items():
        dtype = getattr(_flambeau, dtype_name)
        _NAME_OF[dtype] = name
        doc = f"A storage of {dtype_name} numbers."
        globals()[name] = type(name, (TypedStorage,), {"_dtype": dtype, "__module__": "flambeau", "__doc__": doc})
        __all__.append(name)


_declare()


# ---- what tensors answer -----------------------------------------------------------------------------------------------


def _untyped_storage(self: Tensor) -> UntypedStorage:
    """The storage that this tensor shares with its views, as bytes."""
    return UntypedStorage._of(self)


def _storage(self: Tensor) -> TypedStorage:
    """The storage that this tensor shares with its views, in the tensor's dtype."""
    return TypedStorage(wrap_storage=UntypedStorage._of(self), dtype=self.dtype)


_set_tensor = Tensor.set_


def _set(self: Tensor, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Tensor:
    """Makes this tensor one over another tensor's or a storage's memory."""
    if isinstance(source, TypedStorage):
        source = source._untyped_storage
    if isinstance(source, UntypedStorage):
        whole = source._bytes
        if size is None:
            size = (source.nbytes() // self.element_size(),)
    elif isinstance(source, Tensor) and size is not None:
        whole = _flambeau._storage_bytes(source)
    else:
        return _set_tensor(self, source) if source is not None else _set_tensor(self)
    size = [size] if isinstance(size, int) else list(size)
    if stride is None:
        stride, step = [], 1
        for n in reversed(size):
            stride.insert(0, step)
            step *= max(n, 1)
    stride = [stride] if isinstance(stride, int) else list(stride)
    return _set_tensor(self, _flambeau._storage_tensor(whole, self.dtype, storage_offset, size, stride))


Tensor.untyped_storage = _untyped_storage
Tensor.storage = _storage
Tensor._typed_storage = _storage
Tensor.set_ = _set
