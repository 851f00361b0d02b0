"""PyTorch's linalg functions that solve: systems, inverses, determinants, pseudo-inverses, least squares, powers.

Invariant: nothing reads values, except `lstsq` with the drivers that find the rank, whose residuals exist only for full
rank.
"""

from __future__ import annotations

import builtins
from math import prod
from typing import Any

import numpy as np

from distgrad.functions.precision import in_float32
from distgrad.functions.reduction import return_type
from distgrad.meta import broadcast_shapes, normalize_dim
from distgrad.op import is_tensor
from distgrad.ops import linalg_solve as ops
from distgrad.ops.contraction import matmul
from distgrad.ops.elementwise import abs as absolute
from distgrad.ops.elementwise import gt, square, vanish, where
from distgrad.ops.linalg_common import check_matrix, check_same_dtype, check_square, identity, mt
from distgrad.ops.movement import expand, permute, reshape
from distgrad.ops.reduction import sum as sum_of

__all__: list[str] = []  # PyTorch has these in torch.linalg: distgrad.linalg takes them from here

Tensor = Any
_SOLVE_EX = return_type("linalg_solve_ex", ("result", "info"))
_INV_EX = return_type("linalg_inv_ex", ("inverse", "info"))
_SLOGDET = return_type("linalg_slogdet", ("sign", "logabsdet"))
_LSTSQ = return_type("linalg_lstsq", ("solution", "residuals", "rank", "singular_values"))


# Systems ----------------------------------------------------------------------------------------------------


def _solve(A: Tensor, B: Tensor, left: bool, check: bool) -> tuple[Tensor, Tensor]:
    check_square("linalg.solve", A)
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))
    if vector and not left:
        raise RuntimeError(
            "linalg.solve: Vector broadcasting of the left hand side is not supported for left=False; use "
            "B.unsqueeze(-2)"
        )
    b = reshape(B, shape=(*B.shape, 1)) if vector else B
    if left:
        result, _, _, info = ops.solve(A, b, check=check)
    else:
        check_matrix("linalg.solve", B, "B")
        result, _, _, info = ops.solve(mt(A), mt(b), check=check)
        result = mt(result)
    return reshape(result, shape=tuple(result.shape[:-1])) if vector else result, info


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """Gives X with A X = B (left=False: X A = B), A (..., n, n), B (..., n, k), (n,) or a batch of vectors.

    LinAlgError for a singular A (PyTorch: linalg.solve).
    """
    return _solve(A, B, left, True)[0]


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """Gives (result, info): info is not 0 where A is singular (PyTorch: linalg.solve_ex)."""
    return _SOLVE_EX(*_solve(A, B, left, bool(check_errors)))


def inv(A: Tensor) -> Tensor:
    """Inverts square matrices (PyTorch: linalg.inv). LinAlgError for a singular one."""
    return ops.inv(A, check=True)[0]


def inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    """Gives (inverse, info): info is not 0 where A is singular (PyTorch: linalg.inv_ex)."""
    return _INV_EX(*ops.inv(A, check=bool(check_errors)))


def det(A: Tensor) -> Tensor:
    """Gives the determinants (...) of square matrices; its gradients exist for singular ones too (linalg.det)."""
    return ops.det(A)


def slogdet(A: Tensor) -> Any:
    """Gives (sign, logabsdet) of the determinants; (0, -inf) for a singular matrix (PyTorch: linalg.slogdet)."""
    return _SLOGDET(*ops.slogdet(A))


# Tolerances, pseudo-inverse, least squares ------------------------------------------------------------------


