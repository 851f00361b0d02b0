"""Compiled kernels of batch and group normalization: a channel, or a group, is read again while it is in cache.

Sums of a channel are taken in two levels, the second one in double precision, so that rounding stays small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel

_ROWS = 256  # of features, whose sums are added up in the array's own precision


@kernel("3 d1 d1")
def _moments(x: Any, mean: Any, squares: Any) -> None:
    """Per channel of (N, C, S), the mean and the sum of squared distances from it."""
    images, channels, size = x.shape
    kind = x.dtype.type
    count = max(images * size, 1)
    for c in range(channels):
        total = 0.0
        for n in range(images):
            part = kind(0)
            for s in range(size):
                part += x[n, c, s]
            total += part
        middle = kind(total / count)
        rest, around = 0.0, 0.0
        for n in range(images):
            part, part_squares = kind(0), kind(0)
            for s in range(size):
                d = x[n, c, s] - middle
                part += d
                part_squares += d * d
            rest += part
            around += part_squares
        rest /= count  # what rounding the mean left
        mean[c] = middle + rest
        squares[c] = around - count * rest * rest


@kernel("2 d1 d1")
def _feature_moments(x: Any, mean: Any, squares: Any) -> None:
    """The same of (N, C)."""
    rows, channels = x.shape
    kind = x.dtype.type
    count = max(rows, 1)
    part, part_squares, middle = np.empty(channels, x.dtype), np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    mean[:] = 0.0
    squares[:] = 0.0
    for first in range(0, rows, _ROWS):
        part[:] = kind(0)
        for i in range(first, min(first + _ROWS, rows)):
            for c in range(channels):
                part[c] += x[i, c]
        for c in range(channels):
            mean[c] += part[c]
    for c in range(channels):
        middle[c] = kind(mean[c] / count)
        mean[c] = 0.0
    for first in range(0, rows, _ROWS):
        part[:] = kind(0)
        part_squares[:] = kind(0)
        for i in range(first, min(first + _ROWS, rows)):
            for c in range(channels):
                d = x[i, c] - middle[c]
                part[c] += d
                part_squares[c] += d * d
        for c in range(channels):
            mean[c] += part[c]
            squares[c] += part_squares[c]
    for c in range(channels):
        rest = mean[c] / count
        mean[c] = middle[c] + rest
        squares[c] -= count * rest * rest


@kernel("3 1 1 1 3")
def _scaled(x: Any, mean: Any, scale: Any, shift: Any, y: Any) -> None:
    """(x - mean) * scale + shift, each of them (C,)."""
    images, channels, size = x.shape
    for n in range(images):
        for c in range(channels):
            middle, slope, end = mean[c], scale[c], shift[c]
            for s in range(size):
                y[n, c, s] = (x[n, c, s] - middle) * slope + end


@kernel("2 1 1 1 2")
def _scaled_features(x: Any, mean: Any, scale: Any, shift: Any, y: Any) -> None:
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] - mean[c]) * scale[c] + shift[c]


@kernel("3 3 1 1 d1 d1")
def _products(v: Any, x: Any, mean: Any, rstd: Any, totals: Any, products: Any) -> None:
    """Per channel, the sums of v and of v times the standardized x."""
    images, channels, size = x.shape
    kind = x.dtype.type
    for c in range(channels):
        middle, scale = mean[c], rstd[c]
        total, product = 0.0, 0.0
        for n in range(images):
            part, part_product = kind(0), kind(0)
            for s in range(size):
                part += v[n, c, s]
                part_product += v[n, c, s] * ((x[n, c, s] - middle) * scale)
            total += part
            product += part_product
        totals[c], products[c] = total, product


@kernel("2 2 1 1 d1 d1")
def _feature_products(v: Any, x: Any, mean: Any, rstd: Any, totals: Any, products: Any) -> None:
    rows, channels = x.shape
    kind = x.dtype.type
    part, part_products = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
    totals[:] = 0.0
    products[:] = 0.0
    for first in range(0, rows, _ROWS):
        part[:] = kind(0)
        part_products[:] = kind(0)
        for i in range(first, min(first + _ROWS, rows)):
            for c in range(channels):
                part[c] += v[i, c]
                part_products[c] += v[i, c] * ((x[i, c] - mean[c]) * rstd[c])
        for c in range(channels):
            totals[c] += part[c]
            products[c] += part_products[c]


@kernel("3 3 1 1 1 1 1 3")
def _gradient(v: Any, x: Any, mean: Any, rstd: Any, scale: Any, total: Any, product: Any, dx: Any) -> None:
    """scale * (v - total - y * product), y the standardized x."""
    images, channels, size = x.shape
    for n in range(images):
        for c in range(channels):
            middle, rest, slope, first, second = mean[c], rstd[c], scale[c], total[c], product[c]
            for s in range(size):
                y = (x[n, c, s] - middle) * rest
                dx[n, c, s] = (v[n, c, s] - first - y * second) * slope


@kernel("2 2 1 1 1 1 1 2")
def _feature_gradient(v: Any, x: Any, mean: Any, rstd: Any, scale: Any, total: Any, product: Any, dx: Any) -> None:
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            y = (x[n, c] - mean[c]) * rstd[c]
            dx[n, c] = (v[n, c] - total[c] - y * product[c]) * scale[c]


@kernel("3 int 1 1 float 3 2 2")
def _group_norm(x: Any, groups: Any, weight: Any, bias: Any, eps: Any, y: Any, mean: Any, rstd: Any) -> None:
    images, channels, size = x.shape
    kind = x.dtype.type
    own = channels // groups
    count = max(own * size, 1)
    for n in range(images):
        for g in range(groups):
            total = 0.0
            for c in range(g * own, (g + 1) * own):
                part = kind(0)
                for s in range(size):
                    part += x[n, c, s]
                total += part
            middle = kind(total / count)
            rest, around = 0.0, 0.0
            for c in range(g * own, (g + 1) * own):
                part, part_squares = kind(0), kind(0)
                for s in range(size):
                    d = x[n, c, s] - middle
                    part += d
                    part_squares += d * d
                rest += part
                around += part_squares
            rest /= count
            middle = kind(middle + rest)
            scale = kind(1 / math.sqrt(around / count - rest * rest + eps))
            mean[n, g], rstd[n, g] = middle, scale
            for c in range(g * own, (g + 1) * own):
                slope, shift = weight[c] * scale, bias[c]
                for s in range(size):
                    y[n, c, s] = (x[n, c, s] - middle) * slope + shift


@kernel("3 3 int 1 2 2 3 d1 d1")
def _group_norm_backward(v: Any, x: Any, groups: Any, weight: Any, mean: Any, rstd: Any, dx: Any, dweight: Any, dbias: Any
                         ) -> None:
    images, channels, size = x.shape
    kind = x.dtype.type
    own = channels // groups
    count = max(own * size, 1)
    dweight[:] = 0.0
    dbias[:] = 0.0
    for n in range(images):
        for g in range(groups):
            middle, scale = mean[n, g], rstd[n, g]
            total, product = 0.0, 0.0
            for c in range(g * own, (g + 1) * own):
                part, part_product = kind(0), kind(0)
                for s in range(size):
                    part += v[n, c, s]
                    part_product += v[n, c, s] * ((x[n, c, s] - middle) * scale)
                dbias[c] += part
                dweight[c] += part_product
                total += part * weight[c]
                product += part_product * weight[c]
            first, second = kind(total / count), kind(product / count)
            for c in range(g * own, (g + 1) * own):
                slope = weight[c]
                for s in range(size):
                    y = (x[n, c, s] - middle) * scale
                    dx[n, c, s] = (v[n, c, s] * slope - first - y * second) * scale


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives, of x (N, C, S), the channels' means and their sums of squared distances from them, in double precision."""
    mean, squares = np.empty(x.shape[1]), np.empty(x.shape[1])
    if x.shape[2] == 1:
        _feature_moments(x[:, :, 0], mean, squares)
    else:
        _moments(x, mean, squares)
    return mean, squares


