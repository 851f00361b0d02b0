"""Datasets: things with ``__getitem__`` and ``__len__``, and ways to join, pair, cut and split them.

Invariant: choosing rows of tensors is an indexing of the tensors; no value passes through the driver to get there.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import distgrad as dg
from distgrad.warn import warn_user

Item_co = TypeVar("Item_co", covariant=True)


class Dataset(Generic[Item_co]):
    """Base class of datasets with random access: a subclass defines ``__getitem__``, mostly ``__len__`` too.

    Source: torch.utils.data.Dataset.
    """

    def __getitem__(self, index: Any) -> Item_co:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: Dataset) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[Item_co], Iterable[Item_co]):
    """Base class of datasets that can only be gone through in order: a subclass defines ``__iter__``.

    Source: torch.utils.data.IterableDataset.
    """

    def __add__(self, other: Dataset) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple]):
    """Rows of tensors that agree in their first dimension: item ``i`` is ``(t[i] for t in tensors)``.

    Raises AssertionError when the first dimensions differ. Source: torch.utils.data.TensorDataset.
    """

    def __init__(self, *tensors: Any) -> None:
        if any(tensor.shape[0] != tensors[0].shape[0] for tensor in tensors):
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]


class StackDataset(Dataset[Any]):
    """Pairs datasets of one length: items are tuples, or dicts when the datasets are given by name.

    Source: torch.utils.data.StackDataset.
    """

    def __init__(self, *args: Dataset, **kwargs: Dataset) -> None:
        if args and kwargs:
            raise ValueError(
                "Supported either ``tuple``- (via ``args``) or``dict``- (via ``kwargs``) like input/output, but both "
                "types are given."
            )
        if not args and not kwargs:
            raise ValueError("At least one dataset should be passed")
        self.datasets: Any = args or kwargs
        parts = list(args or kwargs.values())
        self._length = len(parts[0])  # type: ignore[arg-type]
        if any(len(part) != self._length for part in parts):  # type: ignore[arg-type]
            raise ValueError("Size mismatch between datasets")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._length


class ConcatDataset(Dataset[Item_co]):
    """Datasets one after the other, as one. Source: torch.utils.data.ConcatDataset."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise AssertionError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise AssertionError("ConcatDataset does not support IterableDataset")
        self.cumulative_sizes = list(itertools.accumulate(len(dataset) for dataset in self.datasets))  # type: ignore

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]

    def __getitem__(self, index: int) -> Item_co:
        if index < 0:
            if -index > len(self):
                raise ValueError("absolute value of index should not exceed dataset length")
            index += len(self)
        place = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[place - 1] if place else 0
        return self.datasets[place][index - before]


class ChainDataset(IterableDataset[Item_co]):
    """Iterable datasets one after the other, as one. Source: torch.utils.data.ChainDataset."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self.datasets = datasets

    def _checked(self) -> Iterator[Any]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise AssertionError("ChainDataset only supports IterableDataset")
            yield dataset

    def __iter__(self) -> Iterator[Item_co]:
        return itertools.chain.from_iterable(self._checked())

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self._checked())


class Subset(Dataset[Item_co]):
    """The items of ``dataset`` at ``indices``, a sequence of ints or a 1-d index tensor.

    ``indices`` reads as a list. A tensor given for it is kept as it is, and is turned into the list only when somebody
    asks for that: batches of a tensor dataset do not. Source: torch.utils.data.Subset.
    """

    def __init__(self, dataset: Dataset[Item_co], indices: Any) -> None:
        self.dataset = dataset
        self._index_tensor: Any = indices if isinstance(indices, dg.Tensor) else None
        self._indices: Any = None if self._index_tensor is not None else indices

    @property
    def indices(self) -> Sequence[int]:
        if self._indices is None:
            self._indices = self._index_tensor.tolist()
        return self._indices

    @property
    def index_tensor(self) -> Any:
        """The indices as a 1-d int64 tensor."""
        if self._index_tensor is None:
            self._index_tensor = dg.tensor(list(self._indices), dtype=dg.int64)
        return self._index_tensor

    def __getitem__(self, index: Any) -> Item_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[place] for place in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[Item_co]:
        chosen = [self.indices[place] for place in indices]
        if callable(getattr(self.dataset, "__getitems__", None)):
            return self.dataset.__getitems__(chosen)  # type: ignore[attr-defined]
        return [self.dataset[place] for place in chosen]

    def __len__(self) -> int:
        return len(self._indices) if self._indices is not None else self._index_tensor.shape[0]


def random_split(dataset: Dataset[Item_co], lengths: Sequence[float], generator: Any = None) -> list[Subset[Item_co]]:
    """Splits a dataset at random into parts of the given lengths, or of the given fractions that sum to 1.

    What fractions leave over is dealt out one each from the first part on. Raises ValueError when the lengths do not
    sum to the dataset's. Source: torch.utils.data.random_split.
    """
    total = len(dataset)  # type: ignore[arg-type]
    lengths = list(lengths)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        for place, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ValueError(f"Fraction at index {place} is not between 0 and 1")
        parts = [math.floor(total * fraction) for fraction in lengths]
        for place in range(total - sum(parts)):
            parts[place % len(parts)] += 1
        for place, length in enumerate(parts):
            if length == 0:
                warn_user(
                    f"Length of split at index {place} is 0. This might result in an empty dataset."
                )
        lengths = parts
    if sum(lengths) != total:
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = dg.randperm(total, generator=generator)
    ends = itertools.accumulate(lengths)
    return [Subset(dataset, order[end - length : end]) for end, length in zip(ends, lengths, strict=True)]
