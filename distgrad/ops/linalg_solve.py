"""Linear systems, inverses, determinants, pseudo-inverses, least squares and the matrix exponential.

Invariant: the gradient of a solve reuses the forward's factors; where it is differentiated again, it is written with
ops of the matrix itself, so that derivatives of every order are right. A singular matrix raises `LinAlgError` with
`check=True` and otherwise gives infinities and a non-zero info.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.grad_mode import mode
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import linalg_stacked as stacked
from distgrad.ops.contraction import matmul
from distgrad.ops.elementwise import conj, imag, neg, vanish
from distgrad.ops.linalg import flat, lapack, lu_arrays, own_dims, system_rows
from distgrad.ops.linalg_common import (
    batch_rows,
    check_floating,
    check_matrix,
    check_same_dtype,
    check_square,
    conjugated,
    converging,
    fail,
    int_meta,
    mh,
    mt,
    part,
    places,
)
from distgrad.ops.movement import concat, reshape
from distgrad.ops.reduction import sum as sum_of

_SINGULAR = "The solver failed because the input matrix is singular."


def _scalar(x: Any) -> Any:
    """Gives numbers (...) of a batch as (..., 1, 1), to scale its matrices."""
    return reshape(x, shape=(*x.shape, 1, 1))


# Systems ----------------------------------------------------------------------------------------------------


def _lu_solve(packed: np.ndarray, pivots: np.ndarray, b: np.ndarray, *, transpose: bool = False) -> np.ndarray:
    if packed.ndim == b.ndim == 2 and b.size:
        return lapack("getrs", packed.dtype)(packed, pivots - 1, b, trans=int(transpose))[0]
    batch = np.broadcast_shapes(packed.shape[:-2], b.shape[:-2])
    out = np.empty((*batch, *b.shape[-2:]), b.dtype)
    if out.size:
        packed = np.broadcast_to(packed, (*batch, *packed.shape[-2:]))
        pivots = np.broadcast_to(pivots, (*batch, pivots.shape[-1]))
        b = np.broadcast_to(b, out.shape)
        if stacked.many(batch, packed.shape[-1]):
            found = stacked.lu_solve(flat(packed), pivots.reshape(-1, pivots.shape[-1]), flat(b), transpose)
            return found.reshape(out.shape)
        function = lapack("getrs", packed.dtype)
        for place in places(batch):
            out[place] = function(packed[place], pivots[place] - 1, b[place], trans=int(transpose))[0]
    return out


def _solve(a: np.ndarray, b: np.ndarray, *, check: bool) -> tuple[np.ndarray, ...]:
    packed, pivots, info = lu_arrays(a)
    if check:
        fail("torch.linalg.solve", info, _SINGULAR)
    return _lu_solve(packed, pivots, b), packed, pivots, info


def _solve_meta(a: TensorMeta, b: TensorMeta, *, check: bool) -> MetaResult:
    name = "linalg.solve"
    check_square(name, a)
    check_matrix(name, b, "B")
    check_same_dtype(name, a, b)
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(f"{name}: Incompatible shapes of A and B for the equation AX = B: {a.shape} and {b.shape}")
    batch = broadcast_shapes(name, a.shape[:-2], b.shape[:-2])
    out = TensorMeta.of((*batch, *b.shape[-2:]), a.dtype)
    return (out, a, int_meta(a.shape[:-1]), int_meta(a.shape[:-2])), None


def _solve_rule(g: Any, a: Any, y: Any, lu: Any, pivots: Any, needs: tuple[bool, ...]) -> list[Any]:
    """Giles 2008, section 2.3.1. With a graph the system is solved anew, because the factors depend on A too."""
    if mode.enabled:
        g_b = solve(mt(a), g[0], check=False)[0]
    else:
        g_b = lu_backsolve(lu, pivots, g[0], transpose=True)
    return [neg(matmul(g_b, mt(y))) if needs[0] else None, g_b]


solve: Op = Op("solve", _solve, meta=_solve_meta, inputs="a b", rows=system_rows, joint_vjp=_solve_rule,
               outputs="y lu pivots info")
"""X in A X = B, A's packed factors and pivots, and info."""


def _backsolve_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    packed, _, b = ins
    for dim in range(outs[0].ndim - 2):
        first, second = own_dims(dim, outs[0].ndim, [packed.shape, b.shape])
        yield Row((first, first, second), (dim,))
    yield Row((None, None, b.ndim - 1), (outs[0].ndim - 1,))
    yield Row((None, None, "sum"), ("sum",))


