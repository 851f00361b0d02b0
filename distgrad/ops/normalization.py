"""Ops that standardize trailing dims: subtract the mean and divide by the deviation, or divide by the root mean square.

Invariant: outputs are `y` and the reciprocal deviation `rstd`; a gradient rule needs these two alone, so the input is
not saved. With N elements per group and `mean` over them, for a cotangent g of y and h of rstd

    dx = rstd * (g - mean(g) - y * (mean(g * y) + h * rstd / N))

and the same without mean(g) when the mean was not subtracted. Source of the definitions: Ba et al., "Layer
Normalization", arXiv:1607.06450; Zhang and Sennrich, arXiv:1910.07467.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import is_number, other_dims_rows, reduced_shape
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import Entry, MetaResult, Op, Row
from distgrad.ops import across_reduction
from distgrad.ops.elementwise import mul
from distgrad.ops.reduction import sum as sum_over

# Up to this many elements BLAS sums a row as exactly as needed; above it numpy's pairwise sum is used.
_BLAS_ROW = 1 << 16
_ROWS_AT_ONCE = 256


def _row_means(rows: np.ndarray) -> np.ndarray:
    count = rows.shape[1]
    if 0 < count <= _BLAS_ROW:
        return rows @ np.full(count, 1.0 / count, rows.dtype)  # three times as fast as mean(axis=1)
    return np.add.reduce(rows, axis=1) / rows.dtype.type(count)


def _row_mean_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    count = a.shape[1]
    if 0 < count <= _BLAS_ROW:
        return np.vecdot(a, b) / a.dtype.type(count)
    return np.add.reduce(a * b, axis=1) / a.dtype.type(count)


def _as_rows(x: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """Gives the groups as rows of a matrix, in at least single precision."""
    shape = x.shape[: axis[0]]
    rows = x.reshape(prod(shape), prod(x.shape[axis[0] :]))
    return rows if rows.dtype.itemsize > 2 else rows.astype(np.float32)


def _normalize(x: np.ndarray, axis: tuple[int, ...], eps: float, centered: bool
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Gives the standardized x, the reciprocal deviations, and the means where they were subtracted."""
    rows = _as_rows(x, axis)
    mean = None
    if centered:
        mean = _row_means(rows)[:, None]
        rows = rows - mean
        rest = _row_means(rows)[:, None]  # what rounding the first mean left, when it is large
        rows -= rest
        mean = mean + rest
    rstd = 1 / np.sqrt(_row_mean_products(rows, rows) + rows.dtype.type(eps))
    y = np.multiply(rows, rstd[:, None], out=rows if centered else None)
    shape = reduced_shape(x.shape, axis, True)
    return y.astype(x.dtype, copy=False).reshape(x.shape), rstd.reshape(shape), mean


def _standardize(x: np.ndarray, *, axis: tuple[int, ...], eps: float) -> tuple[np.ndarray, np.ndarray]:
    return _normalize(x, axis, eps, True)[:2]


def _rms_standardize(x: np.ndarray, *, axis: tuple[int, ...], eps: float) -> tuple[np.ndarray, np.ndarray]:
    return _normalize(x, axis, eps, False)[:2]


def _standardize_backward(v: np.ndarray, y: np.ndarray, rstd: np.ndarray, extra: Any, *, axis: tuple[int, ...],
                          centered: bool) -> np.ndarray:
    v_rows, y_rows = _as_rows(v, axis), _as_rows(y, axis)
    slope = _row_mean_products(v_rows, y_rows)[:, None]
    slope = slope + (extra.reshape(-1, 1) if isinstance(extra, np.ndarray) else slope.dtype.type(extra))
    result = y_rows * -slope
    result += v_rows
    if centered:
        result -= _row_means(v_rows)[:, None]
    result *= rstd.reshape(-1, 1)
    return result.astype(v.dtype, copy=False).reshape(v.shape)


def _meta(name: str) -> Any:
    def meta(x: TensorMeta, *, axis: tuple[int, ...], eps: float) -> MetaResult:
        if x.dtype.category != 2:
            raise NotImplementedError(f"{name}: not implemented for dtype {x.dtype.name}; allowed: floating point")
        kind = dtypes.float32 if x.dtype.itemsize == 2 else x.dtype
        return (x, TensorMeta.of(reduced_shape(x.shape, axis, True), kind)), None

    return meta


def _backward_meta(v: TensorMeta, y: TensorMeta, rstd: TensorMeta, extra: Any, *, axis: tuple[int, ...],
                   centered: bool) -> MetaResult:
    kind = dtypes.promote_types(v.dtype, y.dtype)
    return (TensorMeta.of(v.shape, kind),), (kind, kind, None, None)


def _backward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(attrs["axis"][0]):
        yield Row((dim, dim, dim, None if is_number(ins[3]) else dim), (dim,))
    for dim in attrs["axis"]:
        yield Row((dim, dim, None, None), (dim,), through=across_reduction.standardize_backward)


