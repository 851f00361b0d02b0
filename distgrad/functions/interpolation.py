"""Resizing (`interpolate`, `upsample`) and sampling at given positions (`grid_sample`) with PyTorch's signatures.

Invariant: a resize is one linear op with one rule per spatial dim; a sample is a weighted sum of gathered pixels, built
from ops, so that gradients of any order reach both the pixels and the positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from distgrad.functions.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from distgrad.functions.precision import in_float32
from distgrad.ops.elementwise import abs as absolute
from distgrad.ops.elementwise import cast, clamp, floor, logical_and, remainder, round, where
from distgrad.ops.indexing import take_along
from distgrad.ops.interpolation import resample
from distgrad.warn import warn_user

__all__ = ["grid_sample", "grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "interpolate", "upsample",
           "upsample_bilinear", "upsample_nearest"]

Tensor = Any

_DIMS = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
_KINDS = {"nearest": "nearest", "nearest-exact": "nearest-exact", "linear": "linear", "bilinear": "linear",
          "trilinear": "linear", "bicubic": "cubic"}


def _sizes(input: Tensor, size: Any, scale_factor: Any, recompute: bool | None
           ) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Gives output sizes and, where a factor defines the scale, input elements per output element (else 0)."""
    count = input.ndim - 2
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if size is not None:
        if recompute:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        given = tuple(size) if isinstance(size, Sequence) else (size,) * count
        if len(given) != count:
            raise ValueError(
                f"Input and output must have the same number of spatial dimensions, but got input with spatial "
                f"dimensions of {list(input.shape[2:])} and output size of {size}. Please provide input tensor in (N, "
                "C, d1, d2, ...,dK) format and output size in (o1, o2, ...,oK) format."
            )
        sizes, scales = tuple(int(n) for n in given), (0.0,) * count
    else:
        factors = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor,) * count
        if len(factors) != count:
            raise ValueError(
                f"Input and scale_factor must have the same number of spatial dimensions, but got input with spatial "
                f"dimensions of {list(input.shape[2:])} and scale_factor of shape {scale_factor}."
            )
        sizes = tuple(math.floor(float(n) * f) for n, f in zip(input.shape[2:], factors))
        scales = (0.0,) * count if recompute else tuple(1.0 / f for f in factors)
    if input.ndim > 2 and (min(sizes) < 1 or min(input.shape[1:]) < 1):
        raise RuntimeError(
            f"Input and output sizes should be greater than 0, but got input {list(input.shape[2:])} and output "
            f"{list(sizes)}"
        )
    return sizes, scales


@in_float32()
def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resizes the spatial dims of (N, C, *S) to `size`, or to floor(S * scale_factor).

    `mode`: "nearest", "nearest-exact", "area", or by the number of spatial dims "linear", "bilinear" or "bicubic",
    "trilinear"; `align_corners` maps the corners' centers on each other; `recompute_scale_factor` takes the scale from
    the sizes; `antialias` (bilinear, bicubic) widens the filter when it shrinks. ValueError or NotImplementedError for
    options that do not go together. PyTorch: F.interpolate.
    """
    if mode in ("nearest", "area", "nearest-exact"):
        if align_corners is not None:
            raise ValueError(
                "align_corners option can only be set with the interpolating modes: linear | bilinear | bicubic | "
                "trilinear"
            )
    elif mode not in _DIMS:
        raise NotImplementedError(
            f"Input Error: Only 3D, 4D and 5D input Tensors supported (got {input.ndim}D) for the modes: nearest | "
            f"linear | bilinear | bicubic | trilinear | area | nearest-exact (got {mode})"
        )
    sizes, scales = _sizes(input, size, scale_factor, recompute_scale_factor)
    count = input.ndim - 2
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError(
            "Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as input"
        )
    if count not in (1, 2, 3) or (mode in _DIMS and _DIMS[mode] != count):
        raise NotImplementedError(
            f"Got {input.ndim}D input, but {mode} mode needs {_DIMS.get(mode, 1) + 2}D input; input Tensors have 3 to "
            "5 dims"
        )
    if mode == "area":
        pool = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[count - 1]
        return pool(input, sizes)
    if mode == "nearest" and count == 2:
        # There PyTorch takes whole ratios of 1 and 2 from the sizes, whatever the factor.
        scales = tuple(0.0 if out in (n, 2 * n) else s for n, out, s in zip(input.shape[2:], sizes, scales))
    kind = _KINDS[mode] + ("-aa" if antialias else "")
    rules = tuple(
        (kind, n, out, bool(align_corners), 0.0 if align_corners else scale)
        for n, out, scale in zip(input.shape[2:], sizes, scales)
    )
    return resample(input, rules=rules, adjoint=False)


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """Returns `interpolate` of the same arguments, and warns as PyTorch does. PyTorch: F.upsample."""
    warn_user("`nn.functional.upsample` is deprecated. Use `nn.functional.interpolate` instead.")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Returns `interpolate` in mode "nearest", and warns as PyTorch does. PyTorch: F.upsample_nearest."""
    warn_user("`nn.functional.upsample_nearest` is deprecated. Use `nn.functional.interpolate` instead.")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """Returns `interpolate` in mode "bilinear" with aligned corners, and warns. PyTorch: F.upsample_bilinear."""
    warn_user("`nn.functional.upsample_bilinear` is deprecated. Use `nn.functional.interpolate` instead.")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


