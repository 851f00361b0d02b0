"""Hashes of tensors.

Invariant: the hash depends on the values alone, not on their order or their dtype's width. Definition:
torch.hash_tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import reduced_shape, reduction_rows
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op

_exclusive_or: Any = np.bitwise_xor.reduce  # numpy's stubs do not know a `keepdims` decided at run time


def _xor_bits(x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    wide = np.int64 if x.dtype.kind in "bi" else np.uint64 if x.dtype.kind == "u" else np.float64
    bits = np.ascontiguousarray(x.astype(wide)).view(np.uint64).reshape(x.shape)
    return _exclusive_or(bits, axis=axis, keepdims=keepdims)


def _meta(x: TensorMeta, *, axis: tuple[int, ...], keepdims: bool) -> MetaResult:
    if x.dtype.is_complex:
        raise NotImplementedError(f"hash_tensor: complex tensors have no 64-bit form, got {x.dtype.name}")
    return (TensorMeta.of(reduced_shape(x.shape, axis, keepdims), dtypes.uint64),), None


xor_bits = Op("xor_bits", _xor_bits, meta=_meta, inputs="x", rows=reduction_rows(None))
"""The exclusive or over dims of the elements' bits as float64 or 64-bit integers."""
