"""Channels to pixels and back, channel shuffling, and affine grids, as compositions.

Invariant: each is a rearrangement or a product with a constant, so every image is independent of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from distgrad.functions.creation import as_size, linspace, ones
from distgrad.functions.movement import stack

__all__ = [
    "affine_grid", "affine_grid_generator", "channel_shuffle", "native_channel_shuffle", "pixel_shuffle",
    "pixel_unshuffle",
]

Tensor = Any


def _check_pixels(name: str, input: Tensor, factor: int) -> tuple[tuple[int, ...], int, int, int]:
    if input.ndim < 3:
        raise RuntimeError(
            f"{name} expects input to have at least 3 dimensions, but got input with {input.ndim} dimension(s)"
        )
    if factor <= 0:
        raise RuntimeError(f"{name} expects a positive factor, but got {factor}")
    return (tuple(input.shape[:-3]), *input.shape[-3:])


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Returns (*, C * r**2, H, W) rearranged as (*, C, H * r, W * r).

    RuntimeError when r**2 does not divide the channels. PyTorch: F.pixel_shuffle; Shi et al., arXiv:1609.05158.
    """
    r = upscale_factor
    lead, channels, height, width = _check_pixels("pixel_shuffle", input, r)
    if channels % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, "
            f"but input.size(-3)={channels} is not divisible by {r * r}"
        )
    n, own = len(lead), channels // (r * r)
    parts = input.reshape(*lead, own, r, r, height, width)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return parts.permute(order).reshape(*lead, own, height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Returns (*, C, H * r, W * r) rearranged as (*, C * r**2, H, W): the inverse of `pixel_shuffle`.

    RuntimeError when r does not divide both sizes. PyTorch: F.pixel_unshuffle.
    """
    r = downscale_factor
    lead, channels, height, width = _check_pixels("pixel_unshuffle", input, r)
    if height % r or width % r:
        raise RuntimeError(
            "pixel_unshuffle expects height and width to be divisible by downscale_factor, but got "
            f"input.size(-2)={height}, input.size(-1)={width} and downscale_factor={r}"
        )
    n = len(lead)
    parts = input.reshape(*lead, channels, height // r, r, width // r, r)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return parts.permute(order).reshape(*lead, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """Returns (N, C, *) with channel g * C/groups + i moved to i * groups + g.

    RuntimeError when `groups` does not divide the channels. PyTorch: F.channel_shuffle; Zhang et al., arXiv:1707.01083.
    """
    if input.ndim < 3:
        raise RuntimeError(f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(input.shape)}")
    if groups <= 0:
        raise RuntimeError(f"Number of groups to divide channels in must be positive. Value of groups: {groups}")
    batch, channels = input.shape[:2]
    if channels % groups:
        raise RuntimeError(
            f"channel_shuffle: Number of channels must be divisible by groups. Got {channels} channels and {groups} "
            "groups."
        )
    if input.size == 0 or 0 in input.shape:
        return input.clone()
    rest = tuple(input.shape[2:])
    return input.reshape(batch, groups, channels // groups, *rest).transpose(1, 2).reshape(batch, channels, *rest)


native_channel_shuffle = channel_shuffle


def _axis(size: int, align_corners: bool, kind: Any) -> Tensor:
    """Gives the positions of `size` pixels in [-1, 1]: of their corners, or of their centers."""
    if size <= 1:
        return linspace(0, 0, size, dtype=kind)
    axis = linspace(-1, 1, size, dtype=kind)
    return axis if align_corners else axis * ((size - 1) / size)


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """Returns the positions (N, *S, dims) that affine maps `theta` (N, dims, dims + 1) give the pixels of (N, C, *S).

    Positions are in [-1, 1], the last dim first (x, y, z). ValueError or RuntimeError for shapes that do not fit,
    TypeError for integers. PyTorch: F.affine_grid.
    """
    if not theta.dtype.is_floating_point:
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype.name}")
    sizes = as_size("affine_grid", (tuple(size),))
    if len(sizes) not in (4, 5):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{list(sizes)}"
        )
    count = len(sizes) - 2
    if theta.ndim != 3 or theta.shape[-2] != count or theta.shape[-1] != count + 1:
        raise ValueError(
            f"Expected a batch of {count}D affine matrices of shape Nx{count}x{count + 1} for size {list(sizes)}. Got "
            f"{list(theta.shape)}."
        )
    if min(sizes) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {list(sizes)}")
    if theta.shape[0] != sizes[0]:
        raise RuntimeError(f"Expected theta to hold {sizes[0]} maps for size {list(sizes)}, got {theta.shape[0]}")
    spatial = sizes[2:]
    columns = []
    for dim in reversed(range(count)):
        axis = _axis(spatial[dim], bool(align_corners), theta.dtype)
        columns.append(axis.reshape(-1, *(1,) * (count - dim - 1)).expand(*spatial))
    columns.append(ones(*spatial, dtype=theta.dtype))
    base = stack(columns, -1).reshape(prod(spatial), count + 1)
    return (base @ theta.transpose(1, 2)).reshape(sizes[0], *spatial, count)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """Gives `affine_grid`, under the name it has as torch.affine_grid_generator."""
    return affine_grid(theta, size, align_corners)
