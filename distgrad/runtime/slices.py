"""Many arrays at once, cut along their first dim: reduce-scatter to slices, all-gather of slices.

Both halves of an all-reduce, for those who do something with their own slice in between. What goes to one rank, of all
arrays, is one frame per round.

Invariant: rounds and frames follow from shapes and offsets alone, and sums are in rank order, as `all_reduce` makes them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from distgrad.runtime.collectives import (
    Bucket,
    Exchange,
    Offsets,
    Payload,
    Received,
    Reduction,
    check_offsets,
    pieces_of,
    reduction_of,
)

FRAME_BYTES = 4 << 20
"""Bytes that a rank sends to all others in one round, at most about; they wait in memory until they are read."""

Rounds = Generator[Exchange, Received, list[np.ndarray]]


def reduce_scatter_all(
    rank: int, world_size: int, arrays: Sequence[np.ndarray], offsets: Sequence[Offsets | None], reduce: str = "sum"
) -> Rounds:
    """Reduces arrays of one dtype over all ranks; returns this rank's slice of each, the whole one where offsets are None.

    The arrays are C-contiguous; rank r gets rows [offsets[r], offsets[r + 1]) of each, in memory of their own. Arrays
    without offsets are sent whole to everybody: for a few numbers that go along. Raises ValueError for offsets that do not
    fit.
    """
    dtype = arrays[0].dtype
    ufunc = reduction_of("reduce_scatter", reduce, dtype)
    parts = [Bucket(part) for part in _parts("reduce_scatter", world_size, arrays, offsets)]
    results = [np.empty(_shape(a, o, rank), dtype) for a, o in zip(arrays, offsets, strict=True)]
    work = Reduction(parts[rank], Bucket(results), ufunc, dtype, sum(parts[rank].sizes), in_place=False)
    rounds = _Rounds(parts, dtype.itemsize, world_size)
    for number in range(rounds.count):
        start, stop = rounds.cut(rank, number)
        send: list[Payload | None] = [
            parts[d].pieces(*rounds.cut(d, number)) or None if d != rank else None for d in range(world_size)
        ]
        mine = (stop - start) * dtype.itemsize
        received = yield Exchange(send, [mine if s != rank else 0 for s in range(world_size)], dtype)
        if mine:
            work.reduce_frames(received, start, stop)
    return results


def all_gather_all(rank: int, world_size: int, arrays: Sequence[np.ndarray], offsets: Sequence[Offsets]) -> Rounds:
    """Fills whole arrays of one dtype, of which each rank holds its own slice in place, with the slices of the others.

    The arrays are C-contiguous and are returned; rows [offsets[r], offsets[r + 1]) come from rank r. Raises ValueError for
    offsets that do not fit.
    """
    dtype = arrays[0].dtype
    parts = [Bucket(part) for part in _parts("all_gather", world_size, arrays, offsets)]
    rounds = _Rounds(parts, dtype.itemsize, world_size)
    for number in range(rounds.count):
        cuts = [rounds.cut(r, number) for r in range(world_size)]
        mine = parts[rank].pieces(*cuts[rank]) or None  # one payload for all: it is written once
        received = yield Exchange(
            [mine if d != rank else None for d in range(world_size)],
            [(stop - start) * dtype.itemsize if s != rank else 0 for s, (start, stop) in enumerate(cuts)],
            dtype,
        )
        for source, frame in enumerate(received):
            if frame is not None:
                values = frame.view(dtype)
                for place, low, high, first, last in pieces_of(parts[source].sizes, *cuts[source]):
                    np.copyto(parts[source].flats[place][low:high], values[first:last])
    return list(arrays)


class _Rounds:
    """How frames are cut: each in as many parts as the largest needs."""

    def __init__(self, parts: Sequence[Bucket], itemsize: int, world_size: int) -> None:
        self.sizes = [sum(part.sizes) for part in parts]
        self.count = max(1, -(-max(self.sizes) * (world_size - 1) * itemsize // FRAME_BYTES))

    def cut(self, rank: int, number: int) -> tuple[int, int]:
        """Returns the first and the past-last element of a rank's slices in a round."""
        size = self.sizes[rank]
        return size * number // self.count, size * (number + 1) // self.count


def _parts(
    op: str, world_size: int, arrays: Sequence[np.ndarray], offsets: Sequence[Offsets | None]
) -> list[list[np.ndarray]]:
    """Returns views of what belongs to each rank."""
    for array, cuts in zip(arrays, offsets, strict=True):
        if cuts is not None:
            check_offsets(op, cuts, world_size, array.shape[0])
    return [
        [a if o is None else a[o[r] : o[r + 1]] for a, o in zip(arrays, offsets, strict=True)] for r in range(world_size)
    ]


def _shape(array: np.ndarray, offsets: Offsets | None, rank: int) -> tuple[int, ...]:
    return array.shape if offsets is None else (offsets[rank + 1] - offsets[rank], *array.shape[1:])
