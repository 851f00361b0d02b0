"""Batch and group normalization with weight and bias per channel, as one op each: few passes over memory.

Statistics are those of the global tensor. A worker gives the means of its own elements and the squares around them, which
are put together in rank order without loss (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1979). Source of the definitions: Ioffe and Szegedy, arXiv:1502.03167; Wu and He, arXiv:1803.08494.

With y the standardized x and means over the N elements of a channel (group), for a cotangent v of the result

    dx = rstd * (u - mean(u) - y * mean(u * y)), u = v * weight;   dweight = sum(v * y);   dbias = sum(v)

Invariant: nobody but the rule reads the reciprocal deviations or differentiates by statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad.grad_mode import mode
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row, exchanging
from distgrad.ops.across import Rounds, block_sizes, to_all
from distgrad.ops.elementwise import mul, rsqrt
from distgrad.ops.movement import reshape
from distgrad.ops.normalization import standardize, standardize_backward
from distgrad.ops.reduction import sum as sum_over

Pair = tuple[np.ndarray, np.ndarray]


def _three(x: np.ndarray) -> np.ndarray:
    """Gives (N, C, *) as (N, C, S)."""
    return x.reshape(x.shape[0], x.shape[1], prod(x.shape[2:]))


def _count(shape: tuple[int, ...]) -> int:
    """Gives how many elements of each channel there are."""
    return shape[0] * prod(shape[2:])


def _per_channel(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1)


def _loops(*arrays: np.ndarray) -> bool:
    """Says whether compiled loops do it."""
    return arrays[0].size >= compiled.LEAST and compiled.fits(*arrays)


def _check(name: str, x: TensorMeta, weight: TensorMeta, bias: TensorMeta) -> None:
    if x.dtype.category != 2 or weight.dtype is not x.dtype or bias.dtype is not x.dtype:
        raise NotImplementedError(
            f"{name}: not implemented for dtypes {x.dtype.name}, {weight.dtype.name} and {bias.dtype.name}; allowed: one "
            "floating-point dtype"
        )


# Over the batch ---------------------------------------------------------------------------------------------


def _moments(x: np.ndarray) -> Pair:
    """Gives the channels' means and their sums of squared distances from them, in double precision."""
    if _loops(x):
        from distgrad.kernels import channel_norms

        return channel_norms.moments(_three(x))
    rows, count = _three(x), max(_count(x.shape), 1)
    mean = np.add.reduce(rows, axis=(0, 2), dtype=np.float64) / count
    around = rows - _per_channel(mean.astype(x.dtype))
    rest = np.add.reduce(around, axis=(0, 2), dtype=np.float64) / count  # what rounding the mean left
    squares = np.add.reduce(np.square(around), axis=(0, 2), dtype=np.float64)
    return mean.astype(x.dtype) + rest, squares - count * rest * rest


