"""Rows of the elementwise functions."""

from __future__ import annotations

import numpy as np
from op_db import booleans, constant, distinct, integers, normal, positive, row, uniform

NAN, INF = float("nan"), float("inf")
SPECIAL = constant([NAN, INF, -INF, 0.0, -0.0, 1.5, -2.5, 3.0])
FLOAT32 = constant(np.linspace(-3, 3, 8).reshape(2, 4), "float32")
TIES = constant([[1.0, 2.0, 3.0], [1.0, 0.0, -1.0]], differentiable=True)
TIED = constant([[1.0, 5.0, 3.0], [0.0, 0.0, -2.0]], differentiable=True)
EMPTY = normal(0, 3)
COMPLEX = constant([[1 + 2j, -0.5j], [3.0, -1 - 1j], [0.5 + 0.1j, 2j]], "complex128")


def _unary(name: str, *samples: object, **options: bool) -> object:
    return row(name, lambda T, x: getattr(T, name)(x), *([s] for s in samples), **options)


def _binary(name: str, *samples: list[object], **options: bool) -> object:
    return row(name, lambda T, a, b: getattr(T, name)(a, b), *samples, **options)


ARITHMETIC = [
    row("add", lambda T, a, b: T.add(a, b), [normal(4, 3), normal(4, 3)], [normal(4, 3), normal(3)],
        [normal(4, 3), 2.5], [integers(-5, 5, 4, 3), 2.5], [booleans(4), booleans(4)], [integers(0, 5, 4), FLOAT32],
        [EMPTY, normal(1, 3)], [COMPLEX, 2.0]),
    row("add_alpha", lambda T, a, b: T.add(a, b, alpha=0.5), [normal(4, 3), normal(4, 1)], [normal(4), 3.0]),
    row("sub", lambda T, a, b: T.sub(a, b), [normal(4, 3), normal(4, 3)], [normal(4, 1), normal(5)],
        [integers(-5, 5, 4), 3]),
    row("sub_alpha", lambda T, a, b: T.sub(a, b, alpha=2), [normal(4, 3), normal(3)], [integers(0, 9, 4), 3]),
    row("rsub", lambda T, a, b: T.rsub(a, b), [normal(4, 3), normal(4, 3)], [normal(4), 2.0]),
    row("reflected", lambda T, x: (2.0 - x) / (1 / x) + 2**x, [positive(4, 3)]),
    row("mul", lambda T, a, b: T.mul(a, b), [normal(4, 3), normal(4, 3)], [normal(4, 1), normal(5)], [normal(4, 3), 2],
        [booleans(4), integers(0, 5, 4)], [COMPLEX, COMPLEX]),
    row("div", lambda T, a, b: T.div(a, b), [normal(4, 3), positive(4, 3)], [normal(4, 1), positive(5)],
        [integers(-5, 5, 4), integers(1, 4, 4)], [normal(4), 3]),
    row("div_floor", lambda T, a, b: T.div(a, b, rounding_mode="floor"), [normal(4, 3), uniform(0.2, 0.5, 4, 3)],
        [integers(-9, 9, 6), integers(1, 4, 6)], [SPECIAL, 2.0], gradgrad=False),
    row("div_trunc", lambda T, a, b: T.div(a, b, rounding_mode="trunc"), [normal(4, 3), uniform(0.2, 0.5, 4, 3)],
        [integers(-9, 9, 12), integers(1, 4, 12)], [integers(-9, 9, 12), -4], gradgrad=False),
    _binary("floor_divide", [normal(4, 3), positive(3)], [integers(-9, 9, 6), -2], [SPECIAL, 0.0], grad=False),
    _binary("remainder", [normal(4, 3), positive(4, 3)], [integers(-9, 9, 12), -4], [normal(6), -0.7], [SPECIAL, 2.0]),
    _binary("fmod", [normal(4, 3), positive(4, 3)], [integers(-9, 9, 12), -4], [normal(6), -0.7], [SPECIAL, 2.0]),
    row("pow", lambda T, a, b: T.pow(a, b), [positive(4, 3), normal(4, 3)], [positive(4, 1), normal(3)],
        [positive(4), 2.5],
        [integers(-3, 4, 6), integers(0, 4, 6)],
        [constant([1, -1, 2, -1, 3], "int64"), constant([-1, -2, -1, -3, 0], "int64")],
        [2, integers(0, 5, 4)], [2.0, normal(4)]),
    row("pow_of_zero", lambda T, a, b: T.pow(a, b), [constant([0.0, 0.0, 2.0], differentiable=True),
        constant([0.0, 2.0, 3.0], differentiable=True)], gradgrad=False),
    *(row(f"pow_{n}", lambda T, x, n=n: x**n,
          [positive(4, 3)] if n != int(n) or n < 0 else [constant([-2.0, 0.0, 1.5, 0.5], differentiable=True)])
      for n in (2, 3, 1, 0, 0.5, -1, -2, -0.5, 4, 1.7)),
    row("pow_integer", lambda T, x: x**2 + x**3, [integers(-5, 5, 6)]),
    row("float_power", lambda T, a, b: T.float_power(a, b), [positive(4, 3), 2], [integers(1, 5, 4), positive(4)]),
    _unary("neg", normal(4, 3), integers(0, 9, 4), COMPLEX),
    row("abs", lambda T, x: T.abs(x) * x, [normal(4, 3)], [integers(-5, 5, 4)], [COMPLEX]),
    _unary("sign", normal(4, 3), SPECIAL, booleans(4), integers(-2, 3, 6)),
    row("sgn", lambda T, x: T.sgn(x) * x, [normal(4, 3)], [COMPLEX], gradgrad=False),
    _unary("reciprocal", positive(4, 3), integers(1, 5, 4)),
    _unary("sqrt", positive(4, 3), integers(0, 5, 4)),
    _unary("rsqrt", positive(4, 3)),
    _unary("square", normal(4, 3), integers(-4, 4, 6), booleans(4)),
    _unary("positive", normal(4, 3)),
    _binary("hypot", [normal(4, 3), normal(3)]),
    row("addcmul", lambda T, a, b, c: T.addcmul(a, b, c, value=0.5), [normal(4, 3), normal(4, 1), normal(3)]),
    row("addcdiv", lambda T, a, b, c: T.addcdiv(a, b, c, value=-2), [normal(4, 3), normal(4, 1), positive(3)]),
    row("aliases", lambda T, x: (T.absolute(x), T.negative(x), T.subtract(x, 1), T.multiply(x, 2), T.divide(x, 3),
                                 T.true_divide(x, 3), T.arctan(x), T.arcsinh(x), T.clip(x, -1, 1), T.fix(x)),
        [normal(4, 3)]),
]

