"""Normalizations that also give their statistics: torch.native_layer_norm, native_group_norm and native_batch_norm.

Invariant: the normalized values are those of the functions without the statistics; statistics count elements globally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.functions.creation import empty
from distgrad.functions.normalization import batch_norm, group_norm, layer_norm
from distgrad.functions.reduction import var_mean
from distgrad.ops.elementwise import rsqrt
from distgrad.ops.movement import reshape

__all__ = ["native_batch_norm", "native_group_norm", "native_layer_norm"]

Tensor = Any


def _statistics(x: Tensor, dims: tuple[int, ...], eps: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Gives the mean and the reciprocal of the standard deviation over dims."""
    variance, mean = var_mean(x, dims, False, keepdim)
    return mean, rsqrt(variance + eps)


def native_layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gives `layer_norm` with mean and 1 / deviation of each row, the normalized dims kept with size 1."""
    out = layer_norm(input, normalized_shape, weight, bias, eps)
    dims = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    return (out, *_statistics(input, dims, eps, True))


def native_group_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gives `group_norm` of (N, C, *) with mean and 1 / deviation of each group, shape (N, group)."""
    out = group_norm(input, group, weight, bias, eps)
    grouped = reshape(input, shape=(N, group, C // group * HxW))
    return (out, *_statistics(grouped, (2,), eps, False))


def native_batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                      running_var: Tensor | None, training: bool, momentum: float,
                      eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gives `batch_norm` of (N, C, *) with mean and 1 / deviation of each channel, which are empty unless training."""
    out = batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:
        return out, empty(0, dtype=input.dtype), empty(0, dtype=input.dtype)
    dims = (0, *range(2, input.ndim))
    return (out, *(part.detach() for part in _statistics(input, dims, eps, False)))