def scaled(x: np.ndarray, mean: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Gives (x - mean) * scale + shift, the last three (C,) of x (N, C, S)."""
    y = np.empty(x.shape, x.dtype)
    if x.shape[2] == 1:
        _scaled_features(x[:, :, 0], mean, scale, shift, y[:, :, 0])
    else:
        _scaled(x, mean, scale, shift, y)
    return y


def products(v: np.ndarray, x: np.ndarray, mean: np.ndarray, rstd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives the channels' sums of v and of v times the standardized x, in double precision."""
    totals, found = np.empty(x.shape[1]), np.empty(x.shape[1])
    if x.shape[2] == 1:
        _feature_products(v[:, :, 0], x[:, :, 0], mean, rstd, totals, found)
    else:
        _products(v, x, mean, rstd, totals, found)
    return totals, found


def gradient(v: np.ndarray, x: np.ndarray, mean: np.ndarray, rstd: np.ndarray, scale: np.ndarray, total: np.ndarray,
             product: np.ndarray) -> np.ndarray:
    """Gives scale * (v - total - y * product), y the standardized x; all but v and x are (C,)."""
    dx = np.empty(x.shape, x.dtype)
    if x.shape[2] == 1:
        _feature_gradient(v[:, :, 0], x[:, :, 0], mean, rstd, scale, total, product, dx[:, :, 0])
    else:
        _gradient(v, x, mean, rstd, scale, total, product, dx)
    return dx


def group_norm(x: np.ndarray, groups: int, weight: np.ndarray, bias: np.ndarray, eps: float
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the standardized groups of x (N, C, S) times weight plus bias, their means and reciprocal deviations."""
    y = np.empty(x.shape, x.dtype)
    mean, rstd = np.empty((len(x), groups), x.dtype), np.empty((len(x), groups), x.dtype)
    _group_norm(x, groups, weight, bias, eps, y, mean, rstd)
    return y, mean, rstd


def group_norm_backward(v: np.ndarray, x: np.ndarray, groups: int, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray
                        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives the gradients of `group_norm` by x, weight and bias from that of its output v."""
    dx, dweight, dbias = np.empty(x.shape, x.dtype), np.empty(len(weight)), np.empty(len(weight))
    _group_norm_backward(v, x, groups, weight, mean, rstd, dx, dweight, dbias)
    return dx, dweight.astype(x.dtype), dbias.astype(x.dtype)
