"""Convolution and its two adjoints, in any number of dims, and the patches they read.

All three are one trilinear form, with x read at t * stride + k * dilation - padding and zero outside:

    F(x, w, g) = sum over images n, channels o and c, taps k, positions t of  g[n, o, t] * w[o, c, k] * x[n, c, ...]

`conv` is its derivative by g, `conv_input` by x, `conv_weight` by w, so each one's gradient rules are the other two.
Invariant: columns (what each position reads) are made for a block of images or rows at a time, so memory beyond the
operands and the result stays bounded, and each block is one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import Entry, MetaResult, Op, Row
from distgrad.ops.reduction import sum as sum_over
from distgrad.placement import Shard, Spec

Ints = tuple[int, ...]

_BLOCK = 1 << 19  # elements of columns made at once: few enough to stay in cache (measured)
_POSITIONS = 128  # of an image, from which its own columns alone make a product that BLAS does at full speed
_WASTE = 1.6  # positions computed in vain, at most, for reading whole padded rows
_CHANNELS = 3  # of results, from which loops over taps are the faster way (measured)
_TAPS = 1536  # whose weights a loop over them finds in cache: for more, products of columns are faster (measured)


class _Geometry:
    """The sizes of one convolution: what is padded, which positions are computed, and in which blocks."""

    def __init__(self, batch: int, channels: int, spatial: Ints, kernel: Ints, size: Ints, stride: Ints, padding: Ints,
                 dilation: Ints) -> None:
        self.batch, self.channels, self.spatial, self.kernel, self.size = batch, channels, spatial, kernel, size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.extent = tuple((t - 1) * s + (k - 1) * d + 1 for t, s, k, d in zip(size, stride, kernel, dilation))
        # Where every stride is 1, positions are taken along whole padded rows, so that a tap reads one contiguous run.
        self.flat = (
            len(size) > 1 and all(s == 1 for s in stride)
            and prod(self.extent[1:]) <= _WASTE * prod(size[1:])
        )
        self.computed = (size[0], *(self.extent[1:] if self.flat else size[1:]))
        row = channels * prod(kernel) * prod(self.computed[1:])
        self.images = max(1, min(batch, _BLOCK // max(row * size[0], 1)))
        self.memory: np.ndarray | None = None
        self.rows = size[0] if row * size[0] <= _BLOCK else max(1, _BLOCK // max(row, 1))

    def blocks(self) -> Iterator[tuple[slice, list[tuple[int, int]]]]:
        """Gives slices of images, each with its blocks of rows [first, last)."""
        rows = [(r, min(r + self.rows, self.size[0])) for r in range(0, self.size[0], self.rows)]
        for first in range(0, self.batch, self.images):
            yield slice(first, min(first + self.images, self.batch)), rows

    def padded(self, kind: np.dtype) -> np.ndarray:
        """Gives zeros (C, images, *extent), with slack behind them for positions beyond the last one."""
        count = self.channels * self.images * prod(self.extent)
        memory = np.zeros(count + (prod(self.extent[1:]) if self.flat else 0), kind)
        return memory[:count].reshape(self.channels, self.images, *self.extent)

    def inside(self) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Gives which part of the padded array is which part of an image."""
        to, source = [], []
        for s, p, e in zip(self.spatial, self.padding, self.extent):
            low, high = max(p, 0), max(min(p + s, e), max(p, 0))
            to.append(slice(low, high))
            source.append(slice(low - p, high - p))
        return tuple(to), tuple(source)

    def taps(self, padded: np.ndarray, images: int, first: int, last: int) -> np.ndarray:
        """Gives the columns (C, *kernel, images, rows, ...) as a view of a padded array."""
        outer, inner = padded.strides[:2], padded.strides[2:]
        steps = tuple(b * s for b, s in zip(inner, self.stride))
        return as_strided(
            padded[:, :, first * self.stride[0] :],
            (self.channels, *self.kernel, images, last - first, *self.computed[1:]),
            (outer[0], *(b * d for b, d in zip(inner, self.dilation)), outer[1], *steps),
            subok=False,
        )

    def columns(self, padded: np.ndarray, images: int, first: int, last: int) -> np.ndarray:
        """Gives the columns (C, *kernel, images, rows, ...) in memory that the next call uses again."""
        view = self.taps(padded, images, first, last)
        if self.memory is None or self.memory.size < view.size:
            self.memory = np.empty(view.size, padded.dtype)
        columns = self.memory[: view.size].reshape(view.shape)
        np.copyto(columns, view)
        return columns

    def crop(self) -> tuple[slice, ...]:
        """Gives the index that keeps the wanted ones of the computed positions, after rows."""
        return tuple(slice(t) for t in self.size[1:])


