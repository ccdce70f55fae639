"""Samplers: the order in which samples are taken. Draws come from the random streams in PyTorch's order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ... import _flambeau
from ..._ops import ops

T = TypeVar("T", covariant=True)


def _draw_seed(generator: Any = None) -> int:
    """A seed from a stream (the default one), as PyTorch draws it."""
    return int(_flambeau.empty((), dtype=_flambeau.int64).random_(generator=generator).item())


class Sampler(Generic[T]):
    """Base of all samplers: `__iter__` gives indices, or lists of them."""

    def __init__(self, data_source: Any = None) -> None:
        pass

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError


class SequentialSampler(Sampler[int]):
    """One after the other."""

    def __init__(self, data_source: Any) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """In random order, or drawn with replacement."""

    def __init__(
        self, data_source: Any, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        self.data_source, self.replacement, self._num_samples, self.generator = data_source, replacement, num_samples, generator
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        if not isinstance(self.num_samples, int) or self.num_samples < 0:
            raise ValueError(f"num_samples should be a non-negative integer value, but got num_samples={self.num_samples}")

    @property
    def num_samples(self) -> int:
        """How many samples are taken."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        n = len(self.data_source)
        generator = self.generator
        if generator is None:
            generator = _flambeau.Generator()
            generator.manual_seed(_draw_seed())
        if self.replacement:
            for _ in range(self.num_samples // 32):
                yield from ops.randint(n, (32,), dtype=_flambeau.int64, generator=generator).tolist()
            rest = self.num_samples % 32
            yield from ops.randint(n, (rest,), dtype=_flambeau.int64, generator=generator).tolist()
        else:
            for _ in range(self.num_samples // n if n else 0):
                yield from ops.randperm(n, generator=generator).tolist()
            rest = self.num_samples % n if n else 0
            yield from ops.randperm(n, generator=generator).tolist()[:rest]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """Given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices, self.generator = indices, generator

    def __iter__(self) -> Iterator[int]:
        for i in ops.randperm(len(self.indices), generator=self.generator).tolist():
            yield self.indices[i]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Drawn with given weights."""

    def __init__(
        self, weights: Any, num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
            raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.weights = ops.as_tensor(weights, dtype=_flambeau.float64)
        if self.weights.dim() != 1:
            raise ValueError(f"weights should be a 1d sequence but given weights have shape {tuple(self.weights.shape)}")
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        yield from ops.multinomial(
            self.weights, self.num_samples, self.replacement, generator=self.generator
        ).tolist()

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Another sampler's indices in lists."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        source = iter(self.sampler)
        while batch := list(itertools.islice(source, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch

    def __len__(self) -> int:
        n = len(self.sampler)  # type: ignore[arg-type]
        return n // self.batch_size if self.drop_last else (n + self.batch_size - 1) // self.batch_size


def index_tensors(batches: Iterable[list[int]]) -> Iterator[Any]:
    """A batch sampler's batches as int64 tensors: parts of one tensor where the order of an epoch is known at once."""
    sampler = batches.sampler if type(batches) is BatchSampler else None
    generator = None
    if type(sampler) is RandomSampler and not sampler.replacement and len(sampler) == len(sampler.data_source) > 0:
        generator = sampler.generator or _flambeau.Generator()
        if sampler.generator is None:
            generator.manual_seed(_draw_seed())
        order = ops.randperm(len(sampler), generator=generator, device="cpu")
    elif type(sampler) is SequentialSampler and len(sampler) > 0:
        order = ops.arange(len(sampler), device="cpu")
    else:
        for batch in batches:
            yield _flambeau.tensor(batch, dtype=_flambeau.int64)
        return
    size, rest = batches.batch_size, len(order) % batches.batch_size  # type: ignore[attr-defined]
    yield from order[: len(order) - rest].split(size) if rest < len(order) else ()
    if generator is not None and sampler.generator is not None:  # type: ignore[union-attr]
        # The sampler draws once more, for the part of a round that does not come.
        ops.randperm(len(order), generator=generator, device="cpu")
    if rest and not batches.drop_last:  # type: ignore[attr-defined]
        yield order[-rest:]


class DistributedSampler(Sampler[int]):
    """One process's share of a dataset."""

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            from ... import distributed

            num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
            rank = distributed.get_rank() if rank is None else rank
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset, self.num_replicas, self.rank, self.drop_last = dataset, num_replicas, rank, drop_last
        self.epoch, self.shuffle, self.seed = 0, shuffle, seed
        n = len(dataset)
        if drop_last and n % num_replicas:
            self.num_samples = -(-(n - num_replicas) // num_replicas)
        else:
            self.num_samples = -(-n // num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        n = len(self.dataset)
        if self.shuffle:
            generator = _flambeau.Generator()
            generator.manual_seed(self.seed + self.epoch)
            order = ops.randperm(n, generator=generator).tolist()
        else:
            order = list(range(n))
        if self.drop_last:
            order = order[: self.total_size]
        else:
            order = list(itertools.islice(itertools.cycle(order), self.total_size))
        return iter(order[self.rank : self.total_size : self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch's order comes next."""
        self.epoch = epoch