TRANSCENDENTAL = [
    *(_unary(name, normal(4, 3), integers(-2, 3, 4)) for name in
      ("exp", "exp2", "expm1", "sin", "cos", "tan", "atan", "sinh", "cosh", "tanh", "asinh", "erf", "erfc", "sigmoid")),
    *(_unary(name, positive(4, 3), integers(1, 9, 4)) for name in
      ("log", "log2", "log10", "log1p", "lgamma")),
    _unary("digamma", positive(4, 3)),
    *(_unary(name, uniform(-0.9, 0.9, 4, 3)) for name in ("asin", "acos", "atanh", "erfinv")),
    _unary("acosh", uniform(1.2, 3.0, 4, 3)),
    _unary("sinc", positive(4, 3), constant([0.0, 1.0, -2.0])),
    row("polygamma", lambda T, x: T.polygamma(2, x), [positive(4, 3)]),
    row("polygamma_method", lambda T, x: x.polygamma(1), [positive(4)], gradgrad=False),
    _binary("atan2", [normal(4, 3), positive(4, 3)], [integers(-3, 3, 4), integers(1, 4, 4)]),
    _binary("logaddexp", [normal(4, 3), normal(3)]),
    _binary("logaddexp2", [normal(4, 3), normal(3)]),
    row("xlogy", lambda T, a, b: T.xlogy(a, b), [normal(4, 3), positive(4, 3)],
        [constant([0.0, 0.0, 1.0, 2.0]), constant([0.0, NAN, 0.0, 3.0])], [normal(4), 2.0], [2.0, positive(4)]),
    row("logit", lambda T, x: T.logit(x), [uniform(0.1, 0.9, 4, 3)], [constant([0.0, 1.0, 2.0, -1.0])]),
    row("logit_eps", lambda T, x: T.logit(x, eps=0.2), [uniform(0.0, 1.0, 4, 3)]),
    _unary("deg2rad", normal(4, 3), integers(0, 90, 4)),
    _unary("rad2deg", normal(4, 3), integers(0, 9, 4)),
    _binary("ldexp", [normal(4, 3), integers(0, 4, 4, 3)], [FLOAT32, integers(-3, 1, 4)],
            [integers(0, 9, 4), integers(0, 3, 4)]),
]

ROUNDING = [
    *(_unary(name, normal(4, 3), integers(-9, 9, 4), SPECIAL) for name in ("ceil", "floor", "trunc")),
    row("round", lambda T, x: T.round(x), [normal(4, 3)], [constant([0.5, 1.5, -0.5, -2.5])], [integers(-9, 9, 4)]),
    row("round_decimals", lambda T, x: T.round(x, decimals=1) + T.round(x * 50, decimals=-1), [normal(4, 3)]),
    _unary("frac", normal(4, 3), constant([-1.25, 2.75])),
]

