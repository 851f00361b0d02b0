"""Ops that read and write elements at positions given by integer tensors.

Invariant: they come in pairs that are each other's transpose, `take_rows` with `add_rows` and `take_along` with
`add_along`, so one gradient rule is always the other op. An index outside the dimension is an error that names the
index and the size, never a wrong element; shapes depend on shapes alone, never on values.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import elementwise_rows
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_index
from distgrad.ops.across import sharded_dim
from distgrad.ops.creation import full
from distgrad.ops.elementwise import keep
from distgrad.ops.movement import parts_rows, reshape
from distgrad.placement import Shard, Spec

_SPARSE_FROM = 4096  # elements from which a sparse product adds rows faster than numpy's add.at (measured)

Shape = tuple[int, ...]
Window = tuple[int, int, int] | None


def index_range(
    index: np.ndarray, size: int, *, axis: int, wrap: bool, error: type[Exception] = IndexError
) -> np.ndarray:
    """Gives an index with negative positions counted from the end; raises for one outside the dimension."""
    if not index.size:
        return index
    # As unsigned numbers, negative positions are larger than any size: one pass says that all are in range.
    plain = index.dtype == np.int64 and index.flags.c_contiguous
    if plain and _largest(index.reshape(-1).view(np.uint64)) < size:
        return index
    low, high = index.min(), index.max()
    if high >= size or low < (-size if wrap else 0):
        wrong = int(high if high >= size else low)
        raise error(f"index {wrong} is out of bounds for dimension {axis} with size {size}")
    return np.where(index < 0, index + size, index) if low < 0 else index


_largest = np.maximum.reduce


def check_index(name: str, index: TensorMeta) -> None:
    """Raises IndexError unless an index tensor is of integers."""
    if index.dtype.category != 1:
        raise IndexError(f"{name}: index must be a tensor of int64, got {index.dtype.name}; convert it with .long()")


def _wide(kind: np.dtype) -> bool:
    """Says whether sums of this dtype are taken in float32: the halves."""
    return kind == np.float16 or kind.kind == "V"


# Whole rows along one axis ----------------------------------------------------------------------------------


def _rows_window(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    """Names the rows a rank holds when `x` is sharded along the indexed axis: (start, stop, size)."""
    placement, axis = ins[0].placement, attrs["axis"]
    if not isinstance(placement, Shard) or placement.dim != axis:
        return attrs
    return {**attrs, "window": (*placement.block(rank), ins[0].shape[axis])}


def _take_rows(x: np.ndarray, index: np.ndarray, *, axis: int, wrap: bool = True, window: Window = None) -> np.ndarray:
    if window is None:
        try:
            return x.take(index if wrap else index_range(index, x.shape[axis], axis=axis, wrap=wrap), axis)
        except IndexError:  # numpy looks at the range itself, and counts from the end
            index_range(index, x.shape[axis], axis=axis, wrap=wrap)
            raise
    start, stop, size = window  # a single row of a sharded dim: whoever holds it gives it, the others add zeros
    row = int(index_range(index, size, axis=axis, wrap=wrap))
    if start <= row < stop:
        return np.take(x, row - start, axis)
    return np.zeros((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)


def _taken_shape(x: Shape, index: Shape, axis: int) -> Shape:
    return (*x[:axis], *index, *x[axis + 1 :])


def _take_rows_meta(x: TensorMeta, index: TensorMeta, *, axis: int, wrap: bool = True) -> MetaResult:
    check_index("take_rows", index)
    if x.shape[axis] == 0 and index.size:
        raise IndexError(f"index is out of bounds for dimension {axis} with size 0")
    return (TensorMeta.of(_taken_shape(x.shape, index.shape, axis), x.dtype),), None


def _take_rows_through(
    context: Any, x: np.ndarray, index: np.ndarray, *, axis: int, wrap: bool = True
) -> Generator[Any, Any, np.ndarray]:
    from distgrad.runtime.taking import take_rows as exchange

    flat = index_range(index.reshape(-1), context.ins[0].shape[axis], axis=axis, wrap=wrap)
    per_row = prod(index.shape[1:])
    cuts = tuple(o * per_row for o in context.outs[0].placement.offsets)
    rows = yield from exchange(
        context.rank, context.world_size, np.moveaxis(x, axis, 0), context.ins[0].placement.offsets, flat, cuts
    )
    return np.moveaxis(rows, 0, axis).reshape(context.outs[0].local_shape(context.rank))


def _take_rows_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    x, index = ins
    axis = attrs["axis"]
    for dim in range(x.ndim):
        if dim != axis:
            yield Row((dim, None), (dim if dim < axis else dim - 1 + index.ndim,))
    for dim in range(index.ndim):
        yield Row((None, dim), (axis + dim,))
    if index.ndim:
        yield Row((axis, None), (axis,), through=_take_rows_through)
        yield Row((axis, 0), (axis,), through=across_index.take_rows)
    else:
        yield Row((axis, None), ("sum",))
    for row in parts_rows(ins[:1]):
        yield Row((*row.ins, None), row.outs)


def _plain(index: np.ndarray) -> bool:
    """Says whether a compiled kernel takes this index."""
    return index.dtype == np.int64 and index.flags.carray


def _sum_rows(g: np.ndarray, index: np.ndarray, rows: int) -> np.ndarray:
    """Adds rows g[i] of an (N, D) array into row index[i] of zeros (rows, D), in the order of i."""
    count, width = g.shape
    if _wide(g.dtype):
        return _sum_rows(g.astype(np.float32), index, rows).astype(g.dtype)
    if g.size >= compiled.LEAST and _plain(index) and compiled.fits(g):
        from distgrad.kernels import rows as fused_rows

        return fused_rows.add_rows(g, index, rows)
    if count * width >= _SPARSE_FROM and g.dtype.kind in "iufc":
        from scipy.sparse import csc_array

        # Column i of this matrix is the unit vector of index[i]; its product adds the rows in order.
        places = csc_array((np.ones(count, g.dtype), index, np.arange(count + 1)), shape=(rows, count))
        return places @ g
    if width == 1:
        column = np.zeros(rows, g.dtype)
        np.add.at(column, index, g.reshape(-1))
        return column.reshape(rows, 1)
    out = np.zeros(rows * width, g.dtype)
    np.add.at(out, (index[:, None] * width + np.arange(width)).reshape(-1), g.reshape(-1))
    return out.reshape(rows, width)


def _add_rows(
    g: np.ndarray, index: np.ndarray, *, shape: Shape, axis: int, wrap: bool = True, sharded: int | None = None,
    window: Window = None,
) -> np.ndarray:
    flat = index_range(index.reshape(-1), shape[axis] if window is None else window[2], axis=axis, wrap=wrap)
    rest = (*shape[:axis], *shape[axis + 1 :])
    rows = g.reshape(*shape[:axis], flat.size, *shape[axis + 1 :])
    rows = (rows if axis == 0 else np.moveaxis(rows, axis, 0)).reshape(flat.size, prod(rest))
    if window is not None:
        own = (flat >= window[0]) & (flat < window[1])
        flat, rows = flat[own] - window[0], rows[own]
    added = _sum_rows(rows, flat, shape[axis]).reshape(shape[axis], *rest)
    return added if axis == 0 else np.moveaxis(added, 0, axis)


def _add_rows_meta(
    g: TensorMeta, index: TensorMeta, *, shape: Shape, axis: int, wrap: bool = True, sharded: int | None = None
) -> MetaResult:
    check_index("add_rows", index)
    if g.shape != _taken_shape(shape, index.shape, axis):
        raise RuntimeError(
            f"add_rows: rows of shape {g.shape} do not fit {index.shape} positions along dimension {axis} of shape "
            f"{shape}; they must have shape {_taken_shape(shape, index.shape, axis)}"
        )
    return (TensorMeta.of(shape, g.dtype),), None


def _add_rows_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    index, axis = ins[1], attrs["axis"]
    for dim in range(outs[0].ndim):
        if dim != axis:
            yield Row((dim if dim < axis else dim - 1 + index.ndim, None), (dim,))
    if attrs.get("sharded") is not None:
        yield Row((None, None), (axis,))  # each rank adds to the rows it holds
        if index.ndim:
            yield Row((axis, 0), (axis,), through=across_index.add_rows)
    for dim in range(index.ndim):
        yield Row((axis + dim, dim), ("sum",))
    yield Row(("sum", None), ("sum",))


def output_shape(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    """Gives a rank's attributes where `shape` is the shape of the result."""
    return {**attrs, "shape": outs[0].local_shape(rank)}


