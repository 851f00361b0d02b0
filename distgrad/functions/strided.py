"""Memory by sizes, strides and offsets, with PyTorch's signatures.

Invariant: memory is row-major here whatever strides were asked for; a view knows the strides and the offset PyTorch's
would have in the memory of the tensor it was taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.functions.creation import as_size, empty
from distgrad.functions.layout import clone, stride
from distgrad.ops import strided as ops
from distgrad.views import root_of

__all__ = [
    "as_strided", "as_strided_copy", "as_strided_scatter", "empty_permuted", "new_empty_strided", "storage_offset",
]  # fmt: skip

Tensor = Any


def storage_offset(input: Tensor) -> int:
    """Gives where the first element lies in the memory of the tensor that this one is a view of."""
    offset = 0
    tensor = input
    while tensor._view is not None:
        taken, tensor = tensor._view, tensor._view.parent
        name = "" if taken.op is None else taken.op.name
        if name == "slice":
            offset += taken.numbers[0] * stride(tensor)[taken.attrs["axis"]]
        elif name == "subscript":
            offset += sum(start * stride(tensor)[axis] for start, axis in zip(taken.numbers, taken.attrs["axes"]))
        elif name == "diagonal":
            axis = taken.attrs["axis2" if taken.attrs["offset"] >= 0 else "axis1"]
            offset += abs(taken.attrs["offset"]) * stride(tensor)[axis]
        elif name == "as_strided":
            offset += taken.attrs["offset"]
    return offset


def _memory(input: Tensor, place: int | None) -> tuple[Tensor, int]:
    """Gives the tensor whose memory is read and the offset in it."""
    root = root_of(input)
    if root is input or (root.numel() == input.numel() and input.is_contiguous()):
        return input, place or 0
    return root, storage_offset(input) if place is None else place


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """Gives a view of the input's memory with any sizes, strides and offset (counted in elements).

    RuntimeError for negative strides, or elements outside the memory.
    """
    memory, offset = _memory(input, storage_offset)
    return ops.as_strided(memory, shape=as_size("as_strided", (size,)), strides=tuple(stride), offset=offset)


def as_strided_copy(input: Tensor, size: Sequence[int], stride: Sequence[int],
                    storage_offset: int | None = None) -> Tensor:
    """Gives a copy of `as_strided`."""
    return clone(as_strided(input, size, stride, storage_offset))


def as_strided_scatter(input: Tensor, src: Tensor, size: Sequence[int], stride: Sequence[int],
                       storage_offset: int | None = None) -> Tensor:
    """Gives a copy of the input with `src` where `as_strided` reads; RuntimeError unless src has shape `size`."""
    if tuple(src.shape) != tuple(size):
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = {list(src.shape)}, slice size = "
            f"{list(size)} (as_strided_scatter)"
        )
    return ops.strided_scatter(input, src, strides=tuple(stride), offset=storage_offset or 0)


def empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> Tensor:
    """Gives a tensor of unspecified values; the order of dims in memory is checked and has no other effect."""
    shape = as_size("empty_permuted", (size,))
    if len(physical_layout) != len(shape):
        raise RuntimeError(
            f"Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
            f"{len(shape)} is not equal to len(physical_layout) = {len(physical_layout)}"
        )
    if sorted(physical_layout) != list(range(len(shape))):
        raise RuntimeError(f"Duplicate or out of range dim in physical_layout {list(physical_layout)}")
    return empty(shape, **options)


def new_empty_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], **options: Any) -> Tensor:
    """Gives a tensor of unspecified values with the input's dtype; strides are checked and have no other effect."""
    shape = as_size("new_empty_strided", (size,))
    if len(shape) != len(stride):
        raise RuntimeError(f"mismatch in length of strides and shape: {list(stride)} for {list(shape)}")
    kind = options.pop("dtype", None)
    return empty(shape, dtype=input.dtype if kind is None else kind, **options)
