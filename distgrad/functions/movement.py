"""Functions that join, cut, turn and pad tensors, with PyTorch's signatures; those of `layout` are here too.

Invariant: parts of a tensor (`split`, `select`, `narrow`, `diagonal`, ...) are views of it, joined tensors are new.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from operator import index as as_int
from typing import Any

from distgrad import dtypes
from distgrad.autodiff import GradFn
from distgrad.dispatch import edge_of
from distgrad.functions.labels import shown_as
from distgrad.functions.layout import (
    H,
    T,
    broadcast_tensors,
    broadcast_to,
    clone,
    contiguous,
    expand,
    expand_as,
    flatten,
    is_contiguous,
    listed,
    mH,
    moveaxis,
    movedim,
    mT,
    permute,
    ravel,
    repeat,
    repeat_interleave,
    reshape,
    reshape_as,
    sizes_of,
    squeeze,
    stride,
    swapaxes,
    swapdims,
    t,
    tile,
    transpose,
    unflatten,
    unsqueeze,
    view,
    view_as,
)
from distgrad.grad_mode import mode
from distgrad.graph import Plan
from distgrad.meta import normalize_dim, normalize_dims
from distgrad.op import OPS, is_tensor
from distgrad.ops import movement as ops
from distgrad.ops.parts import parts
from distgrad.views import rows_of

__all__ = [
    "H", "T", "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "broadcast_tensors", "broadcast_to",
    "cartesian_prod", "cat", "chunk", "clone", "column_stack", "concat", "concatenate", "contiguous", "diag",
    "diag_embed", "diagonal", "diagonal_scatter", "dsplit", "dstack", "expand", "expand_as", "flatten", "flip",
    "fliplr", "flipud", "hsplit", "hstack", "is_contiguous", "mH", "mT", "meshgrid", "moveaxis", "movedim", "narrow",
    "pad", "permute", "ravel", "repeat", "repeat_interleave", "reshape", "reshape_as", "roll", "rot90", "row_stack",
    "select", "select_scatter", "slice_scatter", "split", "split_with_sizes", "squeeze", "stack", "stride", "swapaxes",
    "swapdims", "t", "tensor_split", "tile", "transpose", "tril", "triu", "unbind", "unflatten", "unfold", "unsqueeze",
    "view", "view_as", "vsplit", "vstack",
]


def cat(tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Any:
    """Joins tensors along a dim. dtypes are promoted; empty 1-d tensors are skipped, as PyTorch does.

    ValueError for no tensors, RuntimeError when other sizes differ.
    """
    if is_tensor(tensors):
        raise TypeError("cat(): argument 'tensors' (position 1) must be tuple of Tensors, not Tensor")
    given = tuple(tensors)
    if not given:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    if not all(map(is_tensor, given)):
        position, wrong = next((i, x) for i, x in enumerate(given) if not is_tensor(x))
        raise TypeError(f"cat(): expected Tensor as element {position} in argument 0, but got {type(wrong).__name__}")
    specs = {x._node.spec for x in given}  # few, also of many tensors
    kept = given
    if len(specs) > 1 and any(spec.meta.shape == (0,) for spec in specs):
        kept = tuple(x for x in given if x.shape != (0,))
    if kept and len(kept) < len(given) and kept[0].ndim != 1:
        kind = dtypes.result_type([x._node.spec.meta for x in given])
        given = tuple(x if x.dtype is kind else OPS["cast"](x, dtype=kind.name) for x in kept)
    return ops.concat(*given, axis=normalize_dim("cat", dim if axis is None else axis, given[0].ndim))


concat = concatenate = cat


@shown_as("StackBackward0")
def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Joins tensors of one shape along a new dim. RuntimeError for none, or when shapes differ."""
    given = tuple(tensors)
    if not given:
        raise RuntimeError("stack expects a non-empty TensorList")
    first = given[0].shape
    for position, x in enumerate(given):
        if x.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and {list(x.shape)} at "
                f"entry {position}"
            )
    d = normalize_dim("stack", dim, len(first) + 1)
    shape = (*first[:d], 1, *first[d:])
    return ops.concat(*(ops.reshape(x, shape=shape) for x in given), axis=d)


