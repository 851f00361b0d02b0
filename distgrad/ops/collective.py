"""Redistribution: the one op that changes a tensor's placement. It is linear; its gradient is the cotangent."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from distgrad.families import identity_of
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.placement import Partial, Placement, Replicate, Shard


def _meta(x: TensorMeta, *, placement: Placement) -> MetaResult:
    return (x,), None


def block_of(array: np.ndarray, dim: int, start: int, stop: int) -> np.ndarray:
    """Gives rows [start, stop) along a dim, as a view."""
    return array[(slice(None),) * dim + (slice(start, stop),)]


def _nothing(shape: tuple[int, ...], kind: np.dtype, reduce: str) -> np.ndarray:
    """Gives what changes nothing in a reduction: negative zeros for a sum, so that the sign of a zero survives it."""
    if reduce in ("max", "min"):
        return np.full(shape, identity_of(reduce, kind), kind)
    if reduce == "prod":
        return np.ones(shape, kind)
    return np.zeros(shape, kind) if kind.kind in "biu" else np.full(shape, -0.0, kind)


def _kernel(
    context: Any, x: np.ndarray, *, placement: Placement, reuse: Sequence[bool] = ()
) -> Generator[Any, Any, np.ndarray]:
    """Exchanges what must move between the placements of the context's specs; may reduce over the memory of `x`."""
    from distgrad.runtime import collectives

    rank, world_size = context.rank, context.world_size
    over = bool(reuse) and reuse[0]
    if not isinstance(context.ins[0].placement, Replicate) and not x.flags.c_contiguous:
        x, over = np.ascontiguousarray(x), True
    source, shape = context.ins[0].placement, context.ins[0].meta.shape
    if source is placement:
        return x
    if isinstance(source, Partial):
        if isinstance(placement, Shard) and source.reduce == "sum":
            assert placement.offsets is not None
            return (yield from collectives.reduce_scatter(rank, world_size, x, placement.dim, placement.offsets))
        whole = x
        if world_size > 1:
            (whole,) = yield from collectives.all_reduce(rank, world_size, [x], source.reduce, [x] if over else None)
        if isinstance(placement, Replicate):
            return whole
        x, source = whole, Replicate()
    if isinstance(source, Replicate):
        if isinstance(placement, Shard):
            block = block_of(x, placement.dim, *placement.block(rank))
            return block if 0 in block.strides else np.ascontiguousarray(block)
        assert isinstance(placement, Partial)
        return x if rank == 0 else _nothing(shape, x.dtype, placement.reduce)
    assert isinstance(source, Shard)
    assert source.offsets is not None
    if isinstance(placement, Replicate):
        return (yield from collectives.all_gather(rank, world_size, x, source.dim, source.offsets, shape))
    if isinstance(placement, Shard):
        assert placement.offsets is not None
        return (
            yield from collectives.redistribute(
                rank, world_size, x, shape, source.dim, source.offsets, placement.dim, placement.offsets
            )
        )
    assert isinstance(placement, Partial)
    whole = _nothing(shape, x.dtype, placement.reduce)
    block_of(whole, source.dim, *source.block(rank))[...] = x
    return whole


redistribute = Op("redistribute", _kernel, meta=_meta, inputs="x", vjps=(lambda g: g,), collective=True, reuses=True)
