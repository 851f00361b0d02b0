"""Reductions along a sharded axis that no single part of each worker combines to: extremes with their places, softmax
and its relatives, standardizing.

Invariant: what moves has the size of the reduced tensor, once or twice per worker; parts are combined in rank order, so
every worker holds the same bits and the first of equal elements is the first of all rows.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from distgrad.families import reduced_shape
from distgrad.op import exchanging
from distgrad.ops.across import Rounds, block_sizes, offsets_of, to_all

_HALVES = ("float16", "bfloat16")


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.name in _HALVES else x


# Extremes with their places ---------------------------------------------------------------------------------


def _extreme(context: Any, x: np.ndarray, axis: int, choose: Any) -> Rounds:
    """Gives the extremes along the sharded axis and their positions, both with the axis kept."""
    shape = reduced_shape(x.shape, (axis,), True)
    if x.shape[axis]:
        place = np.expand_dims(choose(x, axis), axis)
        value = np.take_along_axis(x, place, axis)
        place = place + offsets_of(context.ins[0])[context.rank]
    else:
        place, value = np.zeros(shape, np.int64), np.zeros(shape, x.dtype)
    parts = yield from to_all(context, value, place)
    held = [part for part, size in zip(parts, block_sizes(context.ins[0])) if size]
    values, places = (np.concatenate([part[i] for part in held], axis) for i in range(2))
    if not values.size:
        return value, place
    best = np.expand_dims(choose(values, axis), axis)
    return np.take_along_axis(values, best, axis), np.take_along_axis(places, best, axis)


def _along(context: Any, x: np.ndarray, axis: int, keepdims: bool, choose: Any) -> Rounds:
    value, place = yield from _extreme(context, x, axis, choose)
    return (value, place) if keepdims else (value.squeeze(axis), place.squeeze(axis))


@exchanging(moves=0)
def max_along(context: Any, x: np.ndarray, *, axis: int, keepdims: bool) -> Rounds:
    """The largest element of all workers' rows and its first position; NaN wins."""
    return (yield from _along(context, x, axis, keepdims, np.argmax))


@exchanging(moves=0)
def min_along(context: Any, x: np.ndarray, *, axis: int, keepdims: bool) -> Rounds:
    """The smallest element of all workers' rows and its first position; NaN wins."""
    return (yield from _along(context, x, axis, keepdims, np.argmin))


