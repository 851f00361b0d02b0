"""Elementwise ops: arithmetic, powers, transcendental functions, rounding, comparison, logic, bits, selection, casts.

Invariant: a kernel sees inputs already in the compute dtype (numbers as numpy scalars of it) and gives exactly the
result's dtype; rules are plain derivatives without conjugation (autodiff conjugates the cotangents of complex tensors).
Definitions: the PyTorch pages "torch, Math operations" unless an op says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.dtypes import dtype
from distgrad.families import binary, elementwise, elementwise_rows, unary
from distgrad.grad_mode import mode
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Rule
from distgrad.ops.selecting import keep_array as keep_array
from distgrad.ops.selecting import select_array as select_array
from distgrad.ops.slopes import (
    clamp_slope,
    cos_slope,
    minus,
    quotient_slope,
    reciprocal_slope,
    sigmoid_slope,
    sin_slope,
    slope_fits,
    sqrt_slope,
    square_slope,
    tanh_slope,
    twice_slope,
)

_KINDS = ("bool", "integer", "floating-point", "complex")
_LARGE = 10_000
_SMALL = 4096  # below this many elements comparing costs less than converting


# What kernels share -----------------------------------------------------------------------------------------


def takes(name: str, *categories: int) -> Callable[[dtype, dict[str, Any]], None]:
    """Gives the check that a promoted dtype has one of the categories; NotImplementedError says which are allowed."""

    def check(kind: dtype, attrs: dict[str, Any]) -> None:
        if kind.category not in categories:
            raise NotImplementedError(
                f"{name}: not implemented for dtype {kind.name}; allowed: {', '.join(_KINDS[c] for c in categories)} "
                "tensors; convert the input with .to(dtype)"
            )

    return check


def widened(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a kernel compute 16-bit floats in float32, as PyTorch does where several roundings would add up."""

    @wraps(kernel)
    def run(*arrays: Any, **attrs: Any) -> Any:
        kind = arrays[0].dtype
        if kind.itemsize != 2 or kind.kind in "iu":
            return kernel(*arrays, **attrs)
        return kernel(*(a.astype(np.float32) for a in arrays), **attrs).astype(kind)

    return run


def _scipy(name: str) -> Callable[..., Any]:
    """Gives a kernel that is scipy's special function of that name, imported when it first runs."""

    def kernel(*arrays: Any) -> Any:
        from scipy import special

        return getattr(special, name)(*arrays)

    return widened(kernel)


def _divided(name: str, divide: np.ufunc, a: Any, b: Any) -> Any:
    if b.dtype.kind not in "iu":
        return divide(a, b)
    try:
        with np.errstate(divide="raise"):
            return divide(a, b)
    except FloatingPointError:
        raise RuntimeError(f"ZeroDivisionError: {name} of integers by zero; the divisor must not contain 0") from None


# Arithmetic -------------------------------------------------------------------------------------------------

# The zero slope of piecewise constant functions: they are differentiable, as in PyTorch.
vanish: Op = unary("vanish", lambda x: np.zeros(x.shape, x.dtype), lambda g: vanish(g), result="promote", linear=True)
neg: Op = unary("neg", np.negative, lambda g: neg(g), result="promote", linear=True)
neg.spends = lambda g: np.negative(g, out=g)
add = binary("add", np.add, (lambda g: g, lambda g: g), linear=("PP",))
sub = binary("sub", np.subtract, linear=("PP",), vjps=(
    lambda g: g, lambda g: neg(g) if mode.enabled or g._node.data is None else minus(g)))
mul = binary("mul", np.multiply, (lambda g, b: g * b, lambda g, a: g * a), linear=("P.", ".P"))
mul.twice = twice_slope
div = binary("div", np.true_divide, result="float", linear=("P.",), vjps=(
    lambda g, b: g / b, lambda g, y, b: neg(g * (y / b)) if mode.enabled else quotient_slope(g, y, b)))


def _refusing_bool(op: Op, text: str) -> None:
    inner = op.meta

    def meta(*ins: Any) -> MetaResult:
        if any(i is bool or (isinstance(i, TensorMeta) and i.dtype is dtypes.bool_) for i in ins):
            raise RuntimeError(text)
        return inner(*ins)

    op.meta = meta


