"""Which elements of a sharded axis have a given place in order: topk, kthvalue, medians, mode.

Invariant: elements stay where they are. What moves are counts, a few candidates per worker, or each worker's distinct
elements (mode); the element chosen is the one that `ops.order` defines, equal elements by position.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.op import exchanging
from distgrad.ops.across import Rounds, as_lines, block_sizes, from_lines, offsets_of, send, send_counted, to_all
from distgrad.ops.order import first_places, sort_keys


@exchanging(moves=0)
def topk_index(context: Any, x: np.ndarray, *, axis: int, count: int, largest: bool) -> Rounds:
    """The positions of the first `count` elements of all workers' rows: those of every worker's first ones."""
    sizes = [min(count, size) for size in block_sizes(context.ins[0])]
    places = first_places(x, axis, sizes[context.rank], descending=largest)
    values = as_lines(np.take_along_axis(x, places, axis), axis)
    positions = as_lines(places + offsets_of(context.ins[0])[context.rank], axis)
    parts = yield from send_counted(context, [(values, positions)] * context.world_size, sizes)
    values, positions = (np.concatenate([part[i] for part in parts]) for i in range(2))
    best = first_places(values, 0, count, descending=largest)
    return from_lines(np.take_along_axis(positions, best, 0), x.shape, axis)


def _select(context: Any, lines: np.ndarray, ranks: np.ndarray) -> Rounds:
    """Gives of each column of (rows, columns) the element with ranks[column] smaller ones, and its position.

    One byte of the key after the other is found by counting, in as many rounds as the dtype has bytes.
    """
    keys = sort_keys(lines)
    columns = lines.shape[1]
    column, left = np.tile(np.arange(columns), len(keys)), keys.reshape(-1)
    found, rest = np.zeros(columns, keys.dtype), ranks.astype(np.int64)
    for shift in range(8 * keys.itemsize - 8, -1, -8):
        digits = ((left >> keys.dtype.type(shift)) & keys.dtype.type(255)).astype(np.int64)
        counts = np.bincount(column * 256 + digits, minlength=256 * columns).reshape(columns, 256)
        parts = yield from to_all(context, counts)
        running = np.cumsum(sum(part[0] for part in parts), 1)
        digit = np.minimum(np.count_nonzero(running <= rest[:, None], axis=1), 255)
        rest = rest - np.where(digit, running[np.arange(columns), digit - 1], 0)
        found |= digit.astype(keys.dtype) << keys.dtype.type(shift)
        kept = digits == digit[column]
        left, column = left[kept], column[kept]
    equal = keys == found
    parts = yield from to_all(context, np.count_nonzero(equal, axis=0))
    before = np.cumsum([np.zeros(columns, np.int64), *(part[0] for part in parts)], 0)
    holder = np.argmax(before[1:] > rest, axis=0)
    value, place = np.zeros(columns, lines.dtype), np.zeros(columns, np.int64)
    if len(lines):
        own = (np.cumsum(equal, 0) == rest - before[context.rank] + 1).argmax(0)
        value, place = lines[own, np.arange(columns)], own + offsets_of(context.ins[0])[context.rank]
    parts = yield from to_all(context, value, place)
    pick = np.arange(columns)
    return np.stack([part[0] for part in parts])[holder, pick], np.stack([part[1] for part in parts])[holder, pick]


@exchanging(moves=0)
def kth_index(context: Any, x: np.ndarray, *, axis: int, count: int, rank: int) -> Rounds:
    """The position of the element with `rank` smaller ones in all workers' rows."""
    lines = as_lines(x, axis)
    _, place = yield from _select(context, lines, np.full(lines.shape[1], rank))
    return from_lines(place[None], x.shape, axis)


def _numbers(context: Any, lines: np.ndarray) -> Rounds:
    """Gives how many elements of each column are not NaN."""
    present = ~np.isnan(lines) if lines.dtype.kind in "fV" else np.ones(lines.shape, bool)
    parts = yield from to_all(context, np.count_nonzero(present, axis=0))
    return sum(part[0] for part in parts)


