"""Reductions over `axis` (a sorted tuple of dims) with `keepdims`.

Invariant: a kernel on a shard gives what combines to the whole: sums add up, means divide by the global count, extremes
of no rows are their identity. Sums of halves accumulate in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import prod as count_of
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.dtypes import HALVES
from distgrad.families import elementwise, identity_of, kept_dim, reduced_shape, reduction, reduction_rows
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_reduction, across_select, movement
from distgrad.ops.cumulative import product_of_others
from distgrad.ops.elementwise import eq, isnan, keep, logical_and, logical_or, ne, widened
from distgrad.ops.order import place_of_rank

Axes = tuple[int, ...]
_add: Any = np.add.reduce  # numpy's stubs do not know a `keepdims` that is decided at run time
_multiply: Any = np.multiply.reduce
_SHORT_ROW = 96  # bytes up to which turning rows into columns first makes extremes quicker (measured)
_STRIDED = 128  # rows added up one by one before their sum joins others
_WHOLE = frozenset("?bBhHiIlLqQ")  # numpy's type codes whose sums and products are int64
_PAIRWISE = 4096  # longer runs are cut, so that rounding errors do not grow with the length


def restore(g: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    """Gives the reduced dims back with size 1."""
    return g if keepdims else movement.reshape(g, shape=reduced_shape(x_shape, axis, True))


def spread(g: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    """Repeats a reduction's cotangent over the reduced dims."""
    if not keepdims and axis == tuple(range(len(axis))):  # broadcasting adds leading dims by itself
        return movement.expand(g, shape=x_shape)
    return movement.expand(restore(g, x_shape, axis, keepdims), shape=x_shape)


@lru_cache(maxsize=64)
def _ones(size: int, kind: str) -> np.ndarray:
    return np.ones(size, kind)


def _sum_middle(x: np.ndarray) -> np.ndarray:
    """Sums a contiguous (outer, n, inner) array over n.

    Compiled loops and BLAS do it several times faster than numpy's add.reduce, which also adds long columns one by one
    in one precision.
    """
    outer, n, inner = x.shape
    if inner == 1 and compiled.enabled():
        from distgrad.kernels.sums import sum_rows

        return sum_rows(x.reshape(outer, n)).reshape(outer, 1)
    if n > _PAIRWISE:
        if inner == 1 and outer > 1 and n % 1024:
            return _add(x, axis=1)  # pairwise; the cut below would copy
        whole = n // 1024 * 1024
        parts = _sum_middle(x[:, :whole].reshape(-1, 1024, inner)).reshape(outer, -1, inner)
        total = _sum_middle(np.ascontiguousarray(parts))
        return total + _sum_middle(np.ascontiguousarray(x[:, whole:])) if whole < n else total
    ones = _ones(n, x.dtype.str)
    if inner == 1:
        return (x.reshape(outer, n) @ ones).reshape(outer, 1)
    return np.matmul(ones, x) if outer > 1 else (ones @ x.reshape(n, inner)).reshape(1, inner)


def _add_up(x: np.ndarray, axis: Axes, keepdims: bool) -> np.ndarray:
    """Sums float32 or float64 over axes."""
    if x.size < 4096:
        return _add(x, axis=axis, keepdims=keepdims)
    shape = reduced_shape(x.shape, axis, keepdims)
    if max(shape, default=1) == 1 and x.flags.c_contiguous and compiled.enabled():  # all elements
        from distgrad.kernels.sums import sum_rows

        return sum_rows(x.reshape(1, x.size)).reshape(shape)
    factor = 1
    for a in axis:  # what a broadcast repeats is the same number over again
        if x.strides[a] == 0 and x.shape[a] > 1:
            factor *= x.shape[a]
            x = x[(slice(None),) * a + (slice(0, 1),)]
    contiguous = x.flags.c_contiguous or x.flags.f_contiguous
    if not contiguous and x.ndim - 1 in axis and x.size <= _PAIRWISE * max(x.shape[-1], 1):
        out = _add(x, axis=axis, keepdims=keepdims)  # pairwise along rows, and not too many of those
        return out * x.dtype.type(factor) if factor != 1 else out
    if not contiguous and len(axis) == 1 and axis[0] < x.ndim - 1 and x.shape[axis[0]] > _STRIDED:
        out = _by_parts(x, axis[0]).reshape(shape)
        return out * x.dtype.type(factor) if factor != 1 else out
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        flipped = tuple(x.ndim - 1 - a for a in axis)
        out = _by_groups(x.T, flipped).reshape(shape[::-1]).T
    else:
        out = _by_groups(np.ascontiguousarray(x), axis).reshape(shape)
    return out * x.dtype.type(factor) if factor != 1 else out


