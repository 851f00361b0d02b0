"""Functions along one dim whose element i depends on elements 0..i, with PyTorch's signatures.

Invariant: results have the input's shape, except `diff`'s, which is shorter by one row per order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distgrad import dtypes
from distgrad.functions.layout import clone
from distgrad.functions.movement import cat, narrow
from distgrad.functions.reduction import cast_to, numpy_names, return_type
from distgrad.meta import normalize_dim
from distgrad.ops import cumulative as ops
from distgrad.ops import elementwise, movement

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]


def _along(name: str, input: Any, dim: int, apply: Callable[[Any, int], Any]) -> Any:
    """Applies to a tensor of at least one dim, and gives a 0-d tensor back its shape."""
    axis = normalize_dim(name, dim, input.ndim)
    if input.ndim:
        return apply(input, axis)
    found = apply(movement.reshape(input, shape=(1,)), 0)
    if isinstance(found, tuple):
        return tuple(movement.reshape(part, shape=()) for part in found)
    return movement.reshape(found, shape=())


@numpy_names
def cumsum(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Gives running sums along a dim; bools and integers give int64."""
    found = _along("cumsum", cast_to(input, dtype), dim, lambda x, axis: ops.cumsum(x, axis=axis))
    return cast_to(found, dtype)


@numpy_names
def cumprod(input: Any, dim: int, *, dtype: Any = None) -> Any:
    """Gives running products along a dim; bools and integers give int64. Gradients are exact at zeros."""
    found = _along("cumprod", cast_to(input, dtype), dim, lambda x, axis: ops.cumprod(x, axis=axis))
    return cast_to(found, dtype)


@numpy_names
def cummax(input: Any, dim: int) -> Any:
    """Gives running maxima along a dim and where they are (the last of equal ones), as (values, indices)."""
    found = _along("cummax", input, dim, lambda x, axis: ops.cummax(x, axis=axis))
    return return_type("cummax", ("values", "indices"))(*found)


@numpy_names
def cummin(input: Any, dim: int) -> Any:
    """Gives running minima along a dim and where they are (the last of equal ones), as (values, indices)."""
    found = _along("cummin", input, dim, lambda x, axis: ops.cummin(x, axis=axis))
    return return_type("cummin", ("values", "indices"))(*found)


@numpy_names
def logcumsumexp(input: Any, dim: int) -> Any:
    """Gives log(cumsum(exp(x))) along a dim without overflow. NotImplementedError for integers."""
    if input.dtype.category < 2:
        raise NotImplementedError(f"logcumsumexp: a floating-point or complex tensor is needed, got {input.dtype!r}")
    return _along("logcumsumexp", input, dim, lambda x, axis: ops.logcumsumexp(x, axis=axis))


@numpy_names
def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    """Gives differences of neighbours along a dim, n times over; of bools, whether they differ.

    RuntimeError for a 0-d tensor or a negative n.
    """
    if input.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    axis = normalize_dim("diff", dim, input.ndim)
    if n == 0:
        return clone(input)
    parts = [part for part in (prepend, input, append) if part is not None]
    x = cat(parts, axis) if len(parts) > 1 else input
    for _ in range(n):
        rows = x.shape[axis]
        if rows == 0:
            break
        if x.dtype is not dtypes.bool_ and x._now().spec.placement is None:
            x = ops.difference(x, axis=axis)
            continue
        later, earlier = narrow(x, axis, 1, rows - 1), narrow(x, axis, 0, rows - 1)
        x = elementwise.logical_xor(later, earlier) if x.dtype is dtypes.bool_ else later - earlier
    return x
