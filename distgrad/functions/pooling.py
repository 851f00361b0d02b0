"""Pooling with PyTorch's signatures: maxima, means, p-norms, adaptive and fractional windows, and unpooling.

Invariant: (N, C, *S) and (C, *S) are both taken; every image and channel is independent of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from distgrad.functions.convolution import each
from distgrad.functions.creation import new_zeros
from distgrad.functions.indexing import scatter
from distgrad.functions.precision import in_float32
from distgrad.functions.random import rand
from distgrad.ops import pooling as ops
from distgrad.ops.elementwise import abs as absolute
from distgrad.ops.elementwise import sign, trunc_divide
from distgrad.ops.interpolation import resample

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d",
    "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d", "max_pool3d_with_indices",
    "max_unpool1d", "max_unpool2d", "max_unpool3d",
]

Tensor = Any
Ints = int | Sequence[int]
Sizes = int | Sequence[int | None] | None


def _check_dims(name: str, input: Tensor, count: int) -> None:
    if input.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"{name}: Expected {count + 1}D or {count + 2}D (batch mode) tensor for input, but got input of size: "
            f"{list(input.shape)}"
        )
    if 0 in input.shape[input.ndim - count - 1 :]:
        raise RuntimeError(
            f"{name}: Expected {count + 1}D or {count + 2}D (batch mode) tensor with optional 0 dim batch size for "
            f"input, but got: {list(input.shape)}"
        )


def _windows(name: str, input: Tensor, count: int, kernel_size: Ints, stride: Ints | None, padding: Ints,
             dilation: Ints, ceil_mode: bool) -> list[tuple[int, int, int, int, int, int]]:
    """Gives (size, output size, kernel, stride, padding, dilation) of each spatial dim."""
    _check_dims(name, input, count)
    kernel = each(name, "kernel_size", kernel_size, count)
    given = kernel if stride is None or (isinstance(stride, Sequence) and not stride) else stride
    strides = each(name, "stride", given, count)
    sides, dilations = each(name, "padding", padding, count), each(name, "dilation", dilation, count)
    windows = []
    for size, k, s, p, d in zip(input.shape[input.ndim - count :], kernel, strides, sides, dilations):
        if k < 1:
            raise RuntimeError(f"{name}: kernel size should be greater than zero, but got {list(kernel)}")
        if s < 1:
            raise RuntimeError(f"{name}: stride should be greater than zero, but got {list(strides)}")
        if d < 1:
            raise RuntimeError(f"{name}: dilation should be greater than zero, but got {list(dilations)}")
        if p < 0:
            raise RuntimeError(f"{name}: pad must be non-negative, but got pad: {p}")
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                f"dilation={d}"
            )
        room = size + 2 * p - d * (k - 1) - 1
        out = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= size + p:  # the last window starts inside the input or its left padding
            out -= 1
        if out < 1:
            raise RuntimeError(
                f"{name}: Given input size: {list(input.shape)}. Calculated output size: {out}. Output size is too "
                "small"
            )
        windows.append((size, out, k, s, p, d))
    return windows


# Maxima -----------------------------------------------------------------------------------------------------


def _max_pool(name: str, count: int, input: Tensor, kernel_size: Ints, stride: Ints | None, padding: Ints,
              dilation: Ints, ceil_mode: bool) -> tuple[Tensor, Tensor]:
    windows = _windows(name, input, count, kernel_size, stride, padding, dilation, ceil_mode)
    return ops.max_pool(input, rules=tuple(("window", *window) for window in windows))


def max_pool1d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Returns the maximum of each window of (N, C, L) or (C, L); with `return_indices` also its position.

    `stride` defaults to the kernel size; `padding` adds -inf on both sides; with `ceil_mode` a last, incomplete window
    counts. RuntimeError for sizes that do not fit. PyTorch: F.max_pool1d.
    """
    found = _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool2d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Returns the maximum of each window of (N, C, H, W) or (C, H, W); see `max_pool1d`. PyTorch: F.max_pool2d."""
    found = _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool3d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """Returns the maximum of each window of (N, C, D, H, W) or (C, D, H, W); see `max_pool1d`.

    PyTorch: F.max_pool3d.
    """
    found = _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)
    return found if return_indices else found[0]


def max_pool1d_with_indices(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                            dilation: Ints = 1, ceil_mode: bool = False, return_indices: bool = True
                            ) -> tuple[Tensor, Tensor]:
    """Returns `max_pool1d` and the positions of the maxima."""
    return _max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d_with_indices(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                            dilation: Ints = 1, ceil_mode: bool = False, return_indices: bool = True
                            ) -> tuple[Tensor, Tensor]:
    """Returns `max_pool2d` and the flat positions of the maxima in (H, W)."""
    return _max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool3d_with_indices(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                            dilation: Ints = 1, ceil_mode: bool = False, return_indices: bool = True
                            ) -> tuple[Tensor, Tensor]:
    """Returns `max_pool3d` and the flat positions of the maxima in (D, H, W)."""
    return _max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode)


def _adaptive_sizes(name: str, input: Tensor, output_size: Sizes, count: int) -> tuple[int, ...]:
    """Gives the output sizes, the input's where they are None."""
    if isinstance(output_size, Sequence) and input.ndim <= len(output_size):
        raise ValueError(f"{name}: Input dimension should be at least {len(output_size) + 1}, got {input.ndim}")
    if input.ndim not in (count + 1, count + 2) or 0 in input.shape[input.ndim - count :]:
        raise RuntimeError(
            f"{name}: Expected {count + 1}D or {count + 2}D (batch mode) tensor with non-zero size for non-batch "
            f"dimensions, but got input of size {list(input.shape)}"
        )
    given = output_size if isinstance(output_size, Sequence) else (output_size,) * count
    if len(given) == 1:
        given = tuple(given) * count
    if len(given) != count:
        raise RuntimeError(f"{name}: output_size must be {count} sizes, got {output_size}")
    sizes = tuple(n if v is None else int(v) for n, v in zip(input.shape[input.ndim - count :], given))
    if min(sizes) < 0:
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 but received {sizes}")
    return sizes


