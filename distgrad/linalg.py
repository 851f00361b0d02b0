"""The namespace `distgrad.linalg`: linear algebra on matrices in the last two dims, batched over all others.

Invariant: names, signatures and results are those of PyTorch's `torch.linalg`; a batch sharded over workers is worked
on where it lies.
"""

from __future__ import annotations

from distgrad.functions import contraction
from distgrad.functions import linalg_factorizations as factorizations
from distgrad.functions import linalg_norms as norms
from distgrad.functions import linalg_solvers as solvers
from distgrad.functions.linalg_norms import diagonal, vander
from distgrad.functions.linalg_solvers import matrix_exp
from distgrad.functions.takes_out import takes_out
from distgrad.ops.linalg_common import LinAlgError

cholesky = takes_out(factorizations.cholesky)
cholesky_ex = takes_out(factorizations.cholesky_ex)
cond = takes_out(norms.cond)
cross = takes_out(norms.cross)
det = takes_out(solvers.det)
eig = takes_out(factorizations.eig)
eigh = takes_out(factorizations.eigh)
eigvals = takes_out(factorizations.eigvals)
eigvalsh = takes_out(factorizations.eigvalsh)
householder_product = takes_out(factorizations.householder_product)
inv = takes_out(solvers.inv)
inv_ex = takes_out(solvers.inv_ex)
ldl_factor = takes_out(factorizations.ldl_factor)
ldl_factor_ex = takes_out(factorizations.ldl_factor_ex)
ldl_solve = takes_out(factorizations.ldl_solve)
lstsq = takes_out(solvers.lstsq)
lu = takes_out(factorizations.lu)
lu_factor = takes_out(factorizations.lu_factor)
lu_factor_ex = takes_out(factorizations.lu_factor_ex)
lu_solve = takes_out(factorizations.lu_solve)
matmul = takes_out(contraction.matmul)
matrix_norm = takes_out(norms.matrix_norm)
matrix_power = takes_out(solvers.matrix_power)
matrix_rank = takes_out(norms.matrix_rank)
multi_dot = takes_out(contraction.multi_dot)
norm = takes_out(norms.norm)
pinv = takes_out(solvers.pinv)
qr = takes_out(factorizations.qr)
slogdet = takes_out(solvers.slogdet)
solve = takes_out(solvers.solve)
solve_ex = takes_out(solvers.solve_ex)
solve_triangular = takes_out(factorizations.solve_triangular)
svd = takes_out(factorizations.svd)
svdvals = takes_out(factorizations.svdvals)
tensorinv = takes_out(solvers.tensorinv)
tensorsolve = takes_out(solvers.tensorsolve)
vecdot = takes_out(norms.vecdot)
vector_norm = takes_out(norms.vector_norm)

__all__ = [
    "LinAlgError", "cholesky", "cholesky_ex", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh",
    "householder_product", "inv", "inv_ex", "ldl_factor", "ldl_factor_ex", "ldl_solve", "lstsq", "lu", "lu_factor",
    "lu_factor_ex", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power", "matrix_rank", "multi_dot",
    "norm", "pinv", "qr", "slogdet", "solve", "solve_ex", "solve_triangular", "svd", "svdvals", "tensorinv",
    "tensorsolve", "vander", "vecdot", "vector_norm",
]
