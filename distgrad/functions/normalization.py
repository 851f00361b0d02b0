"""Normalizations over features, channels, groups and batches, and the norms and distances of vectors.

Invariant: statistics are those of the global tensor, whatever its placement; running statistics are updated in place
and never take part in gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from distgrad.functions.labels import shown_as
from distgrad.functions.layout import clone
from distgrad.functions.movement import pad
from distgrad.functions.precision import in_float32
from distgrad.functions.reduction import vector_norm
from distgrad.meta import broadcast_shapes, normalize_dim
from distgrad.ops import channel_norm as channel_ops
from distgrad.ops import normalization as ops
from distgrad.ops.across import sharded_dim
from distgrad.ops.creation import full
from distgrad.ops.elementwise import clamp_min, rsqrt, square

__all__ = ["batch_norm", "cosine_similarity", "group_norm", "instance_norm", "layer_norm", "local_response_norm",
           "normalize", "pairwise_distance", "rms_norm"]

Tensor = Any

_EPSILON = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}


# Over trailing dims -----------------------------------------------------------------------------------------


def _trailing(input: Tensor, normalized_shape: int | Sequence[int], name: str,
              **affine: Tensor | None) -> tuple[int, ...]:
    """Gives the dims that `normalized_shape` names; RuntimeError when shapes do not fit."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(int(n) for n in normalized_shape)
    if not shape:
        raise RuntimeError(f"{name}: Expected normalized_shape to be at least 1-dimensional, got {list(shape)}")
    for label, value in affine.items():
        if value is not None and tuple(value.shape) != shape:
            raise RuntimeError(
                f"{name}: Expected {label} to be of same shape as normalized_shape, but got {label} of shape "
                f"{list(value.shape)} and normalized_shape = {list(shape)}"
            )
    if tuple(input.shape[-len(shape) :]) != shape:
        raise RuntimeError(
            f"{name}: Given normalized_shape={list(shape)}, expected input with shape [*, {', '.join(map(str, shape))}]"
            f", but got input of size{list(input.shape)}"
        )
    return tuple(range(input.ndim - len(shape), input.ndim))


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None and bias is not None and weight.shape == bias.shape == y.shape[y.ndim - weight.ndim :]:
        return ops.affine(y, weight, bias)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


@shown_as("NativeLayerNormBackward0")
@in_float32()
def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-05) -> Tensor:
    """Returns (x - mean) / sqrt(var + eps) * weight + bias over the trailing dims `normalized_shape`.

    `weight` and `bias` have that shape; RuntimeError for shapes that do not fit. PyTorch: F.layer_norm.
    """
    axis = _trailing(input, normalized_shape, "layer_norm", weight=weight, bias=bias)
    spread = sharded_dim(input) in axis  # over the workers: its means are exchanged
    if weight is not None and bias is not None and weight.dtype is bias.dtype is input.dtype and not spread:
        return ops.layer_norm(input, weight, bias, axis=axis, eps=float(eps))[0]
    y, _ = ops.standardize(input, axis=axis, eps=float(eps))
    return _affine(y, weight, bias)


@in_float32()
def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """Returns x / sqrt(mean(x**2) + eps) * weight over the trailing dims `normalized_shape`.

    `eps` defaults to the machine epsilon of the dtype. PyTorch: F.rms_norm.
    """
    axis = _trailing(input, normalized_shape, "rms_norm", weight=weight)
    if eps is None:
        eps = _EPSILON.get(input.dtype.name, 0.0)
    if input.dtype.is_complex:  # of the squares, not of the absolute ones, as in PyTorch
        return _affine(input * rsqrt(square(input).mean(axis, keepdim=True) + eps), weight, None)
    y, _ = ops.rms_standardize(input, axis=axis, eps=float(eps))
    return _affine(y, weight, None)


# Over groups of channels ------------------------------------------------------------------------------------


def _per_channel(value: Tensor, ndim: int) -> Tensor:
    """Gives (C,) values a shape that broadcasts over (N, C, ...)."""
    return value.reshape(value.shape[0], *(1,) * (ndim - 2)) if ndim > 2 else value


def _channel_affine(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return _affine(y, *(None if value is None else _per_channel(value, y.ndim) for value in (weight, bias)))


def _check_channels(name: str, channels: int, **values: Tensor | None) -> None:
    for label, value in values.items():
        if value is not None and (value.ndim != 1 or value.shape[0] != channels):
            raise RuntimeError(f"{name}: {label} should contain {channels} elements not {list(value.shape)}")


@shown_as("NativeGroupNormBackward0")
@in_float32()
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-05) -> Tensor:
    """Standardizes each of `num_groups` groups of channels of (N, C, *); then weight and bias (C,).

    RuntimeError when C is not divisible, ValueError for one value per group. PyTorch: F.group_norm.
    """
    if input.ndim < 2:
        raise RuntimeError(f"group_norm: Expected at least 2 dimensions for input tensor but received {input.ndim}")
    batch, channels = input.shape[:2]
    if num_groups <= 0 or channels % num_groups:
        raise RuntimeError(
            "group_norm: Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}"
        )
    _check_channels("group_norm", channels, weight=weight, bias=bias)
    size = prod(input.shape[2:])
    if batch * channels // num_groups * size == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    return _in_groups(input, num_groups, weight, bias, float(eps))


