"""What the linear algebra ops share: their error, argument checks, batch rows, and small matrix helpers.

Invariant: the last two dims hold a matrix and are never split; every other dim is a batch dim, over which any sharding
runs without communication.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.dtypes import dtype
from distgrad.families import other_dims_rows
from distgrad.meta import TensorMeta
from distgrad.op import Op, Row
from distgrad.ops.creation import eye
from distgrad.ops.elementwise import conj, eq, logical_and, where
from distgrad.ops.movement import diagonal, embed_diagonal, permute, reshape, slice
from distgrad.ops.reduction import torch_name


class LinAlgError(RuntimeError):
    """A matrix that the operation cannot work on: singular, not positive-definite, or an iteration that failed."""


# Checks -----------------------------------------------------------------------------------------------------


def check_floating(name: str, kind: dtype) -> None:
    """Raises RuntimeError unless LAPACK has the dtype: float32, float64, complex64 or complex128."""
    if kind.category < 2:
        raise RuntimeError(f"{name}: Expected a floating point or complex tensor as input. Got {torch_name(kind)}")
    if kind.itemsize < 4:
        raise RuntimeError(f"{name}: Low precision dtypes not supported. Got {torch_name(kind)}")


def check_matrix(name: str, x: Any, letter: str = "A") -> None:
    """Raises RuntimeError unless a tensor or meta holds matrices of a dtype that LAPACK has."""
    if x.ndim < 2:
        raise RuntimeError(
            f"{name}: The input tensor {letter} must have at least 2 dimensions, got shape {list(x.shape)}"
        )
    check_floating(name, x.dtype)


def check_square(name: str, x: Any, letter: str = "A") -> None:
    """Raises RuntimeError unless a tensor or meta holds square matrices of a dtype that LAPACK has."""
    check_matrix(name, x, letter)
    if x.shape[-1] != x.shape[-2]:
        raise RuntimeError(
            f"{name}: {letter} must be batches of square matrices, but they are {x.shape[-2]} by {x.shape[-1]} matrices"
        )


def check_same_dtype(name: str, a: Any, b: Any) -> None:
    """Raises RuntimeError unless both have the same dtype."""
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"{name}: Expected both inputs to have the same dtype, got {torch_name(a.dtype)} and "
            f"{torch_name(b.dtype)}; convert one with .to()"
        )


def fail(name: str, info: np.ndarray, reason: str) -> None:
    """Raises LinAlgError for the first matrix of a batch whose LAPACK `info` is not 0; {info} in `reason` is filled."""
    bad = np.flatnonzero(info)
    if bad.size:
        element = f"(Batch element {bad[0]}): " if info.ndim else ""
        raise LinAlgError(f"{name}: {element}{reason.format(info=int(info.reshape(-1)[bad[0]]))}")


def converging(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Calls a function of numpy.linalg or scipy.linalg, whose errors become ours."""
    try:
        return function(*args, **options)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(
            f"{name}: The algorithm failed to converge because the input matrix contained non-finite values or has too "
            f"many repeated values ({error})"
        ) from None


# Rows and metas ---------------------------------------------------------------------------------------------


def batch_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of an op on batches of one matrix: the same batch dim of every tensor may be sharded; numbers are whole."""
    for dim in range(ins[0].ndim - 2):
        entries = tuple(dim if not isinstance(v, type) and v.ndim > dim else None for v in ins)
        yield Row(entries, (dim,) * len(outs))


def int_meta(shape: Sequence[int], kind: dtype = dtypes.int32) -> TensorMeta:
    """Gives the meta of pivots or of an info."""
    return TensorMeta.of(tuple(shape), kind)


def places(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Gives the index of every matrix of a batch of that shape; one () without batch dims, nothing for empty ones."""
    return iter(()) if prod(shape) == 0 else np.ndindex(shape)


# Matrices ---------------------------------------------------------------------------------------------------


def mt(x: Any) -> Any:
    """Transposes the matrices of a Tensor."""
    return permute(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def conjugate(x: Any) -> Any:
    """Gives the conjugate of a complex Tensor, a real one as it is."""
    return conj(x) if x.dtype.is_complex else x


def mh(x: Any) -> Any:
    """Gives the conjugate transpose of the matrices of a Tensor."""
    return conjugate(mt(x))


def part(x: Any, axis: int, start: int, size: int) -> Any:
    """Gives `size` rows from `start` along an axis counted from the end (negative)."""
    axis += x.ndim
    return x if size == x.shape[axis] else slice(x, start, axis=axis, size=size, step=1)


def column(x: Any) -> Any:
    """Gives a vector (..., n) as a column (..., n, 1)."""
    return reshape(x, shape=(*x.shape, 1))


def line(x: Any) -> Any:
    """Gives a vector (..., n) as a row (..., 1, n)."""
    return reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))


def diagonal_of(x: Any) -> Any:
    """Gives the main diagonals (..., k) of matrices."""
    return diagonal(x, offset=0, axis1=x.ndim - 2, axis2=x.ndim - 1)


def diagonal_matrix(x: Any) -> Any:
    """Gives square matrices with the vectors (..., n) on their diagonals."""
    shape = (*x.shape, x.shape[-1])
    return embed_diagonal(x, shape=shape, offset=0, axis1=len(shape) - 2, axis2=len(shape) - 1)


def identity(n: int, kind: dtype, columns: int | None = None) -> Any:
    """Gives the n by n (or n by `columns`) identity matrix."""
    return eye(shape=(n, n if columns is None else columns), dtype=kind.name)


def off_diagonal(x: Any) -> Any:
    """Gives square matrices with zeros on their diagonals."""
    return x - diagonal_matrix(diagonal_of(x))


def quotient(a: Any, b: Any) -> Any:
    """Divides, with 0 / 0 = 0.

    Between equal eigenvalues a rule divides by zero; what stands above is zero exactly when the function does not
    depend on the choice of vectors, and then so is the limit. Anything else over zero stays infinite.
    """
    return a / where(logical_and(eq(a, 0), eq(b, 0)), 1.0, b)


def conjugated(values: Any) -> Any:
    """Gives the conjugates of complex Tensors, also in a tuple or list; anything else as it is.

    Papers state gradients G for the inner product Re tr(G^H dA), rules here are plain derivatives. Conjugating what
    goes into a formula and what comes out turns the one into the other.
    """
    if isinstance(values, (tuple, list)):
        return [conjugated(v) for v in values]
    return values if values is None else conjugate(values)


def _cross(a: np.ndarray, b: np.ndarray, *, axis: int) -> np.ndarray:
    out = np.empty(a.shape, a.dtype)
    a, b, c = (np.moveaxis(t, axis, 0) for t in (a, b, out))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        np.multiply(a[j], b[k], out=c[i, ...])
        c[i] -= a[k] * b[j]
    return out


cross_here: Op = Op(
    "cross", _cross, meta=lambda a, b, *, axis: ((a,), None), inputs="a b", rows=other_dims_rows,
    vjps=(lambda g, b, axis: cross_here(b, g, axis=axis), lambda g, a, axis: cross_here(g, a, axis=axis)),
)
"""Cross products along `axis` of operands of one shape and dtype; the axis may not be sharded."""
