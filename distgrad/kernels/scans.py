"""Compiled kernels of running sums, products and extremes, and of extremes along a dim that is not the last.

Invariant: sums and products accumulate in float64, as PyTorch does, so that long runs of float32 do not drift. NaN is
an extreme; of equal extremes the first is taken along a dim, the last in a run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel

_LINES = 512  # columns whose totals stay in the nearest cache


@kernel("2 2 bool bool")
def _scan_rows(x: Any, out: Any, multiply: Any, backward: Any) -> None:
    n = x.shape[1]
    for i in range(x.shape[0]):
        row, target = x[i], out[i]
        if multiply:
            total = 1.0
            for j in range(n):
                total *= row[j]
                target[j] = total
        elif backward:
            total = 0.0
            for j in range(n):
                total += row[n - 1 - j]
                target[n - 1 - j] = total
        else:
            total = 0.0
            for j in range(n):
                total += row[j]
                target[j] = total


@kernel("3 3 bool bool")
def _scan_columns(x: Any, out: Any, multiply: Any, backward: Any) -> None:
    outer, n, inner = x.shape
    totals = np.empty(min(inner, _LINES), np.float64)
    for o in range(outer):
        for first in range(0, inner, _LINES):
            last = min(first + _LINES, inner)
            totals[:] = 1.0 if multiply else 0.0
            for i in range(n):
                at = n - 1 - i if backward else i
                row, target = x[o, at, first:last], out[o, at, first:last]
                if multiply:
                    for j in range(row.size):
                        totals[j] *= row[j]
                        target[j] = totals[j]
                else:
                    for j in range(row.size):
                        totals[j] += row[j]
                        target[j] = totals[j]


def scan(x: np.ndarray, axis: int, multiply: bool, backward: bool = False) -> np.ndarray:
    """Gives running sums, or products, of a contiguous x along an axis, from its end with `backward` (sums only)."""
    inner = int(np.prod(x.shape[axis + 1 :]))
    out = np.empty(x.shape, x.dtype)
    if inner == 1:
        _scan_rows(x.reshape(-1, x.shape[axis]), out.reshape(-1, x.shape[axis]), multiply, backward)
    else:
        shape = (-1, x.shape[axis], inner)
        _scan_columns(x.reshape(shape), out.reshape(shape), multiply, backward)
    return out


# Extremes: `sign` is 1 for maxima, -1 for minima --------------------------------------------------------------


@kernel("3 float 3 i3")
def _running_extreme(x: Any, sign: Any, values: Any, places: Any) -> None:
    outer, n, inner = x.shape
    s = x.dtype.type(sign)
    for o in range(outer):
        if inner == 1:
            best, where = s * x[o, 0, 0], 0
            for i in range(n):
                v = s * x[o, i, 0]
                if not v < best and (best == best or v != v):  # seldom: branches, which are guessed, wait for nothing
                    best, where = v, i
                values[o, i, 0] = s * best
                places[o, i, 0] = where
            continue
        for j in range(inner):
            values[o, 0, j] = x[o, 0, j]
            places[o, 0, j] = 0
        for i in range(1, n):
            row, best_row, best_places = x[o, i], values[o, i - 1], places[o, i - 1]
            value_row, place_row = values[o, i], places[o, i]
            for j in range(inner):
                v = row[j]
                better = (s * v >= s * best_row[j]) | (v != v)
                value_row[j] = v if better else best_row[j]
                place_row[j] = i if better else best_places[j]


def _extreme(smallest: bool) -> Any:
    """Makes the kernel of minima or maxima; what is constant in it takes an operation less for each element."""

    @kernel("3 2 i2")
    def extreme(x: Any, values: Any, places: Any) -> None:
        outer, n, inner = x.shape
        kind = x.dtype.type
        tile = np.empty(min(inner, _LINES), x.dtype)
        where = np.empty(tile.size, x.dtype)  # as wide as what is compared, which makes the loops vectors
        for o in range(outer):
            for left in range(0, inner, _LINES):
                width = min(_LINES, inner - left)
                right = left + width
                row, best, at_best = x[o, 0, left:right], tile[:width], where[:width]
                total = kind(0)  # is NaN when one is among the numbers
                for j in range(width):
                    best[j] = row[j]
                    at_best[j] = kind(0)
                    total += row[j]
                i = 1
                while i + 4 <= n:
                    a, b = x[o, i, left:right], x[o, i + 1, left:right]
                    c, d = x[o, i + 2, left:right], x[o, i + 3, left:right]
                    p, q, r, t = kind(i), kind(i + 1), kind(i + 2), kind(i + 3)
                    for j in range(width):
                        most, at = best[j], at_best[j]
                        v, w = a[j], b[j]
                        total += v + w
                        better = v < most if smallest else v > most
                        at = p if better else at
                        most = v if better else most
                        better = w < most if smallest else w > most
                        at = q if better else at
                        most = w if better else most
                        v, w = c[j], d[j]
                        total += v + w
                        better = v < most if smallest else v > most
                        at = r if better else at
                        most = v if better else most
                        better = w < most if smallest else w > most
                        at_best[j] = t if better else at
                        best[j] = w if better else most
                    i += 4
                while i < n:
                    row = x[o, i, left:right]
                    for j in range(width):
                        v = row[j]
                        total += v
                        better = v < best[j] if smallest else v > best[j]
                        at_best[j] = kind(i) if better else at_best[j]
                        best[j] = v if better else best[j]
                    i += 1
                for j in range(width):
                    values[o, left + j] = best[j]
                    places[o, left + j] = int(at_best[j])
                if total != total:  # the first NaN of a column is its extreme
                    for j in range(left, right):
                        for i in range(n):
                            if x[o, i, j] != x[o, i, j]:
                                values[o, j] = x[o, i, j]
                                places[o, j] = i
                                break

    return extreme


_maxima, _minima = _extreme(False), _extreme(True)


def running_extreme(x: np.ndarray, axis: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives running maxima (minima) of a contiguous x along an axis, and the last position of each."""
    shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    values, places = np.empty(x.shape, x.dtype), np.empty(x.shape, np.int64)
    _running_extreme(x.reshape(shape), sign, values.reshape(shape), places.reshape(shape))
    return values, places


def extreme_along(x: np.ndarray, axis: int, sign: float) -> tuple[np.ndarray, np.ndarray]:
    """Gives the maxima (minima) of a contiguous x along an axis of up to 2**24, which is dropped, and their first
    positions."""
    shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    left = (*x.shape[:axis], *x.shape[axis + 1 :])
    values, places = np.empty(left, x.dtype), np.empty(left, np.int64)
    find = _maxima if sign > 0 else _minima
    find(x.reshape(shape), values.reshape(shape[::2]), places.reshape(shape[::2]))
    return values, places
