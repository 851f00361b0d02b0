"""Special functions: error functions, Bessel functions, incomplete gamma functions, orthogonal polynomials, frexp.

Invariant: every op is elementwise with kernels from scipy.special, imported when one first runs; a rule exists exactly
where PyTorch defines a derivative. Definitions: the PyTorch page "torch.special".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import binary as _binary
from distgrad.families import elementwise_rows, is_number, shape_of, unary
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op
from distgrad.ops.elementwise import (
    cast,
    eq,
    exp,
    keep_array,
    lgamma,
    log,
    neg,
    pow,
    sgn,
    takes,
    vanish,
    where,
    widened,
)

_ROOT_TWO, _ROOT_PI, _ROOT_TWO_PI = math.sqrt(2), math.sqrt(math.pi), math.sqrt(2 * math.pi)
_REAL = (0, 1, 2)


def scipy_function(name: str) -> Callable[..., Any]:
    """Gives a kernel that is scipy's special function of that name, imported when it first runs."""

    def kernel(*arrays: Any) -> Any:
        from scipy import special

        return np.asarray(getattr(special, name)(*arrays)).astype(arrays[0].dtype, copy=False)

    return widened(kernel)


def one(name: str, kernel: str | Callable[..., Any], vjp: Callable[..., Any] | None = None) -> Op:
    """Makes an op of one real input; `kernel` is a function or the name of scipy's."""
    run = scipy_function(kernel) if isinstance(kernel, str) else widened(kernel)
    return unary(name, run, vjp, check=takes(name, *_REAL))


def two(name: str, kernel: str | Callable[..., Any], vjps: tuple[Callable[..., Any] | None, ...] = (), *,
        numbers: int = 1) -> Op:
    """Makes a broadcasting op of two real inputs `a` and `b`; `kernel` is a function or the name of scipy's.

    TypeError when more than `numbers` of the inputs are Python numbers rather than tensors.
    """
    run = scipy_function(kernel) if isinstance(kernel, str) else widened(kernel)
    op = _binary(name, run, vjps, result="float", check=takes(name, *_REAL))
    inner = op.meta

    def meta(*ins: Any) -> MetaResult:
        if sum(map(is_number, ins)) > numbers:
            given = ", ".join(i.__name__ if is_number(i) else "Tensor" for i in ins)
            raise TypeError(f"{name}(): at least {2 - numbers} of its arguments must be a Tensor, got ({given})")
        return inner(*ins)

    op.meta = meta
    return op


def _missing(op: str, argument: str) -> Callable[..., Any]:
    """Gives the rule of an input by which PyTorch does not differentiate; it raises NotImplementedError."""

    def rule(g: Any) -> Any:
        raise NotImplementedError(
            f"{op}: the derivative by {argument!r} is not implemented, as in PyTorch; detach() that argument"
        )

    return rule


# Error functions and the normal distribution ----------------------------------------------------------------

erfcx: Op = one("erfcx", "erfcx", lambda g, y, x: g * (x * y * 2.0 - 2 / _ROOT_PI))
ndtr = one("ndtr", "ndtr", lambda g, x: g * (exp(x * x * -0.5) * (1 / _ROOT_TWO_PI)))
ndtri = one("ndtri", "ndtri", lambda g, y: g * (exp(y * y * 0.5) * _ROOT_TWO_PI))
# The density over the distribution is 1 / erfcx up to a factor, which neither overflows nor vanishes in the tails.
log_ndtr = one("log_ndtr", "log_ndtr", lambda g, x: g / erfcx(x * (-1 / _ROOT_TWO)) * math.sqrt(2 / math.pi))
entr = one("entr", "entr", lambda g, x: neg(g * (log(x) + 1.0)))
_xlog1py_slope = two("xlog1py_slope", lambda a, b: keep_array((a != 0) | ~(b <= -1), np.log1p(b)),
                     (lambda g: vanish(g), lambda g, b: g / (b + 1.0)))
