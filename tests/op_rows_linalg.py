"""Rows of the linear algebra functions. Results whose vectors have a free sign are compared through products."""

from __future__ import annotations

from typing import Any

from op_db import integers, normal, positive, row, uniform


def spd(T: Any, x: Any) -> Any:
    """Makes a symmetric positive-definite matrix of any square one."""
    return x @ x.mT + 2 * T.eye(x.shape[-1], dtype=x.dtype)


def apart(T: Any, x: Any) -> Any:
    """Makes a matrix with well separated singular values, far from singular."""
    size = min(x.shape[-2:])
    grown = T.diag(T.arange(1, size + 1).to(x.dtype) * 3)
    rows, columns = x.shape[-2] - size, x.shape[-1] - size
    return x + T.nn.functional.pad(grown, (0, columns, 0, rows))


def symmetric(x: Any) -> Any:
    return x + x.mT


def eigh_parts(T: Any, x: Any) -> Any:
    """Gives what does not depend on the eigenvectors' signs."""
    values, vectors = T.linalg.eigh(symmetric(apart(T, x)))
    return values, vectors * vectors


def svd_parts(T: Any, x: Any, full: bool = False) -> Any:
    u, s, vh = T.linalg.svd(apart(T, x), full_matrices=full)
    k = s.shape[-1]
    return s, u[..., :k] * u[..., :k], u[..., :k] @ vh[..., :k, :]


