"""Reading and writing at positions given by tensors, with PyTorch's signatures.

Invariant: shapes of results never depend on values, except where the function's own definition says so (`nonzero`,
`masked_select`, bool masks as indices); those read the mask first and go on with integer positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.creation import fill_number
from distgrad.functions.data import from_numpy
from distgrad.functions.distinct import is_spread, places_where
from distgrad.functions.labels import shown_as
from distgrad.functions.subscript import getitem, setitem
from distgrad.functions.subscript import index_put as _index_put
from distgrad.meta import broadcast_shapes, normalize_dim
from distgrad.op import is_tensor
from distgrad.ops import indexing as ops
from distgrad.ops.across import sharded_dim
from distgrad.ops.creation import full
from distgrad.ops.elementwise import cast, clamp_min, floor_divide, vanish
from distgrad.ops.elementwise import where as _where
from distgrad.ops.masking import nonzero_indices, unravel
from distgrad.ops.movement import concat, expand, reshape
from distgrad.ops.movement import slice as slice_op
from distgrad.ops.scatter_reduce import reduce_along

__all__ = [
    "argwhere",
    "gather",
    "getitem",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "index_select",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "nonzero",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "setitem",
    "take",
    "take_along_dim",
]
# embedding and one_hot are PyTorch's nn.functional; distgrad.nn.functional takes them from here.

Tensor = Any


def _check_index(name: str, index: Any) -> None:
    if not is_tensor(index):
        raise TypeError(f"{name}(): argument 'index' must be Tensor, not {type(index).__name__}")
    if index.dtype.category != 1:
        raise RuntimeError(f"{name}(): Expected dtype int32/int64 for index, got {index.dtype.name}; use .long()")


def _same_dtype(name: str, input: Tensor, source: Tensor) -> None:
    if input.dtype is not source.dtype:
        raise RuntimeError(
            f"{name}(): self and source expected to have the same dtype, but got (self) {input.dtype.name} and "
            f"(source) {source.dtype.name}"
        )


def _expanded(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if tuple(x.shape) == shape else expand(x, shape=shape)


# Rows along one dim -----------------------------------------------------------------------------------------


def _row_index(name: str, input: Tensor, dim: int, index: Tensor) -> tuple[Tensor, int, Tensor]:
    """Gives the input with at least one dim, the dim, and a 1-d index."""
    _check_index(name, index)
    if index.ndim > 1:
        raise IndexError(
            f"{name}(): Index is supposed to be a vector, got {index.ndim}-d of shape {tuple(index.shape)}"
        )
    axis = normalize_dim(name, dim, input.ndim)
    input = reshape(input, shape=(1,)) if input.ndim == 0 else input
    return input, axis, reshape(index, shape=(1,)) if index.ndim == 0 else index


@shown_as("IndexSelectBackward0")
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Takes rows of `dim` at a 1-d index; negative positions are errors (PyTorch: torch.index_select)."""
    whole, axis, index = _row_index("index_select", input, dim, index)
    taken = ops.take_rows(whole, index, axis=axis, wrap=False)
    return reshape(taken, shape=()) if input.ndim == 0 else taken


def _row_source(name: str, input: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    _same_dtype(name, input, source)
    taken = (*input.shape[:axis], index.shape[0], *input.shape[axis + 1 :])
    if source.ndim == 0 and index.shape[0] == 1:
        source = reshape(source, shape=(1,) * input.ndim)
    if tuple(source.shape) != taken:
        raise RuntimeError(
            f"{name}(): source of shape {tuple(source.shape)} does not fit {index.shape[0]} rows of dimension {axis} "
            f"of {tuple(input.shape)}; it must have shape {taken}"
        )
    return source


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Adds alpha times the rows of `source` to the rows `index` names (PyTorch: torch.index_add)."""
    whole, axis, index = _row_index("index_add", input, dim, index)
    source = _row_source("index_add", whole, axis, index, source)
    added = ops.add_rows(source, index, shape=tuple(whole.shape), axis=axis, wrap=False, sharded=sharded_dim(whole))
    result = whole + (added if alpha == 1 else added * alpha)
    return reshape(result, shape=()) if input.ndim == 0 else result


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Writes the rows of `source` to the rows `index` names (PyTorch: torch.index_copy)."""
    whole, axis, index = _row_index("index_copy", input, dim, index)
    source = _row_source("index_copy", whole, axis, index, source)
    result = ops.put_rows(whole, index, source, axis=axis, wrap=False)
    return reshape(result, shape=()) if input.ndim == 0 else result


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """Writes a number (or 0-d tensor) to the rows `index` names (PyTorch: torch.index_fill)."""
    whole, axis, index = _row_index("index_fill", input, dim, index)
    result = ops.put_rows(whole, index, _scalar("index_fill", input, value), axis=axis)
    return reshape(result, shape=()) if input.ndim == 0 else result


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Reduces rows of `source` into the rows `index` names: "prod", "mean", "amax", "amin" (PyTorch: index_reduce)."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got {reduce}")
    whole, axis, index = _row_index("index_reduce", input, dim, index)
    source = _row_source("index_reduce", whole, axis, index, source)
    rows = reshape(index, shape=(*(1,) * axis, index.shape[0], *(1,) * (whole.ndim - axis - 1)))
    rows = _expanded(rows, tuple(source.shape))
    return reshape(
        scatter_reduce(whole, axis, rows, source, reduce, include_self=include_self), shape=tuple(input.shape)
    )