def _backsolve_meta(packed: TensorMeta, pivots: TensorMeta, b: TensorMeta, *, transpose: bool) -> MetaResult:
    batch = broadcast_shapes("linalg.lu_solve", packed.shape[:-2], b.shape[:-2])
    return (TensorMeta.of((*batch, *b.shape[-2:]), b.dtype),), None


lu_backsolve: Op = Op("lu_backsolve", _lu_solve, meta=_backsolve_meta, inputs="packed pivots b", rows=_backsolve_rows)
"""X in A X = B (or A^T X = B) from packed factors, for gradients that are not differentiated themselves."""


def _inv(x: np.ndarray, *, check: bool) -> tuple[np.ndarray, np.ndarray]:
    try:
        return np.linalg.inv(x), np.zeros(x.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        packed, pivots, info = lu_arrays(x)
    if check:
        fail("linalg.inv", info, "The diagonal element {info} is zero, the inversion could not be completed because "
             "the input matrix is singular.")
    return _lu_solve(packed, pivots, np.broadcast_to(np.eye(x.shape[-1], dtype=x.dtype), x.shape)), info


def _inv_meta(x: TensorMeta, *, check: bool) -> MetaResult:
    check_square("linalg.inv", x)
    return (x, int_meta(x.shape[:-2])), None


inv: Op = Op(
    "inv", _inv, meta=_inv_meta, inputs="x", rows=batch_rows, outputs="y info",
    vjps=(lambda g, y: neg(matmul(mt(y), matmul(g[0], mt(y)))),),  # Giles 2008, section 2.2.3
)


# Determinants -----------------------------------------------------------------------------------------------


def _without(s: np.ndarray) -> np.ndarray:
    """Gives along the last dim the product of all other elements, right where some are zero."""
    before = np.ones_like(s)
    after = np.ones_like(s)
    np.cumprod(s[..., :-1], -1, out=before[..., 1:])
    after[..., :-1] = np.cumprod(s[..., :0:-1], -1)[..., ::-1]
    return before * after


def _oriented_svd(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    u, s, vh = converging("linalg.det", np.linalg.svd, x)
    return u, s, vh, (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]


def _cofactor(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] < 2 or not x.size:
        return np.ones_like(x)
    try:
        inverse = np.linalg.inv(x)
        condition = np.abs(x).sum(-1).max(-1) * np.abs(inverse).sum(-1).max(-1)
        if np.all(condition < 1 / np.sqrt(np.finfo(x.dtype).eps)):
            return np.linalg.det(x)[..., None, None] * inverse.swapaxes(-2, -1)
    except np.linalg.LinAlgError:
        pass  # singular: the cofactors exist all the same
    u, s, vh, sign = _oriented_svd(x)
    return np.asarray(sign * ((u.conj() * _without(s)[..., None, :]) @ vh.conj()), x.dtype)


def _cofactor_change(k: np.ndarray, x: np.ndarray) -> np.ndarray:
    n = x.shape[-1]
    if n < 2 or not x.size:
        return np.zeros_like(x)
    u, s, vh, sign = _oriented_svd(x)
    others = np.repeat(s[..., None, :], n, -2)
    others[..., np.arange(n), np.arange(n)] = 1
    minors = _without(others)  # [i, j]: the product of all singular values but i and j
    minors[..., np.arange(n), np.arange(n)] = 0
    turned = u.swapaxes(-2, -1).conj() @ k @ vh.swapaxes(-2, -1).conj()
    diagonal = np.einsum("...ij,...jj->...i", minors, turned)
    middle = -minors * turned.swapaxes(-2, -1)
    middle[..., np.arange(n), np.arange(n)] = diagonal
    return np.asarray(sign * (u.conj() @ middle @ vh.conj()), x.dtype)


def _cofactor_change_x(g: Any, k: Any, x: Any) -> Any:
    """The third derivative of the determinant, with W = A^-T (Jacobi's formula applied three times)."""
    w = mt(inv(x, check=False)[0])
    axis = (x.ndim - 2, x.ndim - 1)

    def trace(left: Any, right: Any) -> Any:
        return sum_of(left * right, axis=axis, keepdims=True)

    a, b = trace(g, w), trace(k, w)
    wg, wk = matmul(matmul(w, mt(g)), w), matmul(matmul(w, mt(k)), w)
    crossed = matmul(matmul(wg, mt(k)), w) + matmul(matmul(wk, mt(g)), w)
    return _scalar(det(x)) * (w * (a * b - trace(k, wg)) - wk * a - wg * b + crossed)


def _square_same(x: TensorMeta) -> MetaResult:
    return (x,), None


def _det_meta(x: TensorMeta) -> MetaResult:
    check_square("linalg.det", x)
    return (TensorMeta.of(x.shape[:-2], x.dtype),), None


det: Op = Op(
    "det", lambda x: np.asarray(np.linalg.det(x), x.dtype), meta=_det_meta, inputs="x", rows=batch_rows,
    vjps=(lambda g, x: _scalar(g) * cofactor(x),),
)
cofactor: Op = Op(
    "cofactor", _cofactor, meta=_square_same, inputs="x", rows=batch_rows, vjps=(lambda g, x: cofactor_change(g, x),),
)
"""The gradient of the determinant, det(A) A^-T, also where A is singular (Stewart 1998, "On the adjugate matrix")."""

cofactor_change: Op = Op(
    "cofactor_change", _cofactor_change, meta=lambda k, x: ((x,), None), inputs="k x", rows=batch_rows,
    vjps=(lambda g, x: cofactor_change(g, x), _cofactor_change_x),
)
"""How the cofactors of A change in direction K: the second derivative of the determinant, from products of all singular
values but two, and therefore right for singular matrices too."""


def _slogdet_meta(x: TensorMeta) -> MetaResult:
    check_square("linalg.slogdet", x)
    return (TensorMeta.of(x.shape[:-2], x.dtype), TensorMeta.of(x.shape[:-2], x.dtype.to_real())), None


def _slogdet(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign, log = np.linalg.slogdet(x)
    return np.asarray(sign, x.dtype), np.asarray(log)


def _slogdet_rule(g: Any, sign: Any, x: Any) -> Any:
    """Jacobi's formula; the angle of a complex sign is the imaginary part of the logarithm."""
    g_sign, g_log = conjugated(g)
    if x.dtype.is_complex:
        g_log = g_log - imag(conj(g_sign) * sign) * 1j
    return conjugated(_scalar(g_log) * mh(inv(x, check=False)[0]))


slogdet = Op("slogdet", _slogdet, meta=_slogdet_meta, inputs="x", rows=batch_rows, vjps=(_slogdet_rule,),
             outputs="sign log")


# Pseudo-inverse and least squares ---------------------------------------------------------------------------


def _cutoff(atol: Any, rtol: Any, largest: np.ndarray) -> np.ndarray:
    return np.maximum(np.asarray(atol), np.asarray(rtol) * largest)[..., None]


def _pinv(x: np.ndarray, atol: Any, rtol: Any, *, hermitian: bool) -> np.ndarray:
    if not x.size:
        return np.zeros((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype)
    if hermitian:
        values, v = converging("linalg.pinv", np.linalg.eigh, x)
        sizes = np.abs(values)
        kept = sizes > _cutoff(atol, rtol, sizes.max(-1))
        u, vh = v, v.swapaxes(-2, -1).conj()
    else:
        u, values, vh = converging("linalg.pinv", np.linalg.svd, x, False)
        kept = values > _cutoff(atol, rtol, values[..., 0])
    inverses = np.where(kept, 1 / np.where(kept, values, 1), 0)
    v = vh.swapaxes(-2, -1).conj()
    return np.asarray((v * inverses[..., None, :]) @ u.swapaxes(-2, -1).conj(), x.dtype)


def _pinv_meta(x: TensorMeta, atol: Any, rtol: Any, *, hermitian: bool) -> MetaResult:
    (check_square if hermitian else check_matrix)("linalg.pinv", x)
    return (TensorMeta.of((*x.shape[:-2], x.shape[-1], x.shape[-2]), x.dtype),), None


def pinv_gradient(g: Any, x: Any, y: Any) -> Any:
    """Gives the gradient of Y = A^+ for its own, in inner products (Golub & Pereyra 1973, eq. 4.12)."""
    m, n = x.shape[-2:]
    turned, y_h = mh(g), mh(y)
    if m <= n:
        first = matmul(turned, y)
        main = neg(mh(matmul(y, first)))
        outside = turned - matmul(first, x)
        second = matmul(first, y_h)
        return main + second - matmul(matmul(x, y), second) + matmul(matmul(y_h, y), outside)
    first = matmul(y, turned)
    second = matmul(y_h, first)
    outside = turned - matmul(x, first)
    return matmul(matmul(outside, y), y_h) - mh(matmul(first, y)) + second - matmul(matmul(second, y), x)


pinv: Op = Op(
    "pinv", _pinv, meta=_pinv_meta, inputs="x atol rtol", rows=batch_rows,
    vjps=(lambda g, x, y: conjugated(pinv_gradient(conjugated(g), x, y)), None, None),
)
"""The Moore-Penrose inverse; singular values up to max(atol, rtol * the largest) count as zero."""


def _lstsq(a: np.ndarray, b: np.ndarray, rcond: Any, *, driver: str) -> tuple[np.ndarray, ...]:
    from scipy import linalg

    *batch, m, n = a.shape
    out = np.zeros((*batch, n, b.shape[-1]), b.dtype)
    rank = np.zeros(tuple(batch), np.int64)
    wanted = driver in ("gelsd", "gelss")
    values = np.zeros((*batch, min(m, n)) if wanted else (0,), np.finfo(a.dtype).dtype)
    if not a.size:
        return out, rank, values
    right = b if b.shape[-1] else np.zeros((*b.shape[:-1], 1), b.dtype)  # rank and values exist without columns too
    for place in places(tuple(batch)):
        if driver == "gels":
            rows = np.zeros((max(m, n), right.shape[-1]), b.dtype)
            rows[:m] = right[place]
            _, found, info = lapack("gels", a.dtype)(a[place], rows)
            fail("torch.linalg.lstsq", np.asarray(info), "The least squares solution could not be computed because the "
                 "input matrix does not have full rank (error code: {info}).")
            out[place] = found[:n, : b.shape[-1]]
            continue
        found, _, rank[place], singular = converging(
            "torch.linalg.lstsq", linalg.lstsq, a[place], right[place], cond=rcond, lapack_driver=driver,
            check_finite=False,
        )
        out[place] = found[:, : b.shape[-1]]
        if wanted:
            values[place] = singular
    return out, rank, values


def _lstsq_meta(a: TensorMeta, b: TensorMeta, rcond: Any, *, driver: str) -> MetaResult:
    *batch, m, n = a.shape
    values = (*batch, min(m, n)) if driver in ("gelsd", "gelss") else (0,)
    return (
        TensorMeta.of((*batch, n, b.shape[-1]), a.dtype),
        int_meta(batch, dtypes.int64),
        TensorMeta.of(values, a.dtype.to_real()),
    ), None


def _lstsq_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    values = attrs["driver"] in ("gelsd", "gelss")
    for dim in range(ins[0].ndim - 2):
        yield Row((dim, dim, None), (dim, dim, dim if values else None))
    yield Row((None, ins[1].ndim - 1, None), (outs[0].ndim - 1, None, None))


def _lstsq_rule(g: Any, a: Any, b: Any, rcond: Any, needs: tuple[bool, ...]) -> list[Any]:
    """The solution is A^+ B."""
    inverse = pinv(a, 0.0, float(rcond), hermitian=False)
    g_y = conjugated(g[0])
    g_a = pinv_gradient(matmul(g_y, mh(b)), a, inverse) if needs[0] else None
    return [*conjugated([g_a, matmul(mh(inverse), g_y)]), None]


lstsq = Op("lstsq", _lstsq, meta=_lstsq_meta, inputs="a b rcond", rows=_lstsq_rows, joint_vjp=_lstsq_rule,
           outputs="y rank values")
"""X that minimises |A X - B| (of equal batch dims), A's rank, and its singular values where the driver finds them."""


# Exponential ------------------------------------------------------------------------------------------------


def _matrix_exp(x: np.ndarray) -> np.ndarray:
    from scipy.linalg import expm

    return np.asarray(expm(x), x.dtype) if x.size else np.zeros_like(x)


def _matrix_exp_meta(x: TensorMeta) -> MetaResult:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise RuntimeError(f"linalg.matrix_exp: A must be batches of square matrices, got shape {list(x.shape)}")
    check_floating("linalg.matrix_exp", x.dtype)
    return (x,), None


def _matrix_exp_rule(g: Any, x: Any) -> Any:
    """The derivative in direction G is a corner of exp([[A, G], [0, A]]) (Mathias 1996; Al-Mohy & Higham 2009)."""
    n, turned = x.shape[-1], mt(x)
    upper = concat(turned, g, axis=x.ndim - 1)
    lower = concat(vanish(turned), turned, axis=x.ndim - 1)
    whole = matrix_exp(concat(upper, lower, axis=x.ndim - 2))
    return part(part(whole, -2, 0, n), -1, n, n)


matrix_exp: Op = Op("matrix_exp", _matrix_exp, meta=_matrix_exp_meta, inputs="x", rows=batch_rows,
                    vjps=(_matrix_exp_rule,))
