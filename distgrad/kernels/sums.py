"""Compiled kernels of sums: numpy reads a row at a third of the speed of memory, and columns in one precision.

Invariant: sums are taken in two levels, so that rounding errors do not grow with the length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel

_RUN = 1024  # elements added up before they join a total in double precision
_ROWS = 64  # the same, of columns
_COPIED = 1 << 16  # elements up to which copying costs less than a kernel of its own
_COLUMNS = 512  # whose totals stay in the nearest cache


@kernel("2 1")
def _sum_rows(x: Any, out: Any) -> None:
    n = x.shape[1]
    for i in range(x.shape[0]):
        total = 0.0
        for first in range(0, n, _RUN):
            run = x[i, first : min(first + _RUN, n)]
            part = x.dtype.type(0)
            for j in range(run.size):
                part += run[j]
            total += part
        out[i] = total


@kernel("2 1 1")
def _squares_of_rows(x: Any, centers: Any, out: Any) -> None:
    n = x.shape[1]
    for i in range(x.shape[0]):
        total, center = 0.0, centers[i]
        for first in range(0, n, _RUN):
            run = x[i, first : min(first + _RUN, n)]
            part = x.dtype.type(0)
            for j in range(run.size):
                d = run[j] - center
                part += d * d
            total += part
        out[i] = total


@kernel("3 2 2")
def _squares_of_columns(x: Any, centers: Any, out: Any) -> None:
    outer, n, inner = x.shape
    parts = np.empty(min(inner, _COLUMNS), x.dtype)
    totals = np.empty(min(inner, _COLUMNS), np.float64)
    for o in range(outer):
        for left in range(0, inner, _COLUMNS):
            right = min(left + _COLUMNS, inner)
            center, target = centers[o, left:right], out[o, left:right]
            totals[:] = 0.0
            for first in range(0, n, _ROWS):
                parts[:] = x.dtype.type(0)
                for i in range(first, min(first + _ROWS, n)):
                    row = x[o, i, left:right]
                    for j in range(row.size):
                        d = row[j] - center[j]
                        parts[j] += d * d
                for j in range(target.size):
                    totals[j] += parts[j]
            for j in range(target.size):
                target[j] = totals[j]


@kernel("1 1 1")
def _square_distance(a: Any, b: Any, out: Any) -> None:
    total = 0.0
    for first in range(0, a.size, _RUN):
        x, y = a[first : first + _RUN], b[first : first + _RUN]
        part = a.dtype.type(0)
        for j in range(x.size):
            d = x[j] - y[j]
            part += d * d
        total += part
    out[0] = total


@kernel("1 1")
def _without_nan(x: Any, out: Any) -> None:
    for i in range(x.size):
        out[i] = x[i] if x[i] == x[i] else x.dtype.type(0)


def squares(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Adds up (x - centers) ** 2 over the middle dim of x (outer, n, inner); centers (outer, inner)."""
    out = np.empty((x.shape[0], x.shape[2]), x.dtype)
    if x.shape[2] == 1:
        _squares_of_rows(x.reshape(x.shape[:2]), centers.reshape(-1), out.reshape(-1))
    else:
        _squares_of_columns(x, centers, out)
    return out


def square_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Adds up (a - b) ** 2 over all elements; a 0-d array."""
    out = np.empty(1, a.dtype)
    _square_distance(a.reshape(-1), b.reshape(-1), out)
    return out.reshape(())


def without_nan(x: np.ndarray) -> np.ndarray:
    """Gives x with 0 for NaN."""
    out = np.empty(x.shape, x.dtype)
    _without_nan(x.reshape(-1), out.reshape(-1))
    return out


def sum_rows(x: np.ndarray) -> np.ndarray:
    """Adds up the rows of x (rows, n)."""
    if x.size < _COPIED and not x.flags.writeable:  # what a broadcast repeats; to the compiler it is another type
        x = x.copy()
    out = np.empty(len(x), x.dtype)
    _sum_rows(x, out)
    return out
