"""The matrix functions that PyTorch has as `torch.X` and `Tensor.X`: older signatures over the linalg functions.

Invariant: no mathematics of its own beyond what only exists under the old name (packed reflections, low-rank
approximations); `torch.det`, `torch.inverse` and the like are the linalg functions themselves.
"""

from __future__ import annotations

from typing import Any

from distgrad.functions import linalg_factorizations as factorizations
from distgrad.functions import linalg_norms as norms
from distgrad.functions import linalg_solvers as solvers
from distgrad.functions.linalg_factorizations import householder_product
from distgrad.functions.linalg_solvers import matrix_exp, matrix_power
from distgrad.functions.reduction import return_type
from distgrad.meta import normalize_dims
from distgrad.ops import linalg as ops
from distgrad.ops.contraction import matmul
from distgrad.ops.creation import full
from distgrad.ops.elementwise import eq, log, where
from distgrad.ops.linalg_common import check_matrix, check_same_dtype, check_square, identity, mh, part
from distgrad.ops.movement import clone
from distgrad.ops.reduction import mean

__all__ = [
    "cholesky", "cholesky_inverse", "cholesky_solve", "cross", "det", "frobenius_norm", "geqrf", "inverse", "logdet",
    "lu", "lu_solve", "lu_unpack", "matrix_exp", "matrix_power", "nuclear_norm", "orgqr", "ormqr",
    "pca_lowrank", "pinverse", "qr", "slogdet", "svd", "svd_lowrank", "triangular_solve", "vander",
]

Tensor = Any
_QR = return_type("qr", ("Q", "R"))
_SVD = return_type("svd", ("U", "S", "V"))
_GEQRF = return_type("geqrf", ("a", "tau"))
_TRIANGULAR = return_type("triangular_solve", ("solution", "cloned_coefficient"))
_UNPACK = return_type("lu_unpack", ("P", "L", "U"))
_SLOGDET = return_type("slogdet", ("sign", "logabsdet"))
orgqr = householder_product


# Determinants and inverses ----------------------------------------------------------------------------------


def det(input: Tensor) -> Tensor:
    """Gives the determinants of square matrices (PyTorch: torch.det)."""
    return solvers.det(input)


def slogdet(input: Tensor) -> Any:
    """Gives (sign, logabsdet) of the determinants of square matrices (PyTorch: torch.slogdet)."""
    return _SLOGDET(*solvers.slogdet(input))


def logdet(input: Tensor) -> Tensor:
    """Gives the logarithms of the determinants: -inf for 0, nan for negative ones (PyTorch: torch.logdet)."""
    sign, size = solvers.slogdet(input)
    if input.dtype.is_complex:
        return log(sign) + size
    return where(eq(sign, -1.0), float("nan"), size)


def inverse(input: Tensor) -> Tensor:
    """Inverts square matrices (PyTorch: torch.inverse)."""
    return solvers.inv(input)


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """Gives the pseudo-inverse; singular values up to rcond * the largest count as zero (PyTorch: torch.pinverse)."""
    return solvers.pinv(input, rcond)


# Cholesky and triangular systems ----------------------------------------------------------------------------


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """Gives the Cholesky factor of Hermitian positive-definite matrices (PyTorch: torch.cholesky)."""
    return factorizations.cholesky(input, upper=upper)


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """Solves A X = B from A's Cholesky factor; B (..., n, k) (PyTorch: torch.cholesky_solve)."""
    return ops.cholesky_solve(B, mh(L) if upper else L)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """Gives A^-1 from A's Cholesky factor (PyTorch: torch.cholesky_inverse)."""
    check_square("cholesky_inverse", L)
    return ops.cholesky_solve(identity(int(L.shape[-1]), L.dtype), mh(L) if upper else L)


def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    """Gives (X, a copy of A) with A X = b for triangular A; `transpose`: A^T X = b (torch.triangular_solve)."""
    check_matrix("triangular_solve", b, "b")
    check_square("triangular_solve", A)
    matrix = factorizations.mt(A) if transpose else A
    found = ops.solve_triangular(matrix, b, upper=bool(upper) != bool(transpose), unit=bool(unitriangular))
    return _TRIANGULAR(found, clone(A))


# LU ---------------------------------------------------------------------------------------------------------


def lu(input: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """Gives (LU, pivots), and infos if asked (PyTorch: torch.lu)."""
    if get_infos:
        return tuple(factorizations.lu_factor_ex(input, pivot=pivot))
    return tuple(factorizations.lu_factor(input, pivot=pivot))


def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """Solves A X = b from `lu(A)` (PyTorch: torch.lu_solve)."""
    return factorizations.lu_solve(LU_data, LU_pivots, b)


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True) -> Any:
    """Gives (P, L, U) of packed factors; what is not unpacked is empty (PyTorch: torch.lu_unpack)."""
    if unpack_pivots and LU_pivots.dtype.name != "int32":
        raise RuntimeError(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 dtype. Note: this "
            "function is intended to be used with the output produced by torch.linalg.lu_factor"
        )
    nothing = full(0, shape=(0,), dtype=LU_data.dtype.name)
    rows = lower = upper = nothing
    if unpack_pivots:
        rows = ops.permutation_matrix(LU_pivots, rows=int(LU_data.shape[-2]), dtype=LU_data.dtype.name)
    if unpack_data:
        lower, upper = ops.unpack(LU_data)
    return _UNPACK(rows, lower, upper)


# QR ---------------------------------------------------------------------------------------------------------


def qr(input: Tensor, some: bool = True) -> Any:
    """Gives (Q, R), complete unless `some` (PyTorch: torch.qr)."""
    return _QR(*factorizations.qr(input, "reduced" if some else "complete"))