LOGIC = [
    *(_binary(name, [distinct(4, 3), distinct(4, 3)], [integers(0, 3, 4, 3), integers(0, 3, 3)], [normal(4, 3), 0.3],
              [integers(-3, 3, 6), 0.5], [SPECIAL, SPECIAL], grad=False)
      for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(_binary(name, [booleans(4, 3), booleans(3)], [integers(0, 2, 6), normal(6)], grad=False)
      for name in ("logical_and", "logical_or", "logical_xor")),
    _unary("logical_not", booleans(4, 3), normal(4), SPECIAL, grad=False),
    *(_binary(name, [booleans(4, 3), booleans(3)], [integers(0, 64, 6), integers(0, 64, 6)], [integers(-9, 9, 6), 12],
              grad=False) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    _unary("bitwise_not", booleans(4, 3), integers(-9, 9, 6), grad=False),
    *(_binary(name, [integers(-64, 64, 6), integers(0, 6, 6)], [integers(0, 64, 6), 2], [integers(-9, 9, 6), 70],
              grad=False) for name in ("bitwise_left_shift", "bitwise_right_shift")),
    *(_unary(name, SPECIAL, integers(-2, 2, 4), booleans(3), grad=False)
      for name in ("isnan", "isinf", "isfinite", "isposinf", "isneginf", "isreal")),
    _unary("signbit", constant([NAN, INF, -INF, 0.0, 1.5, -2.5]), integers(-2, 2, 4), booleans(3), grad=False),
    row("isclose", lambda T, a, b: T.isclose(a, b), [SPECIAL, SPECIAL], [integers(0, 3, 6), integers(0, 3, 6)],
        [booleans(6), booleans(6)], grad=False),
    row("isclose_nan", lambda T, a, b: T.isclose(a, b, rtol=0.5, atol=0.1, equal_nan=True),
        [SPECIAL, SPECIAL], [normal(4, 3), normal(4, 3)], grad=False),
    *(_binary(name, [integers(-30, 30, 6), integers(-30, 30, 6)], [integers(0, 30, 4, 1), integers(1, 30, 3)],
              grad=False) for name in ("gcd", "lcm")),
    _binary("nextafter", [normal(4, 3), normal(3)]),
    _binary("heaviside", [SPECIAL, constant([5.0])], [integers(-2, 2, 6), integers(-2, 2, 6)], grad=False),
    _binary("copysign", [normal(4, 3), normal(3)], [normal(4), -1.0], [integers(1, 5, 4), normal(4)]),
]

SELECTION = [
    *(_binary(name, [normal(4, 3), normal(4, 3)], [TIES, TIED], [normal(4, 1), normal(3)], [SPECIAL, normal(8)],
              [integers(0, 5, 6), integers(0, 5, 6)]) for name in ("maximum", "minimum", "fmax", "fmin")),
    row("clamp", lambda T, x: T.clamp(x, -0.5, 0.75), [normal(4, 3)], [constant([-0.5, 0.75, 0.0, 2.0, NAN],
        differentiable=True)], [integers(-3, 3, 6)]),
    row("clamp_tensors", lambda T, x, low, high: T.clamp(x, low, high), [normal(4, 3), normal(3), normal(4, 1)]),
    row("clamp_one_side", lambda T, x: T.clamp(x, min=0.0) + T.clamp(x, max=0.5) * 2, [normal(4, 3)],
        [constant([0.0, 0.5, 1.0, -1.0], differentiable=True)]),
    row("clamp_min", lambda T, x, low: T.clamp_min(x, low), [normal(4, 3), normal(3)], [integers(-3, 3, 6), 0.5]),
    row("clamp_max", lambda T, x, high: T.clamp_max(x, high), [normal(4, 3), normal(3)], [integers(-3, 3, 6), 1]),
    row("where", lambda T, c, a, b: T.where(c, a, b), [booleans(4, 3), normal(4, 3), normal(3)],
        [booleans(4, 1), normal(3), 2.0], [booleans(4), 1, integers(0, 5, 4)], [booleans(4), 1.5, 2]),
    row("lerp", lambda T, a, b, w: T.lerp(a, b, w), [normal(4, 3), normal(3), 0.3], [normal(4, 3), normal(4, 3), 0.8],
        [normal(4, 3), normal(3), uniform(0, 1, 4, 1)]),
    row("nan_to_num", lambda T, x: T.nan_to_num(x), [normal(4, 3)], [SPECIAL], [integers(0, 5, 4)], [booleans(4)]),
    row("nan_to_num_given", lambda T, x: T.nan_to_num(x, nan=1.0, posinf=2.0, neginf=-3.0), [SPECIAL]),
]

CASTS = [
    row("cast_float", lambda T, x: x.to(T.float32) * 2, [normal(4, 3)], [integers(0, 9, 4, 3)], [booleans(4)]),
    row("cast_integer", lambda T, x: (x.to(T.int64), x.to(T.int32), x.to(T.uint8), x.to(T.bool)), [normal(4, 3)],
        [constant([-1.5, 300.7, -300.2, 0.0])], [integers(-300, 300, 6)], grad=False),
    row("cast_half", lambda T, x: (x.to(T.float16), x.to(T.bfloat16)), [normal(4, 3)], grad=False),
    row("real", lambda T, x: (T.real(x), T.imag(x), T.abs(T.imag(T.conj(x)))), [COMPLEX], grad=False),
    row("real_of_real", lambda T, x: T.real(x) + T.conj(x), [normal(4, 3)]),
]

ROWS = [*ARITHMETIC, *TRANSCENDENTAL, *ROUNDING, *LOGIC, *SELECTION, *CASTS]