def _scalar(name: str, input: Tensor, value: Any) -> Any:
    """Gives a number, or a 0-d tensor, in the input's dtype."""
    if not is_tensor(value):
        return fill_number(name, value.item() if isinstance(value, np.generic) else value, input.dtype)
    if value.ndim:
        raise RuntimeError(
            f"{name}: only supports a 0-dimensional value tensor, but got tensor with {value.ndim} dimension(s)."
        )
    if value.dtype.is_complex and not input.dtype.is_complex:
        raise RuntimeError(f"{name}: value cannot be converted to type {input.dtype.name} without overflow, it is complex")
    return value if value.dtype is input.dtype else cast(value, dtype=input.dtype.name)


@shown_as("EmbeddingBackward0")
def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Looks up rows of `weight` (V, D) at int indices of any shape (*), as (*, D) (PyTorch: nn.functional.embedding).

    `padding_idx`: the row that gets no gradient. `max_norm`: rows that are used are first shortened to this norm, in
    place. `scale_grad_by_freq`: a row's gradient is divided by its uses. Gradients are dense, also with `sparse`.
    IndexError for an index outside [0, V).
    """
    _check_index("embedding", input)
    if weight.ndim != 2:
        raise RuntimeError(f"embedding: 'weight' must be 2-D, got shape {tuple(weight.shape)}")
    if padding_idx is not None:
        if not -weight.shape[0] <= padding_idx < weight.shape[0]:
            raise AssertionError(f"embedding: Padding_idx must be within num_embeddings, got {padding_idx}")
        padding_idx %= weight.shape[0]
    if max_norm is not None:
        _shorten_rows(weight, input, max_norm, norm_type)
    if padding_idx is None and not scale_grad_by_freq:
        return ops.take_rows(weight, input, axis=0, wrap=False)
    padding = -1 if padding_idx is None else padding_idx
    return ops.embedding(weight, input, padding=padding, by_frequency=bool(scale_grad_by_freq))


def _shorten_rows(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scales the rows that `index` names down to `max_norm`, in place, as PyTorch's embedding_renorm_ does."""
    rows = weight.detach()
    ones = full(1.0, shape=tuple(index.shape), dtype=rows.dtype.name)
    used = ops.add_rows(ones, index, shape=(rows.shape[0],), axis=0, wrap=False) > 0
    norms = (abs(rows) ** norm_type).sum(1) ** (1.0 / norm_type) if norm_type != float("inf") else abs(rows).amax(1)
    scale = _where(used & (norms > max_norm), max_norm / (norms + 1e-7), 1.0)
    rows.copy_(rows * reshape(scale, shape=(rows.shape[0], 1)))


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Gives int64 rows (*, num_classes) with 1 at each class of (*) (PyTorch: nn.functional.one_hot).

    With -1 the number of classes is one more than the largest value, which is read. RuntimeError for a class outside.
    """
    if tensor.dtype is not dtypes.int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got {tensor.dtype.name}")
    if num_classes == -1:
        if 0 in tensor.shape:
            raise RuntimeError("one_hot: Can not infer total number of classes from empty tensor.")
        num_classes = int(tensor.detach().max().item()) + 1
    if num_classes < 1 and 0 not in tensor.shape:
        raise RuntimeError(f"one_hot: num_classes should be positive, got {num_classes}")
    return ops.one_hot(tensor, classes=num_classes)


# Elements along one dim -------------------------------------------------------------------------------------


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """Gives out[i][j] = input[index[i][j]][j] for dim 0, and so on (PyTorch: torch.gather); gradients are dense."""
    _check_index("gather", index)
    if not index.numel() and index.ndim != input.ndim:
        nothing = full(0, shape=tuple(index.shape), dtype=input.dtype.name)  # whatever the dims
        return vanish(input).sum() * nothing
    return ops.take_along(input, index, axis=normalize_dim("gather", dim, input.ndim))


def _crop_to(src: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Gives the part of `src` that an index of `shape` uses."""
    if src.ndim != len(shape):
        raise RuntimeError(f"{name}(): Index tensor must have the same number of dimensions as src tensor")
    for axis, size in enumerate(shape):
        if size > src.shape[axis]:
            raise RuntimeError(f"{name}(): Expected index {list(shape)} to be no larger than src {list(src.shape)}")
        if size < src.shape[axis]:
            src = slice_op(src, 0, axis=axis, size=size, step=1)
    return src


