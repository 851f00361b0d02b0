"""Several slices and a reshape in one op, and its transpose: what x[i, j] and x[1, 2:5] do where x is in this process.

Invariant: `subscript` gives what a `slice` per axis and a `reshape` of the result give, and is a view as they are. In a
session keys are taken by `slice`, which knows the way to rows on workers; there the op is recorded only for a view, or a
gradient function, from before the session began, and what it is given is gathered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.ops.movement import reshape, slice_scatter
from distgrad.ops.movement import slice as slice_op

LIMIT = 3
"""Axes that one op takes; further starts are 0 and not looked at."""

Sizes = tuple[int, ...]
_ALL = slice(None)


def _key(ndim: int, starts: Sizes, axes: Sizes, sizes: Sizes, steps: Sizes) -> tuple[slice, ...]:
    key = [_ALL] * ndim
    for axis, start, size, step in zip(axes, starts, sizes, steps):
        key[axis] = slice(start, start + size * step, step)
    return tuple(key)


def _subscript(
    x: np.ndarray, first: int, second: int, third: int, *, axes: Sizes, sizes: Sizes, steps: Sizes, shape: Sizes
) -> np.ndarray:
    return x[_key(x.ndim, (first, second, third), axes, sizes, steps)].reshape(shape)


def _embed_subscript(
    g: np.ndarray, first: int, second: int, third: int, *, shape: Sizes, axes: Sizes, sizes: Sizes, steps: Sizes
) -> np.ndarray:
    out = np.zeros(shape, g.dtype)
    rows = out[_key(len(shape), (first, second, third), axes, sizes, steps)]
    rows[...] = g.reshape(rows.shape)
    return out


def _add_to_subscript(
    out: np.ndarray, g: np.ndarray, first: int, second: int, third: int, *, axes: Sizes, sizes: Sizes, steps: Sizes,
    shape: Sizes,
) -> None:
    rows = out[_key(out.ndim, (first, second, third), axes, sizes, steps)]
    rows += g.reshape(rows.shape)


def _put(
    base: Any, new: Any, first: int, second: int, third: int, *, axes: Sizes, sizes: Sizes, steps: Sizes, shape: Sizes
) -> Any:
    """Gives the base with `new` written where the op reads: from the innermost slice outwards."""
    taken = list(zip((first, second, third), axes, sizes, steps))
    bases = [base]
    for start, axis, size, step in taken[:-1]:
        bases.append(slice_op(bases[-1], start, axis=axis, size=size, step=step))
    inner = list(base.shape)
    for _, axis, size, _ in taken:
        inner[axis] = size
    new = reshape(new, shape=tuple(inner))
    for outer, (start, axis, _, step) in zip(reversed(bases), reversed(taken)):
        new = slice_scatter(outer, new, start, axis=axis, step=step)
    return new


def _meta(x: TensorMeta, first: Any, second: Any, third: Any, *, axes: Sizes, sizes: Sizes, steps: Sizes, shape: Sizes
          ) -> MetaResult:
    return (TensorMeta.of(shape, x.dtype),), None


subscript: Op = Op(
    "subscript", _subscript, meta=_meta, inputs="x first second third",
    vjps=(lambda g, first, second, third, x_shape, axes, sizes, steps: embed_subscript(
        g, first, second, third, shape=x_shape, axes=axes, sizes=sizes, steps=steps), None, None, None),
    put=_put, adds=_add_to_subscript,
)
"""Rows [start, start + size * step) in steps of each axis, as a view of `shape`."""

embed_subscript: Op = Op(
    "embed_subscript", _embed_subscript, inputs="g_rows first second third",
    meta=lambda g, first, second, third, *, shape, axes, sizes, steps: ((TensorMeta.of(shape, g.dtype),), None),
    vjps=(lambda g, first, second, third, g_rows_shape, axes, sizes, steps: subscript(
        g, first, second, third, axes=axes, sizes=sizes, steps=steps, shape=g_rows_shape), None, None, None),
)
"""Zeros of `shape` with `g` where `subscript` reads."""
