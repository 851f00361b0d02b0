"""Losses that compare values elementwise or by distances: regression, likelihoods, margins, embeddings.

Invariant: a mean is a sum over all elements divided by a global count, so it does not depend on where rows live. Every
loss takes `reduction` "none", "mean" or "sum" (ValueError for others) and PyTorch's old `size_average` and `reduce`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from distgrad import dtypes
from distgrad.functions.creation import full_like
from distgrad.functions.labels import shown_as
from distgrad.functions.normalization import pairwise_distance
from distgrad.op import is_tensor
from distgrad.ops import loss as ops
from distgrad.ops.elementwise import abs as absolute
from distgrad.ops.elementwise import (
    clamp_min,
    exp,
    keep,
    log,
    logaddexp,
    minimum,
    neg,
    rsqrt,
    square,
    square_distance,
    where,
    xlogy,
)
from distgrad.warn import warn_user

__all__ = ["cosine_embedding_loss", "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss",
           "margin_ranking_loss", "mse_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss",
           "triplet_margin_loss", "triplet_margin_with_distance_loss"]

Tensor = Any


# What losses share ------------------------------------------------------------------------------------------


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """Gives the reduction that the old arguments `size_average` and `reduce` ask for, with PyTorch's warning."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        found = "none"
    else:
        found = "sum" if size_average is False else "mean"
    warn_user(
        f"size_average and reduce args will be deprecated, please use reduction='{found}' instead."
    )
    return found


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Gives the loss as it is, its mean or its sum; ValueError for another reduction."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction; allowed: 'none', 'mean', 'sum'")


def _warn_sizes(input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        warn_user(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
            "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
        )


def _same_size(weight: Tensor, input: Tensor) -> Tensor:
    if weight.shape != input.shape:
        raise ValueError(f"Weights and input must have the same size, got {weight.shape} and {input.shape}.")
    return weight


def has_plain_mean(input: Tensor, target: Tensor) -> bool:
    """Says whether a loss's mean may be one op: two tensors of one shape and one wide dtype, with elements."""
    return (
        input.dtype is target.dtype and input.dtype in (dtypes.float32, dtypes.float64)
        and input.shape == target.shape and input.shape.numel() > 0
    )


def _weighted(loss: Tensor, weight: Tensor | None, input: Tensor, reduction: str) -> Tensor:
    """Weighs every element; a mean then divides by the sum of the weights."""
    if weight is None:
        return reduced(loss, reduction)
    loss = loss * _same_size(weight, input)
    return loss.sum() / weight.sum() if reduction == "mean" else reduced(loss, reduction)


# Regression -------------------------------------------------------------------------------------------------


def _squares(a: Tensor, b: Tensor) -> Tensor:
    real = a.dtype.category == 2 and b.dtype.category == 2
    return square_distance(a, b) if real else square(a - b)


@shown_as("MseLossBackward0")
def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
             reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Returns the squared differences, elementwise or reduced; warns when shapes differ. PyTorch: F.mse_loss.

    >>> import distgrad as dg
    >>> dg.nn.functional.mse_loss(dg.tensor([1.0, 2.0]), dg.tensor([1.0, 4.0]))
    tensor(2.)
    """
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    if weight is None and reduction == "mean" and has_plain_mean(input, target):
        return ops.mean_square_distance(input, target)
    return _weighted(_squares(input, target), weight, input, reduction)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
            reduction: str = "mean", weight: Tensor | None = None) -> Tensor:
    """Returns the absolute differences, elementwise or reduced; warns when shapes differ. PyTorch: F.l1_loss."""
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    return _weighted(absolute(input - target), weight, input, reduction)


@shown_as("SmoothL1LossBackward0")
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """Returns d**2 / (2 beta) for differences |d| < beta and |d| - beta / 2 for others. PyTorch: F.smooth_l1_loss."""
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}")
    size = absolute(input - target)
    if beta == 0:
        return reduced(size, reduction)
    return reduced(where(size < beta, square(size) * (0.5 / beta), size - 0.5 * beta), reduction)


@shown_as("HuberLossBackward0")
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Returns d**2 / 2 for differences |d| <= delta and delta * (|d| - delta / 2) for others.

    A weighted mean divides by the number of elements here, not by the sum of the weights. PyTorch: F.huber_loss.
    """
    _warn_sizes(input, target)
    if delta <= 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}")
    size = absolute(input - target)
    loss = where(size <= delta, square(size) * 0.5, (size - 0.5 * delta) * delta)
    return reduced(loss if weight is None else loss * _same_size(weight, input), reduction)


