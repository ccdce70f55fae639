"""Pipelines of datasets: classes that pass on and change what another gives, chained by methods.

@functional_datapipe("doubled")
class Doubled(IterDataPipe):
    def __init__(self, source):
        self.source = source

    def __iter__(self):
        return (2 * x for x in self.source)

IterableWrapper(range(3)).doubled()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .dataset import Dataset, IterableDataset


class _Pipe:
    """Chaining: the methods that `functional_datapipe` adds."""

    functions: dict[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name in type(self).functions:
            make = type(self).functions[name]
            return lambda *args, **kwargs: make(self, *args, **kwargs)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @classmethod
    def register_function(cls, function_name: str, function: Callable[..., Any]) -> None:
        """Adds a method under which a function of a pipe is chained."""
        cls.functions[function_name] = function

    @classmethod
    def register_datapipe_as_function(
        cls, function_name: str, cls_to_register: Any, enable_df_api_tracing: bool = False
    ) -> None:
        """Adds a method under which a class of pipes is chained."""
        if function_name in cls.functions:
            raise Exception(f"Unable to add DataPipe function name {function_name} as it is already taken")
        cls.functions[function_name] = cls_to_register


class IterDataPipe(_Pipe, IterableDataset[Any]):
    """A stream that passes on what another gives."""

    functions: dict[str, Callable[..., Any]] = {}

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} gives no __iter__")

    def reset(self) -> None:
        """Called by some programs before the stream is read anew."""


class MapDataPipe(_Pipe, Dataset[Any]):
    """A dataset by index that passes on what another gives."""

    functions: dict[str, Callable[..., Any]] = {}


class DFIterDataPipe(IterDataPipe):
    """Streams of data frames."""


class functional_datapipe:
    """A decorator that makes a class of pipes a method of all pipes of its kind."""

    def __init__(self, name: str, enable_df_api_tracing: bool = False) -> None:
        self.name = name

    def __call__(self, cls: Any) -> Any:
        if issubclass(cls, IterDataPipe):
            IterDataPipe.register_datapipe_as_function(self.name, cls)
        elif issubclass(cls, MapDataPipe):
            MapDataPipe.register_datapipe_as_function(self.name, cls)
        else:
            raise TypeError("`functional_datapipe` can only decorate IterDataPipe or MapDataPipe")
        return cls


class IterableWrapper(IterDataPipe):
    """A stream from anything that can be iterated over."""

    def __init__(self, iterable: Any, deepcopy: bool = True) -> None:
        self.iterable, self.deepcopy = iterable, deepcopy

    def __iter__(self) -> Iterator[Any]:
        source = self.iterable
        if self.deepcopy:
            import copy

            source = copy.deepcopy(source)
        yield from source

    def __len__(self) -> int:
        return len(self.iterable)


class SequenceWrapper(MapDataPipe):
    """A dataset from anything that can be indexed."""

    def __init__(self, sequence: Any, deepcopy: bool = True) -> None:
        import copy

        self.sequence = copy.deepcopy(sequence) if deepcopy else sequence

    def __getitem__(self, index: Any) -> Any:
        return self.sequence[index]

    def __len__(self) -> int:
        return len(self.sequence)


@functional_datapipe("map")
class Mapper(IterDataPipe):
    """Each sample through a function."""

    def __init__(self, datapipe: Any, fn: Callable[[Any], Any]) -> None:
        self.datapipe, self.fn = datapipe, fn

    def __iter__(self) -> Iterator[Any]:
        return map(self.fn, self.datapipe)

    def __len__(self) -> int:
        return len(self.datapipe)


@functional_datapipe("filter")
class Filter(IterDataPipe):
    """The samples for which a function holds."""

    def __init__(self, datapipe: Any, filter_fn: Callable[[Any], bool]) -> None:
        self.datapipe, self.filter_fn = datapipe, filter_fn

    def __iter__(self) -> Iterator[Any]:
        return filter(self.filter_fn, self.datapipe)


@functional_datapipe("batch")
class Batcher(IterDataPipe):
    """Lists of samples."""

    def __init__(self, datapipe: Any, batch_size: int, drop_last: bool = False, wrapper_class: Any = list) -> None:
        if batch_size <= 0:
            raise AssertionError("Batch size is required to be larger than 0!")
        self.datapipe, self.batch_size, self.drop_last, self.wrapper_class = (
            datapipe,
            batch_size,
            drop_last,
            wrapper_class,
        )

    def __iter__(self) -> Iterator[Any]:
        import itertools

        source = iter(self.datapipe)
        while batch := list(itertools.islice(source, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield self.wrapper_class(batch)

    def __len__(self) -> int:
        n = len(self.datapipe)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)


@functional_datapipe("sharding_filter")
class ShardingFilter(IterDataPipe):
    """Every n-th sample, so that workers share a stream."""

    def __init__(self, source_datapipe: Any, sharding_group_filter: Any = None) -> None:
        self.source_datapipe = source_datapipe

    def __iter__(self) -> Iterator[Any]:
        import itertools

        from ._workers import get_worker_info

        info = get_worker_info()
        count, own = (1, 0) if info is None else (info.num_workers, info.id)
        return itertools.islice(self.source_datapipe, own, None, count)


@functional_datapipe("shuffle")
class Shuffler(IterDataPipe):
    """Samples in another order, drawn from a buffer."""

    def __init__(self, datapipe: Any, *, buffer_size: int = 10000, unbatch_level: int = 0) -> None:
        if buffer_size <= 0:
            raise ValueError("buffer_size should be larger than 0")
        self.datapipe, self.buffer_size, self.enabled = datapipe, buffer_size, True
        self.seed: int | None = None

    def set_shuffle(self, shuffle: bool = True) -> Shuffler:
        """Turns it on or off."""
        self.enabled = shuffle
        return self

    def set_seed(self, seed: int) -> Shuffler:
        """Draws the next order from `seed`."""
        self.seed = seed
        return self

    def __iter__(self) -> Iterator[Any]:
        import random

        from ... import _flambeau

        if not self.enabled:
            yield from self.datapipe
            return
        seed = self.seed
        if seed is None:
            seed = int(_flambeau.operators["empty"]((), dtype=_flambeau.int64).random_().item())
        self.seed = None
        rng = random.Random(seed)
        buffer: list[Any] = []
        for sample in self.datapipe:
            if len(buffer) == self.buffer_size:
                place = rng.randint(0, len(buffer) - 1)
                yield buffer[place]
                buffer[place] = sample
            else:
                buffer.append(sample)
        rng.shuffle(buffer)
        yield from buffer


__all__ = [
    "Batcher", "DFIterDataPipe", "Filter", "IterDataPipe", "IterableWrapper", "MapDataPipe", "Mapper", "SequenceWrapper",
    "ShardingFilter", "Shuffler", "functional_datapipe",
]  # fmt: skip
