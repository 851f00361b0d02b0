"""Movement across the rows of all workers: reshaping, padding, slices, diagonals and windows of a sharded axis.

Invariant: only elements whose owner changes move, once; both sides know from the specs alone which those are, and they
travel in the order they have in the flattened tensor.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from distgrad.op import exchanging, op_named
from distgrad.ops.across import Rounds, offsets_of, send_counted

Bounds = list[tuple[int, int]]


def rows_inside(start: int, step: int, size: int, first: int, rows: int) -> tuple[int, int, slice]:
    """Gives which of the positions start, start + step, ... (`size` of them) lie in [first, first + rows).

    The answer is their range [low, high) and the slice, counted from `first`, that they make.
    """
    low = min(max(-((start - first) // step), 0), size)
    high = min(max(-((start - first - rows) // step), low), size)
    begin = start + low * step - first
    return low, high, slice(begin, begin + (high - low) * step, step) if high > low else slice(0, 0)


def write_diagonal(out: np.ndarray, new: np.ndarray, offset: int, axis1: int, axis2: int) -> np.ndarray:
    """Writes a diagonal (its elements along the last dim) into an array, in place, and gives it."""
    diagonal = out.diagonal(offset, axis1, axis2)
    diagonal.setflags(write=True)  # it is one of `out`, which is the caller's own
    diagonal[...] = new
    return out


def _between(offsets: tuple[int, ...]) -> Bounds:
    return list(pairwise(offsets))


def _fetch(context: Any, rows: np.ndarray, source: Bounds, wanted: Bounds) -> Rounds:
    """Gives rows [low, high) of `wanted[rank]`, where rank r has the rows `source[r]` (along axis 0); both rise."""
    rank = context.rank

    def overlap(giver: int, taker: int) -> tuple[int, int]:
        low = max(source[giver][0], wanted[taker][0])
        return low, max(low, min(source[giver][1], wanted[taker][1]))

    parts, counts = [], []
    for peer in range(context.world_size):
        low, high = overlap(rank, peer)
        first = source[rank][0] if high > low else low
        parts.append((rows[low - first : high - first],))
        low, high = overlap(peer, rank)
        counts.append(high - low)
    came = yield from send_counted(context, parts, counts)
    return np.concatenate([part[0] for part in came])


def _move(context: Any, rows: np.ndarray, source: tuple[int, ...], target: tuple[int, ...]) -> Rounds:
    """Moves rows (along axis 0) from blocks at one tuple of offsets to blocks at another."""
    return (yield from _fetch(context, rows, _between(source), _between(target)))


# Reshaping --------------------------------------------------------------------------------------------------


def _flat_places(spec: Any, rank: int) -> np.ndarray:
    """Gives where a rank's elements stand in the flattened tensor, in rising order."""
    shape, dim = spec.shape, spec.placement.dim
    inner = prod(shape[dim + 1 :])
    start, stop = spec.placement.block(rank)
    outer = np.arange(prod(shape[:dim])) * (shape[dim] * inner)
    return (outer[:, None] + np.arange(start * inner, stop * inner)).reshape(-1)