_refusing_bool(sub, "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying to invert a "
               "mask, use the `~` or `logical_not()` operator instead.")
_refusing_bool(neg, "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a "
               "mask, use the `~` or `logical_not()` operator instead.")


def _floor_divide(a: Any, b: Any) -> Any:
    return _divided("floor_divide", np.floor_divide, a, b)


def _trunc_divide(a: Any, b: Any) -> Any:
    if a.dtype.kind not in "iu":
        return np.trunc(np.true_divide(a, b))
    quotient = _divided("trunc_divide", np.floor_divide, a, b)
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)


def _remainder(a: Any, b: Any) -> Any:
    return _divided("remainder", np.remainder, a, b)


def _fmod(a: Any, b: Any) -> Any:
    return _divided("fmod", np.fmod, a, b)


floor_divide = binary("floor_divide", _floor_divide, (lambda g: vanish(g), lambda g: vanish(g)),
                      check=takes("floor_divide", 1, 2))
trunc_divide = binary("trunc_divide", _trunc_divide, (lambda g: vanish(g), lambda g: vanish(g)),
                      check=takes("trunc_divide", 1, 2))
remainder = binary("remainder", _remainder, (lambda g: g, lambda g, a, b: neg(g * floor_divide(a, b))),
                   check=takes("remainder", 1, 2))
fmod = binary("fmod", _fmod, (lambda g: g, lambda g, a, b: neg(g * trunc_divide(a, b))), check=takes("fmod", 1, 2))


def _sign(x: Any) -> Any:
    if x.dtype.kind == "b":
        return x.copy()
    if x.dtype.kind == "c":
        return np.sign(x)
    if x.size < _SMALL and x.dtype.kind == "f":
        return np.subtract(x > 0, x < 0, dtype=x.dtype)
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels.elementwise import sign

        return sign(x)
    return ((x > 0).view(np.int8) - (x < 0).view(np.int8)).astype(x.dtype)  # NaN gives 0, as in PyTorch


def _abs_slope(h: Any, x: Any) -> Any:
    if slope_fits(h, x):
        from distgrad.kernels import slopes

        return slopes.absolute(h, x)
    return h * _sign(x)


def _sgn_rule(g: Any, y: Any, x: Any) -> Any:
    if not x.dtype.is_complex:
        return vanish(g)
    turned = conj(g)
    return conj(keep(ne(abs(x), 0), turned / abs(x) - real(turned / x) * y))


abs: Op = unary("abs", np.absolute, result="promote", real_output=True, check=takes("abs", 1, 2, 3), vjp=lambda g, x: (
    g * _conjugate(sgn(x)) if mode.enabled or x.dtype.is_complex else abs_slope(g, x)))
abs_slope: Op = elementwise("abs_slope", _abs_slope, "h x", linear=("P.",))
sign = unary("sign", _sign, lambda g: vanish(g), result="promote", check=takes("sign", 0, 1, 2))
sgn: Op = unary("sgn", _sign, _sgn_rule, result="promote")
real = unary("real", np.real, lambda g: g, result="promote", real_output=True, linear=True)
imag = unary("imag", np.imag, lambda g: g * -1j, result="promote", real_output=True, linear=True,
             check=takes("imag", 3))
conj: Op = unary("conj", np.conjugate, lambda g: conj(g), result="promote", linear=True)


def _conjugate(x: Any) -> Any:
    return conj(x) if x.dtype.is_complex else x


# Powers -----------------------------------------------------------------------------------------------------


def _integer_power(a: Any, b: Any) -> Any:
    if b.dtype.kind == "u" or not np.any(b < 0):
        return np.power(a, b)
    odd = np.where(b % 2 == 0, 1, a)
    negative = np.where(a == 1, 1, np.where(a == -1, odd, 0))
    return np.where(b < 0, negative, np.power(a, np.maximum(b, 0))).astype(a.dtype)


def power_array(a: Any, b: Any) -> Any:
    """Gives a ** b; a single small exponent becomes products, as quick as writing them."""
    if a.dtype.kind in "iu":
        return np.square(a) if b.ndim == 0 and b == 2 else _integer_power(a, b)
    if b.ndim == 0:
        if b == 2:
            return np.square(a)
        if b == 3:
            return np.square(a) * a
        if b == 1:
            return a.copy()
        if b == 0.5:
            return np.sqrt(a)
        if b == -1:
            return np.reciprocal(a)
        if b == -0.5:
            return np.reciprocal(np.sqrt(a))
        if b == -2:
            return np.reciprocal(np.square(a))
    return np.power(a, b)