def _at_least(tensors: tuple[Any, ...], shape_of: Any) -> Any:
    several = len(tensors) != 1 or isinstance(tensors[0], (list, tuple))
    out = tuple(x if shape_of(x.shape) == x.shape else ops.reshape(x, shape=shape_of(x.shape)) for x in listed(tensors))
    return out if several else out[0]


def atleast_1d(*tensors: Any) -> Any:
    """Gives 0-d tensors one dim."""
    return _at_least(tensors, lambda s: s or (1,))


def atleast_2d(*tensors: Any) -> Any:
    """Gives tensors with fewer dims the shape (1, n)."""
    return _at_least(tensors, lambda s: s if len(s) > 1 else (1, *(s or (1,))))


def atleast_3d(*tensors: Any) -> Any:
    """Gives tensors with fewer dims the shape (1, n, 1), matrices (n, m, 1)."""
    return _at_least(tensors, lambda s: s if len(s) > 2 else (*s, 1) if len(s) == 2 else (1, *(s or (1,)), 1))


def _some(name: str, tensors: Sequence[Any]) -> Sequence[Any]:
    if not tensors:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return tensors


def hstack(tensors: Sequence[Any]) -> Any:
    """Joins along dim 1, 1-d tensors along dim 0."""
    given = _some("hstack", atleast_1d(list(tensors)))
    return cat(given, 0 if given and given[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Any]) -> Any:
    """Joins along dim 0 what is at least 2-d."""
    return cat(_some("vstack", atleast_2d(list(tensors))))


row_stack = vstack


def dstack(tensors: Sequence[Any]) -> Any:
    """Joins along dim 2 what is at least 3-d."""
    return cat(_some("dstack", atleast_3d(list(tensors))), 2)


def column_stack(tensors: Sequence[Any]) -> Any:
    """Joins along dim 1; 0-d and 1-d tensors are columns."""
    return cat([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in tensors], 1)


def block_diag(*tensors: Any) -> Any:
    """Puts matrices along the diagonal of a matrix of zeros. RuntimeError for more than 2 dims."""
    given = atleast_2d(list(listed(tensors)))
    for position, x in enumerate(given):
        if x.ndim > 2:
            raise RuntimeError(
                f"torch.block_diag: Input tensors must have 2 or fewer dimensions. Input {position} has {x.ndim} "
                "dimensions"
            )
    width, before, rows = builtins.sum(x.shape[1] for x in given), 0, []
    for x in given:
        columns = x.shape[1]
        rows.append(ops.pad(x, 0, widths=((0, 0), (before, width - before - columns))))
        before += columns
    return cat(rows)


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
    """Gives the coordinates of a grid as one expanded view per input; "xy" exchanges the first two dims."""
    given = listed(tensors)
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f'torch.meshgrid: indexing must be one of "xy" or "ij", but received: {indexing}')
    for x in given:
        if x.ndim > 1:
            raise RuntimeError(f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {x}")
    swap = indexing == "xy" and len(given) > 1
    if swap:
        given = (given[1], given[0], *given[2:])
    shape = tuple(x._node.spec.meta.size for x in given)
    grids = [
        ops.expand(ops.reshape(x, shape=tuple(n if d == p else 1 for d, n in enumerate(shape))), shape=shape)
        for p, x in enumerate(given)
    ]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Any) -> Any:
    """Gives every combination of elements of 1-d tensors, one a row; of a single tensor, the tensor."""
    given = listed(tensors)
    for x in given:
        if x.ndim != 1:
            raise RuntimeError(f"Expect a 1D vector, but got shape {list(x.shape)}")
    if len(given) == 1:
        return given[0]
    return stack([flatten(grid) for grid in meshgrid(*given)], 1)


