"""Sorting, selection, unique elements and counting, with PyTorch's signatures.

Invariant: values come from positions through ops that differentiate; functions whose result's size depends on values
(`unique`, `bincount`) read what they need first.
"""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.data import from_numpy
from distgrad.functions.distinct import distinct, is_spread
from distgrad.functions.reduction import is_plain, return_type
from distgrad.meta import normalize_dim
from distgrad.op import is_tensor
from distgrad.ops import sorting as ops
from distgrad.ops.creation import full
from distgrad.ops.elementwise import cast, floor
from distgrad.ops.elementwise import where as _where
from distgrad.ops.indexing import add_rows, take_along
from distgrad.ops.movement import reshape

__all__ = [
    "argsort",
    "bincount",
    "bucketize",
    "histc",
    "kthvalue",
    "mode",
    "msort",
    "searchsorted",
    "sort",
    "topk",
    "unique",
    "unique_consecutive",
]

Tensor = Any
_SORT = return_type("sort", ("values", "indices"))
_TOPK = return_type("topk", ("values", "indices"))
_KTHVALUE = return_type("kthvalue", ("values", "indices"))
_MODE = return_type("mode", ("values", "indices"))


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Any:
    """Sorts along `dim` and gives (values, indices) (PyTorch: torch.sort). NaN is greatest; always stable."""
    values, indices = ops.sort(input, axis=normalize_dim("sort", dim, input.ndim), descending=bool(descending))
    return _SORT(values, indices)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """Gives the positions that sort along `dim` (PyTorch: torch.argsort); always stable."""
    return ops.argsort(input, axis=normalize_dim("argsort", dim, input.ndim), descending=bool(descending))


def msort(input: Tensor) -> Tensor:
    """Sorts along dim 0 (PyTorch: torch.msort)."""
    if input.ndim and is_plain(input):
        return ops.sorted_values(input, axis=0)
    return ops.sort(input, axis=0)[0]


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """Gives the k largest (or smallest) elements along `dim`, in order, as (values, indices) (PyTorch: torch.topk)."""
    axis = normalize_dim("topk", dim, input.ndim)
    size = input.shape[axis] if input.ndim else 1
    if not 0 <= k <= size:
        raise RuntimeError(f"topk: selected index k out of range, got k={k} for dimension {axis} of size {size}")
    indices = ops.topk_index(input, axis=axis, count=int(k), largest=bool(largest))
    if input.ndim == 0 and k == 0:
        raise RuntimeError("topk: k must be 1 for a 0-d tensor, got 0")
    return _TOPK(take_along(input, indices, axis=axis), indices)


def _one(kind: Any, input: Tensor, indices: Tensor, axis: int, keepdim: bool) -> Any:
    """Gives (values, indices) of one position per row, the dim of 1 dropped unless `keepdim`."""
    values = take_along(input, indices, axis=axis)
    if input.ndim and not keepdim:
        shape = (*input.shape[:axis], *input.shape[axis + 1 :])
        values, indices = reshape(values, shape=shape), reshape(indices, shape=shape)
    return kind(values, indices)


def _row_axis(name: str, input: Tensor, dim: int) -> int:
    axis = normalize_dim(name, dim, input.ndim)
    if input.ndim and input.shape[axis] == 0:
        raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")
    return axis


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """Gives the k-th smallest element along `dim` (k from 1) as (values, indices) (PyTorch: torch.kthvalue)."""
    axis = _row_axis("kthvalue", input, dim)
    size = input.shape[axis] if input.ndim else 1
    if not 1 <= k <= size:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}, got {k} for size {size}")
    return _one(_KTHVALUE, input, ops.kth_index(input, axis=axis, count=1, rank=int(k) - 1), axis, keepdim)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """Gives the smallest most frequent element along `dim` and its last position (PyTorch: torch.mode)."""
    axis = _row_axis("mode", input, dim)
    return _one(_MODE, input, ops.mode_index(input, axis=axis, count=1), axis, keepdim)


# Unique elements --------------------------------------------------------------------------------------------


def _results(found: list[np.ndarray]) -> Any:
    tensors = tuple(from_numpy(np.array(f, order="C")) for f in found)
    return tensors[0] if len(tensors) == 1 else tensors


def _asked(found: tuple[Tensor, Tensor, Tensor], inverse: bool, counts: bool) -> Any:
    results = (found[0], *([found[1]] if inverse else []), *([found[2]] if counts else []))
    return results if len(results) > 1 else results[0]


