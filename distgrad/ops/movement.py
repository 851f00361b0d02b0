"""Movement ops: they say where elements go and never compute with them.

Invariant: views (`reshape`, `permute`, `expand`, `slice`, `diagonal`, `unfold`, `reinterpret`) carry `put`, which
writes through them; every op here is linear, so parts of a sum move as the sum does, and its gradient is its transpose.
"""

from __future__ import annotations

import builtins
from collections.abc import Generator, Iterable, Sequence
from math import gcd, prod
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import elementwise, is_number, other_dims_rows
from distgrad.meta import TensorMeta
from distgrad.op import MAX, MIN, PROD, SUM, MetaResult, Op, Row
from distgrad.ops import across_move
from distgrad.placement import Shard, Spec

Attrs = dict[str, Any]
Rows = Iterable[Row]
Metas = Sequence[Any]
Exchanges = Generator[Any, Any, np.ndarray]


def parts_rows(ins: Metas, reduces: Sequence[str] = (SUM, MAX, MIN, PROD)) -> Rows:
    """Rows of an op that only rearranges: parts of its tensors are parts of its result."""
    for reduce in reduces:
        yield Row(tuple(None if is_number(value) else reduce for value in ins), (reduce,))


def _axis_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    """Rows of an op along `axis` that keeps the number of dims; numbers among the inputs stay as they are."""
    for row in other_dims_rows(ins, outs, attrs):
        yield Row(tuple(None if is_number(v) else e for v, e in zip(ins, row.ins)), row.outs)


