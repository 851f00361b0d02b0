"""Convolutions and transposed convolutions with PyTorch's signatures, and patches (`unfold`, `fold`).

Invariant: everything wrong with sizes is found here, so the ops below only see calls that have a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.ops import convolution as ops
from distgrad.placement import Shard

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "fold", "unfold"]

Tensor = Any
Ints = int | Sequence[int]


def each(name: str, label: str, value: Any, count: int) -> tuple[int, ...]:
    """Gives an int or a sequence as one int per spatial dim; TypeError for no ints, RuntimeError for another number."""
    if hasattr(value, "__index__"):
        return (int(value),) * count
    try:
        sizes = tuple(v.__index__() for v in value)
    except (TypeError, AttributeError):
        raise TypeError(f"{name}(): argument '{label}' must be an int or {count} ints, got {value!r}") from None
    if len(sizes) == 1:
        return sizes * count
    if len(sizes) != count:
        raise RuntimeError(
            f"expected {label} to be a single integer value or a list of {count} values to match the convolution "
            f"dimensions, but got {label}={list(sizes)} ({name})"
        )
    return sizes


def _checked(name: str, input: Tensor, weight: Tensor, count: int, stride: Ints, dilation: Ints, groups: int
             ) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if weight.ndim != count + 2:
        raise RuntimeError(
            f"{name}: expected a {count + 2}-dimensional weight (out, in / groups, kernel...), but got weight of size "
            f"{list(weight.shape)}"
        )
    if input.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"Expected {count + 1}D (unbatched) or {count + 2}D (batched) input to {name}, but got input of size: "
            f"{list(input.shape)}"
        )
    if input.dtype is not weight.dtype:
        raise RuntimeError(
            f"{name}: Input type ({input.dtype.name}) and weight type ({weight.dtype.name}) should be the same"
        )
    if input.dtype.category == 0:
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'; convert with .float()")
    strides, dilations = each(name, "stride", stride, count), each(name, "dilation", dilation, count)
    if min(strides) < 1:
        raise RuntimeError(f"{name}: non-positive stride is not supported, got {list(strides)}")
    if min(dilations) < 1:
        raise RuntimeError(f"{name}: dilation should be greater than zero, got {list(dilations)}")
    if groups < 1:
        raise RuntimeError(f"{name}: non-positive groups is not supported, got {groups}")
    if weight.shape[0] % groups or weight.shape[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got weight of "
            f"size {list(weight.shape)} instead ({name})"
        )
    if 0 in weight.shape[2:]:
        raise RuntimeError(f"{name}: kernel sizes must be positive, got weight of size {list(weight.shape)}")
    return strides, dilations


def _check_bias(name: str, weight: Tensor, bias: Tensor | None, channels: int) -> None:
    if bias is None:
        return
    if tuple(bias.shape) != (channels,):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with {channels} elements, "
            f"but got bias of size {list(bias.shape)} instead ({name})"
        )
    if bias.dtype is not weight.dtype:
        raise RuntimeError(
            f"{name}: Input type ({weight.dtype.name}) and bias type ({bias.dtype.name}) should be the same"
        )


def _with_bias(y: Tensor, bias: Tensor | None, batched: bool) -> Tensor:
    if bias is not None:
        y = y + bias.reshape(bias.shape[0], *(1,) * (y.ndim - 2))
    return y if batched else y.squeeze(0)


def _shares_channels(x: Tensor) -> bool:
    """Says whether workers hold channels of an input each, whose sums a bias may only be added to once."""
    return isinstance(x.placement, Shard) and x.placement.dim == 1


def _conv(count: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints | str,
          dilation: Ints, groups: int) -> Tensor:
    name = f"conv{count}d"
    strides, dilations = _checked(name, input, weight, count, stride, dilation, groups)
    _check_bias(name, weight, bias, weight.shape[0])
    batched = input.ndim == count + 2
    x = input if batched else input.unsqueeze(0)
    kernel, spatial = tuple(weight.shape[2:]), tuple(x.shape[2:])
    if x.shape[1] != weight.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[1] * groups} channels, but got {x.shape[1]} channels instead ({name})"
        )
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise RuntimeError(f"Invalid padding string: '{padding}' ({name}); allowed: 'same', 'valid'")
        if padding == "same" and any(s != 1 for s in strides):
            raise RuntimeError(f"padding='same' is not supported for strided convolutions ({name})")
        total = tuple(d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilations))
    else:
        sides = each(name, "padding", padding, count)
        if min(sides) < 0:
            raise RuntimeError(f"{name}: negative padding is not supported, got {list(sides)}")
        total = tuple(2 * p for p in sides)
    room = tuple(n + p - d * (k - 1) - 1 for n, p, k, d in zip(spatial, total, kernel, dilations))
    if min(room) < 0:
        raise RuntimeError(
            f"Calculated padded input size per channel: {tuple(n + p for n, p in zip(spatial, total))}. Kernel size: "
            f"{tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilations))}. Kernel size can't be greater than actual "
            f"input size ({name})"
        )
    # What of an odd total is left over goes behind the last row: the op pads there as far as `size` needs.
    options = {
        "stride": strides, "padding": tuple(p // 2 for p in total), "dilation": dilations, "groups": groups,
        "size": tuple(r // s + 1 for r, s in zip(room, strides)),
    }
    if bias is None or _shares_channels(x):
        return _with_bias(ops.conv(x, weight, **options), bias, batched)
    y = ops.conv_bias(x, weight, bias, **options)
    return y if batched else y.squeeze(0)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints | str = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Returns the cross-correlation of (N, C, L) or (C, L) with a weight (O, C / groups, K), plus a bias (O,).

    `padding`: zeros on both sides, or "valid" (none), or "same" (as many as keep the size; stride 1 only).
    RuntimeError for sizes or dtypes that do not fit. PyTorch: F.conv1d.
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints | str = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Returns the cross-correlation of (N, C, H, W) or (C, H, W) with a weight (O, C / groups, Kh, Kw); see `conv1d`.

    PyTorch: F.conv2d.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints | str = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Returns the cross-correlation of (N, C, D, H, W) or (C, D, H, W) with a weight (O, C / groups, Kd, Kh, Kw).

    See `conv1d`. PyTorch: F.conv3d.
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv_transpose(count: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints,
                    output_padding: Ints, groups: int, dilation: Ints) -> Tensor:
    name = f"conv_transpose{count}d"
    strides, dilations = _checked(name, input, weight, count, stride, dilation, groups)
    channels = weight.shape[1] * groups
    _check_bias(name, weight, bias, channels)
    sides, extra = each(name, "padding", padding, count), each(name, "output_padding", output_padding, count)
    if min(sides) < 0:
        raise RuntimeError(f"{name}: negative padding is not supported, got {list(sides)}")
    if min(extra) < 0:
        raise RuntimeError(f"{name}: negative output_padding is not supported, got {list(extra)}")
    if any(e >= s and e >= d for e, s, d in zip(extra, strides, dilations)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got output_padding={list(extra)}, "
            f"stride={list(strides)} and dilation={list(dilations)} ({name})"
        )
    batched = input.ndim == count + 2
    x = input if batched else input.unsqueeze(0)
    if x.shape[1] != weight.shape[0]:
        raise RuntimeError(
            f"Given transposed=1, weight of size {list(weight.shape)}, expected input{list(input.shape)} to have "
            f"{weight.shape[0]} channels, but got {x.shape[1]} channels instead ({name})"
        )
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], strides, sides, dilations, weight.shape[2:], extra)
    )
    if min(size) < 1:
        raise RuntimeError(
            f"Given input size per channel: {tuple(x.shape[2:])}. Calculated output size per channel: {size}. Output "
            f"size is too small ({name})"
        )
    y = ops.conv_input(x, weight, stride=strides, padding=sides, dilation=dilations, groups=groups, size=size)
    return _with_bias(y, bias, batched)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Returns the transpose of `conv1d` of (N, C, L) or (C, L) with a weight (C, O / groups, K), plus a bias (O,).

    The size is (L - 1) * stride - 2 * padding + dilation * (K - 1) + output_padding + 1. RuntimeError for sizes or
    dtypes that do not fit. PyTorch: F.conv_transpose1d.
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Returns the transpose of `conv2d` of (N, C, H, W) or (C, H, W) with a weight (C, O / groups, Kh, Kw).

    See `conv_transpose1d`. PyTorch: F.conv_transpose2d.
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Ints = 0,
                     output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1) -> Tensor:
    """Returns the transpose of `conv3d` of (N, C, D, H, W) or (C, D, H, W) with a weight (C, O / groups, Kd, Kh, Kw).

    See `conv_transpose1d`. PyTorch: F.conv_transpose3d.
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# Patches ----------------------------------------------------------------------------------------------------


