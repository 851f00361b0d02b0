"""Scans along a sharded axis: every worker scans its own rows after what all rows before them come to.

Invariant: one row per worker moves. What comes before is combined in rank order and enters the scan as a row of its
own, so overflow, infinities and NaN spread as in one scan over all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.ops.across import Rounds, block_sizes, from_below, offsets_of

_WIDER = {"float16": np.float32, "bfloat16": np.float32, "float32": np.float64, "complex64": np.complex128}


def _sizes_below(context: Any) -> list[int]:
    return block_sizes(context.ins[0])[: context.rank]


def _scan(context: Any, x: np.ndarray, axis: int, function: Any) -> Rounds:
    rows = np.moveaxis(x, axis, 0).astype(_WIDER.get(x.dtype.name, x.dtype))
    total = function.reduce(rows, axis=0) if len(rows) else np.zeros(rows.shape[1:], rows.dtype)
    below = yield from from_below(context, np.asarray(total))
    carry = None
    for (found,), size in zip(below, _sizes_below(context)):
        if size:
            carry = found if carry is None else function(carry, found)
    if len(rows):
        if carry is not None:
            rows[0] = function(carry, rows[0])
        rows = function.accumulate(rows, axis=0)
    return np.moveaxis(rows.astype(x.dtype, copy=False), 0, axis)


class _ComplexLogaddexp:
    """log(exp(a) + exp(b)) of complex numbers, with the ufunc methods a scan needs."""

    def __init__(self, add: Any) -> None:
        self.add = add

    def __call__(self, a: Any, b: Any) -> Any:
        return self.add(a, b)

    def accumulate(self, rows: np.ndarray, axis: int) -> np.ndarray:
        out = np.array(rows)
        for i in range(1, len(out)):
            out[i] = self.add(out[i - 1], out[i])
        return out

    def reduce(self, rows: np.ndarray, axis: int) -> np.ndarray:
        return self.accumulate(rows, axis)[-1]


def cumsum(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running sums over all workers' rows."""
    return (yield from _scan(context, x, axis, np.add))


def cumprod(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running products over all workers' rows."""
    return (yield from _scan(context, x, axis, np.multiply))


def logcumsumexp(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running log-sum-exps over all workers' rows."""
    from distgrad.ops.elementwise import logaddexp_array

    function: Any = np.logaddexp if x.dtype.kind != "c" else _ComplexLogaddexp(logaddexp_array)
    return (yield from _scan(context, x, axis, function))


def linear_scan(context: Any, a: np.ndarray, b: np.ndarray, *, axis: int) -> Rounds:
    """h[i] = a[i] h[i - 1] + b[i] over all workers' rows: a block maps what enters it linearly to what leaves it."""
    from distgrad.op import op_named

    local = op_named("linear_scan").kernel
    a, b = np.moveaxis(a, axis, 0), np.array(np.moveaxis(b, axis, 0))
    shape = b.shape[1:]
    slope, last = np.ones(shape, b.dtype), np.zeros(shape, b.dtype)
    if len(b):
        slope, last = np.multiply.reduce(a, axis=0), local(a, b, axis=0)[-1]
    below = yield from from_below(context, np.asarray(slope), np.asarray(last))
    carry = None
    for (factor, term), size in zip(below, _sizes_below(context)):
        if size:
            carry = term if carry is None else factor * carry + term
    if carry is not None and len(b):
        b[0] += a[0] * carry
    return np.moveaxis(local(a, b, axis=0), 0, axis)


def _running(context: Any, x: np.ndarray, axis: int, function: Any) -> Rounds:
    """Running extremes and the last position of each; NaN wins, and of several NaN the last."""
    rows = np.moveaxis(x, axis, 0)
    first = offsets_of(context.ins[0])[context.rank]
    shape = rows.shape[1:]
    places = np.arange(first, first + len(rows)).reshape(-1, *(1,) * len(shape))
    total, place = np.zeros(shape, x.dtype), np.zeros(shape, np.int64)
    if len(rows):
        total = function.reduce(rows, axis=0)
        place = np.maximum.reduce(np.where((rows == total) | np.isnan(rows), places, 0), axis=0)
    below = yield from from_below(context, np.asarray(total), np.asarray(place))
    carry = where = None
    for (value, position), size in zip(below, _sizes_below(context)):
        if not size:
            continue
        if carry is None or where is None:
            carry, where = value, position
            continue
        newer = function(carry, value)
        later = np.isnan(value) | ((newer == value) & ~np.isnan(carry))
        carry, where = newer, np.where(later, position, where)
    if not len(rows):
        return x.copy(), np.zeros(x.shape, np.int64)
    if carry is None or where is None:
        values, entering = function.accumulate(rows, axis=0), np.zeros(shape, np.int64)
    else:
        values, entering = function.accumulate(np.concatenate([carry[None], rows]), axis=0)[1:], where
    found = np.where((rows == values) | np.isnan(rows), places, 0)
    found[0] = np.maximum(found[0], entering)
    found = np.maximum.accumulate(found, axis=0)
    return np.moveaxis(values, 0, axis), np.moveaxis(found, 0, axis)


def cummax(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running maxima over all workers' rows, and their positions."""
    return (yield from _running(context, x, axis, np.maximum))


def cummin(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running minima over all workers' rows, and their positions."""
    return (yield from _running(context, x, axis, np.minimum))
