"""Norms, condition numbers, ranks and products of vectors, with the signatures of PyTorch's linalg.

Invariant: everything here is a composite; singular values appear only where a norm is defined by them.
"""

from __future__ import annotations

from math import inf
from typing import Any

from distgrad import dtypes
from distgrad.functions.elementwise import mul
from distgrad.functions.linalg_factorizations import eigvalsh, svdvals
from distgrad.functions.linalg_solvers import inv_ex, tolerances
from distgrad.functions.reduction import cast_to, vector_norm
from distgrad.meta import broadcast_shapes, normalize_dim, normalize_dims
from distgrad.op import is_tensor
from distgrad.ops import reduction as reductions
from distgrad.ops.creation import full
from distgrad.ops.cumulative import cumprod
from distgrad.ops.elementwise import abs as absolute
from distgrad.ops.elementwise import gt, maximum, ne, where
from distgrad.ops.linalg_common import check_matrix, check_square, column, conjugate, cross_here
from distgrad.ops.movement import concat, expand, permute, reshape, roll
from distgrad.ops.movement import diagonal as main_diagonal

__all__: list[str] = []  # PyTorch has these in torch.linalg: distgrad.linalg takes them from here

Tensor = Any


# Norms ------------------------------------------------------------------------------------------------------


def _along(op: Any, x: Tensor, axis: int, keepdim: bool) -> Tensor:
    return op(x, axis=(axis,), keepdims=keepdim)


def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Gives a norm of the matrices in two dims: "fro", "nuc", inf, -inf, 1, -1, 2 or -2 (linalg.matrix_norm)."""
    name = "linalg.matrix_norm"
    if A.ndim < 2 or A.dtype.category < 2 or ord in ("nuc", 2, -2):  # LAPACK has no 16-bit floats; the others need none
        check_matrix(name, A)
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple of ints, got {dim}")
    rows, columns = (normalize_dim(name, d, A.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    if ord not in ("fro", "nuc", inf, -inf, 1, -1, 2, -2):
        raise RuntimeError(f"{name}: Order {ord} not supported.")
    keep = bool(keepdim)
    x = cast_to(A, dtype)
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keep)
    if ord in ("nuc", 2, -2):
        rest = [d for d in range(x.ndim) if d not in (rows, columns)]
        values = svdvals(permute(x, axes=(*rest, rows, columns)))
        op = reductions.sum if ord == "nuc" else reductions.amax if ord == 2 else reductions.amin
        found = _along(op, values, values.ndim - 1, False)
        kept = tuple(1 if d in (rows, columns) else n for d, n in enumerate(x.shape))
        return reshape(found, shape=kept) if keep else found
    summed, other = (rows, columns) if ord in (1, -1) else (columns, rows)
    sizes = vector_norm(x, 1, summed, keep)
    position = other if keep or other < summed else other - 1
    return _along(reductions.amax if ord > 0 else reductions.amin, sizes, position, keep)


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Gives a vector norm over one dim, a matrix norm over two, or, without `ord`, the 2-norm of all elements
    (PyTorch: linalg.norm)."""
    dims = None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dims)}")
    if dims is None and A.ndim not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got {A.ndim}D."
        )
    if len(dims) == 2 if dims is not None else A.ndim == 2:
        return matrix_norm(A, ord, (0, 1) if dims is None else dims, keepdim, dtype=dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.norm: ord '{ord}' is a matrix norm and needs two dims, got a vector")
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)


def cond(A: Tensor, p: Any = None) -> Tensor:
    """Gives the condition number, norm(A, p) * norm(A^-1, p); p as in `matrix_norm`, None meaning 2 (linalg.cond).

    A singular matrix has an infinite one.
    """
    name = "linalg.cond"
    check_matrix(name, A)
    if p is None or p in (2, -2):
        values = svdvals(A)
        if values.shape[-1] == 0:
            return full(0.0, shape=tuple(A.shape[:-2]), dtype=values.dtype.name)
        last = values.ndim - 1
        largest, smallest = _along(reductions.amax, values, last, False), _along(reductions.amin, values, last, False)
        return smallest / largest if p == -2 else largest / smallest
    check_square(name, A)
    if p not in ("fro", "nuc", inf, -inf, 1, -1):
        raise RuntimeError(f"{name} got an invalid norm type: {p}")
    if A.shape[-1] == 0:
        return full(0.0, shape=tuple(A.shape[:-2]), dtype=A.dtype.to_real().name)
    if p == "nuc":  # the singular values of an infinite inverse do not exist
        values = svdvals(A)
        last = values.ndim - 1
        return _along(reductions.sum, values, last, False) * _along(reductions.sum, 1.0 / values, last, False)
    inverse, info = inv_ex(A)
    inverse = where(column(column(ne(info, 0))), inf, inverse)
    return matrix_norm(A, p) * matrix_norm(inverse, p)


