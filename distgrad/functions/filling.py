"""Tensors of a given value in part or in all, with PyTorch's signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.functions.movement import diag_embed
from distgrad.functions.movement import pad as padded
from distgrad.functions.reduction import cast_to
from distgrad.op import is_tensor
from distgrad.ops.creation import full
from distgrad.ops.elementwise import vanish
from distgrad.ops.movement import clone, expand, reshape

__all__ = ["constant_pad_nd", "diagflat", "fill"]

Tensor = Any


def fill(input: Tensor, value: Any) -> Tensor:
    """Gives a tensor of the input's shape and dtype filled with a number or a 0-d tensor."""
    if is_tensor(value):
        if value.ndim:
            raise RuntimeError(
                f"fill only supports 0-dimension value tensor but got tensor with {value.ndim} dimensions; use copy_"
            )
        filled = clone(expand(cast_to(value, input.dtype), shape=tuple(input.shape)))
    else:
        filled = full(value, shape=tuple(input.shape), dtype=input.dtype.name)
    # The result depends on the input with slope 0: as in PyTorch it belongs to the input's history and placement.
    return vanish(input) + filled if input.requires_grad else filled


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """Widens dims from the last one backwards by (before, after) pairs of `value`; negative widths cut."""
    return padded(input, pad, "constant", value)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """Gives the matrix whose diagonal `offset` holds all elements in order."""
    return diag_embed(reshape(input, shape=(input.numel(),)), offset)
