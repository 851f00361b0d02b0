"""Ops whose element i depends on elements 0..i along one axis: running sums, products, extremes.

Invariant: gradients are exact where factors are zero, to any order: they are written with `linear_scan`, whose own
gradient is a scan from the end, and the other way round, never by dividing by the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.dtypes import HALVES
from distgrad.families import along, other_dims_rows
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_scan, movement
from distgrad.ops.elementwise import exp, keep, logaddexp_array, ne, vanish

_WIDER = {**dict.fromkeys(HALVES, np.float32), "f": np.float64, "F": np.complex128}  # by numpy's type codes


def _scan(x: np.ndarray, axis: int, multiply: bool, backward: bool = False) -> np.ndarray:
    from distgrad.kernels.scans import scan

    return scan(x, axis, multiply, backward)


def _accumulate(function: np.ufunc) -> Callable[..., np.ndarray]:
    """Makes a kernel that accumulates in the wider dtype, as PyTorch does, so that long runs do not drift."""

    def kernel(x: np.ndarray, *, axis: int) -> np.ndarray:
        if function is not np.logaddexp and x.size >= compiled.LEAST and compiled.fits(x):
            return _scan(x, axis, function is np.multiply)
        wider = _WIDER.get(x.dtype.char)
        if wider is None:
            return function.accumulate(x, axis=axis)
        if x.dtype.char == "f":  # numpy widens block by block, without a copy of all
            return function.accumulate(x, axis=axis, dtype=wider).astype(x.dtype)
        return function.accumulate(x.astype(wider), axis=axis).astype(x.dtype)

    return kernel


def _from_the_end(kernel: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Makes a kernel run along its axis from the end."""
    return lambda *arrays, axis: np.flip(kernel(*(np.flip(a, axis) for a in arrays), axis=axis), axis)


def reverse(x: Any, axis: int) -> Any:
    """Gives x in reverse order along an axis."""
    return movement.flip(x, axis=(axis,))


def before(x: Any, axis: int, first: float) -> Any:
    """Moves rows one place on along an axis: row i is row i - 1 of x, row 0 is `first`."""
    widths = tuple((1, 0) if d == axis else (0, 0) for d in range(len(x.shape)))
    return movement.pad(movement.slice(x, 0, axis=axis, size=x.shape[axis] - 1, step=1), first, widths=widths)


def after(x: Any, axis: int, last: float) -> Any:
    """Moves rows one place back along an axis: row i is row i + 1 of x, the last row is `last`."""
    widths = tuple((0, 1) if d == axis else (0, 0) for d in range(len(x.shape)))
    return movement.pad(movement.slice(x, 1, axis=axis, size=x.shape[axis] - 1, step=1), last, widths=widths)


_cumsum = _accumulate(np.add)
cumsum: Op = along("cumsum", _cumsum, lambda g, axis: reverse_cumsum(g, axis=axis),
               result="sum", linear=True, through=across_scan.cumsum)


def _reverse_cumsum(x: np.ndarray, *, axis: int) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x):
        return _scan(x, axis, False, True)
    return np.flip(_cumsum(np.flip(x, axis), axis=axis), axis)


reverse_cumsum: Op = along("reverse_cumsum", _reverse_cumsum, lambda g, axis: cumsum(g, axis=axis),
                       linear=True, through=across_scan.reverse_cumsum)
"""Running sums along `axis` from the end."""


def _linear_scan(a: np.ndarray, b: np.ndarray, *, axis: int) -> np.ndarray:
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    out = np.array(b, order="C")
    for row in range(1, out.shape[0]):
        out[row] += a[row] * out[row - 1]
    return np.moveaxis(out, 0, axis)


def _linear_scan_meta(a: TensorMeta, b: TensorMeta, *, axis: int) -> MetaResult:
    if a.shape != b.shape:
        raise RuntimeError(f"linear_scan: factors of shape {a.shape} and terms of shape {b.shape} must have one shape")
    return (b,), None if a.dtype is b.dtype else (b.dtype, None)


def _linear_scan_rows(through: Callable[..., Any]) -> Callable[..., Iterable[Row]]:
    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        yield Row((attrs["axis"],) * 2, (attrs["axis"],), through=through)
        yield Row((None, "sum"), ("sum",))

    return rows


def reverse_scan(a: Any, b: Any, axis: int) -> Any:
    """Gives h with h[i] = b[i] + a[i + 1] h[i + 1] along an axis, from the end."""
    return reverse_linear_scan(movement.roll(a, -1, axis=axis), b, axis=axis)


def _forward_scan(a: Any, b: Any, axis: int) -> Any:
    """Gives h with h[i] = b[i] + a[i - 1] h[i - 1] along an axis."""
    return linear_scan(movement.roll(a, 1, axis=axis), b, axis=axis)


