"""``DataLoader``: goes through a dataset in batches.

Invariant: a batch of a tensor dataset is one indexing per tensor, by a slice or by an index tensor that is never read
back. On a cluster only the rows asked for move, from worker to worker, and nothing passes through the driver.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import distgrad as dg
from distgrad.utils.data.collate import default_collate, default_convert
from distgrad.utils.data.dataset import IterableDataset, Subset, TensorDataset
from distgrad.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

_TENSOR_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
_FIXED_ATTRIBUTES = frozenset(("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"))


def get_worker_info() -> None:
    """Returns None: batches are made where the loader is used, never in worker processes of a loader."""


def _rows(dataset: Any) -> tuple[TensorDataset, Any] | None:
    """Returns the tensor dataset behind ``dataset`` and the rows of it (None: all), or None when there is none.

    Only the classes themselves count: a subclass may mean something else by an index.
    """
    chosen = None
    while type(dataset) is Subset:
        # Outer indices are places in the inner ones.
        chosen = dataset.index_tensor if chosen is None else dataset.index_tensor[chosen]
        dataset = dataset.dataset
    return (dataset, chosen) if type(dataset) is TensorDataset else None


class DataLoader:
    """Iterates over a dataset in batches, in order, shuffled, or as a sampler says.

    ``dataset`` has random access or is an IterableDataset. ``batch_size=None`` gives single items. ``shuffle`` draws a
    new order for each epoch from ``generator`` (default: a seed from the global one); ``sampler`` and
    ``batch_sampler`` replace it. ``collate_fn`` makes a batch of a list of samples. ``num_workers``, ``pin_memory``,
    ``timeout``, ``worker_init_fn``, ``multiprocessing_context``, ``prefetch_factor``, ``persistent_workers``,
    ``pin_memory_device`` and ``in_order`` are checked as torch does and otherwise ignored: a loader starts no
    processes, the cluster's workers hold the data.
    Raises ValueError for options that exclude each other. Source: torch.utils.data.DataLoader.

    >>> import distgrad as dg
    >>> rows = dg.utils.data.TensorDataset(dg.arange(5))
    >>> [batch for batch, in dg.utils.data.DataLoader(rows, batch_size=2)]
    [tensor([0, 1]), tensor([2, 3]), tensor([4])]
    """

    _initialized = False
    _seeded = False

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        _check_worker_options(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers > 0 and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.persistent_workers = persistent_workers
        self.in_order = in_order
        self.generator = generator
        iterable = isinstance(dataset, IterableDataset)
        if iterable:
            _check_iterable_options(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
                )
            batch_size, drop_last = None, False
        elif batch_size is None and drop_last:
            raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")
        if sampler is None and not iterable:
            sampler = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
        if batch_size is not None and iterable:
            BatchSampler(iter(()), batch_size, drop_last)  # checks both options
        elif batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        batches = batch_size is not None or batch_sampler is not None
        self.collate_fn = collate_fn or (default_collate if batches else default_convert)
        self._initialized = True

    def __setattr__(self, name: str, value: Any) -> None:
        if self._initialized and name in _FIXED_ATTRIBUTES:
            raise ValueError(f"{name} attribute should not be set after {type(self).__name__} is initialized")
        super().__setattr__(name, value)

    def __len__(self) -> int:
        if isinstance(self.dataset, IterableDataset):
            length = len(self.dataset)  # type: ignore[arg-type]  # TypeError, as torch, for one without a length
            if self.batch_size is None:
                return length
            full, rest = divmod(length, self.batch_size)
            return full + (rest > 0 and not self.drop_last)
        return len(self.sampler if self.batch_sampler is None else self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # The seed that torch draws for worker processes: nothing needs it here, but later draws come after it.
        if not (self.persistent_workers and self._seeded):  # they live on, with the seed they have
            (self.generator or dg.default_generator).random_integer()
            self._seeded = True
        if isinstance(self.dataset, IterableDataset):
            return self._stream()
        if self.batch_sampler is None:
            return (self.collate_fn(self.dataset[index]) for index in self.sampler)
        rows = _rows(self.dataset) if self.collate_fn is default_collate else None
        if rows is None:
            return (self.collate_fn(self._samples(batch)) for batch in self.batch_sampler)
        return ([tensor[index] for tensor in rows[0].tensors] for index in self._batch_indices(rows[1]))

    def _stream(self) -> Iterator[Any]:
        items = iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, items)
            return
        while batch := list(itertools.islice(items, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)

    def _samples(self, batch: Sequence[Any]) -> Any:
        fetch_all = getattr(self.dataset, "__getitems__", None)
        return fetch_all(batch) if fetch_all else [self.dataset[index] for index in batch]

    def _batch_indices(self, chosen: Any) -> Iterator[Any]:
        """Yields what to index the tensors with for each batch: a slice, or an index tensor.

        ``chosen`` holds the rows a subset stands for, or is None for all rows.
        """
        order: Any = None
        if type(self.batch_sampler) is BatchSampler:
            order = self.batch_sampler.sampler
        if type(order) in _TENSOR_SAMPLERS:
            drawn = order.order()
            places = drawn if chosen is None else chosen[drawn]
            yield from (places[part] for part in self._slices(drawn.shape[0]))
        elif type(order) is SequentialSampler:
            parts = self._slices(len(order))
            yield from parts if chosen is None else (chosen[part] for part in parts)
        else:
            # A sampler of the user's own gives Python numbers: they go out as one index tensor per batch.
            for batch in self.batch_sampler:
                index = dg.as_tensor(batch)
                yield index if chosen is None else chosen[index]

    def _slices(self, length: int) -> Iterator[slice]:
        """Yields the slices of ``range(length)`` that are batches."""
        size = self.batch_sampler.batch_size
        for start in range(0, length, size):
            if start + size <= length or not self.batch_sampler.drop_last:
                yield slice(start, min(start + size, length))


def _check_worker_options(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    """Raises ValueError for settings of worker processes that torch would refuse."""
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing.let num_workers > 0 to enable "
            "multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch_factor is not None and prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_iterable_options(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    """Raises ValueError for options that need random access."""
    for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
            )
