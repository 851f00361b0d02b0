"""Ops about order: which positions hold the smallest, largest or most frequent elements.

Invariant: the ops here give positions (int64) and have no gradient; values are always read with `take_along`, whose
rule is their gradient. NaN counts as greater than every number, as in PyTorch; equal elements keep their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import other_dims_rows
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_blocks, across_select, across_sort
from distgrad.ops.indexing import add_along
from distgrad.ops.order import first_places, place_of_rank, sortable

FEW_COLUMNS = 16  # up to which lines are sorted across workers; more lines are rather given to one worker each
_MANY_ROWS = 4096


def _is_compiled(x: np.ndarray, axis: int) -> bool:
    return (x.size >= compiled.LEAST and x.dtype.char in "fdlqi" and x.dtype.isnative and compiled.enabled()
            and 64 * x.itemsize <= x.shape[axis] < 2**31)  # shorter lines cost more to count than to compare


def _compiled_sort(x: np.ndarray, axis: int, descending: bool, wants_values: bool) -> tuple[np.ndarray, np.ndarray]:
    from distgrad.kernels.sorting import sort_lines

    return sort_lines(x, axis, descending, wants_values)


def _argsort(x: np.ndarray, *, axis: int, descending: bool) -> np.ndarray:
    if x.ndim == 0:
        return np.zeros((), np.int64)
    x = sortable(x)
    if _is_compiled(x, axis):
        return _compiled_sort(x, axis, descending, False)[1]
    if not descending:
        return np.argsort(x, axis, kind="stable").astype(np.int64, copy=False)
    # Sorting the reversed row and reversing the result keeps equal elements in their order.
    order = np.argsort(np.flip(x, axis), axis, kind="stable")
    return (x.shape[axis] - 1) - np.flip(order, axis).astype(np.int64, copy=False)


def _no_complex(name: str, kind: dtypes.dtype) -> None:
    if kind.is_complex:
        raise RuntimeError(f"{name}: complex numbers have no order, got {kind.name}; sort .abs() or .real")


def _argsort_meta(x: TensorMeta, *, axis: int, descending: bool) -> MetaResult:
    _no_complex("sort", x.dtype)
    return (x.with_dtype(dtypes.int64),), None


def _order_rows(through: Callable[..., Any]) -> Callable[..., Iterable[Row]]:
    """Gives the rows of an op along `axis` that works across workers where other dims are short."""

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        if ins[0].ndim and ins[0].size <= FEW_COLUMNS * ins[0].shape[attrs["axis"]]:
            yield Row((attrs["axis"],), (attrs["axis"],) * len(outs), through=through)

    return rows


argsort = Op("argsort", _argsort, meta=_argsort_meta, inputs="x", rows=_order_rows(across_sort.argsort))
"""The positions along `axis` in rising (`descending`: falling) order of their elements; stable."""


def _sort(x: np.ndarray, *, axis: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    if x.ndim and _is_compiled(x, axis):
        return _compiled_sort(x, axis, descending, True)
    order = _argsort(x, axis=axis, descending=descending)
    return (np.take_along_axis(x, order, axis) if x.ndim else np.array(x)), order


def _sort_vjp(g: tuple[Any, Any], indices: Any, x_shape: tuple[int, ...], x_sharded: int | None, axis: int) -> Any:
    return add_along(g[0], indices, shape=x_shape, axis=axis, sharded=x_sharded)


_sorted = Op(
    "sort", _sort, inputs="x", outputs="values indices", rows=_order_rows(across_sort.sort), vjps=(_sort_vjp,),
    meta=lambda x, **attrs: ((x, _argsort_meta(x, **attrs)[0][0]), None),
)


def sort(x: Any, *, axis: int, descending: bool = False, stable: bool = True) -> tuple[Any, Any]:
    """Gives the sorted elements along `axis` and their positions; always stable."""
    return tuple(_sorted(x, axis=axis, descending=descending))


def _sort_values(x: np.ndarray, *, axis: int) -> np.ndarray:
    return np.sort(sortable(x), axis).astype(x.dtype, copy=False)


sorted_values = Op("sorted_values", _sort_values, inputs="x", rows=other_dims_rows,
                   meta=lambda x, *, axis: (_argsort_meta(x, axis=axis, descending=False) and (x,), None))
"""The elements along `axis` in rising order, for callers who need no positions and no gradient."""


def _ranked(x: np.ndarray, *, axis: int, ranks: tuple[int, ...]) -> np.ndarray:
    last = x.shape[axis] - 1
    parts = np.partition(x, sorted({*ranks, last}), axis)  # NaN is last
    out = parts.take(ranks, axis)
    missing = np.isnan(parts.take([last], axis))
    return np.where(missing, x.dtype.type(np.nan), out) if missing.any() else out


def _ranked_meta(x: TensorMeta, *, axis: int, ranks: tuple[int, ...]) -> MetaResult:
    return (TensorMeta.of((*x.shape[:axis], len(ranks), *x.shape[axis + 1 :]), x.dtype),), None


ranked = Op("ranked", _ranked, meta=_ranked_meta, inputs="x", rows=other_dims_rows)
"""The elements of floats that have `ranks` smaller ones before them along `axis`; NaN in lines that hold one."""


def long_lines(x: TensorMeta, axis: int) -> bool:
    """Says whether lines along an axis are long, or few: work across workers then beats cutting another dim."""
    rows = x.shape[axis] if x.ndim else 1
    return rows >= _MANY_ROWS or x.size <= FEW_COLUMNS * rows


def _selection(name: str, kernel: Callable[..., np.ndarray], through: Callable[..., Any]) -> Op:
    """Makes an op that gives `count` positions along `axis`, kept as a dim; `through` finds them in all workers' rows."""

    def run(x: np.ndarray, *, axis: int, count: int, **attrs: Any) -> np.ndarray:
        if x.ndim == 0:
            return np.zeros((), np.int64)
        return np.asarray(kernel(sortable(x), axis, count, **attrs), np.int64)

    def meta(x: TensorMeta, *, axis: int, count: int, **attrs: Any) -> MetaResult:
        _no_complex(name, x.dtype)
        if x.ndim == 0:
            return (x.with_dtype(dtypes.int64),), None
        return (TensorMeta.of((*x.shape[:axis], count, *x.shape[axis + 1 :]), dtypes.int64),), None

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        if ins[0].ndim and long_lines(ins[0], attrs["axis"]):
            yield Row((attrs["axis"],), (None,), through=through)

    return Op(name, run, meta=meta, inputs="x", rows=rows)