# Likelihoods and divergences --------------------------------------------------------------------------------


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
           reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Returns the pointwise Kullback-Leibler divergence of log-probabilities `input` from probabilities `target`.

    `reduction` may be "batchmean" too: the sum divided by the first dim. PyTorch: F.kl_div.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if reduction == "mean":
        warn_user(
            "reduction: 'mean' divides the total loss by both the batch size and the support size.'batchmean' divides "
            "only by the batch size, and aligns with the KL div math definition.'mean' will be changed to behave the "
            "same as 'batchmean' in the next major release.",
        )
    loss = exp(target) * (target - input) if log_target else xlogy(target, target) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0] if input.ndim else loss
    return reduced(loss, reduction)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-08, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """Returns the negative log likelihood of counts `target` under Poisson rates (their logarithms if `log_input`).

    `full` adds Stirling's approximation of log(target!) where target > 1. PyTorch: F.poisson_nll_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        stirling = target * log(target) - target + log(target * (2 * math.pi)) * 0.5
        loss = loss + keep(target > 1, stirling)
    return reduced(loss, reduction)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-06,
                      reduction: str = "mean") -> Tensor:
    """Returns the negative log likelihood of `target` under normal distributions of means `input`, variances `var`.

    `var` has the input's shape, or 1 in one dim, or lacks the last dim, or is a number; it is kept above `eps`.
    ValueError for a negative variance or a shape that does not fit. PyTorch: F.gaussian_nll_loss.
    """
    if not is_tensor(var):
        if float(var) < 0:
            raise ValueError("var has negative entry/entries")
        return gaussian_nll_loss(input, target, full_like(input, float(var)), full, eps, reduction)
    if var.shape != input.shape:
        if tuple(input.shape[:-1]) == tuple(var.shape):
            var = var.unsqueeze(-1)
        elif input.ndim != var.ndim or sum(b for a, b in zip(input.shape, var.shape) if a != b) != 1:
            raise ValueError(f"var is of incorrect size: {var.shape} for an input of {input.shape}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    var = ops.floored_variance(var, eps)
    loss = (log(var) + square(input - target) / var) * 0.5
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


# Margins ----------------------------------------------------------------------------------------------------


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Returns x where the target is 1 and max(0, margin - x) where it is -1. PyTorch: F.hinge_embedding_loss."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return reduced(keep(target != 1, clamp_min(margin - input, 0.0)) + keep(target != -1, input), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None, reduce: bool | None = None,
                     reduction: str = "mean") -> Tensor:
    """Returns log(1 + exp(-target * x)) for targets 1 and -1. PyTorch: F.soft_margin_loss."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return reduced(logaddexp(-(target * input), 0.0), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """Returns max(0, -target * (input1 - input2) + margin). RuntimeError unless all have as many dims.

    PyTorch: F.margin_ranking_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    return reduced(clamp_min(neg(target) * (input1 - input2) + margin, 0), reduction)


def _check_triplet(name: str, anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise RuntimeError(
            f"{name}: The anchor, positive, and negative tensors are expected to have the same number of dimensions, "
            f"but got: anchor {anchor.ndim}D, positive {positive.ndim}D, and negative {negative.ndim}D inputs"
        )


def _triplet(anchor: Tensor, positive: Tensor, negative: Tensor, distance: Callable[..., Tensor], margin: float,
             swap: bool, reduction: str) -> Tensor:
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(clamp_min(near - far + margin, 0.0), reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-06, swap: bool = False, size_average: bool | None = None,
                        reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Returns max(0, d(anchor, positive) - d(anchor, negative) + margin) with p-norm distances over the last dim.

    `swap` takes the distance of positive and negative when it is smaller. PyTorch: F.triplet_margin_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    _check_triplet("triplet_margin_loss", anchor, positive, negative)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return _triplet(anchor, positive, negative, lambda a, b: pairwise_distance(a, b, p, eps), margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0, swap: bool = False, reduction: str = "mean",
) -> Tensor:
    """Returns the triplet margin loss with any distance function. PyTorch: F.triplet_margin_with_distance_loss."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    _check_triplet("triplet_margin_with_distance_loss", anchor, positive, negative)
    return _triplet(anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """Returns 1 - cos where the target is 1 and max(0, cos - margin) where it is -1.

    Shapes (N, D), (N, D), (N,), or (D,), (D,), (). RuntimeError for others. PyTorch: F.cosine_embedding_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.ndim not in (0, 1) or not input1.ndim == input2.ndim == target.ndim + 1:
        raise RuntimeError(
            "cosine_embedding_loss: 0D or 1D target tensor expected, with inputs of one dim more; got "
            f"{input1.shape}, {input2.shape} and target {target.shape}"
        )
    tiny = 1e-12
    dot = (input1 * input2).sum(-1)
    cosine = dot * rsqrt((square(input1).sum(-1) + tiny) * (square(input2).sum(-1) + tiny))
    loss = keep(target == 1, 1.0 - cosine) + keep(target == -1, clamp_min(cosine - margin, 0.0))
    return reduced(loss, reduction)