def _last(parts: Iterable[Any]) -> Any:
    """Gives the index that applies `parts` to the last dims."""
    return (..., *parts)


def _each(lead: int, parts: Iterable[Any]) -> Any:
    """Gives the index that applies `parts` to the dims after the first `lead` ones."""
    return (*(slice(None),) * lead, *parts)


def _is_pointwise(kernel: Ints, stride: Ints, padding: Ints, spatial: Ints, size: Ints) -> bool:
    return spatial == size and all(k == 1 for k in kernel) and all(s == 1 for s in stride) and not any(padding)


def _skips(kernel: Ints, stride: Ints, padding: Ints) -> bool:
    """Says whether a convolution only reads some elements, one for each position."""
    return all(k == 1 for k in kernel) and not any(padding) and any(s > 1 for s in stride)


def _read(stride: Ints, size: Ints) -> tuple[slice, ...]:
    """Gives which elements these are."""
    return tuple(slice(0, (t - 1) * s + 1, s) for s, t in zip(stride, size))


def _wide(kind: np.dtype) -> np.dtype:
    """Gives the dtype sums are taken in: float32 for the halves."""
    return np.dtype(np.float32) if kind.kind == "V" or kind.name in ("float16", "bfloat16") else kind


def _compiled(x: np.ndarray, g_size: int, groups: int, size: Ints) -> bool:
    """Says whether compiled loops make the columns: of whole images one by one, in one or two dims."""
    return prod(size) >= _POSITIONS and groups == 1 and _looped(x, g_size, size)


def _looped(x: np.ndarray, g_size: int, size: Ints) -> bool:
    return min(x.size, g_size) >= compiled.LEAST and len(size) <= 2 and compiled.fits(x)


def _in_tiles(x: np.ndarray, g_size: int, groups: int, channels: int, taps: int, kernel: Ints, stride: Ints, dilation: Ints,
              size: Ints) -> bool:
    """Says whether compiled loops sum over taps without columns: few taps, few positions in vain, and several results."""
    if not ((channels >= _CHANNELS or groups > 1) and taps <= _TAPS and _looped(x, g_size, size)):
        return False
    from distgrad.kernels.tiles import waste

    return waste(kernel, stride, dilation, size, x.itemsize) <= _WASTE


def _two(values: Ints, first: int) -> tuple[int, int]:
    """Gives the values of two dims; `first` for the one that a row lacks."""
    return (first, values[0]) if len(values) == 1 else (values[0], values[1])


def _blocks(channels: int, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints, kind: np.dtype) -> Any:
    from distgrad.kernels.patches import Blocks

    return Blocks(channels, _two(kernel, 1), _two(stride, 1), _two(padding, 0), _two(dilation, 1), _two(size, 1), _BLOCK, kind)


def _form(x: np.ndarray, groups: int, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints) -> Any:
    from distgrad.kernels.tiles import form

    image = (x.shape[1] // groups, *_as_images(x).shape[2:])
    return form(image, _two(kernel, 1), _two(stride, 1), _two(padding, 0), _two(dilation, 1), _two(size, 1), x.itemsize)


def _as_images(x: np.ndarray) -> np.ndarray:
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], 1, x.shape[2])


