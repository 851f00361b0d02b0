"""Factorizations of matrices: Cholesky, LU, QR, LDL, and the triangular solves they lead to.

Invariant: results are LAPACK's, with its pivots and signs, as PyTorch's are; gradients are triangular solves with the
factors that the forward pass saved, never a second factorization. Rules state their source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import Entry, MetaResult, Op, Row
from distgrad.ops import linalg_stacked as stacked
from distgrad.ops.contraction import matmul
from distgrad.ops.elementwise import neg, real
from distgrad.ops.linalg_common import (
    batch_rows,
    check_matrix,
    check_same_dtype,
    check_square,
    conjugated,
    diagonal_matrix,
    diagonal_of,
    fail,
    identity,
    int_meta,
    mh,
    mt,
    part,
    places,
)
from distgrad.ops.movement import concat, tril, triu


def lapack(names: str, kind: np.dtype) -> Any:
    """Gives LAPACK functions for a dtype; one name gives one function."""
    return _lapack(names, kind.char)


@lru_cache(maxsize=256)
def _lapack(names: str, kind: str) -> Any:
    from scipy.linalg import get_lapack_funcs

    found = get_lapack_funcs(tuple(names.split()), dtype=np.dtype(kind))
    return found[0] if len(found) == 1 else found


# Triangular systems -----------------------------------------------------------------------------------------


def own_dims(dim: int, ndim: int, shapes: Sequence[tuple[int, ...]]) -> tuple[Entry, ...]:
    """Gives where each tensor has a batch dim of the broadcast result (None: it lacks or repeats it)."""
    entries: list[Entry] = []
    sizes = [s[dim - ndim + len(s)] if dim - ndim + len(s) >= 0 else 1 for s in shapes]
    for shape, size in zip(shapes, sizes):
        entries.append(dim - ndim + len(shape) if size == max(sizes) and dim - ndim + len(shape) >= 0 else None)
    return tuple(entries)


def _solve_triangular(a: np.ndarray, b: np.ndarray, *, upper: bool, unit: bool) -> np.ndarray:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, *b.shape[-2:]), b.dtype)
    if not out.size:
        return out
    a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
    b = np.broadcast_to(b, out.shape)
    if stacked.many(batch, a.shape[-1]):
        found = stacked.solve_triangular(flat(a), flat(b), upper, unit)
        return found.reshape(out.shape)
    function = lapack("trtrs", a.dtype)
    for place in places(batch):
        # A row-major matrix is its transpose in LAPACK's order: the other triangle, and solving with the transpose.
        found, info = function(a[place].T, b[place], lower=int(upper), trans=1, unitdiag=int(unit))
        out[place] = np.inf if info > 0 else found
    return out


def _solve_triangular_meta(a: TensorMeta, b: TensorMeta, *, upper: bool, unit: bool) -> MetaResult:
    name = "linalg.solve_triangular"
    check_square(name, a)
    check_matrix(name, b, "B")
    check_same_dtype(name, a, b)
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(f"{name}: Incompatible shapes of A and B for the equation AX = B: {a.shape} and {b.shape}")
    batch = broadcast_shapes(name, a.shape[:-2], b.shape[:-2])
    return (TensorMeta.of((*batch, *b.shape[-2:]), a.dtype),), None


def system_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of X in A X = B: batch dims, columns of B, and parts of B; further outputs belong to A alone."""
    a, b = ins[0], ins[1]
    more = len(outs) - 1
    for dim in range(outs[0].ndim - 2):
        first, second = own_dims(dim, outs[0].ndim, [a.shape, b.shape])
        yield Row((first, second), (dim, *((first,) * more)))
    yield Row((None, b.ndim - 1), (outs[0].ndim - 1, *((None,) * more)))
    yield Row((None, "sum"), ("sum", *((None,) * more)))


def _triangle(x: Any, upper: bool, unit: bool) -> Any:
    return triu(x, k=int(unit)) if upper else tril(x, k=-int(unit))


def _solve_triangular_rule(g: Any, a: Any, y: Any, upper: bool, unit: bool, needs: tuple[bool, ...]) -> list[Any]:
    """Giles 2008, section 2.3.1, restricted to the triangle that is read."""
    g_b = solve_triangular(mt(a), g, upper=not upper, unit=unit)
    return [_triangle(neg(matmul(g_b, mt(y))), upper, unit) if needs[0] else None, g_b]


