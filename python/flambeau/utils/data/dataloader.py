"""`DataLoader`: batches of a dataset, made in this process or by workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ... import _flambeau
from ._multiprocess import WorkerIterator
from ._threads import ThreadIterator
from ._workers import get_worker_info
from .collate import default_collate, default_convert
from .dataset import IterableDataset, TensorDataset
from .sampler import BatchSampler, RandomSampler, SequentialSampler, _draw_seed, index_tensors


class DataLoader:
    """Iterates over a dataset in batches.

    With `num_workers`, processes make the batches and their tensors arrive in shared memory, or, with
    `multiprocessing_context="thread"`, threads of this process do. In this process, batches of a
    `TensorDataset` are gathered by one `index_select` a tensor, which gives what stacking the samples would.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        if num_workers < 0:
            raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
        if timeout < 0:
            raise ValueError("timeout option should be non-negative")
        if num_workers == 0 and prefetch_factor is not None:
            raise ValueError(
                "prefetch_factor option could only be specified in multiprocessing.let num_workers > 0 to enable multiprocessing, "
                "otherwise set prefetch_factor to None."
            )
        if persistent_workers and num_workers == 0:
            raise ValueError("persistent_workers option needs num_workers > 0")
        stream = isinstance(dataset, IterableDataset)
        if stream:
            if shuffle:
                raise ValueError(f"DataLoader with IterableDataset: expected unspecified shuffle option, but got shuffle={shuffle}")
            if sampler is not None:
                raise ValueError(f"DataLoader with IterableDataset: expected unspecified sampler option, but got sampler={sampler}")
            if batch_sampler is not None:
                raise ValueError(
                    f"DataLoader with IterableDataset: expected unspecified batch_sampler option, but got batch_sampler={batch_sampler}"
                )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError("batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last")
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None and not stream:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and batch_sampler is None and not stream:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        self.sampler, self.batch_sampler, self.generator = sampler, batch_sampler, generator
        self.num_workers, self.prefetch_factor, self.persistent_workers = num_workers, prefetch_factor, persistent_workers
        self.pin_memory, self.timeout, self.worker_init_fn = pin_memory, timeout, worker_init_fn
        self._batched = batch_sampler is not None or (stream and batch_size is not None)
        self._is_stream, self.in_order = stream, in_order
        self.multiprocessing_context, self.pin_memory_device = multiprocessing_context, pin_memory_device
        if num_workers > 0 and prefetch_factor is None:
            self.prefetch_factor = 2
        if self.prefetch_factor is not None and self.prefetch_factor <= 0:
            raise ValueError("prefetch_factor option should be positive")
        self._workers: Any = None
        self._epoch: Any = None
        self.collate_fn: Callable[[Any], Any] = collate_fn or (default_collate if self._batched else default_convert)
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and self.__dict__.get("_made"):
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __iter__(self) -> Iterator[Any]:
        if self.num_workers > 0:
            return self._by_workers()
        batches = self._stream() if self._is_stream else self._indexed()
        # PyTorch draws a seed for its workers whether it has any or not.
        _draw_seed(self.generator)
        return map(self._pinned, batches) if self.pin_memory else batches

    def _by_workers(self) -> Iterator[Any]:
        if self.multiprocessing_context == "thread":
            return ThreadIterator(self)
        if not self.persistent_workers:
            return WorkerIterator(self, None)
        if self._epoch is not None and not self._epoch._finished and not self._epoch._drain():
            self._workers = None
        self._epoch = WorkerIterator(self, self._workers)
        self._workers = self._epoch._workers
        return self._epoch

    @property
    def _dataset_kind(self) -> int:
        return _DatasetKind.Iterable if self._is_stream else _DatasetKind.Map

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_workers": None, "_epoch": None}

    def _tasks(self) -> Iterator[Any]:
        """What workers are asked for, one entry a batch."""
        if self._is_stream:
            return itertools.repeat([None] * self.batch_size if self._batched else None)  # type: ignore[operator]
        return iter(self.batch_sampler if self._batched else self.sampler)

    def _pinned(self, batch: Any) -> Any:
        if not self.pin_memory or not _flambeau._cuda_is_available():
            return batch
        from .. import _pytree as pytree

        return pytree.tree_map_only(_flambeau.Tensor, lambda t: t.pin_memory(), batch)

    def _stream(self) -> Iterator[Any]:
        samples = iter(self.dataset)
        if not self._batched:
            for sample in samples:
                yield self.collate_fn(sample)
            return
        while batch := list(itertools.islice(samples, self.batch_size)):
            if len(batch) < (self.batch_size or 1) and self.drop_last:
                return
            yield self.collate_fn(batch)

    def _indexed(self) -> Iterator[Any]:
        dataset, collate = self.dataset, self.collate_fn
        if not self._batched:
            for index in self.sampler:
                yield collate(dataset[index])
            return
        if type(dataset) is TensorDataset and collate is default_collate:
            for index in index_tensors(self.batch_sampler):
                yield [t.index_select(0, index if t.device.type == "cpu" else index.to(t.device)) for t in dataset.tensors]
            return
        if isinstance(dataset, _flambeau.Tensor) and collate is default_collate:
            for index in index_tensors(self.batch_sampler):
                yield dataset.index_select(0, index if dataset.device.type == "cpu" else index.to(dataset.device))
            return
        gather = getattr(dataset, "__getitems__", None)
        for batch in self.batch_sampler:
            yield collate(gather(batch) if callable(gather) else [dataset[i] for i in batch])

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            n = len(self.dataset)  # type: ignore[arg-type]
            if self.batch_size is None:
                return n
            return n // self.batch_size if self.drop_last else -(-n // self.batch_size)
        return len(self.batch_sampler if self._batched else self.sampler)


# What samplers and workers have been made from.
_FIXED = frozenset(("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"))


class _DatasetKind:
    """How samples are found."""

    Map = 0
    Iterable = 1


# What is being iterated over: the loader's own generators in this process, and workers' batches.
_MultiProcessingDataLoaderIter = WorkerIterator
_SingleProcessDataLoaderIter = type(_ for _ in ())
_BaseDataLoaderIter = Iterator

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]