def _conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, stride: Ints, padding: Ints, dilation: Ints,
          groups: int, size: Ints) -> np.ndarray:
    kind = x.dtype
    x, w = (v.astype(_wide(kind), copy=False) for v in (x, w))
    batch, out_channels, kernel = x.shape[0], w.shape[0], w.shape[2:]
    shift = None if b is None else b.astype(x.dtype, copy=False).reshape(-1, *(1,) * len(size))
    out: np.ndarray
    if not (x.size and w.size and prod(size)):
        out = np.zeros((batch, out_channels, *size), kind)
        return out if shift is None else np.add(out, shift).astype(kind, copy=False)
    weights = np.ascontiguousarray(w).reshape(groups, out_channels // groups, prod(w.shape[1:]))
    if _skips(kernel, stride, padding):
        x, stride = np.ascontiguousarray(x[_last(_read(stride, size))]), (1,) * len(size)
    if _is_pointwise(kernel, stride, padding, x.shape[2:], size):
        flat = x.reshape(batch, groups, x.shape[1] // groups, prod(size))
        out = np.matmul(weights, flat).reshape(batch, out_channels, *size)
        return (out if shift is None else np.add(out, shift, out=out)).astype(kind, copy=False)
    out = np.empty((batch, out_channels, *size), kind)
    if _in_tiles(x, out.size, groups, out_channels, weights.shape[2], kernel, stride, dilation, size):
        from distgrad.kernels import tiles

        tiles.conv(_as_images(x), weights.reshape(out_channels, -1), None if b is None else b.astype(kind, copy=False),
                   _as_images(out), _form(x, groups, kernel, stride, padding, dilation, size), groups)
        return out
    if _compiled(x, out.size, groups, size):
        from distgrad.kernels import patches as loops

        loops.conv(_as_images(x), weights[0], None if b is None else np.ascontiguousarray(b, x.dtype),
                   out.reshape(batch, out_channels, prod(size)),
                   _blocks(x.shape[1], kernel, stride, padding, dilation, size, kind))
        return out
    sizes = _Geometry(batch, x.shape[1], x.shape[2:], kernel, size, stride, padding, dilation)
    padded = sizes.padded(x.dtype)
    to, source = sizes.inside()
    for images, rows in sizes.blocks():
        count = images.stop - images.start
        padded[(slice(None), slice(count), *to)] = x[(images, slice(None), *source)].swapaxes(0, 1)
        for first, last in rows:
            columns = sizes.columns(padded, count, first, last)
            made = np.matmul(weights, columns.reshape(groups, weights.shape[2], -1))
            made = made.reshape(out_channels, count, last - first, *sizes.computed[1:])
            made = made[_last(sizes.crop())].swapaxes(0, 1)
            if shift is None:
                out[images, :, first:last] = made
            else:
                out[images, :, first:last] = made + shift
    return out


def _cotangents(g: np.ndarray, sizes: _Geometry, groups: int, images: slice, first: int, last: int) -> np.ndarray:
    """Gives a block of g as (groups, O / groups, images * positions), zero at positions computed in vain."""
    block = g[images, :, first:last].swapaxes(0, 1)
    if sizes.flat:
        spread = np.zeros((*block.shape[:3], *sizes.computed[1:]), g.dtype)
        spread[_last(sizes.crop())] = block
        block = spread
    return np.ascontiguousarray(block).reshape(groups, g.shape[1] // groups, -1)


def _conv_input(g: np.ndarray, w: np.ndarray, *, stride: Ints, padding: Ints, dilation: Ints, groups: int,
                size: Ints) -> np.ndarray:
    kind = g.dtype
    g, w = (v.astype(_wide(kind), copy=False) for v in (g, w))
    batch, kernel, channels = g.shape[0], w.shape[2:], groups * w.shape[1]
    out = np.zeros((batch, channels, *size), kind)
    if not (out.size and g.size and w.size):
        return out
    if _skips(kernel, stride, padding):
        size = g.shape[2:]
        out[_last(_read(stride, size))] = _conv_input(
            g, w, stride=(1,) * len(size), padding=padding, dilation=dilation, groups=groups, size=size)
        return out
    pointwise = _is_pointwise(kernel, stride, padding, size, g.shape[2:])
    if not pointwise and _in_tiles(g, out.size, groups, channels, w.shape[0] // groups * prod(kernel) // prod(stride), kernel,
                                   (1,) * len(size), dilation, g.shape[2:]):
        from distgrad.kernels import tiles

        given = np.ascontiguousarray(w).reshape(*w.shape[:2], *_two(kernel, 1))
        tiles.conv_input(_as_images(g), given, _as_images(out), _two(stride, 1), _two(padding, 0), _two(dilation, 1), groups)
        return out
    if not pointwise and _compiled(g, out.size, groups, g.shape[2:]):
        from distgrad.kernels import patches as loops

        loops.conv_input(g.reshape(batch, w.shape[0], -1), np.ascontiguousarray(w).reshape(w.shape[0], -1),
                         _as_images(out), _blocks(channels, kernel, stride, padding, dilation, g.shape[2:], kind))
        return out
    if all(s == 1 for s in stride) and w.shape[0] <= channels and prod(size) <= _WASTE * prod(g.shape[2:]):
        # Then it is a convolution with the taps in reverse, which copies columns where this one adds them up.
        reverse = w.reshape(groups, -1, *w.shape[1:]).swapaxes(1, 2).reshape(channels, -1, *kernel)
        reverse = reverse[_last(slice(None, None, -1) for _ in kernel)]
        sides = tuple(d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding))
        return _conv(g, reverse, stride=stride, padding=sides, dilation=dilation, groups=groups, size=size).astype(
            kind, copy=False)
    transposed = np.ascontiguousarray(w).reshape(groups, w.shape[0] // groups, prod(w.shape[1:])).swapaxes(1, 2)
    if pointwise:
        flat = g.reshape(batch, groups, w.shape[0] // groups, prod(size))
        return np.matmul(transposed, flat).reshape(out.shape).astype(kind, copy=False)
    sizes = _Geometry(batch, channels, size, kernel, g.shape[2:], stride, padding, dilation)
    padded = sizes.padded(g.dtype)
    to, source = sizes.inside()
    for images, rows in sizes.blocks():
        count = images.stop - images.start
        padded[...] = 0
        for first, last in rows:
            block = _cotangents(g, sizes, groups, images, first, last)
            target = sizes.taps(padded, count, first, last)
            shape = (count, last - first, *sizes.computed[1:])
            # A product over one index is faster as a broadcast one.
            columns = transposed * block if block.shape[1] == 1 else np.matmul(transposed, block)
            columns = columns.reshape(channels, *kernel, *shape)
            for tap in product(*(range(k) for k in kernel)):
                # The taps of one position differ, so no element is added to twice in one of these sums.
                _add_run(target[_each(1, tap)], columns[_each(1, tap)], sizes)
        out[(images, slice(None), *source)] = padded[(slice(None), slice(count), *to)].swapaxes(0, 1)
    return out


def _add_run(target: np.ndarray, columns: np.ndarray, sizes: _Geometry) -> None:
    """Adds columns (C, images, rows, ...) to where a tap reads them.

    Beyond the last wanted position there are only zeros to add, and there may be no memory.
    """
    if sizes.flat and target.size:
        run = (columns.shape[2] - 1) * prod(sizes.extent[1:])  # up to the start of the last row, then the last position
        run += sum((t - 1) * prod(sizes.extent[d + 1 :]) for d, t in enumerate(sizes.size) if d > 0) + 1
        shape, strides = (*target.shape[:2], run), (*target.strides[:2], target.strides[-1])
        target = as_strided(target, shape, strides)
        columns = columns.reshape(*columns.shape[:2], -1)[..., :run]
    np.add(target, columns, out=target)


def _conv_weight(x: np.ndarray, g: np.ndarray, *, stride: Ints, padding: Ints, dilation: Ints, groups: int,
                 size: Ints, inner: int = 0) -> np.ndarray:
    kind = x.dtype
    x, g = (v.astype(_wide(kind), copy=False) for v in (x, g))
    batch, channels, out_channels = x.shape[0], x.shape[1], g.shape[1]
    shape = (out_channels, channels // groups if groups else inner, *size)
    if not (x.size and g.size and prod(size)):
        return np.zeros(shape, kind)
    total = np.zeros((groups, out_channels // groups, prod(shape[1:])), x.dtype)
    if _skips(size, stride, padding):
        x, stride = x[_last(_read(stride, g.shape[2:]))], (1,) * len(size)
    if _is_pointwise(size, stride, padding, x.shape[2:], g.shape[2:]):
        left, right = (v.reshape(batch, groups, v.shape[1] // groups, prod(g.shape[2:])) for v in (g, x))
        for one, other in zip(left, right):
            total += np.matmul(one, other.swapaxes(1, 2))
        return total.reshape(shape).astype(kind, copy=False)
    tiled = groups and compiled.fits(g) and g.dtype == x.dtype and _in_tiles(
        x, g.size, groups, out_channels, total.shape[2], size, stride, dilation, g.shape[2:])
    if tiled:
        from distgrad.kernels import tiles

        sizes = _form(x, groups, size, stride, padding, dilation, g.shape[2:])
        found = tiles.conv_weight(_as_images(x), _as_images(g), sizes, groups)
        if np.isfinite(found).all():  # else it is made with nothing but what belongs to it
            return found.reshape(shape)
    if _compiled(x, g.size, groups, g.shape[2:]) and compiled.fits(g) and g.dtype == x.dtype:
        from distgrad.kernels import patches as loops

        return loops.conv_weight(
            _as_images(x), g.reshape(batch, out_channels, -1),
            _blocks(channels, size, stride, padding, dilation, g.shape[2:], kind)).reshape(shape)
    sizes = _Geometry(batch, channels, x.shape[2:], size, g.shape[2:], stride, padding, dilation)
    padded = sizes.padded(x.dtype)
    to, source = sizes.inside()
    for images, rows in sizes.blocks():
        count = images.stop - images.start
        padded[(slice(None), slice(count), *to)] = x[(images, slice(None), *source)].swapaxes(0, 1)
        for first, last in rows:
            columns = sizes.columns(padded, count, first, last)
            columns = columns.reshape(groups, total.shape[2], -1)
            total += np.matmul(_cotangents(g, sizes, groups, images, first, last), columns.swapaxes(1, 2))
    return total.reshape(shape).astype(kind, copy=False)


# The records ------------------------------------------------------------------------------------------------


def _same(name: str, a: TensorMeta, b: TensorMeta) -> None:
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"{name}: input and weight must have the same dtype, got {a.dtype.name} and {b.dtype.name}; convert one "
            f"with .to({a.dtype.name})"
        )


def _conv_meta(x: TensorMeta, w: TensorMeta, *, size: Ints, **attrs: Any) -> MetaResult:
    _same("conv", x, w)
    return (TensorMeta.of((x.shape[0], w.shape[0], *size), x.dtype),), None


def _conv_bias_meta(x: TensorMeta, w: TensorMeta, b: TensorMeta, **attrs: Any) -> MetaResult:
    _same("conv", x, b)
    return _conv_meta(x, w, **attrs)


def _conv_input_meta(g: TensorMeta, w: TensorMeta, *, size: Ints, groups: int, **attrs: Any) -> MetaResult:
    _same("conv_transpose", g, w)
    return (TensorMeta.of((g.shape[0], groups * w.shape[1], *size), g.dtype),), None


def _conv_weight_meta(x: TensorMeta, g: TensorMeta, *, size: Ints, groups: int, **attrs: Any) -> MetaResult:
    _same("conv_weight", x, g)
    return (TensorMeta.of((g.shape[1], x.shape[1] // groups, *size), x.dtype),), None


def _form_rows(first: tuple[Entry, ...], second: tuple[Entry, ...], out: tuple[Entry, ...],
               channels: str) -> Any:
    """Gives the rows rule of one derivative of the form.

    `first`, `second` and `out` say for images, output channels and input channels which dim of an operand they are
    (None: it has no such dim); `channels` names, per operand, what its channels are: "o", "c" or "w" for a weight.
    """

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        groups = attrs["groups"]
        for index in range(3):
            if index and groups > 1:
                continue
            result = out[index]
            yield Row((first[index], second[index]), ("sum" if result is None else result,))
        if groups > 1:  # whole groups of channels, so many of each operand
            sizes = {kind: (*ins, *outs)[channels.index(kind)].shape[1] // groups for kind in "oc"}
            scales = tuple(sizes["o" if kind == "w" else kind] for kind in channels)
            dims = tuple(0 if kind == "w" else 1 for kind in channels)
            yield Row(dims[:2], dims[2:], scales)
        yield Row(("sum", None), ("sum",))
        yield Row((None, "sum"), ("sum",))

    return rows


def _own_groups(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    """Counts a rank's own groups where channels are sharded by groups."""
    placement, groups = ins[0].placement, attrs["groups"]
    if groups == 1 or not isinstance(placement, Shard) or placement.dim != 1:
        return attrs
    return {**attrs, "groups": ins[0].local_shape(rank)[1] // (ins[0].shape[1] // groups)}


def _own_weight(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    """Counts a rank's own groups, and says how wide a weight is where it has none."""
    return {**_own_groups(attrs, ins, outs, rank), "inner": outs[0].shape[1]}


def _conv_bias_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of a convolution where no parts are summed; output channels take their part of the bias."""
    for row in conv.rows(ins[:2], outs, attrs):
        if "sum" not in (*row.ins, *row.outs):
            scales = None if row.scales is None else (*row.scales[:2], row.scales[2], row.scales[2])
            yield Row((*row.ins, 0 if row.outs == (1,) else None), row.outs, scales)


_X_RULE, _W_RULE = (
    lambda g, w, x_shape, stride, padding, dilation, groups: conv_input(
        g, w, stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:]),
    lambda g, x, w_shape, stride, padding, dilation, groups: conv_weight(
        x, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=w_shape[2:]),
)

conv: Op = Op(
    "conv", _conv, meta=_conv_meta, inputs="x w", localize=_own_groups,
    rows=_form_rows((0, None, 1), (None, 0, 1), (0, 1, None), "cwo"),
    vjps=(_X_RULE, _W_RULE),
)
"""(N, C, *S) and a weight (O, C / groups, *K) give (N, O, *size)."""

conv_bias = Op(
    "conv_bias", _conv, meta=_conv_bias_meta, inputs="x w b", localize=_own_groups, rows=_conv_bias_rows,
    vjps=(_X_RULE, _W_RULE, lambda g, x_shape: sum_over(g, axis=(0, *range(2, len(x_shape))), keepdims=False)),
)
"""`conv` plus a bias (O,), added while a block of the result is in cache."""

conv_input: Op = Op(
    "conv_input", _conv_input, meta=_conv_input_meta, inputs="x w", localize=_own_groups,
    rows=_form_rows((0, 1, None), (None, 0, 1), (0, None, 1), "owc"),
    vjps=(
        lambda g, w, x_shape, stride, padding, dilation, groups: conv(
            g, w, stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:]),
        lambda g, x, w_shape, stride, padding, dilation, groups: conv_weight(
            g, x, stride=stride, padding=padding, dilation=dilation, groups=groups, size=w_shape[2:]),
    ),
)
"""(N, O, *T) and a weight (O, C / groups, *K) give (N, C, *size): a transposed convolution."""

conv_weight: Op = Op(
    "conv_weight", _conv_weight, meta=_conv_weight_meta, inputs="x other", localize=_own_weight,
    rows=_form_rows((0, None, 1), (0, 1, None), (None, 0, 1), "cow"),
    vjps=(
        lambda g, other, x_shape, stride, padding, dilation, groups: conv_input(
            other, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=x_shape[2:]),
        lambda g, x, other_shape, stride, padding, dilation, groups: conv(
            x, g, stride=stride, padding=padding, dilation=dilation, groups=groups, size=other_shape[2:]),
    ),
)
"""(N, C, *S) and (N, O, *T) give a weight's shape (O, C / groups, *size)."""


# Patches as columns -----------------------------------------------------------------------------------------


def _patches(x: np.ndarray, *, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints) -> np.ndarray:
    batch, channels = x.shape[:2]
    out = np.empty((batch, channels, *kernel, *size), x.dtype)
    if out.size:
        sizes = _Geometry(batch, channels, x.shape[2:], kernel, size, stride, padding, dilation)
        padded = sizes.padded(x.dtype)
        to, source = sizes.inside()
        for images, rows in sizes.blocks():
            count = images.stop - images.start
            padded[(slice(None), slice(count), *to)] = x[(images, slice(None), *source)].swapaxes(0, 1)
            for first, last in rows:
                taps = sizes.taps(padded, count, first, last)[_last(sizes.crop())]
                out[(images, *(slice(None),) * (1 + len(kernel)), slice(first, last))] = np.moveaxis(
                    taps, 1 + len(kernel), 0)
    return out.reshape(batch, channels * prod(kernel), prod(size))


def _add_patches(g: np.ndarray, *, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, size: Ints,
                 shape: Ints) -> np.ndarray:
    """Adds columns (N, C * K, T) to where they were read in (N, C, *shape)."""
    batch, channels = g.shape[0], g.shape[1] // prod(kernel)
    total = np.zeros((batch, channels, *((t - 1) * s + (k - 1) * d + 1 + 2 * p for t, s, k, d, p in zip(
        size, stride, kernel, dilation, padding))), _wide(g.dtype))
    if not total.size or not g.size:
        return np.zeros((batch, channels, *shape), g.dtype)
    columns = g.reshape(batch, channels, *kernel, *size)
    for tap in product(*(range(k) for k in kernel)):
        target = tuple(slice(k * d, k * d + (t - 1) * s + 1, s) for k, d, t, s in zip(tap, dilation, size, stride))
        total[_last(target)] += columns[_each(2, tap)]
    out = np.zeros((batch, channels, *shape), g.dtype)
    inside = tuple(slice(p, max(min(p + n, e), p)) for p, n, e in zip(padding, shape, total.shape[2:]))
    part = total[_last(inside)]
    out[tuple(slice(n) for n in part.shape)] = part
    return out


def _patches_meta(x: TensorMeta, *, kernel: Ints, size: Ints, **attrs: Any) -> MetaResult:
    return (TensorMeta.of((x.shape[0], x.shape[1] * prod(kernel), prod(size)), x.dtype),), None


def _add_patches_meta(g: TensorMeta, *, kernel: Ints, shape: Ints, **attrs: Any) -> MetaResult:
    return (TensorMeta.of((g.shape[0], g.shape[1] // prod(kernel), *shape), g.dtype),), None


def _patches_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    yield Row((0,), (0,))
    taps = prod(attrs["kernel"])
    yield Row((1,), (1,), (1, taps) if outs[0].ndim == 3 and "shape" not in attrs else (taps, 1))
    yield Row(("sum",), ("sum",))


patches: Op = Op(
    "patches", _patches, meta=_patches_meta, inputs="x", rows=_patches_rows,
    vjps=(lambda g, x_shape, kernel, stride, padding, dilation, size: add_patches(
        g, kernel=kernel, stride=stride, padding=padding, dilation=dilation, size=size, shape=x_shape[2:]),),
)
"""What each position reads: (N, C, *S) gives (N, C * K, T), T and K the products of `size` and `kernel`."""

add_patches: Op = Op(
    "add_patches", _add_patches, meta=_add_patches_meta, inputs="x", rows=_patches_rows,
    vjps=(lambda g, kernel, stride, padding, dilation, size: patches(
        g, kernel=kernel, stride=stride, padding=padding, dilation=dilation, size=size),),
)
"""The adjoint of `patches`: (N, C * K, T) added up into (N, C, *shape)."""
