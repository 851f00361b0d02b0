"""The namespace `distgrad.linalg`: linear algebra on matrices in the last two dims, batched over all others.

Invariant: names, signatures and results are those of PyTorch's `torch.linalg`; a batch sharded over workers is worked
on where it lies.
"""

from __future__ import annotations

from distgrad.functions.contraction import matmul, multi_dot
from distgrad.functions.linalg_factorizations import (
    cholesky,
    cholesky_ex,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    householder_product,
    ldl_factor,
    ldl_factor_ex,
    ldl_solve,
    lu,
    lu_factor,
    lu_factor_ex,
    lu_solve,
    qr,
    solve_triangular,
    svd,
    svdvals,
)
from distgrad.functions.linalg_norms import (
    cond,
    cross,
    diagonal,
    matrix_norm,
    matrix_rank,
    norm,
    vander,
    vecdot,
    vector_norm,
)
from distgrad.functions.linalg_solvers import (
    det,
    inv,
    inv_ex,
    lstsq,
    matrix_exp,
    matrix_power,
    pinv,
    slogdet,
    solve,
    solve_ex,
    tensorinv,
    tensorsolve,
)
from distgrad.ops.linalg_common import LinAlgError

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh",
    "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lstsq", "lu", "lu_factor",
    "lu_factor_ex", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot",
    "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd", "svdvals", "tensorinv",
    "tensorsolve", "vander", "vecdot", "vector_norm",
]