def _add_rows_window(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    found = _rows_window(attrs, outs, outs, rank)
    return {**found, "shape": outs[0].local_shape(rank)}


take_rows = Op(
    "take_rows",
    _take_rows,
    meta=_take_rows_meta,
    inputs="x index",
    rows=_take_rows_rows,
    localize=_rows_window,
    vjps=(lambda g, index, x_shape, x_sharded, axis: add_rows(
        g, index, shape=x_shape, axis=axis, sharded=x_sharded), None),
)
"""Rows of `x` along `axis` at the positions of `index`, whose dims take the place of the axis. With `wrap=False`
negative positions are errors."""

take_row = Op(
    "take_row",
    _take_rows,
    meta=_take_rows_meta,
    inputs="x index",
    rows=_take_rows_rows,
    localize=_rows_window,
    vjps=(lambda g, index, x_shape, x_sharded, axis: add_rows(
        g, index, shape=x_shape, axis=axis, sharded=x_sharded), None),
    put=lambda base, new, index, *, axis: put_rows(base, index, new, axis=axis),
)
"""`take_rows` with a 0-d index: one row, as a view, which is what PyTorch gives for x[i] whatever i is."""

add_rows: Op = Op(
    "add_rows",
    _add_rows,
    meta=_add_rows_meta,
    inputs="g index",
    rows=_add_rows_rows,
    localize=_add_rows_window,
    vjps=(lambda g, index, axis: take_rows(g, index, axis=axis), None),
)
"""Adds the rows of `g` into zeros of `shape` at the positions of `index` along `axis`."""


def _embedding_grad(
    g: Any, index: Any, weight_shape: Shape, weight_sharded: int | None, padding: int, by_frequency: bool
) -> Any:
    g = keep(reshape(index != padding, shape=(*index.shape, 1)), g)
    if by_frequency:
        ones = full(1.0, shape=tuple(index.shape), dtype=g.dtype.name)
        uses = take_rows(add_rows(ones, index, shape=weight_shape[:1], axis=0), index, axis=0)
        g = g / reshape(uses, shape=(*index.shape, 1))
    return add_rows(g, index, shape=weight_shape, axis=0, sharded=weight_sharded)


def _embedding_through(
    context: Any, weight: np.ndarray, index: np.ndarray, **attrs: Any
) -> Generator[Any, Any, np.ndarray]:
    return (yield from _take_rows_through(context, weight, index, axis=0, wrap=False))


def _embedding_window(attrs: dict[str, Any], ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    found = _rows_window({"axis": 0}, ins, outs, rank)
    return {**attrs, "window": found["window"]} if "window" in found else attrs


def _embedding_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for row in _take_rows_rows(ins, outs, {"axis": 0}):
        if row.through is None:
            yield row
        else:
            yield Row(row.ins, row.outs,
                      through=_embedding_through if row.ins[1] is None else across_index.embedding)


embedding = Op(
    "embedding",
    lambda weight, index, *, window=None, **attrs: _take_rows(weight, index, axis=0, wrap=False, window=window),
    meta=lambda weight, index, **attrs: _take_rows_meta(weight, index, axis=0),
    inputs="weight index",
    rows=_embedding_rows,
    localize=_embedding_window,
    vjps=(_embedding_grad, None),
)
"""`take_rows` along axis 0 whose gradient leaves out row `padding` and, `by_frequency`, divides a row's by its uses."""


# Writing whole rows -----------------------------------------------------------------------------------------


def _put_rows(
    x: np.ndarray, index: np.ndarray, value: Any, *, axis: int, wrap: bool = True, window: Window = None
) -> np.ndarray:
    size = x.shape[axis] if window is None else window[2]
    flat = index_range(index, size, axis=axis, wrap=wrap).reshape(-1)
    out = np.array(x)
    target = np.moveaxis(out, axis, 0)
    rows: Any = value
    if np.ndim(value):
        rows = np.moveaxis(value.reshape(*x.shape[:axis], flat.size, *x.shape[axis + 1 :]), axis, 0)
    if window is not None:
        own = (flat >= window[0]) & (flat < window[1])
        flat = flat[own] - window[0]
        rows = rows[own] if np.ndim(value) else rows
    target[flat] = rows
    return out


def _put_rows_meta(x: TensorMeta, index: TensorMeta, value: Any, *, axis: int, wrap: bool = True) -> MetaResult:
    check_index("put_rows", index)
    taken = _taken_shape(x.shape, index.shape, axis)
    if not isinstance(value, type) and value.ndim and value.shape != taken:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(value.shape)} cannot be broadcast to indexing result of "
            f"shape {list(taken)}"
        )
    if x.shape[axis] == 0 and index.size:
        raise IndexError(f"index is out of bounds for dimension {axis} with size 0")
    return (x,), (None, None, None if not isinstance(value, type) and value.dtype is x.dtype else x.dtype)