def _local_shape(attrs: Attrs, ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> Attrs:
    """Gives a rank's attributes where `shape` is the shape of the result."""
    return {**attrs, "shape": outs[0].local_shape(rank)}


def _along(axis: int, window: Any) -> tuple[Any, ...]:
    """Gives the index that selects `window` along `axis` and everything else."""
    return (*(builtins.slice(None),) * axis, window)


def _refuse_put(base: Any, new: Any, **attrs: Any) -> Any:
    raise RuntimeError(
        "unsupported operation: more than one element of the written-to tensor refers to a single memory location. "
        "Please clone() the tensor before performing the operation."
    )


def reshape_groups(shape: tuple[int, ...], new: tuple[int, ...]) -> Iterable[tuple[int, int, int, int]]:
    """Gives (dim, new dim, scale, new scale) for each pair of dims that can be sharded together in a reshape.

    Adjacent dims are grouped until the products of both sides agree. The leading dims a and c of a group of P elements
    can be cut at the same places only where P / a and P / c both divide the offset, that is into gcd(a, c) blocks.
    """
    if 0 in shape:
        for dim, (size, size_new) in enumerate(zip(shape, new)):
            if size != size_new:
                return
            yield dim, dim, 1, 1
        return
    for dim, (size, size_new) in enumerate(zip(shape, new)):
        if size != size_new:
            break
        if size == 1:
            yield dim, dim, 1, 1  # the only row of a sharded tensor: on one worker, none on the others
    old_dims = [d for d, n in enumerate(shape) if n != 1]
    new_dims = [d for d, n in enumerate(new) if n != 1]
    i = j = 0
    while i < len(old_dims) and j < len(new_dims):
        lead, lead_new = old_dims[i], new_dims[j]
        size, size_new = shape[lead], new[lead_new]
        i, j = i + 1, j + 1
        while size != size_new:
            if size < size_new:
                size, i = size * shape[old_dims[i]], i + 1
            else:
                size_new, j = size_new * new[new_dims[j]], j + 1
        blocks = gcd(shape[lead], new[lead_new])
        if blocks > 1:
            yield lead, lead_new, shape[lead] // blocks, new[lead_new] // blocks


def _reshape_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for dim, dim_new, scale, scale_new in reshape_groups(ins[0].shape, outs[0].shape):
        yield Row((dim,), (dim_new,), None if scale == scale_new == 1 else (scale, scale_new))
    if outs[0].size > 1 and outs[0].ndim:
        target = across_move.widest_dim(outs[0].shape)
        yield from (Row((dim,), (target,), through=across_move.reshape) for dim, n in enumerate(ins[0].shape) if n > 1)
    yield from parts_rows(ins)


def _reshape_meta(x: TensorMeta, *, shape: tuple[int, ...]) -> MetaResult:
    if prod(shape) != x.size:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {x.size}")
    return (TensorMeta.of(shape, x.dtype),), None


reshape: Op = Op(
    "reshape", lambda x, *, shape: x.reshape(shape), meta=_reshape_meta, inputs="x", rows=_reshape_rows,
    vjps=(lambda g, x_shape: reshape(g, shape=x_shape),), localize=_local_shape,
    put=lambda base, new, *, shape: reshape(new, shape=tuple(base.shape)),
)


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Gives the permutation that undoes `axes`."""
    return tuple(int(a) for a in np.argsort(axes))


def _permute_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for dim_new, dim in enumerate(attrs["axes"]):
        yield Row((dim,), (dim_new,))
    yield from parts_rows(ins)


permute: Op = Op(
    "permute", lambda x, *, axes: x.transpose(axes), inputs="x", rows=_permute_rows,
    meta=lambda x, *, axes: ((TensorMeta.of(tuple(x.shape[a] for a in axes), x.dtype),), None),
    vjps=(lambda g, axes: permute(g, axes=inverse(axes)),),
    put=lambda base, new, *, axes: permute(new, axes=inverse(axes)),
)


def _expand_meta(x: TensorMeta, *, shape: tuple[int, ...]) -> MetaResult:
    extra = len(shape) - x.ndim
    if extra < 0:
        raise RuntimeError(
            f"expand({x!r}, size={list(shape)}): the number of sizes provided ({len(shape)}) must be greater or equal "
            f"to the number of dimensions in the tensor ({x.ndim})"
        )
    for dim, size in enumerate(x.shape, extra):
        if size not in (1, shape[dim]):
            raise RuntimeError(
                f"The expanded size of the tensor ({shape[dim]}) must match the existing size ({size}) at "
                "non-singleton "
                f"dimension {dim}.  Target sizes: {list(shape)}.  Tensor sizes: {list(x.shape)}"
            )
    return (TensorMeta.of(shape, x.dtype),), None


def _expand_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    extra = outs[0].ndim - ins[0].ndim
    for dim, size in enumerate(outs[0].shape):
        own = dim - extra
        yield Row((own if own >= 0 and ins[0].shape[own] == size else None,), (dim,))
    yield from parts_rows(ins)


def _expand_put(base: Any, new: Any, *, shape: tuple[int, ...]) -> Any:
    if prod(shape) != prod(base.shape):
        _refuse_put(base, new)
    return reshape(new, shape=tuple(base.shape))


def _expand(x: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
    if not x.flags.c_contiguous or x.dtype.kind not in "fiubc":
        return np.broadcast_to(x, shape)
    # What np.broadcast_to gives, which takes three times as long to begin.
    strides = tuple([0 if n == 1 else step for n, step in zip(x.shape, x.strides)]) if x.ndim else ()
    out: np.ndarray = np.ndarray(shape, x.dtype, x, 0, (0,) * (len(shape) - x.ndim) + strides)
    out.flags.writeable = False
    return out


expand: Op = Op(
    "expand", _expand, meta=_expand_meta, inputs="x", rows=_expand_rows,
    vjps=(lambda g: g,), localize=_local_shape, put=_expand_put,
)


def _slice(x: np.ndarray, start: int, *, axis: int, size: int, step: int) -> np.ndarray:
    return x[_along(axis, builtins.slice(start, start + size * step, step))]


def _slice_meta(x: TensorMeta, start: Any, *, axis: int, size: int, step: int) -> MetaResult:
    if step < 1 or size < 0 or (size - 1) * step >= x.shape[axis]:
        raise RuntimeError(
            f"slice: {size} rows in steps of {step} do not fit dimension {axis} of size {x.shape[axis]}; the step "
            "must be positive"
        )
    return (TensorMeta.of((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype),), None


def _slice_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from _axis_rows(ins, outs, attrs)
    yield Row((attrs["axis"], None), (attrs["axis"],), through=across_move.slice_rows)
    yield from parts_rows(ins)


def _add_to_slice(out: np.ndarray, g: np.ndarray, start: int, *, axis: int, size: int, step: int) -> None:
    out[_along(axis, builtins.slice(start, start + size * step, step))] += g


slice: Op = Op(
    "slice", _slice, meta=_slice_meta, inputs="x start", rows=_slice_rows,
    vjps=(lambda g, start, x_shape, x_sharded, axis, step: embed(
        g, start, shape=x_shape, axis=axis, step=step, sharded=x_sharded), None),
    put=lambda base, new, start, *, axis, size, step: slice_scatter(base, new, start, axis=axis, step=step),
    adds=_add_to_slice,
)


def _embed(
    g: np.ndarray, start: int, *, shape: tuple[int, ...], axis: int, step: int, first: int = 0, sharded: int | None = None
) -> np.ndarray:
    size = g.shape[axis]
    whole = step == 1 and first == 0 <= start and start + size <= shape[axis]
    if whole and 2 * size >= shape[axis] > 0:  # each element is written once
        out = np.empty(shape, g.dtype)
        out[_along(axis, builtins.slice(0, start))] = 0
        out[_along(axis, builtins.slice(start, start + size))] = g
        out[_along(axis, builtins.slice(start + size, None))] = 0
        return out
    out = np.zeros(shape, g.dtype)
    if size and first == 0 <= start and start + (size - 1) * step < shape[axis]:  # all rows are here, as they nearly always are
        out[_along(axis, builtins.slice(start, start + size * step, step))] = g
        return out
    low, high, target = across_move.rows_inside(start, step, g.shape[axis], first, shape[axis])
    out[_along(axis, target)] = g[_along(axis, builtins.slice(low, high))]
    return out


def _first_row(attrs: Attrs, outs: Sequence[Spec], rank: int) -> int:
    """Gives the global position of a rank's first row along `axis`."""
    placement = outs[0].placement
    if isinstance(placement, Shard) and placement.dim == attrs["axis"]:
        return placement.block(rank)[0]
    return 0


def _embed_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from _axis_rows(ins, outs, attrs)
    yield Row((attrs["axis"], None), (attrs["axis"],), through=across_move.embed)
    yield Row((None, None), (attrs["axis"],))
    yield from parts_rows(ins, (SUM,))


embed: Op = Op(
    "embed", _embed, inputs="g_rows start", rows=_embed_rows,
    meta=lambda g, start, *, shape, axis, step, sharded=None: ((TensorMeta.of(shape, g.dtype),), None),
    vjps=(
        lambda g, start, g_rows_shape, axis, step: slice(g, start, axis=axis, size=g_rows_shape[axis], step=step), None
    ),
    localize=lambda attrs, ins, outs, rank: {
        **attrs, "shape": outs[0].local_shape(rank), "first": _first_row(attrs, outs, rank)
    },
)


def _slice_scatter(
    base: np.ndarray, new: np.ndarray, start: int, *, axis: int, step: int, first: int = 0
) -> np.ndarray:
    out = np.array(base)
    low, high, target = across_move.rows_inside(start, step, new.shape[axis], first, base.shape[axis])
    out[_along(axis, target)] = new[_along(axis, builtins.slice(low, high))]
    return out


def _scatter_meta(base: TensorMeta, new: TensorMeta, taken: tuple[int, ...], name: str) -> MetaResult:
    if new.shape != taken:
        raise RuntimeError(f"expected src to have a size equal to the slice of self. src size = {list(new.shape)}, "
                           f"slice size = {list(taken)} ({name})")
    return (base,), None if new.dtype is base.dtype else (None, base.dtype, None)


def _slice_scatter_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from _axis_rows(ins, outs, attrs)
    yield Row((attrs["axis"], None, None), (attrs["axis"],))
    yield Row((attrs["axis"], attrs["axis"], None), (attrs["axis"],), through=across_move.slice_scatter)
    yield from parts_rows(ins, (SUM,))


def _slice_scatter_meta(base: TensorMeta, new: TensorMeta, start: Any, *, axis: int, step: int) -> MetaResult:
    size = new.shape[axis] if axis < new.ndim else 0
    return _scatter_meta(base, new, (*base.shape[:axis], size, *base.shape[axis + 1 :]), "slice_scatter")


def _slice_scatter_base(g: Any, new_shape: tuple[int, ...], new_dtype: str, start: int, axis: int, step: int) -> Any:
    from distgrad.ops.creation import full

    zeros = full(0, shape=new_shape, dtype=g.dtype.name)
    return slice_scatter(g, zeros, start, axis=axis, step=step)


slice_scatter: Op = Op(
    "slice_scatter", _slice_scatter, meta=_slice_scatter_meta, inputs="base new start", rows=_slice_scatter_rows,
    vjps=(
        _slice_scatter_base,
        lambda g, start, new_shape, axis, step: slice(g, start, axis=axis, size=new_shape[axis], step=step),
        None,
    ),
    localize=lambda attrs, ins, outs, rank: {**attrs, "first": _first_row(attrs, outs, rank)},
)


def _flip_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from other_dims_rows(ins, outs, attrs)
    for dim in attrs["axis"]:
        yield Row((dim,), (dim,), through=across_move.flip)
    yield from parts_rows(ins)


def _flip(x: np.ndarray, *, axis: tuple[int, ...]) -> np.ndarray:
    return x[::-1] if axis == (0,) else np.flip(x, axis)


flip: Op = Op(
    "flip", _flip, meta=lambda x, *, axis: ((x,), None), inputs="x", rows=_flip_rows,
    vjps=(lambda g, axis: flip(g, axis=axis),),
)


def _roll_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from _axis_rows(ins, outs, attrs)
    yield Row((attrs["axis"], None), (attrs["axis"],), through=across_move.roll)
    yield from parts_rows(ins)


roll: Op = Op(
    "roll", lambda x, shift, *, axis: np.roll(x, shift, axis), meta=lambda x, shift, *, axis: ((x,), None),
    inputs="x shift", rows=_roll_rows, vjps=(lambda g, shift, axis: roll(g, -shift, axis=axis), None),
)


def _concat_meta(*xs: TensorMeta, axis: int) -> MetaResult:
    first = xs[0]
    for position, x in enumerate(xs):
        if x.ndim == 0:
            raise RuntimeError(f"zero-dimensional tensor (at position {position}) cannot be concatenated")
        if x.ndim != first.ndim:
            raise RuntimeError(f"Tensors must have same number of dimensions: got {first.ndim} and {x.ndim}")
        for d, size in enumerate(x.shape):
            if d != axis and size != first.shape[d]:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {first.shape[d]} but got "
                    f"size {size} for tensor number {position} in the list."
                )
    kind = dtypes.result_type(list(xs))
    shape = (*first.shape[:axis], sum(x.shape[axis] for x in xs), *first.shape[axis + 1 :])
    casts = tuple(None if x.dtype is kind else kind for x in xs)
    return (TensorMeta.of(shape, kind),), casts if any(casts) else None