@exchanging(moves=0)
def argmax(context: Any, x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> Rounds:
    """The first position of the largest element of all workers' rows."""
    return (yield from _along(context, x, axis[0], keepdims, np.argmax))[1]


@exchanging(moves=0)
def argmin(context: Any, x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> Rounds:
    """The first position of the smallest element of all workers' rows."""
    return (yield from _along(context, x, axis[0], keepdims, np.argmin))[1]


# Softmax and its relatives ----------------------------------------------------------------------------------


def _add_parts(context: Any, *arrays: np.ndarray) -> Rounds:
    """Adds every worker's arrays, in rank order."""
    parts = yield from to_all(context, *arrays)
    return [sum(part[i] for part in parts[1:]) + parts[0][i] for i in range(len(arrays))]


def _powers(context: Any, x: np.ndarray, axis: Any) -> Rounds:
    """Gives the maximum along the axes (as it is, and 0 where infinite) and the sum of exp(x - the latter)."""
    top = np.maximum.reduce(x.real, axis=axis, keepdims=True, initial=-np.inf)
    safe = np.where(np.isfinite(top), top, 0).astype(top.dtype)
    total = np.add.reduce(np.exp(x - safe), axis=axis, keepdims=True)
    parts = yield from to_all(context, top, total)
    highest = parts[0][0]
    for part in parts[1:]:
        highest = np.maximum(highest, part[0])
    safe = np.where(np.isfinite(highest), highest, 0).astype(top.dtype)
    # A worker that has nothing, or -inf alone, weighs exp(-inf) = 0.
    return highest, safe, sum(part[1] * np.exp(part[0] - safe) for part in parts)


@exchanging(moves=0)
def logsumexp(context: Any, x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> Rounds:
    """log(sum(exp(x))) over all workers' rows."""
    _, safe, total = yield from _powers(context, _wide(x), axis)
    y = np.asarray(np.log(total) + safe).astype(x.dtype, copy=False)
    shape = list(context.ins[0].shape)
    return y.reshape(reduced_shape(tuple(shape), axis, keepdims))


def _shifted(context: Any, x: np.ndarray, axis: int) -> Rounds:
    """Gives x less the maximum, and the sum of the exponentials; NaN where the maximum is not finite."""
    wide = _wide(x)
    highest, _, total = yield from _powers(context, wide, axis)
    return wide - highest, np.where(np.isfinite(highest), total, np.nan).astype(total.dtype)


@exchanging(moves=0)
def softmax(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """exp(x) over its sum along all workers' rows."""
    shifted, total = yield from _shifted(context, x, axis)
    return (np.exp(shifted) / total).astype(x.dtype, copy=False)


@exchanging(moves=0)
def log_softmax(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """x less the logarithm of the sum of exponentials along all workers' rows."""
    shifted, total = yield from _shifted(context, x, axis)
    return (shifted - np.log(total)).astype(x.dtype, copy=False)


@exchanging(moves=0)
def softmax_backward(context: Any, h: np.ndarray, out: np.ndarray, *, axis: int) -> Rounds:
    """out * (h - sum(h * out)) along all workers' rows."""
    kind, h, out = out.dtype, _wide(h), _wide(out)
    (total,) = yield from _add_parts(context, np.add.reduce(h * out, axis=axis, keepdims=True))
    return ((h - total) * out).astype(kind, copy=False)


@exchanging(moves=0)
def log_softmax_backward(context: Any, h: np.ndarray, out: np.ndarray, *, axis: int) -> Rounds:
    """h - exp(out) * sum(h) along all workers' rows."""
    kind, h = out.dtype, _wide(h)
    (total,) = yield from _add_parts(context, np.add.reduce(h, axis=axis, keepdims=True))
    return (h - np.exp(_wide(out)) * total).astype(kind, copy=False)


# Standardizing ----------------------------------------------------------------------------------------------


def _groups(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    return _wide(x.reshape(prod(x.shape[: axis[0]]), prod(x.shape[axis[0] :])))


def _standardized(context: Any, x: np.ndarray, axis: tuple[int, ...], eps: float, centered: bool) -> Rounds:
    rows = _groups(x, axis)
    count = rows.dtype.type(max(prod(context.ins[0].shape[axis[0] :]), 1))
    rest: Any = 0
    if centered:
        (total,) = yield from _add_parts(context, rows.sum(1, keepdims=True))
        rows = rows - total / count
        left, squares = yield from _add_parts(
            context, rows.sum(1, keepdims=True), np.square(rows).sum(1, keepdims=True)
        )
        rest = left / count  # what rounding the first mean left, when it is large
        rows -= rest
        variance = squares / count - rest * rest
    else:
        (squares,) = yield from _add_parts(context, np.square(rows).sum(1, keepdims=True))
        variance = squares / count
    rstd = 1 / np.sqrt(variance + rows.dtype.type(eps))
    y = (rows * rstd).astype(x.dtype, copy=False).reshape(x.shape)
    return y, rstd.reshape(context.outs[1].shape)


@exchanging(moves=0)
def standardize(context: Any, x: np.ndarray, *, axis: tuple[int, ...], eps: float) -> Rounds:
    """Mean 0 and deviation 1 over groups that are spread over the workers."""
    return (yield from _standardized(context, x, axis, eps, True))


@exchanging(moves=0)
def rms_standardize(context: Any, x: np.ndarray, *, axis: tuple[int, ...], eps: float) -> Rounds:
    """Root mean square 1 over groups that are spread over the workers."""
    return (yield from _standardized(context, x, axis, eps, False))


@exchanging(moves=0)
def standardize_backward(context: Any, v: np.ndarray, y: np.ndarray, rstd: np.ndarray, extra: Any, *,
                         axis: tuple[int, ...], centered: bool) -> Rounds:
    """rstd * (v - mean(v) - y * (mean(v * y) + extra)) over groups that are spread over the workers."""
    v_rows, y_rows = _groups(v, axis), _groups(y, axis)
    count = v_rows.dtype.type(max(prod(context.ins[0].shape[axis[0] :]), 1))
    sums = yield from _add_parts(context, (v_rows * y_rows).sum(1, keepdims=True), v_rows.sum(1, keepdims=True))
    slope = sums[0] / count + (extra.reshape(-1, 1) if isinstance(extra, np.ndarray) else v_rows.dtype.type(extra))
    result = v_rows - y_rows * slope
    if centered:
        result -= sums[1] / count
    return (result * rstd.reshape(-1, 1)).astype(v.dtype, copy=False).reshape(v.shape)