# Sampling at positions --------------------------------------------------------------------------------------


def _unnormalized(position: Tensor, size: int, align_corners: bool) -> Tensor:
    """Gives pixel coordinates from positions in [-1, 1]."""
    if align_corners:
        return (position + 1.0) * ((size - 1) / 2)
    return ((position + 1.0) * size - 1.0) * 0.5


def _reflected(place: Tensor, low: float, high: float) -> Tensor:
    """Gives coordinates reflected at both bounds until they are within."""
    span = high - low
    if span == 0:
        return place * 0.0
    distance = absolute(place - low)
    extra = remainder(distance, span)
    odd = remainder(floor(distance / span), 2.0) == 1.0
    return where(odd, span - extra, extra) + low


def _within(place: Tensor, size: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Gives coordinates as the padding mode sees them: on the border, reflected into the image, or as they are."""
    if padding_mode == "border":
        return clamp(place, 0.0, float(size - 1))
    if padding_mode == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        return clamp(_reflected(place, low, high), 0.0, float(size - 1))
    return place


class _Pixels:
    """The pixels of an image (N, C, *S), to be read at whole coordinates, zero outside."""

    def __init__(self, input: Tensor, positions: int) -> None:
        self.spatial = tuple(input.shape[2:])
        self.shape = (input.shape[0], input.shape[1], positions)
        self.flat = input.reshape(input.shape[0], input.shape[1], math.prod(self.spatial))

    def at(self, places: Sequence[Tensor]) -> Tensor:
        """Reads (N, C, positions) at coordinates (N, positions), one tensor per spatial dim."""
        index = inside = None
        for place, size in zip(places, self.spatial):
            good = logical_and(place >= 0, place <= size - 1)
            # A comparison with nan is false, so what is converted to an integer is always a coordinate.
            whole = cast(where(good, place, 0.0), dtype="int64")
            index = whole if index is None else index * size + whole
            inside = good if inside is None else logical_and(inside, good)
        assert index is not None
        assert inside is not None
        found = take_along(self.flat, index.unsqueeze(1).expand(*self.shape), axis=2)
        return where(inside.unsqueeze(1), found, 0.0)


def _linear_samples(pixels: _Pixels, places: Sequence[Tensor]) -> Tensor:
    lows = [floor(place.detach()) for place in places]
    shares = [place - low for place, low in zip(places, lows)]
    total = None
    for corner in product((0, 1), repeat=len(places)):
        weight = None
        for bit, share in zip(corner, shares):
            factor = share if bit else 1.0 - share
            weight = factor if weight is None else weight * factor
        assert weight is not None
        part = pixels.at([low + float(bit) for low, bit in zip(lows, corner)]) * weight.unsqueeze(1)
        total = part if total is None else total + part
    return total


def _cubic_weights(share: Tensor) -> list[Tensor]:
    """Gives Keys' weights (parameter -0.75) of the four pixels around a coordinate."""
    a = -0.75

    def near(x: Tensor) -> Tensor:
        return ((x * (a + 2) - (a + 3)) * x * x) + 1.0

    def far(x: Tensor) -> Tensor:
        return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a

    return [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)]