def _concat_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    yield from other_dims_rows(ins, outs, attrs)
    axis = attrs["axis"]
    yield Row((axis,) * len(ins), (axis,), through=across_move.concat)
    yield from parts_rows(ins, (SUM,))


def _concat_vjp(g: Any, needs: tuple[bool, ...], shapes: tuple[tuple[int, ...], ...], axis: int) -> list[Any]:
    results, start = [], 0
    for need, shape in zip(needs, shapes):
        results.append(slice(g, start, axis=axis, size=shape[axis], step=1) if need else None)
        start += shape[axis]
    return results


concat = Op("concat", lambda *xs, axis: np.concatenate(xs, axis), meta=_concat_meta, inputs="*xs", rows=_concat_rows,
            joint_vjp=_concat_vjp)


def _pad(x: np.ndarray, value: Any, *, widths: tuple[tuple[int, int], ...]) -> np.ndarray:
    out = np.empty(tuple(n + b + a for n, (b, a) in zip(x.shape, widths)), x.dtype)
    inner: tuple[builtins.slice, ...] = ()
    for n, (before, after) in zip(x.shape, widths):  # the border alone is filled: its sides, dim by dim
        if before:
            out[(*inner, builtins.slice(None, before))] = value
        if after:
            out[(*inner, builtins.slice(before + n, None))] = value
        inner = (*inner, builtins.slice(before, before + n))
    out[inner] = x
    return out