xlog1py = two("xlog1py", "xlog1py", (lambda g, a, b: g * _xlog1py_slope(a, b), lambda g, a, b: g * (a / (b + 1.0))))


# Bessel functions -------------------------------------------------------------------------------------------


def _over(y: Any, x: Any) -> Any:
    """Gives y / x, and the limit one half of i1(x) / x at 0."""
    zero = eq(x, 0)
    return where(zero, 0.5, y / where(zero, 1.0, x))


# The modified functions of the first kind of order 0 and 1: i0' = i1 and i1' = i0 - i1 / x; "e": times exp(-|x|).
i0: Op = one("i0", "i0", lambda g, x: g * i1(x))
i1: Op = one("i1", "i1", lambda g, y, x: g * (i0(x) - _over(y, x)))
i0e: Op = one("i0e", "i0e", lambda g, y, x: g * (i1e(x) - sgn(x) * y))
i1e: Op = one("i1e", "i1e", lambda g, y, x: g * (i0e(x) - sgn(x) * y - _over(y, x)))
bessel_j0 = one("bessel_j0", "j0")
bessel_j1 = one("bessel_j1", "j1")
bessel_y0 = one("bessel_y0", "y0")
bessel_y1 = one("bessel_y1", "y1")
modified_bessel_i0 = one("modified_bessel_i0", "i0")
modified_bessel_i1 = one("modified_bessel_i1", "i1")
modified_bessel_k0 = one("modified_bessel_k0", "k0")
modified_bessel_k1 = one("modified_bessel_k1", "k1")
scaled_modified_bessel_k0 = one("scaled_modified_bessel_k0", "k0e")
scaled_modified_bessel_k1 = one("scaled_modified_bessel_k1", "k1e")


def _airy_ai(x: Any) -> Any:
    from scipy import special

    values = special.airy(x)[0].astype(x.dtype, copy=False)
    return np.where(np.isinf(x), np.asarray(np.nan, x.dtype), values)  # as PyTorch, also at plus infinity


def _spherical_bessel_j0(x: Any) -> Any:
    from scipy import special

    return np.asarray(special.spherical_jn(0, x.astype(np.float64))).astype(x.dtype)


airy_ai = one("airy_ai", _airy_ai)
spherical_bessel_j0 = one("spherical_bessel_j0", _spherical_bessel_j0)


# Gamma and zeta functions -----------------------------------------------------------------------------------


def _gamma_density(a: Any, b: Any) -> Any:
    """The derivative of the lower incomplete gamma function by its limit b: exp(-b) b ** (a - 1) / gamma(a)."""
    return exp((a - 1.0) * log(b) - b - lgamma(a))


zeta: Op = two("zeta", "zeta", (_missing("special.zeta", "input"), lambda g, a, b: neg(g * (a * zeta(a + 1.0, b)))))
igamma = two("igamma", "gammainc", (_missing("igamma", "input"), lambda g, a, b: g * _gamma_density(a, b)), numbers=0)
igammac = two("igammac", "gammaincc", (_missing("igammac", "input"), lambda g, a, b: neg(g * _gamma_density(a, b))),
              numbers=0)


# Orthogonal polynomials -------------------------------------------------------------------------------------

Step = Callable[[Any, Any, Any, int], Any]


def polynomial(name: str, first: Callable[[Any], Any], step: Step, *, shifted: bool = False,
               highest: dict[str, int] | None = None) -> Op:
    """Makes an op of x and the degree n (rounded towards 0) from a three-term recurrence.

    The polynomial of degree 0 is 1, of degree 1 `first(x)`, of degree k + 1 `step(x, p[k], p[k - 1], k)`; negative
    degrees give 0. `shifted`: of 2 x - 1. `highest`: per dtype, the degree above which PyTorch gives NaN.
    """

    def kernel(x: Any, n: Any) -> Any:
        kind = x.dtype
        x, n = np.broadcast_arrays(x.astype(np.float64), n)
        degree = np.trunc(np.where(np.isfinite(n), n, -1)).astype(np.int64)
        if shifted:
            x = 2 * x - 1
        previous, value = np.ones_like(x), first(x)
        result = np.where(degree == 0, previous, np.where(degree == 1, value, 0.0))
        limit = int(degree.max(initial=0))
        if highest is not None:
            limit = min(limit, highest[kind.name])
            result = np.where(degree > limit, np.nan, result)
        for k in range(1, limit):
            previous, value = value, step(x, value, previous, k)
            result = np.where(degree == k + 1, value, result)
        return result.astype(kind)

    return two(name, kernel)


