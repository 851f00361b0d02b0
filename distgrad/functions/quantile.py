"""Quantiles along a dim, with PyTorch's signatures.

Invariant: both are compositions of sort, gather and interpolation; values between two elements share the gradient.
Definitions: the PyTorch pages torch.quantile, torch.nanquantile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.creation import full
from distgrad.functions.data import from_numpy
from distgrad.functions.movement import movedim
from distgrad.functions.reduction import any, cast_to, is_plain, sum
from distgrad.meta import normalize_dim
from distgrad.op import is_tensor
from distgrad.ops import elementwise
from distgrad.ops import sorting as order
from distgrad.ops.indexing import take_along
from distgrad.ops.movement import expand, reshape, slice

__all__ = ["nanquantile", "quantile"]

Tensor = Any
_WAYS = ("linear", "lower", "higher", "midpoint", "nearest")


def _check(name: str, input: Tensor, q: Any, interpolation: str) -> Tensor:
    """Gives q as a tensor; RuntimeError for arguments that PyTorch refuses."""
    if interpolation not in _WAYS:
        raise RuntimeError(
            f"{name}() interpolation must be one of linear, lower, higher, midpoint or nearest, but got {interpolation}"
        )
    if not input.numel():
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"{name}() input tensor must be either float or double dtype, got {input.dtype!r}")
    if is_tensor(q):
        if q.ndim > 1:
            raise RuntimeError(f"{name}() q must be a scalar or 1D tensor, got shape {list(q.shape)}")
        if q.dtype is not input.dtype:
            raise RuntimeError(f"{name}() q tensor must be same dtype as the input tensor, got {q.dtype!r}")
        return q
    if not 0 <= q <= 1:
        raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {q}")
    return full((), float(q), dtype=input.dtype)


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, way: str, skip: bool) -> Tensor:
    levels = _check(name, input, q, way)
    scalar = levels.ndim == 0
    if dim is None:
        x = reshape(input, shape=(input.numel(),))
        kept: tuple[int, ...] = (1,) * input.ndim if keepdim else ()
    else:
        axis = normalize_dim(name, dim, input.ndim)
        shape = tuple(input.shape)
        kept = (*shape[:axis], *((1,) if keepdim and shape else ()), *shape[axis + 1 :])
        x = movedim(input, axis, -1) if input.ndim else reshape(input, shape=(1,))
    last = x.ndim - 1
    if is_plain(x) and is_plain(levels) and not (skip and np.isnan(x.numpy()).any()):
        return _picked(x, levels, kept, way)
    ranked, _ = order.sort(x, axis=last)
    missing = elementwise.isnan(x.detach())
    levels = reshape(levels, shape=(1,) * last + (levels.numel(),))
    if skip:
        numbers = sum(elementwise.logical_not(missing), last, True)
        places = levels * cast_to(elementwise.clamp_min(numbers - 1, 0), x.dtype)
    else:
        # NaN is sorted to the end: a row that holds one takes its last element.
        end = x.shape[last] - 1
        places = elementwise.where(any(missing, last, True), float(end), levels * float(end))
    if way == "nearest":
        places = elementwise.round(places, decimals=0)
    below = elementwise.floor(places)
    if way == "lower":
        places = below
    if way == "higher":
        below = places = elementwise.ceil(places)
    whole = (*x.shape[:last], levels.shape[last])
    low = take_along(ranked, expand(cast_to(below.detach(), dtypes.int64), shape=whole), axis=last)
    if way in ("linear", "midpoint"):
        share = places - below if way == "linear" else elementwise.vanish(places) + 0.5
        above = cast_to(elementwise.ceil(places.detach()), dtypes.int64)
        high = take_along(ranked, expand(above, shape=whole), axis=last)
        low = elementwise.lerp(low, high, share)
    if scalar:
        return reshape(low, shape=kept)
    front = movedim(low, -1, 0)
    return reshape(front, shape=(front.shape[0], *kept))


def _picked(x: Tensor, levels: Tensor, kept: tuple[int, ...], way: str) -> Tensor:
    """Gives the quantiles along the last dim where no gradient is asked for: only their elements are put in order."""
    last = x.ndim - 1
    q = levels.detach().numpy()
    places = q.reshape(-1) * q.dtype.type(x.shape[last] - 1)
    if way == "nearest":
        places = np.rint(places)
    below, above = np.floor(places), np.ceil(places)
    first = above if way == "higher" else below
    ranks = [*first.astype(int), *above.astype(int)] if way in ("linear", "midpoint") else first.astype(int)
    found = order.ranked(x.detach(), axis=last, ranks=tuple(int(r) for r in ranks))
    if way in ("linear", "midpoint"):
        low, high = (slice(found, i * len(places), axis=last, size=len(places), step=1) for i in (0, 1))
        share = places - below if way == "linear" else np.full_like(places, 0.5)
        found = elementwise.lerp(low, high, from_numpy(share))
    if q.ndim == 0:
        return reshape(found, shape=kept)
    front = movedim(found, -1, 0)
    return reshape(front, shape=(front.shape[0], *kept))


def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """Gives the q-quantiles of all elements or along a dim; a 1-d q adds a first dim. NaN where a row holds one.

    RuntimeError for no elements, dtypes other than float32 and float64, or a q outside [0, 1].
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """Gives the q-quantiles of the elements that are not NaN; NaN where a row has none."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)
