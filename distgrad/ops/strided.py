"""Reading and writing a tensor's row-major memory by sizes, strides and an offset.

Invariant: the memory is that of the whole tensor, so these ops work on whole tensors (parts of a sum move as the sum
does). Definition: the PyTorch page torch.as_strided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import SUM, MetaResult, Op, Row
from distgrad.ops.movement import parts_rows

Shape = tuple[int, ...]


def _check(x: TensorMeta, shape: Shape, strides: Shape, offset: int) -> None:
    if len(shape) != len(strides):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(strides)} for {list(shape)}")
    if min(strides, default=0) < 0 or offset < 0 or min(shape, default=0) < 0:
        raise RuntimeError(
            f"as_strided: Negative strides, sizes and offsets are not supported, got strides: {list(strides)}, sizes: "
            f"{list(shape)}, storage offset: {offset}"
        )
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if prod(shape) and last >= x.size:
        size = x.dtype.itemsize
        raise RuntimeError(
            f"setStorage: sizes {list(shape)}, strides {list(strides)}, storage offset {offset}, and itemsize {size} "
            f"requiring a storage size of {(last + 1) * size} are out of bounds for storage of size {x.size * size}"
        )


def places(shape: Shape, strides: Shape, offset: int) -> np.ndarray:
    """Gives where in the memory each element lies."""
    found = np.full(shape, offset, np.int64)
    for d, (n, s) in enumerate(zip(shape, strides)):
        found += (np.arange(n) * s).reshape((n,) + (1,) * (len(shape) - 1 - d))
    return found


def _as_strided(x: np.ndarray, *, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
    if not prod(shape):
        return np.empty(shape, x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1)[offset:]
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * x.itemsize for s in strides), writeable=False)


def _as_strided_meta(x: TensorMeta, *, shape: Shape, strides: Shape, offset: int) -> MetaResult:
    _check(x, shape, strides, offset)
    return (TensorMeta.of(shape, x.dtype),), None


def _add_strided(g: np.ndarray, *, shape: Shape, strides: Shape, offset: int) -> np.ndarray:
    out = np.zeros(prod(shape), g.dtype)
    np.add.at(out, places(g.shape, strides, offset).reshape(-1), g.reshape(-1))
    return out.reshape(shape)


def _strided_scatter(base: np.ndarray, new: np.ndarray, *, strides: Shape, offset: int) -> np.ndarray:
    out = np.array(base, order="C")
    out.reshape(-1)[places(new.shape, strides, offset)] = new
    return out


def _strided_scatter_meta(base: TensorMeta, new: TensorMeta, *, strides: Shape, offset: int) -> MetaResult:
    _check(base, new.shape, strides, offset)
    return (base,), None if new.dtype is base.dtype else (None, base.dtype)


def _rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    yield from parts_rows(ins, (SUM,))


def _without(g: Any, new_shape: Shape, strides: Shape, offset: int) -> Any:
    from distgrad.ops.creation import full

    return strided_scatter(g, full(0, shape=new_shape, dtype=g.dtype.name), strides=strides, offset=offset)


as_strided: Op = Op(
    "as_strided", _as_strided, meta=_as_strided_meta, inputs="x", rows=_rows,
    vjps=(lambda g, x_shape, strides, offset: add_strided(g, shape=x_shape, strides=strides, offset=offset),),
    put=lambda base, new, *, shape, strides, offset: strided_scatter(base, new, strides=strides, offset=offset),
)
"""The elements at offset + sum(index * stride) of the row-major memory."""

add_strided: Op = Op(
    "add_strided", _add_strided, inputs="g_view", rows=_rows,
    meta=lambda g, *, shape, strides, offset: ((TensorMeta.of(shape, g.dtype),), None),
    vjps=(lambda g, g_view_shape, strides, offset: as_strided(
        g, shape=g_view_shape, strides=strides, offset=offset),),
)
"""Zeros of `shape` with each element added where `as_strided` would read it."""

strided_scatter: Op = Op(
    "strided_scatter", _strided_scatter, meta=_strided_scatter_meta, inputs="base new", rows=_rows,
    vjps=(_without, lambda g, new_shape, strides, offset: as_strided(
        g, shape=new_shape, strides=strides, offset=offset)),
)
"""The base with `new` written where `as_strided` would read it."""