linear_scan: Op = Op(
    "linear_scan", _linear_scan, meta=_linear_scan_meta, inputs="a b", rows=_linear_scan_rows(across_scan.linear_scan),
    vjps=(
        lambda g, y, a, axis: reverse_scan(a, g, axis) * before(y, axis, 0) if y.shape[axis] else g,
        lambda g, a, axis: reverse_scan(a, g, axis) if a.shape[axis] else g,
    ),
)
"""The recurrence h[i] = a[i] h[i - 1] + b[i] along `axis`; h[0] = b[0] and a[0] is not used."""

reverse_linear_scan: Op = Op(
    "reverse_linear_scan", _from_the_end(_linear_scan), meta=_linear_scan_meta, inputs="a b",
    rows=_linear_scan_rows(across_scan.reverse_linear_scan),
    vjps=(
        lambda g, y, a, axis: _forward_scan(a, g, axis) * after(y, axis, 0) if y.shape[axis] else g,
        lambda g, a, axis: _forward_scan(a, g, axis) if a.shape[axis] else g,
    ),
)
"""The recurrence h[i] = a[i] h[i + 1] + b[i] along `axis` from the end; the last row of a is not used."""


def _cumprod_vjp(g: Any, x: Any, y: Any, axis: int) -> Any:
    """y[k] depends on x[i] for k >= i by the product of all others: what comes before i times a scan from the end."""
    if x.shape[axis] == 0:
        return g
    return reverse_scan(x, g, axis) * before(y, axis, 1)


cumprod = along("cumprod", _accumulate(np.multiply), _cumprod_vjp, result="sum", through=across_scan.cumprod)


def _others(x: np.ndarray, *, axis: int) -> np.ndarray:
    rows = np.swapaxes(x.astype(_WIDER.get(x.dtype.char, x.dtype)), axis, -1)
    left, right = np.ones_like(rows), np.ones_like(rows)
    np.multiply.accumulate(rows[..., :-1], axis=-1, out=left[..., 1:])
    np.multiply.accumulate(rows[..., :0:-1], axis=-1, out=right[..., -2::-1])
    return np.swapaxes(left * right, axis, -1).astype(x.dtype, copy=False)


def _others_vjp(g: Any, x: Any, axis: int) -> Any:
    """The rule of the product of what comes before and what comes after, which itself is differentiable again."""
    if x.shape[axis] < 2:
        return vanish(x)
    turned = reverse(x, axis)
    left, right = cumprod(x, axis=axis), cumprod(turned, axis=axis)
    g_left = after(g * reverse(before(right, axis, 1), axis), axis, 0)
    g_right = after(reverse(g * before(left, axis, 1), axis), axis, 0)
    return _cumprod_vjp(g_left, x, left, axis) + reverse(_cumprod_vjp(g_right, turned, right, axis), axis)


product_of_others_here = along("product_of_others", _others, _others_vjp)
"""For each element the product of all others along `axis`; right where elements are zero."""


def product_of_others(x: Any, axis: int) -> Any:
    """Gives `product_of_others_here`, by scans where x is on the workers, which scan their own rows."""
    if x._now().spec.placement is None:
        return product_of_others_here(x, axis=axis)
    left = before(cumprod(x, axis=axis), axis, 1)
    right = before(cumprod(reverse(x, axis), axis=axis), axis, 1)
    return left * reverse(right, axis)


def _logcumsumexp_vjp(g: Any, x: Any, y: Any, axis: int) -> Any:
    """The sum over k >= i of g[k] exp(x[i] - y[k]), with exponents that are never positive; 0 where y is -inf."""
    if x.shape[axis] == 0:
        return g
    held = movement.slice(y, 0, axis=axis, size=1, step=1)
    previous = movement.concat(held, movement.slice(y, 0, axis=axis, size=y.shape[axis] - 1, step=1), axis=axis)
    finite = ne(y, float("-inf"))
    scan = reverse_scan(exp(keep(finite, previous - y)), g, axis)
    return keep(finite, scan * exp(keep(finite, x - y)))


def _logcumsumexp(x: np.ndarray, *, axis: int) -> np.ndarray:
    if x.dtype.kind != "c":
        return _real_logcumsumexp(x, axis=axis)
    rows = np.moveaxis(np.array(x), axis, 0)
    for i in range(1, len(rows)):
        rows[i] = logaddexp_array(rows[i - 1], rows[i])
    return np.moveaxis(rows, 0, axis)


_real_logcumsumexp = _accumulate(np.logaddexp)
logcumsumexp = along("logcumsumexp", _logcumsumexp, _logcumsumexp_vjp, result="float",
                     through=across_scan.logcumsumexp)


