"""Dropout in all its forms and activations with random slopes or choices.

Invariant: a call takes the words of the default generator that PyTorch takes, and a mask depends on the global position
of an element only, so the same elements are dropped for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distgrad.functions.activation import softmax
from distgrad.functions.random import in_memory_order, memory_order, next_doubles, next_uniforms
from distgrad.ops import random as ops
from distgrad.ops.elementwise import log, where
from distgrad.warn import warn_user

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
           "gumbel_softmax", "rrelu"]

Tensor = Any

_SELU_LIMIT = 1.7580993408473766  # scale * alpha of SELU: what its outputs tend to for very negative inputs


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _given(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    return input._assign(result) if inplace else result


def _dropped(input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Tensor:
    """Zeroes what a mask of shape `mask_shape` (1 where it broadcasts) drops and scales the rest by 1 / (1 - p)."""
    _check(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return _given(input, input * 0.0, inplace)
    order = memory_order(input) if mask_shape == input.shape else None
    if order is not None:
        return _given(input, _dropped_in_order(input, p, order), inplace)
    result, _ = ops.dropout(input, 1.0 - p, *next_doubles(None, mask_shape), mask_shape=mask_shape)
    return _given(input, result, inplace)


def _dropped_in_order(input: Tensor, p: float, order: Sequence[int]) -> Tensor:
    turned = input.permute(*order)
    shape = tuple(turned.shape)
    result, _ = ops.dropout(turned, 1.0 - p, *next_doubles(None, shape), mask_shape=shape)
    return result.permute(*(order.index(d) for d in range(len(order))))


def dropout_in_order(input: Tensor, p: float, training: bool, order: Sequence[int]) -> Tensor:
    """Returns `dropout` whose mask is drawn with the dims in that order, the slowest first."""
    if not training or p in (0.0, 1.0):
        return dropout(input, p, training)
    return _dropped_in_order(input, p, order)


def _feature_shape(input: Tensor) -> tuple[int, ...]:
    return (*input.shape[:2], *(1,) * (input.ndim - 2))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Returns the input with each element zeroed with probability `p` and the others multiplied by 1 / (1 - p).

    The input itself when not training. ValueError for a `p` outside [0, 1]. PyTorch: F.dropout.
    """
    return _dropped(input, p, training, inplace, tuple(input.shape))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Returns the input (N, C, L) or (C, L) with whole channels dropped; RuntimeError for others.

    PyTorch: F.dropout1d.
    """
    _check(p)
    if input.ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    shape = (input.shape[0], 1) if input.ndim == 2 else _feature_shape(input)
    return _dropped(input, p, training, inplace, shape)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Returns the input (N, C, H, W) with whole channels dropped; (N, C, L) is taken as it is, others with a warning.

    PyTorch: F.dropout2d.
    """
    _check(p)
    if input.ndim not in (3, 4):
        warn_user(
            f"dropout2d: Received a {input.ndim}-D input to dropout2d, which is deprecated and will result in an error "
            "in a future release. To retain the behavior and silence this warning, please use dropout instead.",
        )
    elif input.ndim == 3:
        warn_user(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is desired "
            "- input is interpreted as shape (N, C, L), where C is the channel dim. Please use dropout1d for this.",
        )
    return _dropped(input, p, training, inplace, _feature_shape(input))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Returns the input (N, C, D, H, W) or (C, D, H, W) with whole channels dropped. PyTorch: F.dropout3d."""
    _check(p)
    if input.ndim not in (4, 5):
        warn_user(
            f"dropout3d: Received a {input.ndim}-D input to dropout3d, which is deprecated and will result in an error "
            "in a future release. To retain the behavior and silence this warning, please use dropout instead.",
        )
    shape = (input.shape[0], 1, 1, 1) if input.ndim == 4 else _feature_shape(input)
    return _dropped(input, p, training, inplace, shape)


def _alpha_dropped(input: Tensor, p: float, training: bool, inplace: bool, mask_shape: tuple[int, ...]) -> Tensor:
    """Sets what is dropped to SELU's limit, then restores mean 0 and variance 1 (arXiv:1706.02515, appendix)."""
    _check(p)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return _given(input, input * 0.0, inplace)
    a = 1.0 / math.sqrt((_SELU_LIMIT**2 * p + 1) * (1 - p))

    def draw(shape: tuple[int, ...]) -> Tensor:
        return ops.bernoulli(1.0 - p, *next_doubles(None, shape), shape=shape, dtype=input.dtype.name)

    kept = in_memory_order(input, draw) if mask_shape == input.shape else draw(mask_shape)
    shift = (kept - 1.0) * (_SELU_LIMIT * a) + _SELU_LIMIT * a * p
    return _given(input, input * (kept * a) + shift, inplace)


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Returns the input with elements dropped so that mean 0 and variance 1 are kept (for SELU).

    PyTorch: F.alpha_dropout.
    """
    return _alpha_dropped(input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Returns `alpha_dropout` of whole channels of an input (N, C, ...). PyTorch: F.feature_alpha_dropout."""
    if input.ndim < 2 and training and p:
        raise RuntimeError(f"feature_alpha_dropout: Feature dropout requires at least 2 dimensions, got {input.ndim}")
    return _alpha_dropped(input, p, training, inplace, _feature_shape(input))


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Returns x where it is positive and a * x elsewhere, a uniform on [lower, upper) in training and their mean else.

    The slopes are not PyTorch's. RuntimeError when lower > upper. PyTorch: F.rrelu.
    """
    if lower > upper:
        raise RuntimeError(f"rrelu: Lower bound should be less than or equal to the upper bound, got {lower} > {upper}")
    if training:
        # PyTorch takes words for the negative elements only; how many there are is not known here.
        kind, shape = input.dtype.name, tuple(input.shape)
        slope = ops.uniform(float(lower), float(upper), *next_uniforms(None, shape, kind), shape=shape, dtype=kind)
    else:
        slope = (lower + upper) / 2
    return _given(input, where(input > 0, input, input * slope), inplace)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """Returns samples from the Gumbel-softmax distribution of unnormalized log-probabilities, at temperature `tau`.

    `hard` gives one-hot samples whose gradient is that of the soft ones; `eps` has no effect.

    PyTorch: F.gumbel_softmax.
    """
    shape = tuple(logits.shape)
    race = ops.exponential(1.0, *next_doubles(None, shape), shape=shape, dtype=logits.dtype.name)
    soft = softmax((logits - log(race)) / tau, dim)
    if not hard:
        return soft
    chosen = soft.argmax(dim, keepdim=True)
    one_hot = (soft.detach() * 0).scatter(dim, chosen, 1.0)
    return one_hot - soft.detach() + soft
