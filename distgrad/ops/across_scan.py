"""Scans along a sharded axis: every worker scans its own rows after what all rows before them come to.

Invariant: one row per worker moves. What comes before is combined in rank order and enters the scan as a row of its
own, so overflow, infinities and NaN spread as in one scan over all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.op import exchanging, op_named
from distgrad.ops.across import Rounds, block_sizes, from_below, offsets_of

_WIDER = {"float16": np.float32, "bfloat16": np.float32, "float32": np.float64, "complex64": np.complex128}


def _entering(context: Any, backward: bool, *totals: np.ndarray) -> Rounds:
    """Gives what the blocks that a scan has passed before this one come to, in the scan's order."""
    found = yield from from_below(context, *totals, above=backward)
    sizes = block_sizes(context.ins[0])
    ranks = range(context.world_size - 1, context.rank, -1) if backward else range(context.rank)
    return [part for part, rank in zip(reversed(found) if backward else found, ranks) if sizes[rank]]


def _scan(context: Any, x: np.ndarray, axis: int, function: Any, backward: bool = False) -> Rounds:
    rows = np.moveaxis(x, axis, 0).astype(_WIDER.get(x.dtype.name, x.dtype))
    if backward:
        rows = rows[::-1]
    total = function.reduce(rows, axis=0) if len(rows) else np.zeros(rows.shape[1:], rows.dtype)
    passed = yield from _entering(context, backward, np.asarray(total))
    carry = None
    for (found,) in passed:
        carry = found if carry is None else function(carry, found)
    if len(rows):
        if carry is not None:
            rows[0] = function(carry, rows[0])
        rows = function.accumulate(rows, axis=0)
    if backward:
        rows = rows[::-1]
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


@exchanging(moves=0)
def cumsum(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running sums over all workers' rows."""
    return (yield from _scan(context, x, axis, np.add))


@exchanging(moves=0)
def reverse_cumsum(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running sums over all workers' rows from the end."""
    return (yield from _scan(context, x, axis, np.add, True))


@exchanging(moves=0)
def cumprod(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running products over all workers' rows."""
    return (yield from _scan(context, x, axis, np.multiply))


@exchanging(moves=0)
def logcumsumexp(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running log-sum-exps over all workers' rows."""
    from distgrad.ops.elementwise import logaddexp_array

    function: Any = np.logaddexp if x.dtype.kind != "c" else _ComplexLogaddexp(logaddexp_array)
    return (yield from _scan(context, x, axis, function))


def _linear_scan(context: Any, a: np.ndarray, b: np.ndarray, axis: int, backward: bool) -> Rounds:
    local = op_named("linear_scan").kernel
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    if backward:
        a, b = a[::-1], b[::-1]
    b = np.array(b)
    slope, last = np.ones(b.shape[1:], b.dtype), np.zeros(b.shape[1:], b.dtype)
    if len(b):
        slope, last = np.multiply.reduce(a, axis=0), local(a, b, axis=0)[-1]
    passed = yield from _entering(context, backward, np.asarray(slope), np.asarray(last))
    carry = None
    for factor, term in passed:
        carry = term if carry is None else factor * carry + term
    if carry is not None and len(b):
        b[0] += a[0] * carry
    found = local(a, b, axis=0)
    return np.moveaxis(found[::-1] if backward else found, 0, axis)


@exchanging(moves=0)
def linear_scan(context: Any, a: np.ndarray, b: np.ndarray, *, axis: int) -> Rounds:
    """h[i] = a[i] h[i - 1] + b[i] over all workers' rows: a block maps what enters it linearly to what leaves it."""
    return (yield from _linear_scan(context, a, b, axis, False))


@exchanging(moves=0)
def reverse_linear_scan(context: Any, a: np.ndarray, b: np.ndarray, *, axis: int) -> Rounds:
    """h[i] = a[i] h[i + 1] + b[i] over all workers' rows."""
    return (yield from _linear_scan(context, a, b, axis, True))


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
    passed = yield from _entering(context, False, np.asarray(total), np.asarray(place))
    carry = where = None
    for value, position in passed:
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


@exchanging(moves=0)
def cummax(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running maxima over all workers' rows, and their positions."""
    return (yield from _running(context, x, axis, np.maximum))


@exchanging(moves=0)
def cummin(context: Any, x: np.ndarray, *, axis: int) -> Rounds:
    """Running minima over all workers' rows, and their positions."""
    return (yield from _running(context, x, axis, np.minimum))
