"""Order on one worker: keys that sort as elements do, and which element has a given place in it.

Invariant: the order is total. NaN comes after every number, -0.0 equals 0.0, and equal elements stand in the order of
their positions, so every place belongs to one element whatever the number of workers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels import compiled

_FEW = 16  # elements that are kept in order while a line is read; each that comes in moves those behind it
_PARTITION_FROM = 256  # row length from which selecting k elements beats sorting the row


def sort_keys(x: np.ndarray, *, descending: bool = False) -> np.ndarray:
    """Gives unsigned integers that compare as the elements do: NaN greatest and equal to itself, -0.0 equal to 0.0."""
    kind = x.dtype
    unsigned = np.dtype(f"u{kind.itemsize}")
    high = unsigned.type(1 << (8 * kind.itemsize - 1))
    bits = np.ascontiguousarray(x).view(unsigned).reshape(x.shape)
    if kind.kind in "bu":
        keys = bits
    elif kind.kind == "i":
        keys = bits ^ high
    else:
        keys = np.where(bits & high, ~bits, bits | high)
        np.putmask(keys, x == 0, high)
        np.putmask(keys, np.isnan(x), ~unsigned.type(0))
    return ~keys if descending else keys


def sortable(x: np.ndarray) -> np.ndarray:
    """Gives an array that numpy sorts right: bfloat16 as float32, in which every value is exact."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x


def place_of_rank(x: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Gives the position along an axis (which is dropped) of the element with `rank` smaller ones before it."""
    x = sortable(x)
    value = np.take(np.partition(x, rank, axis), [rank], axis)  # half the time of finding positions
    equal = x == value
    if np.count_nonzero(equal) == value.size and value.size == np.count_nonzero(value == value):
        return equal.argmax(axis)
    keys = sort_keys(x)  # of equal elements, or NaN, the right one is still to be found
    found = sort_keys(value)
    before = np.count_nonzero(keys < found, axis=axis, keepdims=True)
    return (np.cumsum(keys == found, axis) == rank - before + 1).argmax(axis)


def _first_of_line(x: np.ndarray, start: int, last: int, count: int, descending: bool) -> np.ndarray | None:
    """Gives `first_places` of one line by comparing with the last element taken; None with NaN among them."""
    parts = np.partition(x, last)
    limit, taken = parts[last], parts[start : start + count]
    if np.count_nonzero(taken == taken) < count:
        return None
    found = np.flatnonzero(x > limit if descending else x < limit)
    found = np.sort(np.concatenate([found, np.flatnonzero(x == limit)[: count - found.size]]))
    return found[np.argsort(sort_keys(x[found], descending=descending), kind="stable")]


def first_places(x: np.ndarray, axis: int, count: int, *, descending: bool) -> np.ndarray:
    """Gives the positions along an axis of the first `count` elements in rising (or falling) order."""
    if x.size >= compiled.LEAST and 0 < count <= min(_FEW, x.shape[axis]) and compiled.fits(x):
        from distgrad.kernels.selecting import first_places as compiled_places

        return compiled_places(x, axis, count, descending)
    x = np.moveaxis(sortable(x), axis, -1)
    size = x.shape[-1]
    if size < _PARTITION_FROM or 2 * count >= size or not x.size or not count:
        order = np.argsort(sort_keys(x, descending=descending), -1, kind="stable")[..., :count]
        return np.moveaxis(order, -1, axis)
    start = size - count if descending else 0
    last = start if descending else count - 1
    if x.ndim == 1 and (quick := _first_of_line(x, start, last, count, descending)) is not None:
        return quick
    places = np.argpartition(x, last, -1)
    found = np.sort(places[..., start : start + count], -1)  # by position, so that equal elements keep their order
    limit = np.take_along_axis(x, places[..., last : last + 1], -1)
    taken = np.take_along_axis(x, found, -1)
    keys: Any
    if np.count_nonzero(x == limit) != np.count_nonzero(taken == limit) or (limit != limit).any():
        keys = sort_keys(x, descending=descending)  # more are equal to the last one than fit: the first of them count
        limit = np.take_along_axis(keys, places[..., last : last + 1], -1)
        below = keys < limit
        room = count - np.count_nonzero(below, axis=-1, keepdims=True)
        equal = keys == limit
        found = np.nonzero(below | (equal & (np.cumsum(equal, -1) <= room)))[-1].reshape(found.shape)
        taken = np.take_along_axis(x, found, -1)
    order = np.argsort(sort_keys(taken, descending=descending), -1, kind="stable")
    return np.moveaxis(np.take_along_axis(found, order, -1), -1, axis)