def _put_rows_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    x, index, value = ins
    axis = attrs["axis"]
    whole = isinstance(value, type) or value.ndim == 0
    for dim in range(x.ndim):
        if dim != axis:
            yield Row((dim, None, None if whole else dim if dim < axis else dim - 1 + index.ndim), (dim,))
        else:
            yield Row((axis, None, None), (axis,))  # each rank writes the rows it holds
            if index.ndim:
                yield Row((axis, 0, None if whole else axis), (axis,), through=across_index.put_rows)
    if not isinstance(value, type):
        yield Row(("sum", None, "sum"), ("sum",))


def _put_rows_value(g: Any, index: Any, value_shape: Shape, axis: int) -> Any:
    # One value written twice to a row counts once: what is left of g without the rows is not the value's.
    return take_rows(g, index, axis=axis) if value_shape else g - put_rows(g, index, 0, axis=axis)


put_rows: Op = Op(
    "put_rows",
    _put_rows,
    meta=_put_rows_meta,
    inputs="x index value",
    rows=_put_rows_rows,
    localize=_rows_window,
    vjps=(
        lambda g, index, axis: put_rows(g, index, 0, axis=axis),
        None,
        _put_rows_value,
    ),
)
"""`x` with `value` (a number, a 0-d tensor, or the shape that `take_rows` gives) written at rows `index`."""