def _part(input: Any, d: int, start: int, size: int, step: int = 1) -> Any:
    return ops.slice(input, start, axis=d, size=size, step=step)


def narrow(input: Any, dim: int, start: Any, length: int) -> Any:
    """Gives rows start to start + length along a dim; start may be negative. RuntimeError outside the tensor."""
    if input.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    d = normalize_dim("narrow", dim, input.ndim)
    if is_tensor(start) and (start.ndim or start.dtype.category != 1):
        raise RuntimeError(f"narrow: start must be an 0-dim integral Tensor, got {start.dtype.name} {list(start.shape)}")
    rows, first, length = input.shape[d], as_int(start), as_int(length)
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -rows <= first <= rows:
        raise IndexError(f"start out of range (expected to be in range of [{-rows}, {rows}], but got {first})")
    first = first + rows if first < 0 else first
    if first + length > rows:
        raise RuntimeError(f"start ({first}) + length ({length}) exceeds dimension size ({rows}).")
    return _part(input, d, first, length)


@shown_as("SelectBackward0")
def select(input: Any, dim: int, index: int) -> Any:
    """Gives one row along a dim, without that dim. IndexError outside the tensor."""
    shape = input.shape
    if not shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d, position = normalize_dim("select", dim, len(shape)), as_int(index)
    if not -shape[d] <= position < shape[d]:
        raise IndexError(
            f"select(): index {position} out of range for tensor of size {list(shape)} at dimension {d}"
        )
    row = _part(input, d, position % shape[d], 1)
    return ops.reshape(row, shape=(*shape[:d], *shape[d + 1 :]))


@shown_as("UnbindBackward0")
def unbind(input: Any, dim: int = 0) -> tuple[Any, ...]:
    """Gives all rows along a dim. IndexError for a 0-d tensor."""
    if not input.ndim:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    d = normalize_dim("unbind", dim, input.ndim)
    found = rows_of(input, d)
    if found is not None:
        return found
    found = tuple(select(input, d, position) for position in range(input.shape[d]))
    return _with_one_history(input, found, d, (1,) * len(found), keep=False)


def _cut(input: Any, d: int, sizes: Iterable[int]) -> tuple[Any, ...]:
    found, start, lengths = [], 0, tuple(sizes)
    for size in lengths:
        found.append(_part(input, d, start, size))
        start += size
    return _with_one_history(input, tuple(found), d, lengths, keep=True)


def _with_one_history(input: Any, found: tuple[Any, ...], d: int, sizes: tuple[int, ...], keep: bool
                      ) -> tuple[Any, ...]:
    """Gives the parts of a whole dim one gradient function, which joins their gradients.

    Each part's own would fill a tensor of the input's size, and these be added up.
    """
    if len(found) < 2 or not (found[0]._needs_grad and mode.enabled):
        return found
    specs = (input._now().spec, *(part._now().spec for part in found))
    key = (*specs, d, sizes, keep)
    plan = parts.plans.get(key)
    if plan is None:
        plan = parts.plans[key] = Plan(parts, specs[:1], specs[1:], {"axis": d, "sizes": sizes, "keep": keep}, None)
    fn = GradFn(plan, (edge_of(input),))
    for index, part in enumerate(found):
        part._fn, part._index = fn, index
    return found


