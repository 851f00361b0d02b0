"""Convolutions by tiles of results that stay in registers: taps are read where they lie, and no columns are written.

An image is copied once between zeros. Positions then count along its padded rows, so that a tap reads the image from
its own offset on, whatever the row, and what is computed beyond the end of a row is dropped. A stride cuts the image
into its residues first, of which each tap reads one.

Invariant: a result is a sum over taps in their order (by weights: over positions), whatever the other images are.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from distgrad.kernels.compiling import kernel

# 12 vectors of sums, 3 of values and 1 weight are the 16 registers of AVX2, of 32 bytes each.
_VECTOR_BYTES, _ACROSS, _DOWN = 32, 3, 4
_ALONG = 512  # positions, about, whose results wait in cache for being copied to their rows
_TOGETHER = 1024  # positions, about, of the images that a sum over positions takes together
_ROUNDED = {"flags": ("contract",)}  # a product and its sum are rounded once, where the machine has that


class _Vectors:
    """Writes loads, sums and stores of vectors for one dtype."""

    def __init__(self, context: Any, builder: Any, kind: Any) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(kind)
        self.bytes = kind.bitwidth // 8
        self.lanes = _VECTOR_BYTES // self.bytes
        self.type = ir.VectorType(self.scalar, self.lanes)

    def data(self, kind: Any, array: Any, start: Any = None) -> Any:
        """Gives the address of an array's element."""
        place = self.context.make_array(kind)(self.context, self.builder, array).data
        return place if start is None else self.builder.gep(place, [start])

    def at(self, place: Any, index: int) -> Any:
        """Gives an address so many elements further."""
        return self.builder.gep(place, [ir.Constant(ir.IntType(64), index)])

    def load(self, place: Any) -> Any:
        """Reads a vector that may begin anywhere."""
        return self.builder.load(self.builder.bitcast(place, self.type.as_pointer()), align=self.bytes)

    def store(self, vector: Any, place: Any) -> None:
        """Writes a vector that may begin anywhere."""
        self.builder.store(vector, self.builder.bitcast(place, self.type.as_pointer()), align=self.bytes)

    def spread(self, value: Any) -> Any:
        """Gives a vector of one number."""
        empty = ir.Constant(self.type, ir.Undefined)
        one = self.builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None))

    def zeros(self, count: int) -> list[Any]:
        """Gives places for so many sums; the compiler keeps them in registers."""
        return [cgutils.alloca_once_value(self.builder, ir.Constant(self.type, None)) for _ in range(count)]

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """Adds a * b to a sum."""
        product = self.builder.fmul(a, b, **_ROUNDED)
        self.builder.store(self.builder.fadd(self.builder.load(total), product, **_ROUNDED), total)


