"""Euclidean distances between all pairs of two sets of points.

Invariant: neither the kernel nor the gradient ever holds all differences (P, R, M), only matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_blocks
from distgrad.ops.contraction import matmul
from distgrad.ops.elementwise import keep, ne, where
from distgrad.ops.linalg_common import column, mt
from distgrad.ops.reduction import sum as sum_of


def _distances(a: np.ndarray, b: np.ndarray, *, by_product: bool) -> np.ndarray:
    if not by_product:
        out = np.zeros((*a.shape[:-1], b.shape[-2]), a.dtype)
        for row in range(a.shape[-2]):  # one row at a time, so that the differences stay in the cache
            difference = b - a[..., row, None, :]
            out[..., row, :] = np.sqrt(np.einsum("...m,...m->...", difference, difference))
        return out
    squares = np.einsum("...m,...m->...", a, a)[..., :, None] + np.einsum("...m,...m->...", b, b)[..., None, :]
    return np.sqrt(np.maximum(squares - 2 * (a @ b.swapaxes(-2, -1)), 0))


def _distances_meta(a: TensorMeta, b: TensorMeta, *, by_product: bool) -> MetaResult:
    return (TensorMeta.of((*a.shape[:-1], b.shape[-2]), a.dtype),), None


def _distances_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    last = outs[0].ndim - 1
    for dim in range(last - 1):
        yield Row((dim, dim), (dim,))
    yield Row((last - 1, None), (last - 1,))
    yield Row((None, last - 1), (last,))
    yield Row((last - 1, last - 1), (last - 1,), through=across_blocks.distances_right)
    yield Row((last - 1, last - 1), (last,), through=across_blocks.distances_left)


def _weights(g: Any, y: Any) -> Any:
    apart = ne(y, 0)
    return keep(apart, g / where(apart, y, 1.0))


def _toward(weights: Any, a: Any, b: Any) -> Any:
    """Gives for each point of `a` the weighted sum of its differences from the points of `b`."""
    total = sum_of(weights, axis=(weights.ndim - 1,), keepdims=False)
    return a * column(total) - matmul(weights, b)


distances = Op(
    "distances", _distances, meta=_distances_meta, inputs="a b", rows=_distances_rows,
    vjps=(
        lambda g, y, a, b: _toward(_weights(g, y), a, b),
        lambda g, y, a, b: _toward(mt(_weights(g, y)), b, a),
    ),
)
"""|a_i - b_j| for points a (..., P, M) and b (..., R, M) of equal batch dims; `by_product`: from a matrix product,
quicker and less exact for close points. At distance 0 its gradient is 0, as in PyTorch."""