def _scatter_args(name: str, input: Tensor, dim: int, index: Tensor, src: Any) -> tuple[int, Any]:
    _check_index(name, index)
    if is_tensor(src):
        if src.dtype is not input.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype, got {input.dtype.name} and {src.dtype.name}"
            )
        src = _crop_to(src, tuple(index.shape), name)
    return normalize_dim(name, dim, input.ndim), src


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, value: Any = None, *, reduce: str | None = None
) -> Tensor:
    """Writes `src` (or a number) where `gather` would read (PyTorch: torch.scatter); `reduce`: "add" or "multiply"."""
    src = value if src is None else src
    if src is None:
        raise TypeError("scatter(): give src (a tensor) or value (a number)")
    axis, src = _scatter_args("scatter", input, dim, index, src)
    if reduce is None:
        if not is_tensor(src):
            src = fill_number("scatter", src, input.dtype)
        return ops.scatter(input, index, src, axis=axis)
    if reduce not in ("add", "multiply"):
        raise RuntimeError(f"scatter(): reduce argument must be either add or multiply, got {reduce}")
    if not is_tensor(src):
        src = full(fill_number("scatter", src, input.dtype), shape=tuple(index.shape), dtype=input.dtype.name)
    if reduce == "add":
        return ops.scatter_add(input, index, src, axis=axis)
    return reduce_along(input, index, src, axis=axis, reduce="prod")


@shown_as("ScatterAddBackward0")
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Adds `src` where `gather` would read (PyTorch: torch.scatter_add)."""
    axis, src = _scatter_args("scatter_add", input, dim, index, src)
    return ops.scatter_add(input, index, src, axis=axis)


def _identity(input: Tensor, reduce: str) -> Any:
    if reduce == "prod":
        return 1
    if input.dtype.category >= 2:
        return float("-inf") if reduce == "amax" else float("inf")
    if input.dtype is dtypes.bool_:
        return reduce == "amin"
    limits = np.iinfo(input.dtype.numpy)
    return int(limits.min if reduce == "amax" else limits.max)


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Reduces `src` into the places `gather` would read: "sum", "prod", "mean", "amax", "amin" (PyTorch:
    torch.scatter_reduce). Without `include_self` the input's own values there do not count."""
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(f"scatter_reduce(): reduce argument must be sum, prod, mean, amax or amin, got {reduce}")
    axis, src = _scatter_args("scatter_reduce", input, dim, index, src)
    base = input
    if reduce in ("prod", "amax", "amin"):
        if not include_self:
            base = ops.scatter(input, index, _identity(input, reduce), axis=axis)
        return reduce_along(base, index, src, axis=axis, reduce=reduce)
    if not include_self:
        base = ops.scatter(input, index, 0, axis=axis)
    total = ops.scatter_add(base, index, src, axis=axis)
    if reduce == "sum":
        return total
    ones = full(1, shape=tuple(src.shape), dtype=input.dtype.name)
    count = ops.add_along(ones, index, shape=tuple(input.shape), axis=axis)
    count = count + 1 if include_self else clamp_min(count, 1)
    return total / count if input.dtype.category >= 2 else floor_divide(total, count)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """Takes elements at indices that broadcast with the input along the other dims (PyTorch: torch.take_along_dim).

    Without `dim` both are flattened. Negative positions count from the end.
    """
    _check_index("take_along_dim", indices)
    if dim is None:
        return ops.take_rows(reshape(input, shape=(input.numel(),)), reshape(indices, shape=(indices.numel(),)), axis=0)
    if input.ndim != indices.ndim:
        raise RuntimeError(
            f"torch.take_along_dim(): input and indices should have the same number of dimensions, but got "
            f"{input.ndim} and {indices.ndim}"
        )
    axis = normalize_dim("take_along_dim", dim, input.ndim)
    others = broadcast_shapes(
        "take_along_dim",
        (*input.shape[:axis], 1, *input.shape[axis + 1 :]),
        (*indices.shape[:axis], 1, *indices.shape[axis + 1 :]),
    )
    whole, places = ((*others[:axis], t.shape[axis], *others[axis + 1 :]) for t in (input, indices))
    return ops.take_along(_expanded(input, whole), _expanded(indices, places), axis=axis, wrap=True)


# Flat positions ---------------------------------------------------------------------------------------------


