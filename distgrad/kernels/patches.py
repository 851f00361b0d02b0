"""Compiled loops between an image and its columns, what each position of a convolution reads: copied, or added back.

Columns are (C * KH * KW, positions) for whole rows of positions, so that one matrix product takes or gives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels import products
from distgrad.kernels.compiling import kernel


@kernel("3 i1 int int 2")
def _columns(x: Any, geometry: Any, first: Any, last: Any, columns: Any) -> None:
    channels, height, width = x.shape
    kernel_h, kernel_w, stride_h, stride_w = geometry[0], geometry[1], geometry[2], geometry[3]
    padding_h, padding_w, dilation_h, dilation_w = geometry[4], geometry[5], geometry[6], geometry[7]
    size = geometry[8]
    zero = x.dtype.type(0)
    for c in range(channels):
        for i in range(kernel_h):
            for j in range(kernel_w):
                k = (c * kernel_h + i) * kernel_w + j
                shift = j * dilation_w - padding_w
                low = min(max(0, -(shift // stride_w)), size)
                high = max(min(size, (width - 1 - shift) // stride_w + 1), low)
                for r in range(first, last):
                    row = columns[k, (r - first) * size : (r - first + 1) * size]
                    h = r * stride_h - padding_h + i * dilation_h
                    if h < 0 or h >= height:
                        row[:] = zero
                        continue
                    row[:low] = zero
                    row[high:] = zero
                    inner, source = row[low:high], x[c, h, low * stride_w + shift :]
                    if stride_w == 1:
                        for t in range(high - low):
                            inner[t] = source[t]
                    else:
                        for t in range(high - low):
                            inner[t] = source[t * stride_w]


@kernel("2 i1 int int 3")
def _add_columns(columns: Any, geometry: Any, first: Any, last: Any, x: Any) -> None:
    channels, height, width = x.shape
    kernel_h, kernel_w, stride_h, stride_w = geometry[0], geometry[1], geometry[2], geometry[3]
    padding_h, padding_w, dilation_h, dilation_w = geometry[4], geometry[5], geometry[6], geometry[7]
    size = geometry[8]
    for c in range(channels):
        for i in range(kernel_h):
            for j in range(kernel_w):
                k = (c * kernel_h + i) * kernel_w + j
                shift = j * dilation_w - padding_w
                low = min(max(0, -(shift // stride_w)), size)
                high = max(min(size, (width - 1 - shift) // stride_w + 1), low)
                for r in range(first, last):
                    h = r * stride_h - padding_h + i * dilation_h
                    if h < 0 or h >= height:
                        continue
                    inner = columns[k, (r - first) * size + low : (r - first) * size + high]
                    target = x[c, h, low * stride_w + shift :]
                    if stride_w == 1:
                        for t in range(high - low):
                            target[t] += inner[t]
                    else:
                        for t in range(high - low):
                            target[t * stride_w] += inner[t]


@kernel("2 1")
def _add_to_columns(y: Any, b: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] += b[i]


class Blocks:
    """The blocks of rows in which the columns of an image are made, few enough elements to stay in cache."""

    def __init__(self, channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...],
                 dilation: tuple[int, ...], size: tuple[int, ...], most: int, kind: np.dtype) -> None:
        self.geometry = np.array((*kernel, *stride, *padding, *dilation, size[1]), np.int64)
        depth = channels * kernel[0] * kernel[1]
        rows = min(max(most // max(depth * size[1], 1), 1), size[0])
        self.rows = [(r, min(r + rows, size[0])) for r in range(0, size[0], rows)]
        self.size = size[1]
        self._memory = np.empty(depth * rows * size[1], kind)
        self._depth = depth

    def positions(self, first: int, last: int) -> slice:
        """Gives which positions of the image a block of rows is."""
        return slice(first * self.size, last * self.size)

    def empty(self, first: int, last: int) -> np.ndarray:
        """Gives memory for the columns of a block, which the next call uses again."""
        count = (last - first) * self.size
        return self._memory[: self._depth * count].reshape(self._depth, count)

    def columns(self, image: np.ndarray, first: int, last: int) -> np.ndarray:
        """Gives the columns of rows [first, last) of positions over an image (C, H, W)."""
        columns = self.empty(first, last)
        _columns(image, self.geometry, first, last, columns)
        return columns

    def add(self, columns: np.ndarray, first: int, last: int, image: np.ndarray) -> None:
        """Adds columns to where `columns` reads them in an image (C, H, W)."""
        _add_columns(columns, self.geometry, first, last, image)


def conv(x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, out: np.ndarray, blocks: Blocks) -> None:
    """Writes the convolution of x (N, C, H, W) with weights (O, C * KH * KW) to out (N, O, positions)."""
    for image, target in zip(x, out):
        for first, last in blocks.rows:
            products.matmul(weights, blocks.columns(image, first, last), target[:, blocks.positions(first, last)])
        if bias is not None:
            _add_to_columns(target, bias)


def conv_input(g: np.ndarray, weights: np.ndarray, out: np.ndarray, blocks: Blocks) -> None:
    """Adds to out (N, C, H, W) the gradient by the input from that of the output, g (N, O, positions)."""
    transposed = weights.T
    for given, image in zip(g, out):
        for first, last in blocks.rows:
            columns = products.matmul(transposed, given[:, blocks.positions(first, last)], blocks.empty(first, last))
            blocks.add(columns, first, last, image)


def conv_weight(x: np.ndarray, g: np.ndarray, blocks: Blocks) -> np.ndarray:
    """Gives the gradient by the weights (O, C * KH * KW) from that of the output, g (N, O, positions)."""
    total: np.ndarray | None = None
    part: np.ndarray | None = None
    for image, given in zip(x, g):
        for first, last in blocks.rows:
            # The transposed product: with the columns in front BLAS takes them as they lie, a quarter faster.
            part = products.matmul(blocks.columns(image, first, last), given[:, blocks.positions(first, last)].T, part)
            if total is None:
                total, part = part, None
            else:
                np.add(total, part, out=total)
    assert total is not None, "there is at least one image"
    return np.ascontiguousarray(total.T)