def _topk(x: np.ndarray, axis: int, count: int, *, largest: bool) -> np.ndarray:
    return first_places(x, axis, count, descending=largest)


def _kth(x: np.ndarray, axis: int, count: int, *, rank: int) -> np.ndarray:
    if not x.size:
        return np.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), np.int64)
    return np.expand_dims(place_of_rank(x, axis, rank), axis)


def _mode(x: np.ndarray, axis: int, count: int) -> np.ndarray:
    """The last position of the smallest most frequent element of each row."""
    if not x.size:
        return np.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), np.int64)
    order = np.moveaxis(_argsort(x, axis=axis, descending=False), axis, -1)
    ranked = np.take_along_axis(np.moveaxis(x, axis, -1), order, -1)
    size = ranked.shape[-1]
    starts = np.ones(ranked.shape, bool)
    starts[..., 1:] = ranked[..., 1:] != ranked[..., :-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(size), 0), -1)
    run = np.arange(size) - first  # how many equal elements stand before this one
    last = run.argmax(-1)[..., None]  # the first longest run belongs to the smallest element
    return np.moveaxis(np.take_along_axis(order, last, -1), -1, axis)


topk_index = _selection("topk", _topk, across_select.topk_index)
kth_index = _selection("kthvalue", _kth, across_select.kth_index)
mode_index = _selection("mode", _mode, across_select.mode_index)


# Places in sorted sequences ---------------------------------------------------------------------------------


def _searchsorted(sequence: np.ndarray, values: Any, *, right: bool, dtype: str) -> np.ndarray:
    side: Any = "right" if right else "left"
    kind = dtypes.named(dtype).numpy
    sequence, values = sortable(sequence), sortable(np.asarray(values))
    if sequence.ndim == 1:
        return np.asarray(np.searchsorted(sequence, values, side)).astype(kind)
    out = np.empty(values.shape, kind)
    for place in np.ndindex(sequence.shape[:-1]):
        out[place] = np.searchsorted(sequence[place], values[place], side)
    return out


def _searchsorted_meta(sequence: TensorMeta, values: Any, *, right: bool, dtype: str) -> MetaResult:
    shape = () if isinstance(values, type) else values.shape
    if sequence.ndim != 1 and (sequence.ndim == 0 or sequence.shape[:-1] != shape[:-1] or len(shape) != sequence.ndim):
        raise RuntimeError(
            "searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of boundaries tensor "
            f"and input value tensor must match, but we got boundaries tensor {list(sequence.shape)} and input value "
            f"tensor {list(shape)}"
        )
    return (TensorMeta.of(shape, dtypes.named(dtype)),), None


def _searchsorted_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    shared = ins[0].ndim > 1
    for dim in range(outs[0].ndim):
        if not shared:
            yield Row((None, dim), (dim,))
            yield Row((0, dim), (dim,), through=across_blocks.searchsorted)
        elif dim < outs[0].ndim - 1:
            yield Row((dim, dim), (dim,))
        else:
            yield Row((None, dim), (dim,))
    # What is smaller than a value is counted by every worker for itself.
    yield Row((ins[0].ndim - 1, None), ("sum",))


searchsorted = Op(
    "searchsorted", _searchsorted, meta=_searchsorted_meta, inputs="sequence values", rows=_searchsorted_rows
)
"""Where `values` would go in a sorted `sequence` (last dim) to keep it sorted; `dtype` "int64" or "int32"."""