def _standardized(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray, eps: float
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kind = x.dtype
    middle, scale = mean.astype(kind), (weight / np.sqrt(variance + eps)).astype(kind)
    if _loops(x):
        from distgrad.kernels import channel_norms

        y = channel_norms.scaled(_three(x), middle, scale, bias).reshape(x.shape)
    else:
        y = _three(x) - _per_channel(middle)
        y *= _per_channel(scale)
        y = np.add(y, _per_channel(bias), out=y).reshape(x.shape)
    return y, middle, variance.astype(kind)


def _batch_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, squares = _moments(x)
    return _standardized(x, weight, bias, mean, squares / max(_count(x.shape), 1), eps)


@exchanging(moves=0)
def _batch_norm_across(context: Any, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, eps: float) -> Rounds:
    """The same over the elements of all workers."""
    parts = yield from to_all(context, *_moments(x))
    placed = context.ins[0]
    rest = _count(placed.shape) // max(placed.shape[placed.placement.dim], 1)
    counts = [size * rest for size in block_sizes(placed)]
    everything = max(sum(counts), 1)
    mean = sum(part[0] * count for part, count in zip(parts, counts)) / everything
    squares = sum(part[1] + count * np.square(part[0] - mean) for part, count in zip(parts, counts) if count)
    return _standardized(x, weight, bias, mean, squares / everything, eps)


def _products(v: np.ndarray, x: np.ndarray, mean: np.ndarray, rstd: np.ndarray) -> Pair:
    """Gives the channels' sums of v and of v times the standardized x, in double precision."""
    if _loops(v, x):
        from distgrad.kernels import channel_norms

        return channel_norms.products(_three(v), _three(x), mean, rstd)
    rows, y = _three(v), (_three(x) - _per_channel(mean)) * _per_channel(rstd)
    return np.add.reduce(rows, axis=(0, 2), dtype=np.float64), np.add.reduce(rows * y, axis=(0, 2), dtype=np.float64)


def _gradients(v: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray, sums: Sequence[Any],
               count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kind = x.dtype
    total, product = ((s / max(count, 1)).astype(kind) for s in sums)
    scale = weight * rstd
    if _loops(v, x):
        from distgrad.kernels import channel_norms

        dx = channel_norms.gradient(_three(v), _three(x), mean, rstd, scale, total, product).reshape(x.shape)
    else:
        dx = (_three(x) - _per_channel(mean)) * _per_channel(-rstd * product)
        dx += _three(v)
        dx -= _per_channel(total)
        dx = np.multiply(dx, _per_channel(scale), out=dx).reshape(x.shape)
    return dx, sums[1].astype(kind), sums[0].astype(kind)


def _rstd(variance: np.ndarray, eps: float) -> np.ndarray:
    return (1 / np.sqrt(variance + np.float64(eps))).astype(variance.dtype)


def _batch_norm_backward(v: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, variance: np.ndarray, *,
                         eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rstd = _rstd(variance, eps)
    return _gradients(v, x, weight, mean, rstd, _products(v, x, mean, rstd), _count(x.shape))


@exchanging(moves=0)
def _batch_norm_backward_across(context: Any, v: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray,
                                variance: np.ndarray, *, eps: float) -> Rounds:
    """The same with the sums over the elements of all workers."""
    rstd = _rstd(variance, eps)
    parts = yield from to_all(context, *_products(v, x, mean, rstd))
    sums = [sum(part[i] for part in parts[1:]) + parts[0][i] for i in range(2)]
    return _gradients(v, x, weight, mean, rstd, sums, _count(context.ins[1].shape))


def _batch_norm_meta(x: TensorMeta, weight: TensorMeta, bias: TensorMeta, *, eps: float) -> MetaResult:
    _check("batch_norm", x, weight, bias)
    return (x, weight, weight), None


def _batch_norm_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    yield Row((1, 0, 0), (1, 0, 0))
    for dim in (0, *range(2, ins[0].ndim)):
        yield Row((dim, None, None), (dim, None, None), through=_batch_norm_across)


def _batch_norm_backward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    yield Row((1, 1, 0, 0, 0), (1, 0, 0))
    yield Row(("sum", None, None, None, None), ("sum", "sum", "sum"))
    for dim in (0, *range(2, ins[0].ndim)):
        yield Row((dim, dim, None, None, None), (dim, None, None), through=_batch_norm_backward_across)


def _wide(values: Any, ndim: int) -> Any:
    """Gives (C,) values a shape that broadcasts over (N, C, *)."""
    return reshape(values, shape=(*values.shape, *(1,) * (ndim - 2)))


def _differentiable(v: Any, x: Any, weight: Any, eps: float) -> list[Any]:
    """Gives the gradients by ops that have gradients themselves."""
    axis = (0, *range(2, len(x.shape)))
    share = 1.0 / max(_count(tuple(x.shape)), 1)
    around = x - mul(sum_over(x, axis=axis, keepdims=True), share)
    rstd = rsqrt(mul(sum_over(mul(around, around), axis=axis, keepdims=True), share) + eps)
    y = mul(around, rstd)
    products = mul(v, y)
    total, product = (mul(sum_over(t, axis=axis, keepdims=True), share) for t in (v, products))
    dx = mul(v - total - mul(y, product), mul(rstd, _wide(weight, len(x.shape))))
    return [dx, sum_over(products, axis=axis, keepdims=False), sum_over(v, axis=axis, keepdims=False)]


def _batch_norm_rule(g: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float) -> Any:
    if mode.enabled:
        return _differentiable(g[0], x, weight, eps)
    return batch_norm_backward(g[0], x, weight, mean, variance, eps=eps)


batch_norm: Op = Op("batch_norm", _batch_norm, meta=_batch_norm_meta, inputs="x weight bias", outputs="y mean variance",
                    rows=_batch_norm_rows, joint_vjp=_batch_norm_rule)
"""x (N, C, *) standardized per channel, times weight plus bias (C,); the means and (biased) variances (C,)."""

batch_norm_backward: Op = Op(
    "batch_norm_backward", _batch_norm_backward, inputs="v x weight mean variance", outputs="dx dweight dbias",
    meta=lambda v, x, weight, mean, variance, **attrs: ((x, weight, weight), (x.dtype, None, None, None, None)),
    rows=_batch_norm_backward_rows,
)


# Over groups of channels ------------------------------------------------------------------------------------


def _groups(x: Any, groups: int) -> tuple[int, int, int]:
    shape = x.shape
    return shape[0], groups, shape[1] // groups * prod(shape[2:])


def _group_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, *, groups: int, eps: float
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if _loops(x):
        from distgrad.kernels import channel_norms

        y, mean, rstd = channel_norms.group_norm(_three(x), groups, weight, bias, eps)
        return y.reshape(x.shape), mean, rstd
    rows = x.reshape(_groups(x, groups))
    count = max(rows.shape[2], 1)
    mean = (np.add.reduce(rows, axis=2, keepdims=True, dtype=np.float64) / count).astype(x.dtype)
    around = rows - mean
    rest = (np.add.reduce(around, axis=2, keepdims=True, dtype=np.float64) / count).astype(x.dtype)
    around -= rest
    variance = np.add.reduce(np.square(around), axis=2, keepdims=True, dtype=np.float64) / count
    rstd = (1 / np.sqrt(variance + eps)).astype(x.dtype)
    around *= rstd
    y = _three(around.reshape(x.shape)) * _per_channel(weight)
    return np.add(y, _per_channel(bias), out=y).reshape(x.shape), (mean + rest)[:, :, 0], rstd[:, :, 0]


def _group_norm_backward(v: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray, *, groups: int
                         ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if _loops(v, x):
        from distgrad.kernels import channel_norms

        dx, dweight, dbias = channel_norms.group_norm_backward(_three(v), _three(x), groups, weight, mean, rstd)
        return dx.reshape(x.shape), dweight, dbias
    shape = _groups(x, groups)
    count = max(shape[2], 1)
    y = (x.reshape(shape) - mean[:, :, None]) * rstd[:, :, None]
    u = (_three(v) * _per_channel(weight)).reshape(shape)
    total, product = (
        (np.add.reduce(t, axis=2, keepdims=True, dtype=np.float64) / count).astype(x.dtype) for t in (u, u * y)
    )
    dx = (u - total - y * product) * rstd[:, :, None]
    products = _three(y.reshape(x.shape)) * _three(v)
    dweight, dbias = (np.add.reduce(t, axis=(0, 2), dtype=np.float64).astype(x.dtype) for t in (products, _three(v)))
    return dx.reshape(x.shape), dweight, dbias


def _group_norm_meta(x: TensorMeta, weight: TensorMeta, bias: TensorMeta, *, groups: int, eps: float) -> MetaResult:
    _check("group_norm", x, weight, bias)
    statistics = TensorMeta.of((x.shape[0], groups), x.dtype)
    return (x, statistics, statistics), None


def _group_norm_rule(g: Any, x: Any, weight: Any, mean: Any, rstd: Any, groups: int, eps: float) -> Any:
    if not mode.enabled:
        return group_norm_backward(g[0], x, weight, mean, rstd, groups=groups)
    v, shape, rows = g[0], tuple(x.shape), _groups(x, groups)
    y, deviation = standardize(reshape(x, shape=rows), axis=(2,), eps=eps)
    u = reshape(mul(v, _wide(weight, len(shape))), shape=rows)
    dx = standardize_backward(u, y, deviation, 0.0, axis=(2,), centered=True)
    axis = (0, *range(2, len(shape)))
    products = mul(v, reshape(y, shape=shape))
    return [reshape(dx, shape=shape), sum_over(products, axis=axis, keepdims=False), sum_over(v, axis=axis, keepdims=False)]


group_norm: Op = Op(
    "group_norm", _group_norm, meta=_group_norm_meta, inputs="x weight bias", outputs="y mean rstd",
    rows=lambda ins, outs, attrs: [Row((0, None, None), (0, 0, 0))], joint_vjp=_group_norm_rule,
)
"""x (N, C, *) standardized per group of channels, times weight plus bias (C,); means and reciprocal deviations (N, groups)."""

group_norm_backward: Op = Op(
    "group_norm_backward", _group_norm_backward, inputs="v x weight mean rstd", outputs="dx dweight dbias",
    meta=lambda v, x, weight, mean, rstd, **attrs: ((x, weight, weight), (x.dtype, None, None, None, None)),
    rows=lambda ins, outs, attrs: [
        Row((0, 0, None, 0, 0), (0, "sum", "sum")), Row(("sum", None, None, None, None), ("sum", "sum", "sum"))
    ],
)