def _pad_meta(x: TensorMeta, value: Any, *, widths: tuple[tuple[int, int], ...]) -> MetaResult:
    if len(widths) != x.ndim or min((w for pair in widths for w in pair), default=0) < 0:
        raise RuntimeError(f"pad: widths {widths} must be {x.ndim} pairs (before, after) of non-negative numbers")
    return (TensorMeta.of(tuple(n + b + a for n, (b, a) in zip(x.shape, widths)), x.dtype),), None


def _pad_vjp(g: Any, x_shape: tuple[int, ...], widths: tuple[tuple[int, int], ...]) -> Any:
    for axis, (before, after) in enumerate(widths):
        if before or after:
            g = slice(g, before, axis=axis, size=x_shape[axis], step=1)
    return g


pad = Op(
    "pad", _pad, meta=_pad_meta, inputs="x value", vjps=(_pad_vjp, None),
    rows=lambda ins, outs, attrs: (
        Row((d, None), (d,), through=None if w == (0, 0) else across_move.pad) for d, w in enumerate(attrs["widths"])),
)


def diagonal_length(rows: int, columns: int, offset: int) -> int:
    """Gives how many elements the diagonal `offset` of a (rows, columns) matrix has."""
    return max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)


def _rest(ndim: int, axis1: int, axis2: int) -> list[int]:
    return [d for d in range(ndim) if d not in (axis1, axis2)]


