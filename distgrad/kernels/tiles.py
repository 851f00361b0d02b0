"""Convolutions by tiles of results that stay in registers: taps are read where they lie, and no columns are written.

An image lies between zeros, cut into the residues of its stride, of which each tap reads one; a tap then reads the image
from its own offset on. Vectors of positions stay within a row of results where rows are long enough. Else positions
count along the padded rows, and what is computed beyond the end of a row is dropped.

Invariant: a result is a sum over taps in their order, from the bias on (by weights: over positions), whatever the other
images are.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from distgrad.kernels.compiling import kernel, scalar

# 12 vectors of sums, 3 of values and 1 weight are the 16 registers of AVX2, of 32 bytes each.
_VECTOR_BYTES, _ACROSS, _DOWN = 32, 3, 4
_ALONG = 512  # positions, about, whose results wait in cache for being copied to their rows
_TOGETHER = 1024  # positions, about, of the images that a sum over positions takes together
intrinsic: Any = extending.intrinsic  # what it decorates takes one argument less
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

    def sum_from(self, vector: Any) -> Any:
        """Gives a place for a sum; the compiler keeps it in a register."""
        place = cgutils.alloca_once(self.builder, self.type)
        self.builder.store(vector, place)
        return place

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """Adds a * b to a sum."""
        product = self.builder.fmul(a, b, **_ROUNDED)
        self.builder.store(self.builder.fadd(self.builder.load(total), product, **_ROUNDED), total)


@intrinsic
def _tile(typing: Any, x: Any, x0: Any, x1: Any, x2: Any, offsets: Any, weights: Any, first: Any, taps: Any, bias: Any,
          o: Any, out: Any, y0: Any, y1: Any, y2: Any, pitch: Any, count: Any) -> Any:
    """Writes three vectors v of `count` channels i at out[y_v + i * pitch]: bias[o + i] and the sum over taps k of
    weights[first + 4 k + i] * x[x_v + offsets[k]]."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        vectors = _Vectors(context, builder, kinds[0].dtype)
        places = [vectors.data(kinds[0], arguments[0], arguments[1 + v]) for v in range(_ACROSS)]
        tap_offsets = vectors.data(kinds[4], arguments[4])
        weight_place = vectors.data(kinds[5], arguments[5], arguments[6])
        bias_place = vectors.data(kinds[8], arguments[8], arguments[9])
        shifts = [vectors.spread(builder.load(vectors.at(bias_place, i))) for i in range(_DOWN)]
        sums = [vectors.sum_from(shifts[i]) for i in range(_DOWN) for _ in range(_ACROSS)]
        with cgutils.for_range(builder, arguments[7]) as loop:
            offset = builder.load(builder.gep(tap_offsets, [loop.index]))
            values = [vectors.load(builder.gep(place, [offset])) for place in places]
            row = builder.gep(weight_place, [builder.mul(loop.index, ir.Constant(loop.index.type, _DOWN))])
            for i in range(_DOWN):
                weight = vectors.spread(builder.load(vectors.at(row, i)))
                for v in range(_ACROSS):
                    vectors.add_product(sums[i * _ACROSS + v], values[v], weight)
        target = vectors.data(kinds[10], arguments[10])
        for i in range(_DOWN):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(arguments[15].type, i), arguments[15])):
                row = builder.gep(target, [builder.mul(arguments[14], ir.Constant(arguments[14].type, i))])
                for v in range(_ACROSS):
                    vectors.store(builder.load(sums[i * _ACROSS + v]), builder.gep(row, [arguments[11 + v]]))
        return context.get_dummy_value()

    return types.void(x, x0, x1, x2, offsets, weights, first, taps, bias, o, out, y0, y1, y2, pitch, count), write