def _falling_power(a: Any, b: Any, *, n: int) -> Any:
    factor = b
    for i in range(1, n):
        factor = factor * (b - i)
    if b.ndim:
        return keep_array(factor != 0, factor * np.power(a, b - n))
    if factor == 0:
        return np.zeros_like(a)
    if b == n:
        return np.full_like(a, factor)
    return (a if b == n + 1 else power_array(a, b - n)) * factor


def _falling_exponent_rule(g: Any, a: Any, b: Any, n: int) -> Any:
    """The derivative of b (b - 1) ... (b - n + 1) a ** (b - n) by b: the product rule over all n + 1 factors."""
    total = falling_power(a, b, n=n) * power_log(a, b - n)
    for skipped in range(n):
        term = pow(a, b - n)
        for i in range(n):
            if i != skipped:
                term = term * (b - i)
        total = total + term
    return g * total


def _power_rule(g: Any, a: Any, b: Any) -> Any:
    if type(b) in (int, float) and b == 2 and not mode.enabled:
        return square_slope(g, a)
    return g * falling_power(a, b, n=1)


# The slope of a ** b by a is falling_power with n=1; it is 0 wherever the factor is, whatever the power (0 ** -1) says,
# and takes no logarithm. The slope by b is y * power_log, with 0 where a == 0 and b >= 0.
pow = binary("pow", power_array, check=takes("pow", 1, 2, 3), vjps=(
    _power_rule, lambda g, y, a, b: g * (y * power_log(a, b))))
falling_power: Op = binary("falling_power", _falling_power,
                       (lambda g, a, b, n: g * falling_power(a, b, n=n + 1), _falling_exponent_rule), result="float")
power_log: Op = binary("power_log", lambda a, b: keep_array((a != 0) | (b.real < 0), np.log(a)),
                   (lambda g, a: g * keep(ne(a, 0), reciprocal(a)), lambda g: vanish(g)), result="float")

abs_power: Op = binary("abs_power", lambda a, b: power_array(np.abs(a), b), result="float",
                      vjps=(lambda g, a, b: g * abs_power_slope(a, b), None))
"""|a| ** b of real numbers, for a number b of at least 2."""
abs_power_slope: Op = binary("abs_power_slope", lambda a, b: np.copysign(power_array(np.abs(a), b - 1), a) * b,
                            result="float", vjps=(lambda g, a, b: g * (abs_power(a, b - 2.0) * (b * (b - 1.0))), None))
reciprocal: Op = unary("reciprocal", np.reciprocal, lambda g, y: (
    neg(g * (y * y)) if mode.enabled else reciprocal_slope(g, y)))
sqrt = unary("sqrt", np.sqrt, lambda g, y: g / (y * 2.0) if mode.enabled else sqrt_slope(g, y))
rsqrt = unary("rsqrt", lambda x: np.reciprocal(np.sqrt(x)), lambda g, y: g * (y * y * y) * -0.5)
square = unary("square", np.square, lambda g, x: g * (x * 2.0) if mode.enabled else square_slope(g, x),
               result="promote", check=takes("square", 1, 2, 3))


def _square_distance(a: Any, b: Any) -> Any:
    out = np.asarray(a - b)
    return np.multiply(out, out, out=out)  # one array less than by two ops


def _square_distance_rule(g: Any, a: Any, b: Any, needs: tuple[bool, ...]) -> list[Any]:
    slope = g * ((a - b) * 2.0)
    return [slope if needs[0] else None, neg(slope) if needs[1] else None]


square_distance = binary("square_distance", _square_distance, check=takes("square_distance", 2))
"""(a - b) ** 2 of real numbers."""
square_distance.rules = Rule(square_distance, _square_distance_rule)
hypot = binary("hypot", np.hypot, (lambda g, y, a: g * (a / y), lambda g, y, b: g * (b / y)), check=takes("hypot", 2))


# Exponentials and logarithms --------------------------------------------------------------------------------


