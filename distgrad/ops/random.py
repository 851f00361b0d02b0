"""Ops that draw random numbers: every element has its own address (seed, stream, global position).

Invariant: an element depends on the seed, the number of the draw (`stream`) and its global position alone, so any
sharding gives the numbers of the unsharded tensor. Seed and stream are inputs: another step is not another program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes, fused, philox
from distgrad.families import elementwise_rows, shape_of
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.creation import Block, created_meta, created_rows, with_block
from distgrad.ops.elementwise import vanish
from distgrad.placement import Shard, Spec

Shape = tuple[int, ...]


def _numpy(dtype: str) -> np.dtype:
    return dtypes.named(dtype).numpy


# Numbers from numbers ---------------------------------------------------------------------------------------


def _uniform(low: float, high: float, seed: int, stream: int, *, shape: Shape, dtype: str,
             block: Block | None = None) -> np.ndarray:
    return philox.uniform(seed, stream, shape, _numpy(dtype), float(low), float(high), block)


def _normal(mean: float, std: float, seed: int, stream: int, *, shape: Shape, dtype: str,
            block: Block | None = None) -> np.ndarray:
    return philox.normal(seed, stream, shape, _numpy(dtype), mean, std, block)


def _exponential(rate: float, seed: int, stream: int, *, shape: Shape, dtype: str,
                 block: Block | None = None) -> np.ndarray:
    return philox.exponential(seed, stream, shape, _numpy(dtype), float(rate), block)


def _randint(low: int, high: int, seed: int, stream: int, *, shape: Shape, dtype: str,
             block: Block | None = None) -> np.ndarray:
    return philox.randint(seed, stream, shape, low, high, _numpy(dtype), block)


def _bernoulli(p: float, seed: int, stream: int, *, shape: Shape, dtype: str, block: Block | None = None) -> np.ndarray:
    return philox.bernoulli(seed, stream, shape, float(p), _numpy(dtype), block)


def _log_normal(mean: float, std: float, seed: int, stream: int, *, shape: Shape, dtype: str,
                block: Block | None = None) -> np.ndarray:
    exponent = philox.normal(seed, stream, shape, np.float64, mean, std, block)
    return np.exp(exponent, out=exponent).astype(_numpy(dtype), copy=False)


def _cauchy(median: float, sigma: float, seed: int, stream: int, *, shape: Shape, dtype: str,
            block: Block | None = None) -> np.ndarray:
    u = philox.uniform(seed, stream, shape, np.float64, block=block)
    return np.asarray(median + sigma * np.tan(np.pi * (u - 0.5))).astype(_numpy(dtype), copy=False)


def _geometric(p: float, seed: int, stream: int, *, shape: Shape, dtype: str, block: Block | None = None) -> np.ndarray:
    # The whole part of an exponential time: P(ceil(T) > n) = (1 - p)**n when T has the rate -log(1 - p).
    time = philox.exponential(seed, stream, shape, np.float64, -math.log1p(-p), block)
    return np.ceil(time, out=time).astype(_numpy(dtype), copy=False)


def _permutation(seed: int, stream: int, *, shape: Shape, dtype: str, block: Block | None = None) -> np.ndarray:
    order = philox.permutation(seed, stream, shape[0])
    if block is not None:
        order = order[block[1] : block[2]]
    return order.astype(_numpy(dtype), copy=False)


uniform = Op("uniform", _uniform, meta=created_meta, inputs="low high seed stream", rows=created_rows,
             localize=with_block)
normal = Op("normal", _normal, meta=created_meta, inputs="mean std seed stream", rows=created_rows,
            localize=with_block)
exponential = Op("exponential", _exponential, meta=created_meta, inputs="rate seed stream", rows=created_rows,
                 localize=with_block)
randint = Op("randint", _randint, meta=created_meta, inputs="low high seed stream", rows=created_rows,
             localize=with_block)
bernoulli = Op("bernoulli", _bernoulli, meta=created_meta, inputs="p seed stream", rows=created_rows,
               localize=with_block)
log_normal = Op("log_normal", _log_normal, meta=created_meta, inputs="mean std seed stream", rows=created_rows,
                localize=with_block)
cauchy = Op("cauchy", _cauchy, meta=created_meta, inputs="median sigma seed stream", rows=created_rows,
            localize=with_block)
geometric = Op("geometric", _geometric, meta=created_meta, inputs="p seed stream", rows=created_rows,
               localize=with_block)
permutation = Op("permutation", _permutation, meta=created_meta, inputs="seed stream", rows=created_rows,
                 localize=with_block)


# Numbers from tensors of parameters: as in PyTorch, a draw has a gradient and it is zero ---------------------


def _normal_each(mean: Any, std: Any, seed: int, stream: int, *, shape: Shape, dtype: str,
                 block: Block | None = None) -> np.ndarray:
    if not np.all(np.asarray(std) >= 0):
        raise RuntimeError("normal: normal expects all elements of std >= 0.0")
    kind = _numpy(dtype)
    return np.asarray(philox.normal(seed, stream, shape, kind, block=block) * std + mean).astype(kind, copy=False)


def _normal_meta(mean: Any, std: Any, *numbers: Any, shape: Shape, dtype: str,
                 block: Block | None = None) -> MetaResult:
    return (TensorMeta.of(shape, dtypes.named(dtype)),), None


normal_each = Op("normal_each", _normal_each, meta=_normal_meta, inputs="mean std seed stream",
                 rows=elementwise_rows(()), localize=with_block,
                 vjps=(lambda g: vanish(g), lambda g: vanish(g), None, None))


def _like_meta(x: TensorMeta, *numbers: Any, shape: Shape, dtype: str, block: Block | None = None) -> MetaResult:
    return (TensorMeta.of(x.shape, dtypes.named(dtype)),), None


def _like_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim):
        yield Row((dim, *(None,) * (len(ins) - 1)), (dim,))


def _bernoulli_each(p: np.ndarray, seed: int, stream: int, *, shape: Shape, dtype: str,
                    block: Block | None = None) -> np.ndarray:
    if not np.all((p >= 0) & (p <= 1)):
        raise RuntimeError("bernoulli: Expected p_in >= 0 && p_in <= 1 for every element of the probabilities")
    return np.asarray(philox.uniform(seed, stream, shape, np.float64, block=block) < p).astype(_numpy(dtype))


def _poisson(rate: np.ndarray, seed: int, stream: int, *, shape: Shape, dtype: str,
             block: Block | None = None) -> np.ndarray:
    if not np.all(rate >= 0):
        raise RuntimeError("poisson: invalid Poisson rate, expected rate to be non-negative")
    from scipy.special import pdtr, pdtrik

    # The smallest count whose cumulative probability reaches u; pdtrik inverts it up to rounding, so look one below.
    u = philox.uniform(seed, stream, shape, np.float64, block=block)
    rate = rate.astype(np.float64)
    count = np.maximum(np.ceil(pdtrik(u, rate)), 0.0)
    below = np.maximum(count - 1, 0.0)
    count = np.where(pdtr(below, rate) >= u, below, count)
    return np.where(rate == 0, 0.0, count).astype(_numpy(dtype))


bernoulli_each = Op("bernoulli_each", _bernoulli_each, meta=_like_meta, inputs="p seed stream", rows=_like_rows,
                    localize=with_block, vjps=(lambda g: vanish(g), None, None))
poisson = Op("poisson", _poisson, meta=_like_meta, inputs="rate seed stream", rows=_like_rows, localize=with_block,
             vjps=(lambda g: vanish(g), None, None))


def _multinomial(p: np.ndarray, seed: int, stream: int, *, num_samples: int, replacement: bool, shape: Shape,
                 block: Block | None = None) -> np.ndarray:
    weights = p.astype(np.float64)
    totals = weights.sum(-1, keepdims=True)
    if not (np.all(weights >= 0) and np.all(np.isfinite(weights))):
        raise RuntimeError("multinomial: probability tensor contains either `inf`, `nan` or element < 0")
    if not np.all(totals > 0):
        raise RuntimeError("multinomial: invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement:
        # An exponential race: the first to arrive are the samples; those of probability 0 come last.
        race = philox.exponential(seed, stream, shape, np.float64, block=block) / weights
        return np.argsort(race, -1, kind="stable")[..., :num_samples].astype(np.int64, copy=False)
    u = philox.uniform(seed, stream, (*shape[:-1], num_samples), np.float64, block=block)
    cumulative = np.cumsum(weights, -1)
    cumulative /= cumulative[..., -1:]
    flat, draws = cumulative.reshape(-1, shape[-1]), u.reshape(-1, num_samples)
    found = np.empty(draws.shape, np.int64)
    for index, (edges, row) in enumerate(zip(flat, draws)):
        found[index] = np.searchsorted(edges, row, side="right")  # skips categories of probability 0
    return found.reshape(u.shape)


def _multinomial_meta(p: TensorMeta, *numbers: Any, num_samples: int, replacement: bool, shape: Shape,
                      block: Block | None = None) -> MetaResult:
    return (TensorMeta.of((*p.shape[:-1], num_samples), dtypes.int64),), None


def _multinomial_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim - 1):
        yield Row((dim, None, None), (dim,))


multinomial = Op("multinomial", _multinomial, meta=_multinomial_meta, inputs="p seed stream", rows=_multinomial_rows,
                 localize=with_block)


# Dropout ----------------------------------------------------------------------------------------------------


def _masked_scale(x: np.ndarray, mask: np.ndarray, scale: float) -> np.ndarray:
    if x.size >= fused.SIZE and mask.shape == x.shape and mask.flags.carray and fused.takes(x):
        from distgrad.fused import elementwise

        return elementwise.masked_scale(x, mask, scale)
    y = np.empty(np.broadcast_shapes(x.shape, mask.shape), x.dtype)
    np.multiply(x, mask, out=y)
    return np.multiply(y, x.dtype.type(scale), out=y)


def _masked_scale_meta(x: TensorMeta, mask: TensorMeta, scale: Any) -> MetaResult:
    return (x,), None


def _masked_scale_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim, size in enumerate(outs[0].shape):
        yield Row((dim, dim if ins[1].shape[dim] == size else None, None), (dim,))
    yield Row(("sum", None, None), ("sum",))


masked_scale: Op = Op("masked_scale", _masked_scale, meta=_masked_scale_meta, inputs="x mask scale",
                  rows=_masked_scale_rows, vjps=(lambda g, mask, scale: masked_scale(g, mask, scale), None, None))


def _dropout(x: np.ndarray, keep: float, seed: int, stream: int, *, mask_shape: Shape,
             block: Block | None = None) -> tuple[np.ndarray, np.ndarray]:
    mask = philox.bernoulli(seed, stream, mask_shape, float(keep), np.bool_, block)
    return _masked_scale(x, mask, 1.0 / keep), mask


def _dropout_meta(x: TensorMeta, *numbers: Any, mask_shape: Shape, block: Block | None = None) -> MetaResult:
    if not x.dtype.category >= 2:
        raise RuntimeError(f"dropout: result type Float can't be cast to {x.dtype!r}; give a floating-point tensor")
    return (x, TensorMeta.of(mask_shape, dtypes.bool_)), None


def _dropout_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim, size in enumerate(shape_of(ins[0])):
        yield Row((dim, None, None, None), (dim, dim if outs[1].shape[dim] == size else None))


def _dropout_localize(attrs: dict[str, Any], ins: Sequence[Spec], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    placement = outs[1].placement
    if not isinstance(placement, Shard):
        return attrs
    return {**attrs, "block": (placement.dim, *placement.block(rank))}


dropout = Op("dropout", _dropout, meta=_dropout_meta, inputs="x keep seed stream", outputs="y mask",
             rows=_dropout_rows, localize=_dropout_localize,
             vjps=(lambda g, mask, keep: masked_scale(g[0], mask, 1.0 / keep), None, None, None))