BATCH, SQUARE = normal(6, 3, 3), normal(4, 4)
ROWS = [
    row("linalg.cholesky", lambda T, x: T.linalg.cholesky(spd(T, x)), [SQUARE], [BATCH], [normal(0, 0)]),
    row("linalg.cholesky_upper", lambda T, x: T.linalg.cholesky(spd(T, x), upper=True), [BATCH]),
    row("linalg.cholesky_ex", lambda T, x: T.linalg.cholesky_ex(spd(T, x)), [BATCH]),
    row("cholesky_inverse", lambda T, x: T.cholesky_inverse(apart(T, x).tril()), [BATCH]),
    row("cholesky_solve", lambda T, b, x: T.cholesky_solve(b, apart(T, x).tril()), [normal(6, 3, 2), BATCH]),
    row("linalg.lu", lambda T, x: T.linalg.lu(x), [BATCH], [normal(4, 2)], [normal(2, 4)], float32=False),
    row("linalg.lu_factor", lambda T, x: T.linalg.lu_factor(x), [BATCH], [normal(3, 4, 2)]),
    row("lu_unpack", lambda T, x: T.lu_unpack(*T.linalg.lu_factor(x)), [BATCH]),
    row("linalg.lu_solve", lambda T, x, b: T.linalg.lu_solve(*T.linalg.lu_factor(apart(T, x)), b),
        [BATCH, normal(6, 3, 2)], [normal(3, 3), normal(4, 3, 2)]),
    row("linalg.lu_solve_adjoint", lambda T, x, b: T.linalg.lu_solve(*T.linalg.lu_factor(apart(T, x)), b, adjoint=True,
        left=False), [BATCH, normal(6, 2, 3)]),
    row("linalg.qr", lambda T, x: T.linalg.qr(apart(T, x)), [BATCH], [normal(5, 3)], [normal(3, 5)], [normal(4, 0)]),
    row("linalg.qr_triangle", lambda T, x: T.linalg.qr(x, "r"), [normal(5, 3)], grad=False),
    row("linalg.qr_complete", lambda T, x: T.linalg.qr(x, mode="complete"), [normal(5, 3)], grad=False),
    row("geqrf", lambda T, x: T.geqrf(x), [normal(5, 3)], [normal(6, 3, 4)], grad=False),
    row("linalg.householder_product", lambda T, a, t: T.linalg.householder_product(a, t),
        [normal(5, 3), normal(2)], [normal(6, 4, 3), normal(6, 3)]),
    row("ormqr", lambda T, a, t, c: T.ormqr(a, t, c, transpose=True), [normal(5, 3), normal(3), normal(5, 2)],
        [normal(6, 4, 3), normal(6, 3), normal(6, 4, 2)]),
    row("ormqr_right", lambda T, a, t, c: T.ormqr(a, t, c, left=False), [normal(5, 3), normal(3), normal(2, 5)]),
    row("linalg.ldl_factor", lambda T, x: T.linalg.ldl_factor(symmetric(x)), [BATCH], grad=False),
    row("linalg.ldl_solve", lambda T, x, b: T.linalg.ldl_solve(*T.linalg.ldl_factor(apart(T, symmetric(x))), b),
        [BATCH, normal(6, 3, 2)], grad=False),
    row("linalg.eigh", eigh_parts, [BATCH], [SQUARE], float32=False),
    row("linalg.eigvalsh", lambda T, x: T.linalg.eigvalsh(apart(T, x), UPLO="U"), [BATCH], float32=False),
    row("linalg.eigvals", lambda T, x: T.linalg.eigvals(apart(T, x)).real.sort()[0], [BATCH], float32=False),
    row("linalg.eig", lambda T, x: (T.linalg.eig(apart(T, x))[1].abs() ** 2).sum(-2), [BATCH], float32=False),
    row("linalg.svd", svd_parts, [BATCH], [normal(5, 3)], [normal(3, 5)], float32=False),
    row("linalg.svd_full", lambda T, x: svd_parts(T, x, True), [normal(5, 3)], [normal(6, 2, 4)], float32=False),
    row("linalg.svdvals", lambda T, x: T.linalg.svdvals(apart(T, x)), [normal(6, 3, 2)], float32=False),
    row("linalg.solve", lambda T, x, b: T.linalg.solve(apart(T, x), b), [BATCH, normal(6, 3, 2)], [SQUARE, normal(4)],
        [normal(3, 3), normal(6, 3, 2)], [BATCH, normal(3, 4)], float32=False),
    row("linalg.solve_right", lambda T, x, b: T.linalg.solve(apart(T, x), b, left=False), [BATCH, normal(2, 3)]),
    row("linalg.solve_ex", lambda T, x, b: T.linalg.solve_ex(apart(T, x), b), [BATCH, normal(6, 3, 2)]),
    row("linalg.solve_triangular", lambda T, x, b: T.linalg.solve_triangular(apart(T, x), b, upper=False),
        [BATCH, normal(6, 3, 2)], [normal(3, 3), normal(4, 3, 2)], [normal(4, 3, 3), normal(3, 2)]),
    row("linalg.solve_triangular_right",
        lambda T, x, b: T.linalg.solve_triangular(x, b, upper=True, left=False, unitriangular=True),
        [normal(3, 3), normal(5, 3)]),
    row("triangular_solve", lambda T, b, x: T.triangular_solve(b, apart(T, x), transpose=True)[0],
        [normal(6, 3, 2), BATCH]),
    row("linalg.inv", lambda T, x: T.linalg.inv(apart(T, x)), [BATCH], [SQUARE], [normal(0, 0)]),
    row("linalg.inv_ex", lambda T, x: T.linalg.inv_ex(apart(T, x)), [BATCH]),
    row("linalg.det", lambda T, x: T.linalg.det(x), [BATCH], [SQUARE], [normal(3, 1, 1)], float32=False),
    row("linalg.slogdet", lambda T, x: T.linalg.slogdet(apart(T, x)), [BATCH], float32=False),
    row("logdet", lambda T, x: T.logdet(spd(T, x)), [BATCH], float32=False),
    row("linalg.pinv", lambda T, x: T.linalg.pinv(apart(T, x)), [normal(6, 3, 2)], [normal(2, 4)], float32=False),
    row("linalg.pinv_hermitian", lambda T, x: T.linalg.pinv(symmetric(apart(T, x)), hermitian=True), [BATCH]),
    row("linalg.pinv_low_rank", lambda T, a, b: T.linalg.pinv(a @ b, rtol=1e-9), [normal(5, 2), normal(2, 4)],
        float32=False),
    row("linalg.lstsq", lambda T, a, b: T.linalg.lstsq(a, b)[0], [normal(6, 5, 3), normal(6, 5, 2)], float32=False),
    row("linalg.lstsq_residuals", lambda T, a, b: T.linalg.lstsq(a, b, driver="gelsd"),
        [normal(6, 5, 3), normal(6, 5, 2)], float32=False),
    row("linalg.matrix_exp", lambda T, x: T.linalg.matrix_exp(x), [BATCH], float32=False),
    row("linalg.matrix_power", lambda T, x: T.linalg.matrix_power(x, 5), [BATCH], float32=False),
    row("linalg.matrix_power_zero", lambda T, x: T.linalg.matrix_power(x, 0), [BATCH]),
    row("linalg.matrix_power_negative", lambda T, x: T.linalg.matrix_power(apart(T, x), -2), [BATCH]),
    row("linalg.tensorinv", lambda T, x: T.linalg.tensorinv(apart(T, x).reshape(2, 3, 6)), [normal(6, 6)],
        float32=False),
    row("linalg.tensorsolve", lambda T, x, b: T.linalg.tensorsolve(apart(T, x).reshape(2, 3, 6), b),
        [normal(6, 6), normal(2, 3)], float32=False),
    row("linalg.multi_dot", lambda T, *xs: T.linalg.multi_dot(xs), [normal(4, 3), normal(3, 5), normal(5)]),
]

