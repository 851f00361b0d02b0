"""A compiled kernel that sorts lines with their positions, digit by digit from the lowest one (a radix sort).

Invariant: the sort is stable, NaN is greatest and equal to itself, and -0.0 equals 0.0, as in `distgrad.ops.order`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from distgrad.kernels.compiling import kernel, scalar

_DIGIT = 256  # so few that what is written to all their places at once stays in the nearest cache
_COLUMNS = 48  # sorted one after the other once read together, by whole cache lines
_FEWEST = 8  # of long ones, which the cache does not hold
_TOGETHER = 1 << 17  # elements of those


@scalar
def _to_starts(row: Any) -> None:
    """Turns how often each digit comes into where its first one goes."""
    total = 0
    for d in range(_DIGIT):
        count = row[d]
        row[d] = total
        total += count


def _line_of_four_bytes() -> Any:
    """Makes the sort of a line whose keys have four bytes: a key and its position are one number, moved at once."""
    low, none, one, everything = np.uint64(_DIGIT - 1), np.uint32(0), np.uint32(1), np.uint32(2**32 - 1)
    sign, half, position = np.uint32(31), np.uint64(32), np.uint64(2**32 - 1)
    kind = np.uint32

    @scalar
    def sort_line(x: Any, rule: Any, values: Any, places: Any, wants_values: Any, counts: Any, first: Any, second: Any
                  ) -> Any:
        top, spread, most, zero, flip = rule[0], rule[1], rule[2], rule[3], rule[4]
        n = x.size
        seen = False
        counts[:] = 0
        for j in range(n):
            bits = x[j]
            key = kind(bits ^ (top | (kind(none - (bits >> sign)) & spread)))  # without a branch to guess
            key = everything if kind(bits & kind(~top)) > most else key
            lone = bits == top
            seen |= lone
            key = kind((zero if lone else key) ^ flip)
            first[j] = (np.uint64(key) << half) | np.uint64(j)
            for p in range(4):
                counts[p, (key >> kind(8 * p)) & kind(_DIGIT - 1)] += 1
        last = -1
        for p in range(4):
            if counts[p, (first[0] >> np.uint64(32 + 8 * p)) & low] != n:
                last = p
        for p in range(last + 1):
            row, shift = counts[p], np.uint64(32 + 8 * p)
            if row[(first[0] >> shift) & low] == n:
                continue  # all have the same digit here
            _to_starts(row)
            if p < last:
                for j in range(n):
                    both = first[j]
                    digit = (both >> shift) & low
                    at = row[digit]
                    row[digit] = at + 1
                    second[at] = both
                first, second = second, first
            elif wants_values:
                for j in range(n):
                    both = first[j]
                    digit = (both >> shift) & low
                    at = row[digit]
                    row[digit] = at + 1
                    places[at] = np.int64(both & position)
                    key = kind(kind(both >> half) ^ flip)
                    values[at] = key ^ (top | (kind((key >> sign) - one) & spread))
            else:
                for j in range(n):
                    both = first[j]
                    digit = (both >> shift) & low
                    at = row[digit]
                    row[digit] = at + 1
                    places[at] = np.int64(both & position)
        if last < 0:
            for j in range(n):
                places[j] = j
                if wants_values:
                    values[j] = x[j]
        return seen

    return sort_line


def _line_of_eight_bytes() -> Any:
    """Makes the sort of a line whose keys have eight bytes."""
    low, none, one, everything = np.uint64(_DIGIT - 1), np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
    sign = np.uint64(63)
    kind = np.uint64

    @scalar
    def sort_line(x: Any, rule: Any, values: Any, places: Any, wants_values: Any, counts: Any, keys: Any,
                  other_keys: Any, order: Any, other_order: Any) -> Any:
        top, spread, most, zero, flip = rule[0], rule[1], rule[2], rule[3], rule[4]
        n = x.size
        seen = False
        counts[:] = 0
        for j in range(n):
            bits = x[j]
            key = kind(bits ^ (top | (kind(none - (bits >> sign)) & spread)))
            key = everything if kind(bits & kind(~top)) > most else key
            lone = bits == top
            seen |= lone
            key = kind((zero if lone else key) ^ flip)
            keys[j] = key
            order[j] = j
            for p in range(8):
                counts[p, (key >> kind(8 * p)) & low] += 1
        last = -1
        for p in range(8):
            if counts[p, (keys[0] >> kind(8 * p)) & low] != n:
                last = p
        for p in range(last + 1):
            row, shift = counts[p], kind(8 * p)
            if row[(keys[0] >> shift) & low] == n:
                continue
            _to_starts(row)
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
                    places[at] = order[j]
                    key = kind(key ^ flip)
                    values[at] = key ^ (top | (kind((key >> sign) - one) & spread))
            else:
                for j in range(n):
                    digit = (keys[j] >> shift) & low
                    at = row[digit]
                    row[digit] = at + 1
                    places[at] = order[j]
        if last < 0:
            for j in range(n):
                places[j] = j
                if wants_values:
                    values[j] = x[j]
        return seen

    return sort_line


_four, _eight = _line_of_four_bytes(), _line_of_eight_bytes()


@kernel("3 1 3 i3 bool", kinds=(types.uint32,))
def _sort_four(x: Any, rule: Any, values: Any, places: Any, wants_values: Any) -> Any:
    """Sorts the bits x along the middle dim; says whether a -0.0 was seen, which comes out as 0.0.

    `rule` holds the sign bit, what else a negative number inverts, the greatest magnitude that is a number, the key of
    the lone sign bit, and what inverts all keys of a falling order.
    """
    outer, n, inner = x.shape
    counts = np.empty((4, _DIGIT), np.int32)
    first, second = np.empty(n, np.uint64), np.empty(n, np.uint64)
    seen = False
    if inner == 1:
        rows, row_values, row_places = x.reshape(outer, n), values.reshape(values.size // n, n), places.reshape(outer, n)
        for o in range(outer):
            seen |= _four(rows[o], rule, row_values[o if wants_values else 0], row_places[o], wants_values, counts,
                          first, second)
        return seen
    together = min(inner, max(_FEWEST, min(_COLUMNS, _TOGETHER // n)))
    lines, found = np.empty((together, n), x.dtype), np.empty((together, n), np.int32)
    for o in range(outer):
        for left in range(0, inner, together):
            width = min(together, inner - left)
            for j in range(n):
                for c in range(width):
                    lines[c, j] = x[o, j, left + c]
            for c in range(width):
                seen |= _four(lines[c], rule, lines[c], found[c], wants_values, counts, first, second)
            for j in range(n):
                for c in range(width):
                    places[o, j, left + c] = found[c, j]
                if wants_values:
                    for c in range(width):
                        values[o, j, left + c] = lines[c, j]
    return seen


@kernel("3 1 3 i3 bool", kinds=(types.uint64,))
def _sort_eight(x: Any, rule: Any, values: Any, places: Any, wants_values: Any) -> Any:
    """Does the same with keys of eight bytes, beside which the positions are moved."""
    outer, n, inner = x.shape
    counts = np.empty((8, _DIGIT), np.int32)
    keys, other_keys = np.empty(n, np.uint64), np.empty(n, np.uint64)
    order, other_order = np.empty(n, np.int32), np.empty(n, np.int32)
    seen = False
    if inner == 1:
        rows, row_values, row_places = x.reshape(outer, n), values.reshape(values.size // n, n), places.reshape(outer, n)
        for o in range(outer):
            seen |= _eight(rows[o], rule, row_values[o if wants_values else 0], row_places[o], wants_values, counts,
                           keys, other_keys, order, other_order)
        return seen
    together = min(inner, max(_FEWEST, min(_COLUMNS, _TOGETHER // n)))
    lines, found = np.empty((together, n), x.dtype), np.empty((together, n), np.int32)
    for o in range(outer):
        for left in range(0, inner, together):
            width = min(together, inner - left)
            for j in range(n):
                for c in range(width):
                    lines[c, j] = x[o, j, left + c]
            for c in range(width):
                seen |= _eight(lines[c], rule, lines[c], found[c], wants_values, counts, keys, other_keys, order,
                               other_order)
            for j in range(n):
                for c in range(width):
                    places[o, j, left + c] = found[c, j]
                if wants_values:
                    for c in range(width):
                        values[o, j, left + c] = lines[c, j]
    return seen


_sorters = {4: _sort_four, 8: _sort_eight}


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
    values = np.empty(shape if wants_values else (1, shape[1], 1), x.dtype)
    lost = _sorters[x.itemsize](x.reshape(shape).view(unsigned), _rule(x.dtype, descending), values.view(unsigned),
                                places, wants_values)
    found = places.reshape(x.shape)
    if not wants_values:
        return values, found
    if lost and x.dtype.kind == "f":  # the sign of a zero is not in its key
        return np.take_along_axis(x, found, axis), found
    return values.reshape(x.shape), found
