"""Results whose size depends on values, of sharded tensors: positions of true elements, distinct elements.

Invariant: of the values only their number is read; everything else stays on the workers, sharded.
"""

from __future__ import annotations

from typing import Any

from distgrad.ops import sorting as order
from distgrad.ops.across import sharded_dim
from distgrad.ops.creation import full
from distgrad.ops.cumulative import cumsum
from distgrad.ops.elementwise import ne
from distgrad.ops.indexing import add_along, take_rows
from distgrad.ops.masking import true_places
from distgrad.ops.movement import concat, reshape, slice
from distgrad.ops.reduction import count_nonzero

__all__ = ["distinct", "is_spread", "places_where"]

Tensor = Any


def is_spread(tensor: Any) -> bool:
    """Says whether a value is a tensor with elements whose rows are on several workers."""
    return sharded_dim(tensor) is not None and tensor.numel() > 0


def places_where(mask: Tensor) -> Tensor:
    """Gives the positions (N,) in the flattened mask where it is not zero. Reads their number."""
    mask = mask.detach()
    count = count_nonzero(mask, axis=tuple(range(mask.ndim)), keepdims=False)
    return true_places(mask, count=int(count.item()))


def distinct(input: Tensor, *, consecutive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the distinct elements of a sharded tensor, where each element went, and how often each occurs.

    In rising order, or with `consecutive` in the order of their first of several in a row. Reads their number.
    """
    size = input.numel()
    rows = reshape(input.detach(), shape=(size,))
    places = None
    if not consecutive:
        rows, places = order.sort(rows, axis=0)
    first = full(True, shape=(1,), dtype="bool")
    later = slice(rows, 1, axis=0, size=size - 1, step=1)
    differs = ne(later, slice(rows, 0, axis=0, size=size - 1, step=1))
    starts = concat(first, differs, axis=0)
    at = places_where(starts)
    count = at.shape[0]
    end = full(size, shape=(1,), dtype="int64")
    counts = concat(slice(at, 1, axis=0, size=count - 1, step=1), end, axis=0) - at
    inverse = cumsum(starts, axis=0) - 1
    if places is not None:
        inverse = add_along(inverse, places, shape=(size,), axis=0, sharded=0)
    return take_rows(rows, at, axis=0), reshape(inverse, shape=tuple(input.shape)), counts