ORDERS = ["fro", "nuc", float("inf"), -float("inf"), 1, -1, 2, -2]
ROWS += [
    row("linalg.matrix_norm", lambda T, x, ord, **k: T.linalg.matrix_norm(x, ord, **k),
        *([normal(6, 3, 2), ord] for ord in ORDERS), float32=False),
    row("linalg.matrix_norm_dims", lambda T, x, ord: T.linalg.matrix_norm(x, ord, dim=(0, 2), keepdim=True),
        [normal(3, 6, 2), "nuc"], [normal(3, 6, 2), 1], [normal(3, 6, 2), -float("inf")], float32=False),
    row("linalg.norm", lambda T, x, *a: T.linalg.norm(x, *a), [normal(4, 3)], [normal(4, 3), 2], [normal(4, 3), 1, 0],
        [normal(5), 3], [normal(4, 3, 2), "fro", (0, 1)], float32=False),
    row("linalg.cond", lambda T, x, p: T.linalg.cond(apart(T, x), p),
        *([BATCH, p] for p in (None, -2, "nuc")), float32=False),
    row("linalg.matrix_rank", lambda T, a, b: T.linalg.matrix_rank(a @ b), [normal(6, 3, 2), normal(6, 2, 3)],
        grad=False),
    row("linalg.vecdot", lambda T, x, y: T.linalg.vecdot(x, y, dim=0), [normal(4, 3), normal(4, 3)]),
    row("linalg.cross", lambda T, x, y: T.linalg.cross(x, y), [normal(6, 3), normal(6, 3)],
        [normal(6, 3), normal(1, 3)]),
    row("cross", lambda T, x, y: T.cross(x, y, dim=0), [normal(3, 4), normal(3, 4)]),
    row("linalg.diagonal", lambda T, x: T.linalg.diagonal(x, offset=1), [normal(6, 3, 4)]),
    row("linalg.vander", lambda T, x: T.linalg.vander(x, N=4), [normal(6, 3)], [integers(-3, 4, 5)]),
    row("nuclear_norm", lambda T, x: T.norm(x, "nuc"), [normal(4, 3)], float32=False),
    row("renorm", lambda T, x: T.renorm(x, 2, 0, 1.5), [normal(6, 3)], [normal(4, 3, 2)]),
    row("dist", lambda T, x, y, p: T.dist(x, y, p), *([normal(4, 3), normal(3), p] for p in (2, 1, 3.5, float("inf"))),
        gradgrad=False),
    row("cov", lambda T, x: T.cov(x, correction=0), [normal(3, 6)], [normal(6)]),
    row("cov_weights", lambda T, x, f, a: T.cov(x, fweights=f, aweights=a),
        [normal(3, 6), integers(1, 4, 6), positive(6)], float32=False),
    row("corrcoef", lambda T, x: T.corrcoef(x), [normal(3, 6)], float32=False),
    row("cdist", lambda T, x, y, p: T.cdist(x, y, p),
        *([normal(5, 3), normal(4, 3), p] for p in (2.0, 1.0, 1.5, float("inf"))),
        [normal(2, 5, 3), normal(4, 3), 2.0], [normal(27, 3), normal(4, 3), 2.0], gradgrad=False, float32=False),
    row("nn.functional.pdist", lambda T, x, p: T.nn.functional.pdist(x, p), [normal(5, 3), 2.0], [normal(5, 3), 1.0],
        gradgrad=False),
    row("pinverse", lambda T, x: T.pinverse(apart(T, x)), [normal(4, 3)]),
    row("svd", lambda T, x: T.svd(apart(T, x))[1], [normal(4, 3)]),
    row("vander", lambda T, x: T.vander(x, 3), [uniform(-1, 1, 5)], grad=False),  # torch's own gradient fails
]
