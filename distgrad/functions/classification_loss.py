"""Losses over classes: negative log likelihood, cross entropy, binary cross entropy, margins between classes.

Invariant: a mean divides by a global count (or sum of class weights) of the elements that are not ignored, so sharded
rows give the unsharded loss; only that final sum is communicated.
"""

from __future__ import annotations

from typing import Any

from distgrad.functions.activation import log_softmax
from distgrad.functions.creation import arange
from distgrad.functions.labels import shown_as
from distgrad.functions.loss import has_plain_mean, legacy_reduction, reduced
from distgrad.functions.precision import in_float32
from distgrad.ops import loss as ops
from distgrad.ops.elementwise import clamp_min, keep, square

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "multi_margin_loss",
           "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss"]

Tensor = Any


# One class of several ---------------------------------------------------------------------------------------


def _check_classes(name: str, input: Tensor, target: Tensor, weight: Tensor | None) -> int:
    """Gives the class dim of `input`, (C,) or (N, C, d1, ...), for a target of class indices; checks the shapes."""
    if input.ndim == 0:
        raise RuntimeError(f"{name}: expected an input with at least 1 dim, got a 0-d tensor")
    axis = 0 if input.ndim == 1 else 1
    classes = input.shape[axis]
    if input.ndim > 1 and target.ndim and input.shape[0] != target.shape[0]:
        raise ValueError(
            f"{name}: Expected input batch_size ({input.shape[0]}) to match target batch_size ({target.shape[0]})."
        )
    expected = (*input.shape[:axis], *input.shape[axis + 1 :])
    if tuple(target.shape) != expected:
        raise RuntimeError(f"{name}: Expected target size {list(expected)}, got {list(target.shape)}")
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"{name}: weight tensor should be defined either for all {classes} classes or no classes but got weight "
            f"tensor of shape: {list(weight.shape)}"
        )
    return axis


def _count(target: Tensor, weights: Tensor | None, ignore_index: int) -> Tensor:
    """Gives what a mean over classes divides by: the sum of the weights, or how many targets are not ignored."""
    return (target != ignore_index).sum() if weights is None else weights.sum()