def _cubic_samples(pixels: _Pixels, places: Sequence[Tensor], padding_mode: str, align_corners: bool) -> Tensor:
    lows = [floor(place.detach()) for place in places]
    weights = [_cubic_weights(place - low) for place, low in zip(places, lows)]
    total = None
    for row in range(4):
        y = _within(lows[0] + (row - 1.0), pixels.spatial[0], padding_mode, align_corners)
        line = None
        for column in range(4):
            x = _within(lows[1] + (column - 1.0), pixels.spatial[1], padding_mode, align_corners)
            part = pixels.at([y, x]) * weights[1][column].unsqueeze(1)
            line = part if line is None else line + part
        part = line * weights[0][row].unsqueeze(1)
        total = part if total is None else total + part
    return total


def _check_grid(input: Tensor, grid: Tensor, mode: str) -> None:
    count = input.ndim - 2
    if input.ndim not in (4, 5) or grid.ndim != input.ndim:
        raise RuntimeError(
            "grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with sizes "
            f"{list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if input.shape[0] != grid.shape[0]:
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have same batch size, but got input with sizes "
            f"{list(input.shape)} and grid with sizes {list(grid.shape)}"
        )
    if grid.shape[-1] != count:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {count} in last dimension, but got grid with sizes "
            f"{list(grid.shape)}"
        )
    if 0 in input.shape[2:]:
        raise RuntimeError(
            "grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes "
            f"{list(input.shape)}"
        )
    if mode == "bicubic" and count == 3:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if input.dtype is not grid.dtype:
        raise RuntimeError(
            f"grid_sampler(): expected input and grid to have same dtype, but input has {input.dtype.name} and grid "
            f"has {grid.dtype.name}"
        )


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """Returns the values of (N, C, *S) at positions `grid` (N, *T, dims): (N, C, *T).

    Positions are in [-1, 1], the last spatial dim first. `mode`: "bilinear" (trilinear in 3 dims), "nearest",
    "bicubic" (2 dims); `padding_mode`: "zeros", "border", "reflection". ValueError for other modes, RuntimeError for
    shapes that do not fit. PyTorch: F.grid_sample.
    """
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but got: "
            f"'{padding_mode}'"
        )
    _check_grid(input, grid, mode)
    align = bool(align_corners)
    count, batch = input.ndim - 2, input.shape[0]
    wanted = tuple(grid.shape[1:-1])
    positions = grid.reshape(batch, math.prod(wanted), count)
    pixels = _Pixels(input, math.prod(wanted))
    places = [
        _unnormalized(positions.select(-1, count - 1 - dim), size, align) for dim, size in enumerate(pixels.spatial)
    ]
    if mode == "bicubic":
        found = _cubic_samples(pixels, places, padding_mode, align)
    else:
        places = [_within(p, n, padding_mode, align) for p, n in zip(places, pixels.spatial)]
        nearest = mode == "nearest"
        found = pixels.at([round(p, decimals=0) for p in places]) if nearest else _linear_samples(pixels, places)
    return found.reshape(batch, input.shape[1], *wanted)


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int,
                 align_corners: bool) -> Tensor:
    """Returns `grid_sample` with modes given by number. PyTorch: torch.grid_sampler."""
    modes, paddings = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    if interpolation_mode not in range(3) or padding_mode not in range(3):
        raise RuntimeError(
            f"grid_sampler(): modes must be 0, 1 or 2, got interpolation_mode={interpolation_mode} and "
            f"padding_mode={padding_mode}"
        )
    return grid_sample(input, grid, modes[interpolation_mode], paddings[padding_mode], align_corners)


grid_sampler_2d = grid_sampler_3d = grid_sampler
