"""A compiled kernel that sorts lines with their positions, digit by digit from the lowest one (a radix sort).

Invariant: the sort is stable, NaN is greatest and equal to itself, and -0.0 equals 0.0, as in `distgrad.ops.order`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from distgrad.kernels.compiling import kernel

_DIGIT = 256  # so few that what is written to all their places at once stays in the nearest cache


def _sorter(passes: int, kind: Any, compiled_for: Any) -> Any:
    """Makes the kernel for keys of so many digits; what is constant in it makes it half again as fast."""
    low, none, one, everything = kind(_DIGIT - 1), kind(0), kind(1), kind(2 ** (8 * passes) - 1)
    sign = kind(8 * passes - 1)

    @kernel("3 1 3 i3 bool", kinds=(compiled_for,))
    def sort_bits(x: Any, rule: Any, values: Any, places: Any, wants_values: Any) -> Any:
        """Sorts the bits x along the middle dim; says whether a -0.0 was seen, which comes out as 0.0.

        `rule` holds the sign bit, what else a negative number inverts, the greatest magnitude that is a number, the key
        of the lone sign bit, and what inverts all keys of a falling order.
        """
        top, spread, most, zero, flip = rule[0], rule[1], rule[2], rule[3], rule[4]
        outer, n, inner = x.shape
        counts = np.empty((passes, _DIGIT), np.int32)
        keys, other_keys = np.empty(n, x.dtype), np.empty(n, x.dtype)
        order, other_order = np.empty(n, np.int32), np.empty(n, np.int32)
        seen = False
        for o in range(outer):
            for c in range(inner):
                counts[:] = 0
                for j in range(n):
                    bits = x[o, j, c]
                    key = kind(bits ^ (top | (kind(none - (bits >> sign)) & spread)))  # without a branch to guess
                    key = everything if kind(bits & kind(~top)) > most else key
                    lone = bits == top
                    seen |= lone
                    key = kind((zero if lone else key) ^ flip)
                    keys[j] = key
                    order[j] = j
                    for p in range(passes):
                        counts[p, (key >> kind(8 * p)) & low] += 1
                last = -1
                for p in range(passes):
                    if counts[p, (keys[0] >> kind(8 * p)) & low] != n:
                        last = p
                for p in range(last + 1):
                    row, shift = counts[p], kind(8 * p)
                    if row[(keys[0] >> shift) & low] == n:
                        continue  # all have the same digit here
                    total = 0
                    for d in range(_DIGIT):
                        count = row[d]
                        row[d] = total
                        total += count
                    if p < last:
                        for j in range(n):
                            key = keys[j]
                            digit = (key >> shift) & low
                            at = row[digit]
                            row[digit] = at + 1
                            other_keys[at] = key
                            other_order[at] = order[j]
                        keys, other_keys = other_keys, keys
                        order, other_order = other_order, order
                    elif wants_values:
                        for j in range(n):
                            key = keys[j]
                            digit = (key >> shift) & low
                            at = row[digit]
                            row[digit] = at + 1
                            places[o, at, c] = order[j]
                            key = kind(key ^ flip)
                            values[o, at, c] = key ^ (top | (kind((key >> sign) - one) & spread))
                    else:
                        for j in range(n):
                            digit = (keys[j] >> shift) & low
                            at = row[digit]
                            row[digit] = at + 1
                            places[o, at, c] = order[j]
                if last < 0:
                    for j in range(n):
                        places[o, j, c] = j
                        if wants_values:
                            values[o, j, c] = x[o, j, c]
        return seen

    return sort_bits


_sorters = {4: _sorter(4, np.uint32, types.uint32), 8: _sorter(8, np.uint64, types.uint64)}


def _rule(kind: np.dtype, descending: bool) -> np.ndarray:
    unsigned = np.dtype(f"u{kind.itemsize}")
    top = 1 << (8 * kind.itemsize - 1)
    everything = 2 * top - 1
    flip = everything if descending else 0
    if kind.kind == "f":
        infinity = int(np.array(np.inf, kind).view(unsigned))
        return np.array([top, everything, infinity, top, flip], unsigned)
    return np.array([top, 0, top - 1, 0, flip], unsigned)


def sort_lines(x: np.ndarray, axis: int, descending: bool, wants_values: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Gives x sorted along an axis (unless not wanted) and the positions, int64, its elements come from."""
    x = np.ascontiguousarray(x)
    shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    unsigned = np.dtype(f"u{x.itemsize}")
    places = np.empty(shape, np.int64)
    values = np.empty(shape if wants_values else (1, 1, 1), x.dtype)
    lost = _sorters[x.itemsize](x.reshape(shape).view(unsigned), _rule(x.dtype, descending), values.view(unsigned),
                                places, wants_values)
    found = places.reshape(x.shape)
    if not wants_values:
        return values, found
    if lost and x.dtype.kind == "f":  # the sign of a zero is not in its key
        return np.take_along_axis(x, found, axis), found
    return values.reshape(x.shape), found