@intrinsic
def _tile(typing: Any, x: Any, start: Any, offsets: Any, weights: Any, first: Any, taps: Any, out: Any, place: Any,
          pitch: Any) -> Any:
    """Writes out[place + o * pitch + p] = the sum over taps k of weights[first + 4 k + o] * x[start + offsets[k] + p]."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = _Vectors(context, builder, signature.args[0].dtype)
        x_place = vectors.data(signature.args[0], arguments[0], arguments[1])
        tap_offsets = vectors.data(signature.args[2], arguments[2])
        weight_place = vectors.data(signature.args[3], arguments[3], arguments[4])
        sums = vectors.zeros(_DOWN * _ACROSS)
        with cgutils.for_range(builder, arguments[5]) as loop:
            tap = builder.gep(x_place, [builder.load(builder.gep(tap_offsets, [loop.index]))])
            values = [vectors.load(vectors.at(tap, v * vectors.lanes)) for v in range(_ACROSS)]
            row = builder.gep(weight_place, [builder.mul(loop.index, ir.Constant(loop.index.type, _DOWN))])
            for o in range(_DOWN):
                weight = vectors.spread(builder.load(vectors.at(row, o)))
                for v in range(_ACROSS):
                    vectors.add_product(sums[o * _ACROSS + v], values[v], weight)
        target = vectors.data(signature.args[6], arguments[6], arguments[7])
        for o in range(_DOWN):
            for v in range(_ACROSS):
                vectors.store(builder.load(sums[o * _ACROSS + v]), vectors.at(target, v * vectors.lanes))
            target = builder.gep(target, [arguments[8]])
        return context.get_dummy_value()

    return types.void(x, start, offsets, weights, first, taps, out, place, pitch), write


@intrinsic
def _dot_tile(typing: Any, x: Any, x_size: Any, offsets: Any, first: Any, g: Any, g_first: Any, g_size: Any, pitch: Any,
              images: Any, steps: Any, total: Any, place: Any, width: Any) -> Any:
    """Adds to total[place + o * width + k] the sum over images n and p, up to `steps` vectors, of
    g[n * g_size + g_first + o * pitch + p] * x[n * x_size + offsets[first + k] + p]."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = _Vectors(context, builder, signature.args[0].dtype)
        x_place = vectors.data(signature.args[0], arguments[0])
        offsets_place = vectors.data(signature.args[2], arguments[2], arguments[3])
        taps = [builder.gep(x_place, [builder.load(vectors.at(offsets_place, k))]) for k in range(_ACROSS)]
        rows = [vectors.data(signature.args[4], arguments[4], arguments[5])]
        while len(rows) < _DOWN:
            rows.append(builder.gep(rows[-1], [arguments[7]]))
        sums = vectors.zeros(_DOWN * _ACROSS)
        with cgutils.for_range(builder, arguments[8]) as image:
            x_shift, g_shift = builder.mul(image.index, arguments[1]), builder.mul(image.index, arguments[6])
            own_taps = [builder.gep(tap, [x_shift]) for tap in taps]
            own_rows = [builder.gep(row, [g_shift]) for row in rows]
            with cgutils.for_range(builder, arguments[9]) as loop:
                along = builder.mul(loop.index, ir.Constant(loop.index.type, vectors.lanes))
                values = [vectors.load(builder.gep(tap, [along])) for tap in own_taps]
                for o in range(_DOWN):
                    cotangents = vectors.load(builder.gep(own_rows[o], [along]))
                    for k in range(_ACROSS):
                        vectors.add_product(sums[o * _ACROSS + k], values[k], cotangents)
        target = vectors.data(signature.args[10], arguments[10], arguments[11])
        for o in range(_DOWN):
            for k in range(_ACROSS):
                parts = builder.load(sums[o * _ACROSS + k])
                lane = [builder.extract_element(parts, ir.Constant(ir.IntType(32), i)) for i in range(vectors.lanes)]
                while len(lane) > 1:
                    half = len(lane) // 2
                    lane = [builder.fadd(a, b) for a, b in zip(lane[:half], lane[half:])]
                entry = vectors.at(target, k)
                builder.store(builder.fadd(builder.load(entry), lane[0]), entry)
            target = builder.gep(target, [arguments[12]])
        return context.get_dummy_value()

    return types.void(x, x_size, offsets, first, g, g_first, g_size, pitch, images, steps, total, place, width), write


