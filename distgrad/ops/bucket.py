"""The bucket: one all-reduce of many gradients. Only the lowering makes it; it is never called by users."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from distgrad.op import MetaResult, Op


def _meta(*inputs: Any, reduce: str) -> MetaResult:
    return tuple(inputs), None


def _kernel(context: Any, *arrays: np.ndarray, reduce: str) -> Generator[Any, Any, tuple[np.ndarray, ...]]:
    from distgrad.runtime import collectives

    whole = [np.ascontiguousarray(a).reshape(a.shape) for a in arrays]
    reduced = yield from collectives.all_reduce(context.rank, context.world_size, whole, reduce)
    return tuple(r.reshape(a.shape) for r, a in zip(reduced, arrays))


bucket = Op("bucket", _kernel, meta=_meta, inputs="*", collective=True)
