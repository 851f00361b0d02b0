"""The op whose outputs are all parts of a tensor along one dim, so that their gradients are joined in one pass.

Invariant: parts a function gives are views, made by `slice`; this op is never run for them, it is their history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.creation import full
from distgrad.ops.movement import concat, embed, parts_rows, reshape


def _parts(x: np.ndarray, *, axis: int, sizes: tuple[int, ...], keep: bool) -> tuple[np.ndarray, ...]:
    found = np.split(x, list(accumulate(sizes))[:-1], axis)
    return tuple(found) if keep else tuple(part.squeeze(axis) for part in found)


def _parts_meta(x: TensorMeta, *, axis: int, sizes: tuple[int, ...], keep: bool) -> MetaResult:
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    return tuple(TensorMeta.of((*before, n, *after) if keep else (*before, *after), x.dtype) for n in sizes), None


def _parts_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    axis = attrs["axis"]
    for dim in range(ins[0].ndim):
        if dim != axis:
            yield Row((dim,), (dim if attrs["keep"] or dim < axis else dim - 1,) * len(outs))
    for row in parts_rows(ins):
        yield Row(row.ins, row.outs * len(outs))


def _join(g: Any, x_shape: tuple[int, ...], x_dtype: str, axis: int, sizes: tuple[int, ...], keep: bool) -> list[Any]:
    shapes = [(*x_shape[:axis], size, *x_shape[axis + 1 :]) for size in sizes]
    given = [(i, one if keep else reshape(one, shape=shapes[i])) for i, one in enumerate(g) if one is not None]
    if 4 * len(given) < len(sizes):  # a few rows of many
        starts = list(accumulate(sizes, initial=0))
        return [sum(embed(one, starts[i], shape=x_shape, axis=axis, step=1) for i, one in given)]
    found = dict(given)
    filled = (found[i] if i in found else full(0.0, shape=shape, dtype=x_dtype) for i, shape in enumerate(shapes))
    return [concat(*filled, axis=axis)]


parts = Op("parts", _parts, meta=_parts_meta, inputs="x", rows=_parts_rows, outputs="y", joint_vjp=_join,
           takes_none=True)
"""Cuts a dim into parts of `sizes`; without `keep` all are 1, and the dim is left out."""