def _holders(spec: Any, places: np.ndarray) -> np.ndarray:
    """Gives the ranks that hold elements of the flattened tensor."""
    shape, dim = spec.shape, spec.placement.dim
    table = np.repeat(np.arange(len(offsets_of(spec)) - 1), np.diff(offsets_of(spec)))
    return table[places // prod(shape[dim + 1 :]) % shape[dim]]


def _leads(spec: Any) -> bool:
    """Says whether a rank's elements are one run of the flattened tensor."""
    return prod(spec.shape[: spec.placement.dim]) == 1


def reshape(context: Any, x: np.ndarray, *, shape: tuple[int, ...]) -> Rounds:
    """The same elements in another shape, cut along any dim."""
    before, after = context.ins[0], context.outs[0]
    if _leads(before) and _leads(after):
        steps = [prod(s.shape[s.placement.dim + 1 :]) for s in (before, after)]
        source, target = (tuple(o * n for o in offsets_of(s)) for s, n in zip((before, after), steps))
        found = yield from _move(context, x.reshape(-1), source, target)
        return found.reshape(after.local_shape(context.rank))
    flat, world_size = x.reshape(-1), context.world_size
    takers = _holders(after, _flat_places(before, context.rank))
    givers = _holders(before, _flat_places(after, context.rank))
    came = yield from send_counted(
        context, [(flat[takers == d],) for d in range(world_size)],
        np.bincount(givers, minlength=world_size).tolist(),
    )
    out = np.empty(len(givers), x.dtype)
    for giver, part in enumerate(came):
        out[givers == giver] = part[0]
    return out.reshape(after.local_shape(context.rank))


def widest_dim(shape: tuple[int, ...]) -> int:
    """Gives the dim that a tensor is best cut along: the first of many rows, or else the longest."""
    many = [d for d, n in enumerate(shape) if n >= 64]
    return many[0] if many else max(range(len(shape)), key=lambda d: shape[d])


# Slices -----------------------------------------------------------------------------------------------------


def _clipped(offsets: tuple[int, ...], shift: int, rows: int) -> tuple[int, ...]:
    """Gives offsets moved back by `shift` and cut off at 0 and `rows`, which they span."""
    return (0, *(min(max(o - shift, 0), rows) for o in offsets[1:-1]), rows)


@exchanging(moves=0.25)
def slice_rows(context: Any, x: np.ndarray, start: int, *, axis: int, size: int, step: int) -> Rounds:
    """Every `step`-th row from `start`, `size` in all."""
    offsets, rank = offsets_of(context.ins[0]), context.rank
    held = [rows_inside(start, step, size, a, b - a) for a, b in pairwise(offsets)]
    own = np.moveaxis(x, axis, 0)[held[rank][2]]
    moved = yield from _fetch(context, own, [h[:2] for h in held], _between(offsets_of(context.outs[0])))
    return np.moveaxis(moved, 0, axis)


@exchanging(moves=0.25)
def embed(context: Any, g: np.ndarray, start: int, *, axis: int, step: int, **attrs: Any) -> Rounds:
    """Zeros with the rows of g at every `step`-th position from `start`."""
    zeros = np.zeros(context.outs[0].local_shape(context.rank), g.dtype)
    return (yield from _scattered(context, zeros, g, context.ins[0], start, axis, step))


def flip(context: Any, x: np.ndarray, *, axis: tuple[int, ...]) -> Rounds:
    """All workers' rows in reverse order, and the other axes as well."""
    dim, size = context.ins[0].placement.dim, context.ins[0].shape[context.ins[0].placement.dim]
    wanted = [(size - b, size - a) for a, b in pairwise(offsets_of(context.outs[0]))]
    moved = yield from _fetch(context, np.moveaxis(x, dim, 0), _between(offsets_of(context.ins[0])), wanted)
    return np.flip(np.moveaxis(moved, 0, dim), axis)


@exchanging(moves=0.25)
def roll(context: Any, x: np.ndarray, shift: int, *, axis: int) -> Rounds:
    """All workers' rows moved on by `shift`, the last ones to the front."""
    size, rows = context.ins[0].shape[axis], np.moveaxis(x, axis, 0)
    source, blocks = _between(offsets_of(context.ins[0])), _between(offsets_of(context.outs[0]))
    shift = int(shift) % max(size, 1)
    front = yield from _fetch(context, rows, source, [(min(a, shift) + size - shift, min(b, shift) + size - shift)
                                                     for a, b in blocks])
    rest = yield from _fetch(context, rows, source, [(max(a, shift) - shift, max(b, shift) - shift)
                                                     for a, b in blocks])
    return np.moveaxis(np.concatenate([front, rest]), 0, axis)


@exchanging(moves=0.25)
def concat(context: Any, *xs: np.ndarray, axis: int) -> Rounds:
    """The rows of several sharded tensors one after the other."""
    target, pieces, before = offsets_of(context.outs[0]), [], 0
    for spec, x in zip(context.ins, xs):
        rows = spec.shape[axis]
        cuts = tuple(min(max(offset - before, 0), rows) for offset in target)
        pieces.append((yield from _move(context, np.moveaxis(x, axis, 0), offsets_of(spec), cuts)))
        before += rows
    return np.moveaxis(np.concatenate(pieces), 0, axis)


@exchanging(moves=0.25)
def pad(context: Any, x: np.ndarray, value: Any, *, widths: tuple[tuple[int, int], ...]) -> Rounds:
    """Constants before and after the rows of all workers, and of the other dims."""

    spec, rank = context.outs[0], context.rank
    dim, (start, stop) = spec.placement.dim, spec.placement.block(rank)
    before, rows = widths[dim][0], context.ins[0].shape[dim]
    target = _clipped(offsets_of(spec), before, rows)
    moved = yield from _move(context, np.moveaxis(x, dim, 0), offsets_of(context.ins[0]), target)
    missing = max(min(before, stop) - start, 0)
    own = (missing, stop - start - missing - len(moved))
    return op_named("pad").kernel(np.moveaxis(moved, 0, dim), value, widths=(*widths[:dim], own, *widths[dim + 1 :]))


def _scattered(context: Any, out: np.ndarray, new: np.ndarray, spec: Any, start: int, axis: int, step: int) -> Rounds:
    offsets, rank = offsets_of(context.outs[0]), context.rank
    held = [rows_inside(start, step, spec.shape[axis], a, b - a) for a, b in pairwise(offsets)]
    moved = yield from _fetch(context, np.moveaxis(new, axis, 0), _between(offsets_of(spec)), [h[:2] for h in held])
    np.moveaxis(out, axis, 0)[held[rank][2]] = moved
    return out


@exchanging(stays=0)
def slice_scatter(context: Any, base: np.ndarray, new: np.ndarray, start: int, *, axis: int, step: int) -> Rounds:
    """The base with sharded rows written at every `step`-th position from `start`."""
    return (yield from _scattered(context, np.array(base), new, context.ins[1], start, axis, step))


# Diagonals --------------------------------------------------------------------------------------------------


def _diagonal_cuts(spec: Any, length: int, offset: int, axis1: int) -> tuple[int, ...]:
    """Gives where the diagonal of a matrix is cut whose rows (or columns) are sharded."""
    first = max(-offset, 0) if spec.placement.dim == axis1 else max(offset, 0)
    return _clipped(offsets_of(spec), first, length)


def _own_offset(spec: Any, rank: int, offset: int, axis1: int) -> int:
    """Gives which diagonal of a rank's block is its part of the whole one."""
    start = spec.placement.block(rank)[0]
    return offset + start if spec.placement.dim == axis1 else offset - start


@exchanging(moves=0.25)
def diagonal(context: Any, x: np.ndarray, *, offset: int, axis1: int, axis2: int) -> Rounds:
    """The diagonal of a matrix whose rows or columns are sharded, sharded itself."""
    spec, out = context.ins[0], context.outs[0]
    own = np.diagonal(x, _own_offset(spec, context.rank, offset, axis1), axis1, axis2)
    cuts = _diagonal_cuts(spec, out.shape[-1], offset, axis1)
    moved = yield from _move(context, np.moveaxis(own, -1, 0), cuts, offsets_of(out))
    return np.moveaxis(moved, 0, -1)


@exchanging(moves=0.25)
def embed_diagonal(context: Any, x: np.ndarray, *, shape: tuple[int, ...], offset: int, axis1: int, axis2: int,
                   **attrs: Any) -> Rounds:
    """Zeros with a sharded diagonal, on the workers that hold its rows or columns."""

    spec, rank = context.outs[0], context.rank
    cuts = _diagonal_cuts(spec, context.ins[0].shape[-1], offset, axis1)
    moved = yield from _move(context, np.moveaxis(x, -1, 0), offsets_of(context.ins[0]), cuts)
    own = _own_offset(spec, rank, offset, axis1)
    return write_diagonal(np.zeros(spec.local_shape(rank), x.dtype), np.moveaxis(moved, 0, -1), own, axis1, axis2)


# Windows ----------------------------------------------------------------------------------------------------


def _reach(spec: Any, rank: int, axis: int, size: int, step: int) -> tuple[int, int]:
    """Gives the rows that a rank's windows reach."""
    start, stop = spec.placement.block(rank)
    return (start * step, (stop - 1) * step + size) if stop > start else (0, 0)


@exchanging(moves=0.25)
def unfold(context: Any, x: np.ndarray, *, axis: int, size: int, step: int) -> Rounds:
    """Windows of all workers' rows: a window belongs to one worker, which gets the rows it lacks."""

    reach = [_reach(context.outs[0], r, axis, size, step) for r in range(context.world_size)]
    source = _between(offsets_of(context.ins[0]))
    rows = yield from _fetch(context, np.moveaxis(x, axis, 0), source, reach)
    if not len(rows):
        return np.empty(context.outs[0].local_shape(context.rank), x.dtype)
    return op_named("unfold").kernel(np.moveaxis(rows, 0, axis), axis=axis, size=size, step=step)


@exchanging(moves=0.25)
def fold_windows(context: Any, x: np.ndarray, *, shape: tuple[int, ...], axis: int, step: int, **attrs: Any) -> Rounds:
    """Adds windows into zeros of `shape`: each worker its own, then those rows that are another's to the owner."""

    spec, rank, size = context.outs[0], context.rank, context.ins[0].shape[-1]
    offsets = offsets_of(spec)
    reach = [_reach(context.ins[0], r, axis, size, step) for r in range(context.world_size)]
    low, high = reach[rank]
    summed = op_named("fold_windows").kernel(
        x, shape=(*shape[:axis], high - low, *shape[axis + 1 :]), axis=axis, step=step)
    partial = np.moveaxis(summed, axis, 0)

    def overlap(giver: int, taker: int) -> tuple[int, int]:
        first = max(reach[giver][0], offsets[taker])
        return first, max(first, min(reach[giver][1], offsets[taker + 1]))

    parts, counts = [], []
    for peer in range(context.world_size):
        first, last = overlap(rank, peer)
        parts.append((partial[first - low : last - low] if last > first else partial[:0],))
        first, last = overlap(peer, rank)
        counts.append(last - first)
    came = yield from send_counted(context, parts, counts)
    out = np.zeros(spec.local_shape(rank), x.dtype)
    target = np.moveaxis(out, axis, 0)
    for giver, part in enumerate(came):
        first, last = overlap(giver, rank)
        if last > first:
            target[first - offsets[rank] : last - offsets[rank]] += part[0]
    return out
