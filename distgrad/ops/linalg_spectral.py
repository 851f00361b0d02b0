"""Eigenvalues and singular values with their vectors.

Invariant: vectors are determined up to a sign (a phase), or a rotation among equal values, and the gradients here are
right for functions that do not depend on that choice; between equal values they divide as `quotient` does. Formulas:
Giles 2008, "Collected matrix derivative results"; Townsend 2016, "Differentiating the singular value decomposition";
Wan & Zhang 2019, "Automatic differentiation for complex valued SVD"; Boeddeker et al. 2017 for complex eigenvectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.ops.contraction import matmul
from distgrad.ops.elementwise import real, vanish
from distgrad.ops.linalg_common import (
    batch_rows,
    check_matrix,
    check_square,
    column,
    conjugate,
    conjugated,
    converging,
    diagonal_matrix,
    diagonal_of,
    identity,
    line,
    mh,
    off_diagonal,
    part,
    quotient,
)
from distgrad.ops.linalg_solve import solve


def _gaps(values: Any) -> Any:
    """Gives E with E_ij = values_j - values_i, and 1 on the diagonal."""
    return line(values) - column(values) + identity(values.shape[-1], values.dtype)


# Hermitian matrices -----------------------------------------------------------------------------------------


def _real_values(x: TensorMeta) -> TensorMeta:
    return TensorMeta.of(x.shape[:-1], x.dtype.to_real())


def _eigh_meta(x: TensorMeta, *, upper: bool) -> MetaResult:
    check_square("linalg.eigh", x)
    return (_real_values(x), x), None


def _eigvalsh_meta(x: TensorMeta, *, upper: bool) -> MetaResult:
    check_square("linalg.eigvalsh", x)
    return (_real_values(x),), None


def _eigh_rule(g: Any, w: Any, v: Any) -> Any:
    """Giles 2008, section 3.1. V stays unitary, so only the skew-Hermitian part of V^H gV counts, which makes the
    gradient Hermitian."""
    g_w, g_v = conjugated(g)
    if g_v is None:
        return conjugated(matmul(v * line(g_w), mh(v)))
    inner = off_diagonal(matmul(mh(v), g_v))
    middle = quotient((inner - mh(inner)) * 0.5, _gaps(w))
    middle = middle if g_w is None else middle + diagonal_matrix(g_w)
    return conjugated(matmul(matmul(v, middle), mh(v)))


eigh = Op(
    "eigh", lambda x, *, upper: converging("linalg.eigh", np.linalg.eigh, x, "U" if upper else "L"),
    meta=_eigh_meta, inputs="x", rows=batch_rows, vjps=(_eigh_rule,), outputs="w v", takes_none=True,
)
"""Rising eigenvalues and orthonormal eigenvectors (columns) of Hermitian matrices, of which one triangle is read."""

eigvalsh = Op(
    "eigvalsh", lambda x, *, upper: converging("linalg.eigvalsh", np.linalg.eigvalsh, x, "U" if upper else "L"),
    meta=_eigvalsh_meta, inputs="x", rows=batch_rows,
)
"""Eigenvalues alone, for where no gradient is wanted (it needs the vectors: `eigh`)."""


# General matrices -------------------------------------------------------------------------------------------


def _check_finite(name: str, x: np.ndarray) -> np.ndarray:
    if not np.isfinite(x).all():
        raise RuntimeError(f"{name}: input tensor should not contain infs or NaNs.")
    return x


def _eig(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = converging("linalg.eig", np.linalg.eig, _check_finite("linalg.eig", x))
    kind = np.result_type(x.dtype, np.complex64)
    return values.astype(kind, copy=False), vectors.astype(kind, copy=False)


def _eigvals(x: np.ndarray) -> np.ndarray:
    values = converging("linalg.eigvals", np.linalg.eigvals, _check_finite("linalg.eigvals", x))
    return values.astype(np.result_type(x.dtype, np.complex64), copy=False)


def _eig_meta(x: TensorMeta) -> MetaResult:
    check_square("linalg.eig", x)
    return (TensorMeta.of(x.shape[:-1], x.dtype.to_complex()), x.with_dtype(x.dtype.to_complex())), None


def _eig_rule(g: Any, w: Any, v: Any) -> Any:
    """Boeddeker et al. 2017, eq. 4.77, for columns of V normalised to 1."""
    g_w, g_v = conjugated(g)
    if g_v is None:
        return conjugated(solve(mh(v), column(g_w) * mh(v), check=False)[0])
    inner = matmul(mh(v), g_v)
    inner = inner - matmul(mh(v), v) * line(real(diagonal_of(inner)))
    middle = quotient(off_diagonal(inner), conjugate(_gaps(w)))
    middle = middle if g_w is None else middle + diagonal_matrix(g_w)
    return conjugated(solve(mh(v), matmul(middle, mh(v)), check=False)[0])


eig = Op("eig", _eig, meta=_eig_meta, inputs="x", rows=batch_rows, vjps=(_eig_rule,), outputs="w v",
         takes_none=True)
"""Complex eigenvalues and eigenvectors of length 1 (columns)."""

eigvals = Op(
    "eigvals", _eigvals, inputs="x", rows=batch_rows,
    meta=lambda x: (_eig_meta(x)[0][:1], None),
)


# Singular values --------------------------------------------------------------------------------------------


def _svd_meta(x: TensorMeta, *, full_matrices: bool) -> MetaResult:
    check_matrix("linalg.svd", x)
    *batch, m, n = x.shape
    k = min(m, n)
    return (
        TensorMeta.of((*batch, m, m if full_matrices else k), x.dtype),
        TensorMeta.of((*batch, k), x.dtype.to_real()),
        TensorMeta.of((*batch, n if full_matrices else k, n), x.dtype),
    ), None


def _svdvals_meta(x: TensorMeta) -> MetaResult:
    check_matrix("linalg.svdvals", x)
    return (TensorMeta.of((*x.shape[:-2], min(x.shape[-2:])), x.dtype.to_real()),), None


def _svd_rule(g: Any, u: Any, s: Any, vh: Any) -> Any:
    """Townsend 2016, eq. 16-19; the last term, a phase, exists for complex matrices only (Wan & Zhang 2019)."""
    m, n, k = u.shape[-2], vh.shape[-1], s.shape[-1]
    g_u, g_s, g_vh = conjugated(g)
    if g_u is None and g_vh is None:
        return conjugated(matmul(part(u, -1, 0, k) * line(g_s), part(vh, -2, 0, k)))
    g_u = part(vanish(u) if g_u is None else g_u, -1, 0, k)
    g_vh = part(vanish(vh) if g_vh is None else g_vh, -2, 0, k)
    u, vh = part(u, -1, 0, k), part(vh, -2, 0, k)
    left, right = matmul(mh(u), g_u), matmul(vh, mh(g_vh))
    skew_left, skew_right = left - mh(left), right - mh(right)
    squares = (line(s) - column(s)) * (line(s) + column(s)) + identity(k, s.dtype)
    diagonal = vanish(s) if g_s is None else g_s
    if u.dtype.is_complex:
        diagonal = diagonal + quotient(diagonal_of(skew_left), s * 2.0)
        skew_left, skew_right = off_diagonal(skew_left), off_diagonal(skew_right)
    middle = quotient(skew_left, squares) * line(s) + column(s) * quotient(skew_right, squares)
    result = matmul(matmul(u, middle + diagonal_matrix(diagonal)), vh)
    if m > k:
        result = result + matmul(quotient(g_u - matmul(u, left), line(s)), vh)
    if n > k:
        result = result + matmul(u, quotient(g_vh - matmul(mh(right), vh), column(s)))
    return conjugated(result)


svd = Op(
    "svd", lambda x, *, full_matrices: converging("linalg.svd", np.linalg.svd, x, full_matrices), meta=_svd_meta,
    inputs="x", rows=batch_rows, vjps=(_svd_rule,), outputs="u s vh", takes_none=True,
)
"""A = U diag(S) Vh with falling singular values."""

svdvals = Op(
    "svdvals", lambda x: converging("linalg.svdvals", np.linalg.svd, x, compute_uv=False), meta=_svdvals_meta,
    inputs="x", rows=batch_rows,
)