def _chebyshev(x: Any, p: Any, before: Any, k: int) -> Any:
    return 2 * x * p - before


def _hermite(x: Any, p: Any, before: Any, k: int) -> Any:
    return 2 * (x * p - k * before)


chebyshev_polynomial_t = polynomial("chebyshev_polynomial_t", lambda x: x, _chebyshev)
chebyshev_polynomial_u = polynomial("chebyshev_polynomial_u", lambda x: 2 * x, _chebyshev)
chebyshev_polynomial_v = polynomial("chebyshev_polynomial_v", lambda x: 2 * x - 1, _chebyshev)
chebyshev_polynomial_w = polynomial("chebyshev_polynomial_w", lambda x: 2 * x + 1, _chebyshev)
shifted_chebyshev_polynomial_t = polynomial("shifted_chebyshev_polynomial_t", lambda x: x, _chebyshev, shifted=True)
shifted_chebyshev_polynomial_u = polynomial("shifted_chebyshev_polynomial_u", lambda x: 2 * x, _chebyshev, shifted=True)
shifted_chebyshev_polynomial_v = polynomial("shifted_chebyshev_polynomial_v", lambda x: 2 * x - 1, _chebyshev,
                                            shifted=True)
shifted_chebyshev_polynomial_w = polynomial("shifted_chebyshev_polynomial_w", lambda x: 2 * x + 1, _chebyshev,
                                            shifted=True)
hermite_polynomial_h = polynomial("hermite_polynomial_h", lambda x: 2 * x, _hermite,
                                  highest={"float32": 128, "float64": 512})
hermite_polynomial_he = polynomial("hermite_polynomial_he", lambda x: x, lambda x, p, before, k: x * p - k * before,
                                   highest={"float32": 128, "float64": 512})
laguerre_polynomial_l = polynomial(
    "laguerre_polynomial_l", lambda x: 1 - x,
    lambda x, p, before, k: ((2 * k + 1 - x) * p - k * before) / (k + 1))
legendre_polynomial_p = polynomial(
    "legendre_polynomial_p", lambda x: x,
    lambda x, p, before, k: ((2 * k + 1) * x * p - k * before) / (k + 1))


# Mantissa and exponent --------------------------------------------------------------------------------------


def _frexp(x: Any) -> tuple[Any, Any]:
    wide = x.astype(np.float32) if x.dtype.kind == "V" else x
    mantissa, exponent = np.frexp(wide)
    finite = np.isfinite(wide)  # C leaves the exponent of the others open; PyTorch shows 0
    return np.asarray(mantissa).astype(x.dtype, copy=False), np.where(finite, exponent, 0).astype(np.int32)


def _frexp_meta(x: Any) -> MetaResult:
    if isinstance(x, type) or x.dtype.category != 2:
        raise RuntimeError("torch.frexp() only supports floating-point dtypes; convert the input with .to(dtype)")
    return (x, TensorMeta.of(shape_of(x), dtypes.int32)), None


frexp = Op(
    "frexp", _frexp, meta=_frexp_meta, inputs="x", outputs="mantissa exponent", rows=elementwise_rows(()),
    vjps=(lambda g, exponent, x_dtype: g[0] * pow(2.0, neg(cast(exponent, dtype=x_dtype))),),
)
"""x as mantissa * 2 ** exponent, with the mantissa's size in [0.5, 1)."""