def _forward_rows(through: Any) -> Any:
    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        for dim in attrs["axis"]:
            yield Row((dim,), (dim, None), through=through)

    return rows


def _share(y: Any, axis: tuple[int, ...]) -> float:
    """Gives one over the number of elements of a group."""
    return 1.0 / max(prod(y.shape[axis[0] :]), 1)


def _input_rule(centered: bool) -> Any:
    def rule(g: Any, y: Any, rstd: Any, axis: tuple[int, ...]) -> Any:
        g_y, g_rstd = g
        extra = 0.0 if g_rstd is None else mul(mul(g_rstd, rstd), _share(y, axis))
        return standardize_backward(g_y, y, rstd, extra, axis=axis, centered=centered)

    return rule


def _backward_y_rule(g: Any, v: Any, y: Any, rstd: Any, extra: Any, axis: tuple[int, ...]) -> Any:
    share = _share(y, axis)
    slope = mul(sum_over(mul(v, y), axis=axis, keepdims=True), share) + extra
    back = mul(sum_over(mul(g, y), axis=axis, keepdims=True), share)
    return -mul(mul(g, slope) + mul(v, back), rstd)


standardize = Op("standardize", _standardize, meta=_meta("layer_norm"), inputs="x", outputs="y rstd",
                 rows=_forward_rows(across_reduction.standardize), vjps=(_input_rule(True),))
rms_standardize = Op("rms_standardize", _rms_standardize, meta=_meta("rms_norm"), inputs="x", outputs="y rstd",
                     rows=_forward_rows(across_reduction.rms_standardize), vjps=(_input_rule(False),))

# rstd * (v - mean(v) - y * (mean(v * y) + extra)): symmetric in v, so its own derivative but for `extra`.
standardize_backward: Op = Op(
    "standardize_backward", _standardize_backward, meta=_backward_meta, inputs="v y rstd extra", outputs="result",
    rows=_backward_rows,
    vjps=(
        lambda g, y, rstd, axis, centered: standardize_backward(g, y, rstd, 0.0, axis=axis, centered=centered),
        _backward_y_rule,
        lambda g, result, rstd, axis: sum_over(mul(g, result), axis=axis, keepdims=True) / rstd,
        lambda g, y, rstd, axis: -mul(sum_over(mul(g, y), axis=axis, keepdims=True), rstd),
    ),
)


# Layer normalization with weight and bias -------------------------------------------------------------------
# One op, because it is a few passes over memory in one kernel, where its parts are a dozen.


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, axis: tuple[int, ...], eps: float
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lead = x.shape[: axis[0]]
    shape = reduced_shape(x.shape, axis, True)
    if x.size >= compiled.LEAST and compiled.fits(x) and compiled.fits(weight, bias):
        from distgrad.kernels import norms

        y, mean, rstd = norms.layer_norm(x.reshape(prod(lead), weight.size), weight.reshape(-1), bias.reshape(-1), eps)
        return y.reshape(x.shape), mean.reshape(shape), rstd.reshape(shape)
    y, rstd, middle = _normalize(x, axis, eps, True)
    assert middle is not None
    return _affine(y, weight, bias), middle.reshape(shape), rstd


