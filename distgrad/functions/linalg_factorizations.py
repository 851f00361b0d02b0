"""PyTorch's linalg functions that take matrices apart: Cholesky, LU, LDL, QR, eigenvalues, singular values.

Invariant: matrices stand in the last two dims, all others are batch dims; the `_ex` variants report a failed matrix in
`info` and the others raise `LinAlgError`.
"""

from __future__ import annotations

from typing import Any

from distgrad.functions.reduction import return_type
from distgrad.grad_mode import mode
from distgrad.ops import linalg as ops
from distgrad.ops import linalg_spectral as spectral
from distgrad.ops.contraction import matmul
from distgrad.ops.linalg_common import check_matrix, check_same_dtype, identity, mh, mt, part

__all__: list[str] = []  # PyTorch has these in torch.linalg: distgrad.linalg takes them from here

Tensor = Any
_CHOLESKY = return_type("linalg_cholesky_ex", ("L", "info"))
_LU = return_type("linalg_lu", ("P", "L", "U"))
_LU_FACTOR = return_type("linalg_lu_factor", ("LU", "pivots"))
_LU_FACTOR_EX = return_type("linalg_lu_factor_ex", ("LU", "pivots", "info"))
_LDL = return_type("linalg_ldl_factor", ("LD", "pivots"))
_LDL_EX = return_type("linalg_ldl_factor_ex", ("LD", "pivots", "info"))
_QR = return_type("linalg_qr", ("Q", "R"))
_EIGH = return_type("linalg_eigh", ("eigenvalues", "eigenvectors"))
_EIG = return_type("linalg_eig", ("eigenvalues", "eigenvectors"))
_SVD = return_type("linalg_svd", ("U", "S", "Vh"))


# Cholesky ---------------------------------------------------------------------------------------------------


def _cholesky(A: Tensor, upper: bool, check: bool) -> tuple[Tensor, Tensor]:
    return ops.cholesky(A, check=check, upper=bool(upper))


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """Gives L with A = L L^H (upper: U with A = U^H U) of Hermitian positive-definite A (..., n, n), of which only that
    triangle is read (PyTorch: linalg.cholesky). LinAlgError for a matrix that is not positive-definite."""
    return _cholesky(A, upper, True)[0]


def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """Gives (L, info): info is 0, or the order of the leading minor that is not positive (linalg.cholesky_ex)."""
    return _CHOLESKY(*_cholesky(A, upper, bool(check_errors)))


# Triangular systems and LU ----------------------------------------------------------------------------------


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """Gives X with A X = B (left=False: X A = B) for triangular A (..., n, n) (PyTorch: linalg.solve_triangular)."""
    unit = bool(unitriangular)
    if left:
        return ops.solve_triangular(A, B, upper=bool(upper), unit=unit)
    check_matrix("linalg.solve_triangular", A)
    check_matrix("linalg.solve_triangular", B, "B")
    return mt(ops.solve_triangular(mt(A), mt(B), upper=not upper, unit=unit))


def _needs_pivot(pivot: bool) -> None:
    if not pivot:
        raise RuntimeError("linalg.lu_factor: LU without pivoting is not implemented on the CPU; use pivot=True")


def lu_factor(A: Tensor, *, pivot: bool = True) -> Any:
    """Gives (LU, pivots): L and U packed in one matrix, and 1-based row swaps (PyTorch: linalg.lu_factor).

    LinAlgError when U has a zero on its diagonal.
    """
    _needs_pivot(pivot)
    return _LU_FACTOR(*ops.lu_factor(A, check=True)[:2])


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    """Gives (LU, pivots, info): info is 0, or where U has its first zero (PyTorch: linalg.lu_factor_ex)."""
    _needs_pivot(pivot)
    return _LU_FACTOR_EX(*ops.lu_factor(A, check=bool(check_errors)))


def lu(A: Tensor, *, pivot: bool = True) -> Any:
    """Gives (P, L, U) with A = P L U: (..., m, m), (..., m, k), (..., k, n), k = min(m, n) (PyTorch: linalg.lu)."""
    _needs_pivot(pivot)
    packed, pivots, _ = ops.lu_factor(A, check=False)
    rows = ops.permutation_matrix(pivots, rows=int(A.shape[-2]), dtype=A.dtype.name)
    return _LU(rows, *ops.unpack(packed))


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """Solves A X = B (left=False: X A = B; adjoint: with A^H) from `lu_factor(A)` (PyTorch: linalg.lu_solve)."""
    name = "linalg.lu_solve"
    check_matrix(name, LU, "LU")
    check_matrix(name, B, "B")
    check_same_dtype(name, LU, B)
    if LU.shape[-1] != LU.shape[-2]:
        raise RuntimeError(f"{name}: LU must be batches of square matrices, got shape {list(LU.shape)}")
    if B.shape[-2 if left else -1] != LU.shape[-1]:
        raise RuntimeError(f"{name}: Incompatible shapes of LU and B: {list(LU.shape)} and {list(B.shape)}")
    if tuple(pivots.shape) != tuple(LU.shape[:-1]):
        raise RuntimeError(f"{name}: Expected LU_pivots of shape {list(LU.shape[:-1])}, got {list(pivots.shape)}")
    if not left:
        return mh(lu_solve(LU, pivots, mh(B), adjoint=not adjoint))
    rows = ops.permutation_matrix(pivots, rows=int(LU.shape[-1]), dtype=LU.dtype.name)
    if adjoint:
        inner = ops.solve_triangular(mh(LU), B, upper=False, unit=False)
        return matmul(rows, ops.solve_triangular(mh(LU), inner, upper=True, unit=True))
    inner = ops.solve_triangular(LU, matmul(mt(rows), B), upper=False, unit=True)
    return ops.solve_triangular(LU, inner, upper=True, unit=False)


