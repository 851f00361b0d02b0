"""Compiled kernels of simple arithmetic that numpy does in several passes."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel


@kernel("1 b1 float 1")
def _masked_scale(x: Any, mask: Any, scale: Any, y: Any) -> None:
    factor = x.dtype.type(scale)
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = x[i] * (factor if mask[i] else zero)


@kernel("2 1")
def _add_to_rows(y: Any, b: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] += b[j]


@kernel("1 1 1 1")
def _scaled_difference(a: Any, b: Any, s: Any, y: Any) -> None:
    factor = s[0]
    for i in range(a.size):
        y[i] = (a[i] - b[i]) * factor


@kernel("1 1")
def _sign(x: Any, y: Any) -> None:
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for i in range(x.size):
        y[i] = (one if x[i] > zero else zero) - (one if x[i] < zero else zero)  # NaN gives 0


@kernel("float float int 1")
def _count_up(start: Any, step: Any, first: Any, y: Any) -> None:
    for i in range(y.size):
        y[i] = start + step * (first + i)


@kernel("float float float int int 1")
def _spaced(start: Any, end: Any, step: Any, count: Any, first: Any, y: Any) -> None:
    for i in range(y.size):
        at = first + i
        low, high = start + step * at, end - step * (count - 1 - at)
        y[i] = low if at < count // 2 else high


@kernel("1 1 1 float 1", exact=True)
def _addcmul(a: Any, b: Any, c: Any, value: Any, y: Any) -> None:
    factor = a.dtype.type(value)
    for i in range(a.size):
        y[i] = a[i] + b[i] * c[i] * factor


@kernel("1 1 float float bool b1", exact=True)
def _isclose(a: Any, b: Any, rtol: Any, atol: Any, equal_nan: Any, y: Any) -> None:
    share, least, most = a.dtype.type(rtol), a.dtype.type(atol), a.dtype.type(np.inf)
    for i in range(a.size):
        d = abs(a[i] - b[i])
        y[i] = (a[i] == b[i]) | ((d < most) & (d <= abs(b[i] * share) + least))
    if equal_nan:
        for i in range(a.size):
            y[i] = y[i] | ((a[i] != a[i]) & (b[i] != b[i]))


def addcmul(a: np.ndarray, b: np.ndarray, c: np.ndarray, value: float) -> np.ndarray:
    """Gives a + b * c * value."""
    y = np.empty(a.shape, a.dtype)
    _addcmul(a.reshape(-1), b.reshape(-1), c.reshape(-1), value, y.reshape(-1))
    return y


def isclose(a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool) -> np.ndarray:
    """Says where |a - b| <= atol + rtol * |b| and is finite, or a and b are equal."""
    y = np.empty(a.shape, np.bool_)
    _isclose(a.reshape(-1), b.reshape(-1), rtol, atol, equal_nan, y.reshape(-1))
    return y


def scaled_difference(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Gives a - b times the one element of s."""
    y = np.empty(a.shape, a.dtype)
    _scaled_difference(a.reshape(-1), b.reshape(-1), s.reshape(-1), y.reshape(-1))
    return y


def sign(x: np.ndarray) -> np.ndarray:
    """Gives -1, 0 or 1 by the signs of x."""
    y = np.empty(x.shape, x.dtype)
    _sign(x.reshape(-1), y.reshape(-1))
    return y


def count_up(start: float, step: float, first: int, stop: int, kind: np.dtype) -> np.ndarray:
    """Gives elements [first, stop) of start, start + step, ..., computed in double precision."""
    y = np.empty(stop - first, kind)
    _count_up(start, step, first, y)
    return y


def spaced(start: float, end: float, count: int, first: int, stop: int, kind: np.dtype) -> np.ndarray:
    """Gives elements [first, stop) of `count` evenly spaced numbers, counted from the nearer end."""
    y = np.empty(stop - first, kind)
    _spaced(start, end, (end - start) / (count - 1) if count > 1 else 0.0, count, first, y)
    return y


def masked_scale(x: np.ndarray, mask: np.ndarray, scale: float) -> np.ndarray:
    """Gives x times `scale` where the mask (x's shape) holds, times 0 elsewhere."""
    y = np.empty(x.shape, x.dtype)
    _masked_scale(x.reshape(-1), mask.reshape(-1), float(scale), y.reshape(-1))
    return y


def add_to_rows(y: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Adds b (n,) to the rows of y (..., n), in place."""
    _add_to_rows(y.reshape(-1, y.shape[-1]), b)
    return y