def _diagonal_shape(shape: tuple[int, ...], offset: int, axis1: int, axis2: int) -> tuple[int, ...]:
    length = diagonal_length(shape[axis1], shape[axis2], offset)
    return (*(shape[d] for d in _rest(len(shape), axis1, axis2)), length)


def _diagonal_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for position, dim in enumerate(_rest(ins[0].ndim, attrs["axis1"], attrs["axis2"])):
        yield Row((dim,), (position,))
    for dim in (attrs["axis1"], attrs["axis2"]):
        yield Row((dim,), (outs[0].ndim - 1,), through=across_move.diagonal)
    yield from parts_rows(ins)


def _embed_diagonal_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for position, dim in enumerate(_rest(outs[0].ndim, attrs["axis1"], attrs["axis2"])):
        yield Row((position,), (dim,))
    for dim in (attrs["axis1"], attrs["axis2"]):
        yield Row((ins[0].ndim - 1,), (dim,), through=across_move.embed_diagonal)
    yield from parts_rows(ins, (SUM,))


def _diagonal_scatter_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for position, dim in enumerate(_rest(outs[0].ndim, attrs["axis1"], attrs["axis2"])):
        yield Row((dim, position), (dim,))
    yield from parts_rows(ins, (SUM,))


def _diagonal_scatter_meta(base: TensorMeta, new: TensorMeta, *, offset: int, axis1: int, axis2: int) -> MetaResult:
    metas, casts = _scatter_meta(base, new, _diagonal_shape(base.shape, offset, axis1, axis2), "diagonal_scatter")
    return metas, casts and casts[:2]


