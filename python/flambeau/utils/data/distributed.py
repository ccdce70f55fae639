"""Each process's share of a dataset."""

from .sampler import DistributedSampler

__all__ = ["DistributedSampler"]
