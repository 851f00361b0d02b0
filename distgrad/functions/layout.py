"""Functions that give tensors another shape or order of dims, with PyTorch's signatures (page "torch").

Invariant: what PyTorch calls a view is a chain of view ops here, so writing to it reaches its base; what PyTorch copies
is a copy. Whether a chain still lies in order in memory is found by replaying PyTorch's strides over it.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from math import prod
from operator import index as as_int
from typing import Any

from distgrad import dtypes
from distgrad.functions.labels import shown_as
from distgrad.meta import broadcast_shapes, normalize_dim, normalize_dims
from distgrad.op import OPS, is_tensor
from distgrad.ops import movement as ops
from distgrad.ops.movement import clone as _clone

__all__ = [
    "H", "T", "broadcast_tensors", "broadcast_to", "clone", "contiguous", "expand", "expand_as", "flatten",
    "is_contiguous", "mH", "mT", "moveaxis", "movedim", "permute", "ravel", "repeat", "repeat_interleave", "reshape",
    "reshape_as", "squeeze", "stride", "swapaxes", "swapdims", "t", "tile", "transpose", "unflatten", "unsqueeze",
    "view", "view_as",
]


def sizes_of(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Gives sizes written as f(2, 3) or f((2, 3))."""
    if len(args) == 1 and isinstance(args[0], Iterable):
        args = tuple(args[0])
    return tuple(as_int(n) for n in args)