def _patch_options(name: str, **options: Ints) -> tuple[tuple[int, ...], ...]:
    found = []
    for label, value in options.items():
        sizes = each(name, label, value, 2)
        least = 0 if label == "padding" else 1
        if min(sizes) < least:
            raise RuntimeError(
                f"{name}: {label.replace('_', ' ')} should be {'non-negative' if least == 0 else 'greater than zero'}, "
                f"but got {list(sizes)}"
            )
        found.append(sizes)
    return tuple(found)


def _patch_counts(spatial: Sequence[int], kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
                  stride: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in zip(spatial, kernel, dilation, padding, stride)
    )


def unfold(input: Tensor, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> Tensor:
    """Returns the patches a convolution reads as columns: (N, C, H, W) gives (N, C * Kh * Kw, positions).

    Also for (C, H, W). RuntimeError for sizes that do not fit. PyTorch: F.unfold.
    """
    kernel, dilations, sides, strides = _patch_options(
        "unfold", kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    if input.ndim not in (3, 4) or 0 in input.shape[input.ndim - 3 :]:
        raise RuntimeError(
            "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for input, "
            f"but got: {list(input.shape)}"
        )
    size = _patch_counts(input.shape[-2:], kernel, dilations, sides, strides)
    if min(size) < 1:
        raise RuntimeError(
            f"Given input with spatial size {tuple(input.shape[-2:])}, kernel_size={kernel}, dilation={dilations}, "
            f"padding={sides}, stride={strides}, calculated shape of the array of sliding blocks as {size}, which is "
            "too small (non-positive)"
        )
    batched = input.ndim == 4
    y = ops.patches(input if batched else input.unsqueeze(0), kernel=kernel, stride=strides, padding=sides,
                    dilation=dilations, size=size)
    return y if batched else y.squeeze(0)


def fold(input: Tensor, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0,
         stride: Ints = 1) -> Tensor:
    """Returns columns (N, C * Kh * Kw, positions) added up where `unfold` of (N, C, *output_size) reads them.

    Also for (C * Kh * Kw, positions). RuntimeError for sizes that do not fit. PyTorch: F.fold.
    """
    shape = each("fold", "output_size", output_size, 2)
    kernel, dilations, sides, strides = _patch_options(
        "fold", kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    if input.ndim not in (2, 3) or 0 in input.shape[input.ndim - 2 :]:
        raise RuntimeError(
            "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
            f"input, but got: {list(input.shape)}"
        )
    if input.shape[-2] % (kernel[0] * kernel[1]):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"input.size(1)={input.shape[-2]} and kernel_size={kernel}."
        )
    size = _patch_counts(shape, kernel, dilations, sides, strides)
    if min(size) < 1 or size[0] * size[1] != input.shape[-1]:
        raise RuntimeError(
            f"Given output_size={shape}, kernel_size={kernel}, dilation={dilations}, padding={sides}, "
            f"stride={strides}, expected size of input's dimension 2 to match the calculated number of sliding blocks "
            f"{size[0]} * {size[1]} = {size[0] * size[1]}, but got input.size(2)={input.shape[-1]}."
        )
    batched = input.ndim == 3
    y = ops.add_patches(input if batched else input.unsqueeze(0), kernel=kernel, stride=strides, padding=sides,
                        dilation=dilations, size=size, shape=shape)
    return y if batched else y.squeeze(0)