def _by_parts(x: np.ndarray, axis: int) -> np.ndarray:
    """Sums an array that is not contiguous over an axis, without a copy: rows in groups, then the groups' sums."""
    before = (slice(None),) * axis
    starts = range(0, x.shape[axis], _STRIDED)
    parts = np.stack([_add(x[(*before, slice(start, start + _STRIDED))], axis=axis) for start in starts], axis)
    return _by_parts(parts, axis) if len(starts) > _STRIDED else _add(parts, axis=axis)


def _by_groups(x: np.ndarray, axis: Axes) -> np.ndarray:
    """Sums a contiguous array over axes, one run of adjacent axes after the other, from the last one."""
    shape = list(x.shape)
    left = sorted(axis)
    while left:
        last = left.pop()
        first = last
        while left and left[-1] == first - 1:
            first = left.pop()
        x = np.ascontiguousarray(x.reshape(count_of(shape[:first]), count_of(shape[first : last + 1]), -1))
        x = _sum_middle(x)
        shape = [*shape[:first], *(1,) * (last - first + 1), *shape[last + 1 :]]
    return x


def _sum(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
    kind = x.dtype.char
    if kind in HALVES:
        return np.asarray(_sum(x.astype(np.float32), axis=axis, keepdims=keepdims)).astype(x.dtype)
    if kind in _WHOLE:
        if kind == "?" and len(axis) == x.ndim and x.ndim:
            count = np.count_nonzero(x)
            return np.full((1,) * x.ndim if keepdims else (), count, np.int64)
        return _add(x, axis=axis, keepdims=keepdims, dtype=np.int64)
    if not axis or x.size == 0 or kind not in "fd":
        return _add(x, axis=axis, keepdims=keepdims)
    return _add_up(x, axis, keepdims)


sum = reduction("sum", _sum, lambda g, x_shape, axis, keepdims: spread(g, x_shape, axis, keepdims),
                partial="sum", result="sum")


def reduced_count(shape: tuple[int, ...], axis: Axes) -> int:
    """Gives how many elements each element of a reduction comes from."""
    return count_of(shape[a] for a in axis)


def _mean(x: np.ndarray, *, axis: Axes, keepdims: bool, count: int | None = None) -> np.ndarray:
    wide = x.astype(np.float32) if x.dtype.char in HALVES else x
    total = np.asarray(_sum(wide, axis=axis, keepdims=keepdims))
    divisor = total.dtype.type(reduced_count(x.shape, axis) if count is None else count)
    return (total / divisor).astype(x.dtype, copy=False)


def _mean_meta(x: TensorMeta, *, axis: Axes, keepdims: bool) -> MetaResult:
    if x.dtype.category < 2:
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. Got: "
            f"{torch_name(x.dtype)}"
        )
    return (TensorMeta.of(reduced_shape(x.shape, axis, keepdims), x.dtype),), None


def torch_name(kind: dtypes.dtype) -> str:
    """Gives the name PyTorch's messages use for an integer dtype ("Long")."""
    return {"bool": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
            "complex64": "ComplexFloat", "complex128": "ComplexDouble"}.get(kind.name, kind.name)


mean = Op(
    "mean", _mean, meta=_mean_meta, inputs="x", rows=reduction_rows("sum"),
    vjps=(lambda g, x_shape, axis, keepdims: spread(
        g / max(reduced_count(x_shape, axis), 1), x_shape, axis, keepdims),),
    localize=lambda attrs, ins, outs, rank: {**attrs, "count": reduced_count(ins[0].shape, attrs["axis"])},
)


