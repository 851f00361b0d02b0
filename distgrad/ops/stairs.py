"""Products of square matrices of which only a staircase counts: the blocks on and below the diagonal.

Causal attention needs its scores, and multiplies its weights, up to each position only. Rows in blocks of which each
takes the columns up to its own end leave out almost half of the work.

Invariant: an op is the product with everything above the staircase taken as 0, exactly; where the steps are follows from the
number of rows alone. Each derivative is another of the three ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from distgrad.dtypes import HALVES
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.contraction import same_dtype

LEAST_ROWS = 64  # of fewer, whole products take as long
_STEP, _STEPS = 32, 16  # rows of a step at least, and about how many there are at most


@lru_cache(maxsize=256)
def steps(rows: int) -> tuple[tuple[int, int], ...]:
    """Gives the first and the past-last row of each step."""
    size = max(_STEP, -(-rows // _STEPS))
    return tuple((first, min(first + size, rows)) for first in range(0, rows, size))


def _wide(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (a.astype(np.float32), b.astype(np.float32)) if a.dtype.char in HALVES else (a, b)


def _scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y = _wide(a, b)
    rows = a.shape[-2]
    out = np.empty((*a.shape[:-1], rows), x.dtype)
    turned = np.ascontiguousarray(y.swapaxes(-2, -1))  # small products take rows faster than columns
    for first, last in steps(rows):
        np.matmul(x[..., first:last, :], turned[..., :last], out=out[..., first:last, :last])
        out[..., first:last, last:] = 0
    return out.astype(a.dtype, copy=False)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y = _wide(a, b)
    out = np.empty((*a.shape[:-1], b.shape[-1]), x.dtype)
    for first, last in steps(a.shape[-1]):
        np.matmul(x[..., first:last, :last], y[..., :last, :], out=out[..., first:last, :])
    return out.astype(a.dtype, copy=False)


def _turned(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y = _wide(a, b)
    out = np.empty((*a.shape[:-1], b.shape[-1]), x.dtype)
    turned = x.swapaxes(-2, -1)
    for first, last in steps(a.shape[-1]):
        np.matmul(turned[..., first:last, first:], y[..., first:, :], out=out[..., first:last, :])
    return out.astype(a.dtype, copy=False)


def _scores_meta(a: TensorMeta, b: TensorMeta) -> MetaResult:
    return (TensorMeta.of((*a.shape[:-1], a.shape[-2]), same_dtype("matmul", a, b)),), None


def _product_meta(a: TensorMeta, b: TensorMeta) -> MetaResult:
    return (TensorMeta.of(b.shape, same_dtype("matmul", a, b)),), None


def _rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim - 2):
        yield Row((dim, dim), (dim,))
    yield Row(("sum", None), ("sum",))
    yield Row((None, "sum"), ("sum",))


stair_scores: Op = Op(
    "stair_scores", _scores, meta=_scores_meta, inputs="a b", rows=_rows,
    vjps=(lambda g, b: stair_product(g, b), lambda g, a: stair_product_turned(g, a)))
"""(..., L, E) and (..., L, E): a @ b^T up to the staircase, 0 above it."""

stair_product: Op = Op(
    "stair_product", _product, meta=_product_meta, inputs="a b", rows=_rows,
    vjps=(lambda g, b: stair_scores(g, b), lambda g, a: stair_product_turned(a, g)))
"""(..., L, L) and (..., L, E): a @ b, as if a were 0 above the staircase."""

stair_product_turned: Op = Op(
    "stair_product_turned", _turned, meta=_product_meta, inputs="a b", rows=_rows,
    vjps=(lambda g, b: stair_scores(b, g), lambda g, a: stair_product(a, g)))
"""(..., L, L) and (..., L, E): a^T @ b, as if a were 0 above the staircase."""
