"""Ops that make tensors from numbers: constants, ranges, identity matrices, triangle indices.

Invariant: an element's value depends on its global position alone, so any block of a tensor can be made by itself. The
attribute `block` (dim, start, stop) names the block to make; `shape` stays the global one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import copysign
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.placement import Shard, Spec

Block = tuple[int, int, int]


def created_meta(*numbers: Any, shape: tuple[int, ...], dtype: str, block: Block | None = None) -> MetaResult:
    """Meta rule of every op without tensor inputs: attributes `shape` and `dtype` (a name) say it all."""
    return (TensorMeta.of(shape, dtypes.named(dtype)),), None


def created_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of an op without tensor inputs whose `block` may be any rows of any dim."""
    for dim in range(outs[0].ndim):
        yield Row((None,) * len(ins), (dim,))


def with_block(attrs: dict[str, Any], ins: Sequence[Spec], outs: Sequence[Spec], rank: int) -> dict[str, Any]:
    """Gives a rank's attributes: `block` names its rows when the first output is sharded."""
    placement = outs[0].placement
    if not isinstance(placement, Shard):
        return attrs
    return {**attrs, "block": (placement.dim, *placement.block(rank))}


def block_shape(shape: tuple[int, ...], block: Block | None) -> tuple[int, ...]:
    """Gives the shape of a block of a tensor of that shape."""
    if block is None:
        return shape
    dim, start, stop = block
    return (*shape[:dim], stop - start, *shape[dim + 1 :])


def positions(shape: tuple[int, ...], dim: int, block: Block | None) -> np.ndarray:
    """Gives the global positions along `dim` that a block covers, as int64."""
    if block is None or block[0] != dim:
        return np.arange(shape[dim])
    return np.arange(block[1], block[2])


def _numpy(dtype: str) -> np.dtype:
    return dtypes.named(dtype).numpy


def _full(value: Any, *, shape: tuple[int, ...], dtype: str, block: Block | None = None) -> np.ndarray:
    own = block_shape(shape, block)
    if value == 0 and (isinstance(value, int) or (isinstance(value, float) and copysign(1, value) > 0)):
        return np.zeros(own, _numpy(dtype))  # pages that the system gives already zeroed
    return np.full(own, value, _numpy(dtype))


def _arange(start: Any, step: Any, *, shape: tuple[int, ...], dtype: str, block: Block | None = None) -> np.ndarray:
    kind = _numpy(dtype)
    first, stop = (0, shape[0]) if block is None else block[1:]
    if dtypes.named(dtype).category < 2:
        start, step = int(start), int(step)
        return np.arange(start + first * step, start + stop * step, step).astype(kind, copy=False)
    if stop - first >= compiled.LEAST and kind.char in "fd" and compiled.enabled():
        from distgrad.kernels.elementwise import count_up

        return count_up(float(start), float(step), first, stop, kind)
    values = positions(shape, 0, block)
    return (float(start) + values * float(step)).astype(kind, copy=False)


def _spaced(start: Any, end: Any, shape: tuple[int, ...], kind: np.dtype, block: Block | None) -> np.ndarray:
    """Evenly spaced numbers, counted from the nearer end so that both ends are exact."""
    wide = np.dtype(np.complex128 if kind.kind == "c" else np.float64)
    start, end = wide.type(start), wide.type(end)
    count, index = shape[0], positions(shape, 0, block)
    if count == 1:
        return np.full(index.shape, start, wide)
    step = (end - start) / (count - 1)
    return np.where(index < count // 2, start + step * index, end - step * (count - 1 - index))


def _linspace(start: Any, end: Any, *, shape: tuple[int, ...], dtype: str, block: Block | None = None) -> np.ndarray:
    kind = _numpy(dtype)
    first, stop = (0, shape[0]) if block is None else block[1:]
    if stop - first >= compiled.LEAST and kind.char in "fd" and compiled.enabled():
        from distgrad.kernels.elementwise import spaced

        return spaced(float(start), float(end), shape[0], first, stop, kind)
    return _spaced(start, end, shape, kind, block).astype(kind, copy=False)


def _logspace(
    start: Any, end: Any, base: Any, *, shape: tuple[int, ...], dtype: str, block: Block | None = None
) -> np.ndarray:
    kind = _numpy(dtype)
    if kind.char in "fd":
        exponents = _linspace(start, end, shape=shape, dtype="float64", block=block)
    else:
        exponents = _spaced(start, end, shape, kind, block)
    if kind.kind != "c" and not isinstance(base, complex):
        return np.power(float(base), exponents).astype(kind, copy=False)
    return np.power(complex(base), exponents).astype(kind, copy=False)


def _eye(*, shape: tuple[int, ...], dtype: str, block: Block | None = None) -> np.ndarray:
    rows, columns = positions(shape, 0, block), positions(shape, 1, block)
    first_row = int(rows[0]) if rows.size else 0
    first_column = int(columns[0]) if columns.size else 0
    return np.eye(rows.size, columns.size, first_row - first_column, dtype=_numpy(dtype))


def _triangle_indices(
    offset: int, *, rows: int, columns: int, lower: bool, shape: tuple[int, ...], dtype: str, block: Block | None = None
) -> np.ndarray:
    found = np.stack((np.tril_indices if lower else np.triu_indices)(rows, int(offset), columns))
    if block is not None:
        found = found[block[1] : block[2]] if block[0] == 0 else found[:, block[1] : block[2]]
    return found.astype(_numpy(dtype))


def _triangle_meta(
    offset: Any, *, rows: int, columns: int, lower: bool, shape: tuple[int, ...], dtype: str, block: Block | None = None
) -> MetaResult:
    return created_meta(shape=shape, dtype=dtype)


full = Op("full", _full, meta=created_meta, inputs="value", rows=created_rows, localize=with_block)
arange = Op("arange", _arange, meta=created_meta, inputs="start step", rows=created_rows, localize=with_block)
linspace = Op("linspace", _linspace, meta=created_meta, inputs="start end", rows=created_rows, localize=with_block)
logspace = Op("logspace", _logspace, meta=created_meta, inputs="start end base", rows=created_rows, localize=with_block)
eye = Op("eye", _eye, meta=created_meta, inputs="", rows=created_rows, localize=with_block)
triangle_indices = Op("triangle_indices", _triangle_indices, meta=_triangle_meta, inputs="offset", rows=created_rows,
                      localize=with_block)