def _prod(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
    if x.dtype.char in HALVES:
        return np.asarray(_multiply(x.astype(np.float32), axis=axis, keepdims=keepdims)).astype(x.dtype)
    if x.dtype.char in _WHOLE:
        return _multiply(x, axis=axis, keepdims=keepdims, dtype=np.int64)
    return _multiply(x, axis=axis, keepdims=keepdims)


def _prod_vjp(g: Any, x: Any, axis: Axes, keepdims: bool) -> Any:
    shape = tuple(x.shape)
    if 0 in shape or not axis:
        return spread(g, shape, axis, keepdims)
    if len(axis) == 1:
        return restore(g, shape, axis, keepdims) * product_of_others(x, axis[0])
    rest = tuple(d for d in range(len(shape)) if d not in axis)
    order = (*rest, *axis)
    moved = movement.permute(x, axes=order) if order != tuple(range(len(shape))) else x
    flat = movement.reshape(moved, shape=(*(shape[d] for d in rest), count_of(shape[a] for a in axis)))
    others = movement.reshape(product_of_others(flat, len(rest)), shape=tuple(shape[d] for d in order))
    others = movement.permute(others, axes=movement.inverse(order))
    return restore(g, shape, axis, keepdims) * others


prod = reduction("prod", _prod, _prod_vjp, partial="prod", result="sum")


def _extreme(function: np.ufunc, reduce: str) -> Callable[..., np.ndarray]:
    def kernel(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
        if reduced_count(x.shape, axis) == 0:
            return np.full(reduced_shape(x.shape, axis, keepdims), identity_of(reduce, x.dtype), x.dtype)
        if axis == (x.ndim - 1,) and x.shape[-1] * x.itemsize <= _SHORT_ROW and x.size // x.shape[-1] > 64:
            # numpy reduces short rows one at a time; columns go through vector instructions
            out = function.reduce(np.ascontiguousarray(np.moveaxis(x, -1, 0)), axis=0)
            return out[..., None] if keepdims else out
        return function.reduce(x, axis=axis, keepdims=keepdims)

    return kernel


def _ties_vjp(g: Any, x: Any, y: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    """Divides the cotangent evenly among the elements that equal the result; a NaN result makes all of it NaN."""
    return _shared(g, eq(x, restore(y, x_shape, axis, keepdims)), x_shape, axis, keepdims)


def _shared(g: Any, mask: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    return keep(mask, restore(g, x_shape, axis, keepdims)) / sum(mask, axis=axis, keepdims=True)


amax = reduction("amax", _extreme(np.maximum, "max"), _ties_vjp, partial="max", needs_elements=True)
amin = reduction("amin", _extreme(np.minimum, "min"), _ties_vjp, partial="min", needs_elements=True)


def _truth(function: np.ufunc) -> Callable[..., np.ndarray]:
    def kernel(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
        return function.reduce(x if x.dtype == np.bool_ else x != 0, axis=axis, keepdims=keepdims)

    return kernel


all = reduction("all", _truth(np.logical_and), partial="min", result="bool")
any = reduction("any", _truth(np.logical_or), partial="max", result="bool")


def _count_nonzero(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
    if len(axis) == x.ndim and x.ndim and x.dtype.kind != "V":
        return np.full((1,) * x.ndim if keepdims else (), np.count_nonzero(x), np.int64)
    return _add(x != 0, axis=axis, keepdims=keepdims, dtype=np.int64)


count_nonzero = reduction(
    "count_nonzero", _count_nonzero,
    partial="sum", result="int64",
)


def _count_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    return (row for row in reduction_rows("sum")(ins, outs, attrs) if row.ins != ("sum",))


count_nonzero.rows = _count_rows  # counting is not linear: parts of its input may not be counted by themselves


def _position(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda x, *, axis, keepdims: np.asarray(function(x, axis=axis[0], keepdims=keepdims), np.int64)


argmax = reduction("argmax", _position(np.argmax), result="int64", needs_elements=True, through=across_reduction.argmax)
argmin = reduction("argmin", _position(np.argmin), result="int64", needs_elements=True, through=across_reduction.argmin)


# Values with their positions along one axis: max, min and median of a dim.

_EXACT = 2**24  # positions that float32 holds, in which the compiled kernel counts

Chooser = Callable[[np.ndarray, int], np.ndarray]


def _choice(name: str, choose: Chooser, through: Callable[..., Any], sign: float = 0.0) -> Op:
    """Makes an op that picks one element along attribute `axis` (an int): its value and its position.

    `through` picks it from all workers' rows; `sign` is 1 for the maximum, -1 for the minimum.
    """

    def kernel(x: np.ndarray, *, axis: int, keepdims: bool) -> tuple[np.ndarray, np.ndarray]:
        if x.size == 0:
            shape = reduced_shape(x.shape, (axis,), keepdims)
            return np.empty(shape, x.dtype), np.empty(shape, np.int64)
        if sign and axis < x.ndim - 1 and x.size >= compiled.LEAST and x.shape[axis] <= _EXACT and compiled.fits(x):
            from distgrad.kernels.scans import extreme_along

            values, indices = extreme_along(x, axis, sign)
            return (np.expand_dims(values, axis), np.expand_dims(indices, axis)) if keepdims else (values, indices)
        indices = np.expand_dims(choose(x, axis), axis)
        values = np.take_along_axis(x, indices, axis)
        return (values, indices) if keepdims else (values.squeeze(axis), indices.squeeze(axis))

    def meta(x: TensorMeta, *, axis: int, keepdims: bool) -> MetaResult:
        if x.shape[axis] == 0:
            op = name.partition("_")[0]
            raise IndexError(f"{op}(): Expected reduction dim {axis} to have non-zero size.")
        out = TensorMeta.of(reduced_shape(x.shape, (axis,), keepdims), x.dtype)
        return (out, out.with_dtype(dtypes.int64)), None

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        for dim in range(ins[0].ndim):
            if dim != attrs["axis"]:
                yield Row((dim,), (kept_dim(dim, (attrs["axis"],), attrs["keepdims"]),) * 2)
        yield Row((attrs["axis"],), (None, None), through=through)

    def vjp(
        g: tuple[Any, Any], indices: Any, x_shape: tuple[int, ...], x_sharded: int | None, axis: int, keepdims: bool
    ) -> Any:
        from distgrad.ops.indexing import add_along

        given, places = (restore(t, x_shape, (axis,), keepdims) for t in (g[0], indices))
        return add_along(given, places, shape=x_shape, axis=axis, sharded=x_sharded)

    return Op(name, kernel, meta=meta, inputs="x", rows=rows, outputs="values indices", vjps=(vjp,))


def _comparable(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.char in HALVES else x


def _middle_place(x: np.ndarray, axis: int) -> np.ndarray:
    x = _comparable(x)
    places = place_of_rank(x, axis, (x.shape[axis] - 1) // 2)
    if x.dtype.kind == "f":
        missing = np.isnan(x)
        places = np.where(missing.any(axis), missing.argmax(axis), places)
    return places


def _middle_number_place(x: np.ndarray, axis: int) -> np.ndarray:
    x = _comparable(x)
    if x.dtype.kind != "f":
        return _middle_place(x, axis)
    middle = np.maximum((np.count_nonzero(~np.isnan(x), axis=axis, keepdims=True) - 1) // 2, 0)
    return np.take_along_axis(np.argsort(x, axis, kind="stable"), middle, axis).squeeze(axis)


max_along = _choice("max_along", lambda x, axis: np.argmax(x, axis), across_reduction.max_along, 1.0)
min_along = _choice("min_along", lambda x, axis: np.argmin(x, axis), across_reduction.min_along, -1.0)
median_along = _choice("median_along", _middle_place, across_select.median_along)
nanmedian_along = _choice("nanmedian_along", _middle_number_place, across_select.nanmedian_along)


def _middle(x: np.ndarray) -> np.ndarray:
    """Gives the lower median of a flat array of elements, NaN if there is one."""
    x = _comparable(x)
    rank = (x.size - 1) // 2
    parts = np.partition(x, rank)  # NaN is last
    if x.dtype.kind == "f" and np.isnan(parts[rank:]).any():
        return np.array(np.nan)
    return parts[rank]


def _middle_number(x: np.ndarray) -> np.ndarray:
    x = _comparable(x)
    if x.dtype.kind == "f" and (missing := np.isnan(x)).any():
        x = x[~missing]
    return _middle(x) if x.size else np.array(np.nan)


def _median_of_all(middle: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    def kernel(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
        value = middle(x.reshape(-1)) if x.size else np.array(np.nan if x.dtype.kind in "fV" else 0)
        return np.asarray(value, x.dtype).reshape((1,) * x.ndim if keepdims else ())

    return kernel


def _median_vjp(g: Any, x: Any, y: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    """Divides the cotangent evenly among the elements that equal the median, NaN equal to NaN."""
    middle = restore(y, x_shape, axis, keepdims)
    mask = logical_or(eq(x, middle), logical_and(isnan(x), isnan(middle)))
    return _shared(g, mask, x_shape, axis, keepdims)


median_of_all = reduction("median_of_all", _median_of_all(_middle), _median_vjp,
                          through=across_select.median_of_all)
nanmedian_of_all = reduction("nanmedian_of_all", _median_of_all(_middle_number), _median_vjp,
                             through=across_select.nanmedian_of_all)


def _root_vjp(g: Any, y: Any, degree: float) -> Any:
    return root_slope(g, y, degree=degree)


def _root_slope(g: Any, y: Any, *, degree: float) -> Any:
    kind = y.dtype.type
    out = g / (y + y if degree == 2 else np.power(y, kind(degree - 1.0)) * kind(degree))
    return out if np.count_nonzero(y) == y.size else np.where(y != 0, out, kind(0))


root_slope: Op = elementwise(
    "root_slope", widened(_root_slope), "g y", outputs="slope", linear=("P.",), vjps=(
        lambda g, y, degree: root_slope(g, y, degree=degree),
        lambda g, slope, y, degree: g * keep(ne(y, 0), slope * (1.0 - degree) / y)),
)
"""The cotangent g of a root y for what the root was taken of; zero where the root is zero, which is the subgradient
PyTorch takes for norms and standard deviations."""

root = elementwise(
    "root", lambda x, *, degree: np.sqrt(x) if degree == 2 else np.power(x, x.dtype.type(1.0 / degree)), "x",
    vjps=(_root_vjp,),
)
"""The root of attribute `degree` of non-negative numbers; its gradient at zero is zero."""


def _flat_axes(x: np.ndarray, axis: Axes) -> tuple[int, int, int] | None:
    """Gives the (outer, n, inner) that reducing adjacent axes of a large contiguous array comes to, else None."""
    if x.size < compiled.LEAST or not axis or axis[-1] - axis[0] != len(axis) - 1 or not compiled.fits(x):
        return None
    return count_of(x.shape[: axis[0]]), reduced_count(x.shape, axis), count_of(x.shape[axis[-1] + 1 :])


def _squares(x: np.ndarray, center: np.ndarray, axis: Axes, keepdims: bool) -> np.ndarray:
    """Sums the squares of distances from a center, whose reduced dims have size 1."""
    flat = _flat_axes(x, axis)
    if flat is None:
        out = np.asarray(x - center)
        return _sum(np.multiply(out, out, out=out), axis=axis, keepdims=keepdims)
    from distgrad.kernels.sums import squares

    centers = np.array(np.broadcast_to(center, reduced_shape(x.shape, axis, True))).reshape(flat[::2])
    return squares(x.reshape(flat), centers).reshape(reduced_shape(x.shape, axis, keepdims))


def _variance(x: np.ndarray, freedom: Any, *, axis: Axes, keepdims: bool) -> np.ndarray:
    total = np.asarray(_squares(x, _mean(x, axis=axis, keepdims=True), axis, keepdims))
    return total / total.dtype.type(freedom)


def _variance_vjp(g: Any, x: Any, freedom: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    return (x - mean(x, axis=axis, keepdims=True)) * restore(g * 2.0 / freedom, x_shape, axis, keepdims)


variance_here = Op(
    "variance", _variance, inputs="x freedom", vjps=(_variance_vjp, None),
    meta=lambda x, freedom, *, axis, keepdims: ((TensorMeta.of(reduced_shape(x.shape, axis, keepdims), x.dtype),), None),
    rows=lambda ins, outs, attrs: (Row((row.ins[0], None), row.outs) for row in reduction_rows(None)(ins, outs, attrs)),
)
"""The squares of distances from the mean, summed and divided by a number: the variance of real numbers. Only kept dims
may be sharded."""


def _norm(x: np.ndarray, *, axis: Axes, keepdims: bool) -> np.ndarray:
    if _flat_axes(x, axis) is not None:
        return np.sqrt(_squares(x, np.zeros((1,) * x.ndim, x.dtype), axis, keepdims))
    return np.sqrt(_sum(np.square(x), axis=axis, keepdims=keepdims))


def _norm_vjp(g: Any, y: Any, x: Any, x_shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Any:
    slope = root_slope(g, y, degree=2.0)
    if axis != tuple(range(len(axis))):  # broadcasting adds leading dims by itself
        slope = restore(slope, x_shape, axis, keepdims)
    return (slope * 2.0) * x


norm_here = reduction("norm", _norm, _norm_vjp)
"""The root of the sum of squares of real numbers; its gradient at zero is zero. Only kept dims may be sharded."""