solve_triangular: Op = Op(
    "solve_triangular", _solve_triangular, meta=_solve_triangular_meta, inputs="a b", rows=system_rows,
    joint_vjp=_solve_triangular_rule,
)
"""X in A X = B for triangular A, of which only the triangle is read; `unit`: its diagonal counts as ones."""


# Cholesky ---------------------------------------------------------------------------------------------------


def _cholesky(x: np.ndarray, *, check: bool, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    if upper:
        factor, info = _cholesky(x.swapaxes(-2, -1).conj(), check=check, upper=False)
        return factor.swapaxes(-2, -1).conj(), info
    info = np.zeros(x.shape[:-2], np.int32)
    try:
        return np.linalg.cholesky(x), info
    except np.linalg.LinAlgError:
        pass  # numpy does not say which matrix failed, nor where
    function = lapack("potrf", x.dtype)
    out = np.zeros_like(x)
    for place in places(x.shape[:-2]):
        factor, info[place] = function(x[place], lower=1, clean=1)
        out[place] = np.tril(factor)
    if check:
        fail("linalg.cholesky", info, "The factorization could not be completed because the input is not "
             "positive-definite (the leading minor of order {info} is not positive-definite).")
    return out, info


def _cholesky_meta(x: TensorMeta, *, check: bool, upper: bool) -> MetaResult:
    check_square("linalg.cholesky", x)
    return (x, int_meta(x.shape[:-2])), None


def _cholesky_rule(g: Any, y: Any, upper: bool) -> Any:
    """Murray 2016, "Differentiation of the Cholesky decomposition"; the symmetric gradient, as PyTorch gives it."""
    lower, slope = (mh(y), mh(conjugated(g[0]))) if upper else (y, conjugated(g[0]))
    phi = tril(matmul(mh(lower), slope), k=0)
    phi = (phi + mh(tril(phi, k=-1))) * 0.5
    left = solve_triangular(mh(lower), phi, upper=True, unit=False)
    return conjugated(mh(solve_triangular(mh(lower), mh(left), upper=True, unit=False)))


cholesky = Op("cholesky", _cholesky, meta=_cholesky_meta, inputs="x", rows=batch_rows, vjps=(_cholesky_rule,),
              outputs="y info")
"""Lower L with L L^H = A, reading A's lower triangle (`upper`: U with U^H U = A, reading the upper one), and info: 0, or
the order of the minor that is not positive."""


def _cholesky_solve(b: np.ndarray, factor: np.ndarray) -> np.ndarray:
    inner = _solve_triangular(factor, b, upper=False, unit=False)
    return _solve_triangular(factor.swapaxes(-2, -1).conj(), inner, upper=True, unit=False)


def _cholesky_solve_meta(b: TensorMeta, factor: TensorMeta) -> MetaResult:
    check_matrix("cholesky_solve", b, "b")
    check_square("cholesky_solve", factor)
    check_same_dtype("cholesky_solve", b, factor)
    if b.shape[-2] != factor.shape[-1]:
        raise RuntimeError(f"cholesky_solve: Incompatible matrix sizes: A {factor.shape} and b {b.shape}")
    batch = broadcast_shapes("cholesky_solve", b.shape[:-2], factor.shape[:-2])
    return (TensorMeta.of((*batch, *b.shape[-2:]), b.dtype),), None


def _cholesky_solve_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    return (Row(row.ins[::-1], row.outs) for row in system_rows(ins[::-1], outs, attrs))


def _cholesky_solve_rule(g: Any, factor: Any, y: Any, needs: tuple[bool, ...]) -> list[Any]:
    """A = L L^H as if every element of L counted, as in PyTorch: the gradient is not cut to the triangle."""
    g_b = cholesky_solve(conjugated(g), factor)
    common = matmul(g_b, mh(y))
    g_factor = neg(matmul(common + mh(common), factor)) if needs[1] else None
    return conjugated([g_b, g_factor])


cholesky_solve: Op = Op("cholesky_solve", _cholesky_solve, meta=_cholesky_solve_meta, inputs="b factor",
                        rows=_cholesky_solve_rows, joint_vjp=_cholesky_solve_rule)
"""X in L L^H X = B, reading the lower triangle of L."""


# LU ---------------------------------------------------------------------------------------------------------


def flat(x: np.ndarray) -> np.ndarray:
    """Gives matrices with one batch dim."""
    return x.reshape(-1, *x.shape[-2:])


def lu_arrays(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives packed factors, 1-based int32 pivots and info of matrices."""
    *batch, m, n = x.shape
    if x.size and stacked.many(tuple(batch), max(m, n)):
        packed, pivots, info = stacked.lu(flat(x))
        return packed.reshape(x.shape), pivots.reshape(*batch, min(m, n)), info.reshape(batch)
    if x.ndim == 2 and x.size:
        packed, places_found, failed = lapack("getrf", x.dtype)(x)
        return packed, places_found + 1, np.array(failed, np.int32)
    packed = np.empty_like(x)
    pivots = np.empty((*batch, min(m, n)), np.int32)
    info = np.zeros(tuple(batch), np.int32)
    if x.size:
        function = lapack("getrf", x.dtype)
        for place in places(tuple(batch)):
            packed[place], found, info[place] = function(x[place])
            pivots[place] = found + 1
    return packed, pivots, info


def _lu_factor(x: np.ndarray, *, check: bool) -> tuple[np.ndarray, ...]:
    packed, pivots, info = lu_arrays(x)
    if check:
        fail("torch.linalg.lu_factor_ex", info, "U[{info},{info}] is zero and using it on lu_solve would result in a "
             "division by zero. If you still want to perform the factorization, consider calling "
             "linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)")
    return packed, pivots, info


def _lu_meta(x: TensorMeta, *, check: bool) -> MetaResult:
    check_matrix("linalg.lu_factor", x)
    return (x, int_meta((*x.shape[:-2], min(x.shape[-2:]))), int_meta(x.shape[:-2])), None


def unpack(packed: Any) -> tuple[Any, Any]:
    """Gives L (m, k), with ones on its diagonal, and U (k, n) of packed factors (m, n), k = min(m, n)."""
    m, n = packed.shape[-2:]
    k = min(m, n)
    lower = tril(part(packed, -1, 0, k), k=-1) + identity(m, packed.dtype, k)
    return lower, triu(part(packed, -2, 0, k), k=0)


def _lu_rule(g: Any, lu: Any, pivots: Any) -> Any:
    """Giles 2008 for square matrices; wide and tall ones by splitting off the columns or rows beyond the square."""
    packed_g = conjugated(g[0])
    m, n = lu.shape[-2:]
    k = min(m, n)
    lower, upper = unpack(lu)
    g_lower = tril(part(packed_g, -1, 0, k), k=-1)
    g_upper = triu(part(packed_g, -2, 0, k), k=0)
    square_lower, square_upper = part(lower, -2, 0, k), part(upper, -1, 0, k)
    below = matmul(mh(square_lower), part(g_lower, -2, 0, k))
    above = matmul(part(g_upper, -1, 0, k), mh(square_upper))
    if m < n:
        below = below - matmul(part(g_upper, -1, k, n - k), mh(part(upper, -1, k, n - k)))
    elif m > n:
        above = above - matmul(mh(part(lower, -2, k, m - k)), part(g_lower, -2, k, m - k))

    def over_upper(x: Any) -> Any:  # x U^-H
        return mh(solve_triangular(square_upper, mh(x), upper=True, unit=False))

    middle = tril(below, k=-1) + triu(above, k=0)
    result = over_upper(solve_triangular(mh(square_lower), middle, upper=True, unit=True))
    axis = lu.ndim - 1
    if m < n:
        rest = solve_triangular(mh(square_lower), part(g_upper, -1, k, n - k), upper=True, unit=True)
        result = concat(result, rest, axis=axis)
    elif m > n:
        result = concat(result, over_upper(part(g_lower, -2, k, m - k)), axis=axis - 1)
    return conjugated(matmul(permutation_matrix(pivots, rows=m, dtype=lu.dtype.name), result))


lu_factor = Op("lu_factor", _lu_factor, meta=_lu_meta, inputs="x", rows=batch_rows, vjps=(_lu_rule,),
               outputs="lu pivots info")
"""L and U in one matrix, the rows swapped one after the other (1-based), and info: 0, or the first zero of U."""


def _permutation_matrix(pivots: np.ndarray, *, rows: int, dtype: str) -> np.ndarray:
    batch = pivots.shape[:-1]
    out = np.zeros((*batch, rows, rows), dtypes.named(dtype).numpy)
    wrong = pivots[(pivots < 1) | (pivots > rows)]
    if wrong.size:
        raise RuntimeError(
            f"lu_unpack: LU_pivots must be between 1 and LU.size(-2)={rows} inclusive, got {int(wrong[0])}; did you "
            "pass properly the result of the LU factorization?"
        )
    if out.size:
        order = stacked.order_of(pivots.reshape(-1, pivots.shape[-1]), rows)
        np.put_along_axis(out.reshape(-1, rows, rows), order[:, None, :], 1, 1)
    return out


def _permutation_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[0].ndim - 1):
        yield Row((dim,), (dim,))


permutation_matrix: Op = Op(
    "permutation_matrix", _permutation_matrix, inputs="pivots", rows=_permutation_rows,
    meta=lambda pivots, *, rows, dtype: (
        (TensorMeta.of((*pivots.shape[:-1], rows, rows), dtypes.named(dtype)),), None),
)
"""P with A = P L U from the pivots of an LU factorization."""


# QR ---------------------------------------------------------------------------------------------------------


def _qr_meta(x: TensorMeta, *, complete: bool) -> MetaResult:
    check_matrix("linalg.qr", x)
    *batch, m, n = x.shape
    k = m if complete else min(m, n)
    return (TensorMeta.of((*batch, m, k), x.dtype), TensorMeta.of((*batch, k, n), x.dtype)), None


def _square_qr_gradient(g_q: Any, g_r: Any, q: Any, r: Any) -> Any:
    """The rule for m >= n: Walter, Lehmann, Lamour 2012, "On evaluating higher-order derivatives of the QR
    decomposition"; see Roberts & Roberts 2020 for its form here."""
    inner = triu(matmul(g_r, mh(r)) - matmul(mh(q), g_q), k=0)
    diagonal = real(diagonal_of(inner)) if inner.dtype.is_complex else diagonal_of(inner)
    symmetric = inner + mh(inner) - diagonal_matrix(diagonal)
    right = g_q + matmul(q, symmetric)
    return mh(solve_triangular(r, mh(right), upper=True, unit=False))


def _qr_rule(g: Any, q: Any, r: Any, complete: bool) -> Any:
    m, n = q.shape[-2], r.shape[-1]
    if complete and m > n:
        raise RuntimeError(
            "The QR decomposition is not differentiable when mode='complete' and nrows > ncols; use mode='reduced'"
        )
    g_q, g_r = conjugated(g)
    if m >= n:
        return conjugated(_square_qr_gradient(g_q, g_r, q, r))
    # A = [X Y] with X square: X = Q U, and Y = Q V only adds to the gradient of Q.
    g_v = part(g_r, -1, m, n - m)
    g_q = g_q + matmul(matmul(q, part(r, -1, m, n - m)), mh(g_v))
    left = _square_qr_gradient(g_q, part(g_r, -1, 0, m), q, part(r, -1, 0, m))
    return conjugated(concat(left, matmul(q, g_v), axis=q.ndim - 1))


qr = Op("qr", lambda x, *, complete: np.linalg.qr(x, "complete" if complete else "reduced"), meta=_qr_meta, inputs="x",
        rows=batch_rows, vjps=(_qr_rule,), outputs="q r")


def _triangle_only_meta(x: TensorMeta) -> MetaResult:
    check_matrix("linalg.qr", x)
    return (TensorMeta.of((*x.shape[:-2], min(x.shape[-2:]), x.shape[-1]), x.dtype),), None


def _refuse_triangle(g: Any) -> Any:
    raise RuntimeError(
        "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use linalg.qr(A, "
        "mode='reduced') if you are going to require gradients through R."
    )


qr_triangle = Op("qr_triangle", lambda x: np.linalg.qr(x, "r"), meta=_triangle_only_meta, inputs="x", rows=batch_rows,
                 vjps=(_refuse_triangle,))


def _geqrf(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    packed, tau = np.linalg.qr(x, "raw")
    return packed.swapaxes(-2, -1), tau


def _geqrf_meta(x: TensorMeta) -> MetaResult:
    check_matrix("torch.geqrf", x, "input")
    return (x, TensorMeta.of((*x.shape[:-2], min(x.shape[-2:])), x.dtype)), None


geqrf = Op("geqrf", _geqrf, meta=_geqrf_meta, inputs="x", rows=batch_rows, outputs="y tau")
"""QR as LAPACK packs it: R above, the vectors of the reflections below the diagonal, and their factors."""


def reflectors(vectors: Any, tau: Any) -> tuple[Any, Any]:
    """Gives V and T with H_1 H_2 ... H_k = I - V T V^H for the reflections H_i = I - tau_i v_i v_i^H that geqrf packs.

    T is upper triangular with T = (I + diag(tau) striu(V^H V))^-1 diag(tau) (Schreiber & Van Loan 1989; Joffrain et al.
    2006, "Accumulating Householder transformations, revisited"), which also holds where a tau is 0.
    """
    m, k = vectors.shape[-2], tau.shape[-1]
    v = tril(part(vectors, -1, 0, k), k=-1) + identity(m, vectors.dtype, k)
    scale = diagonal_matrix(tau)
    system = matmul(scale, triu(matmul(mh(v), v), k=1))
    return v, solve_triangular(system, scale, upper=True, unit=True)


# LDL --------------------------------------------------------------------------------------------------------


def _ldl_factor(x: np.ndarray, *, hermitian: bool, check: bool) -> tuple[np.ndarray, ...]:
    batch, n = x.shape[:-2], x.shape[-1]
    out = np.empty_like(x)
    pivots = np.empty((*batch, n), np.int32)
    info = np.zeros(batch, np.int32)
    if x.size:
        kind = "hetrf" if hermitian and x.dtype.kind == "c" else "sytrf"
        function = lapack(kind, x.dtype)
        for place in places(batch):
            out[place], pivots[place], info[place] = function(x[place], lower=1)
    if check:
        fail("linalg.ldl_factor", info, "The factorization could not be completed because D[{info},{info}] is zero; "
             "linalg.ldl_factor_ex gives it nevertheless")
    return np.tril(out), pivots, info


def _ldl_meta(x: TensorMeta, *, hermitian: bool, check: bool) -> MetaResult:
    check_square("linalg.ldl_factor", x)
    return (x, int_meta(x.shape[:-1]), int_meta(x.shape[:-2])), None


ldl_factor = Op("ldl_factor", _ldl_factor, meta=_ldl_meta, inputs="x", rows=batch_rows, outputs="y pivots info")
"""Bunch-Kaufman L D L^T (or L^H) in LAPACK's packed form, its pivots and info; no gradient, as in PyTorch."""


def _ldl_solve(packed: np.ndarray, pivots: np.ndarray, b: np.ndarray, *, hermitian: bool) -> np.ndarray:
    batch = np.broadcast_shapes(packed.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, *b.shape[-2:]), b.dtype)
    if out.size:
        function = lapack("hetrs" if hermitian and b.dtype.kind == "c" else "sytrs", b.dtype)
        packed = np.broadcast_to(packed, (*batch, *packed.shape[-2:]))
        pivots = np.broadcast_to(pivots, (*batch, pivots.shape[-1]))
        b = np.broadcast_to(b, out.shape)
        for place in places(batch):
            out[place] = function(packed[place], pivots[place], b[place], lower=1)[0]
    return out


def _ldl_solve_meta(packed: TensorMeta, pivots: TensorMeta, b: TensorMeta, *, hermitian: bool) -> MetaResult:
    name = "linalg.ldl_solve"
    check_square(name, packed, "LD")
    check_matrix(name, b, "B")
    check_same_dtype(name, packed, b)
    if b.shape[-2] != packed.shape[-2] or pivots.shape != packed.shape[:-1]:
        raise RuntimeError(
            f"{name}: sizes do not fit: LD {packed.shape}, pivots {pivots.shape} (expected {packed.shape[:-1]}), B "
            f"{b.shape}"
        )
    if pivots.dtype.category != 1:
        raise RuntimeError(f"{name}: Expected pivots to be integers. Got {pivots.dtype.name}")
    batch = broadcast_shapes(name, packed.shape[:-2], b.shape[:-2])
    return (TensorMeta.of((*batch, *b.shape[-2:]), b.dtype),), None


def _ldl_solve_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    packed, _, b = ins
    for dim in range(outs[0].ndim - 2):
        first, second = own_dims(dim, outs[0].ndim, [packed.shape, b.shape])
        yield Row((first, first, second), (dim,))
    yield Row((None, None, b.ndim - 1), (outs[0].ndim - 1,))
    yield Row((None, None, "sum"), ("sum",))


ldl_solve = Op("ldl_solve", _ldl_solve, meta=_ldl_solve_meta, inputs="packed pivots b", rows=_ldl_solve_rows)
