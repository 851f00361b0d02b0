"""Sorting along a sharded axis: sample sort.

Every worker sorts its own rows and cuts them at common splitters, which are chosen by regular sampling so that the
pieces come to the output's blocks; each worker merges the pieces it is sent and passes on the few rows by which it has
too many or too few. Invariant: elements are compared by (key, position), all distinct, so the result is the one stable
order, and equal elements burden no worker more than others.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.ops.across import (
    Rounds,
    as_lines,
    block_sizes,
    from_lines,
    narrow_positions,
    offsets_of,
    send_counted,
    to_all,
)
from distgrad.ops.order import sort_keys

_SAMPLES = 128  # per worker and column: the pieces are then off by less than a hundredth of a block


def _splitters(context: Any, samples: list[Any], column: int, kind: np.dtype) -> list[tuple[Any, int]]:
    """Gives the W - 1 elements (key, position) that cut all rows of a column about as the output is cut."""
    sizes = block_sizes(context.ins[0])
    held = [r for r, size in enumerate(sizes) if size]
    if not held:
        return [(kind.type(0), 0)] * (context.world_size - 1)
    keys = np.concatenate([samples[r][0][column] for r in held])
    places = np.concatenate([samples[r][1][column] for r in held])
    weights = np.repeat([sizes[r] / _SAMPLES for r in held], _SAMPLES)
    order = np.lexsort((places, keys))
    reached = np.cumsum(weights[order])
    cuts = np.searchsorted(reached, np.asarray(offsets_of(context.outs[0])[1:-1]) - weights[order[0]] / 2)
    chosen = order[np.minimum(cuts, len(order) - 1)]
    return [(keys[i], int(places[i])) for i in chosen]


def _cuts(keys: np.ndarray, places: np.ndarray, splitters: list[tuple[Any, int]]) -> list[int]:
    """Gives where sorted rows are cut: the rows before a cut are less than its splitter."""
    found = [0]
    for key, place in splitters:
        low, high = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        found.append(int(low + np.searchsorted(places[low:high], place)))
    return [*found, len(keys)]


def _sorted(context: Any, x: np.ndarray, axis: int, descending: bool) -> Rounds:
    """Gives a rank's lines of the sorted elements and of their positions in all rows."""
    rank, world_size = context.rank, context.world_size
    lines = as_lines(x, axis)
    size, columns = lines.shape
    first = offsets_of(context.ins[0])
    keys = sort_keys(lines, descending=descending)
    order = np.argsort(keys, 0, kind="stable")
    keys, values = np.take_along_axis(keys, order, 0), np.take_along_axis(lines, order, 0)

    sampled = np.zeros((columns, _SAMPLES), keys.dtype), np.zeros((columns, _SAMPLES), np.int64)
    if size:
        picked = (2 * np.arange(_SAMPLES) + 1) * size // (2 * _SAMPLES)
        sampled = np.ascontiguousarray(keys[picked].T), np.ascontiguousarray(order[picked].T) + first[rank]
    samples = yield from to_all(context, *sampled)
    cuts = [
        _cuts(keys[:, c], order[:, c] + first[rank], _splitters(context, samples, c, keys.dtype))
        for c in range(columns)
    ]

    # Positions are told by their places in the sender's block. Pieces of all columns travel one after the other.
    narrow = narrow_positions(max(block_sizes(context.ins[0])))
    lengths = np.array([[cut[d + 1] - cut[d] for cut in cuts] for d in range(world_size)], np.int64)
    told = yield from to_all(context, lengths.reshape(world_size, columns))
    coming = [t[0][rank] for t in told]
    parts = [
        tuple(
            np.concatenate([a[cut[d] : cut[d + 1], c] for c, cut in enumerate(cuts)] or [a[:0].reshape(-1)])
            for a in (values, order.astype(narrow))
        )
        for d in range(world_size)
    ]
    came = yield from send_counted(context, parts, [int(n.sum()) for n in coming])
    merged = [_merge(came, coming, first, c, descending) for c in range(columns)]

    held = np.sum([t[0] for t in told], 0)
    return (yield from _balanced(context, merged, held, x.dtype))


def _merge(came: list[Any], coming: list[np.ndarray], first: tuple[int, ...], column: int, descending: bool) -> Any:
    """Merges one column's pieces: those of lower ranks hold lower positions, so a stable sort by key is right."""
    values, places = [], []
    for source, (piece, counts) in enumerate(zip(came, coming)):
        start = int(counts[:column].sum())
        stop = start + int(counts[column])
        values.append(piece[0][start:stop])
        places.append(piece[1][start:stop].astype(np.int64) + first[source])
    value, place = np.concatenate(values), np.concatenate(places)
    order = np.argsort(sort_keys(value, descending=descending), kind="stable")
    return value[order], place[order]


def _balanced(context: Any, merged: list[Any], held: np.ndarray, kind: np.dtype) -> Rounds:
    """Passes rows on so that every rank has the output's block. `held[r, c]`: how many of column c rank r has now."""
    rank, world_size, columns = context.rank, context.world_size, len(merged)
    target = offsets_of(context.outs[0])
    starts = np.concatenate([np.zeros((1, columns), np.int64), np.cumsum(held, 0)])
    narrow = narrow_positions(offsets_of(context.ins[0])[-1])

    def overlap(source: int, destination: int, column: int) -> tuple[int, int]:
        low = max(starts[source, column], target[destination])
        return int(low), int(max(low, min(starts[source + 1, column], target[destination + 1])))

    parts, counts = [], []
    for peer in range(world_size):
        pieces: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, kind), np.empty(0, narrow))]
        for c, (value, place) in enumerate(merged):
            low, high = (bound - starts[rank, c] for bound in overlap(rank, peer, c))
            pieces.append((value[low:high], place[low:high].astype(narrow)))
        parts.append(tuple(np.concatenate([p[i] for p in pieces]) for i in range(2)))
        counts.append(sum(high - low for low, high in (overlap(peer, rank, c) for c in range(columns))))
    came = yield from send_counted(context, parts, counts)
    size = target[rank + 1] - target[rank]
    values, places = np.empty((size, columns), kind), np.empty((size, columns), np.int64)
    for source, (value, place) in enumerate(came):
        position = 0
        for c in range(columns):
            low, high = overlap(source, rank, c)
            rows = slice(low - target[rank], high - target[rank])
            values[rows, c] = value[position : position + high - low]
            places[rows, c] = place[position : position + high - low]
            position += high - low
    return values, places


def sort(context: Any, x: np.ndarray, *, axis: int, descending: bool) -> Rounds:
    """All workers' rows in order along the axis, and where each came from."""
    values, places = yield from _sorted(context, x, axis, descending)
    return from_lines(values, x.shape, axis), from_lines(places, x.shape, axis)


def argsort(context: Any, x: np.ndarray, *, axis: int, descending: bool) -> Rounds:
    """Where each of all workers' rows in order along the axis came from."""
    _, places = yield from _sorted(context, x, axis, descending)
    return from_lines(places, x.shape, axis)
