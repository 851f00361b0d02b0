"""Histograms of one and of several variables, with PyTorch's signatures.

Invariant: counts are sums over the elements (or their weights), so parts of a sharded tensor add up. Bins are
half-open, but the last one holds its right edge; elements outside do not count. Definitions: the PyTorch pages
torch.histogram, histogramdd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.functions.creation import linspace
from distgrad.functions.data import from_numpy
from distgrad.functions.reduction import cast_to, is_plain, return_type, sum
from distgrad.functions.sorting import searchsorted
from distgrad.kernels import compiled
from distgrad.op import is_tensor
from distgrad.ops import elementwise as ops
from distgrad.ops.creation import full
from distgrad.ops.indexing import add_rows, take_rows
from distgrad.ops.movement import permute, reshape
from distgrad.ops.movement import slice as slice_rows

__all__ = ["histogram", "histogramdd"]

Tensor = Any
_HISTOGRAM = return_type("histogram", ("hist", "bin_edges"))
_HISTOGRAMDD = return_type("histogramdd", ("hist", "bin_edges"))


def _edges(name: str, values: Tensor, bins: Any, low: Any, high: Any) -> Tensor:
    """Gives the edges of the bins; reads the extremes where no range is given."""
    if is_tensor(bins):
        if bins.ndim != 1 or not bins.shape[0]:
            raise RuntimeError(f"{name}(): bins tensor should have one dimension, but got shape {list(bins.shape)}")
        if bins.dtype is not values.dtype:
            raise RuntimeError(f"{name}(): input and bins tensors should have the same dtype, got {bins.dtype!r}")
        return bins
    if bins <= 0:
        raise RuntimeError(f"{name}(): bins must be > 0, but got {bins}")
    if low is None:
        low, high = (values.min().item(), values.max().item()) if values.numel() else (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise RuntimeError(f"{name}(): range [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError(f"{name}(): min should not exceed max, but got min {low} max {high}")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return linspace(low, high, bins + 1, dtype=values.dtype)


def _bins(values: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Gives each element's bin, and whether it lies in one."""
    count = edges.shape[0] - 1
    left, right = (take_rows(edges, full(row, shape=(), dtype="int64"), axis=0) for row in (0, count))
    inside = ops.logical_and(ops.ge(values, left), ops.le(values, right))
    place = searchsorted(edges, values, right=True) - 1
    return ops.clamp(place, 0, count - 1), inside


def _total(name: str, values: Tensor, weight: Tensor | None, place: Tensor, inside: Tensor, size: int) -> Tensor:
    if weight is None:
        parts = cast_to(inside, values.dtype)
    else:
        if weight.numel() != place.numel():
            raise RuntimeError(
                f"{name}(): if weight tensor is provided, it should have the same shape as the input tensor, got "
                f"{weight.numel()} weights for {place.numel()} elements"
            )
        if weight.dtype is not values.dtype:
            raise RuntimeError(
                f"{name}(): if weight tensor is provided, input tensor and weight tensor should have the same dtype, "
                f"got {weight.dtype!r}"
            )
        parts = ops.keep(inside, reshape(weight.detach(), shape=tuple(place.shape)))
    return add_rows(parts, place, shape=(size,), axis=0)


def _checked(name: str, input: Tensor) -> None:
    if input.dtype.category != 2:
        raise RuntimeError(f"{name}: only floating-point inputs are allowed, got {input.dtype.name}; use .float()")


def histogram(input: Tensor, bins: Any, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
              density: bool = False) -> Any:
    """Counts elements (or adds weights) in bins, as a named tuple (hist, bin_edges).

    `bins`: how many equal ones in `range` (all of the data's by default), or the 1-d tensor of edges. `density`:
    divided by the total and the bins' widths. RuntimeError for arguments that do not fit, or integers.
    """
    _checked("histogram", input)
    if range is not None and len(range) != 2:
        raise RuntimeError(f"histogram(): range should have 2 elements, got {len(range)}")
    values = reshape(input.detach(), shape=(input.numel(),))
    low, high = (None, None) if range is None else range
    edges = _edges("histogram", values, bins, low, high)
    size = edges.shape[0] - 1
    found = None
    if weight is None and not is_tensor(bins) and edges.shape[0] > 1:
        limits = edges.numpy()
        found = counted(values, limits, float(limits[0]), float(limits[-1]), size)
    if found is None:
        place, inside = _bins(values, edges)
        found = _total("histogram", values, weight, place, inside, size)
    if density:
        found = found / sum(found) / _widths(edges)
    return _HISTOGRAM(found, edges)


def _widths(edges: Tensor) -> Tensor:
    size = edges.shape[0] - 1
    return slice_rows(edges, 1, axis=0, size=size, step=1) - slice_rows(edges, 0, axis=0, size=size, step=1)


def counted(values: Tensor, edges: np.ndarray | None, low: float, high: float, bins: int) -> Tensor | None:
    """Gives the counts of a flat tensor's elements in equal bins, by a compiled loop; None where that may not be used."""
    if not is_plain(values) or values.numel() < compiled.LEAST or not high > low:
        return None
    data = np.ascontiguousarray(values.numpy())
    if not compiled.fits(data):
        return None
    from distgrad.kernels.counting import count

    return from_numpy(count(data, np.empty(0, data.dtype) if edges is None else edges, low, high, bins).astype(data.dtype))


def histogramdd(input: Tensor, bins: Any, *, range: Sequence[float] | None = None, weight: Tensor | None = None,
                density: bool = False) -> Any:
    """Counts the points (..., D) in a grid of bins, as a named tuple (hist, tuple of the edges along each variable).

    `bins`: how many along each variable (an int or D of them), or D tensors of edges; `range`: the lowest and highest
    value of each variable, 2 D numbers. RuntimeError for arguments that do not fit, or integers.
    """
    _checked("histogramdd", input)
    if input.ndim < 2:
        raise RuntimeError(f"histogramdd(): input tensor should have at least 2 dimensions, but got {input.ndim}")
    variables = input.shape[-1]
    points = permute(reshape(input.detach(), shape=(input.numel() // max(variables, 1), variables)), axes=(1, 0))
    given = [bins] * variables if isinstance(bins, int) or is_tensor(bins) else list(bins)
    if len(given) != variables:
        raise RuntimeError(
            f"histogramdd(): if bins is given per dimension, its length should be {variables}, the size of the input's "
            f"last dimension, got {len(given)}"
        )
    if range is not None and len(range) != 2 * variables:
        raise RuntimeError(f"histogramdd(): range should have {2 * variables} elements, but got {len(range)}")
    all_edges, flat, within, shape = [], None, None, []
    for d, count in enumerate(given):
        values = reshape(slice_rows(points, d, axis=0, size=1, step=1), shape=(points.shape[1],))
        low, high = (None, None) if range is None else (range[2 * d], range[2 * d + 1])
        edges = _edges("histogramdd", values, count, low, high)
        place, inside = _bins(values, edges)
        size = edges.shape[0] - 1
        flat = place if flat is None else flat * size + place
        within = inside if within is None else ops.logical_and(within, inside)
        all_edges.append(edges)
        shape.append(size)
    if flat is None:
        raise RuntimeError("histogramdd(): the points need at least one variable, got a last dimension of size 0")
    found = reshape(_total("histogramdd", input, weight, flat, within, math.prod(shape)), shape=tuple(shape))
    if density:
        found = found / sum(found)
        for d, edges in enumerate(all_edges):
            found = found / reshape(_widths(edges), shape=(shape[d], *(1,) * (variables - 1 - d)))
    return _HISTOGRAMDD(found, tuple(all_edges))