def _diagonal_scatter_base(g: Any, new_shape: tuple[int, ...], offset: int, axis1: int, axis2: int) -> Any:
    from distgrad.ops.creation import full

    zeros = full(0, shape=new_shape, dtype=g.dtype.name)
    return diagonal_scatter(g, zeros, offset=offset, axis1=axis1, axis2=axis2)


diagonal: Op = Op(
    "diagonal", lambda x, *, offset, axis1, axis2: x.diagonal(offset, axis1, axis2), inputs="x",
    meta=lambda x, *, offset, axis1, axis2: (
        (TensorMeta.of(_diagonal_shape(x.shape, offset, axis1, axis2), x.dtype),), None),
    rows=_diagonal_rows,
    vjps=(lambda g, x_shape, x_sharded, offset, axis1, axis2: embed_diagonal(
        g, shape=x_shape, offset=offset, axis1=axis1, axis2=axis2, sharded=x_sharded),),
    put=lambda base, new, *, offset, axis1, axis2: diagonal_scatter(base, new, offset=offset, axis1=axis1, axis2=axis2),
)
embed_diagonal: Op = Op(
    "embed_diagonal",
    lambda x, *, shape, offset, axis1, axis2, sharded=None: across_move.write_diagonal(
        np.zeros(shape, x.dtype), x, offset, axis1, axis2),
    meta=lambda x, *, shape, offset, axis1, axis2, sharded=None: ((TensorMeta.of(shape, x.dtype),), None),
    inputs="x", rows=_embed_diagonal_rows, localize=_local_shape,
    vjps=(lambda g, offset, axis1, axis2: diagonal(g, offset=offset, axis1=axis1, axis2=axis2),),
)
diagonal_scatter: Op = Op(
    "diagonal_scatter",
    lambda base, new, *, offset, axis1, axis2: across_move.write_diagonal(np.array(base), new, offset, axis1, axis2),
    meta=_diagonal_scatter_meta, inputs="base new", rows=_diagonal_scatter_rows,
    vjps=(_diagonal_scatter_base,
          lambda g, offset, axis1, axis2: diagonal(g, offset=offset, axis1=axis1, axis2=axis2)),
)


def _triangle_meta(x: TensorMeta, *, k: int) -> MetaResult:
    if x.ndim < 2:
        raise RuntimeError(f"tril/triu: input tensor must have at least 2 dimensions, got shape {x.shape}")
    return (x,), None


def _triangle_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    for dim in range(outs[0].ndim):
        yield Row((dim,), (dim,))
    yield from parts_rows(ins, (SUM,))


def _triangle_localize(attrs: Attrs, ins: Sequence[Any], outs: Sequence[Spec], rank: int) -> Attrs:
    """Shifts the diagonal `k` by where a rank's block of rows or columns starts."""
    placement = outs[0].placement
    if not isinstance(placement, Shard) or placement.dim < outs[0].ndim - 2:
        return attrs
    start = placement.block(rank)[0]
    return {**attrs, "k": attrs["k"] + (start if placement.dim == outs[0].ndim - 2 else -start)}


tril: Op = Op("tril", lambda x, *, k: np.tril(x, k), meta=_triangle_meta, inputs="x", rows=_triangle_rows,
          vjps=(lambda g, k: tril(g, k=k),), localize=_triangle_localize)
triu: Op = Op("triu", lambda x, *, k: np.triu(x, k), meta=_triangle_meta, inputs="x", rows=_triangle_rows,
          vjps=(lambda g, k: triu(g, k=k),), localize=_triangle_localize)