def split_with_sizes(input: Any, split_sizes: Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """Cuts a dim into parts of the given sizes. RuntimeError unless they add up to it."""
    d, sizes = _cut_dim("split", input, dim), sizes_of((split_sizes,))
    rows = input.shape[d]
    if builtins.sum(sizes) != rows or builtins.min(sizes, default=0) < 0:
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {rows} (input tensor's size at dimension {d}), "
            f"but got split_sizes={list(sizes)}"
        )
    return _cut(input, d, sizes)


def _cut_dim(name: str, input: Any, dim: int) -> int:
    if not input.ndim:
        raise RuntimeError(f"{name} expects at least a 1-dimensional tensor")
    return normalize_dim(name, dim, input.ndim)


@shown_as("SplitBackward0")
def split(input: Any, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Any, ...]:
    """Cuts a dim into parts of a size (the last may be smaller) or of a list of sizes."""
    if isinstance(split_size_or_sections, Iterable) and not is_tensor(split_size_or_sections):
        return split_with_sizes(input, split_size_or_sections, dim)
    d, size = _cut_dim("split", input, dim), as_int(split_size_or_sections)  # type: ignore[arg-type]
    rows = input.shape[d]
    if size < 0:
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    if size == 0:
        if rows:
            raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got dimension size of {rows}")
        return (_part(input, d, 0, 0),)
    return _cut(input, d, [builtins.min(size, rows - at) for at in range(0, rows, size)] or [0])


@shown_as("SplitBackward0")
def chunk(input: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    """Cuts a dim into at most `chunks` parts of equal size, the last one smaller."""
    d = _cut_dim("chunk", input, dim)
    if chunks < 1:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    size = -(-input.shape[d] // chunks)
    return split(input, size, d) if size else _cut(input, d, [0] * chunks)


def tensor_split(input: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Any, ...]:
    """Cuts a dim into n parts as equal as can be, or at the given positions (NumPy: array_split)."""
    d = _cut_dim("tensor_split", input, dim)
    rows = input.shape[d]
    if is_tensor(indices_or_sections):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, Iterable):
        cuts = [builtins.slice(0, at).indices(rows)[1] for at in sizes_of((indices_or_sections,))]
        starts, stops = [0, *cuts], [*cuts, rows]
        return tuple(_part(input, d, a, builtins.max(b - a, 0)) for a, b in zip(starts, stops))
    count = as_int(indices_or_sections)
    if count < 1:
        raise RuntimeError(f"number of sections must be larger than 0, got {count}")
    return _cut(input, d, [rows // count + (1 if part < rows % count else 0) for part in range(count)])


def _split_along(name: str, input: Any, dim: int, least: int, sections: Any) -> tuple[Any, ...]:
    if input.ndim < least:
        raise RuntimeError(
            f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor with {input.ndim} "
            "dimensions!"
        )
    if not isinstance(sections, Iterable) and (sections < 1 or input.shape[dim] % sections):
        raise RuntimeError(
            f"torch.{name} attempted to split along dimension {dim}, but the size of the dimension {input.shape[dim]} "
            f"is not divisible by the split_size {sections}!"
        )
    return tensor_split(input, sections, dim)


def hsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Cuts along dim 1, a 1-d tensor along dim 0, into equal parts or at positions."""
    return _split_along("hsplit", input, 0 if input.ndim == 1 else 1, 1, indices_or_sections)


def vsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Cuts along dim 0 what is at least 2-d."""
    return _split_along("vsplit", input, 0, 2, indices_or_sections)


def dsplit(input: Any, indices_or_sections: Any) -> tuple[Any, ...]:
    """Cuts along dim 2 what is at least 3-d."""
    return _split_along("dsplit", input, 2, 3, indices_or_sections)


def slice_scatter(input: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None,
                  step: int = 1) -> Any:
    """Gives a copy of the tensor with `src` in rows start to end (in steps) along a dim."""
    d = normalize_dim("slice_scatter", dim, input.ndim)
    rows = builtins.range(*builtins.slice(start, end, step).indices(input.shape[d]))
    if src.ndim != input.ndim or src.shape[d] != len(rows):
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {[*input.shape[:d], len(rows), *input.shape[d + 1 :]]}"
        )
    return ops.slice_scatter(input, src, rows.start, axis=d, step=step)


def select_scatter(input: Any, src: Any, dim: int, index: int) -> Any:
    """Gives a copy of the tensor with `src` as one row along a dim."""
    d = normalize_dim("select_scatter", dim, input.ndim)
    position = index + input.shape[d] if index < 0 else index
    return slice_scatter(input, unsqueeze(src, d), d, position, position + 1)


def _two_dims(name: str, dim1: int, dim2: int, ndim: int) -> tuple[int, int]:
    first, second = normalize_dim(name, dim1, ndim), normalize_dim(name, dim2, ndim)
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return first, second


def diagonal(input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Gives a view of the diagonals over two dims; they become the last dim."""
    first, second = _two_dims("diagonal", dim1, dim2, input.ndim)
    return ops.diagonal(input, offset=offset, axis1=first, axis2=second)


def diagonal_scatter(input: Any, src: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Gives a copy of the tensor with `src` on the diagonals over two dims."""
    first, second = _two_dims("diagonal_scatter", dim1, dim2, input.ndim)
    return ops.diagonal_scatter(input, src, offset=offset, axis1=first, axis2=second)


def diag_embed(input: Any, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    """Gives matrices over dims dim1 and dim2 with the input's last dim on their diagonal and zeros elsewhere."""
    first, second = _two_dims("diag_embed", dim1, dim2, input.ndim + 1)
    size, rest = input.shape[-1] + builtins.abs(offset), iter(input.shape[:-1])
    shape = tuple(size if d in (first, second) else next(rest) for d in range(input.ndim + 1))
    return ops.embed_diagonal(input, shape=shape, offset=offset, axis1=first, axis2=second)


def diag(input: Any, diagonal: int = 0) -> Any:
    """Gives the diagonal of a matrix, or the matrix with that diagonal. RuntimeError for other numbers of dims."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")
    return clone(ops.diagonal(input, offset=diagonal, axis1=0, axis2=1))


def _triangle(op: Any, input: Any, diagonal: int) -> Any:
    if input.ndim < 2:
        raise RuntimeError(f"{op.name}: input tensor must have at least 2 dimensions")
    return op(input, k=as_int(diagonal))


def tril(input: Any, diagonal: int = 0) -> Any:
    """Keeps the elements on and below a diagonal of the last two dims; the others are 0."""
    return _triangle(ops.tril, input, diagonal)


def triu(input: Any, diagonal: int = 0) -> Any:
    """Keeps the elements on and above a diagonal of the last two dims; the others are 0."""
    return _triangle(ops.triu, input, diagonal)


def flip(input: Any, *shape: Any, dims: Sequence[int] | None = None) -> Any:
    """Gives a copy with the order reversed along the given dims: `flip(x, (0, 1))`, `x.flip(0, 1)` or by keyword."""
    axis = normalize_dims("flip", sizes_of(shape if dims is None else (dims,)), input.ndim, empty_means_all=False)
    return ops.flip(input, axis=axis) if axis else clone(input)


def flipud(input: Any) -> Any:
    """Reverses dim 0."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return ops.flip(input, axis=(0,))


def fliplr(input: Any) -> Any:
    """Reverses dim 1."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return ops.flip(input, axis=(1,))


def rot90(input: Any, k: int = 1, dims: Sequence[int] = (0, 1)) -> Any:
    """Turns the plane of two dims by 90 degrees, k times from the first towards the second."""
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    first, second = (normalize_dim("rot90", d, input.ndim) for d in dims)
    if first == second:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    turns = k % 4
    if turns == 0:
        return clone(input)
    if turns == 2:
        return ops.flip(input, axis=tuple(sorted((first, second))))
    return ops.flip(transpose(input, first, second), axis=(first if turns == 1 else second,))  # the view first: one copy


def roll(input: Any, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Any:
    """Moves elements along dims by shifts, round the end; without dims, through the flattened tensor."""
    moves = sizes_of((shifts,)) if isinstance(shifts, Iterable) else (as_int(shifts),)
    given = () if dims is None else sizes_of((dims,)) if isinstance(dims, Iterable) else (as_int(dims),)
    if not given and len(moves) == 1:
        return ops.reshape(ops.roll(flatten(input), moves[0], axis=0), shape=tuple(input.shape))
    if len(given) != len(moves) or not moves:
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(moves)}, dims:{len(given)}")
    for shift, dim in zip(moves, given):
        input = ops.roll(input, shift, axis=normalize_dim("roll", dim, input.ndim))
    return input


def unfold(input: Any, dimension: int, size: int, step: int) -> Any:
    """Gives a view of all windows of `size` rows in steps of `step` along a dim; the window is the last dim."""
    d = normalize_dim("unfold", dimension, input.ndim)
    if input.ndim == 0:
        return ops.reshape(ops.unfold(ops.reshape(input, shape=(1,)), axis=0, size=size, step=step), shape=(size,))
    return ops.unfold(input, axis=d, size=size, step=step)


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Widens dims from the last one backwards by (before, after) pairs; negative widths cut (torch.nn.functional.pad).

    `mode`: "constant" (with `value`, 0 by default), "reflect", "replicate", "circular". RuntimeError for widths that do
    not fit, NotImplementedError for another mode.
    """
    widths, shape = sizes_of((pad,)), input.shape
    if len(widths) % 2:
        raise RuntimeError("Padding length must be divisible by 2")
    if len(widths) > 2 * len(shape):
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got padding length "
            f"{len(widths)} and input of dimension {len(shape)}"
        )
    pairs = [(len(shape) - 1 - k // 2, widths[k], widths[k + 1]) for k in range(0, len(widths), 2)]
    if mode == "constant":
        fill: list[tuple[int, int]] = [(0, 0)] * len(shape)
        for d, before, after in pairs:
            input = _crop(input, d, before, after)
            fill[d] = (builtins.max(before, 0), builtins.max(after, 0))
        if not any(map(any, fill)):
            return clone(input)
        return ops.pad(input, 0 if value is None else value, widths=tuple(fill))
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode == "circular":  # what is cut first takes no part in the circle
        for d, before, after in pairs:
            input = _crop(input, d, before, after)
        pairs = [(d, builtins.max(before, 0), builtins.max(after, 0)) for d, before, after in pairs]
    for d, before, after in pairs:
        input = _pad_edges(input, d, before, after, mode)
    return input


def _crop(input: Any, d: int, before: int, after: int) -> Any:
    if before >= 0 and after >= 0:
        return input
    start, rows = builtins.max(-before, 0), input.shape[d]
    return narrow(input, d, builtins.min(start, rows), rows - start - builtins.max(-after, 0))


def _pad_edges(input: Any, d: int, before: int, after: int, mode: str) -> Any:
    """Widens one dim with its own rows."""
    most = builtins.max(before, after)
    rows = input.shape[d]
    if mode == "reflect" and most >= rows:
        raise RuntimeError(
            f"Padding size should be less than the corresponding input dimension, but got: padding ({before}, "
            f"{after}) at dimension {d} of input {list(input.shape)}"
        )
    if mode == "circular" and most > rows:
        raise RuntimeError("Padding value causes wrapping around more than once.")
    if mode == "replicate" and rows == 0:
        raise RuntimeError(f"pad: dimension {d} of input {list(input.shape)} has no row to replicate")
    parts = [_crop(input, d, before, after)]
    if before > 0:
        if mode == "reflect":
            edge = ops.flip(_part(input, d, 1, before), axis=(d,))
        elif mode == "circular":
            edge = _part(input, d, rows - before, before)
        else:
            edge = _repeated(_part(input, d, 0, 1), d, before)
        parts.insert(0, edge)
    if after > 0:
        if mode == "reflect":
            edge = ops.flip(_part(input, d, rows - 1 - after, after), axis=(d,))
        elif mode == "circular":
            edge = _part(input, d, 0, after)
        else:
            edge = _repeated(_part(input, d, rows - 1, 1), d, after)
        parts.append(edge)
    return cat(parts, d)


def _repeated(row: Any, d: int, count: int) -> Any:
    return ops.expand(row, shape=(*row.shape[:d], count, *row.shape[d + 1 :]))
