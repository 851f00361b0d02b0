"""Integrals and derivatives of sampled functions, with PyTorch's signatures.

Invariant: all are compositions of slices and arithmetic along one dim; other dims stay as they are sharded.
Definitions: the PyTorch pages torch.trapezoid, torch.cumulative_trapezoid, torch.gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad import dtypes
from distgrad.functions.cumulative import cumsum
from distgrad.functions.movement import cat, narrow
from distgrad.functions.reduction import sum
from distgrad.meta import normalize_dim, normalize_dims
from distgrad.op import is_tensor
from distgrad.ops.cumulative import central_difference
from distgrad.ops.elementwise import cast, vanish
from distgrad.ops.movement import reshape

__all__ = ["cumulative_trapezoid", "gradient", "trapezoid", "trapz"]

Tensor = Any


def _parts(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Gives all rows but the first, and all but the last."""
    rows = x.shape[axis]
    return narrow(x, axis, 1, rows - 1), narrow(x, axis, 0, rows - 1)


# Trapezoids -------------------------------------------------------------------------------------------------


def _areas(name: str, y: Tensor, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """Gives the areas of the trapezoids between neighbours along a dim, and that dim of them."""
    if x is not None and dx is not None:
        raise TypeError(f"{name}(): x and dx both say how far the samples are apart; give one of them")
    axis = normalize_dim(name, dim, y.ndim)
    if not y.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    if y.dtype is dtypes.bool_:
        raise RuntimeError(f"{name}: received a bool input for `y`, but bool is not supported")
    if x is None and dx is not None and not isinstance(dx, (int, float, complex)):
        x, dx = dx, None  # PyTorch takes the points by position too
    later, earlier = _parts(y, axis) if y.shape[axis] else (y, y)
    if x is None:
        width: Any = 1 if dx is None else dx
        return (later + earlier) * width / 2, axis
    if x.dtype is dtypes.bool_:
        raise RuntimeError(f"{name}: received a bool input for `x`, but bool is not supported")
    if x.ndim == 1:
        if x.shape[0] != y.shape[axis]:
            raise RuntimeError(
                f"{name}: There must be one `x` value for each sample point, got {x.shape[0]} for {y.shape[axis]}"
            )
        x = reshape(x, shape=(x.shape[0], *(1,) * (y.ndim - 1 - axis)))
    x_axis = x.ndim - (y.ndim - axis)
    if x_axis < 0:
        x, x_axis = reshape(x, shape=(*(1,) * -x_axis, *x.shape)), 0
    if x.shape[x_axis] in (0, 1):
        far = narrow(x, x_axis, 0, 0) if y.shape[axis] == 0 else vanish(x)
        return (later + earlier) * far / 2, axis + max(x.ndim - y.ndim, 0)
    wide, close = _parts(x, x_axis)
    return (later + earlier) * (wide - close) / 2, axis + max(x.ndim - y.ndim, 0)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Gives the integral along a dim by the trapezoid rule; samples lie at `x`, or `dx` (1) apart.

    RuntimeError for bools or points that do not fit.
    """
    areas, axis = _areas("trapezoid", y, x, dx, dim)
    return sum(areas, axis)


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """Gives the running integrals along a dim by the trapezoid rule, one row fewer than samples."""
    areas, axis = _areas("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, axis)


# Gradients --------------------------------------------------------------------------------------------------


def _slopes(x: Tensor, axis: int, edge_order: int, spacing: Any) -> Tensor:
    """Gives the derivative along one dim: central differences inside, one-sided ones of `edge_order` at the ends."""
    rows = x.shape[axis]
    if edge_order == 1 and not is_tensor(spacing) and x._now().spec.placement is None:
        return central_difference(x, spacing, axis=axis)

    def at(start: int, count: int = 1) -> Tensor:
        return narrow(x, axis, start, count)

    if is_tensor(spacing):
        points = reshape(spacing, shape=(rows, *(1,) * (x.ndim - 1 - axis)))
        steps = narrow(points, 0, 1, rows - 1) - narrow(points, 0, 0, rows - 1)

        def step(start: int, count: int = 1) -> Tensor:
            return narrow(steps, 0, start, count)

        before, after = step(0, rows - 2), step(1, rows - 2)
        inner = (
            at(0, rows - 2) * (-after / (before * (before + after)))
            + at(1, rows - 2) * ((after - before) / (before * after))
            + at(2, rows - 2) * (before / (after * (before + after)))
        )
        first, second, last, last_but_one = step(0), step(min(1, rows - 2)), step(rows - 2), step(max(rows - 3, 0))
    else:
        inner = (at(2, rows - 2) - at(0, rows - 2)) / (2 * spacing)
        first = second = last = last_but_one = spacing
    if edge_order == 1:
        return cat([(at(1) - at(0)) / first, inner, (at(rows - 1) - at(rows - 2)) / last], axis)
    return cat([
        _edge(at(0), at(1), at(2), first, second), inner,
        _edge(at(rows - 1), at(rows - 2), at(rows - 3), -last, -last_but_one),
    ], axis)  # fmt: skip


def _edge(end: Tensor, near: Tensor, far: Tensor, first: Any, second: Any) -> Tensor:
    """Gives the slope at the end of three points `first` and `second` apart, from the parabola through them."""
    both = first + second
    return (
        near * (both / (first * second)) - end * ((first + both) / (first * both)) - far * (first / (second * both))
    )


def gradient(input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Gives the derivative of a sampled function along each dim (all by default), one tensor per dim.

    `spacing`: a distance (1 by default), one per dim, or per dim the 1-d tensor of the samples' places. `edge_order`
    (1 or 2): accuracy at the ends. RuntimeError for arguments that do not fit, or dims with no more than `edge_order`
    rows.
    """
    axes = (
        tuple(range(input.ndim)) if dim is None
        else (normalize_dim("gradient", dim, input.ndim),) if isinstance(dim, int)
        else tuple(normalize_dim("gradient", d, input.ndim) for d in dim)
    )
    normalize_dims("gradient", axes, input.ndim)
    spacing = 1 if spacing is None else spacing
    spacings: Sequence[Any] = (
        [spacing] * len(axes) if not isinstance(spacing, (list, tuple)) else list(spacing)
    )
    if len(spacings) != len(axes):
        raise RuntimeError(
            "torch.gradient expected spacing to be unspecified, a scalar, or a list of length equal to the number of "
            f"dims ({len(axes)}), but got a list of length {len(spacings)}"
        )
    if edge_order not in (1, 2):
        raise RuntimeError(f"torch.gradient only supports edge_order=1 and edge_order=2, got {edge_order}")
    for axis, space in zip(axes, spacings):
        if input.shape[axis] <= edge_order:
            raise RuntimeError(
                "torch.gradient expected each dimension size to be at least edge_order+1, got size "
                f"{input.shape[axis]} of dim {axis} for edge_order={edge_order}"
            )
        if is_tensor(space) and (space.ndim != 1 or space.shape[0] != input.shape[axis]):
            raise RuntimeError(
                "torch.gradient expected each coordinate tensor to be 1-d with one element per row of its dim, got "
                f"shape {list(space.shape)} for {input.shape[axis]} rows"
            )
    if input.dtype.category < 2:
        input = cast(input, dtype=dtypes.default().name)
    return tuple(_slopes(input, axis, edge_order, space) for axis, space in zip(axes, spacings))