@kernel("3 i1 1")
def _spread(image: Any, geometry: Any, padded: Any) -> None:
    channels, height, width = image.shape
    stride_h, stride_w, padding_h, padding_w = geometry[0], geometry[1], geometry[2], geometry[3]
    rows, pitch, extent_h, extent_w = geometry[4], geometry[5], geometry[6], geometry[7]
    low, high = max(0, padding_w), min(extent_w, width + padding_w)
    for c in range(channels):
        for h in range(max(0, padding_h), min(extent_h, height + padding_h)):
            plane = (c * stride_h + h % stride_h) * stride_w
            source = image[c, h - padding_h]
            for residue in range(stride_w):
                start = ((plane + residue) * rows + h // stride_h) * pitch
                first = (low - residue + stride_w - 1) // stride_w
                last = (high - residue + stride_w - 1) // stride_w
                inner, behind = padded[start + first : start + last], source[first * stride_w + residue - padding_w :]
                if stride_w == 1:
                    for w in range(last - first):
                        inner[w] = behind[w]
                elif stride_w == 2:
                    for w in range(last - first):
                        inner[w] = behind[2 * w]
                else:
                    for w in range(last - first):
                        inner[w] = behind[w * stride_w]


@kernel("1 i1 1 i1 1 1 3")
def _image(padded: Any, offsets: Any, weights: Any, geometry: Any, bias: Any, made: Any, out: Any) -> None:
    channels, height, width = out.shape
    pitch, together, across, chunk = geometry[5], geometry[8], geometry[9], geometry[10]
    taps = len(offsets)
    for first in range(0, height, together):
        last = min(first + together, height)
        for left in range(0, width, chunk):
            columns = min(chunk, width - left)
            length = ((last - first - 1) * pitch + columns + across - 1) // across * across
            for p in range(0, length, across):
                start = first * pitch + left + p
                for o in range(0, channels, 4):
                    _tile(padded, start, offsets, weights, o * taps, taps, made, o * length + p, length)
            for o in range(channels):
                shift = bias[o]
                for h in range(first, last):
                    start = o * length + (h - first) * pitch
                    source, target = made[start : start + columns], out[o, h, left : left + columns]
                    for w in range(columns):
                        target[w] = source[w] + shift


@kernel("4 i1 1 i1 1 1 1 4")
def _images(x: Any, offsets: Any, weights: Any, geometry: Any, bias: Any, padded: Any, made: Any, out: Any) -> None:
    for n in range(x.shape[0]):
        _spread(x[n], geometry, padded)
        _image(padded, offsets, weights, geometry, bias, made, out[n])


@kernel("3 int int 1")
def _spread_cotangents(g: Any, pitch: Any, length: Any, spread: Any) -> None:
    channels, height, width = g.shape
    for o in range(channels):
        for h in range(height):
            start = o * length + h * pitch
            inner, source = spread[start : start + width], g[o, h]
            for w in range(width):
                inner[w] = source[w]


@kernel("4 4 i1 i1 int int 1 1 2")
def _sums_over_positions(x: Any, g: Any, offsets: Any, geometry: Any, image: Any, lanes: Any, padded: Any, spread: Any,
                         total: Any) -> None:
    pitch, length = geometry[5], geometry[11]
    flat = total.reshape(-1)
    channels, width = total.shape
    size = channels * length
    together = len(spread) // size
    for first in range(0, len(x), together):
        count = min(together, len(x) - first)
        for n in range(count):
            _spread(x[first + n], geometry, padded[n * image :])
            _spread_cotangents(g[first + n], pitch, length, spread[n * size :])
        for o in range(0, channels, 4):
            for k in range(0, width, 3):
                _dot_tile(padded, image, offsets, k, spread, o * length, size, length, count, length // lanes, flat,
                          o * width + k, width)


class Form:
    """The sizes of a convolution of images (C, H, W) with kernels (KH, KW) that gives `size` positions.

    Padding may be negative: then so much of the image is not read.
    """

    def __init__(self, channels: int, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
                 dilation: tuple[int, int], size: tuple[int, int], itemsize: int) -> None:
        extent = [(t - 1) * s + (k - 1) * d + 1 for t, s, k, d in zip(size, stride, kernel_size, dilation)]
        rows, pitch = (-(-e // s) for e, s in zip(extent, stride))
        self.lanes = _VECTOR_BYTES // itemsize
        self.across = _ACROSS * self.lanes
        together = min(max(_ALONG // pitch, 1), size[0])
        chunk = size[1] if together > 1 else min(size[1], 2 * _ALONG)
        self.made = (together - 1) * pitch + chunk + self.across
        self.length = -(-((size[0] - 1) * pitch + size[1]) // self.lanes) * self.lanes
        self.image = channels * stride[0] * stride[1] * rows * pitch
        self.geometry = np.array(
            (*stride, *padding, rows, pitch, *extent, together, self.across, chunk, self.length), np.int64
        )
        c, i, j = np.ogrid[:channels, : kernel_size[0], : kernel_size[1]]
        h, w = i * dilation[0], j * dilation[1]
        planes = (c * stride[0] + h % stride[0]) * stride[1] + w % stride[1]
        self.offsets = ((planes * rows + h // stride[0]) * pitch + w // stride[1]).reshape(-1)
        self.taps = len(self.offsets)

    def padded(self, images: int, kind: np.dtype) -> np.ndarray:
        """Gives zeros for so many images, and behind them what the last tile reads beyond."""
        return np.zeros(images * self.image + self.across, kind)


form = lru_cache(maxsize=1024)(Form)


def waste(kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], size: tuple[int, ...]) -> float:
    """Gives how many positions are computed for each that is wanted."""
    if prod(size[:-1]) == 1:
        return 1.0
    extent = (size[-1] - 1) * stride[-1] + (kernel_size[-1] - 1) * dilation[-1] + 1
    return -(-extent // stride[-1]) / size[-1]


def conv(x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, out: np.ndarray, sizes: Form) -> None:
    """Writes the convolution of x (N, C, H, W) with weights (O, C * KH * KW) to out (N, O, rows, columns)."""
    channels = len(weights)
    whole = -(-channels // _DOWN) * _DOWN
    packed = np.zeros((whole, sizes.taps), x.dtype)
    packed[:channels] = weights
    packed = np.ascontiguousarray(packed.reshape(-1, _DOWN, sizes.taps).swapaxes(1, 2)).reshape(-1)
    shift = np.zeros(channels, x.dtype) if bias is None else bias
    made = np.empty(whole * sizes.made, x.dtype)
    _images(x, sizes.offsets, packed, sizes.geometry, shift, sizes.padded(1, x.dtype), made, out)


def conv_input(g: np.ndarray, weights: np.ndarray, out: np.ndarray, stride: tuple[int, int], padding: tuple[int, int],
               dilation: tuple[int, int]) -> None:
    """Writes to out (N, C, H, W), zeros before, the gradient by the input from that of the output, g (N, O, rows, columns).

    The elements of one residue of the stride meet certain taps only: they are a convolution of g, with stride 1, with
    these taps in reverse.
    """
    kernel_size = weights.shape[2:]
    for residues in product(range(stride[0]), range(stride[1])):
        parts = [_residue(*values) for values in zip(residues, kernel_size, stride, padding, dilation, out.shape[2:])]
        if any(len(taps) == 0 or size <= 0 for taps, _, _, size, _ in parts):
            continue
        (rows, *_), (columns, *_) = parts
        apart = np.ascontiguousarray(weights[:, :, rows[::-1]][..., columns[::-1]].swapaxes(0, 1))
        steps, sides, size, first = (tuple(p[i] for p in parts) for i in range(1, 5))
        sizes = form(g.shape[1], apart.shape[2:], (1, 1), sides, steps, size, g.dtype.itemsize)
        plane = out if stride == (1, 1) else np.empty((*out.shape[:2], *size), out.dtype)
        conv(g, apart.reshape(len(apart), -1), None, plane, sizes)
        if plane is not out:
            out[:, :, first[0] :: stride[0], first[1] :: stride[1]] = plane


def _residue(residue: int, taps: int, stride: int, padding: int, dilation: int, size: int
             ) -> tuple[np.ndarray, int, int, int, int]:
    """Gives, for one dim, the taps that elements of a residue meet, their distance, the padding, how many elements there
    are, and the first one."""
    found = np.flatnonzero(np.arange(taps) * dilation % stride == residue)
    begin = -((residue - padding) // stride)
    count = (size - 1 + padding - residue) // stride - begin + 1
    reach = int(found[-1]) * dilation // stride if len(found) else 0
    return found, dilation // gcd(dilation, stride), reach - begin, count, begin * stride + residue - padding


def conv_weight(x: np.ndarray, g: np.ndarray, sizes: Form) -> np.ndarray:
    """Gives the gradient by the weights (O, C * KH * KW) from x (N, C, H, W) and that of the output (N, O, rows, columns).

    It may be NaN where it should not when x is not finite: beyond the end of a row zeros meet what comes there.
    """
    channels = g.shape[1]
    offsets = np.concatenate((sizes.offsets, sizes.offsets[:1].repeat(-sizes.taps % _ACROSS)))  # dropped in the end
    total = np.zeros((-(-channels // _DOWN) * _DOWN, len(offsets)), x.dtype)
    together = min(max(_TOGETHER // sizes.length, 1), len(x))
    spread = np.zeros(together * len(total) * sizes.length, x.dtype)
    _sums_over_positions(x, g, offsets, sizes.geometry, sizes.image, sizes.lanes, sizes.padded(together, x.dtype), spread, total)
    return np.ascontiguousarray(total[:channels, : sizes.taps])
