"""Which elements: membership, combinations, places by number, with PyTorch's signatures.

Invariant: results are gathered from the input by position, so gradients follow where there are any.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.creation import as_size, full
from distgrad.functions.data import from_numpy
from distgrad.functions.indexing import nonzero
from distgrad.functions.movement import cat, narrow
from distgrad.functions.reduction import cast_to, is_plain
from distgrad.functions.sorting import searchsorted
from distgrad.meta import broadcast_shapes as _broadcast
from distgrad.op import is_tensor
from distgrad.ops import elementwise as ops
from distgrad.ops import sorting as order
from distgrad.ops.indexing import take_rows
from distgrad.ops.movement import reshape

__all__ = ["broadcast_shapes", "combinations", "isin", "nonzero_static", "unravel_index"]

Tensor = Any


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Says of each element whether it is one of the test elements (bool; `invert`: whether it is none of them).

    Either may be a number, not both.
    """
    if not is_tensor(elements) and not is_tensor(test_elements):
        raise TypeError("isin(): one of elements and test_elements must be a Tensor")
    if not is_tensor(test_elements):
        return ops.ne(elements, test_elements) if invert else ops.eq(elements, test_elements)
    if not is_tensor(elements):
        elements = full((), elements)
    count = test_elements.numel()
    if not count:
        return full(tuple(elements.shape), bool(invert), dtype=dtypes.bool_)
    kind = dtypes.result_type([elements, test_elements])
    values = cast_to(elements, kind)
    known = cast_to(reshape(test_elements, shape=(count,)), kind)
    if kind is dtypes.bool_:
        values, known = cast_to(values, dtypes.uint8), cast_to(known, dtypes.uint8)
    if is_plain(elements) and is_plain(test_elements) and kind.category < 2:
        return from_numpy(np.isin(values.numpy(), known.numpy(), assume_unique=assume_unique, invert=invert))
    ranked, _ = order.sort(known, axis=0)
    place = ops.clamp_max(searchsorted(ranked, values), count - 1)
    found = take_rows(ranked, place, axis=0)
    return ops.ne(found, values) if invert else ops.eq(found, values)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """Gives all combinations of r elements of a 1-d tensor, shape (number, r).

    RuntimeError for more dims or a negative r.
    """
    if input.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return full((0,), 0, dtype=input.dtype)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.shape[0]), r)), np.int64).reshape(-1, r)
    return take_rows(input, from_numpy(rows), axis=0)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """Gives the indices of the first `size` non-zero elements, shape (size, ndim), filled up with `fill_value`."""
    if size < 0:
        raise RuntimeError(f"nonzero_static: 'size' must be an non-negative integer, got {size}")
    found = nonzero(input)
    rows = found.shape[0]
    if rows >= size:
        return narrow(found, 0, 0, size)
    return cat([found, full((size - rows, input.ndim), fill_value, dtype=dtypes.int64)], 0)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Gives for positions in a flattened tensor of that shape their index in each dim.

    RuntimeError for indices that are no integers; ValueError for a position outside the shape (values are read).
    """
    if not is_tensor(indices) or indices.dtype.category != 1:
        given = indices.dtype.name if is_tensor(indices) else type(indices).__name__
        raise (ValueError if is_tensor(indices) else TypeError)(
            f"expected 'indices' to be an integer tensor, but got {given}"
        )
    if is_tensor(shape):
        shape = shape.tolist()
    sizes = as_size("unravel_index", ((shape,) if isinstance(shape, int) else tuple(shape),))
    found = []
    rest = indices
    for size in reversed(sizes):
        found.append(ops.remainder(rest, max(size, 1)))
        rest = ops.floor_divide(rest, max(size, 1))
    return tuple(reversed(found))


def broadcast_shapes(*shapes: int | Sequence[int]) -> Any:
    """Gives the shape that tensors of these shapes (tuples or ints) broadcast to; RuntimeError when they do not."""
    from distgrad.tensor import Size  # a layer above this one

    return Size(_broadcast("broadcast_shapes", *((s,) if isinstance(s, int) else tuple(s) for s in shapes)))
