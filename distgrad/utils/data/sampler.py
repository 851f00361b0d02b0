"""Samplers: in which order the items of a dataset are taken, and in which batches.

Invariant: a sampler that can give its order as one tensor (``order``) iterates over the numbers of that tensor, so
taking rows by the tensor and taking items one by one meet the same items.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import distgrad as dg

Index_co = TypeVar("Index_co", covariant=True)


class Sampler(Generic[Index_co]):
    """Base class of samplers: a subclass defines ``__iter__``, mostly ``__len__`` too.

    Source: torch.utils.data.Sampler.
    """

    def __iter__(self) -> Iterator[Index_co]:
        raise NotImplementedError


def _check_count(num_samples: Any) -> None:
    if not isinstance(num_samples, int) or isinstance(num_samples, bool) or num_samples <= 0:
        raise ValueError(f"num_samples should be a positive integer value, but got num_samples={num_samples}")


class SequentialSampler(Sampler[int]):
    """All items in order. Source: torch.utils.data.SequentialSampler."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """All items in random order, or ``num_samples`` draws with ``replacement``.

    Raises TypeError for a ``replacement`` that is no bool, ValueError for a count that is not positive.
    Source: torch.utils.data.RandomSampler.
    """

    def __init__(
        self, data_source: Sized, replacement: bool = False, num_samples: int | None = None, generator: Any = None
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(f"replacement should be a boolean value, but got replacement={replacement}")
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        _check_count(self.num_samples)

    @property
    def num_samples(self) -> int:
        """The number of draws, which follows the dataset's length unless it was given."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self) -> Any:
        """Draws the indices of one epoch as a 1-d int64 tensor.

        Without a generator of its own an epoch draws a seed from the default one, as torch does.
        """
        total = len(self.data_source)
        generator = self.generator
        if generator is None:
            generator = dg.Generator().manual_seed(dg.default_generator.random_integer())
        if self.replacement:
            return dg.randint(total, (self.num_samples,), generator=generator)
        rounds, rest = divmod(self.num_samples, total)
        # One order more than needed when nothing is left over: torch takes its numbers too.
        drawn = [dg.randperm(total, generator=generator) for _ in range(rounds + 1)]
        drawn[-1] = drawn[-1][:rest]
        return drawn[0] if rest == 0 and rounds == 1 else dg.cat(drawn)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given ``indices`` in random order. Source: torch.utils.data.SubsetRandomSampler."""

    def __init__(self, indices: Sequence[int], generator: Any = None) -> None:
        self.indices = indices
        self.generator = generator

    def order(self) -> Any:
        """Draws the indices of one epoch as a 1-d int64 tensor."""
        chosen = self.indices
        if not isinstance(chosen, dg.Tensor):
            chosen = dg.tensor(list(chosen), dtype=dg.int64)
        return chosen[dg.randperm(len(self.indices), generator=self.generator)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """``num_samples`` draws with probabilities proportional to ``weights``. Source: torch.utils.data."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None
    ) -> None:
        _check_count(num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(f"replacement should be a boolean value, but got replacement={replacement}")
        tensor: Any = weights if isinstance(weights, dg.Tensor) else dg.tensor(weights, dtype=dg.float64)
        if tensor.ndim != 1:
            raise ValueError(f"weights should be a 1d sequence but given weights have shape {tuple(tensor.shape)}")
        self.weights = tensor.to(dg.float64)
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def order(self) -> Any:
        """Draws the indices of one epoch as a 1-d int64 tensor."""
        return dg.multinomial(self.weights, self.num_samples, self.replacement, generator=self.generator)

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list]):
    """Groups the indices of ``sampler`` into lists of ``batch_size``; the last is shorter unless ``drop_last``.

    Source: torch.utils.data.BatchSampler.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(itertools.islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (rest > 0 and not self.drop_last)