@shown_as("NllLossBackward0")
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
             ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Returns -input[target] for log-probabilities (C,) or (N, C, d1, ...) and int64 targets (N, d1, ...).

    `weight` (C,) weighs the classes; targets equal to `ignore_index` count for nothing. ValueError and RuntimeError for
    shapes that do not fit, IndexError for a class that does not exist. PyTorch: F.nll_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    axis = _check_classes("nll_loss", input, target, weight)
    ignore_index = int(ignore_index)
    loss = ops.nll(input, target, axis=axis, ignore_index=ignore_index)
    weights = None
    if weight is not None:
        weights = ops.class_weight(weight.detach(), target, ignore_index=ignore_index)
        loss = loss * weights
    if reduction == "mean":
        return loss.sum() / _count(target, weights, ignore_index)
    return reduced(loss, reduction)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                  ignore_index: int = -100, reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """Returns the cross entropy of logits (C,) or (N, C, d1, ...) with class indices (N, d1, ...) or probabilities
    (the input's shape).

    `weight` (C,) weighs the classes; targets equal to `ignore_index` count for nothing; `label_smoothing` in [0, 1]
    mixes the targets with the uniform distribution. Errors as in `nll_loss`. PyTorch: F.cross_entropy.

    >>> import distgrad as dg
    >>> dg.nn.functional.cross_entropy(dg.zeros(2, 4), dg.tensor([0, 3]))
    tensor(1.3863)
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    log_probabilities = log_softmax(input, 0 if input.ndim == 1 else 1)
    if input.shape == target.shape:
        return _soft_cross_entropy(log_probabilities, target, weight, ignore_index, reduction, label_smoothing)
    loss = nll_loss(log_probabilities, target, weight, None, ignore_index, None, reduction)
    if label_smoothing == 0.0:
        return loss
    smooth = _smooth_loss(log_probabilities, target, weight, int(ignore_index), reduction)
    return loss * (1 - label_smoothing) + smooth * (label_smoothing / input.shape[0 if input.ndim == 1 else 1])


def _along_classes(weight: Tensor, ndim: int) -> Tensor:
    """Gives (C,) weights a shape that broadcasts along the class dim of (C,) or (N, C, d1, ...)."""
    return weight if ndim == 1 else weight.reshape(-1, *(1,) * (ndim - 2))


def _smooth_loss(log_probabilities: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
                 reduction: str) -> Tensor:
    """The loss of a uniform target distribution, times the number of classes, over the targets that count."""
    axis = 0 if log_probabilities.ndim == 1 else 1
    weights = None
    if weight is not None:
        weight = weight.detach()
        weights = ops.class_weight(weight, target, ignore_index=ignore_index)
        log_probabilities = log_probabilities * _along_classes(weight, log_probabilities.ndim)
    loss = keep(target != ignore_index, -log_probabilities.sum(axis))
    return loss.sum() / _count(target, weights, ignore_index) if reduction == "mean" else reduced(loss, reduction)


def _soft_cross_entropy(log_probabilities: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
                        reduction: str, label_smoothing: float) -> Tensor:
    if not target.dtype.is_floating_point:
        raise RuntimeError(
            f"cross_entropy: Expected floating point type for target with class probabilities, got {target.dtype!r}"
        )
    if ignore_index >= 0:
        raise RuntimeError(
            f"cross_entropy: ignore_index is not supported for floating point target, got {ignore_index}"
        )
    shape = log_probabilities.shape
    axis = 0 if len(shape) == 1 else 1
    if weight is not None and tuple(weight.shape) != (shape[axis],):
        raise RuntimeError(
            "cross_entropy: weight tensor should be defined either for all "
            f"{shape[axis]} classes or no classes but got weight tensor of shape: {list(weight.shape)}"
        )
    if label_smoothing > 0.0:
        target = target * (1 - label_smoothing) + label_smoothing / shape[axis]
    loss = log_probabilities * target
    if weight is not None:
        loss = loss * _along_classes(weight.detach(), len(shape))
    loss = -loss.sum(axis)
    if reduction == "mean":
        return loss.sum() / max(loss.shape.numel(), 1) if loss.shape.numel() else loss.mean()
    return reduced(loss, reduction)


# Yes or no --------------------------------------------------------------------------------------------------


@shown_as("BinaryCrossEntropyBackward0")
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
                         reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Returns -(t log(x) + (1 - t) log(1 - x)) for probabilities x in [0, 1], logarithms kept above -100.

    `weight` broadcasts to the target. ValueError for shapes that differ, RuntimeError for an x outside [0, 1].
    PyTorch: F.binary_cross_entropy.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if input.shape != target.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is deprecated. "
            "Please ensure they have the same size."
        )
    loss = ops.binary_cross_entropy(input, target)
    return reduced(loss if weight is None else loss * weight, reduction)


@shown_as("BinaryCrossEntropyWithLogitsBackward0")
@in_float32()
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: bool | None = None,
    reduce: bool | None = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:
    """Returns the binary cross entropy of logits, finite for every logit.

    `weight` broadcasts to the target; `pos_weight` multiplies the loss of positive targets. ValueError for shapes that
    differ. PyTorch: F.binary_cross_entropy_with_logits.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if input.shape != target.shape:
        raise ValueError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    if pos_weight is None and weight is None and reduction == "mean" and has_plain_mean(input, target):
        return ops.mean_logit_loss(input, target)
    if pos_weight is None:
        loss = ops.binary_cross_entropy_with_logits(input, target)
    else:
        log_weight = (pos_weight - 1) * target + 1
        loss = (1 - target) * input + log_weight * ops.binary_cross_entropy_with_logits(input, 1.0)
    return reduced(loss if weight is None else loss * weight, reduction)


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """Returns the mean over the last dim of the binary cross entropy of logits (N, C) with targets 0 and 1.

    PyTorch: F.multilabel_soft_margin_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    loss = ops.binary_cross_entropy_with_logits(input, target)
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(-1) / input.shape[-1], reduction)


# Margins between classes ------------------------------------------------------------------------------------


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                      size_average: bool | None = None, reduce: bool | None = None,
                      reduction: str = "mean") -> Tensor:
    """Returns sum_i max(0, margin - x[t] + x[i])**p / C over the classes i other than t, for (N, C) or (C,).

    `p` is 1 or 2 (ValueError); `weight` (C,) weighs the target's class. PyTorch: F.multi_margin_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: only p == 1 and p == 2 supported, got {p}")
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not a valid value for reduction; allowed: 'none', 'mean', 'sum'")
    if weight is not None and weight.ndim != 1:
        raise ValueError(f"multi_margin_loss: weight must be one-dimensional, got shape {list(weight.shape)}")
    if input.ndim > 2:
        raise RuntimeError(f"multi_margin_loss: expected an input (N, C) or (C,), got {list(input.shape)}")
    shape = target.shape
    if input.ndim == 0:
        input = input.reshape((1,))
    if input.ndim == 1 and target.ndim == 1:
        target = target.reshape(())
    axis = _check_classes("multi_margin_loss", input, target, weight)
    never = -(1 << 62)  # no class is ignored here
    others = arange(input.shape[axis]) != target.unsqueeze(-1)
    gap = clamp_min(input + (ops.nll(input, target, axis=axis, ignore_index=never) + margin).unsqueeze(-1), 0.0)
    if p == 2:
        gap = square(gap)
    loss = keep(others, gap).sum(-1) / input.shape[axis]
    if weight is not None:
        loss = loss * ops.class_weight(weight.detach(), target, ignore_index=never)
    return reduced(loss.reshape(shape), reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Returns sum max(0, 1 - x[t] + x[i]) / C over the target classes t and the other classes i, for (N, C) or (C,).

    A row of `target` (int64, the input's shape) lists classes up to its first -1. Takes memory for N * C * C numbers.
    PyTorch: F.multilabel_margin_loss.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    if input.ndim == 0:
        input, target = input.reshape((1,)), target.reshape((1,)) if target.numel() == 1 else target
    if input.ndim not in (1, 2) or input.shape != target.shape or not input.shape[-1]:
        raise RuntimeError(
            f"multilabel_margin_loss: inconsistent target size: {list(target.shape)} for input of size: "
            f"{list(input.shape)}; allowed: (N, C) or (C,), the same for both"
        )
    listed = (target >= 0).cumprod(-1) != 0
    classes = arange(input.shape[-1])
    # (..., place in the list, class): where the place names the class.
    names = (target.unsqueeze(-1) == classes).logical_and(listed.unsqueeze(-1))
    is_target = names.any(-2, keepdim=True)
    picked = keep(names, input.unsqueeze(-2)).sum(-1, keepdim=True)
    gap = clamp_min(1.0 - picked + input.unsqueeze(-2), 0.0)
    counted = listed.unsqueeze(-1).logical_and(is_target.logical_not())
    return reduced(keep(counted, gap).sum((-2, -1)) / input.shape[-1], reduction)
