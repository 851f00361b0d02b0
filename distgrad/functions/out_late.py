"""Public functions with an `out=` keyword of the families that are imported when first used.

Invariant: as in `out`; only `distgrad.__getattr__` imports this.
"""

from __future__ import annotations

from distgrad.functions import (
    copies,
    hashing,
    linalg_distance,
    linalg_matrix,
    native_normalization,
    selection,
    signal,
    strided,
)
from distgrad.functions import histogram as histogram_functions
from distgrad.functions import quantile as quantile_functions
from distgrad.functions.takes_out import takes_out

# copies
alias_copy = takes_out(copies.alias_copy)
detach_copy = takes_out(copies.detach_copy)
diagonal_copy = takes_out(copies.diagonal_copy)
expand_copy = takes_out(copies.expand_copy)
narrow_copy = takes_out(copies.narrow_copy)
permute_copy = takes_out(copies.permute_copy)
select_copy = takes_out(copies.select_copy)
split_copy = takes_out(copies.split_copy)
split_with_sizes_copy = takes_out(copies.split_with_sizes_copy)
squeeze_copy = takes_out(copies.squeeze_copy)
t_copy = takes_out(copies.t_copy)
transpose_copy = takes_out(copies.transpose_copy)
unbind_copy = takes_out(copies.unbind_copy)
unfold_copy = takes_out(copies.unfold_copy)
unsqueeze_copy = takes_out(copies.unsqueeze_copy)
view_as_complex_copy = takes_out(copies.view_as_complex_copy)
view_as_real_copy = takes_out(copies.view_as_real_copy)
view_copy = takes_out(copies.view_copy)

# hashing
hash_tensor = takes_out(hashing.hash_tensor)

# histogram
histogram = takes_out(histogram_functions.histogram)

# linalg_distance
renorm = takes_out(linalg_distance.renorm)

# linalg_matrix
cholesky = takes_out(linalg_matrix.cholesky)
cholesky_inverse = takes_out(linalg_matrix.cholesky_inverse)
cholesky_solve = takes_out(linalg_matrix.cholesky_solve)
cross = takes_out(linalg_matrix.cross)
frobenius_norm = takes_out(linalg_matrix.frobenius_norm)
geqrf = takes_out(linalg_matrix.geqrf)
inverse = takes_out(linalg_matrix.inverse)
lu_solve = takes_out(linalg_matrix.lu_solve)
lu_unpack = takes_out(linalg_matrix.lu_unpack)
matrix_power = takes_out(linalg_matrix.matrix_power)
nuclear_norm = takes_out(linalg_matrix.nuclear_norm)
orgqr = takes_out(linalg_matrix.orgqr)
ormqr = takes_out(linalg_matrix.ormqr)
qr = takes_out(linalg_matrix.qr)
slogdet = takes_out(linalg_matrix.slogdet)
svd = takes_out(linalg_matrix.svd)
triangular_solve = takes_out(linalg_matrix.triangular_solve)

# native_normalization
native_batch_norm = takes_out(native_normalization.native_batch_norm)

# quantile
nanquantile = takes_out(quantile_functions.nanquantile)
quantile = takes_out(quantile_functions.quantile)

# selection
isin = takes_out(selection.isin)
nonzero_static = takes_out(selection.nonzero_static)

# signal
bartlett_window = takes_out(signal.bartlett_window)
blackman_window = takes_out(signal.blackman_window)
hamming_window = takes_out(signal.hamming_window)
hann_window = takes_out(signal.hann_window)
kaiser_window = takes_out(signal.kaiser_window)

# strided
as_strided_copy = takes_out(strided.as_strided_copy)
empty_permuted = takes_out(strided.empty_permuted)