def listed(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gives tensors written as f(a, b) or f([a, b])."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        return tuple(tensors[0])
    return tensors


def _inferred(sizes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Fills in the one size given as -1."""
    if builtins.min(sizes, default=0) >= 0:
        return sizes
    for position, size in enumerate(sizes):
        if size < -1:
            raise RuntimeError(f"invalid shape dimension {size} at index {position} of shape {list(sizes)}")
    if sizes.count(-1) > 1:
        raise RuntimeError("only one dimension can be inferred")
    known = prod(n for n in sizes if n != -1)
    if known == 0:
        raise RuntimeError(
            f"cannot reshape tensor of 0 elements into shape {list(sizes)} because the unspecified dimension size -1 "
            "can be any value and is ambiguous"
        )
    if count % known:
        raise RuntimeError(f"shape '{list(sizes)}' is invalid for input of size {count}")
    return tuple(count // known if n == -1 else n for n in sizes)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= builtins.max(size, 1)
    return tuple(reversed(strides))


def _reshaped_strides(shape: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> tuple[int, ...] | None:
    """Gives the strides of a reshape that moves nothing; None if there are none."""
    if prod(shape) == 0:
        return _row_major(new)
    result = [1] * len(new)
    left = len(new) - 1
    chunk_step, chunk_size = 1, 1  # a run of dims that lie in one piece of memory
    kept = [d for d, n in enumerate(shape) if n != 1]
    for position in range(len(kept) - 1, -1, -1):
        dim = kept[position]
        if chunk_size == 1:
            chunk_step = strides[dim]
        chunk_size *= shape[dim]
        before = kept[position - 1] if position else None
        if before is not None and strides[before] == strides[dim] * shape[dim]:
            continue
        covered = 1
        while left >= 0 and (covered < chunk_size or new[left] == 1):
            result[left] = covered * chunk_step
            covered *= new[left]
            left -= 1
        if covered != chunk_size:
            return None
        chunk_size = 1
    return tuple(result)


def _sliced(
    shape: tuple[int, ...], strides: tuple[int, ...], attrs: dict[str, Any]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    sizes, steps = list(shape), list(strides)
    for axis, size, step in zip(attrs["axes"], attrs["sizes"], attrs["steps"]):
        sizes[axis] = size
        steps[axis] *= step
    return tuple(sizes), tuple(steps)


def stride(input: Any, dim: int | None = None) -> Any:
    """Gives PyTorch's strides in elements: of a view by the ops that took it, of anything else row by row."""
    chain = []
    tensor = input
    while tensor._view is not None and tensor._view.strides is None:
        chain.append((tensor._view, tuple(tensor._node.spec.shape)))
        tensor = tensor._view.parent
    shape: tuple[int, ...] = tuple(tensor._node.spec.shape)
    strides = _row_major(shape) if tensor._view is None else tensor._view.strides
    for taken, new_shape in reversed(chain):
        attrs, name = taken.attrs, "detach" if taken.op is None else taken.op.name
        if name == "permute":
            strides = tuple(strides[a] for a in attrs["axes"])
        elif name == "expand":
            extra = len(new_shape) - len(shape)
            strides = (0,) * extra + tuple(
                s if n == new_shape[d + extra] else 0 for d, (n, s) in enumerate(zip(shape, strides))
            )
        elif name == "slice":
            axis = attrs["axis"]
            strides = (*strides[:axis], strides[axis] * attrs["step"], *strides[axis + 1 :])
        elif name == "as_strided":
            strides = attrs["strides"]
        elif name == "take_row":
            strides = (*strides[: attrs["axis"]], *strides[attrs["axis"] + 1 :])
        elif name == "diagonal":
            first, second = attrs["axis1"], attrs["axis2"]
            rest = (s for d, s in enumerate(strides) if d not in (first, second))
            strides = (*rest, strides[first] + strides[second])
        elif name == "unfold":
            axis = attrs["axis"]
            strides = (*strides[:axis], strides[axis] * attrs["step"], *strides[axis + 1 :], strides[axis])
        elif name != "detach":
            if name == "subscript":
                shape, strides = _sliced(shape, strides, attrs)
            found = _reshaped_strides(shape, strides, new_shape)
            strides = _row_major(new_shape) if found is None else found
        shape = new_shape
        taken.strides = strides
    return strides if dim is None else strides[normalize_dim("stride", dim, len(shape))]


def is_contiguous(input: Any, memory_format: Any = None) -> bool:
    """Says whether the elements lie in memory in row-major order, as PyTorch's would, or in the order asked for."""
    shape = input.shape
    if memory_format is not None and memory_format.name.startswith("channels_last"):
        if len(shape) != (5 if memory_format.name.endswith("3d") else 4):
            return False
        inner = _row_major((shape[0], *shape[2:], shape[1]))  # of N, the other dims, C
        wanted = (inner[0], inner[-1], *inner[1:-1])
        return all(n == 1 or s == r for n, s, r in zip(shape, stride(input), wanted))
    if input._view is None:
        return True
    return prod(shape) == 0 or all(
        n == 1 or s == r for n, s, r in zip(shape, stride(input), _row_major(shape))
    )


def contiguous(input: Any, memory_format: Any = None) -> Any:
    """Gives the tensor itself when `is_contiguous`, else a copy in row-major order."""
    return input if is_contiguous(input) else _clone(input)


def clone(input: Any, *, memory_format: Any = None) -> Any:
    """Gives a copy; gradients flow to the original."""
    return _clone(input)


def reshape(input: Any, *shape: Any) -> Any:
    """Gives the same elements in row-major order as another shape; one size may be -1. A view where possible.

    RuntimeError when the numbers of elements differ.
    """
    sizes = _inferred(sizes_of(shape), input._node.spec.meta.size)
    if input._view is not None and _reshaped_strides(input.shape, stride(input), sizes) is None:
        input = _clone(input)
    return ops.reshape(input, shape=sizes)


def view(input: Any, *shape: Any) -> Any:
    """Gives a view of another shape, or of another dtype with the same bits (`x.view(dtype)`).

    RuntimeError when the elements do not lie in memory in that order; `reshape` then copies.
    """
    if len(shape) == 1 and isinstance(shape[0], (dtypes.dtype, type)):
        return ops.reinterpret(input, dtype=dtypes.as_dtype(shape[0]).name)
    sizes = _inferred(sizes_of(shape), input._node.spec.meta.size)
    fits = input._view is None or prod(sizes) != prod(input.shape)
    if not fits and _reshaped_strides(input.shape, stride(input), sizes) is None:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead."
        )
    return ops.reshape(input, shape=sizes)


def view_as(input: Any, other: Any) -> Any:
    """Gives `input.view(other.shape)`."""
    return view(input, other.shape)


def reshape_as(input: Any, other: Any) -> Any:
    """Gives `input.reshape(other.shape)`."""
    return reshape(input, other.shape)


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Merges dims start_dim to end_dim into one; a 0-d tensor gives one element. RuntimeError if start is after end."""
    shape = input.shape
    start, end = (normalize_dim("flatten", d, len(shape)) for d in (start_dim, end_dim))
    if start > end:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end and shape:
        return input
    return reshape(input, (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Any, dim: int, sizes: Sequence[int]) -> Any:
    """Splits a dim into several of the given sizes, one of which may be -1. RuntimeError when the product differs."""
    shape = input.shape
    d = normalize_dim("unflatten", dim, len(shape))
    try:
        filled = _inferred(sizes_of((sizes,)), shape[d])
    except RuntimeError:
        filled = ()
    if prod(filled) != shape[d] or not filled:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} ({shape[d]}) in the "
            "input tensor"
        )
    return view(input, (*shape[:d], *filled, *shape[d + 1 :]))


def ravel(input: Any) -> Any:
    """Gives a contiguous 1-d tensor of all elements."""
    return reshape(contiguous(input), -1) if input.shape.count(0) == 0 else reshape(input, 0)


def squeeze(input: Any, dim: int | Sequence[int] | None = None) -> Any:
    """Drops the dims of size 1, or those of the given dims that have size 1."""
    dims = normalize_dims("squeeze", dim, input.ndim, empty_means_all=False)
    return _squeeze_all(input, dims) if dim is None else _squeeze_some(input, dims)


def _squeezed(input: Any, dims: tuple[int, ...]) -> Any:
    return ops.reshape(input, shape=tuple(n for d, n in enumerate(input.shape) if n != 1 or d not in dims))


_squeeze_all = shown_as("SqueezeBackward0")(_squeezed)
_squeeze_some = shown_as("SqueezeBackward1")(_squeezed)


@shown_as("UnsqueezeBackward0")
def unsqueeze(input: Any, dim: int) -> Any:
    """Puts a dim of size 1 at `dim`."""
    shape = input.shape
    d = normalize_dim("unsqueeze", dim, len(shape) + 1)
    return ops.reshape(input, shape=(*shape[:d], 1, *shape[d:]))


def permute(input: Any, *dims: Any) -> Any:
    """Reorders the dims: dim i of the result is dim dims[i] of the input. RuntimeError unless it is a permutation."""
    given, ndim = sizes_of(dims), input.ndim
    if len(given) != ndim:
        raise RuntimeError(
            "permute: number of dimensions in the tensor input does not match the length of the desired ordering of "
            f"dimensions i.e. input.dim() = {ndim} is not equal to len(dims) = {len(given)}"
        )
    axes = tuple(normalize_dim("permute", d, ndim) for d in given)
    if len(set(axes)) != ndim:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return ops.permute(input, axes=axes)


@shown_as("TransposeBackward0")
def transpose(input: Any, dim0: int, dim1: int) -> Any:
    """Exchanges two dims."""
    ndim = input.ndim
    first, second = (normalize_dim("transpose", d, ndim) for d in (dim0, dim1))
    axes = list(range(ndim))
    if axes:
        axes[first], axes[second] = second, first
    return ops.permute(input, axes=tuple(axes))


swapaxes = swapdims = transpose


@shown_as("TBackward0")
def t(input: Any) -> Any:
    """Transposes a matrix; 0-d and 1-d tensors stay. RuntimeError for more dims."""
    if input.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D")
    return ops.permute(input, axes=tuple(reversed(range(input.ndim))))


def T(input: Any) -> Any:
    """Reverses the dims."""
    return ops.permute(input, axes=tuple(reversed(range(input.ndim))))


def mT(input: Any) -> Any:
    """Exchanges the last two dims. RuntimeError for a 1-d tensor."""
    if input.ndim == 1:
        raise RuntimeError("tensor.mT is only supported on matrices or batches of matrices. Got 1-D tensor.")
    return transpose(input, -2, -1) if input.ndim else T(input)


def mH(input: Any) -> Any:
    """Exchanges the last two dims and conjugates."""
    return OPS["conj"](mT(input)) if input.dtype.is_complex else mT(input)


def H(input: Any) -> Any:
    """Gives the conjugate transpose of a matrix. RuntimeError unless 0-d or 2-d."""
    if input.ndim not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {input.ndim}-D tensor. For batches of "
            "matrices, consider using tensor.mH"
        )
    return mH(input)


def movedim(input: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Moves dims to new places and keeps the order of the others. RuntimeError for repeated dims."""
    ndim = input.ndim
    sources = sizes_of((source,)) if isinstance(source, Iterable) else (as_int(source),)
    targets = sizes_of((destination,)) if isinstance(destination, Iterable) else (as_int(destination),)
    if len(sources) != len(targets):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({list(sources)} dims) should contain the same "
            f"number of dims as destination ({list(targets)} dims)"
        )
    sources, targets = (tuple(normalize_dim("movedim", d, ndim) for d in dims) for dims in (sources, targets))
    for name, dims in (("source", sources), ("destination", targets)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{name}` ({list(dims)})")
    rest = iter(d for d in range(ndim) if d not in sources)
    placed = dict(zip(targets, sources))
    return ops.permute(input, axes=tuple(placed[d] if d in placed else next(rest) for d in range(ndim)))


moveaxis = movedim


def expand(input: Any, *sizes: Any) -> Any:
    """Gives a view with dims of size 1 repeated to the given sizes; -1 keeps a size, new dims go in front."""
    given, shape = sizes_of(sizes), input.shape
    extra = len(given) - len(shape)
    if builtins.min(given, default=0) < 0:
        for dim, size in enumerate(given):
            if size < -1 or (size == -1 and dim < extra):
                raise RuntimeError(
                    f"The expanded size of the tensor ({size}) isn't allowed in a leading, non-existing dimension {dim}"
                    if dim < extra else f"expand: size {size} of dimension {dim} is not allowed; -1 keeps the size"
                )
        if extra >= 0:
            given = tuple(shape[d - extra] if n == -1 else n for d, n in enumerate(given))
    return ops.expand(input, shape=given)


def expand_as(input: Any, other: Any) -> Any:
    """Gives `input.expand(other.shape)`."""
    return expand(input, other.shape)


def broadcast_to(input: Any, size: Sequence[int]) -> Any:
    """Gives `input.expand(size)`."""
    return expand(input, size)


def broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    """Expands tensors to their common broadcast shape."""
    given = listed(tensors)
    shape = broadcast_shapes("broadcast_tensors", *(tuple(x.shape) for x in given))
    return tuple(ops.expand(x, shape=shape) for x in given)


def repeat(input: Any, *repeats: Any) -> Any:
    """Repeats the whole tensor along each dim; more repeats than dims add dims in front."""
    counts, shape = sizes_of(repeats), input.shape
    extra = len(counts) - len(shape)
    if extra < 0:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    shape = (1,) * extra + tuple(shape)
    full = tuple(c * n for c, n in zip(counts, shape))
    if builtins.min(counts, default=0) < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {builtins.min(full)}: {list(full)}")
    between = tuple(n for pair in zip((1,) * len(shape), shape) for n in pair)
    wide = tuple(n for pair in zip(counts, shape) for n in pair)
    return ops.reshape(_clone(ops.expand(ops.reshape(input, shape=between), shape=wide)), shape=full)


def tile(input: Any, *dims: Any) -> Any:
    """Repeats the tensor along its last dims (NumPy: tile)."""
    counts = sizes_of(dims)
    return repeat(input, (1,) * (input.ndim - len(counts)) + counts)


def repeat_interleave(input: Any, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Any:
    """Repeats each element (or each row along `dim`) `repeats` times; repeats may be a 1-d tensor of counts."""
    if dim is None:
        input, dim = flatten(input), 0
    d, shape = normalize_dim("repeat_interleave", dim, input.ndim), input.shape
    if is_tensor(repeats):
        counts = repeats.tolist() if repeats.ndim else [repeats.item()]
        if len(counts) not in (1, shape[d]):
            raise RuntimeError(
                f"repeats must have the same size as input along dim, but got repeats.size(0) = {len(counts)} and "
                f"input.size({d}) = {shape[d]}"
            )
        if len(counts) > 1:
            from distgrad.functions.data import tensor

            rows = [row for row, count in enumerate(counts) for _ in range(count)]
            return input.index_select(d, tensor(rows, dtype=dtypes.int64))
        repeats = counts[0]
    if repeats < 0:
        raise RuntimeError("repeats must be non-negative")
    wide = ops.expand(unsqueeze(input, d + 1), shape=(*shape[: d + 1], repeats, *shape[d + 1 :]))
    return ops.reshape(_clone(wide), shape=(*shape[:d], shape[d] * repeats, *shape[d + 1 :]))