def tolerances(name: str, A: Tensor, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """Gives (atol, rtol) as numbers or tensors of A's batch shape; rtol is eps * max(m, n) unless atol is positive."""
    for argument, value in (("atol", atol), ("rtol", rtol)):
        if is_tensor(value) and value.dtype.is_complex:
            raise RuntimeError(f"{name}: {argument} tensor of complex type is not supported.")
    batch = tuple(A.shape[:-2])
    usual = float(np.finfo(A.dtype.numpy).eps) * max(A.shape[-2:])
    if rtol is None:
        if is_tensor(atol):
            rtol = where(gt(atol, 0), 0.0, usual)
        else:
            rtol = 0.0 if atol else usual
    if atol is None:
        atol = 0.0

    def spread(value: Any) -> Any:
        if not is_tensor(value):
            return float(value)
        shape = broadcast_shapes(name, tuple(value.shape), batch)
        if shape != batch:
            raise RuntimeError(f"{name}: tolerances of shape {list(value.shape)} do not broadcast to {list(batch)}")
        return value if tuple(value.shape) == batch else expand(value, shape=batch)

    return spread(atol), spread(rtol)


def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """Gives the pseudo-inverse (..., n, m) of A (..., m, n) (PyTorch: linalg.pinv).

    Singular values (or, with `hermitian`, absolute eigenvalues) up to max(atol, rtol * the largest) count as zero;
    `rcond` is an older name of rtol.
    """
    (check_square if hermitian else check_matrix)("linalg.pinv", A)
    if rcond is not None:
        atol, rtol = 0.0, rcond
    return ops.pinv(A, *tolerances("linalg.pinv", A, atol, rtol), hermitian=bool(hermitian))


def lstsq(A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None) -> Any:
    """Gives (solution, residuals, rank, singular_values) of least squares problems min |A X - B| (linalg.lstsq).

    A (..., m, n), B (..., m, k) or (..., m). `driver`: "gelsy" (default), "gels", "gelsd", "gelss". Residuals are empty
    unless m > n and every matrix has full rank, for which "gelsd" and "gelss" read the rank.
    """
    name = "torch.linalg.lstsq"
    check_matrix(name, A, "input")
    driver = "gelsy" if driver is None else str(driver)
    if driver not in ("gels", "gelsy", "gelsd", "gelss"):
        raise RuntimeError(f"{name}: parameter `driver` should be one of (gels, gelsy, gelsd, gelss), got {driver}")
    if B.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    check_same_dtype(name, A, B)
    vector = A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1])
    b = reshape(B, shape=(*B.shape, 1)) if vector else B
    if b.ndim < 2 or A.shape[-2] != b.shape[-2]:
        raise RuntimeError(
            f"{name}: input.size(-2) should match other.size(-2), got shapes {list(A.shape)} and {list(B.shape)}"
        )
    m, n = A.shape[-2:]
    batch = broadcast_shapes(name, tuple(A.shape[:-2]), tuple(b.shape[:-2]))
    a = expand(A, shape=(*batch, m, n))
    b = expand(b, shape=(*batch, *b.shape[-2:]))
    usual = float(np.finfo(A.dtype.numpy).eps) * max(m, n)
    solution, rank, values = ops.lstsq(a, b, usual if rcond is None else float(rcond), driver=driver)
    full = m > n and driver != "gelsy" and (driver == "gels" or bool((rank.detach().numpy() == n).all()))
    if full:
        missing = matmul(a, solution) - b
        squares = square(absolute(missing) if missing.dtype.is_complex else missing)
        residuals = sum_of(squares, axis=(squares.ndim - 2,), keepdims=False)
        if vector:
            residuals = reshape(residuals, shape=tuple(residuals.shape[:-1]))
    else:
        residuals = _empty(A.dtype.to_real())
        if A.requires_grad or B.requires_grad:  # empty, and as in PyTorch with a history
            residuals = residuals * vanish(sum_of(absolute(solution), axis=tuple(range(solution.ndim)), keepdims=False))
    if vector:
        solution = reshape(solution, shape=tuple(solution.shape[:-1]))
    return _LSTSQ(solution, residuals, _empty("int64") if driver == "gels" else rank, values.detach())


def _empty(kind: Any) -> Tensor:
    from distgrad.functions.data import from_numpy

    return from_numpy(np.empty(0, kind if isinstance(kind, str) else kind.numpy))


# Powers -----------------------------------------------------------------------------------------------------


@in_float32()
def matrix_exp(A: Tensor) -> Tensor:
    """Gives the exponential of square matrices (PyTorch: linalg.matrix_exp)."""
    return ops.matrix_exp(A)


def matrix_power(A: Tensor, n: int) -> Tensor:
    """Gives the n-th power of square matrices, by repeated squaring; negative n inverts (linalg.matrix_power)."""
    if A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.matrix_power: A must be batches of square matrices, got shape {list(A.shape)}")
    if not isinstance(n, int):
        raise TypeError(f"linalg.matrix_power: n must be an int, got {type(n).__name__}")
    if n == 0:
        return expand(identity(int(A.shape[-1]), A.dtype), shape=tuple(A.shape)) + vanish(A)
    power = inv(A) if n < 0 else A
    result, left = None, builtins.abs(n)
    while True:
        if left & 1:
            result = power if result is None else matmul(result, power)
        left >>= 1
        if not left:
            return result
        power = matmul(power, power)


# Tensors as matrices ----------------------------------------------------------------------------------------


def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """Gives X with tensordot(X, A, ind) the identity; A's first `ind` dims have as many elements as the others
    (PyTorch: linalg.tensorinv)."""
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', got {ind}")
    shape = tuple(A.shape)
    rows, columns = prod(shape[:ind]), prod(shape[ind:])
    if rows != columns:
        raise RuntimeError(
            f"Expected self to satisfy the requirement prod(self.shape[ind:]) == prod(self.shape[:ind]), but got "
            f"{columns} != {rows}"
        )
    inverse = inv(reshape(A, shape=(rows, columns)))
    return reshape(inverse, shape=(*shape[ind:], *shape[:ind]))


def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """Gives X with tensordot(A, X, X.ndim) = B; `dims` of A are moved to the right first (linalg.tensorsolve)."""
    if dims is not None:
        moved = [normalize_dim("linalg.tensorsolve", d, A.ndim) for d in dims]
        A = permute(A, axes=(*(d for d in range(A.ndim) if d not in moved), *moved))
    shape = tuple(A.shape[B.ndim :])
    size = prod(shape)
    if prod(A.shape[: B.ndim]) != size:
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == prod(self.shape[:other.ndim]), "
            f"but got {size} != {prod(A.shape[: B.ndim])}"
        )
    found = solve(reshape(A, shape=(size, size)), reshape(B, shape=(size,)))
    return reshape(found, shape=shape)
