"""Maxima over windows with their positions; means over windows are `resample` of the interpolation family.

Invariant: an index is the flat position of the maximum among the spatial elements of its own image and channel, the
first of equal ones and the last NaN, as in PyTorch; every leading dim is independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import identity_of
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.indexing import add_along
from distgrad.ops.interpolation import ends
from distgrad.ops.movement import reshape

Rule = tuple[Any, ...]

_BLOCK = 1 << 16  # elements of input looked at together, so that every tap finds them in cache


@lru_cache(maxsize=1024)
def _window_taps(rule: Rule) -> tuple[list[tuple[slice, Any, np.ndarray]], np.ndarray]:
    """Gives per tap the outputs that have one, what they read and where that is, and each window's first position.

    Rules: ("window", S, T, kernel, stride, padding, dilation) and ("area", S, T). Windows of an area differ in length;
    the shorter ones read their last element again, which changes no maximum.
    """
    kind, size, out = rule[:3]
    if kind == "area":
        first, last = ends(size, out)
        places = [np.minimum(first + k, last - 1) for k in range(max((last - first).max(initial=0), 1))]
        return [(slice(0, out), at, at) for at in places], first
    kernel, stride, padding, dilation = rule[3:]
    start = np.arange(out) * stride - padding
    taps = []
    for k in range(kernel):
        offset = k * dilation - padding
        low = max(-(offset // stride), 0)
        high = min((size - 1 - offset) // stride + 1, out)
        if high > low:
            begin = low * stride + offset
            reads = slice(begin, begin + (high - low - 1) * stride + 1, stride)
            taps.append((slice(low, high), reads, np.arange(low, high) * stride + offset))
    # Of a window with no element at all (it starts in the padding behind) the position is that of the last one.
    return taps, np.minimum(np.where(start < 0, start + -(start // dilation) * dilation, start), size - 1)


def _select(x: np.ndarray, chosen: Sequence[Any]) -> np.ndarray:
    for axis, one in enumerate(chosen, 1):
        if not isinstance(one, slice):
            x = x.take(one, axis)
    return x[(slice(None), *(one if isinstance(one, slice) else slice(None) for one in chosen))]


def _flat(places: Sequence[np.ndarray], spatial: tuple[int, ...]) -> np.ndarray:
    """Gives flat positions from one array of positions per axis."""
    found = np.zeros((1,) * len(spatial), np.int64)
    for axis, at in enumerate(places):
        found = found + (at * prod(spatial[axis + 1 :])).reshape(-1, *(1,) * (len(spatial) - axis - 1))
    return found


def _improve(best: np.ndarray, where: np.ndarray, found: np.ndarray, places: np.ndarray, missing: bool) -> None:
    """Replaces maxima, and their positions, by what is greater or not a number."""
    better = found > best
    if missing:
        better |= found != found
    np.copyto(best, found, where=better)
    np.copyto(where, places, where=better)


def _has_nan(x: np.ndarray) -> bool:
    return x.dtype.kind in "fV" and x.size > 0 and bool(np.isnan(np.max(x)))


def _two_windows(rules: tuple[Rule, ...]) -> bool:
    return len(rules) == 2 and rules[0][0] == rules[1][0] == "window"


def _max_pool(x: np.ndarray, *, rules: tuple[Rule, ...]) -> tuple[np.ndarray, np.ndarray]:
    lead, spatial = x.shape[: x.ndim - len(rules)], x.shape[x.ndim - len(rules) :]
    size = tuple(rule[2] for rule in rules)
    if x.size >= compiled.LEAST and _two_windows(rules) and prod(size) and compiled.fits(x):
        from distgrad.kernels import pooling

        values, indices = pooling.max_pool(x.reshape(prod(lead), *spatial), (*rules[0][3:], *rules[1][3:]), size)
        return values.reshape(*lead, *size), indices.reshape(*lead, *size)
    values = np.full((prod(lead), *size), identity_of("max", x.dtype) if x.dtype.kind != "V" else -np.inf, x.dtype)
    indices = np.empty(values.shape, np.int64)
    if values.size:
        images = x.reshape(prod(lead), *spatial)
        axes = [_window_taps(rule) for rule in rules]
        indices[...] = _flat([first for _, first in axes], spatial)
        taps = [(tuple(zip(*tap)), _flat([at for _, _, at in tap], spatial)) for tap in product(*(t for t, _ in axes))]
        step = max(1, _BLOCK // max(prod(spatial), 1))
        for begin in range(0, len(images), step):
            block = slice(begin, begin + step)
            part, missing = images[block], _has_nan(images[block])
            for (outs, reads, _), places in taps:
                target = (block, *outs)
                _improve(values[target], indices[target], _select(part, reads), places, missing)
    return values.reshape(*lead, *size), indices.reshape(*lead, *size)


def _max_pool_meta(x: TensorMeta, *, rules: tuple[Rule, ...]) -> MetaResult:
    if x.dtype.category in (0, 3):
        raise NotImplementedError(f"max_pool: not implemented for {x.dtype.name}; allowed: real numbers")
    out = TensorMeta.of((*x.shape[: x.ndim - len(rules)], *(rule[2] for rule in rules)), x.dtype)
    return (out, out.with_dtype(dtypes.int64)), None


def _max_pool_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[0].ndim - len(attrs["rules"])):
        yield Row((dim,), (dim, dim))


def _to_maxima(g: Any, indices: Any, x_shape: tuple[int, ...], count: int) -> Any:
    """Adds the cotangent of each maximum to the element it came from; the last `count` dims are spatial."""
    lead = x_shape[: len(x_shape) - count]
    elements = prod(x_shape[len(lead) :])
    flat = (*lead, prod(g.shape[len(lead) :]))
    spread = add_along(reshape(g, shape=flat), reshape(indices, shape=flat), shape=(*lead, elements), axis=len(lead))
    return reshape(spread, shape=x_shape)


max_pool = Op(
    "max_pool", _max_pool, meta=_max_pool_meta, inputs="x", rows=_max_pool_rows, outputs="values indices",
    vjps=(lambda g, indices, x_shape, rules: _to_maxima(g[0], indices, x_shape, len(rules)),),
)
"""Maxima over the windows that one rule per spatial dim (the last ones) names, and their flat positions."""


def _fractional_starts(samples: np.ndarray, size: int, out: int, kernel: int) -> np.ndarray:
    """Gives window starts (..., out) from samples (...): a pseudo-random sequence that ends at the last window."""
    if out == 1:
        return np.full((*samples.shape, 1), size - kernel)
    alpha = samples.dtype.type(size - kernel) / samples.dtype.type(out - 1)
    steps = (np.arange(out - 1).astype(samples.dtype) + samples[..., None]) * alpha
    starts = steps.astype(np.int64) - (samples[..., None] * alpha).astype(np.int64)
    return np.concatenate([starts, np.full((*samples.shape, 1), size - kernel)], -1)


def _fractional(x: np.ndarray, samples: np.ndarray, *, kernel: tuple[int, ...], size: tuple[int, ...]
                ) -> tuple[np.ndarray, np.ndarray]:
    lead, spatial, count = x.shape[:2], x.shape[2:], len(kernel)
    # PyTorch takes the samples of two dims in the order width, height; those of three in the order of the dims.
    order = (1, 0) if count == 2 else tuple(range(count))
    flat = x.reshape(*lead, prod(spatial))
    base = np.zeros((*lead, *(1,) * count), np.int64)
    for axis in range(count):
        starts = _fractional_starts(samples[..., order[axis]], spatial[axis], size[axis], kernel[axis])
        shape = (*lead, *(size[axis] if a == axis else 1 for a in range(count)))
        base = base + starts.reshape(shape) * prod(spatial[axis + 1 :])
    values = np.full(base.shape, -np.inf if x.dtype.kind in "fV" else identity_of("max", x.dtype), x.dtype)
    indices, missing = base.copy(), _has_nan(x)
    for tap in product(*(range(k) for k in kernel)):
        places = base + sum(k * prod(spatial[axis + 1 :]) for axis, k in enumerate(tap))
        found = np.take_along_axis(flat, places.reshape(*lead, prod(size)), 2).reshape(base.shape)
        _improve(values, indices, found, places, missing)
    return values, indices


def _fractional_meta(x: TensorMeta, samples: TensorMeta, *, kernel: tuple[int, ...], size: tuple[int, ...]
                     ) -> MetaResult:
    out = TensorMeta.of((*x.shape[:2], *size), x.dtype)
    return (out, out.with_dtype(dtypes.int64)), None


fractional_max_pool = Op(
    "fractional_max_pool", _fractional, meta=_fractional_meta, inputs="x samples", outputs="values indices",
    rows=lambda ins, outs, attrs: (Row((d, d), (d, d)) for d in (0, 1)),
    vjps=(lambda g, indices, x_shape, kernel: _to_maxima(g[0], indices, x_shape, len(kernel)), None),
)
"""Maxima over windows of (N, C, *S) whose starts follow from `samples` (N, C, dims); Graham, arXiv:1412.6071."""
