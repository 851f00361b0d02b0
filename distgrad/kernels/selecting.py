"""Compiled kernels that find the few first elements of lines in rising or falling order, in one pass.

Invariant: NaN is greatest and equal to itself, -0.0 equals 0.0 and equal elements keep their order, as in
`distgrad.ops.order`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel, scalar


@scalar
def _before(v: Any, w: Any, falling: Any) -> Any:
    if falling:
        return (v > w) | ((v != v) & (w == w))
    return (v < w) | ((v == v) & (w != w))


@kernel("2 bool i2")
def _first_of_rows(x: Any, falling: Any, places: Any) -> None:
    n, count = x.shape[1], places.shape[1]
    best = np.empty(count, x.dtype)
    for o in range(x.shape[0]):
        row, where = x[o], places[o]
        for j in range(n):
            v = row[j]
            at = min(j, count - 1)
            if j >= count and not _before(v, best[at], falling):
                continue  # nearly always
            while at > 0 and _before(v, best[at - 1], falling):
                best[at] = best[at - 1]
                where[at] = where[at - 1]
                at -= 1
            best[at] = v
            where[at] = j


@kernel("3 bool i3")
def _first_of_columns(x: Any, falling: Any, places: Any) -> None:
    outer, n, inner = x.shape
    count = places.shape[1]
    best = np.empty((count, inner), x.dtype)
    for o in range(outer):
        where = places[o]
        for j in range(n):
            row, limits = x[o, j], best[min(j, count - 1)]
            for c in range(inner):
                v = row[c]
                if j >= count and not _before(v, limits[c], falling):
                    continue
                at = min(j, count - 1)
                while at > 0 and _before(v, best[at - 1, c], falling):
                    best[at, c] = best[at - 1, c]
                    where[at, c] = where[at - 1, c]
                    at -= 1
                best[at, c] = v
                where[at, c] = j


def first_places(x: np.ndarray, axis: int, count: int, falling: bool) -> np.ndarray:
    """Gives the positions along an axis of a contiguous x of its first `count` elements, at least one."""
    shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    places = np.empty((*x.shape[:axis], count, *x.shape[axis + 1 :]), np.int64)
    if shape[2] == 1:
        _first_of_rows(x.reshape(shape[:2]), falling, places.reshape(shape[0], count))
    else:
        _first_of_columns(x.reshape(shape), falling, places.reshape(shape[0], count, shape[2]))
    return places
