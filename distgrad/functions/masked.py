"""Reductions and normalizations of which a mask leaves out elements, with torch.masked's signatures.

Invariant: an element counts where the mask (broadcast to the input) is True, or everywhere without one; what is left
out is replaced by the operation's identity before the ordinary function runs, so it gets no gradient. Rows without
any element give the identity, or NaN where there is none (mean, median, var, std). Definitions: the PyTorch page
"torch.masked".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions import activation, cumulative, elementwise, layout, reduction
from distgrad.functions.reduction import Dims, cast_to
from distgrad.meta import normalize_dim, normalize_dims
from distgrad.ops import elementwise as ops

__all__ = [
    "amax", "amin", "argmax", "argmin", "cumprod", "cumsum", "log_softmax", "logaddexp", "logsumexp", "mean", "median",
    "norm", "normalize", "prod", "softmax", "softmin", "std", "sum", "var",
]  # fmt: skip

Tensor = Any


def _mask_of(input: Tensor, mask: Tensor) -> Tensor:
    """Gives the mask as bool in the input's shape; IndexError when it has more dims."""
    if mask.ndim > input.ndim:
        raise IndexError(
            "_input_mask expected broadcastable mask (got mask dimensionality higher than of the input): "
            f"{list(mask.shape)} for {list(input.shape)}"
        )
    flags = cast_to(mask, dtypes.bool_)
    return flags if flags.shape == input.shape else layout.broadcast_to(flags, tuple(input.shape))