def matrix_rank(
    A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """Counts singular values (`hermitian`: absolute eigenvalues) above max(atol, rtol * the largest), in int64
    (PyTorch: linalg.matrix_rank). `tol` is an absolute tolerance alone."""
    name = "linalg.matrix_rank"
    (check_square if hermitian else check_matrix)(name, A)
    if tol is not None:
        atol, rtol = tol, 0.0
    batch = tuple(A.shape[:-2])
    for value in (atol, rtol):  # tolerances may have batch dims of their own here
        if is_tensor(value):
            batch = broadcast_shapes(name, batch, tuple(value.shape))
    A = A.detach() if tuple(A.shape[:-2]) == batch else expand(A.detach(), shape=(*batch, *A.shape[-2:]))
    atol, rtol = tolerances(name, A, atol, rtol)
    if 0 in A.shape[-2:]:
        return full(0, shape=batch, dtype="int64")
    values = absolute(eigvalsh(A)) if hermitian else svdvals(A)
    last = values.ndim - 1
    cutoff = maximum(_along(reductions.amax, values, last, False) * rtol, atol)
    return _along(reductions.count_nonzero, gt(values, column(cutoff)), last, False)


# Vectors ----------------------------------------------------------------------------------------------------


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Gives the sums over `dim` of conj(x) * y, broadcasting (PyTorch: linalg.vecdot)."""
    name = "linalg.vecdot"
    if x.dtype is not y.dtype:
        raise RuntimeError(f"{name}: Expected x and y to have the same dtype, got {x.dtype.name} and {y.dtype.name}")
    product = mul(conjugate(x), y)
    return reductions.sum(product, axis=(normalize_dim(name, dim, product.ndim),), keepdims=False)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """Gives the cross products of vectors of 3 elements along `dim`, broadcasting (PyTorch: linalg.cross)."""
    name = "linalg.cross"
    if input.ndim != other.ndim:
        raise RuntimeError(
            f"{name}: inputs must have the same number of dimensions, got {list(input.shape)} and {list(other.shape)}"
        )
    if input.shape[normalize_dim(name, dim, input.ndim)] != 3 or other.shape[normalize_dim(name, dim, other.ndim)] != 3:
        raise RuntimeError(
            f"{name}: inputs dimension {dim} must have length 3. Got {list(input.shape)} and {list(other.shape)}"
        )
    shape = broadcast_shapes(name, tuple(input.shape), tuple(other.shape))
    axis = normalize_dim(name, dim, len(shape))
    a = input if tuple(input.shape) == shape else expand(input, shape=shape)
    b = other if tuple(other.shape) == shape else expand(other, shape=shape)

    if a.dtype is b.dtype and a.dtype.category and a._now().spec.placement is None and b._now().spec.placement is None:
        return cross_here(a, b, axis=axis)

    def turned(x: Tensor, steps: int) -> Tensor:
        return roll(x, steps, axis=axis)

    return turned(a, 2) * turned(b, 1) - turned(a, 1) * turned(b, 2)


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Gives diagonals of matrices as a last dim (PyTorch: linalg.diagonal)."""
    axes = tuple(normalize_dim("linalg.diagonal", d, A.ndim) for d in (dim1, dim2))
    if len(normalize_dims("linalg.diagonal", axes, A.ndim)) != 2:
        raise RuntimeError(f"linalg.diagonal: dimensions cannot be identical {dim1}, {dim2}")
    return main_diagonal(A, offset=int(offset), axis1=axes[0], axis2=axes[1])


def vander(x: Tensor, N: int | None = None) -> Tensor:
    """Gives powers 0 ... N - 1 of the elements of x (..., n) as rows (..., n, N); N is n by default (linalg.vander)."""
    x = reshape(x, shape=(1,)) if x.ndim == 0 else x
    if x.shape[-1] == 0:
        raise RuntimeError(f"linalg.vander: Expected dim -1 to have at least one element, got shape {list(x.shape)}")
    count = int(x.shape[-1] if N is None else N)
    if count < 0 or (N is not None and count <= 1):
        raise RuntimeError(f"linalg.vander: N must be greater than 1. Got {N}")
    kind = dtypes.int64 if x.dtype.category < 2 else x.dtype
    shape = tuple(x.shape)
    ones = full(1, shape=(*shape, 1), dtype=kind.name)
    if count == 1:
        return ones
    repeated = expand(column(cast_to(x, kind)), shape=(*shape, count - 1))
    return concat(ones, cumprod(repeated, axis=len(shape)), axis=len(shape))


