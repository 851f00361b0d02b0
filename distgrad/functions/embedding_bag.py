"""Sums, means and maxima of bags of embeddings, with PyTorch's signature.

Invariant: rows of indices (bags of one size) do not depend on each other and stay sharded.
"""

from __future__ import annotations

import math
from typing import Any

from distgrad import dtypes
from distgrad.functions.creation import arange, zeros
from distgrad.functions.indexing import embedding, index_add, scatter_reduce
from distgrad.functions.sorting import searchsorted
from distgrad.ops.elementwise import cast, clamp_min, gt, keep, where
from distgrad.ops.movement import expand

__all__ = ["embedding_bag"]

Tensor = Any


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Gives one row per bag of rows of `weight` (V, D): their "sum", "mean" or "max"; empty bags give 0.

    `input`: (B, n), or (L,) with `offsets` (B,) where bags begin (with `include_last_offset` also where the last ends).
    `per_sample_weights`, the input's shape, weigh the rows of a sum. Indices equal to `padding_idx` count for nothing.
    ValueError for shapes and modes that do not fit. `max_norm`, `scale_grad_by_freq`: see `embedding`.
    PyTorch: F.embedding_bag.
    """
    if weight.dtype is dtypes.int64 and input.dtype.category == 2:
        weight, input = input, weight  # the order of PyTorch's first versions
    if per_sample_weights is not None and tuple(input.shape) != tuple(per_sample_weights.shape):
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({list(per_sample_weights.shape)}) is not None, then it must have "
            f"the same shape as the input ({list(input.shape)})"
        )
    if weight.ndim != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.ndim} (embedding_bag)")
    if input.ndim not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim} (embedding_bag)")
    if input.ndim == 2 and offsets is not None:
        raise ValueError("embedding_bag: if input is 2D, then offsets has to be None: each row is a bag")
    if input.ndim == 1 and (offsets is None or offsets.ndim != 1):
        raise ValueError("embedding_bag: offsets has to be a 1D Tensor when input is 1D")
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode has to be one of sum, mean or max, got {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("embedding_bag: max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("embedding_bag: max mode does not support sparse weights")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            f"embedding_bag: per_sample_weights is only supported for mode='sum' (got mode='{mode}')"
        )
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    counted = None if padding_idx is None else input != padding_idx % weight.shape[0]
    if input.ndim == 2:
        return _of_rows(rows, counted, mode)
    assert offsets is not None
    return _of_ranges(rows, counted, offsets[:-1] if include_last_offset else offsets, mode)


def _of_rows(rows: Tensor, counted: Tensor | None, mode: str) -> Tensor:
    """Reduces dim 1 of (B, n, D)."""
    if not rows.shape[1]:
        return rows.sum(1)
    if mode == "max":
        if counted is None:
            return rows.max(1).values
        most = where(counted.unsqueeze(-1), rows, -math.inf).max(1).values
        return keep(expand(counted.any(1).unsqueeze(-1), shape=tuple(most.shape)), most)
    if counted is None:
        return rows.sum(1) if mode == "sum" else rows.mean(1)
    total = keep(expand(counted.unsqueeze(-1), shape=tuple(rows.shape)), rows).sum(1)
    return total if mode == "sum" else total / clamp_min(counted.sum(1), 1).unsqueeze(-1)


def _of_ranges(rows: Tensor, counted: Tensor | None, offsets: Tensor, mode: str) -> Tensor:
    """Reduces (L, D) between offsets."""
    length, width, bags = rows.shape[0], rows.shape[1], offsets.shape[0]
    bag = searchsorted(offsets, arange(length, dtype=offsets.dtype), right=True) - 1
    whole = zeros(bags, width, dtype=rows.dtype)
    ones = cast(bag >= 0 if counted is None else counted, dtype=rows.dtype.name)
    sizes = index_add(zeros(bags, dtype=rows.dtype), 0, bag, ones).unsqueeze(-1)
    if counted is not None:
        rows = keep(expand(counted.unsqueeze(-1), shape=tuple(rows.shape)), rows) if mode != "max" else where(
            counted.unsqueeze(-1), rows, -math.inf)
    if mode == "max":
        places = expand(bag.unsqueeze(-1), shape=tuple(rows.shape))
        most = scatter_reduce(whole, 0, places, rows, "amax", include_self=False)
        return keep(expand(gt(sizes, 0), shape=tuple(most.shape)), most)
    total = index_add(whole, 0, bag, rows)
    return total if mode == "sum" else total / clamp_min(sizes, 1)
