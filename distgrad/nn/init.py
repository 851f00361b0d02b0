"""Initial values of parameters, written in place under ``no_grad``.

Invariant: a function returns the tensor it was given, filled; which numbers it draws depends only on seed and shape.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import distgrad as dg
from distgrad.tensor import Tensor
from distgrad.warn import warn_user

_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Returns the recommended gain of a nonlinearity; ``param`` is the slope of "leaky_relu" (default 0.01).

    Source: torch.nn.init.calculate_gain.
    """
    if nonlinearity in ("linear", "sigmoid", *_CONVOLUTIONS):
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "selu":
        return 3.0 / 4
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Returns how many inputs feed one output, and the reverse, for a weight ``(out, in, *kernel)``."""
    if tensor.dim() < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive_field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive_field, tensor.shape[0] * receptive_field


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    mode = mode.lower()
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode == "fan_out"]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fills with draws from the uniform distribution on ``[a, b)``."""
    with dg.no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fills with draws from the normal distribution."""
    with dg.no_grad():
        return tensor.normal_(mean, std, generator=generator)


_LARGEST_NORMAL = 8.6  # no draw of normal_ lies further from the mean, in standard deviations


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, generator: Any = None
) -> Tensor:
    """Fills with draws from the normal distribution cut off outside ``[a, b]``.

    Elements are drawn until all fit, as torch does: where the bounds may cut something off, each round reads one value
    back to see whether it was the last.
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warn_user(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. "
            "The distribution of values may be incorrect.",
        )
    with dg.no_grad():
        if a < mean - _LARGEST_NORMAL * std and b > mean + _LARGEST_NORMAL * std:
            return tensor.normal_(mean, std, generator=generator)
        low, high = (math.erf((bound - mean) / std / math.sqrt(2.0)) for bound in (a, b))
        fill = _normal_until_inside if (high - low) / 2 > 0.3 else _uniform_until_accepted
        return fill(tensor, mean, std, a, b, generator)


def _normal_until_inside(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draws normal numbers, and those outside the bounds again."""
    low, high = (float(np.asarray(bound, tensor.dtype.numpy)) for bound in (a, b))
    result: Any = tensor.normal_(mean, std, generator=generator)
    while True:
        outside = (result < low) | (result > high)
        if not outside.any():
            return result if result is tensor else tensor.copy_(result)
        result = dg.where(outside, dg.empty_like(result).normal_(mean, std, generator=generator), result)


def _uniform_until_accepted(tensor: Tensor, mean: float, std: float, a: float, b: float, generator: Any) -> Tensor:
    """Draws uniform numbers, each accepted with a probability in proportion to the density there."""
    log_peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def refused(values: Any) -> Any:
        log_density = values.sub(mean).div_(std).pow_(2).mul_(-0.5).sub_(log_peak)
        return dg.empty_like(tensor).uniform_(generator=generator).log_().gt(log_density)

    result: Any = dg.empty_like(tensor).uniform_(a, b, generator=generator)
    pending = refused(result)
    while pending.any():
        again = dg.empty_like(tensor).uniform_(a, b, generator=generator)
        result = dg.where(pending, again, result)
        pending = pending & refused(again)
    return tensor.copy_(result)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fills with ``val``."""
    with dg.no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fills with ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fills with zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """Makes a matrix the identity, as far as its shape goes."""
    if tensor.dim() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    with dg.no_grad():
        return tensor.copy_(dg.eye(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Makes a convolution weight ``(out, in, *kernel)`` pass its input channels on, in each of ``groups``."""
    if tensor.dim() not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    out_channels, in_channels, *kernel = tensor.shape
    if out_channels % groups != 0:
        raise ValueError("dim 0 must be divisible by groups")
    group_size = out_channels // groups
    with dg.no_grad():
        tensor.zero_()
        centre = tuple(size // 2 for size in kernel)
        for group in range(groups):
            for channel in range(min(group_size, in_channels)):
                tensor[(group * group_size + channel, channel, *centre)] = 1
        return tensor


def _is_empty(tensor: Tensor) -> bool:
    """Says whether there is nothing to fill, and warns as torch does."""
    if 0 not in tensor.shape:
        return False
    warn_user("Initializing zero-element tensors is a no-op")
    return True


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fills with uniform draws in ``+-gain * sqrt(6 / (fan_in + fan_out))``. Source: Glorot, Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fills with normal draws of deviation ``gain * sqrt(2 / (fan_in + fan_out))``. Source: Glorot, Bengio 2010."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Fills with uniform draws in ``+-gain * sqrt(3 / fan)``; ``a`` is the slope of a leaky ReLU. Source: He 2015."""
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Any = None
) -> Tensor:
    """Fills with normal draws of deviation ``gain / sqrt(fan)``; ``a`` is a leaky ReLU's slope. Source: He 2015."""
    if _is_empty(tensor):
        return tensor
    std = calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))
    return normal_(tensor, 0.0, std, generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Fills with ``gain`` times a (semi-)orthogonal matrix ``(rows, all other dimensions)``. Source: Saxe 2013."""
    if tensor.dim() < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.numel() // tensor.shape[0]
    with dg.no_grad():
        drawn: Any = dg.empty((rows, columns), dtype=tensor.dtype).normal_(0, 1, generator=generator)
        q, r = dg.linalg.qr(drawn.t() if rows < columns else drawn)
        # A unique decomposition (positive diagonal of r) makes q uniform over orthogonal matrices.
        q = q * r.diagonal().sign()
        q = q.t() if rows < columns else q
        return tensor.copy_(q.reshape(tensor.shape)).mul_(gain)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Fills a matrix with normal draws of which a share ``sparsity`` of each column is zero. Source: Martens 2010."""
    if tensor.dim() != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with dg.no_grad():
        tensor.normal_(0, std, generator=generator)
        for column in range(columns):
            tensor[dg.randperm(rows)[:zeros], column] = 0  # from the default generator, as torch does
        return tensor


# The names before PyTorch 0.4.
uniform = uniform_
normal = normal_
constant = constant_
eye = eye_
dirac = dirac_
xavier_uniform = xavier_uniform_
xavier_normal = xavier_normal_
kaiming_uniform = kaiming_uniform_
kaiming_normal = kaiming_normal_
orthogonal = orthogonal_
sparse = sparse_
