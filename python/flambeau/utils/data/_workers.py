"""Worker processes of `DataLoader`: what runs in them, and how batches come back.

A worker and its loader are joined by one socket that keeps message boundaries. Tensors travel in an anonymous memory file
whose descriptor is sent along and which the loader maps as it is: no copy, and no name that could outlive both processes.
The end of either process is the end of its socket, which the other notices at once.
"""

from __future__ import annotations

import array
import itertools
import mmap
import os
import pickle
import random
import socket
import struct
import sys
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from ... import _flambeau
from ..._ops import ops

# What is larger goes into a memory file: a message must fit into a socket's buffer.
_INLINE = 4096
_ALIGN = 64


@dataclass
class WorkerInfo:
    """What `get_worker_info()` gives inside a worker."""

    id: int
    num_workers: int
    seed: int
    dataset: Any
    worker_init_fn: Any = None


_info: WorkerInfo | None = None
# The same where workers are threads.
of_thread = threading.local()


def get_worker_info() -> WorkerInfo | None:
    """This worker's number, seed and copy of the dataset; None in the main process."""
    return getattr(of_thread, "info", _info)


class ExceptionWrapper:
    """An exception on its way to another process: its type and its trace as text."""

    def __init__(self, exc_info: Any = None, where: str = "in background") -> None:
        exc_info = exc_info or sys.exc_info()
        self.exc_type = exc_info[0]
        self.exc_msg = "".join(traceback.format_exception(*exc_info))
        self.where = where

    def reraise(self) -> None:
        """Raises the exception again, with the trace it came from in its message."""
        message = f"Caught {self.exc_type.__name__} {self.where}.\nOriginal {self.exc_msg}"
        if self.exc_type is KeyError:
            raise KeyError(_Verbatim(message))
        if getattr(self.exc_type, "message", None):
            raise self.exc_type(message=message)
        try:
            exception = self.exc_type(message)
        except Exception:
            # Its constructor takes something else.
            raise RuntimeError(message) from None
        raise exception


class _Verbatim(str):
    """A KeyError shows its argument's repr: this one's keeps line ends."""

    def __repr__(self) -> str:
        return self


# ---- messages ----------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Puts the bytes of tensors aside."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=5)
        self.tensors: list[Any] = []
        self.size = 0

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not _flambeau.Tensor or value.device.type != "cpu":
            return NotImplemented
        if value.requires_grad and not value.is_leaf:
            raise RuntimeError(
                "Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd does not support crossing "
                "process boundaries.  If you just want to transfer the data, call detach() on the tensor before serializing."
            )
        flat = value.detach().contiguous()
        offset = self.size
        self.size += -(-flat.numel() * flat.element_size() // _ALIGN) * _ALIGN
        self.tensors.append((offset, flat))
        return _placed, (offset, tuple(value.shape), value.dtype, value.requires_grad)


_mapped: Any = None


def _placed(offset: int, shape: tuple[int, ...], dtype: Any, requires_grad: bool) -> Any:
    count = 1
    for n in shape:
        count *= n
    if count == 0:
        return ops.empty(shape, dtype=dtype, requires_grad=requires_grad)
    t = ops.frombuffer(_mapped, dtype=dtype, count=count, offset=offset).view(shape)
    return t.requires_grad_() if requires_grad else t


def _pack(value: Any) -> tuple[bytes, int | None]:
    """A message's bytes, and the memory file that holds what does not fit."""
    import io

    text = io.BytesIO()
    pickler = _Pickler(text)
    pickler.dump(value)
    data, start = text.getvalue(), pickler.size
    if start == 0 and len(data) <= _INLINE:
        return struct.pack("<QQ", 0, 0) + data, None
    fd = os.memfd_create("flambeau", os.MFD_CLOEXEC)
    try:
        inline = len(data) <= _INLINE
        os.ftruncate(fd, start + (0 if inline else len(data)) or 1)
        if start:
            with mmap.mmap(fd, start) as memory:
                for offset, tensor in pickler.tensors:
                    if tensor.numel():
                        ops.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset).copy_(tensor.view(-1))
        if not inline:
            os.pwrite(fd, data, start) if len(data) < 1 << 30 else _write_all(fd, data, start)
        return struct.pack("<QQ", start, 0 if inline else len(data)) + (data if inline else b""), fd
    except BaseException:
        os.close(fd)
        raise