def _in_groups(input: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    if _of_one_dtype(input, weight, bias) and sharded_dim(input) in (None, 0):
        return channel_ops.group_norm(input, *_filled(input, weight, bias), groups=groups, eps=eps)[0]
    y, _ = ops.standardize(input.reshape(input.shape[0], groups, -1 if input.numel() else 0), axis=(2,), eps=eps)
    return _channel_affine(y.reshape(tuple(input.shape)), weight, bias)


def _of_one_dtype(input: Tensor, *values: Tensor | None) -> bool:
    return input.dtype.category == 2 and all(value is None or value.dtype is input.dtype for value in values)


def _filled(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gives weight and bias of each channel, 1 and 0 where there are none."""
    shape, kind = (input.shape[1],), input.dtype.name
    return (full(1.0, shape=shape, dtype=kind) if weight is None else weight,
            full(0.0, shape=shape, dtype=kind) if bias is None else bias)


def _update(running: Tensor | None, batch: Tensor, momentum: float) -> None:
    """Moves a running statistic towards a batch's by `momentum`."""
    if running is not None:
        running.detach()._assign(running.detach() * (1.0 - momentum) + batch.detach() * momentum)


@in_float32("running_mean", "running_var")
def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-05) -> Tensor:
    """Standardizes each channel of each sample of (N, C, *); then weight and bias (C,).

    With `use_input_stats=False` the running statistics take the place of the sample's. ValueError for one spatial
    element. PyTorch: F.instance_norm.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    batch, channels, size = input.shape[0], input.shape[1], prod(input.shape[2:])
    if size == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    _check_channels("instance_norm", channels, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    rows = input.reshape(batch, channels, size)
    if running_mean is not None or running_var is not None:
        values = rows.detach()
        mean = values.mean(-1, keepdim=True)
        _update(running_mean, mean.mean((0, 2)), momentum)
        _update(running_var, square(values - mean).sum(-1).mean(0) * (1.0 / (size - 1)), momentum)
    return _in_groups(input, channels, weight, bias, float(eps))


@shown_as("NativeBatchNormBackward0")
@in_float32("running_mean", "running_var")
def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
               eps: float = 1e-05) -> Tensor:
    """Standardizes each channel of (N, C, *) over all other dims; then weight and bias (C,).

    In training with the statistics of the whole global batch, which also move the running ones (the variance unbiased);
    otherwise with the running ones (RuntimeError without). ValueError for one value per channel. PyTorch: F.batch_norm.
    """
    if input.ndim == 1 and not input.numel():
        return clone(input)
    if input.ndim < 2:
        raise RuntimeError(f"batch_norm: expected an input (N, C, *), got shape {list(input.shape)}")
    channels = input.shape[1]
    _check_channels("batch_norm", channels, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            missing = "running_mean" if running_mean is None else "running_var"
            raise RuntimeError(f"batch_norm: {missing} must be defined in evaluation mode")
        scale = rsqrt(running_var + eps)
        scale = scale if weight is None else scale * weight
        shift = -(running_mean * scale) if bias is None else bias - running_mean * scale
        return input * _per_channel(scale, input.ndim) + _per_channel(shift, input.ndim)
    count = input.shape[0] * prod(input.shape[2:])
    if count == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    if _of_one_dtype(input, weight, bias):
        y, mean, variance = channel_ops.batch_norm(input, *_filled(input, weight, bias), eps=float(eps))
        _update(running_mean, mean, momentum)
        _update(running_var, variance.detach() * (count / max(count - 1, 1)), momentum)
        return y
    dims = (0, *range(2, input.ndim))
    mean = input.mean(dims)
    centered = input - _per_channel(mean, input.ndim)
    variance = square(centered).mean(dims)
    if running_mean is not None or running_var is not None:
        _update(running_mean, mean, momentum)
        _update(running_var, variance.detach() * (count / max(count - 1, 1)), momentum)
    scale = rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    y = centered * _per_channel(scale, input.ndim)
    return y if bias is None else y + _per_channel(bias, input.ndim)


@in_float32()
def local_response_norm(input: Tensor, size: int, alpha: float = 0.0001, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Returns x / (k + alpha * m)**beta, m the mean of x**2 over `size` neighbours along the channels of (N, C, *).

    ValueError for fewer than 3 dims. PyTorch: F.local_response_norm.
    """
    if input.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions)")
    squares = square(input)
    channels = input.shape[1]
    total = squares * 0.0
    for offset in range(-(size // 2), (size - 1) // 2 + 1):
        if abs(offset) < channels:
            start, stop = max(offset, 0), channels + min(offset, 0)
            around = (0, 0) * (input.ndim - 2)
            rows = squares.narrow(1, start, stop - start)
            total = total + pad(rows, (*around, max(-offset, 0), max(offset, 0)))
    return input / (total * (alpha / size) + k) ** beta


# Norms and distances of vectors -----------------------------------------------------------------------------


def normalize(input: Tensor, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12,
              out: Tensor | None = None) -> Tensor:
    """Returns x / max(norm, eps) with the p-norm over `dim`. PyTorch: F.normalize."""
    result = input / clamp_min(vector_norm(input, p, dim, True), eps)
    if out is None:
        return result
    return out._assign(result) if out.shape == result.shape else out._resize(result)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Returns the cosine of the angle between vectors along `dim` of the broadcast inputs; norms are at least `eps`.

    PyTorch: F.cosine_similarity.
    """
    ndim = max(x1.ndim, x2.ndim)
    dim = normalize_dim("cosine_similarity", dim, ndim) - ndim  # from the right, where broadcasting aligns
    shape = broadcast_shapes("cosine_similarity", tuple(x1.shape), tuple(x2.shape))
    x1, x2 = (x if tuple(x.shape) == shape else x.expand(shape) for x in (x1, x2))
    unit1, unit2 = (x / clamp_min(vector_norm(x, 2, dim, True), eps) for x in (x1, x2))
    return (unit1 * unit2).sum(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-06, keepdim: bool = False) -> Tensor:
    """Returns the p-norm of x1 - x2 + eps over the last dim. PyTorch: F.pairwise_distance."""
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)
