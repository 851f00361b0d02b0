"""Compiled kernels of maxima over windows of images, with their positions, and of adding elements where they came from.

Invariant: of equal maxima the first is taken, of several NaN the last, as the numpy kernel does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel


@kernel("2 int int i1 3 i3")
def _max_pool(x: Any, height: Any, width: Any, rule: Any, values: Any, indices: Any) -> None:
    rows, columns = values.shape[1:]
    kernel_h, stride_h, padding_h, dilation_h = rule[0], rule[1], rule[2], rule[3]
    kernel_w, stride_w, padding_w, dilation_w = rule[4], rule[5], rule[6], rule[7]
    for i in range(x.shape[0]):
        for p in range(rows):
            top = p * stride_h - padding_h
            first_h, last_h = max(-(top // dilation_h), 0), min(kernel_h, (height - 1 - top) // dilation_h + 1)
            for q in range(columns):
                left = q * stride_w - padding_w
                best = x.dtype.type(-np.inf)
                # Where nothing is greater, the first position; of a window in the padding behind, the last one.
                u = top if top >= 0 else top - (top // dilation_h) * dilation_h
                w = left if left >= 0 else left - (left // dilation_w) * dilation_w
                where = min(u, height - 1) * width + min(w, width - 1)
                last_w = min(kernel_w, (width - 1 - left) // dilation_w + 1)
                for k in range(first_h, last_h):
                    for m in range(max(-(left // dilation_w), 0), last_w):
                        at = (top + k * dilation_h) * width + left + m * dilation_w
                        found = x[i, at]
                        better = (found > best) | (found != found)
                        best = found if better else best
                        where = at if better else where
                values[i, p, q] = best
                indices[i, p, q] = where


@kernel("3 3 i3")
def _max_pool_pairs(x: Any, values: Any, indices: Any) -> None:
    """Takes the maxima of windows of 2 x 2 elements that touch and lie within the image, which become vectors."""
    width = x.shape[2]
    low = x.dtype.type(-np.inf)
    for i in range(values.shape[0]):
        for p in range(values.shape[1]):
            for q in range(values.shape[2]):
                first = 2 * p * width + 2 * q
                a, b, c, d = x[i, 2 * p, 2 * q], x[i, 2 * p, 2 * q + 1], x[i, 2 * p + 1, 2 * q], x[i, 2 * p + 1, 2 * q + 1]
                best, where = low, first
                best, where = (a, first) if (a > best) | (a != a) else (best, where)
                best, where = (b, first + 1) if (b > best) | (b != b) else (best, where)
                best, where = (c, first + width) if (c > best) | (c != c) else (best, where)
                best, where = (d, first + width + 1) if (d > best) | (d != d) else (best, where)
                values[i, p, q] = best
                indices[i, p, q] = where


@kernel("2 i2 2")
def _add_along(g: Any, index: Any, out: Any) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = out.dtype.type(0)
        for j in range(g.shape[1]):
            out[i, index[i, j]] += g[i, j]


def max_pool(x: np.ndarray, rule: tuple[int, ...], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Gives the maxima (n, *size) of images x (n, h, w), and their flat positions in the image.

    `rule` holds kernel, stride, padding and dilation of the rows, then of the columns.
    """
    values, indices = np.empty((len(x), *size), x.dtype), np.empty((len(x), *size), np.int64)
    if rule == (2, 2, 0, 1) * 2 and 2 * size[0] <= x.shape[1] and 2 * size[1] <= x.shape[2]:
        _max_pool_pairs(x, values, indices)
    else:
        _max_pool(x.reshape(len(x), -1), *x.shape[1:], np.array(rule), values, indices)
    return values, indices


def add_along(g: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Adds each row of g (n, k) into a row of zeros (n, size) at the positions that index (n, k) gives."""
    out = np.empty((len(g), size), g.dtype)
    _add_along(g, index, out)
    return out