def take(input: Tensor, index: Tensor) -> Tensor:
    """Takes elements of the flattened input (PyTorch: torch.take)."""
    _check_index("take", index)
    return ops.take_rows(reshape(input, shape=(input.numel(),)), index, axis=0)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Writes (or adds) `source` at positions of the flattened input (PyTorch: torch.put)."""
    _check_index("put", index)
    _same_dtype("put", input, source)
    if index.numel() != source.numel():
        raise RuntimeError(
            f"put_(): Expected source and index to have the same number of elements, but got {source.numel()} and "
            f"{index.numel()}"
        )
    flat, places = reshape(input, shape=(input.numel(),)), reshape(index, shape=(index.numel(),))
    values = reshape(source, shape=(index.numel(),))
    if accumulate:
        new = flat + ops.add_rows(values, places, shape=tuple(flat.shape), axis=0, sharded=sharded_dim(flat))
    else:
        new = ops.put_rows(flat, places, values, axis=0)
    return reshape(new, shape=tuple(input.shape))


def index_put(input: Tensor, indices: tuple[Tensor, ...], values: Tensor, accumulate: bool = False) -> Tensor:
    """Writes (or adds) `values` at input[indices] (PyTorch: torch.index_put); indices are int or bool tensors."""
    _same_dtype("index_put", input, values)
    found: list[Any] = []
    for index in indices:
        if index.dtype is dtypes.bool_:
            found += unravel(places_where(index), tuple(index.shape)) if is_spread(index) else [
                from_numpy(i) for i in nonzero_indices(index.numpy())]
        else:
            found.append(index)
    if len(found) > input.ndim:
        raise IndexError(f"too many indices for tensor of dimension {input.ndim} (got {len(found)})")
    return _index_put(input, found, range(len(found)), values, accumulate)


# Masks ------------------------------------------------------------------------------------------------------


def _check_mask(name: str, mask: Any) -> None:
    if not is_tensor(mask):
        raise TypeError(f"{name}(): argument 'mask' must be Tensor, not {type(mask).__name__}")
    if mask.dtype is not dtypes.bool_:
        raise RuntimeError(
            f"{name} only supports boolean masks, but got mask with dtype {mask.dtype.name}; use .bool()"
        )


@shown_as("MaskedFillBackward0")
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """Gives `value` (a number or 0-d tensor) where the mask holds, else the input (PyTorch: Tensor.masked_fill)."""
    _check_mask("masked_fill", mask)
    return _where(mask, _scalar("masked_fill", input, value), input)


def _mask_places(mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Gives the positions where a mask, broadcast to `shape` and flattened, holds."""
    if is_spread(mask):
        return places_where(_expanded(mask, shape))
    return from_numpy(np.flatnonzero(np.broadcast_to(mask.numpy(), shape)))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """Gives the elements where the mask holds, as 1-d (PyTorch: torch.masked_select). Reads the mask."""
    _check_mask("masked_select", mask)
    shape = broadcast_shapes("masked_select", tuple(input.shape), tuple(mask.shape))
    places = _mask_places(mask, shape)
    whole = _expanded(input, shape)
    return ops.take_rows(reshape(whole, shape=(whole.numel(),)), places, axis=0)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Writes the elements of `source`, in order, where the mask holds (PyTorch: masked_scatter). Reads the mask."""
    _check_mask("masked_scatter", mask)
    _same_dtype("masked_scatter", input, source)
    shape = broadcast_shapes("masked_scatter", tuple(input.shape), tuple(mask.shape))
    places = _mask_places(mask, shape)
    count = places.shape[0]
    if source.numel() < count:
        raise RuntimeError(
            f"masked_scatter: Number of elements of source < number of ones in mask ({source.numel()} < {count})"
        )
    whole = _expanded(input, shape)
    values = slice_op(reshape(source, shape=(source.numel(),)), 0, axis=0, size=count, step=1)
    new = ops.put_rows(reshape(whole, shape=(whole.numel(),)), places, values, axis=0)
    return reshape(new, shape=shape)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Gives the positions (N, ndim) of elements that are not zero, or a tuple of ndim index tensors (PyTorch:
    torch.nonzero). Reads the values."""
    if is_spread(input):
        places = unravel(places_where(input), tuple(input.shape))
        if as_tuple:
            return tuple(places)
        return concat(*(reshape(p, shape=(p.shape[0], 1)) for p in places), axis=1)
    found = nonzero_indices(input.detach().numpy())
    if as_tuple:
        return tuple(from_numpy(f) for f in found)
    return from_numpy(np.stack(found, 1) if input.ndim else np.zeros((len(found[0]), 0), np.int64))


def argwhere(input: Tensor) -> Tensor:
    """Gives the positions (N, ndim) of elements that are not zero (PyTorch: torch.argwhere). Reads the values."""
    return nonzero(input)
