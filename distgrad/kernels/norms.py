"""Compiled kernels of layer normalization: a row is read once from memory and three times from cache.

Sums over rows, which may be many, are taken in two levels, so that rounding stays as small as in numpy's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel

_ROWS = 256  # rows whose products are added up before they join the total


@kernel("2 1 1 float 2 1 1")
def _layer_norm(x: Any, weight: Any, bias: Any, eps: Any, y: Any, mean: Any, rstd: Any) -> None:
    kind = x.dtype.type
    count, one = kind(x.shape[1]), kind(1)
    for i in range(x.shape[0]):
        total = kind(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        middle = total / count
        rest, squares = kind(0), kind(0)
        for j in range(x.shape[1]):
            d = x[i, j] - middle
            rest += d
            squares += d * d
        rest /= count  # what rounding the first mean left, when it is large
        scale = one / kind(math.sqrt(squares / count - rest * rest + kind(eps)))
        middle += rest
        mean[i] = middle
        rstd[i] = scale
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - middle) * scale * weight[j] + bias[j]


@kernel("2 2 1 1 1 2 1 1")
def _layer_norm_backward(v: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any, dweight: Any, dbias: Any) -> None:
    kind = x.dtype.type
    rows, columns = x.shape
    share = kind(1) / kind(columns)
    weight_part, bias_part = np.empty_like(dweight), np.empty_like(dbias)
    dweight[:] = kind(0)
    dbias[:] = kind(0)
    for first in range(0, rows, _ROWS):
        weight_part[:] = kind(0)
        bias_part[:] = kind(0)
        for i in range(first, min(first + _ROWS, rows)):
            middle, scale = mean[i], rstd[i]
            total, products = kind(0), kind(0)
            for j in range(columns):
                scaled, y = v[i, j] * weight[j], (x[i, j] - middle) * scale
                total += scaled
                products += scaled * y
                weight_part[j] += v[i, j] * y
                bias_part[j] += v[i, j]
            total *= share
            products *= share
            for j in range(columns):
                y = (x[i, j] - middle) * scale
                dx[i, j] = (v[i, j] * weight[j] - total - y * products) * scale
        for j in range(columns):
            dweight[j] += weight_part[j]
            dbias[j] += bias_part[j]


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the normalized rows of x (rows, n), their means and reciprocal deviations (rows,)."""
    y = np.empty(x.shape, x.dtype)
    mean, rstd = np.empty(x.shape[0], x.dtype), np.empty(x.shape[0], x.dtype)
    _layer_norm(x, weight, bias, eps, y, mean, rstd)
    return y, mean, rstd


def layer_norm_backward(v: np.ndarray, x: np.ndarray, mean: np.ndarray, rstd: np.ndarray, weight: np.ndarray
                        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the gradients of `layer_norm` by x, weight and bias from that of its output v (rows, n)."""
    dx, dweight, dbias = np.empty(x.shape, x.dtype), np.empty_like(weight), np.empty_like(weight)
    _layer_norm_backward(v, x, mean, rstd, weight, dx, dweight, dbias)
    return dx, dweight, dbias