def _write_all(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(fd, view[: 1 << 30], at)
        view, at = view[n:], at + n


def _unpack(data: bytes, fd: int | None) -> Any:
    global _mapped
    size, outside = struct.unpack_from("<QQ", data)
    text: Any = data[16:]
    if fd is not None:
        try:
            memory = mmap.mmap(fd, size + outside or 1)
        finally:
            os.close(fd)
        _mapped = memory
        if outside:
            text = memory[size : size + outside]
    try:
        return pickle.loads(text)
    finally:
        _mapped = None


def send(sock: socket.socket, value: Any, flags: int = 0) -> bool:
    """Sends a value; False where `flags` ask not to wait and the socket is full."""
    return send_packed(sock, *_pack(value), flags)


def send_packed(sock: socket.socket, data: bytes, fd: int | None, flags: int = 0) -> bool:
    """Sends a packed message, and closes its memory file once sent."""
    extra = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
    try:
        sock.sendmsg([data], extra, flags)
    except BlockingIOError:
        return False
    if fd is not None:
        os.close(fd)
    return True


def receive(sock: socket.socket) -> Any:
    """The next value; EOFError where the other side is gone."""
    try:
        data, extra, _, _ = sock.recvmsg(_INLINE + 64, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        raise EOFError from None
    if not data:
        raise EOFError
    fds = array.array("i")
    for _, _, given in extra:
        fds.frombytes(given[:4])
    return _unpack(data, fds[0] if fds else None)


# ---- in the worker -----------------------------------------------------------------------------------

# The loader's ends of sockets: a forked worker holds copies, which would hide the loader's end from other workers.
loader_ends: set[socket.socket] = set()


def numpy_seed(base: int, worker: int) -> None:
    """Seeds NumPy's global stream, where NumPy is loaded, apart for each worker."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(numpy.random.SeedSequence([worker, base & 0xFFFFFFFF, base >> 32]).generate_state(4))


def fetcher(dataset: Any, stream: bool, batched: bool, collate: Any, drop_last: bool) -> Any:
    """A function from a batch's indices to the batch; it raises StopIteration at a stream's end."""
    if stream:
        samples = iter(dataset)

        def take(indices: Any) -> Any:
            if not batched:
                return collate(next(samples))
            batch = list(itertools.islice(samples, len(indices)))
            if not batch or (drop_last and len(batch) < len(indices)):
                raise StopIteration
            return collate(batch)

        return take

    def gather(indices: Any) -> Any:
        if not batched:
            return collate(dataset[indices])
        many = getattr(dataset, "__getitems__", None)
        return collate(many(indices) if callable(many) else [dataset[i] for i in indices])

    return gather


def main(
    sock: socket.socket, dataset: Any, stream: bool, batched: bool, collate: Any, drop_last: bool, base: int, worker: int,
    workers: int, init: Any, forked: bool,
) -> None:  # fmt: skip
    """A worker's life: batches of indices in, batches of samples out, until the loader's end of the socket closes."""
    import signal

    # Ctrl-C reaches the whole group; the loader decides what it means and closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if forked:
        for other in list(loader_ends):
            other.close()
        loader_ends.clear()
    global _info
    seed = base + worker
    _flambeau.set_num_threads(1)
    random.seed(seed)
    _flambeau.manual_seed(seed)
    numpy_seed(base, worker)
    _info = WorkerInfo(worker, workers, seed, dataset, init)
    where = f"in DataLoader worker process {worker}"
    failure = fetch = None
    try:
        if init is not None:
            init(worker)
    except Exception:
        failure = ExceptionWrapper(where=where)
    try:
        while True:
            task = receive(sock)
            if task is None:
                return
            position, indices = task
            if position is None:
                # A new epoch of persistent workers.
                fetch, failure = None, failure
                continue
            if failure is None and fetch is None:
                try:
                    fetch = fetcher(dataset, stream, batched, collate, drop_last)
                except Exception:
                    failure = ExceptionWrapper(where=where)
            try:
                if failure is not None:
                    message = _pack((position, failure, True))
                elif fetch is _ended:
                    message = _pack((position, None, None))
                else:
                    message = _pack((position, fetch(indices), False))  # type: ignore[misc]
            except StopIteration:
                if not stream:
                    message = _pack((position, ExceptionWrapper(where=where), True))
                else:
                    fetch, message = _ended, _pack((position, None, None))
            except Exception:
                message = _pack_failure(position, where)
            send_packed(sock, *message)
    except (EOFError, BrokenPipeError, ConnectionError):
        # The loader is gone: nothing is left to do, and nothing to clean up.
        pass


def _ended(_: Any) -> Any:
    raise StopIteration


def _pack_failure(position: int, where: str) -> tuple[bytes, int | None]:
    failure = ExceptionWrapper(where=where)
    try:
        return _pack((position, failure, True))
    except Exception:
        # An exception type that cannot be pickled.
        failure.exc_type = RuntimeError
        return _pack((position, failure, True))