def _unfold(x: np.ndarray, *, axis: int, size: int, step: int) -> np.ndarray:
    if x.size == 0:
        return np.empty((*x.shape[:axis], (x.shape[axis] - size) // step + 1, *x.shape[axis + 1 :], size), x.dtype)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis)
    return windows[_along(axis, builtins.slice(None, None, step))]


def _unfold_meta(x: TensorMeta, *, axis: int, size: int, step: int) -> MetaResult:
    rows = x.shape[axis]
    if size > rows:
        raise RuntimeError(f"maximum size for tensor at dimension {axis} is {rows} but size is {size}")
    if step < 1:
        raise RuntimeError(f"step is {step} but must be > 0")
    shape = (*x.shape[:axis], (rows - size) // step + 1, *x.shape[axis + 1 :], size)
    return (TensorMeta.of(shape, x.dtype),), None


def _unfold_rows(ins: Metas, outs: Sequence[TensorMeta], attrs: Attrs) -> Rows:
    through = across_move.unfold if "size" in attrs else across_move.fold_windows
    for dim in range(min(ins[0].ndim, outs[0].ndim)):
        yield Row((dim,), (dim,), through=through if dim == attrs["axis"] else None)
    yield from parts_rows(ins, (SUM,))


def _fold(x: np.ndarray, *, shape: tuple[int, ...], axis: int, step: int) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    count = x.shape[axis]
    for position in range(x.shape[-1]):
        out[_along(axis, builtins.slice(position, position + count * step, step))] += x[..., position]
    return out


unfold: Op = Op(
    "unfold", _unfold, meta=_unfold_meta, inputs="x", rows=_unfold_rows, put=_refuse_put,
    vjps=(lambda g, x_shape, axis, step: fold(g, shape=x_shape, axis=axis, step=step),),
)
fold: Op = Op(
    "fold_windows", _fold, meta=lambda x, *, shape, axis, step: ((TensorMeta.of(shape, x.dtype),), None), inputs="x",
    rows=_unfold_rows, localize=_local_shape,
    vjps=(lambda g, x_shape, axis, step: unfold(g, axis=axis, size=x_shape[-1], step=step),),
)


_MANY, _FEW = 4096, 16  # elements, and repeats along the last dim, for which copies one by one are slow (measured)


def _clone(x: np.ndarray) -> np.ndarray:
    if x.ndim and x.size > _MANY and 1 < x.shape[-1] <= _FEW and x.strides[-1] == 0:  # repeats: numpy copies one by one
        out = np.empty(x.shape, x.dtype)
        for k in range(x.shape[-1]):
            out[..., k] = x[..., 0]
        return out
    return np.array(x, order="C")


clone = elementwise("clone", _clone, "x", vjps=(lambda g: g,), linear=("P",))


def _reinterpret(x: np.ndarray, *, dtype: str) -> np.ndarray:
    kind = dtypes.named(dtype).numpy
    return x.view(kind) if kind.itemsize == x.itemsize else np.array(x, order="C").view(kind)


def _reinterpret_meta(x: TensorMeta, *, dtype: str) -> MetaResult:
    kind = dtypes.named(dtype)
    if kind.itemsize == x.dtype.itemsize:
        return (x.with_dtype(kind),), None
    nbytes = x.shape[-1] * x.dtype.itemsize if x.ndim else 0
    if x.ndim == 0 or nbytes % kind.itemsize:
        raise RuntimeError(
            f"view: the last dimension of shape {x.shape} must be a multiple of "
            f"{kind.itemsize // x.dtype.itemsize or 1} "
            f"elements to view {x.dtype.name} as {dtype}, and the tensor must not be 0-d"
        )
    return (TensorMeta.of((*x.shape[:-1], nbytes // kind.itemsize), kind),), None


reinterpret: Op = Op(
    "reinterpret", _reinterpret, meta=_reinterpret_meta, inputs="x",
    rows=lambda ins, outs, attrs: (Row((d,), (d,)) for d in range(outs[0].ndim - 1)),
    put=lambda base, new, *, dtype: reinterpret(new, dtype=base.dtype.name),
)