@intrinsic
def _dot_tile(typing: Any, x: Any, x_first: Any, x_size: Any, starts: Any, offsets: Any, first: Any, g: Any, g_first: Any,
              g_size: Any, pitch: Any, images: Any, total: Any, place: Any, width: Any, steps: Any) -> Any:
    """Adds to total[place + i * width + k] the sum over images n and vectors v of
    g[g_first + n * g_size + i * pitch + v] * x[x_first + n * x_size + starts[v] + offsets[first + k]]."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        vectors = _Vectors(context, builder, kinds[0].dtype)
        x_place = vectors.data(kinds[0], arguments[0], arguments[1])
        starts_place = vectors.data(kinds[3], arguments[3])
        offsets_place = vectors.data(kinds[4], arguments[4], arguments[5])
        taps = [builder.gep(x_place, [builder.load(vectors.at(offsets_place, k))]) for k in range(_ACROSS)]
        rows = [vectors.data(kinds[6], arguments[6], arguments[7])]
        while len(rows) < _DOWN:
            rows.append(builder.gep(rows[-1], [arguments[9]]))
        zero = ir.Constant(vectors.type, None)
        sums = [vectors.sum_from(zero) for _ in range(_DOWN * _ACROSS)]
        with cgutils.for_range(builder, arguments[10]) as image:
            x_shift, g_shift = builder.mul(image.index, arguments[2]), builder.mul(image.index, arguments[8])
            own_taps = [builder.gep(tap, [x_shift]) for tap in taps]
            own_rows = [builder.gep(row, [g_shift]) for row in rows]
            with cgutils.for_range(builder, arguments[14]) as loop:
                start = builder.load(builder.gep(starts_place, [loop.index]))
                along = builder.mul(loop.index, ir.Constant(loop.index.type, vectors.lanes))
                values = [vectors.load(builder.gep(tap, [start])) for tap in own_taps]
                for i in range(_DOWN):
                    cotangents = vectors.load(builder.gep(own_rows[i], [along]))
                    for k in range(_ACROSS):
                        vectors.add_product(sums[i * _ACROSS + k], values[k], cotangents)
        target = vectors.data(kinds[11], arguments[11], arguments[12])
        for i in range(_DOWN):
            for k in range(_ACROSS):
                parts = builder.load(sums[i * _ACROSS + k])
                lane = [builder.extract_element(parts, ir.Constant(ir.IntType(32), j)) for j in range(vectors.lanes)]
                while len(lane) > 1:
                    half = len(lane) // 2
                    lane = [builder.fadd(a, b) for a, b in zip(lane[:half], lane[half:])]
                entry = vectors.at(target, k)
                builder.store(builder.fadd(builder.load(entry), lane[0]), entry)
            target = builder.gep(target, [arguments[13]])
        return context.get_dummy_value()

    return types.void(x, x_first, x_size, starts, offsets, first, g, g_first, g_size, pitch, images, total, place, width,
                      steps), write


@intrinsic
def _copy_rows(typing: Any, source: Any, first: Any, pitch: Any, target: Any, place: Any, target_pitch: Any, rows: Any,
               width: Any) -> Any:
    """Copies `rows` rows of `width` elements, `pitch` apart, in vectors, the last of which may overlap the one before."""

    def write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = signature.args
        vectors = _Vectors(context, builder, kinds[0].dtype)
        whole_source, whole_target = (vectors.data(kinds[k], arguments[k], arguments[k + 1]) for k in (0, 3))
        count = arguments[7]
        lanes = ir.Constant(count.type, vectors.lanes)
        with cgutils.for_range(builder, arguments[6]) as row:
            begin = builder.gep(whole_source, [builder.mul(row.index, arguments[2])])
            end = builder.gep(whole_target, [builder.mul(row.index, arguments[5])])
            with builder.if_else(builder.icmp_signed(">=", count, lanes)) as (wide, narrow):
                with wide:
                    with cgutils.for_range(builder, builder.sdiv(count, lanes)) as vector:
                        at = builder.mul(vector.index, lanes)
                        vectors.store(vectors.load(builder.gep(begin, [at])), builder.gep(end, [at]))
                    last = builder.sub(count, lanes)
                    vectors.store(vectors.load(builder.gep(begin, [last])), builder.gep(end, [last]))
                with narrow, cgutils.for_range(builder, count) as element:
                    builder.store(builder.load(builder.gep(begin, [element.index])), builder.gep(end, [element.index]))
        return context.get_dummy_value()

    return types.void(source, first, pitch, target, place, target_pitch, rows, width), write


@scalar
def _spread_pairs(image: Any, geometry: Any, padded: Any) -> None:
    """Does what `_spread` does for a stride of 2 along rows: both residues at once, which makes vectors."""
    channels, height, width = image.shape
    stride_h, padding_h, padding_w = geometry[0], geometry[2], geometry[3]
    rows, pitch, extent_h, extent_w = geometry[4], geometry[5], geometry[6], geometry[7]
    low, high = max(0, padding_w), min(extent_w, width + padding_w)
    first_even, first_odd = (low + 1) // 2, low // 2
    evens, odds = (high + 1) // 2 - first_even, high // 2 - first_odd
    pairs = max(min(evens, odds), 0)
    for c in range(channels):
        for h in range(max(0, padding_h), min(extent_h, height + padding_h)):
            start = ((c * stride_h + h % stride_h) * 2 * rows + h // stride_h) * pitch
            source = image[c, h - padding_h][low - padding_w :]
            even = padded[start + first_even : start + first_even + evens]
            odd = padded[start + rows * pitch + first_odd : start + rows * pitch + first_odd + odds]
            if low % 2:
                for k in range(pairs):
                    odd[k] = source[2 * k]
                    even[k] = source[2 * k + 1]
                for k in range(pairs, odds):
                    odd[k] = source[2 * k]
            else:
                for k in range(pairs):
                    even[k] = source[2 * k]
                    odd[k] = source[2 * k + 1]
                for k in range(pairs, evens):
                    even[k] = source[2 * k]


@scalar
def _spread(image: Any, geometry: Any, padded: Any) -> None:
    if geometry[1] == 2:
        _spread_pairs(image, geometry, padded)
        return
    channels, height, width = image.shape
    stride_h, stride_w, padding_h, padding_w = geometry[0], geometry[1], geometry[2], geometry[3]
    rows, pitch, extent_h, extent_w = geometry[4], geometry[5], geometry[6], geometry[7]
    low, high = max(0, padding_w), min(extent_w, width + padding_w)
    top, bottom = max(0, padding_h), min(extent_h, height + padding_h)
    if stride_h == 1 and stride_w == 1:
        for c in range(channels):
            _copy_rows(image, (c * height + top - padding_h) * width + low - padding_w, width, padded,
                       (c * rows + top) * pitch + low, pitch, bottom - top, max(high - low, 0))
        return
    for c in range(channels):
        for h in range(top, bottom):
            plane = (c * stride_h + h % stride_h) * stride_w
            source = image[c, h - padding_h]
            for residue in range(stride_w):
                start = ((plane + residue) * rows + h // stride_h) * pitch
                first = (low - residue + stride_w - 1) // stride_w
                last = (high - residue + stride_w - 1) // stride_w
                inner, behind = padded[start + first : start + last], source[first * stride_w + residue - padding_w :]
                for w in range(last - first):
                    inner[w] = behind[w * stride_w]


@kernel("4 bool int i1 1 i1 i1 i1 1 1 4")
def _in_rows(x: Any, as_it_is: Any, groups: Any, offsets: Any, weights: Any, geometry: Any, reads: Any, writes: Any, bias: Any,
             padded: Any, out: Any) -> None:
    """Vectors stay within rows of results. The groups of an image are images one after the other."""
    channels = out.shape[1]
    whole_channels = len(bias) // groups
    plane = out.shape[2] * out.shape[3]
    taps, whole, results = len(offsets), x.reshape(-1), out.reshape(-1)
    image = x.shape[1] * x.shape[2] * x.shape[3]
    for n in range(x.shape[0]):
        source, base = whole, n * image
        if not as_it_is:
            _spread(x[n], geometry, padded)
            source, base = padded, 0
        own = n % groups * whole_channels
        for v in range(0, len(reads), 3):
            for o in range(0, channels, 4):
                place = (n * channels + o) * plane
                _tile(source, base + reads[v], base + reads[v + 1], base + reads[v + 2], offsets, weights, (own + o) * taps,
                      taps, bias, own + o, results, place + writes[v], place + writes[v + 1], place + writes[v + 2], plane,
                      channels - o)


@kernel("4 int i1 1 i1 1 1 1 4")
def _in_runs(x: Any, groups: Any, offsets: Any, weights: Any, geometry: Any, bias: Any, padded: Any, made: Any, out: Any
             ) -> None:
    """Vectors run along padded rows."""
    channels, height, width = out.shape[1:]
    whole_channels = len(bias) // groups
    pitch, together, lanes = geometry[5], geometry[8], geometry[9]
    taps, results = len(offsets), out.reshape(-1)
    for n in range(x.shape[0]):
        _spread(x[n], geometry, padded)
        own = n % groups * whole_channels
        for first in range(0, height, together):
            last = min(first + together, height)
            length = ((last - first - 1) * pitch + width + 3 * lanes - 1) // (3 * lanes) * 3 * lanes
            for p in range(0, length, 3 * lanes):
                start = first * pitch + p
                for o in range(0, channels, 4):
                    place = o * length + p
                    _tile(padded, start, start + lanes, start + 2 * lanes, offsets, weights, (own + o) * taps, taps, bias,
                          own + o, made, place, place + lanes, place + 2 * lanes, length, 4)
            for o in range(channels):
                _copy_rows(made, o * length, pitch, results, ((n * channels + o) * height + first) * width, width, last - first,
                           width)


@scalar
def _spread_cotangents(g: Any, pitch: Any, length: Any, spread: Any) -> None:
    channels, height, width = g.shape
    for o in range(channels):
        _copy_rows(g, o * height * width, width, spread, o * length, pitch, height, width)


@kernel("4 4 bool bool int i1 i1 i1 int 1 1 2")
def _sums_over_positions(x: Any, g: Any, x_as_it_is: Any, g_as_it_is: Any, groups: Any, offsets: Any, geometry: Any,
                         starts: Any, together: Any, padded: Any, spread: Any, total: Any) -> None:
    image, lanes, row = geometry[10], geometry[9], geometry[11]
    steps = len(starts)
    length = steps * lanes
    flat, whole_x, whole_g = total.reshape(-1), x.reshape(-1), g.reshape(-1)
    channels, width = total.shape[0] // groups, total.shape[1]
    size = channels * length
    images = len(x) // groups
    for group in range(groups):
        for first in range(0, images, together):
            count = min(together, images - first)
            at = first * groups + group
            source, source_first, source_size = whole_x, at * image, groups * image
            given, given_first, given_size = whole_g, at * size, groups * size
            if not x_as_it_is:
                source, source_first, source_size = padded, 0, image
                for n in range(count):
                    _spread(x[at + n * groups], geometry, padded[n * image :])
            if not g_as_it_is:
                given, given_first, given_size = spread, 0, size
                for n in range(count):
                    _spread_cotangents(g[at + n * groups], row, length, spread[n * size :])
            for o in range(0, channels, 4):
                for k in range(0, width, 3):
                    _dot_tile(source, source_first, source_size, starts, offsets, k, given, given_first + o * length,
                              given_size, length, count, flat, (group * channels + o) * width + k, width, steps)


@kernel("4 int i1 1 i1 1 1 1 4")
def _one_channel(x: Any, groups: Any, offsets: Any, weights: Any, geometry: Any, bias: Any, padded: Any, made: Any, out: Any
                 ) -> None:
    """Images of one channel to results of one: no two results share what a tile reads, so taps go over whole runs."""
    height, width = out.shape[2:]
    pitch, lanes, taps = geometry[5], geometry[9], len(offsets)
    length = ((height - 1) * pitch + width + lanes - 1) // lanes * lanes
    sums, results = made[:length], out.reshape(-1)
    for n in range(x.shape[0]):
        _spread(x[n], geometry, padded)
        own = n % groups
        row, shift = weights[own * taps : (own + 1) * taps], bias[own]
        for p in range(length):
            sums[p] = shift
        for k in range(0, taps - 2, 3):
            one, two = padded[offsets[k] : offsets[k] + length], padded[offsets[k + 1] : offsets[k + 1] + length]
            three = padded[offsets[k + 2] : offsets[k + 2] + length]
            a, b, c = row[k], row[k + 1], row[k + 2]
            for p in range(length):
                sums[p] = sums[p] + a * one[p] + b * two[p] + c * three[p]
        for k in range(taps // 3 * 3, taps):
            one, a = padded[offsets[k] : offsets[k] + length], row[k]
            for p in range(length):
                sums[p] += a * one[p]
        _copy_rows(made, 0, pitch, results, n * height * width, width, height, width)


@kernel("4 4 int i1 i1 1 1 2")
def _sums_of_one_channel(x: Any, g: Any, groups: Any, offsets: Any, geometry: Any, padded: Any, spread: Any, total: Any
                         ) -> None:
    height, width = g.shape[2:]
    pitch, lanes, taps = geometry[5], geometry[9], len(offsets)
    length = ((height - 1) * pitch + width + lanes - 1) // lanes * lanes
    zero = spread.dtype.type(0)
    for n in range(x.shape[0]):
        _spread(x[n], geometry, padded)
        _spread_cotangents(g[n], pitch, length, spread)
        own, given = total[n % groups], spread[:length]
        for k in range(0, taps - 2, 3):
            one, two = padded[offsets[k] : offsets[k] + length], padded[offsets[k + 1] : offsets[k + 1] + length]
            three = padded[offsets[k + 2] : offsets[k + 2] + length]
            a, b, c = zero, zero, zero
            for p in range(length):
                v = given[p]
                a += v * one[p]
                b += v * two[p]
                c += v * three[p]
            own[k] += a
            own[k + 1] += b
            own[k + 2] += c
        for k in range(taps // 3 * 3, taps):
            one, a = padded[offsets[k] : offsets[k] + length], zero
            for p in range(length):
                a += given[p] * one[p]
            own[k] += a


class Form:
    """The sizes of a convolution of images (C, H, W) with kernels (KH, KW) that gives `size` positions.

    Padding may be negative: then so much of the image is not read.
    """

    def __init__(self, images: tuple[int, int, int], kernel_size: tuple[int, int], stride: tuple[int, int],
                 padding: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int], itemsize: int) -> None:
        channels = images[0]
        extent = tuple((t - 1) * s + (k - 1) * d + 1 for t, s, k, d in zip(size, stride, kernel_size, dilation))
        rows, pitch = (-(-e // s) for e, s in zip(extent, stride))
        self.lanes = _VECTOR_BYTES // itemsize
        self.in_rows = _by_rows(size, self.lanes) <= 1.05 * _by_runs(size, pitch)  # which need not be copied to out
        self.even = self.in_rows and size[1] % self.lanes == 0
        self.as_it_is = extent == images[1:] and stride == (1, 1) and padding == (0, 0)  # nothing to put around the image
        together = min(max(_ALONG // pitch, 1), size[0])
        self.made = together * pitch + size[1] + _ACROSS * self.lanes
        self.image = channels * stride[0] * stride[1] * rows * pitch
        row = -(-size[1] // self.lanes) * self.lanes if self.in_rows else pitch
        self.geometry = np.array(
            (*stride, *padding, rows, pitch, *extent, together, self.lanes, self.image, row), np.int64
        )
        c, i, j = np.ogrid[:channels, : kernel_size[0], : kernel_size[1]]
        h, w = i * dilation[0], j * dilation[1]
        planes = (c * stride[0] + h % stride[0]) * stride[1] + w % stride[1]
        self.offsets = ((planes * rows + h // stride[0]) * pitch + w // stride[1]).reshape(-1)
        self.taps = len(self.offsets)
        if self.in_rows:
            columns, lines = np.arange(0, size[1], self.lanes), np.arange(size[0])[:, None]
            self.starts = (lines * pitch + columns).reshape(-1)
            last = np.minimum(columns, size[1] - self.lanes)  # the end of a row is made twice rather than beyond it
            self.reads, self.writes = (
                np.concatenate((v := (lines * line + last).reshape(-1), v[-1:].repeat(-len(v) % _ACROSS)))
                for line in (pitch, size[1])
            )
        else:
            self.starts = np.arange(0, (size[0] - 1) * pitch + size[1], self.lanes)

    def padded(self, images: int, kind: np.dtype) -> np.ndarray:
        """Gives zeros for so many images, and behind them what the last tile reads beyond."""
        return np.zeros(images * self.image + _ACROSS * self.lanes, kind)


def _by_rows(size: tuple[int, ...], lanes: int) -> float:
    """Gives how many positions are computed for one that is wanted, when vectors stay within rows."""
    return -(-size[-1] // lanes) * lanes / size[-1] if size[-1] >= lanes else float("inf")


def _by_runs(size: tuple[int, ...], pitch: int) -> float:
    """Gives the same when they run along padded rows."""
    return pitch / size[-1] if prod(size[:-1]) > 1 else 1.0


form = lru_cache(maxsize=1024)(Form)


def waste(kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], size: tuple[int, ...],
          itemsize: int) -> float:
    """Gives how many positions are computed for one that is wanted."""
    pitch = -(-((size[-1] - 1) * stride[-1] + (kernel_size[-1] - 1) * dilation[-1] + 1) // stride[-1])
    return min(_by_rows(size, _VECTOR_BYTES // itemsize), _by_runs(size, pitch))


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """Gives the groups of channels of (N, C, H, W) as images of their own."""
    return x.reshape(x.shape[0] * groups, x.shape[1] // groups, *x.shape[2:])


def conv(x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, out: np.ndarray, sizes: Form, groups: int = 1) -> None:
    """Writes the convolution of x (N, C, H, W) with weights (O, C / groups * KH * KW) to out (N, O, rows, columns).

    The form is that of one group.
    """
    channels = len(weights) // groups
    if channels == 1 and x.shape[1] == groups:
        shift = np.zeros(groups, x.dtype) if bias is None else np.array(bias)  # copies: what is given may be read-only
        made = np.empty(sizes.image + sizes.lanes, x.dtype)
        row = np.array(weights).reshape(-1)
        _one_channel(_grouped(x, groups), groups, sizes.offsets, row, sizes.geometry, shift, sizes.padded(1, x.dtype), made,
                     _grouped(out, groups))
        return
    whole = -(-channels // _DOWN) * _DOWN
    packed = np.zeros((groups, whole, sizes.taps), x.dtype)
    packed[:, :channels] = weights.reshape(groups, channels, sizes.taps)
    packed = np.ascontiguousarray(packed.reshape(-1, _DOWN, sizes.taps).swapaxes(1, 2)).reshape(-1)
    shift = np.zeros((groups, whole), x.dtype)
    if bias is not None:
        shift[:, :channels] = bias.reshape(groups, channels)
    padded = sizes.padded(0 if sizes.as_it_is and sizes.in_rows else 1, x.dtype)
    x, out = _grouped(x, groups), _grouped(out, groups)
    if sizes.in_rows:
        _in_rows(x, sizes.as_it_is, groups, sizes.offsets, packed, sizes.geometry, sizes.reads, sizes.writes,
                 shift.reshape(-1), padded, out)
    else:
        made = np.empty(whole * sizes.made, x.dtype)
        _in_runs(x, groups, sizes.offsets, packed, sizes.geometry, shift.reshape(-1), padded, made, out)


def conv_input(g: np.ndarray, weights: np.ndarray, out: np.ndarray, stride: tuple[int, int], padding: tuple[int, int],
               dilation: tuple[int, int], groups: int = 1) -> None:
    """Writes to out (N, C, H, W), zeros before, the gradient by the input from that of the output, g (N, O, rows, columns).

    The elements of one residue of the stride meet certain taps only: they are a convolution of g, with stride 1, with
    these taps in reverse.
    """
    kernel_size = weights.shape[2:]
    weights = weights.reshape(groups, -1, *weights.shape[1:]).swapaxes(1, 2)
    for residues in product(range(stride[0]), range(stride[1])):
        parts = [_residue(*values) for values in zip(residues, kernel_size, stride, padding, dilation, out.shape[2:])]
        if any(len(taps) == 0 or size <= 0 for taps, _, _, size, _ in parts):
            continue
        (rows, *_), (columns, *_) = parts
        apart = np.ascontiguousarray(weights[:, :, :, rows[::-1]][..., columns[::-1]])
        steps, sides, size, first = (tuple(p[i] for p in parts) for i in range(1, 5))
        sizes = form((g.shape[1] // groups, *g.shape[2:]), apart.shape[3:], (1, 1), sides, steps, size, g.dtype.itemsize)
        plane = out if stride == (1, 1) else np.empty((*out.shape[:2], *size), out.dtype)
        conv(g, apart.reshape(out.shape[1], -1), None, plane, sizes, groups)
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


def conv_weight(x: np.ndarray, g: np.ndarray, sizes: Form, groups: int = 1) -> np.ndarray:
    """Gives the gradient by the weights (O, C / groups * KH * KW) from x (N, C, H, W) and that of the output (N, O, ...).

    It may be NaN where it should not when x is not finite: beyond the end of a row zeros meet what comes there.
    """
    x, g = _grouped(x, groups), _grouped(g, groups)
    channels = g.shape[1]
    if channels == 1 and x.shape[1] == 1:
        total, spread = np.zeros((groups, sizes.taps), x.dtype), sizes.padded(1, x.dtype)
        _sums_of_one_channel(x, g, groups, sizes.offsets, sizes.geometry, sizes.padded(1, x.dtype), spread, total)
        return total
    whole = -(-channels // _DOWN) * _DOWN
    offsets = np.concatenate((sizes.offsets, sizes.offsets[:1].repeat(-sizes.taps % _ACROSS)))  # dropped in the end
    total = np.zeros((groups * whole, len(offsets)), x.dtype)
    length = len(sizes.starts) * sizes.lanes
    together = min(max(_TOGETHER // length, 1), len(x) // groups)
    # Without zeros around the image or behind its rows, both are read where they lie.
    x_as_it_is, g_as_it_is = sizes.as_it_is and sizes.even, sizes.even and channels == whole
    padded = sizes.padded(0 if x_as_it_is else together, x.dtype)
    spread = np.zeros(0 if g_as_it_is else together * whole * length, x.dtype)
    _sums_over_positions(x, g, x_as_it_is, g_as_it_is, groups, offsets, sizes.geometry, sizes.starts, together, padded, spread,
                         total)
    return total.reshape(groups, whole, -1)[:, :channels, : sizes.taps].reshape(groups * channels, sizes.taps)
