"""`DistributedSampler`: one of several equal shares of a dataset.

Invariant: the shares of all ranks together are the dataset, padded or cut to equal lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import distgrad as dg
from distgrad.utils.data.sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every `num_replicas`-th item from `rank` on, shuffled by `seed` and the epoch.

    RuntimeError without both numbers: there is no process group to ask. Source: torch.utils.data.DistributedSampler.
    """

    def __init__(
        self, dataset: Any, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True,
        seed: int = 0, drop_last: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            raise RuntimeError("Requires distributed package to be available: give num_replicas and rank")
        if rank >= num_replicas or rank < 0:
            raise ValueError(f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]")
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.epoch, self.shuffle, self.seed, self.drop_last = 0, shuffle, seed, drop_last
        length = len(dataset)
        if drop_last and length % num_replicas:
            self.num_samples = math.ceil((length - num_replicas) / num_replicas)
        else:
            self.num_samples = math.ceil(length / num_replicas)
        self.total_size = self.num_samples * num_replicas

    def __iter__(self) -> Iterator[int]:
        length = len(self.dataset)
        if self.shuffle:
            order = dg.randperm(length, generator=dg.Generator().manual_seed(self.seed + self.epoch)).tolist()
        else:
            order = list(range(length))
        if not self.drop_last:
            order = (order * math.ceil(self.total_size / max(length, 1)))[: self.total_size]
        return iter(order[: self.total_size][self.rank :: self.num_replicas])

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, which makes another order."""
        self.epoch = epoch
