"""Batches made by threads of this process: `multiprocessing_context="thread"`.

For datasets whose work releases the interpreter's lock (reading files, decoding, Flambeau's operators) and for those that cannot
be pickled or forked. Nothing is copied or sent. The order of batches and the sharding of streams are those of worker processes.
Threads share the dataset and the random streams, so that draws inside a dataset come in the order in which threads get there.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TimedOut
from typing import Any

from . import _workers
from .sampler import _draw_seed

_END = object()


class ThreadIterator:
    """One epoch over a loader whose workers are threads."""

    def __init__(self, loader: Any) -> None:
        base = _draw_seed(loader.generator)
        count = loader.num_workers
        self._loader = loader
        self._tasks: Iterator[Any] = loader._tasks()
        self._waiting: deque[tuple[int, Future[Any]]] = deque()
        self._active = set(range(count))
        self._turns = itertools.cycle(range(count))
        # A thread each, so that what one worker does is in order.
        self._pools = [ThreadPoolExecutor(1, f"DataLoader-{i}") for i in range(count)]
        self._fetch: list[Any] = [None] * count
        for i, pool in enumerate(self._pools):
            pool.submit(self._begin, i, base)
        for _ in range(count * (loader.prefetch_factor or 2)):
            self._assign()

    def _begin(self, worker: int, base: int) -> None:
        loader = self._loader
        info = _workers.WorkerInfo(worker, loader.num_workers, base + worker, loader.dataset, loader.worker_init_fn)
        _workers.of_thread.info = info
        try:
            if loader.worker_init_fn is not None:
                loader.worker_init_fn(worker)
            self._fetch[worker] = _workers.fetcher(
                loader.dataset, loader._is_stream, loader._batched, loader.collate_fn, loader.drop_last
            )
        except Exception as failure:
            raised = failure

            def fail(_: Any) -> Any:
                raise raised

            self._fetch[worker] = fail

    def _run(self, worker: int, indices: Any) -> Any:
        try:
            return self._fetch[worker](indices)
        except StopIteration:
            if not self._loader._is_stream:
                raise RuntimeError("the dataset raised StopIteration") from None
            return _END

    def _assign(self) -> None:
        if not self._active:
            return
        indices = next(self._tasks, _END)
        if indices is _END:
            return
        worker = next(w for w in self._turns if w in self._active)
        self._waiting.append((worker, self._pools[worker].submit(self._run, worker, indices)))

    def __iter__(self) -> ThreadIterator:
        return self

    def __len__(self) -> int:
        return len(self._loader)

    def __next__(self) -> Any:
        timeout = self._loader.timeout
        try:
            while self._waiting:
                worker, batch = self._waiting.popleft()
                try:
                    value = batch.result(timeout or None)
                except TimedOut:
                    if batch.done():
                        raise
                    raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None
                if value is _END:
                    self._active.discard(worker)
                    self._assign()
                    continue
                self._assign()
                return self._loader._pinned(value)
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Lets the threads finish what they are at, and drops what they have not begun."""
        self._waiting.clear()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    def __del__(self) -> None:
        if hasattr(self, "_pools"):
            self.close()


__all__ = ["ThreadIterator"]
