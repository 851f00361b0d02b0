"""The `_copy` forms of views, and splits that PyTorch calls unsafe: the same elements, never sharing memory.

Invariant: each is the clone of the view of that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.functions import layout, movement
from distgrad.functions.layout import clone
from distgrad.ops.complexes import view_as_complex, view_as_real

__all__ = [
    "alias_copy", "detach_copy", "diagonal_copy", "expand_copy", "narrow_copy", "permute_copy", "select_copy",
    "split_copy", "split_with_sizes_copy", "squeeze_copy", "t_copy", "transpose_copy", "unbind_copy", "unfold_copy",
    "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "unsqueeze_copy", "view_as_complex_copy",
    "view_as_real_copy", "view_copy",
]  # fmt: skip

Tensor = Any


def _each(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(clone(part) for part in parts)


def alias_copy(input: Tensor) -> Tensor:
    """Gives a copy."""
    return clone(input)


def detach_copy(input: Tensor) -> Tensor:
    """Gives a copy without a history."""
    return clone(input.detach())


def diagonal_copy(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Gives a copy of `diagonal`."""
    return clone(movement.diagonal(input, offset, dim1, dim2))


def expand_copy(input: Tensor, size: Sequence[int], *, implicit: bool = False) -> Tensor:
    """Gives a copy of `expand`."""
    return clone(layout.expand(input, size))


def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Gives a copy of `narrow`; RuntimeError also for a dim outside the tensor's."""
    if dim >= input.ndim:
        raise RuntimeError(f"narrow_copy: expected a dim less than {input.ndim}, but got {dim}")
    return clone(movement.narrow(input, dim, start, length))


def permute_copy(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Gives a copy of `permute`."""
    return clone(layout.permute(input, dims))


def select_copy(input: Tensor, dim: int, index: int) -> Tensor:
    """Gives a copy of `select`."""
    return clone(movement.select(input, dim, index))


def split_copy(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the parts of `split`."""
    return _each(movement.split(input, split_size, dim))


def split_with_sizes_copy(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the parts of `split_with_sizes`."""
    return _each(movement.split_with_sizes(input, split_sizes, dim))


def squeeze_copy(input: Tensor, dim: Any = None) -> Tensor:
    """Gives a copy of `squeeze`."""
    return clone(layout.squeeze(input) if dim is None else layout.squeeze(input, dim))


def t_copy(input: Tensor) -> Tensor:
    """Gives a copy of `t`."""
    return clone(layout.t(input))


def transpose_copy(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Gives a copy of `transpose`."""
    return clone(layout.transpose(input, dim0, dim1))


def unbind_copy(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the slices of `unbind`."""
    return _each(movement.unbind(input, dim))


def unfold_copy(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Gives a copy of `unfold`."""
    return clone(movement.unfold(input, dimension, size, step))


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the parts of `chunk`."""
    return _each(movement.chunk(input, chunks, dim))


def unsafe_split(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the parts of `split`."""
    return _each(movement.split(input, split_size, dim))


def unsafe_split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Gives copies of the parts of `split_with_sizes`."""
    return _each(movement.split_with_sizes(input, split_sizes, dim))


def unsqueeze_copy(input: Tensor, dim: int) -> Tensor:
    """Gives a copy of `unsqueeze`."""
    return clone(layout.unsqueeze(input, dim))


def view_as_complex_copy(input: Tensor) -> Tensor:
    """Gives a copy of `view_as_complex`."""
    return clone(view_as_complex(input))


def view_as_real_copy(input: Tensor) -> Tensor:
    """Gives a copy of `view_as_real`."""
    return clone(view_as_real(input))


def view_copy(input: Tensor, size: Any = None, *, dtype: Any = None) -> Tensor:
    """Gives a copy of `view`, to a shape or to a dtype."""
    return clone(layout.view(input, dtype if size is None else size))
