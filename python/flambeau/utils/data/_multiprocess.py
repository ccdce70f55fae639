"""The loader's side of worker processes: who gets which batch, in which order they are given out, and their end."""

from __future__ import annotations

import itertools
import multiprocessing
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from . import _workers
from .sampler import _draw_seed


class Workers:
    """Processes that make batches. They end when their sockets close, which `close()`, the collector or our death does."""

    def __init__(self, loader: Any, base: int) -> None:
        self.seed = base
        context = loader.multiprocessing_context
        if context is None or isinstance(context, str):
            context = multiprocessing.get_context(context)
        self.forked = context.get_start_method() == "fork"
        self.sockets: list[socket.socket] = []
        self.processes: list[Any] = []
        try:
            for i in range(loader.num_workers):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self.sockets.append(ours)
                _workers.loader_ends.add(ours)
                with theirs:
                    process = context.Process(
                        target=_workers.main,
                        args=(
                            theirs, loader.dataset, loader._is_stream, loader._batched, loader.collate_fn, loader.drop_last,
                            base, i, loader.num_workers, loader.worker_init_fn, self.forked,
                        ),
                        daemon=True,
                    )  # fmt: skip
                    process.start()
                self.processes.append(process)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the sockets and waits for the processes; one that is busy is ended."""
        for sock in self.sockets:
            _workers.loader_ends.discard(sock)
            sock.close()
        self.sockets = []
        processes, self.processes = self.processes, []
        until = time.monotonic() + 0.2
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()

    def __del__(self) -> None:
        self.close()


class WorkerIterator:
    """One epoch over a loader with workers."""

    def __init__(self, loader: Any, workers: Workers | None) -> None:
        # Workers that stay keep the seed of their first epoch, and nothing is drawn for them.
        self._base_seed = _draw_seed(loader.generator) if workers is None else workers.seed
        self._loader = loader
        self._workers = workers or Workers(loader, self._base_seed)
        count = loader.num_workers
        self._tasks: Iterator[Any] = loader._tasks()
        self._sent = self._given = 0
        self._owner: dict[int, int] = {}
        self._done: dict[int, Any] = {}
        self._active = set(range(count))
        self._next = itertools.cycle(range(count))
        self._unsent: list[deque[Any]] = [deque() for _ in range(count)]
        self._finished = False
        if workers is not None:
            for i in range(count):
                self._put(i, (None, None))
        for _ in range(count * (loader.prefetch_factor or 2)):
            self._assign()

    def __iter__(self) -> WorkerIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def _put(self, worker: int, value: Any) -> None:
        self._unsent[worker].append(_workers._pack(value))
        self._flush(worker)

    def _flush(self, worker: int) -> None:
        waiting = self._unsent[worker]
        while waiting:
            try:
                if not _workers.send_packed(self._workers.sockets[worker], *waiting[0], socket.MSG_DONTWAIT):
                    return
            except (BrokenPipeError, ConnectionError):
                # Whatever it still sent is read first; its end is then reported.
                return
            waiting.popleft()

    def _assign(self) -> None:
        """Gives the next batch's indices to the next worker that still has samples."""
        if not self._active:
            return
        indices = next(self._tasks, self)
        if indices is self:
            return
        worker = next(w for w in self._next if w in self._active)
        self._owner[self._sent] = worker
        self._put(worker, (self._sent, indices))
        self._sent += 1

    def _read(self) -> None:
        """Waits for messages and takes those that are there."""
        pairs = {self._workers.sockets[w].fileno(): w for w in set(self._owner.values())}
        poll = select.poll()
        for fd, w in pairs.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if self._unsent[w] else 0))
        timeout = self._loader.timeout
        events = poll.poll(timeout * 1000 if timeout > 0 else None)
        if not events:
            raise RuntimeError(f"DataLoader timed out after {timeout} seconds")
        for fd, event in events:
            worker = pairs[fd]
            if event & select.POLLOUT:
                self._flush(worker)
            if event & ~select.POLLOUT:
                try:
                    position, value, failed = _workers.receive(self._workers.sockets[worker])
                except EOFError:
                    raise self._death(worker) from None
                self._owner.pop(position, None)
                self._done[position] = (worker, value, failed)
                if failed is None:
                    self._active.discard(worker)

    def _death(self, worker: int) -> RuntimeError:
        process = self._workers.processes[worker]
        process.join(5)
        code = process.exitcode
        if code is not None and code < 0:
            import signal

            how = f"is killed by signal: {signal.Signals(-code).name}."
        else:
            how = f"exited unexpectedly with exit code {code}. Details are lost due to multiprocessing. Rerunning with num_workers=0 may give better error trace."  # noqa: E501
        return RuntimeError(f"DataLoader worker (pid {process.pid}) {how}")

    def __next__(self) -> Any:
        if self._finished:
            raise StopIteration
        try:
            while True:
                if self._loader.in_order:
                    ready = self._given if self._given in self._done else None
                else:
                    ready = next(iter(self._done), None)
                if ready is None:
                    if self._sent == self._given:
                        self._finish()
                        raise StopIteration
                    self._read()
                    continue
                _, value, failed = self._done.pop(ready)
                self._given += 1
                self._assign()
                if failed is None:
                    continue
                if failed:
                    value.reraise()
                return self._loader._pinned(value)
        except StopIteration:
            raise
        except BaseException:
            # Failure or Ctrl-C: nothing of this epoch is left behind.
            self._finished = True
            self._loader._workers = None
            self._workers.close()
            raise

    def _finish(self) -> None:
        self._finished = True
        if not self._loader.persistent_workers:
            self._workers.close()

    def _drain(self) -> bool:
        """Takes what an abandoned epoch still owes, so that its workers can serve another; whether that went well."""
        try:
            while self._owner:
                self._read()
        except Exception:
            self._workers.close()
            return False
        self._finished = True
        return True


__all__ = ["WorkerIterator", "Workers"]