def _running(name: str, function: np.ufunc, through: Callable[..., Any]) -> Op:
    """Makes a running extreme; of equal elements the last one's position counts, and NaN wins."""

    def kernel(x: np.ndarray, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
        if x.size >= compiled.LEAST and compiled.fits(x):
            from distgrad.kernels.scans import running_extreme

            return running_extreme(x, axis, 1.0 if function is np.maximum else -1.0)
        values = function.accumulate(x, axis=axis)
        places = np.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - axis - 1))
        found = (x == values) | np.isnan(x)
        return values, np.maximum.accumulate(np.where(found, places, 0), axis=axis)

    def vjp(g: tuple[Any, Any], indices: Any, x_shape: tuple[int, ...], x_sharded: int | None, axis: int) -> Any:
        from distgrad.ops.indexing import add_along

        return add_along(g[0], indices, shape=x_shape, axis=axis, sharded=x_sharded)

    return along(name, kernel, vjp, outputs="values indices", second="int64", through=through)


cummax = _running("cummax", np.maximum, across_scan.cummax)
cummin = _running("cummin", np.minimum, across_scan.cummin)


# Differences of neighbours ----------------------------------------------------------------------------------


def _cut(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop))


def _difference(x: np.ndarray, *, axis: int) -> np.ndarray:
    return x[_cut(axis, 1, None)] - x[_cut(axis, None, -1)]


def _difference_back(g: np.ndarray, *, axis: int) -> np.ndarray:
    out = np.zeros((*g.shape[:axis], g.shape[axis] + 1, *g.shape[axis + 1 :]), g.dtype)
    out[_cut(axis, 1, None)] = g
    out[_cut(axis, None, -1)] -= g
    return out


def _longer(rows: int) -> Callable[..., MetaResult]:
    def meta(x: TensorMeta, *, axis: int) -> MetaResult:
        return (TensorMeta.of((*x.shape[:axis], x.shape[axis] + rows, *x.shape[axis + 1 :]), x.dtype),), None

    return meta


difference: Op = Op("difference", _difference, meta=_longer(-1), inputs="x", rows=other_dims_rows,
                    vjps=(lambda g, axis: difference_back(g, axis=axis),))
"""Each row along `axis` but the first, minus the row before; there is at least one row."""

difference_back: Op = Op("difference_back", _difference_back, meta=_longer(1), inputs="g", rows=other_dims_rows,
                         vjps=(lambda g, axis: difference(g, axis=axis),), outputs="x")
"""The transpose of `difference`."""


def _central(x: np.ndarray, step: Any, *, axis: int) -> np.ndarray:
    out = np.empty_like(x)
    np.subtract(x[_cut(axis, 2, None)], x[_cut(axis, None, -2)], out=out[_cut(axis, 1, -1)])
    out[_cut(axis, 1, -1)] /= 2 * step
    out[_cut(axis, None, 1)] = (x[_cut(axis, 1, 2)] - x[_cut(axis, None, 1)]) / step
    out[_cut(axis, -1, None)] = (x[_cut(axis, -1, None)] - x[_cut(axis, -2, -1)]) / step
    return out


def _central_back(g: np.ndarray, step: Any, *, axis: int) -> np.ndarray:
    out = np.zeros_like(g)
    inner = g[_cut(axis, 1, -1)] / (2 * step)
    first, last = g[_cut(axis, None, 1)] / step, g[_cut(axis, -1, None)] / step
    out[_cut(axis, 2, None)] = inner
    out[_cut(axis, None, -2)] -= inner
    for place, change in ((_cut(axis, 1, 2), first), (_cut(axis, None, 1), -first),
                          (_cut(axis, -1, None), last), (_cut(axis, -2, -1), -last)):
        out[place] += change
    return out


def _central_meta(x: TensorMeta, step: Any, *, axis: int) -> MetaResult:
    return (x,), None


def _central_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    return (Row((row.ins[0], None), row.outs) for row in other_dims_rows(ins, outs, attrs))


central_difference: Op = Op(
    "central_difference", _central, meta=_central_meta, inputs="x step", rows=_central_rows,
    vjps=(lambda g, step, axis: central_difference_back(g, step, axis=axis), None),
)
"""Slopes along `axis` of samples a number `step` apart: central differences inside, one-sided ones at the ends; there
are at least two rows."""

central_difference_back: Op = Op(
    "central_difference_back", _central_back, meta=_central_meta, inputs="x step", rows=_central_rows,
    vjps=(lambda g, step, axis: central_difference(g, step, axis=axis), None),
)
"""The transpose of `central_difference`."""