def _adaptive_max(name: str, count: int, input: Tensor, output_size: Sizes) -> tuple[Tensor, Tensor]:
    rules: list[tuple[Any, ...]] = []
    for size, out in zip(input.shape[-count:], _adaptive_sizes(name, input, output_size, count)):
        regular = out > 0 and size % out == 0
        rules.append(("window", size, out, size // out, size // out, 0, 1) if regular else ("area", size, out))
    return ops.max_pool(input, rules=tuple(rules))


def adaptive_max_pool1d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Returns the maxima of `output_size` windows that cover (N, C, L) or (C, L); with `return_indices` also where.

    RuntimeError for sizes that do not fit. PyTorch: F.adaptive_max_pool1d.
    """
    found = _adaptive_max("adaptive_max_pool1d", 1, input, output_size)
    return found if return_indices else found[0]


def adaptive_max_pool2d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Returns the maxima of windows that cover (N, C, H, W) or (C, H, W); None in `output_size` keeps a size.

    PyTorch: F.adaptive_max_pool2d.
    """
    found = _adaptive_max("adaptive_max_pool2d", 2, input, output_size)
    return found if return_indices else found[0]


def adaptive_max_pool3d(input: Tensor, output_size: Sizes, return_indices: bool = False) -> Any:
    """Returns the maxima of windows that cover (N, C, D, H, W) or (C, D, H, W). PyTorch: F.adaptive_max_pool3d."""
    found = _adaptive_max("adaptive_max_pool3d", 3, input, output_size)
    return found if return_indices else found[0]


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Sizes, return_indices: bool = True
                                     ) -> tuple[Tensor, Tensor]:
    """Returns `adaptive_max_pool1d` and the positions of the maxima."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Sizes, return_indices: bool = True
                                     ) -> tuple[Tensor, Tensor]:
    """Returns `adaptive_max_pool2d` and the flat positions of the maxima."""
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Sizes, return_indices: bool = True
                                     ) -> tuple[Tensor, Tensor]:
    """Returns `adaptive_max_pool3d` and the flat positions of the maxima."""
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size)


def _fractional(count: int, input: Tensor, kernel_size: Ints, output_size: Ints | None, output_ratio: Any,
                samples: Tensor | None) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{count}d"
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    _check_dims(name, input, count)
    spatial = input.shape[input.ndim - count :]
    kernel = each(name, "kernel_size", kernel_size, count)
    if output_size is None:
        ratios = tuple(output_ratio) if isinstance(output_ratio, Sequence) else (output_ratio,) * count
        output_size = tuple(int(n * r) for n, r in zip(spatial, ratios))
    size = each(name, "output_size", output_size, count)
    for n, out, k in zip(spatial, size, kernel):
        if k < 1 or out < 1:
            raise RuntimeError(f"{name}: kernel and output sizes must be greater than zero, got {kernel} and {size}")
        if out + k - 1 > n:
            raise RuntimeError(f"{name}: pool size {k} too large relative to input size {n} for output size {out}")
    batched = input.ndim == count + 2
    x = input if batched else input.unsqueeze(0)
    if samples is None:
        samples = rand(x.shape[0], x.shape[1], count, dtype=input.dtype)
    if tuple(samples.shape) != (x.shape[0], x.shape[1], count):
        raise RuntimeError(
            f"{name}: Expected _random_samples of shape {(x.shape[0], x.shape[1], count)}, got {tuple(samples.shape)}"
        )
    if samples.dtype is not input.dtype:
        raise RuntimeError(f"{name}: Expect _random_samples to have the same dtype as input, got {samples.dtype.name}")
    values, indices = ops.fractional_max_pool(x, samples, kernel=kernel, size=size)
    return (values, indices) if batched else (values.squeeze(0), indices.squeeze(0))


def fractional_max_pool2d(input: Tensor, kernel_size: Ints, output_size: Ints | None = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Returns maxima of windows at pseudo-random steps over (N, C, H, W) or (C, H, W), `output_size` of them.

    `output_ratio` (of the input's size) may stand for the size; `_random_samples` (N, C, 2) in [0, 1) decide the steps.
    ValueError for neither size nor ratio, RuntimeError for sizes that do not fit. PyTorch: F.fractional_max_pool2d.
    """
    found = _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


def fractional_max_pool3d(input: Tensor, kernel_size: Ints, output_size: Ints | None = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Returns maxima of windows at pseudo-random steps over (N, C, D, H, W) or (C, D, H, W).

    See `fractional_max_pool2d`. PyTorch: F.fractional_max_pool3d.
    """
    found = _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return found if return_indices else found[0]


def fractional_max_pool2d_with_indices(input: Tensor, kernel_size: Ints, output_size: Ints | None = None,
                                       output_ratio: Any = None, return_indices: bool = True,
                                       _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns `fractional_max_pool2d` and the flat positions of the maxima."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)


def fractional_max_pool3d_with_indices(input: Tensor, kernel_size: Ints, output_size: Ints | None = None,
                                       output_ratio: Any = None, return_indices: bool = True,
                                       _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns `fractional_max_pool3d` and the flat positions of the maxima."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)


# Undoing maxima ---------------------------------------------------------------------------------------------


def _unpool_sizes(name: str, input: Tensor, count: int, kernel_size: Ints, stride: Ints | None, padding: Ints,
                  output_size: Sequence[int] | None) -> tuple[int, ...]:
    kernel = each(name, "kernel_size", kernel_size, count)
    strides = kernel if stride is None else each(name, "stride", stride, count)
    sides = each(name, "padding", padding, count)
    plain = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(input.shape[-count:], strides, kernel, sides))
    if output_size is None:
        return plain
    wanted = tuple(output_size)
    if len(wanted) == count + 2:
        wanted = wanted[2:]
    if len(wanted) != count:
        raise ValueError(
            f"output_size should be a sequence containing {count} or {count + 2} elements, but it has a length of "
            f"'{len(wanted)}'"
        )
    if not all(n - s < w < n + s for n, s, w in zip(plain, strides, wanted)):
        low, high = ([n + sign_ * s for n, s in zip(plain, strides)] for sign_ in (-1, 1))
        raise ValueError(f"invalid output_size {list(wanted)} (dim must be between {low} and {high})")
    return wanted


def _max_unpool(count: int, input: Tensor, indices: Tensor, kernel_size: Ints, stride: Ints | None, padding: Ints,
                output_size: Sequence[int] | None) -> Tensor:
    name = f"max_unpool{count}d"
    if indices.dtype.name != "int64":
        raise RuntimeError(f"{name}: elements in indices should be type int64 but got: {indices.dtype.name}")
    if input.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"{name}: Input to {name} should be a {count + 1}d or {count + 2}d Tensor, but got a tensor with "
            f"{input.ndim} dimensions"
        )
    if tuple(input.shape) != tuple(indices.shape):
        raise RuntimeError(
            f"{name}: Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
            f"indices tensor with shape: {list(indices.shape)}"
        )
    size = _unpool_sizes(name, input, count, kernel_size, stride, padding, output_size)
    lead = tuple(input.shape[: input.ndim - count])
    elements = prod(input.shape[input.ndim - count :])
    zeros = new_zeros(input, (*lead, prod(size)))
    return scatter(zeros, -1, indices.reshape(*lead, elements), input.reshape(*lead, elements)).reshape(*lead, *size)


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Returns zeros with the elements of (N, C, L) or (C, L) at the positions that `max_pool1d` gave.

    ValueError for an `output_size` that the pooling cannot have had. PyTorch: F.max_unpool1d.
    """
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Returns zeros with the elements of (N, C, H, W) or (C, H, W) at the positions that `max_pool2d` gave.

    PyTorch: F.max_unpool2d.
    """
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Returns zeros with the elements of (N, C, D, H, W) or (C, D, H, W) at the positions that `max_pool3d` gave.

    PyTorch: F.max_unpool3d.
    """
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


# Means ------------------------------------------------------------------------------------------------------


def _avg_pool(count: int, input: Tensor, kernel_size: Ints, stride: Ints | None, padding: Ints, ceil_mode: bool,
              count_include_pad: bool, divisor_override: int | None) -> Tensor:
    name = f"avg_pool{count}d"
    windows = _windows(name, input, count, kernel_size, stride, padding, 1, ceil_mode)
    if count == 3 and any(size < k for size, _, k, *_ in windows):  # PyTorch refuses it in three dims only
        raise RuntimeError(
            f"{name}: input image {[w[0] for w in windows]} smaller than kernel size {[w[2] for w in windows]}"
        )
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    if divisor_override is None and input.dtype.category >= 2:
        return resample(input, rules=tuple(("mean", *w[:5], bool(count_include_pad)) for w in windows), adjoint=False)
    total = resample(input, rules=tuple(("sum", *w[:5]) for w in windows), adjoint=False)
    divisor = divisor_override if divisor_override is not None else prod(w[2] for w in windows)
    return total / divisor if input.dtype.category >= 2 else trunc_divide(total, divisor)


@in_float32()
def avg_pool1d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """Returns the mean of each window of (N, C, L) or (C, L); see `avg_pool2d`. PyTorch: F.avg_pool1d."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@in_float32()
def avg_pool2d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """Returns the mean of each window of (N, C, H, W) or (C, H, W).

    `stride` defaults to the kernel size; `padding` zeros on both sides count as elements unless `count_include_pad` is
    False; `divisor_override` takes the place of the number of elements. RuntimeError for sizes that do not fit.
    PyTorch: F.avg_pool2d.
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@in_float32()
def avg_pool3d(input: Tensor, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """Returns the mean of each window of (N, C, D, H, W) or (C, D, H, W); see `avg_pool2d`. PyTorch: F.avg_pool3d."""
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive_avg(count: int, input: Tensor, output_size: Sizes) -> Tensor:
    sizes = _adaptive_sizes(f"adaptive_avg_pool{count}d", input, output_size, count)
    if all(n == 1 for n in sizes):
        return input.mean(tuple(range(-count, 0)), keepdim=True)
    rules: list[tuple[Any, ...]] = []
    for size, out in zip(input.shape[-count:], sizes):
        regular = out > 0 and size % out == 0
        rules.append(("mean", size, out, size // out, size // out, 0, False) if regular else ("area", size, out))
    return resample(input, rules=tuple(rules), adjoint=False)


@in_float32()
def adaptive_avg_pool1d(input: Tensor, output_size: Sizes) -> Tensor:
    """Returns the means of `output_size` windows that cover (N, C, L) or (C, L). PyTorch: F.adaptive_avg_pool1d."""
    return _adaptive_avg(1, input, output_size)


@in_float32()
def adaptive_avg_pool2d(input: Tensor, output_size: Sizes) -> Tensor:
    """Returns the means of windows that cover (N, C, H, W) or (C, H, W); None in `output_size` keeps a size.

    Window t of T over S elements is [floor(t * S / T), ceil((t + 1) * S / T)). PyTorch: F.adaptive_avg_pool2d.
    """
    return _adaptive_avg(2, input, output_size)


@in_float32()
def adaptive_avg_pool3d(input: Tensor, output_size: Sizes) -> Tensor:
    """Returns the means of windows that cover (N, C, D, H, W) or (C, D, H, W). PyTorch: F.adaptive_avg_pool3d."""
    return _adaptive_avg(3, input, output_size)


def _lp_pool(count: int, input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None, ceil_mode: bool
             ) -> Tensor:
    area = prod(each(f"lp_pool{count}d", "kernel_size", kernel_size, count))
    mean = _avg_pool(count, input**norm_type, kernel_size, stride, 0, ceil_mode, True, None)
    return ((sign(mean) * absolute(mean).relu()) * area) ** (1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None,
              ceil_mode: bool = False) -> Tensor:
    """Returns (sum of x**p)**(1/p) over each window of (N, C, L) or (C, L). PyTorch: F.lp_pool1d."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None,
              ceil_mode: bool = False) -> Tensor:
    """Returns (sum of x**p)**(1/p) over each window of (N, C, H, W) or (C, H, W). PyTorch: F.lp_pool2d."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Ints | None = None,
              ceil_mode: bool = False) -> Tensor:
    """Returns (sum of x**p)**(1/p) over each window of (N, C, D, H, W) or (C, D, H, W). PyTorch: F.lp_pool3d."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
