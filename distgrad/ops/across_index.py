"""Reading and writing at positions along a sharded axis: only the elements or rows asked for move.

Invariant: a request names places in its owner's block, so answers and values travel without positions. Writes to one
place are carried out in rank order, each rank's in the order of its elements, as one process would. An index outside
the axis is an error on all ranks, whoever held it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad.op import exchanging
from distgrad.ops.across import (
    Rounds,
    as_lines,
    block_sizes,
    from_lines,
    narrow_positions,
    offsets_of,
    owners,
    send,
    send_counted,
    split_by,
)

_REDUCTIONS = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


def _checked(index: np.ndarray, size: int, axis: int, wrap: bool, error: type[Exception]) -> tuple[Any, Any]:
    """Gives an index counted from the start and no error, or zeros and the error."""
    from distgrad.ops.indexing import index_range

    try:
        return index_range(index, size, axis=axis, wrap=wrap, error=error), None
    except (IndexError, RuntimeError) as found:
        return np.zeros_like(index), found


def _elements(index: np.ndarray, spec: Any, axis: int, wrap: bool) -> tuple[np.ndarray, np.ndarray, Any]:
    """Gives for each element of an index, taken as lines, who holds it, where in that block's lines, and an error."""
    shape = spec.shape
    places, error = _checked(as_lines(index, axis), shape[axis], axis, wrap, IndexError if wrap else RuntimeError)
    others = (*shape[:axis], *shape[axis + 1 :])
    reached = tuple(slice(n) for d, n in enumerate(index.shape) if d != axis)
    column = np.arange(prod(others)).reshape(others)[reached].reshape(-1)
    places = places.astype(np.int64, copy=False).reshape(-1)
    if error is not None and not shape[axis]:
        places = places[:0]
        return places, places, error
    holder = owners(spec, places)
    place = (places - np.asarray(offsets_of(spec))[holder]) * prod(others)
    place += np.tile(column, place.size // max(len(column), 1))
    return holder, place.astype(narrow_positions(max(block_sizes(spec)) * prod(others))), error


def take_along(context: Any, x: np.ndarray, index: np.ndarray, *, axis: int, wrap: bool = False) -> Rounds:
    """x at `index` along the sharded axis: ask the holders, who answer."""
    holder, place, error = _elements(index, context.ins[0], axis, wrap)
    asked, order = split_by(holder, (place,), context.world_size)
    wanted = yield from send(context, asked, error)
    flat = as_lines(x, axis).reshape(-1)
    answers = yield from send_counted(context, [(flat[w[0]],) for w in wanted], [len(a[0]) for a in asked])
    lines = np.empty(place.size, x.dtype)
    lines[order] = np.concatenate([a[0] for a in answers])
    return from_lines(lines.reshape(as_lines(index, axis).shape), index.shape, axis)


def _delivered(context: Any, index: np.ndarray, values: Any, spec: Any, axis: int, wrap: bool) -> Rounds:
    """Sends values to the holders of what the index names; gives each place and value that came, in order."""
    holder, place, error = _elements(index, spec, axis, wrap)
    given = (place,) if values is None else (place, as_lines(values, axis).reshape(-1)[: place.size])
    parts, _ = split_by(holder, given, context.world_size)
    came = yield from send(context, parts, error)
    return [np.concatenate([c[i] for c in came]) for i in range(len(given))]


def _block_lines(context: Any, axis: int) -> tuple[int, int]:
    shape = context.outs[0].local_shape(context.rank)
    return shape[axis], prod((*shape[:axis], *shape[axis + 1 :]))


def add_along(context: Any, g: np.ndarray, index: np.ndarray, *, shape: tuple[int, ...], axis: int, wrap: bool = False,
              sharded: int | None = None) -> Rounds:
    """Adds elements into zeros of `shape` on the workers that hold their places; halves add up in float32."""
    place, values = yield from _delivered(context, index, g, context.outs[0], axis, wrap)
    rows, columns = _block_lines(context, axis)
    wide = np.dtype(np.float32) if g.dtype == np.float16 or g.dtype.kind == "V" else g.dtype
    out = np.zeros(rows * columns, wide)
    np.add.at(out, place, values.astype(wide, copy=False))
    return from_lines(out.astype(g.dtype, copy=False).reshape(rows, columns), shape, axis)


def _written(context: Any, x: np.ndarray, index: np.ndarray, src: Any, axis: int, function: Any) -> Rounds:
    values = src if np.ndim(src) else None
    came = yield from _delivered(context, index, values, context.ins[0], axis, False)
    out = np.array(as_lines(x, axis)).reshape(-1)
    if function is not None:
        function.at(out, came[0], came[1])
    else:
        out[came[0]] = src if values is None else came[1]
    return from_lines(out.reshape(_block_lines(context, axis)), x.shape, axis)


@exchanging(stays=0)
def scatter(context: Any, x: np.ndarray, index: np.ndarray, src: Any, *, axis: int) -> Rounds:
    """Writes `src` (a number or the index's shape) where `take_along` would read; the last of several stays."""
    return (yield from _written(context, x, index, src, axis, None))


@exchanging(stays=0)
def reduce_along(context: Any, x: np.ndarray, index: np.ndarray, src: np.ndarray, *, axis: int, reduce: str) -> Rounds:
    """Reduces `src` into the places where `take_along` would read."""
    return (yield from _written(context, x, index, src, axis, _REDUCTIONS[reduce]))


# Whole rows -------------------------------------------------------------------------------------------------


def _rows(index: np.ndarray, spec: Any, axis: int, wrap: bool) -> tuple[np.ndarray, np.ndarray, Any]:
    """Gives for each row that an index names who holds it, its number in that block, and an error."""
    size = spec.shape[axis]
    places, error = _checked(index.reshape(-1), size, axis, wrap, IndexError)
    if error is not None and not size:
        places = places[:0]
    holder = owners(spec, places)
    return holder, (places - np.asarray(offsets_of(spec))[holder]).astype(narrow_positions(max(block_sizes(spec)))), error


def take_rows(context: Any, x: np.ndarray, index: np.ndarray, *, axis: int, wrap: bool = True) -> Rounds:
    """Rows of x at a sharded index."""
    holder, place, error = _rows(index, context.ins[0], axis, wrap)
    asked, order = split_by(holder, (place,), context.world_size)
    wanted = yield from send(context, asked, error)
    rows = np.moveaxis(x, axis, 0)
    answers = yield from send_counted(context, [(rows[w[0]],) for w in wanted], [len(a[0]) for a in asked])
    found = np.empty((place.size, *rows.shape[1:]), x.dtype)
    found[order] = np.concatenate([a[0] for a in answers])
    return np.moveaxis(found, 0, axis).reshape(context.outs[0].local_shape(context.rank))


def embedding(context: Any, weight: np.ndarray, index: np.ndarray, **attrs: Any) -> Rounds:
    """Rows of a sharded table at a sharded index."""
    return (yield from take_rows(context, weight, index, axis=0, wrap=False))


def _rows_first(g: np.ndarray, index_shape: Sequence[int], axis: int) -> np.ndarray:
    """Gives what `take_rows` gives for an index of that shape with all its rows in front."""
    shape = (*g.shape[:axis], prod(index_shape), *g.shape[axis + len(index_shape) :])
    return np.moveaxis(g.reshape(shape), axis, 0)


def add_rows(context: Any, g: np.ndarray, index: np.ndarray, *, shape: tuple[int, ...], axis: int, wrap: bool = True,
             sharded: int | None = None) -> Rounds:
    """Adds rows into zeros of `shape` on the workers that hold them."""
    from distgrad.ops.indexing import add_rows as op

    holder, place, error = _rows(index, context.outs[0], axis, wrap)
    parts, _ = split_by(holder, (place, _rows_first(g, index.shape, axis)[: place.size]), context.world_size)
    came = yield from send(context, parts, error)
    place, rows = (np.concatenate([c[i] for c in came]) for i in range(2))
    out = context.outs[0].local_shape(context.rank)
    return op.kernel(np.moveaxis(rows, 0, axis), place.astype(np.int64), shape=out, axis=axis)


@exchanging(stays=0)
def put_rows(context: Any, x: np.ndarray, index: np.ndarray, value: Any, *, axis: int, wrap: bool = True) -> Rounds:
    """Writes sharded rows, or one number, on the workers that hold what a sharded index names."""
    holder, place, error = _rows(index, context.ins[0], axis, wrap)
    given = (place, _rows_first(value, index.shape, axis)[: place.size]) if np.ndim(value) else (place,)
    parts, _ = split_by(holder, given, context.world_size)
    came = yield from send(context, parts, error)
    out = np.array(x)
    target = np.moveaxis(out, axis, 0)
    target[np.concatenate([c[0] for c in came])] = np.concatenate([c[1] for c in came]) if np.ndim(value) else value
    return out
