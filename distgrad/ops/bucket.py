"""The bucket: one reduction of many gradients. Only the lowering makes it; it is never called by users.

Invariant: each value comes out as its output spec says, whole on every worker or cut along the first dim.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from distgrad.op import MetaResult, Op
from distgrad.placement import Shard


def _meta(*inputs: Any, reduce: str) -> MetaResult:
    return tuple(inputs), None


def _kernel(
    context: Any, *arrays: np.ndarray, reduce: str, reuse: Sequence[bool] = ()
) -> Generator[Any, Any, tuple[np.ndarray, ...]]:
    """Reduces all arrays at once, over the memory of those that nobody needs afterwards (`reuse`)."""
    from distgrad.runtime import collectives, slices

    if context.world_size == 1:
        return arrays
    whole = [a if a.flags.c_contiguous else np.ascontiguousarray(a) for a in arrays]
    offsets = [spec.placement.offsets if isinstance(spec.placement, Shard) else None for spec in context.outs]
    if any(cuts is not None for cuts in offsets):
        return tuple((yield from slices.reduce_scatter_all(context.rank, context.world_size, whole, offsets, reduce)))
    # A contiguous copy is ours anyway.
    out = [
        w if w is not a or (reuse and reuse[i]) else np.empty(a.shape, a.dtype)
        for i, (a, w) in enumerate(zip(arrays, whole))
    ]
    return tuple((yield from collectives.all_reduce(context.rank, context.world_size, whole, reduce, out)))


bucket = Op("bucket", _kernel, meta=_meta, inputs="*", collective=True, reuses=True)