# Single elements along one axis -----------------------------------------------------------------------------


def _crop(x: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    """Gives the part of `x` that an index of `shape` reaches: other dims from 0 to the index's size."""
    return x[tuple(slice(None) if d == axis else slice(n) for d, n in enumerate(shape))]


def along_args(x: np.ndarray, index: np.ndarray, axis: int, wrap: bool = False) -> tuple[np.ndarray, np.ndarray]:
    x, index = (np.atleast_1d(v) for v in (x, index))
    return x, index_range(index, x.shape[axis], axis=axis, wrap=wrap, error=IndexError if wrap else RuntimeError)


def _compiled_along(x: np.ndarray, index: np.ndarray, axis: int, src: Any = None) -> np.ndarray | None:
    """Runs a compiled `take_along`, or `scatter` where `src` is given; None where it does not fit or an index is wrong."""
    if not compiled.fits_along(x, index, axis):
        return None
    from distgrad.kernels import placing

    return placing.take_along(x, index, axis) if src is None else placing.put_along(x, index, src, axis)


def _take_along(x: np.ndarray, index: np.ndarray, *, axis: int, wrap: bool = False) -> np.ndarray:
    if (found := _compiled_along(x, index, axis)) is not None:
        return found
    first, places = along_args(x, index, axis, wrap)
    if first.flags.c_contiguous:  # one flat index is quicker than numpy's broadcast ones
        return first.reshape(-1).take(flat_places(places, first.shape, axis)).reshape(index.shape)
    return np.take_along_axis(_crop(first, places.shape, axis), places, axis).reshape(index.shape)


def _check_along(name: str, x: Shape, index: TensorMeta, axis: int) -> None:
    if index.dtype.category != 1:
        raise RuntimeError(f"{name}(): Expected dtype int64 for index, got {index.dtype.name}; convert it with .long()")
    if max(len(x), 1) != max(index.ndim, 1) and index.size:
        raise RuntimeError(
            f"{name}(): Index tensor must have the same number of dimensions as input tensor, got {index.shape} for {x}"
        )
    if any(d != axis and n > s for d, (n, s) in enumerate(zip(index.shape, x))):
        raise RuntimeError(
            f"{name}(): Size does not match: expected index {list(index.shape)} to be no larger than self {list(x)} "
            f"apart from dimension {axis}"
        )


def _take_along_meta(x: TensorMeta, index: TensorMeta, *, axis: int, wrap: bool = False) -> MetaResult:
    _check_along("gather", x.shape, index, axis)
    return (TensorMeta.of(index.shape, x.dtype),), None


def _shared_dims(x: Shape, index: Shape, axis: int) -> Iterable[int]:
    return (d for d in range(len(index)) if d != axis and x[d] == index[d])


def _take_along_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    x, index = ins
    axis = attrs["axis"]
    for dim in _shared_dims(x.shape, index.shape, axis):
        yield Row((dim, dim), (dim,))
    if index.ndim and x.shape:
        yield Row((None, axis), (axis,))
        yield Row((axis, axis), (axis,), through=across_index.take_along)
    for row in parts_rows(ins[:1]):
        yield Row((*row.ins, None), row.outs)


def flat_places(index: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    """Gives where in a flattened array of `shape` the elements that `index` names along `axis` are."""
    strides = [prod(shape[d + 1 :]) for d in range(len(shape))]
    places = index * strides[axis]
    for dim, size in enumerate(index.shape):
        if dim != axis:
            places = places + (np.arange(size) * strides[dim]).reshape(-1, *(1,) * (index.ndim - dim - 1))
    return places.reshape(-1)


def _add_along(
    g: np.ndarray, index: np.ndarray, *, shape: Shape, axis: int, wrap: bool = False, sharded: int | None = None
) -> np.ndarray:
    whole = shape or (1,)
    places = index_range(np.atleast_1d(index), whole[axis], axis=axis, wrap=wrap, error=RuntimeError)
    if (g.size >= compiled.LEAST and axis == len(shape) - 1 and places.shape[:-1] == shape[:-1] and _plain(places)
            and compiled.fits(g)):
        from distgrad.kernels import pooling

        rows = pooling.add_along(g.reshape(-1, g.shape[-1]), places.reshape(-1, g.shape[-1]), shape[-1])
        return rows.reshape(shape)
    out = np.zeros(prod(whole), np.float32 if _wide(g.dtype) else g.dtype)
    np.add.at(out, flat_places(places, whole, axis), g.reshape(-1).astype(out.dtype, copy=False))
    return out.reshape(shape).astype(g.dtype, copy=False)


def _add_along_meta(
    g: TensorMeta, index: TensorMeta, *, shape: Shape, axis: int, wrap: bool = False, sharded: int | None = None
) -> MetaResult:
    _check_along("scatter_add", shape, index, axis)
    if g.shape != index.shape:
        raise RuntimeError(f"scatter_add(): src must have the index's shape {index.shape}, got {g.shape}")
    return (TensorMeta.of(shape, g.dtype),), None


def _add_along_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    axis = attrs["axis"]
    for dim in _shared_dims(attrs["shape"], ins[1].shape, axis):
        yield Row((dim, dim), (dim,))
    if ins[1].ndim:
        if attrs["shape"]:
            yield Row((axis, axis), (axis,), through=across_index.add_along)
        yield Row((axis, axis), ("sum",))
    yield Row(("sum", None), ("sum",))


take_along = Op(
    "take_along",
    _take_along,
    meta=_take_along_meta,
    inputs="x index",
    rows=_take_along_rows,
    vjps=(lambda g, index, x_shape, x_sharded, axis: add_along(
        g, index, shape=x_shape, axis=axis, wrap=True, sharded=x_sharded), None),
)
"""PyTorch's gather: y[i][j] = x[index[i][j]][j] along axis 0, and so on; `index` may be smaller in the other dims."""

add_along: Op = Op(
    "add_along",
    _add_along,
    meta=_add_along_meta,
    inputs="g index",
    rows=_add_along_rows,
    localize=output_shape,
    vjps=(lambda g, index, axis: take_along(g, index, axis=axis, wrap=True), None),
)
"""Adds the elements of `g` into zeros of `shape` where `take_along` would read them."""


def scatter_add(x: Any, index: Any, src: Any, *, axis: int) -> Any:
    """Adds `src` (the index's shape) into `x` where `take_along` would read."""
    return x + add_along(src, index, shape=tuple(x.shape), axis=axis, sharded=sharded_dim(x))


def _scatter(x: np.ndarray, index: np.ndarray, src: Any, *, axis: int) -> np.ndarray:
    if (found := _compiled_along(x, index, axis, src)) is not None:
        return found
    out, places = along_args(np.array(x), index, axis)
    values = np.atleast_1d(src) if np.ndim(index) == 0 else np.asarray(src)
    np.put_along_axis(_crop(out, places.shape, axis), places, values, axis)
    return out.reshape(x.shape)


def scatter_meta(x: TensorMeta, index: TensorMeta, src: Any, *, axis: int) -> MetaResult:
    _check_along("scatter", x.shape, index, axis)
    if isinstance(src, type):
        return (x,), (None, None, x.dtype)
    if src.dtype is not x.dtype:
        raise RuntimeError(
            f"scatter(): Expected self.dtype to be equal to src.dtype, got {x.dtype.name} and {src.dtype.name}"
        )
    if src.shape != index.shape:
        raise RuntimeError(f"scatter(): src must have the index's shape {index.shape}, got {src.shape}")
    return (x,), None


def scatter_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    whole = isinstance(ins[2], type) or ins[2].ndim == 0
    for dim in _shared_dims(ins[0].shape, ins[1].shape, attrs["axis"]):
        yield Row((dim, dim, None if whole else dim), (dim,))
    if ins[0].ndim and ins[1].ndim:
        axis = attrs["axis"]
        through = across_index.reduce_along if "reduce" in attrs else across_index.scatter
        yield Row((axis, axis, None if whole else axis), (axis,), through=through)


scatter: Op = Op(
    "scatter",
    _scatter,
    meta=scatter_meta,
    inputs="x index src",
    rows=scatter_rows,
    vjps=(
        lambda g, index, axis: scatter(g, index, 0, axis=axis),
        None,
        lambda g, index, axis: take_along(g, index, axis=axis),
    ),
)
"""`x` with `src` (a number or the index's shape) written where `take_along` would read; the last of several stays."""


# Several indices at once ------------------------------------------------------------------------------------


def _ravel_index(*indices: np.ndarray, sizes: Shape, axes: Shape) -> np.ndarray:
    flat: Any = 0
    for index, size, axis in zip(indices, sizes, axes):
        flat = flat * size + index_range(index, size, axis=axis, wrap=True).astype(np.int64, copy=False)
    return flat


def _ravel_index_meta(*indices: TensorMeta, sizes: Shape, axes: Shape) -> MetaResult:
    for index in indices:
        check_index("index", index)
    try:
        shape = broadcast_shapes("index", *(i.shape for i in indices))
    except RuntimeError as error:
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes "
            + ", ".join(str(list(i.shape)) for i in indices)
        ) from error
    return (TensorMeta.of(shape, dtypes.int64),), None


ravel_index = Op("ravel_index", _ravel_index, meta=_ravel_index_meta, inputs="*indices", rows=elementwise_rows(()))
"""The position in the flattened dims of `sizes` that broadcast indices name together; `axes` is for messages."""


def _one_hot(index: np.ndarray, *, classes: int) -> np.ndarray:
    if index.size and (index.min() < 0 or index.max() >= classes):
        wrong = int(index.min() if index.min() < 0 else index.max())
        what = "non-negative" if wrong < 0 else "smaller than num_classes"
        raise RuntimeError(f"one_hot: Class values must be {what}, got {wrong} for {classes} classes")
    return (index[..., None] == np.arange(classes)).astype(np.int64)


def _one_hot_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[0].ndim):
        yield Row((dim,), (dim,))


one_hot = Op(
    "one_hot",
    _one_hot,
    inputs="index",
    rows=_one_hot_rows,
    meta=lambda index, *, classes: ((TensorMeta.of((*index.shape, classes), dtypes.int64),), None),
)
"""1 at the position an integer names along a new last dim of `classes`, 0 elsewhere."""