# LDL --------------------------------------------------------------------------------------------------------


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> Any:
    """Gives (LD, pivots) of symmetric (or Hermitian) A in LAPACK's packed form (PyTorch: linalg.ldl_factor)."""
    return _LDL(*ops.ldl_factor(A, hermitian=bool(hermitian), check=True)[:2])


def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False) -> Any:
    """Gives (LD, pivots, info) (PyTorch: linalg.ldl_factor_ex)."""
    return _LDL_EX(*ops.ldl_factor(A, hermitian=bool(hermitian), check=bool(check_errors)))


def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """Solves A X = B from `ldl_factor(A)` (PyTorch: linalg.ldl_solve)."""
    return ops.ldl_solve(LD, pivots, B, hermitian=bool(hermitian))


# QR ---------------------------------------------------------------------------------------------------------


def qr(A: Tensor, mode: str = "reduced") -> Any:
    """Gives (Q, R) with A = Q R: mode "reduced", "complete", or "r" with an empty Q (PyTorch: linalg.qr).

    Signs are LAPACK's. Gradients need m <= n or mode "reduced".
    """
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), 'r', or 'complete'"
        )
    if mode == "r":
        from distgrad.functions.creation import empty

        return _QR(empty(0, dtype=A.dtype), ops.qr_triangle(A))
    return _QR(*ops.qr(A, complete=mode == "complete"))


def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """Gives the first n columns of H_1 ... H_k, the reflections that `geqrf` packs into A (..., m, n) and tau (..., k).

    RuntimeError unless m >= n >= k and batch dims agree (PyTorch: linalg.householder_product).
    """
    name = "torch.linalg.householder_product"
    check_matrix(name, A, "input")
    check_same_dtype(name, A, tau)
    m, n, k = A.shape[-2], A.shape[-1], tau.shape[-1] if tau.ndim else 0
    if m < n or n < k or tau.ndim != A.ndim - 1 or tau.shape[:-1] != A.shape[:-2]:
        raise RuntimeError(
            f"{name}: expected input (..., m, n) with m >= n >= k and tau (..., k) of the same batch dims, got "
            f"{list(A.shape)} and {list(tau.shape)}"
        )
    v, t = ops.reflectors(A, tau)
    return identity(m, A.dtype, n) - matmul(v, matmul(t, mh(part(v, -2, 0, n))))


# Eigenvalues ------------------------------------------------------------------------------------------------


def _is_upper(UPLO: str) -> bool:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper() == "U"


def _records(A: Tensor) -> bool:
    return bool(mode.enabled and A.requires_grad)


def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Gives rising eigenvalues (..., n) and eigenvectors (columns) of Hermitian A, reading one triangle (linalg.eigh).

    Vectors are LAPACK's up to sign; gradients are right for functions that do not depend on that choice.
    """
    return _EIGH(*spectral.eigh(A, upper=_is_upper(UPLO)))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """Gives the rising eigenvalues (..., n) of Hermitian A (PyTorch: linalg.eigvalsh)."""
    upper = _is_upper(UPLO)
    return spectral.eigh(A, upper=upper)[0] if _records(A) else spectral.eigvalsh(A, upper=upper)


def eig(A: Tensor) -> Any:
    """Gives complex eigenvalues (..., n) and eigenvectors of length 1 (columns) of square A (PyTorch: linalg.eig)."""
    return _EIG(*spectral.eig(A))


def eigvals(A: Tensor) -> Tensor:
    """Gives the complex eigenvalues (..., n) of square A (PyTorch: linalg.eigvals)."""
    return spectral.eig(A)[0] if _records(A) else spectral.eigvals(A)


# Singular values --------------------------------------------------------------------------------------------


def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """Gives (U, S, Vh) with A = U diag(S) Vh and falling S (linalg.svd). `driver` is for GPUs: must be None."""
    _no_driver("linalg.svd", driver)
    return _SVD(*spectral.svd(A, full_matrices=bool(full_matrices)))


def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """Gives the falling singular values (..., min(m, n)) of A (PyTorch: linalg.svdvals)."""
    _no_driver("linalg.svdvals", driver)
    return spectral.svd(A, full_matrices=False)[1] if _records(A) else spectral.svdvals(A)


def _no_driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise RuntimeError(f"{name}: keyword argument `driver=` is only supported on CUDA inputs, got {driver!r}")