@widened
def _sigmoid(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.sigmoid(x)
    if not x.ndim:
        return 1 / (1 + np.exp(-x))
    t = np.negative(x)
    np.exp(t, out=t)
    t += 1
    return np.reciprocal(t, out=t)


@widened
def _logit(x: Any) -> Any:
    return np.log(x / (1 - x))


exp = unary("exp", np.exp, lambda g, y: g * y)
exp.spends = lambda g, y: np.multiply(g, y, out=g)
exp2 = unary("exp2", np.exp2, lambda g, y: g * (y * math.log(2)))
expm1 = unary("expm1", np.expm1, lambda g, y: g * (y + 1.0))
log = unary("log", np.log, lambda g, x: g / x)
log2 = unary("log2", np.log2, lambda g, x: g / (x * math.log(2)))
log10 = unary("log10", np.log10, lambda g, x: g / (x * math.log(10)))
log1p = unary("log1p", np.log1p, lambda g, x: g / (x + 1.0))
sigmoid = unary("sigmoid", _sigmoid, lambda g, y: g * (y - y * y) if mode.enabled else sigmoid_slope(g, y))
logit = unary("logit", _logit, lambda g, x: where(logical_and(ge(x, 0), le(x, 1)), g / (x - x * x), math.nan),
              check=takes("logit", 2))


def _gap(a: Any, b: Any) -> Any:
    """Gives a - b, 0 between equal infinities."""
    return keep(logical_not(logical_and(eq(a, b), isinf(a))), a - b)


def logaddexp_array(a: Any, b: Any) -> Any:
    """Gives log(exp(a) + exp(b)) without overflow, of complex numbers too."""
    if a.dtype.kind != "c":
        return np.logaddexp(a, b)
    first = a.real >= b.real
    top, other = np.where(first, a, b), np.where(first, b, a)
    # Not log1p: numpy's, of complex numbers near -1, is no more exact. The phase of the larger one is kept unwrapped.
    return np.where(np.isneginf(top.real), top, top + np.log(1 + np.exp(other - top)))


logaddexp = binary("logaddexp", logaddexp_array,
                   (lambda g, a, b: g * sigmoid(_gap(a, b)), lambda g, a, b: g * sigmoid(_gap(b, a))),
                   check=takes("logaddexp", 2, 3))
logaddexp2 = binary("logaddexp2", np.logaddexp2,
                    (lambda g, y, a: g * exp2(a - y), lambda g, y, b: g * exp2(b - y)), check=takes("logaddexp2", 2))
xlogy_slope = binary("xlogy_slope", lambda a, b: keep_array((a != 0) | ~(b <= 0), np.log(b)),
                     (lambda g: vanish(g), lambda g, b: g / b), result="float")
xlogy = binary("xlogy", _scipy("xlogy"), (lambda g, a, b: g * xlogy_slope(a, b), lambda g, a, b: g * (a / b)),
               result="float", check=takes("xlogy", 2))


# Trigonometric and hyperbolic -------------------------------------------------------------------------------


@widened
def _sinc(x: Any) -> Any:
    t = x * x.dtype.type(math.pi)
    out = np.asarray(np.sin(t) / t)
    zero = t == 0
    if np.any(zero):
        out[zero] = 1
    return out


sin = unary("sin", np.sin, lambda g, x: g * cos(x) if mode.enabled else sin_slope(g, x))
cos: Op = unary("cos", np.cos, lambda g, x: neg(g * sin(x)) if mode.enabled else cos_slope(g, x))
tan = unary("tan", np.tan, lambda g, y: g * (y * y + 1.0))
asin = unary("asin", np.arcsin, lambda g, x: g * rsqrt(1.0 - x * x))
acos = unary("acos", np.arccos, lambda g, x: neg(g * rsqrt(1.0 - x * x)))
atan = unary("atan", np.arctan, lambda g, x: g / (x * x + 1.0))
sinh = unary("sinh", np.sinh, lambda g, x: g * cosh(x))
cosh: Op = unary("cosh", np.cosh, lambda g, x: g * sinh(x))
tanh = unary("tanh", np.tanh, lambda g, y: g * (1.0 - y * y) if mode.enabled else tanh_slope(g, y))
asinh = unary("asinh", np.arcsinh, lambda g, x: g * rsqrt(x * x + 1.0))
acosh = unary("acosh", np.arccosh, lambda g, x: g * rsqrt(x * x - 1.0))
atanh = unary("atanh", np.arctanh, lambda g, x: g / (1.0 - x * x))
sinc = unary("sinc", _sinc, lambda g, y, x: g * keep(ne(x, 0), (cos(x * math.pi) - y) / x))
atan2 = binary("atan2", np.arctan2, result="float", check=takes("atan2", 2), vjps=(
    lambda g, a, b: g * (b / (a * a + b * b)), lambda g, a, b: g * (neg(a) / (a * a + b * b))))


# Special functions ------------------------------------------------------------------------------------------


@widened
def _polygamma(x: Any, *, n: int) -> Any:
    from scipy import special

    return special.polygamma(n, x).astype(x.dtype)


erf = unary("erf", _scipy("erf"), lambda g, x: g * (exp(neg(x * x)) * (2 / math.sqrt(math.pi))), check=takes("erf", 2))
erfc = unary("erfc", _scipy("erfc"), lambda g, x: g * (exp(neg(x * x)) * (-2 / math.sqrt(math.pi))),
             check=takes("erfc", 2))
erfinv = unary("erfinv", _scipy("erfinv"), lambda g, y: g * (exp(y * y) * (math.sqrt(math.pi) / 2)),
               check=takes("erfinv", 2))
_gammaln = _scipy("gammaln")
lgamma = unary("lgamma", lambda x: np.where(np.isneginf(x), -x, _gammaln(x)), lambda g, x: g * digamma(x),
               check=takes("lgamma", 2))
digamma: Op = unary("digamma", _scipy("psi"), lambda g, x: g * polygamma(x, n=1), check=takes("digamma", 2))
polygamma: Op = unary("polygamma", _polygamma, lambda g, x, n: g * polygamma(x, n=n + 1), check=takes("polygamma", 2))


# Rounding ---------------------------------------------------------------------------------------------------


def _round(x: Any, *, decimals: int) -> Any:
    if decimals == 0:
        return x.copy() if x.dtype.kind in "iu" else np.rint(x)
    scale = x.dtype.type(10.0 ** math.fabs(decimals))
    return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale


def _check_round(kind: dtype, attrs: dict[str, Any]) -> None:
    allowed = (2,) if attrs["decimals"] else (1, 2)
    takes("round", *allowed)(kind, attrs)


ceil = unary("ceil", np.ceil, lambda g: vanish(g), result="promote", check=takes("ceil", 1, 2))
floor = unary("floor", np.floor, lambda g: vanish(g), result="promote", check=takes("floor", 1, 2))
trunc = unary("trunc", np.trunc, lambda g: vanish(g), result="promote", check=takes("trunc", 1, 2))
round = unary("round", _round, lambda g: vanish(g), result="promote", check=_check_round)
frac = unary("frac", lambda x: x - np.trunc(x), lambda g: g, result="promote", check=takes("frac", 2))


# Comparison, logic, bits ------------------------------------------------------------------------------------

eq = binary("eq", np.equal, result="bool")
ne: Op = binary("ne", np.not_equal, result="bool")
lt = binary("lt", np.less, result="bool", check=takes("lt", 0, 1, 2))
le: Op = binary("le", np.less_equal, result="bool", check=takes("le", 0, 1, 2))
gt = binary("gt", np.greater, result="bool", check=takes("gt", 0, 1, 2))
ge: Op = binary("ge", np.greater_equal, result="bool", check=takes("ge", 0, 1, 2))
logical_and: Op = binary("logical_and", np.logical_and, result="test")
logical_or = binary("logical_or", np.logical_or, result="test")
logical_xor = binary("logical_xor", np.logical_xor, result="test")
logical_not = unary("logical_not", np.logical_not, result="test")
bitwise_and = binary("bitwise_and", np.bitwise_and, check=takes("bitwise_and", 0, 1))
bitwise_or = binary("bitwise_or", np.bitwise_or, check=takes("bitwise_or", 0, 1))
bitwise_xor = binary("bitwise_xor", np.bitwise_xor, check=takes("bitwise_xor", 0, 1))
bitwise_not = unary("bitwise_not", np.bitwise_not, result="promote", check=takes("bitwise_not", 0, 1))
bitwise_left_shift = binary("bitwise_left_shift", np.left_shift, check=takes("bitwise_left_shift", 1))
bitwise_right_shift = binary("bitwise_right_shift", np.right_shift, check=takes("bitwise_right_shift", 1))


def _without_nan(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels.sums import without_nan

        return without_nan(x)
    return keep_array(x == x, x)


without_nan: Op = unary("without_nan", _without_nan, lambda g, x: keep(eq(x, x), g))
"""x with 0 for NaN, whose gradient is 0."""

isnan = unary("isnan", np.isnan, result="test")
isinf = unary("isinf", np.isinf, result="test")
isfinite = unary("isfinite", np.isfinite, result="test")
isposinf = unary("isposinf", lambda x: x == np.inf, result="test", check=takes("isposinf", 0, 1, 2))
isneginf = unary("isneginf", lambda x: x == -np.inf, result="test", check=takes("isneginf", 0, 1, 2))
signbit = unary("signbit", lambda x: np.signbit(x) if x.dtype.kind not in "bui" else x < 0, result="test",
                check=takes("signbit", 0, 1, 2))
gcd = binary("gcd", np.gcd, check=takes("gcd", 1))
lcm = binary("lcm", np.lcm, check=takes("lcm", 1))
nextafter = binary("nextafter", np.nextafter, (lambda g, a, b: keep(ne(a, b), g), lambda g: vanish(g)),
                   check=takes("nextafter", 2))
heaviside = binary("heaviside", lambda a, b: np.where(a == 0, b, (a > 0).astype(b.dtype)),
                   check=takes("heaviside", 0, 1, 2))
copysign = binary("copysign", np.copysign, (lambda g, y, a: g * keep(ne(a, 0), y / a), lambda g: vanish(g)),
                  result="float", check=takes("copysign", 2))


# Extremes and selection -------------------------------------------------------------------------------------


def _maximum_share(a: Any, b: Any) -> Any:
    twice = 2 - np.less(a, b).view(np.int8) - np.less_equal(a, b).view(np.int8)
    return (twice * np.float32(0.5)).astype(a.dtype)


def _clamp(x: Any, low: Any, high: Any) -> Any:
    if x.dtype.kind == "V":  # bfloat16 has no clip
        return np.minimum(np.maximum(x, low), high)
    return np.clip(x, low, high)


def clamp_min_array(x: Any, low: Any) -> Any:
    """Gives the larger of x and a bound."""
    # np.clip has vector code where np.maximum has none: up to three times quicker on large arrays, slower to start.
    if x.size > _LARGE and x.dtype.kind == "f" and low.ndim == 0:
        return np.clip(x, low, x.dtype.type(np.inf))
    return np.maximum(x, low)


def _clamp_max_array(x: Any, high: Any) -> Any:
    if x.size > _LARGE and x.dtype.kind == "f" and high.ndim == 0:
        return np.clip(x, x.dtype.type(-np.inf), high)
    return np.minimum(x, high)


def _lerp(a: Any, b: Any, w: Any) -> Any:
    # The nearer end is the one to start from, so that w = 0 and w = 1 give the ends exactly.
    if w.ndim == 0:
        out = np.asarray(b - a)
        if out.shape != np.broadcast_shapes(a.shape, b.shape, w.shape) or out.dtype != np.result_type(out, w):
            return a + w * out if w.real < 0.5 else b - out * (1 - w)
        if w.real < 0.5:
            return np.add(a, np.multiply(out, w, out=out), out=out)
        return np.subtract(b, np.multiply(out, 1 - w, out=out), out=out)
    return np.where(w.real < 0.5, a + w * (b - a), b - (b - a) * (1 - w))


def _nan_to_num(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    return x.copy() if x.dtype.kind in "biu" else np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


where: Op = elementwise("where", select_array, "cond a b", condition=True, linear=(".PP",),
                    vjps=(None, lambda g, cond: keep(cond, g), lambda g, cond: keep(logical_not(cond), g)))
# keep(mask, x) is x where the mask holds, else 0; unlike where with the number 0 it is linear: Partial passes through.
keep: Op = elementwise("keep", keep_array, "mask x", condition=True, linear=(".P",),
                   vjps=(None, lambda g, mask: keep(mask, g)))
# overwrite(x, new) is new, in x's graph: what a write over all of a tensor gives.
overwrite: Op = binary("overwrite", lambda x, new: new, (lambda g: vanish(g), lambda g: g), linear=("PP",))

# How much of a maximum's gradient goes to a: 1, 0, or one half on a tie.
maximum_share = binary("maximum_share", _maximum_share, result="float")
maximum = binary("maximum", np.maximum, check=takes("maximum", 0, 1, 2), vjps=(
    lambda g, a, b: g * maximum_share(a, b), lambda g, a, b: g * maximum_share(b, a)))
minimum = binary("minimum", np.minimum, check=takes("minimum", 0, 1, 2), vjps=(
    lambda g, a, b: g * maximum_share(b, a), lambda g, a, b: g * maximum_share(a, b)))
_prefers_larger = binary("prefers_larger", lambda a, b: (a >= b) | (b != b), result="bool")
_prefers_smaller = binary("prefers_smaller", lambda a, b: (a <= b) | (b != b), result="bool")
fmax = binary("fmax", np.fmax, check=takes("fmax", 0, 1, 2), vjps=(
    lambda g, a, b: keep(_prefers_larger(a, b), g), lambda g, a, b: keep(logical_not(_prefers_larger(a, b)), g)))
fmin = binary("fmin", np.fmin, check=takes("fmin", 0, 1, 2), vjps=(
    lambda g, a, b: keep(_prefers_smaller(a, b), g), lambda g, a, b: keep(logical_not(_prefers_smaller(a, b)), g)))

within = elementwise("within", lambda x, low, high: (x >= low) & (x <= high), "x low high", result="bool")
clamp = elementwise("clamp", _clamp, "x low high", check=takes("clamp", 1, 2), vjps=(
    lambda g, x, low, high: keep(within(x, low, high), g) if mode.enabled else clamp_slope(g, x, low, high),
    lambda g, x, low, high: keep(logical_and(lt(low, high), lt(x, low)), g),
    lambda g, x, low, high: keep(logical_or(gt(x, high), lt(high, low)), g)))
clamp_min = elementwise("clamp_min", clamp_min_array, "x low", check=takes("clamp_min", 1, 2), vjps=(
    lambda g, x, low: keep(ge(x, low), g), lambda g, x, low: keep(lt(x, low), g)))
clamp_max = elementwise("clamp_max", _clamp_max_array, "x high", check=takes("clamp_max", 1, 2), vjps=(
    lambda g, x, high: keep(le(x, high), g), lambda g, x, high: keep(gt(x, high), g)))
lerp = elementwise("lerp", widened(_lerp), "a b w", linear=("PP.",), check=takes("lerp", 2, 3), vjps=(
    lambda g, w: g * (1.0 - w), lambda g, w: g * w, lambda g, a, b: g * (b - a)))
nan_to_num = elementwise("nan_to_num", widened(_nan_to_num), "x nan posinf neginf",
                         vjps=(lambda g, x: keep(isfinite(x), g), None, None, None))


# Casts ------------------------------------------------------------------------------------------------------


def _cast_meta(x: TensorMeta, *, dtype: str) -> MetaResult:
    return (x.with_dtype(dtypes.named(dtype)),), None


def _cast(x: Any, *, dtype: str) -> Any:
    kind = dtypes.named(dtype).numpy
    if x.dtype.kind == "c" and kind.kind not in "cb":
        x = x.real
    if kind.kind == "u" and x.dtype.kind in "fV":
        return x.astype(np.int64).astype(kind)  # negative floats wrap, as in PyTorch
    return x.astype(kind)


def _cast_rows(ins: Any, outs: Any, attrs: dict[str, Any]) -> Any:
    both_floating = ins[0].dtype.category >= 2 and outs[0].dtype.category >= 2
    return elementwise_rows(("P",) if both_floating else ())(ins, outs, attrs)


# Converts to the dtype named by attribute `dtype`; autodiff casts the cotangent back.
cast = Op("cast", _cast, meta=_cast_meta, inputs="x", rows=_cast_rows, vjps=(lambda g: g,))