def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Gives the distinct elements (or rows of `dim`) in rising order, and if asked where each went and how often it
    occurs (PyTorch: torch.unique). Reads the values, of a sharded tensor their number; every NaN is distinct."""
    if dim is None and is_spread(input):
        return _asked(distinct(input, consecutive=False), return_inverse, return_counts)
    values = input.detach().numpy()
    axis = None if dim is None else normalize_dim("unique", dim, input.ndim)
    distinct_of: Any = np.unique  # its stubs know constants only
    results = distinct_of(values, return_inverse=return_inverse, return_counts=return_counts, axis=axis, equal_nan=False)
    if not return_inverse and not return_counts:
        return _results([results])
    if return_inverse:
        inverse = results[1].reshape(values.shape if axis is None else -1)
        results = (results[0], inverse.astype(np.int64, copy=False), *results[2:])
    return _results([results[0], *(r.astype(np.int64, copy=False) for r in results[1:])])


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Drops repeats of the element (or row of `dim`) before (PyTorch: torch.unique_consecutive). Reads the values, of a
    sharded tensor their number."""
    if dim is None and is_spread(input):
        return _asked(distinct(input, consecutive=True), return_inverse, return_counts)
    values = input.detach().numpy()
    axis = None if dim is None else normalize_dim("unique_consecutive", dim, input.ndim)
    rows = values.reshape(-1) if axis is None else np.moveaxis(values, axis, 0)
    flat = rows.reshape(len(rows), -1) if rows.size else rows.reshape(len(rows), 0)
    starts = np.ones(len(rows), bool)
    starts[1:] = (flat[1:] != flat[:-1]).any(1)
    kept = rows[starts]
    inverse = np.cumsum(starts) - 1
    counts = np.diff(np.append(np.flatnonzero(starts), len(rows)))
    found = kept if axis is None else np.moveaxis(kept, 0, axis)
    inverse = inverse.reshape(values.shape if axis is None else -1).astype(np.int64)
    return _results(
        [found, *([inverse] if return_inverse else []), *([counts.astype(np.int64)] if return_counts else [])]
    )


# Places and counts ------------------------------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Gives where elements would go in a sorted sequence, 1-d or with the input's leading dims (PyTorch:
    torch.searchsorted): before equal ones, or after them with `right`."""
    if side not in (None, "left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError(
            "torch.searchsorted(): side and right can't be set to opposites, got side of left while right was True"
        )
    if sorter is not None:
        if tuple(sorter.shape) != tuple(sorted_sequence.shape):
            raise RuntimeError(
                f"torch.searchsorted(): boundary and sorter must have the same size, but got boundary tensor "
                f"{list(sorted_sequence.shape)} and got sorter tensor {list(sorter.shape)}"
            )
        sorted_sequence = take_along(sorted_sequence, sorter, axis=sorted_sequence.ndim - 1)
    right = bool(right) or side == "right"
    return ops.searchsorted(sorted_sequence, input, right=right, dtype="int32" if out_int32 else "int64")


def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """Gives the bucket of each element between sorted 1-d boundaries (PyTorch: torch.bucketize)."""
    if boundaries.ndim != 1:
        raise RuntimeError(f"torch.bucketize(): boundaries tensor must be 1 dimension, but got dim({boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def _counted(places: np.ndarray, weights: Tensor | None, length: int) -> Tensor:
    try:
        counts = np.bincount(places, None if weights is None else weights.detach().numpy(), length)
    except ValueError as error:
        raise RuntimeError(f"bincount only supports 1-d non-negative integral inputs, got {places.min()}") from error
    kind = np.int64 if weights is None else np.float32 if weights.dtype is dtypes.float32 else np.float64
    return from_numpy(counts.astype(kind, copy=False))


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """Counts each integer of a 1-d tensor, or sums its weights (PyTorch: torch.bincount). Reads the extremes."""
    if input.dtype.category >= 2:
        raise NotImplementedError(f"\"bincount_cpu\" not implemented for '{input.dtype.name}'; use .long()")
    if input.ndim != 1:
        raise RuntimeError(
            f"bincount only supports 1-d non-negative integral inputs, got {input.ndim}-d {input.dtype.name}"
        )
    if minlength < 0:
        raise RuntimeError(f"minlength should be >= 0, got {minlength}")
    if weights is not None and tuple(weights.shape) != tuple(input.shape):
        raise RuntimeError(
            f"weights should be 1-d and have the same length as input, got {tuple(weights.shape)} for "
            f"{tuple(input.shape)}"
        )
    if is_plain(input) and (weights is None or is_plain(weights)):
        return _counted(input.numpy(), weights, int(minlength))
    length = int(minlength)
    if input.shape[0]:
        largest, smallest = int(input.max().item()), int(input.min().item())
        if smallest < 0:
            raise RuntimeError(f"bincount only supports 1-d non-negative integral inputs, got {smallest}")
        length = builtins.max(length, largest + 1)
    if weights is None:
        weights = full(1, shape=tuple(input.shape), dtype="int64")
    elif weights.dtype not in (dtypes.float32, dtypes.float64):
        weights = cast(weights, dtype="float64")
    return add_rows(weights.detach(), input, shape=(length,), axis=0)


def histc(input: Tensor, bins: int = 100, min: Any = 0, max: Any = 0) -> Tensor:
    """Counts elements in `bins` equal intervals of [min, max], all of the data's range when both are equal (PyTorch:
    torch.histc); elements outside do not count. Floating inputs only."""
    if input.dtype.category != 2:
        raise RuntimeError(f"histc: only floating-point inputs are allowed, got {input.dtype.name}; use .float()")
    if bins <= 0:
        raise RuntimeError(f"histc: bins must be > 0, got {bins}")
    low, high = (v.item() if is_tensor(v) else v for v in (min, max))
    flat = reshape(input.detach(), shape=(input.numel(),))
    if low == high and input.numel():
        low, high = flat.min().item(), flat.max().item()
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"histc: range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError(f"histc: max must be larger than min, got min={low} and max={high}")
    from distgrad.functions.histogram import counted

    found = counted(flat, None, float(low), float(high), bins)
    if found is not None:
        return found
    inside = (flat >= low) & (flat <= high)
    place = floor((_where(inside, flat, low) - low) * (bins / (high - low)))
    place = cast(_where(place >= bins, bins - 1, place), dtype="int64")
    return add_rows(cast(inside, dtype=input.dtype.name), place, shape=(bins,), axis=0)
