"""Ops that draw random numbers: every element has its own words of the generator's stream.

Invariant: an element depends on the stream, on the position where its tensor's words start and on its own global
position alone, so any sharding gives the numbers of the unsharded tensor. Seed and position are inputs: another step is
not another program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import draws, dtypes
from distgrad.families import elementwise_rows, shape_of
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.creation import Block, created_meta, created_rows, with_block
from distgrad.ops.elementwise import vanish
from distgrad.placement import Shard, Spec

IN_RUNS = -2
"""What normal ops get as `cached` when their numbers are made in runs of 16, not in pairs."""

Shape = tuple[int, ...]


def _numpy(dtype: str) -> np.dtype:
    return dtypes.named(dtype).numpy


# Numbers from numbers ---------------------------------------------------------------------------------------


def _uniform(low: float, high: float, seed: int, position: int, *, shape: Shape, dtype: str,
             block: Block | None = None) -> np.ndarray:
    return draws.uniform(seed, position, shape, _numpy(dtype), float(low), float(high), block)


def _normal(mean: float, std: float, seed: int, position: int, cached: int, *, shape: Shape, dtype: str,
            block: Block | None = None) -> np.ndarray:
    if cached == IN_RUNS:
        return draws.normal(seed, position, shape, _numpy(dtype), mean, std, block)
    return draws.normal_pairs(seed, position, cached, shape, _numpy(dtype), mean, std, block)


def _exponential(rate: float, seed: int, position: int, *, shape: Shape, dtype: str,
                 block: Block | None = None) -> np.ndarray:
    return draws.exponential(seed, position, shape, _numpy(dtype), float(rate), block)


def _randint(low: int, count: int, wide: bool, seed: int, position: int, *, shape: Shape, dtype: str,
             block: Block | None = None) -> np.ndarray:
    return draws.integers(seed, position, shape, low, count, bool(wide), _numpy(dtype), block)


def _bernoulli(p: float, seed: int, position: int, *, shape: Shape, dtype: str,
               block: Block | None = None) -> np.ndarray:
    return draws.bernoulli(seed, position, shape, float(p), _numpy(dtype), block)


def _log_normal(mean: float, std: float, seed: int, position: int, cached: int, *, shape: Shape, dtype: str,
                block: Block | None = None) -> np.ndarray:
    return draws.log_normal(seed, position, cached, shape, _numpy(dtype), mean, std, block)


def _cauchy(median: float, sigma: float, seed: int, position: int, *, shape: Shape, dtype: str,
            block: Block | None = None) -> np.ndarray:
    return draws.cauchy(seed, position, shape, _numpy(dtype), median, sigma, block)


def _geometric(p: float, seed: int, position: int, *, shape: Shape, dtype: str,
               block: Block | None = None) -> np.ndarray:
    return draws.geometric(seed, position, shape, _numpy(dtype), p, block)


def _permutation(seed: int, position: int, *, shape: Shape, dtype: str, block: Block | None = None) -> np.ndarray:
    order = draws.permutation(seed, position, shape[0])
    if block is not None:
        order = order[block[1] : block[2]]
    return order.astype(_numpy(dtype), copy=False)


uniform = Op("uniform", _uniform, meta=created_meta, inputs="low high seed position", rows=created_rows,
             localize=with_block)
normal = Op("normal", _normal, meta=created_meta, inputs="mean std seed position cached", rows=created_rows,
            localize=with_block)
exponential = Op("exponential", _exponential, meta=created_meta, inputs="rate seed position", rows=created_rows,
                 localize=with_block)
randint = Op("randint", _randint, meta=created_meta, inputs="low count wide seed position", rows=created_rows,
             localize=with_block)
bernoulli = Op("bernoulli", _bernoulli, meta=created_meta, inputs="p seed position", rows=created_rows,
               localize=with_block)
log_normal = Op("log_normal", _log_normal, meta=created_meta, inputs="mean std seed position cached",
                rows=created_rows, localize=with_block)
cauchy = Op("cauchy", _cauchy, meta=created_meta, inputs="median sigma seed position", rows=created_rows,
            localize=with_block)
geometric = Op("geometric", _geometric, meta=created_meta, inputs="p seed position", rows=created_rows,
               localize=with_block)
permutation = Op("permutation", _permutation, meta=created_meta, inputs="seed position", rows=created_rows,
                 localize=with_block)


# Numbers from tensors of parameters: as in PyTorch, a draw has a gradient and it is zero ---------------------


def _normal_each(mean: Any, std: Any, seed: int, position: int, cached: int, *, shape: Shape, dtype: str,
                 block: Block | None = None) -> np.ndarray:
    if not np.all(np.asarray(std) >= 0):
        raise RuntimeError("normal: normal expects all elements of std >= 0.0")
    kind = _numpy(dtype)
    values = _normal(0.0, 1.0, seed, position, cached, shape=shape, dtype=dtype, block=block)
    return np.asarray(values * np.asarray(std, kind) + np.asarray(mean, kind)).astype(kind, copy=False)


def _normal_meta(mean: Any, std: Any, *numbers: Any, shape: Shape, dtype: str,
                 block: Block | None = None) -> MetaResult:
    return (TensorMeta.of(shape, dtypes.named(dtype)),), None


normal_each = Op("normal_each", _normal_each, meta=_normal_meta, inputs="mean std seed position cached",
                 rows=elementwise_rows(()), localize=with_block,
                 vjps=(lambda g: vanish(g), lambda g: vanish(g), None, None, None))


def _like_meta(x: TensorMeta, *numbers: Any, shape: Shape, dtype: str, block: Block | None = None) -> MetaResult:
    return (TensorMeta.of(x.shape, dtypes.named(dtype)),), None


def _like_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim):
        yield Row((dim, *(None,) * (len(ins) - 1)), (dim,))


def _bernoulli_each(p: np.ndarray, seed: int, position: int, *, shape: Shape, dtype: str,
                    block: Block | None = None) -> np.ndarray:
    if not np.all((p >= 0) & (p <= 1)):
        raise RuntimeError("bernoulli: Expected p_in >= 0 && p_in <= 1 for every element of the probabilities")
    return draws.bernoulli_each(seed, position, shape, p, _numpy(dtype), block)


bernoulli_each = Op("bernoulli_each", _bernoulli_each, meta=_like_meta, inputs="p seed position", rows=_like_rows,
                    localize=with_block, vjps=(lambda g: vanish(g), None, None))

def _multinomial(p: np.ndarray, seed: int, position: int, *, num_samples: int, replacement: bool, shape: Shape,
                 block: Block | None = None) -> np.ndarray:
    if not (np.all(p >= 0) and np.all(np.isfinite(p))):
        raise RuntimeError("multinomial: probability tensor contains either `inf`, `nan` or element < 0")
    if not np.all(p.sum(-1) > 0):
        raise RuntimeError("multinomial: invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement or num_samples == 1:
        # An exponential race: the first to arrive are the samples; those of probability 0 come last.
        times = draws.exponential(seed, position, shape, p.dtype, 1.0, block)
        speed = np.divide(p, times, out=times)
        if num_samples == 1:
            return np.argmax(speed, -1, keepdims=True).astype(np.int64, copy=False)
        return np.argsort(-speed, -1, kind="stable")[..., :num_samples].astype(np.int64, copy=False)
    samples = draws.standard_uniform(seed, position, (*shape[:-1], num_samples), block)
    single = p.dtype if p.dtype == np.float64 else np.dtype(np.float32)
    cumulative = np.cumsum(p, -1, dtype=single)
    cumulative /= cumulative[..., -1:]
    flat, rows = cumulative.astype(np.float64).reshape(-1, shape[-1]), samples.reshape(-1, num_samples)
    found = np.empty(rows.shape, np.int64)
    for index, (edges, row) in enumerate(zip(flat, rows)):
        found[index] = np.searchsorted(edges, row)
    return found.reshape(samples.shape)


def _multinomial_meta(p: TensorMeta, *numbers: Any, num_samples: int, replacement: bool, shape: Shape,
                      block: Block | None = None) -> MetaResult:
    return (TensorMeta.of((*p.shape[:-1], num_samples), dtypes.int64),), None


def _multinomial_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim - 1):
        yield Row((dim, None, None), (dim,))


multinomial = Op("multinomial", _multinomial, meta=_multinomial_meta, inputs="p seed position", rows=_multinomial_rows,
                 localize=with_block)


# Dropout ----------------------------------------------------------------------------------------------------


def _masked_scale(x: np.ndarray, mask: np.ndarray, keep: float) -> np.ndarray:
    """Gives x * (mask / keep), the quotient rounded to the dtype first as in PyTorch."""
    if x.size >= compiled.LEAST and mask.shape == x.shape and mask.flags.carray and compiled.fits(x):
        from distgrad.kernels import elementwise

        return elementwise.masked_scale(x, mask, x.dtype.type(1) / x.dtype.type(keep))
    y = np.empty(np.broadcast_shapes(x.shape, mask.shape), x.dtype)
    np.multiply(x, mask, out=y)
    return np.multiply(y, x.dtype.type(1) / x.dtype.type(keep), out=y)


def _masked_scale_meta(x: TensorMeta, mask: TensorMeta, keep: Any) -> MetaResult:
    return (x,), None


def _masked_scale_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim, size in enumerate(outs[0].shape):
        yield Row((dim, dim if ins[1].shape[dim] == size else None, None), (dim,))
    yield Row(("sum", None, None), ("sum",))


masked_scale: Op = Op("masked_scale", _masked_scale, meta=_masked_scale_meta, inputs="x mask keep",
                  rows=_masked_scale_rows, vjps=(lambda g, mask, keep: masked_scale(g, mask, keep), None, None))


def _dropout(x: np.ndarray, keep: float, seed: int, position: int, *, mask_shape: Shape,
             block: Block | None = None) -> tuple[np.ndarray, np.ndarray]:
    mask = draws.bernoulli(seed, position, mask_shape, float(keep), np.bool_, block)
    return _masked_scale(x, mask, keep), mask


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


dropout = Op("dropout", _dropout, meta=_dropout_meta, inputs="x keep seed position", outputs="y mask",
             rows=_dropout_rows, localize=_dropout_localize,
             vjps=(lambda g, mask, keep: masked_scale(g[0], mask, keep), None, None, None))
