"""Reducing elements into the places that an index names: product, maximum, minimum.

Invariant: places are those `take_along` reads; with several elements in one place the gradient is exact, also where
factors are zero, and a tie shares it evenly, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.ops.elementwise import cast, where
from distgrad.ops.indexing import along_args, flat_places, scatter_add, scatter_meta, scatter_rows, take_along

_REDUCTIONS = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}


def _reduce_along(x: np.ndarray, index: np.ndarray, src: np.ndarray, *, axis: int, reduce: str) -> np.ndarray:
    out, places = along_args(x, index, axis)
    flat = np.array(out).reshape(-1)
    _REDUCTIONS[reduce].at(flat, flat_places(places, out.shape, axis), src.reshape(-1))
    return flat.reshape(x.shape)


def _extreme_grads(g: Any, y: Any, x: Any, index: Any, src: Any, axis: int) -> tuple[Any, Any, Any]:
    """Splits the cotangent evenly among the elements that are the extreme value."""
    kept = cast(x == y, dtype=g.dtype.name)
    chosen = cast(src == take_along(y, index, axis=axis), dtype=g.dtype.name)
    shared = g / scatter_add(kept, index, chosen, axis=axis)
    return kept * shared, None, chosen * take_along(shared, index, axis=axis)


def _product_grads(g: Any, x: Any, index: Any, src: Any, axis: int) -> tuple[Any, Any, Any]:
    """Gives each factor the product of the others.

    Zeros are taken out and multiplied in again where they count, so that the slopes of the slopes are right too.
    """
    name = g.dtype.name
    zero, x_zero = src == 0, x == 0
    zeros = take_along(
        scatter_add(cast(x_zero, dtype=name), index, cast(zero, dtype=name), axis=axis), index, axis=axis
    )
    safe = where(zero, 1.0, src)
    others = reduce_along(where(x_zero, 1.0, x), index, safe, axis=axis, reduce="prod")
    factor = take_along(g * others, index, axis=axis)
    sums = scatter_add(where(x_zero, x, 0.0), index, where(zero, src, 0.0), axis=axis)  # of the zeros: 0, with a slope
    only = take_along(sums, index, axis=axis)
    src_grad = where(
        zero,
        where(zeros == 1, factor, where(zeros == 2, factor * (only - src), 0.0)),
        where(zeros == 0, factor / safe, where(zeros == 1, factor / safe * only, 0.0)),
    )
    return g * reduce_along(x * 0 + 1, index, src, axis=axis, reduce="prod"), None, src_grad


def _reduce_along_grads(g: Any, y: Any, inputs: tuple[Any, ...], axis: int, reduce: str) -> tuple[Any, Any, Any]:
    x, index, src = inputs
    if reduce == "prod":
        return _product_grads(g, x, index, src, axis)
    return _extreme_grads(g, y, x, index, src, axis)


def _reduce_along_meta(x: TensorMeta, index: TensorMeta, src: TensorMeta, *, axis: int, reduce: str) -> MetaResult:
    return scatter_meta(x, index, src, axis=axis)


reduce_along = Op(
    "reduce_along",
    _reduce_along,
    meta=_reduce_along_meta,
    inputs="x index src",
    rows=scatter_rows,
    joint_vjp=_reduce_along_grads,
)
"""`x` reduced with the elements of `src` where `take_along` would read; `reduce`: "prod", "amax" or "amin"."""
