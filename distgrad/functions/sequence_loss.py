"""Losses of sequences and of classes projected from features, with PyTorch's signatures.

Invariant: samples of a batch do not depend on each other; only the final sum or mean is communicated.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from distgrad.functions.classification_loss import cross_entropy
from distgrad.functions.contraction import linear
from distgrad.functions.data import from_numpy
from distgrad.functions.loss import reduced
from distgrad.op import is_tensor
from distgrad.ops.ctc import ctc
from distgrad.ops.elementwise import cast, clamp_min

__all__ = ["ctc_loss", "linear_cross_entropy"]

Tensor = Any


def _lengths(name: str, value: Any) -> Tensor:
    """Gives lengths (N,) as a tensor: they may come as one, or as Python integers."""
    if is_tensor(value):
        return value.reshape((-1,)) if value.ndim == 0 else value
    return from_numpy(np.asarray([value] if isinstance(value, int) else list(value), np.int64))


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
             reduction: str | int = "mean", zero_infinity: bool = False) -> Tensor:
    """Returns the connectionist temporal classification loss of (T, N, C) or (T, C) log probabilities.

    `targets` (N, S) or one after the other; lengths (N,) as tensors or tuples. "mean" divides each loss by its target's
    length first. `zero_infinity`: losses of targets that are too long for their input, and their gradients, are 0.
    RuntimeError for shapes and lengths that do not fit. The second derivative is not implemented, as in PyTorch.
    PyTorch: F.ctc_loss.
    """
    if log_probs.ndim not in (2, 3):
        raise RuntimeError(f"ctc_loss: log_probs must be (T, N, C) or (T, C), got shape {list(log_probs.shape)}")
    single = log_probs.ndim == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.unsqueeze(0) if targets.ndim == 1 else targets
    inputs, lengths = _lengths("input_lengths", input_lengths), _lengths("target_lengths", target_lengths)
    if isinstance(reduction, int):  # as torch.ctc_loss has it
        reduction = ("none", "mean", "sum")[reduction]
    loss = ctc(log_probs, targets, inputs, lengths, blank=int(blank), zero_infinity=bool(zero_infinity))
    if reduction == "mean":
        return (loss / cast(clamp_min(lengths, 1), dtype=loss.dtype.name)).mean()
    return reduced(loss.squeeze(0) if single else loss, reduction)


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
                         weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """Returns cross_entropy(linear(input, linear_weight, linear_bias), target).

    input (in) or (N, in); linear_weight (C, in) or (C, d1, ..., in) for targets (N, d1, ...). `options` asks PyTorch to
    work in chunks and changes nothing here. RuntimeError for shapes that do not fit, or an `ignore_index` with
    probabilities. PyTorch: F.linear_cross_entropy.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError(f"linear_cross_entropy: expected input with dimensionality 1 or 2, got {input.ndim}")
    if linear_weight.ndim < 2:
        raise RuntimeError(
            f"linear_cross_entropy: expected linear_weight with dimensionality at least 2, got {linear_weight.ndim}"
        )
    features, (classes, *inner) = input.shape[-1], linear_weight.shape[:-1]
    if features != linear_weight.shape[-1]:
        raise RuntimeError(
            "linear_cross_entropy: expected equal input and linear_weight last dimensions (in_features), got "
            f"{features} and {linear_weight.shape[-1]}"
        )
    if linear_bias is not None and tuple(linear_bias.shape) != (classes, *inner):
        raise RuntimeError(
            f"linear_cross_entropy: expected linear_bias shape {(classes, *inner)}, got {tuple(linear_bias.shape)}"
        )
    if inner and input.ndim == 1:
        raise RuntimeError(
            f"linear_cross_entropy: K-dimensional loss defined by linear_weight shape {tuple(linear_weight.shape)} "
            f"requires batched input (N, {features}), got shape {tuple(input.shape)}"
        )
    shape = (*input.shape[:-1], classes, *inner)
    if tuple(target.shape) == shape and ignore_index is not None:
        raise RuntimeError(
            "linear_cross_entropy: ignore_index cannot be specified when target contains probabilities"
        )
    if inner:
        linear_weight = linear_weight.reshape((prod(inner, start=classes), features))
        linear_bias = None if linear_bias is None else linear_bias.reshape((prod(inner, start=classes),))
    logits = linear(input, linear_weight, linear_bias).reshape(shape)
    return cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=label_smoothing,
                         ignore_index=-100 if ignore_index is None else ignore_index)