def _filled(input: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    return input if mask is None else ops.where(_mask_of(input, mask), input, value)


def _lowest(kind: dtypes.dtype) -> Any:
    return -math.inf if kind.category >= 2 else int(np.iinfo(kind.numpy).min) if kind.category else False


def _highest(kind: dtypes.dtype) -> Any:
    return math.inf if kind.category >= 2 else int(np.iinfo(kind.numpy).max) if kind.category else True


def _summable(input: Tensor, dtype: Any) -> Any:
    """Gives the dtype in which to add or multiply: int64 for bools and integers unless one is asked for."""
    return dtypes.as_dtype(dtype) if dtype is not None else dtypes.int64 if input.dtype.category < 2 else input.dtype


# Reductions -------------------------------------------------------------------------------------------------


def sum(input: Tensor, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
        mask: Tensor | None = None) -> Tensor:
    """Adds up the elements that the mask keeps; 0 for none."""
    axis = normalize_dims("sum", dim, input.ndim)
    return reduction.sum(_filled(input, mask, 0), axis, bool(keepdim), dtype=_summable(input, dtype))


def prod(input: Tensor, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """Multiplies the elements that the mask keeps; 1 for none."""
    result = cast_to(_filled(input, mask, 1), _summable(input, dtype))
    for d in reversed(normalize_dims("prod", dim, input.ndim)):
        result = reduction.prod(result, d, bool(keepdim))
    return result


def amax(input: Tensor, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """Gives the greatest element that the mask keeps; the dtype's lowest value for none."""
    axis = normalize_dims("amax", dim, input.ndim)
    return cast_to(reduction.amax(_filled(input, mask, _lowest(input.dtype)), axis, bool(keepdim)), dtype)


def amin(input: Tensor, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """Gives the smallest element that the mask keeps; the dtype's highest value for none."""
    axis = normalize_dims("amin", dim, input.ndim)
    return cast_to(reduction.amin(_filled(input, mask, _highest(input.dtype)), axis, bool(keepdim)), dtype)


def argmax(input: Tensor, dim: int | None = None, *, keepdim: bool | None = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """Gives where the greatest element that the mask keeps stands along a dim, or in the flattened tensor.

    The position has the input's dtype unless `dtype` says otherwise, as in PyTorch.
    """
    found = reduction.argmax(_filled(input, mask, _lowest(input.dtype)), dim, bool(keepdim))
    return cast_to(found, input.dtype if dtype is None else dtype)


def argmin(input: Tensor, dim: int | None = None, *, keepdim: bool | None = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """Gives where the smallest element that the mask keeps stands along a dim, or in the flattened tensor.

    The position has the input's dtype unless `dtype` says otherwise, as in PyTorch.
    """
    found = reduction.argmin(_filled(input, mask, _highest(input.dtype)), dim, bool(keepdim))
    return cast_to(found, input.dtype if dtype is None else dtype)


def _count(input: Tensor, mask: Tensor | None, axis: tuple[int, ...], keepdim: bool) -> Any:
    """Gives how many elements each result comes from."""
    if mask is None:
        return math.prod(input.shape[d] for d in axis)
    return reduction.sum(_mask_of(input, mask), axis, keepdim)


def mean(input: Tensor, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """Gives the mean of the elements that the mask keeps; NaN for none. ValueError for bools and integers."""
    kind = input.dtype if dtype is None else dtypes.as_dtype(dtype)
    if kind.category < 2:
        source = "Input" if dtype is None else "Optional"
        raise ValueError(
            f"mean(): Could not infer output dtype. {source} dtype must be either a floating point or complex dtype. "
            f"Got: {kind!r}"
        )
    axis = normalize_dims("mean", dim, input.ndim)
    total = sum(input, axis, keepdim=keepdim, dtype=kind, mask=mask)
    return ops.div(total, _count(input, mask, axis, bool(keepdim)))


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: Any = None,
           mask: Tensor | None = None) -> Tensor:
    """Gives the lower median along a dim of the elements that the mask keeps; NaN for none.

    ValueError for integers when a row has none.
    """
    axis = normalize_dim("median", dim, input.ndim)
    floating = input.dtype.is_floating_point
    x = _filled(input if floating else cast_to(input, dtypes.float32), mask, math.nan)
    result = reduction.nanmedian(x, axis, keepdim).values
    if floating:
        return result
    if reduction.any(ops.isnan(result)).item():
        raise ValueError("masked median expects no fully masked out rows if dtype is not floating point")
    return cast_to(result, input.dtype if dtype is None else dtype)


def logsumexp(input: Tensor, dim: Dims = None, *, keepdim: bool = False, dtype: Any = None,
              mask: Tensor | None = None) -> Tensor:
    """Gives log(sum(exp(x))) of the elements that the mask keeps; minus infinity for none."""
    axis = normalize_dims("logsumexp", dim, input.ndim)
    result = activation.logsumexp(_filled(input, mask, _lowest(input.dtype)), axis, keepdim)
    return cast_to(result, input.dtype if dtype is None else dtype)


def norm(input: Tensor, ord: float | None = 2.0, dim: Dims = None, *, keepdim: bool | None = False, dtype: Any = None,
         mask: Tensor | None = None) -> Tensor:
    """Gives the `ord`-norm over dims of the elements that the mask keeps; 0 for none (infinity for ord=-inf)."""
    order = 2.0 if ord is None else ord
    x = _filled(input, mask, math.inf if order == -math.inf else 0)
    return reduction.vector_norm(x, order, dim, bool(keepdim), dtype=dtype)


def _variance(input: Tensor, dim: Dims, unbiased: bool | None, correction: float | None, keepdim: bool,
              dtype: Any, mask: Tensor | None) -> Tensor:
    if unbiased is not None and correction is not None:
        raise AssertionError("Only one of unbiased and correction may be given")
    if correction is None:
        correction = 1.0 if unbiased is None or unbiased else 0.0
    kind = input.dtype if dtype is None else dtypes.as_dtype(dtype)
    if kind.category < 2 and dtype is None:
        kind = dtypes.float32
    compute = kind if kind.category >= 2 else dtypes.float32
    axis = normalize_dims("var", dim, input.ndim)
    total = reduction.sum(_filled(input, mask, 0), axis, True, dtype=compute)
    distance = ops.sub(input, ops.div(total, _count(input, mask, axis, True)))
    squares = _filled(ops.mul(distance, elementwise.conj(distance)), mask, 0)
    spread = reduction.sum(squares, axis, keepdim, dtype=compute)
    count = _count(input, mask, axis, keepdim)
    if mask is None:
        return cast_to(ops.div(spread, float(max(count - correction, 0))), kind)
    freedom = ops.clamp_min(ops.sub(cast_to(count, compute.to_real()), float(correction)), 0.0)
    return cast_to(ops.div(spread, freedom), kind)


def var(input: Tensor, dim: Dims = None, unbiased: bool | None = None, *, correction: float | None = None,
        keepdim: bool | None = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives the variance over dims of the elements that the mask keeps, divided by n - correction; NaN for none."""
    return _variance(input, dim, unbiased, correction, bool(keepdim), dtype, mask)


def std(input: Tensor, dim: Dims = None, unbiased: bool | None = None, *, correction: float | None = None,
        keepdim: bool | None = False, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives the square root of `var`."""
    return ops.sqrt(_variance(input, dim, unbiased, correction, bool(keepdim), dtype, mask))


# Along a dim ------------------------------------------------------------------------------------------------


def cumsum(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives running sums along a dim of the elements that the mask keeps."""
    return cumulative.cumsum(_filled(input, mask, 0), dim, dtype=input.dtype if dtype is None else dtype)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives running products along a dim of the elements that the mask keeps."""
    return cumulative.cumprod(_filled(input, mask, 1), dim, dtype=input.dtype if dtype is None else dtype)


def softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives the softmax along a dim over the elements that the mask keeps; the others get 0."""
    return activation.softmax(_filled(input, mask, _lowest(input.dtype)), dim, dtype=dtype or input.dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives the logarithm of `softmax`; the elements that the mask leaves out get minus infinity."""
    return activation.log_softmax(_filled(input, mask, _lowest(input.dtype)), dim, dtype=dtype or input.dtype)


def softmin(input: Tensor, dim: int, *, dtype: Any = None, mask: Tensor | None = None) -> Tensor:
    """Gives the softmax of the negated elements that the mask keeps; the others get 0."""
    return activation.softmin(_filled(input, mask, _highest(input.dtype)), dim, dtype=dtype or input.dtype)


def normalize(input: Tensor, ord: float, dim: int, *, eps: float = 1e-12, dtype: Any = None,
              mask: Tensor | None = None) -> Tensor:
    """Divides by the `ord`-norm (at least eps) along a dim; the elements that the mask leaves out give 0."""
    size = norm(input, ord, dim, keepdim=True, dtype=dtype, mask=mask)
    return ops.div(_filled(input, mask, 0), ops.clamp_min(size, eps))


def logaddexp(input: Tensor, other: Tensor, *, dtype: Any = None, input_mask: Tensor | None = None,
              other_mask: Tensor | None = None) -> Tensor:
    """Gives log(exp(input) + exp(other)), where each counts as minus infinity outside its mask."""
    first = _filled(input, input_mask, _lowest(input.dtype))
    second = _filled(other, other_mask, _lowest(other.dtype))
    return cast_to(ops.logaddexp(first, second), input.dtype if dtype is None else dtype)
