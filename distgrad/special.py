"""Special functions, under torch.special's names.

Invariant: a name here means what the same name in torch.special means.
"""

from __future__ import annotations

from distgrad.functions.activation import log_softmax, softmax
from distgrad.functions.out import (
    digamma,
    erf,
    erfc,
    erfinv,
    exp2,
    expm1,
    log1p,
    logit,
    logsumexp,
    polygamma,
    round,
    sinc,
    xlogy,
)
from distgrad.functions.out import lgamma as gammaln
from distgrad.functions.out import sigmoid as expit
from distgrad.functions.special import mvlgamma as multigammaln
from distgrad.functions.takes_out import takes_out
from distgrad.ops import special as ops

airy_ai = takes_out(ops.airy_ai)
bessel_j0 = takes_out(ops.bessel_j0)
bessel_j1 = takes_out(ops.bessel_j1)
bessel_y0 = takes_out(ops.bessel_y0)
bessel_y1 = takes_out(ops.bessel_y1)
chebyshev_polynomial_t = takes_out(ops.chebyshev_polynomial_t)
chebyshev_polynomial_u = takes_out(ops.chebyshev_polynomial_u)
chebyshev_polynomial_v = takes_out(ops.chebyshev_polynomial_v)
chebyshev_polynomial_w = takes_out(ops.chebyshev_polynomial_w)
entr = takes_out(ops.entr)
erfcx = takes_out(ops.erfcx)
gammainc = takes_out(ops.igamma)
gammaincc = takes_out(ops.igammac)
hermite_polynomial_h = takes_out(ops.hermite_polynomial_h)
hermite_polynomial_he = takes_out(ops.hermite_polynomial_he)
i0 = takes_out(ops.i0)
i0e = takes_out(ops.i0e)
i1 = takes_out(ops.i1)
i1e = takes_out(ops.i1e)
laguerre_polynomial_l = takes_out(ops.laguerre_polynomial_l)
legendre_polynomial_p = takes_out(ops.legendre_polynomial_p)
log_ndtr = takes_out(ops.log_ndtr)
modified_bessel_i0 = takes_out(ops.modified_bessel_i0)
modified_bessel_i1 = takes_out(ops.modified_bessel_i1)
modified_bessel_k0 = takes_out(ops.modified_bessel_k0)
modified_bessel_k1 = takes_out(ops.modified_bessel_k1)
ndtr = takes_out(ops.ndtr)
ndtri = takes_out(ops.ndtri)
psi = digamma
scaled_modified_bessel_k0 = takes_out(ops.scaled_modified_bessel_k0)
scaled_modified_bessel_k1 = takes_out(ops.scaled_modified_bessel_k1)
shifted_chebyshev_polynomial_t = takes_out(ops.shifted_chebyshev_polynomial_t)
shifted_chebyshev_polynomial_u = takes_out(ops.shifted_chebyshev_polynomial_u)
shifted_chebyshev_polynomial_v = takes_out(ops.shifted_chebyshev_polynomial_v)
shifted_chebyshev_polynomial_w = takes_out(ops.shifted_chebyshev_polynomial_w)
spherical_bessel_j0 = takes_out(ops.spherical_bessel_j0)
xlog1py = takes_out(ops.xlog1py)
zeta = takes_out(ops.zeta)

__all__ = [
    "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "chebyshev_polynomial_t", "chebyshev_polynomial_u",
    "chebyshev_polynomial_v", "chebyshev_polynomial_w", "digamma", "entr", "erf", "erfc", "erfcx", "erfinv", "exp2",
    "expit", "expm1", "gammainc", "gammaincc", "gammaln", "hermite_polynomial_h", "hermite_polynomial_he", "i0", "i0e",
    "i1", "i1e", "laguerre_polynomial_l", "legendre_polynomial_p", "log1p", "log_ndtr", "log_softmax", "logit",
    "logsumexp", "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1",
    "multigammaln", "ndtr", "ndtri", "polygamma", "psi", "round", "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1", "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u",
    "shifted_chebyshev_polynomial_v", "shifted_chebyshev_polynomial_w", "sinc", "softmax", "spherical_bessel_j0",
    "xlog1py", "xlogy", "zeta",
]  # fmt: skip
