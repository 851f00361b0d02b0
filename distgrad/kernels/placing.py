"""Compiled kernels that read and write single elements along a dim, which numpy does with a position for each dim.

Invariant: nothing outside of an array is touched: of an index with a position outside the dim, the kernels say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from distgrad.kernels.compiling import kernel

_KINDS = (types.uint32, types.uint64)  # elements are moved as they are, of whatever dtype


@kernel("3 i3 3", kinds=_KINDS)
def _take(x: Any, index: Any, out: Any) -> bool:
    outer, n, inner = x.shape
    limit = np.uint64(n)
    outside = False
    for o in range(outer):
        for i in range(index.shape[1]):
            for c in range(inner):
                place = np.uint64(index[o, i, c])
                if place < limit:
                    out[o, i, c] = x[o, place, c]
                else:
                    outside = True
    return outside


@kernel("3 i3 3 bool", kinds=_KINDS)
def _put(out: Any, index: Any, values: Any, single: Any) -> bool:
    outer, n, inner = out.shape
    limit = np.uint64(n)
    outside = False
    value = values[0, 0, 0]
    for o in range(outer):
        for i in range(index.shape[1]):
            for c in range(inner):
                place = np.uint64(index[o, i, c])
                if place < limit:
                    out[o, place, c] = value if single else values[o, i, c]
                else:
                    outside = True
    return outside


def _bits(x: np.ndarray, axis: int) -> np.ndarray:
    shape = (int(np.prod(x.shape[:axis])), x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    return x.reshape(shape).view(np.dtype(f"u{x.itemsize}"))


def _places(index: np.ndarray, axis: int) -> np.ndarray:
    return index.reshape(int(np.prod(index.shape[:axis])), index.shape[axis], int(np.prod(index.shape[axis + 1 :])))


def take_along(x: np.ndarray, index: np.ndarray, axis: int) -> np.ndarray | None:
    """Gives the elements of x at the positions of index along an axis; None for one outside. Other dims are equal."""
    out = np.empty(index.shape, x.dtype)
    return None if _take(_bits(x, axis), _places(index, axis), _bits(out, axis)) else out


def put_along(x: np.ndarray, index: np.ndarray, values: Any, axis: int) -> np.ndarray | None:
    """Gives a copy of x with values (the index's shape, or one element) at positions along an axis; None for one outside.

    Of equal positions the last one counts. Dims other than the axis are equal.
    """
    out, values = x.copy(), np.ascontiguousarray(values, x.dtype)
    single = values.size == 1
    given = _bits(values.reshape((1,) * x.ndim) if single else values, axis)
    return None if _put(_bits(out, axis), _places(index, axis), given, single) else out