def _layer_norm_backward(v: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray, *,
                         axis: tuple[int, ...], eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lead = axis[0]
    if x.size >= compiled.LEAST and compiled.fits(v, x) and compiled.fits(mean, rstd) and compiled.fits(weight):
        from distgrad.kernels import norms

        rows = (prod(x.shape[:lead]), weight.size)
        dx, *others = norms.layer_norm_backward(v.reshape(rows), x.reshape(rows), mean.reshape(-1), rstd.reshape(-1),
                                                weight.reshape(-1))
        return dx.reshape(x.shape), others[0].reshape(weight.shape), others[1].reshape(weight.shape)
    y = ((x - mean) * rstd).astype(x.dtype, copy=False)
    dx = _standardize_backward(v * weight, y, rstd, 0.0, axis=axis, centered=True)
    return dx, _sum_products(v, y, lead=lead), np.add.reduce(v, axis=tuple(range(lead)))


def _layer_norm_meta(x: TensorMeta, weight: TensorMeta, bias: TensorMeta, *, axis: tuple[int, ...], eps: float
                     ) -> MetaResult:
    (y, rstd), _ = standardize.meta(x, axis=axis, eps=eps)
    return (y, rstd, rstd), None


def _layer_norm_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(attrs["axis"][0]):
        yield Row((dim, None, None), (dim, dim, dim))


def _layer_norm_backward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(attrs["axis"][0]):
        yield Row((dim, dim, None, dim, dim), (dim, "sum", "sum"))
    yield Row(("sum", None, None, None, None), ("sum", "sum", "sum"))


def _layer_norm_second(g: Any, v: Any, x: Any, weight: Any, axis: tuple[int, ...], eps: float) -> Any:
    """Differentiates the gradients dx, dweight and dbias by v, x and weight; the statistics are functions of x.

    With y the standardized x, u = v * weight and back(a) = rstd * (a - mean(a) - y * mean(a * y)), which is symmetric:
    dx = back(u), dweight = sum(v * y), dbias = sum(v). The cotangent of y is collected, then passed through `standardize`.
    """
    a, b, c = g
    y, rstd = standardize(x, axis=axis, eps=eps)
    share = _share(y, axis)
    u = mul(v, weight)
    back = standardize_backward(a, y, rstd, 0.0, axis=axis, centered=True)
    dx = standardize_backward(u, y, rstd, 0.0, axis=axis, centered=True)
    to_v = mul(back, weight) + mul(y, b) + c
    to_weight = sum_products(v, back, lead=axis[0])
    slopes = [mul(sum_over(mul(t, y), axis=axis, keepdims=True), share) for t in (u, a)]
    to_y = mul(v, b) - mul(mul(a, slopes[0]) + mul(u, slopes[1]), rstd)
    to_rstd = mul(sum_over(mul(a, dx), axis=axis, keepdims=True), share)  # times rstd over the count, as `extra` is
    return to_v, standardize_backward(to_y, y, rstd, to_rstd, axis=axis, centered=True), to_weight, None, None


layer_norm: Op = Op(
    "layer_norm", _layer_norm, meta=_layer_norm_meta, inputs="x weight bias", outputs="y mean rstd",
    rows=_layer_norm_rows,
    joint_vjp=lambda g, x, weight, mean, rstd, axis, eps: layer_norm_backward(
        g[0], x, weight, mean, rstd, axis=axis, eps=eps),
)
"""The standardized x times weight plus bias, of the shape of the dims `axis`. Nobody but the rule reads mean and rstd."""

layer_norm_backward: Op = Op(
    "layer_norm_backward", _layer_norm_backward, inputs="v x weight mean rstd", outputs="dx dweight dbias",
    meta=lambda v, x, weight, mean, rstd, **attrs: ((x, weight, weight), (x.dtype, None, None, None, None)),
    rows=_layer_norm_backward_rows, joint_vjp=_layer_norm_second,
)


# Scale and shift of the trailing dims -----------------------------------------------------------------------


def _affine(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    y = x * weight
    return np.add(y, bias, out=y) if isinstance(y, np.ndarray) else np.asarray(y + bias)


def _affine_meta(x: TensorMeta, weight: TensorMeta, bias: TensorMeta) -> MetaResult:
    kind = dtypes.result_type([x, weight, bias])
    return (TensorMeta.of(x.shape, kind),), (kind, kind, kind)


def _affine_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    lead = ins[0].ndim - ins[1].ndim
    for dim in range(ins[0].ndim):
        own: Entry = dim - lead if dim >= lead else None
        yield Row((dim, own, own), (dim,))


def _sum_products(a: np.ndarray, b: np.ndarray, *, lead: int) -> np.ndarray:
    shape = a.shape[lead:]
    a, b = a.reshape(prod(a.shape[:lead]), prod(shape)), b.reshape(prod(b.shape[:lead]), prod(shape))
    wide = a.dtype if a.dtype.itemsize > 2 else np.dtype(np.float32)
    total = np.zeros(a.shape[1], wide)
    for first in range(0, a.shape[0], _ROWS_AT_ONCE):  # two levels of sums keep the rounding small
        part = slice(first, first + _ROWS_AT_ONCE)
        total += np.add.reduce(np.multiply(a[part], b[part], dtype=wide), axis=0)
    return total.astype(a.dtype, copy=False).reshape(shape)


def _sum_products_meta(a: TensorMeta, b: TensorMeta, *, lead: int) -> MetaResult:
    kind = dtypes.promote_types(a.dtype, b.dtype)
    return (TensorMeta.of(a.shape[lead:], kind),), (kind, kind)


def _sum_products_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    lead = attrs["lead"]
    for dim in range(ins[0].ndim):
        yield Row((dim, dim), ("sum" if dim < lead else dim - lead,))
    yield Row(("sum", None), ("sum",))
    yield Row((None, "sum"), ("sum",))


# x * weight + bias, where weight and bias have the shape of x's trailing dims.
affine = Op("affine", _affine, meta=_affine_meta, inputs="x weight bias", rows=_affine_rows,
            vjps=(
                lambda g, weight: mul(g, weight),
                lambda g, x, weight_shape: sum_products(g, x, lead=len(x.shape) - len(weight_shape)),
                lambda g: g,
            ))

# The sum of a * b over the first `lead` dims.
sum_products: Op = Op("sum_products", _sum_products, meta=_sum_products_meta, inputs="a b", rows=_sum_products_rows,
                  vjps=(lambda g, b: mul(b, g), lambda g, a: mul(a, g)))
