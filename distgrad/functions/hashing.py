"""Hashes of tensors, with PyTorch's signatures."""

from __future__ import annotations

from typing import Any

from distgrad.functions.reduction import Dims
from distgrad.meta import normalize_dims
from distgrad.ops.hashing import xor_bits

__all__ = ["hash_tensor"]


def hash_tensor(input: Any, dim: Dims = None, *, keepdim: bool = False, mode: int = 0) -> Any:
    """Gives the exclusive or of the elements' 64-bit forms over dims (uint64). RuntimeError for a mode other than 0."""
    if mode != 0:
        raise RuntimeError(f"hash_tensor: Unknown hash_tensor mode: {mode}; allowed: 0 (exclusive or)")
    return xor_bits(input, axis=normalize_dims("hash_tensor", dim, input.ndim), keepdims=bool(keepdim))