def _median(context: Any, lines: np.ndarray, size: int, skip: bool) -> Rounds:
    numbers = yield from _numbers(context, lines)
    if skip:
        ranks = np.maximum((numbers - 1) // 2, 0)
    else:
        ranks = np.where(numbers < size, numbers, (size - 1) // 2)  # the first NaN, where there is one
    return (yield from _select(context, lines, ranks))


def _median_along(context: Any, x: np.ndarray, axis: int, keepdims: bool, skip: bool) -> Rounds:
    found = yield from _median(context, as_lines(x, axis), context.ins[0].shape[axis], skip)
    value, place = (from_lines(part[None], x.shape, axis) for part in found)
    return (value, place) if keepdims else (value.squeeze(axis), place.squeeze(axis))


@exchanging(moves=0)
def median_along(context: Any, x: np.ndarray, *, axis: int, keepdims: bool) -> Rounds:
    """The lower median of all workers' rows, or the first NaN, and its position."""
    return (yield from _median_along(context, x, axis, keepdims, False))


@exchanging(moves=0)
def nanmedian_along(context: Any, x: np.ndarray, *, axis: int, keepdims: bool) -> Rounds:
    """The lower median of what is not NaN in all workers' rows, and its position."""
    return (yield from _median_along(context, x, axis, keepdims, True))


def _median_of_all(context: Any, x: np.ndarray, skip: bool) -> Rounds:
    size = int(np.prod(context.ins[0].shape))
    value, _ = yield from _median(context, x.reshape(-1, 1), size, skip)
    return value.reshape(context.outs[0].shape)


@exchanging(moves=0)
def median_of_all(context: Any, x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> Rounds:
    """The lower median of all elements of all workers; NaN where there is one."""
    return (yield from _median_of_all(context, x, False))


@exchanging(moves=0)
def nanmedian_of_all(context: Any, x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> Rounds:
    """The lower median of all elements of all workers that are not NaN."""
    return (yield from _median_of_all(context, x, True))


# Mode -------------------------------------------------------------------------------------------------------


def _runs(keys: np.ndarray, counts: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joins equal keys: gives the distinct ones in order, how often each occurs and its last position."""
    distinct, which = np.unique(keys, return_inverse=True)
    total = np.zeros(len(distinct), np.int64)
    np.add.at(total, which, counts)
    latest = np.zeros(len(distinct), np.int64)
    np.maximum.at(latest, which, last)
    return distinct, total, latest


def mode_index(context: Any, x: np.ndarray, *, axis: int, count: int) -> Rounds:
    """The last position of the smallest most frequent element of all workers' rows.

    Distinct elements and their counts go to the worker that their key belongs to, which finds the best of its own.
    """
    lines = as_lines(x, axis)
    first, world_size = offsets_of(context.ins[0])[context.rank], context.world_size
    found = np.zeros((1, lines.shape[1]), np.int64)
    for column in range(lines.shape[1]):
        rows = lines[:, column]
        keys, counts, last = _runs(sort_keys(rows), np.ones(len(rows), np.int64), np.arange(first, first + len(rows)))
        if rows.dtype.kind in "fV" and len(keys) and keys[-1] == ~keys.dtype.type(0):
            last[-1] = first + np.isnan(rows).argmax()
        home = (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) % np.uint64(world_size)
        parts = yield from send(context, [
            tuple(a[home == d] for a in (keys, counts, last)) for d in range(world_size)
        ])
        sent = [np.concatenate([part[i] for part in parts]) for i in range(3)]
        keys, counts, last = _runs(*sent)
        if rows.dtype.kind in "fV" and len(keys) and keys[-1] == ~keys.dtype.type(0):
            counts[-1], last[-1] = 1, sent[2][sent[0] == keys[-1]].min()  # NaN differs from itself: each occurs once
        best = int(counts.argmax()) if len(counts) else -1  # the first is the smallest
        mine = (0, 0, 0) if best < 0 else (int(keys[best]), int(counts[best]), int(last[best]))
        bests = yield from to_all(context, np.array(mine[:1], np.uint64), np.array(mine[1:], np.int64))
        found[0, column] = min(bests, key=lambda b: (-int(b[1][0]), int(b[0][0])))[1][1]
    return from_lines(found, x.shape, axis)