def geqrf(input: Tensor) -> Any:
    """Gives LAPACK's packed QR: R with the vectors of the reflections below it, and their factors (torch.geqrf)."""
    return _GEQRF(*ops.geqrf(input))


def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """Multiplies `other` from the left (or right) by Q = H_1 ... H_k as `geqrf` packs it, or by Q^H (torch.ormqr).

    Q itself is never formed.
    """
    name = "torch.ormqr"
    check_matrix(name, input, "input")
    check_matrix(name, other, "other")
    check_same_dtype(name, input, tau)
    check_same_dtype(name, input, other)
    m, side = int(input.shape[-2]), -2 if left else -1
    if other.shape[side] != m or tau.ndim != input.ndim - 1 or tau.shape[-1] > min(m, int(input.shape[-1])):
        raise RuntimeError(
            f"{name}: other.shape[{side}] must be equal to input.shape[-2], and tau (..., k) with k at most the sizes "
            f"of input; got input {list(input.shape)}, tau {list(tau.shape)}, other {list(other.shape)}"
        )
    v, t = ops.reflectors(input, tau)
    t = mh(t) if transpose else t
    if left:
        return other - matmul(v, matmul(t, matmul(mh(v), other)))
    return other - matmul(matmul(matmul(other, v), t), mh(v))


# Singular values --------------------------------------------------------------------------------------------


def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """Gives (U, S, V) with A = U diag(S) V^H; U and V are zeros without `compute_uv` (PyTorch: torch.svd)."""
    if compute_uv:
        u, s, vh = factorizations.svd(input, full_matrices=not some)
        return _SVD(u, s, mh(vh))
    check_matrix("linalg.svd", input)
    *batch, m, n = input.shape
    kind = input.dtype.name
    zeros = (full(0, shape=(*batch, size, size), dtype=kind) for size in (m, n))
    return _SVD(next(zeros), factorizations.svdvals(input), next(zeros))


def _approximate_basis(A: Tensor, q: int, niter: int) -> Tensor:
    """Gives an orthonormal basis that nearly spans A's columns (Halko, Martinsson, Tropp 2009, algorithm 4.4)."""
    from distgrad.functions.random import randn

    basis = ops.qr(matmul(A, randn(int(A.shape[-1]), q, dtype=A.dtype)), complete=False)[0]
    for _ in range(niter):
        basis = ops.qr(matmul(mh(A), basis), complete=False)[0]
        basis = ops.qr(matmul(A, basis), complete=False)[0]
    return basis


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None) -> Any:
    """Gives (U, S, V), the q largest singular values of A (or of A - M) found by a random projection
    (PyTorch: torch.svd_lowrank; Halko, Martinsson, Tropp 2009, algorithm 5.1)."""
    check_matrix("svd_lowrank", A)
    matrix = A if M is None else A - M
    count = 6 if q is None else int(q)
    turned = matrix.shape[-2] < matrix.shape[-1]
    if turned:
        matrix = mh(matrix)
    basis = _approximate_basis(matrix, count, 2 if niter is None else int(niter))
    u, s, vh = factorizations.svd(matmul(mh(basis), matrix), full_matrices=False)
    u, v = matmul(basis, u), mh(vh)
    return (v, s, u) if turned else (u, s, v)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """Gives (U, S, V) of the q main components of rows A (..., m, n); q is min(6, m, n) by default (torch.pca_lowrank).

    ValueError unless 0 <= q <= min(m, n) and niter >= 0.
    """
    check_matrix("pca_lowrank", A)
    m, n = A.shape[-2:]
    count = min(6, m, n) if q is None else int(q)
    if not 0 <= count <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(A - mean(A, axis=(A.ndim - 2,), keepdims=True) if center else A, count, niter)


# Norms and products -----------------------------------------------------------------------------------------


def nuclear_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Gives the sum of the singular values of the matrices in two dims (PyTorch: torch.nuclear_norm)."""
    if dim is None and input.ndim != 2:
        raise RuntimeError(f"nuclear_norm: expected a matrix when dim is not given, got {input.ndim} dimensions")
    return norms.matrix_norm(input, "nuc", (-2, -1) if dim is None else tuple(dim), keepdim)


def frobenius_norm(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """Gives the 2-norm over one or two dims (PyTorch: torch.frobenius_norm)."""
    return norms.vector_norm(input, 2, normalize_dims("frobenius_norm", dim, input.ndim), keepdim)


def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """Gives cross products along `dim`, by default the first of size 3 (PyTorch: torch.cross)."""
    if dim is None:
        found = [d for d, size in enumerate(input.shape) if size == 3]
        if not found:
            raise RuntimeError(f"cross: no dimension of size 3 in input of shape {list(input.shape)}")
        dim = found[0]
    return norms.cross(input, other, dim=dim)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Gives powers of the elements of x (n,) as rows (n, N), falling unless `increasing` (PyTorch: torch.vander)."""
    from distgrad.ops.movement import flip

    if x.ndim != 1:
        raise RuntimeError(f"x must be a one-dimensional tensor, got {x.ndim} dimensions")
    columns = int(x.shape[0] if N is None else N)
    if columns < 0:
        raise RuntimeError(f"N must be non-negative, got {N}")
    if columns == 0 or x.shape[0] == 0:
        return full(0, shape=(int(x.shape[0]), columns), dtype=x.dtype.name)
    powers = part(norms.vander(x, max(columns, 2)), -1, 0, columns)
    return powers if increasing else flip(powers, axis=(1,))
