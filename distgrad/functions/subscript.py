"""`x[key]` and `x[key] = value` for every kind of key PyTorch takes.

Invariant: a key is read once, into slices, one reshape, single rows and index tensors; reading and writing follow the
same parts. Basic keys (integers, slices, None, Ellipsis) give views, and their numbers are inputs of ops, so that
x[i : i + n] with another i makes no new program. Integers select before index tensors are placed, as in PyTorch (numpy
differs).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from distgrad import dtypes, graph
from distgrad.functions.creation import fill_number
from distgrad.functions.data import from_numpy, node_of
from distgrad.functions.distinct import is_spread, places_where
from distgrad.grad_mode import mode
from distgrad.meta import broadcast_shapes
from distgrad.op import is_tensor
from distgrad.ops import indexing as ops
from distgrad.ops.across import sharded_dim
from distgrad.ops.creation import full
from distgrad.ops.elementwise import cast, ne, where
from distgrad.ops.masking import nonzero_indices, unravel
from distgrad.ops.movement import clone, expand, inverse, permute, reshape, slice_scatter
from distgrad.ops.movement import slice as slice_op
from distgrad.ops.subscript import LIMIT, subscript
from distgrad.views import first_dim_row

__all__ = ["getitem", "setitem"]

Tensor = Any
_KINDS = "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices (got {})"
_UNUSED = (0,) * LIMIT
_TUPLE_LIKE = (slice, list, tuple, range, type(None), type(Ellipsis))


class _Mask(NamedTuple):
    """A bool index, a tensor or an array of `ndim` dims, not yet turned into positions."""

    value: Any
    ndim: int


class _Parts:
    """What a key does, in this order: slices (axis, start, size, step), a reshape, single rows, index tensors."""

    __slots__ = ("advanced", "rows", "shape", "slices")

    def __init__(self) -> None:
        self.slices: list[tuple[int, int, int, int]] = []
        self.shape: list[int] = []
        self.rows: list[tuple[int, Tensor]] = []
        self.advanced: list[tuple[int, Any]] = []


# Reading a key ----------------------------------------------------------------------------------------------


def _items(key: Any) -> tuple[Any, ...]:
    if isinstance(key, tuple):
        return key
    if isinstance(key, list) and len(key) < 32 and any(isinstance(k, _TUPLE_LIKE) or is_tensor(k) for k in key):
        return tuple(key)  # PyTorch's rule for lists that cannot be plain index lists
    return (key,)


def _index_array(item: Any) -> np.ndarray:
    try:
        found = np.asarray(item if isinstance(item, np.ndarray) else list(item))
    except ValueError as error:
        raise IndexError(f"an index sequence must be rectangular and of integers or bools: {error}") from error
    if found.size == 0 and found.dtype.kind == "f":
        found = found.astype(np.int64)
    if found.dtype.kind not in "biu":
        raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, got {found.dtype}")
    return found


def _classify(item: Any) -> Any:
    """Gives an item as None, Ellipsis, slice, int, `_Mask`, an int array or an int tensor."""
    kind = type(item)
    if kind is int or kind is slice or item is None or item is Ellipsis:
        return item
    if is_tensor(item):
        name = item.dtype.name
        if name in ("bool", "uint8"):
            return _Mask(item, item.ndim)
        if name not in ("int64", "int32"):
            raise IndexError(f"tensors used as indices must be long, int, byte or bool tensors, got {name}")
        # A 0-d tensor whose value is here selects as an integer does; elsewhere reading it would mean waiting.
        return int(item.item()) if item.ndim == 0 and item._now().data is not None else item
    if kind is bool or kind is np.bool_:
        return _Mask(np.asarray(item), 0)
    if isinstance(item, (np.ndarray, list, tuple, range)):
        found = _index_array(item)
        if found.dtype.kind == "b" or found.dtype == np.uint8:
            return _Mask(found.astype(bool), found.ndim)
        return int(found) if found.ndim == 0 else found.astype(np.int64)
    if hasattr(item, "__index__") and not isinstance(item, float):
        return operator.index(item)
    if isinstance(item, str):
        raise TypeError(_KINDS.format("str"))
    raise IndexError(_KINDS.format(kind.__name__))


def _consumed(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, _Mask) else 1


def _read_slice(item: slice, size: int) -> tuple[int, int, int]:
    """Gives a slice's first position, its number of positions and its step."""
    if item.step is not None and operator.index(item.step) <= 0:
        raise ValueError("step must be greater than zero")
    start, stop, step = item.indices(size)
    return start, max(0, -((start - stop) // step)), step


def _parse(shape: Sequence[int], key: Any) -> _Parts:
    items = [_classify(item) for item in _items(key)]
    ndim = len(shape)
    needed = sum(_consumed(item) for item in items)
    if needed > ndim:
        if ndim == 0 and not any(isinstance(item, (_Mask, np.ndarray)) or is_tensor(item) for item in items):
            raise IndexError(
                "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to "
                "convert a 0-dim tensor to a number"
            )
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    parts = _Parts()
    dim = 0
    filled = False
    for item in (*items, Ellipsis):  # dims that no item names are kept, as by an ellipsis at the end
        if item is Ellipsis:
            rest = 0 if filled else ndim - needed
            filled = True
            parts.shape += shape[dim : dim + rest]
            dim += rest
        elif item is None:
            parts.shape.append(1)
        elif isinstance(item, slice):
            start, size, step = _read_slice(item, shape[dim])
            if size != shape[dim]:
                parts.slices.append((dim, start, size, step))
            parts.shape.append(size)
            dim += 1
        elif isinstance(item, int):
            size = shape[dim]
            if not -size <= item < size:
                raise IndexError(f"index {item} is out of bounds for dimension {dim} with size {size}")
            if size != 1:
                parts.slices.append((dim, item % size, 1, 1))
            dim += 1
        elif isinstance(item, _Mask):
            _check_mask(item, shape, dim)
            parts.advanced.append((len(parts.shape) - len(parts.rows), item))
            parts.shape += shape[dim : dim + item.ndim] if item.ndim else [1]
            dim += item.ndim
        else:
            if item.ndim == 0:
                parts.rows.append((len(parts.shape), item))
            else:
                parts.advanced.append((len(parts.shape) - len(parts.rows), item))
            parts.shape.append(shape[dim])
            dim += 1
    return parts


def _check_mask(mask: _Mask, shape: Sequence[int], dim: int) -> None:
    own = tuple(mask.value.shape)
    for position, size in enumerate(own):
        if size != shape[dim + position]:
            raise IndexError(
                f"The shape of the mask {list(own)} at index {position} does not match the shape of the indexed tensor "
                f"{list(shape)} at index {dim + position}"
            )


# Index tensors ----------------------------------------------------------------------------------------------


def _positions(advanced: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Turns masks into the positions of their true elements, one array per dim. This reads the masks' values.

    Of a sharded mask, only how many are true is read.
    """
    found: list[tuple[int, Any]] = []
    for position, item in advanced:
        if not isinstance(item, _Mask):
            found.append((position, item))
            continue
        if item.ndim and is_spread(item.value):
            places = unravel(places_where(item.value), tuple(item.value.shape))
            found += [(position + d, where_true) for d, where_true in enumerate(places)]
            continue
        value = np.asarray(item.value.numpy() if is_tensor(item.value) else item.value) != 0
        if item.ndim == 0:
            found.append((position, np.zeros(int(value), np.int64)))
        else:
            found += [(position + d, where_true) for d, where_true in enumerate(nonzero_indices(value))]
    return found


def _host_index(arrays: list[np.ndarray], axes: list[int], sizes: list[int]) -> np.ndarray:
    if len(arrays) == 1:
        return ops.index_range(arrays[0], sizes[0], axis=axes[0], wrap=True)
    if len({array.shape for array in arrays}) == 1:
        return _flat_index(arrays, axes, sizes)
    try:
        return _flat_index(np.broadcast_arrays(*arrays), axes, sizes)
    except ValueError as error:
        raise IndexError(
            "shape mismatch: indexing tensors could not be broadcast together with shapes "
            + ", ".join(str(list(a.shape)) for a in arrays)
        ) from error


def _flat_index(arrays: Sequence[np.ndarray], axes: list[int], sizes: list[int]) -> np.ndarray:
    flat = ops.index_range(arrays[0], sizes[0], axis=axes[0], wrap=True)
    for array, axis, size in zip(arrays[1:], axes[1:], sizes[1:]):
        flat = flat * size + ops.index_range(array, size, axis=axis, wrap=True)
    return flat


class _Gathered(NamedTuple):
    """A tensor whose indexed dims are one, the index along it, and how to put the dims back."""

    x: Tensor
    index: Tensor
    axis: int
    order: tuple[int, ...] | None
    shape: tuple[int, ...]

    def restore(self, x: Tensor) -> Tensor:
        x = x if tuple(x.shape) == self.shape else reshape(x, shape=self.shape)
        return x if self.order is None else permute(x, axes=inverse(self.order))


def _gather_dims(x: Tensor, advanced: list[tuple[int, Any]]) -> _Gathered:
    """Brings the indexed dims together: in place when they are neighbours, else to the front."""
    if len(advanced) == 1 and isinstance(advanced[0][1], _Mask):
        axis, mask = advanced[0]
        if mask.ndim and not is_spread(mask.value):  # positions in the flattened dims at once
            value = np.asarray(mask.value.numpy() if is_tensor(mask.value) else mask.value)
            index = from_numpy(np.flatnonzero(value))
            shape = tuple(x.shape)
            if mask.ndim > 1:
                x = reshape(x, shape=(*shape[:axis], value.size, *shape[axis + mask.ndim :]))
            return _Gathered(x, index, axis, None, shape)
    entries = _positions(advanced)
    axes = [axis for axis, _ in entries]
    sizes = [x.shape[axis] for axis in axes]
    indices = [index for _, index in entries]
    if len(indices) > 1 and graph.session() is None:  # what is here is read here, in fewer ops
        indices = [np.asarray(index._value(), np.int64) if is_tensor(index) else index for index in indices]
    if all(isinstance(index, np.ndarray) for index in indices):
        index = from_numpy(np.ascontiguousarray(_host_index(indices, axes, sizes)))
    elif len(indices) == 1:
        index = indices[0]
    else:
        tensors = [from_numpy(i) if isinstance(i, np.ndarray) else i for i in indices]
        index = ops.ravel_index(*tensors, sizes=tuple(sizes), axes=tuple(axes))
    first, order = axes[0], None
    if axes != list(range(first, first + len(axes))):
        order = (*axes, *(d for d in range(x.ndim) if d not in axes))
        x, first = permute(x, axes=order), 0
    shape = tuple(x.shape)
    if len(axes) > 1:
        x = reshape(x, shape=(*shape[:first], prod(sizes), *shape[first + len(axes) :]))
    return _Gathered(x, index, first, order, shape)


def index_get(x: Tensor, indices: Sequence[Any], axes: Sequence[int]) -> Tensor:
    """Reads elements at broadcast index tensors, one per axis (rising): what x[:, i, j] does with axes (1, 2)."""
    found = _gather_dims(x, list(zip(axes, indices)))
    return ops.take_rows(found.x, found.index, axis=found.axis)


def index_put(x: Tensor, indices: Sequence[Any], axes: Sequence[int], value: Any, accumulate: bool = False) -> Tensor:
    """Gives `x` with `value` (broadcast) written at, or with `accumulate` added at, what `index_get` reads."""
    found = _gather_dims(x, list(zip(axes, indices)))
    taken = (*found.x.shape[: found.axis], *found.index.shape, *found.x.shape[found.axis + 1 :])
    if accumulate:
        added = ops.add_rows(_spread(value, taken, x), found.index, shape=tuple(found.x.shape), axis=found.axis,
                             sharded=sharded_dim(found.x))
        return found.restore(found.x + added)
    if is_tensor(value) and value.ndim:
        value = _spread(value, taken, x)
    return found.restore(ops.put_rows(found.x, found.index, value, axis=found.axis))


# Values -----------------------------------------------------------------------------------------------------


def _check_value(x: Tensor, value: Any) -> Any:
    """Gives a value to assign as a number or a tensor of x's dtype."""
    if isinstance(value, np.generic):
        value = value.item()
    if is_tensor(value):
        return value if value.dtype is x.dtype else cast(value, dtype=x.dtype.name)
    if not isinstance(value, (bool, int, float, complex)):
        raise TypeError(
            f"can't assign a {type(value).__name__} to a Tensor of {x.dtype.name}; convert it with tensor() or "
            "from_numpy()"
        )
    return fill_number("setitem", value, x.dtype)


def _spread(value: Any, shape: tuple[int, ...], x: Tensor) -> Tensor:
    """Gives a value broadcast to the shape of what is written; leading dims of 1 more are dropped, as in PyTorch."""
    if not is_tensor(value):
        return full(value, shape=shape, dtype=x.dtype.name)
    own = tuple(value.shape)
    extra = max(len(own) - len(shape), 0)
    if all(size == 1 for size in own[:extra]):
        try:
            if broadcast_shapes("setitem", own[extra:], shape) == shape:
                value = reshape(value, shape=own[extra:]) if extra else value
                return value if own[extra:] == shape else expand(value, shape=shape)
        except RuntimeError:
            pass  # the message below names both shapes
    raise RuntimeError(
        f"shape mismatch: value tensor of shape {list(own)} cannot be broadcast to indexing result of shape "
        f"{list(shape)}"
    )


# The two operators ------------------------------------------------------------------------------------------


def _picked(x: Tensor, key: tuple[Any, ...]) -> Tensor | None:
    """Gives x[i, j, ...] of index tensors where all is here and no gradient is recorded, in numpy's one call; else None."""
    if (x._needs_grad and mode.enabled) or graph.session() is not None or not all(map(is_tensor, key)):
        return None
    nodes = [t._now() for t in (x, *key)]
    data, *arrays = (node.data for node in nodes)
    if any(node.data is None or node.spec.placement is not None for node in nodes) or len(key) > data.ndim:
        return None
    if any(a.dtype != np.int64 or not a.ndim or a.shape != arrays[0].shape for a in arrays):
        return None
    try:
        return x._from_node(node_of(data[tuple(arrays)]))
    except IndexError:  # the longer way says which index is wrong
        return None


def _sliced(x: Tensor, shape: tuple[int, ...], parts: _Parts) -> Tensor:
    """Gives the slices of `x`, where it is in this process in their final shape: two ops and more take that much longer."""
    taken = parts.slices
    if 0 < len(taken) <= LIMIT and graph.session() is None:
        axes, starts, sizes, steps = zip(*taken)
        if len(taken) > 1 or parts.shape != [*shape[: axes[0]], sizes[0], *shape[axes[0] + 1 :]]:
            return subscript(
                x, *starts, *_UNUSED[len(taken) :], axes=axes, sizes=sizes, steps=steps, shape=tuple(parts.shape)
            )
    for axis, start, size, step in taken:
        x = slice_op(x, start, axis=axis, size=size, step=step)
    return x


def getitem(input: Tensor, key: Any) -> Tensor:
    """Gives input[key] for integers, slices with positive steps, None, Ellipsis, bools, lists, arrays and index
    tensors.

    Basic keys give views. An integer outside its dim, too many indices and masks of another shape raise IndexError, a
    step that is not positive ValueError (PyTorch: the page "Tensor indexing"; numpy: "Indexing on ndarrays").
    """
    if type(key) is int:
        size = shape[0] if (shape := input._now().spec.meta.shape) else 0
        if -size <= key < size and (row := first_dim_row(input, key % size)) is not None:
            return row
    elif type(key) is tuple and key and is_tensor(key[0]) and (found := _picked(input, key)) is not None:
        return found
    shape = tuple(input.shape)
    parts = _parse(shape, key)
    x = _sliced(input, shape, parts)
    if tuple(x.shape) != tuple(parts.shape) or (x is input and not parts.rows and not parts.advanced):
        x = reshape(x, shape=tuple(parts.shape))
    for position, row in reversed(parts.rows):
        x = ops.take_row(x, row, axis=position)
    if parts.advanced:
        found = _gather_dims(x, parts.advanced)
        x = ops.take_rows(found.x, found.index, axis=found.axis)
    return x


def _put_mask(x: Tensor, position: int, mask: _Mask, value: Any) -> Tensor:
    """Writes one number where a mask holds, without asking how many elements that are."""
    cond = mask.value if is_tensor(mask.value) else from_numpy(mask.value)
    if cond.dtype is dtypes.uint8:
        cond = ne(cond, 0)
    after = x.ndim - position - max(mask.ndim, 1)
    cond = reshape(cond, shape=(*(cond.shape or (1,)), *(1,) * after))
    return where(cond, value, x)


def _put_advanced(x: Tensor, advanced: list[tuple[int, Any]], value: Any) -> Tensor:
    if len(advanced) == 1 and isinstance(advanced[0][1], _Mask) and (not is_tensor(value) or value.ndim == 0):
        return _put_mask(x, advanced[0][0], advanced[0][1], value)
    entries = _positions(advanced)
    return index_put(x, [index for _, index in entries], [axis for axis, _ in entries], value)


def _overwrite(x: Tensor, new: Tensor, given: bool) -> Tensor:
    """Gives `new`, written over all of `x`; the result stays in x's graph, with no gradient for what is gone."""
    if not (x.requires_grad and mode.enabled):
        return clone(new) if given else new  # the value's memory may be a numpy array's, which its owner writes to
    base = x if x.ndim else reshape(x, shape=(1,))
    return reshape(slice_scatter(base, reshape(new, shape=tuple(base.shape)), 0, axis=0, step=1), shape=tuple(x.shape))


def setitem(input: Tensor, key: Any, value: Any) -> Tensor:
    """Gives the tensor that `input` is after `input[key] = value`; the value is broadcast and cast to its dtype.

    Raises as `getitem` does, RuntimeError for a value that does not broadcast and TypeError for one that is neither a
    number nor a tensor.
    """
    parts = _parse(tuple(input.shape), key)
    value = _check_value(input, value)
    deeper = bool(parts.rows or parts.advanced)
    bases: list[Tensor] = []
    x = input
    for number, (axis, start, size, step) in enumerate(parts.slices):
        bases.append(x)
        if deeper or number + 1 < len(parts.slices):
            x = slice_op(x, start, axis=axis, size=size, step=step)
    taken = list(input.shape)
    for axis, _, size, _ in parts.slices:
        taken[axis] = size

    if not deeper:
        new = _spread(value, tuple(parts.shape), input)
        if not bases:
            new = _overwrite(input, new, is_tensor(value))
    else:
        x = x if tuple(x.shape) == tuple(parts.shape) else reshape(x, shape=tuple(parts.shape))
        inner: list[tuple[Tensor, int, Tensor]] = []
        for position, row in reversed(parts.rows):
            inner.append((x, position, row))
            if parts.advanced or len(inner) < len(parts.rows):
                x = ops.take_rows(x, row, axis=position)
        if parts.advanced:
            new = _put_advanced(x, parts.advanced, value)
        else:
            shape = [n for d, n in enumerate(parts.shape) if d not in [position for position, _ in parts.rows]]
            new = _spread(value, tuple(shape), input)
        for base, position, row in reversed(inner):
            new = ops.put_rows(base, row, new, axis=position)
    if tuple(new.shape) != tuple(taken):
        new = reshape(new, shape=tuple(taken))
    for base, (axis, start, _, step) in zip(reversed(bases), reversed(parts.slices)):
        new = slice_scatter(base, new, start, axis=axis, step=step)
    return new
