"""Public elementwise functions with PyTorch's signatures: arithmetic, powers, comparison, logic, rounding, selection.

Invariant: a Python number given to a function stays an input of the op it reaches (never an attribute), so that a
number that changes from step to step makes no new program. Definitions: the PyTorch pages "torch, Math operations".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.precision import in_float32
from distgrad.op import is_tensor
from distgrad.ops import composed
from distgrad.ops import elementwise as ops
from distgrad.ops.elementwise import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_and,
    bitwise_left_shift,
    bitwise_not,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    copysign,
    cos,
    cosh,
    digamma,
    eq,
    erf,
    erfc,
    erfinv,
    exp,
    exp2,
    expm1,
    floor,
    floor_divide,
    fmax,
    fmin,
    fmod,
    frac,
    gcd,
    ge,
    gt,
    hypot,
    imag,
    isfinite,
    isinf,
    isnan,
    isneginf,
    isposinf,
    lcm,
    le,
    lgamma,
    log,
    log1p,
    log2,
    log10,
    logaddexp,
    logaddexp2,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    nextafter,
    reciprocal,
    remainder,
    rsqrt,
    sgn,
    sigmoid,
    sign,
    signbit,
    sin,
    sinc,
    sinh,
    sqrt,
    tan,
    tanh,
    trunc,
    xlogy,
)

__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "deg2rad",
    "digamma",
    "div",
    "divide",
    "eq",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "float_power",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "frac",
    "gcd",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "heaviside",
    "hypot",
    "imag",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "lcm",
    "ldexp",
    "le",
    "lerp",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logit",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "nan_to_num",
    "ne",
    "neg",
    "negative",
    "nextafter",
    "not_equal",
    "polygamma",
    "positive",
    "pow",
    "rad2deg",
    "real",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "sgn",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "subtract",
    "tan",
    "tanh",
    "true_divide",
    "trunc",
    "where",
    "xlogy",
]


_WIDE = (dtypes.float32, dtypes.float64)


def _is_one(alpha: Any) -> bool:
    return type(alpha) in (int, float) and alpha == 1


def _scaled(name: str, input: Any, other: Any, alpha: Any) -> Any:
    """Gives alpha * other for add and sub; checks that alpha suits the result's dtype."""
    if not isinstance(alpha, (bool, int, float, complex)) and not is_tensor(alpha):
        raise TypeError(f"{name}(): argument 'alpha' must be Number, not {type(alpha).__name__}")
    kind = _result_type(input, other)
    if isinstance(alpha, bool) and kind is not dtypes.bool_:
        raise RuntimeError(f"{name}: Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, (float, complex)) and kind.category < 2:
        raise RuntimeError(
            f"{name}: For integral input tensors, argument alpha must not be a floating point number; got {alpha!r} "
            f"for {kind.name}"
        )
    if kind is dtypes.bool_:
        return ops.mul(other, bool(alpha))
    return ops.mul(other, alpha)


def _result_type(*operands: Any) -> dtypes.dtype:
    return dtypes.result_type([o if is_tensor(o) else type(o) for o in operands])


def add(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """Adds `alpha * other` to `input`, broadcasting. RuntimeError for a floating alpha with integers."""
    return ops.add(input, other if _is_one(alpha) else _scaled("add", input, other, alpha))


def sub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """Subtracts `alpha * other` from `input`, broadcasting. RuntimeError for bool tensors."""
    return ops.sub(input, other if _is_one(alpha) else _scaled("sub", input, other, alpha))


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Any:
    """Subtracts `alpha * input` from `other`, broadcasting. TypeError for a number as input."""
    if not is_tensor(input):
        raise TypeError(f"rsub(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    return sub(other, input, alpha=alpha)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """Divides elementwise; `rounding_mode` is None (true division), "trunc" (towards zero) or "floor".

    RuntimeError for another mode, and at run time for integer division by zero under a rounding mode.
    """
    if rounding_mode is None:
        return ops.div(input, other)
    if rounding_mode == "floor":
        return ops.floor_divide(input, other)
    if rounding_mode == "trunc":
        return ops.trunc_divide(input, other)
    raise RuntimeError(f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found {rounding_mode!r}")


def pow(input: Any, exponent: Any) -> Any:
    """Raises `input` to `exponent` (each a tensor or a number), broadcasting.

    RuntimeError for an integer tensor and a negative integer number.
    """
    if type(exponent) is int and exponent < 0 and is_tensor(input) and input.dtype.category < 2:
        raise RuntimeError(
            f"pow: Integers to negative integer powers are not allowed; got exponent {exponent} for {input.dtype.name}"
            "; use a floating-point base"
        )
    return ops.pow(input, exponent)


def float_power(input: Any, exponent: Any) -> Any:
    """Raises to a power in double precision (float64, or complex128 when an operand is complex)."""
    kind = "complex128" if _result_type(input, exponent).is_complex else "float64"
    convert = complex if kind == "complex128" else float
    operands = [ops.cast(o, dtype=kind) if is_tensor(o) else convert(o) for o in (input, exponent)]
    return ops.pow(*operands)


def square(input: Any) -> Any:
    """Squares each element; bool gives int64."""
    return ops.pow(input, 2) if input.dtype is dtypes.bool_ else ops.square(input)


def positive(input: Any) -> Any:
    """Gives the tensor itself; RuntimeError for bool."""
    if input.dtype is dtypes.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def round(input: Any, *, decimals: int = 0) -> Any:
    """Rounds half to even, at `decimals` digits after the point (negative: before it)."""
    return ops.round(input, decimals=decimals)


def polygamma(n: int, input: Any) -> Any:
    """Gives the n-th derivative of the digamma function; RuntimeError for negative n.

    As a method the tensor comes first: `x.polygamma(n)`.
    """
    if is_tensor(n):
        n, input = input, n
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n; got {n}")
    return ops.digamma(input) if n == 0 else ops.polygamma(input, n=int(n))


def logit(input: Any, eps: float | None = None) -> Any:
    """Gives log(x / (1 - x)); with `eps`, x is clamped to [eps, 1 - eps] first, else outside [0, 1] gives NaN."""
    if eps is not None:
        floating = input if input.dtype.category >= 2 else ops.cast(input, dtype=dtypes.default().name)
        input = ops.clamp(floating, eps, 1 - eps)
    return ops.logit(input)


def deg2rad(input: Any) -> Any:
    """Converts degrees to radians; integers give the default float."""
    return ops.mul(input, math.pi / 180)


def rad2deg(input: Any) -> Any:
    """Converts radians to degrees; integers give the default float."""
    return ops.mul(input, 180 / math.pi)


def ldexp(input: Any, other: Any) -> Any:
    """Gives input * 2 ** other; the power is taken in floating point."""
    return ops.mul(input, ops.pow(2.0, other))


def real(input: Any) -> Any:
    """Gives the real part; a real tensor itself."""
    return ops.real(input) if input.dtype.is_complex else input


def conj(input: Any) -> Any:
    """Gives the complex conjugate; a real tensor itself."""
    return ops.conj(input) if input.dtype.is_complex else input


def isreal(input: Any) -> Any:
    """Says elementwise whether the imaginary part is zero (bool)."""
    return ops.eq(ops.imag(input), 0) if input.dtype.is_complex else ops.eq(input, input) | True


def isclose(input: Any, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    """Says elementwise whether |input - other| <= atol + rtol * |other| (bool); equal infinities are close.

    RuntimeError for different dtypes or a negative tolerance.
    """
    if input.dtype is not other.dtype:
        raise RuntimeError(f"isclose: {input.dtype.name} did not match {other.dtype.name}; convert one with .to(dtype)")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"isclose: rtol and atol must be greater than or equal to zero, got {rtol} and {atol}")
    if (rtol or atol) and input.dtype in _WIDE:
        return composed.isclose(input, other, rtol=float(rtol), atol=float(atol), equal_nan=bool(equal_nan))
    close = ops.eq(input, other)
    if equal_nan and input.dtype.category >= 2:
        close = ops.logical_or(close, ops.logical_and(ops.isnan(input), ops.isnan(other)))
    if rtol == 0 and atol == 0:
        return close
    if input.dtype is dtypes.bool_:
        input, other = (ops.cast(t, dtype=dtypes.default().name) for t in (input, other))
    allowed = ops.add(ops.abs(ops.mul(other, float(rtol))), float(atol))
    actual = ops.abs(ops.sub(input, other))
    return ops.logical_or(close, ops.logical_and(ops.isfinite(actual), ops.le(actual, allowed)))


def heaviside(input: Any, values: Any) -> Any:
    """Gives 0 where input < 0, `values` where it is 0, 1 where it is greater; RuntimeError for different dtypes."""
    if input.dtype is not values.dtype:
        raise RuntimeError(
            f"heaviside is not yet implemented for tensors with different dtypes; got {input.dtype.name} and "
            f"{values.dtype.name}"
        )
    return ops.heaviside(input, values)


def clamp(input: Any, min: Any = None, max: Any = None) -> Any:
    """Limits each element to [min, max] (numbers or tensors, either may be None); where min > max gives max."""
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if min is None:
        return ops.clamp_max(input, max)
    if max is None:
        return ops.clamp_min(input, min)
    return ops.clamp(input, min, max)


def clamp_min(input: Any, min: Any) -> Any:
    """Raises each element to at least `min`."""
    return ops.clamp_min(input, min)


def clamp_max(input: Any, max: Any) -> Any:
    """Lowers each element to at most `max`."""
    return ops.clamp_max(input, max)


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """Gives `input` where the bool tensor `condition` holds, else `other`; tensors or numbers, broadcasting.

    With the condition alone: the indices of its true elements, one int64 tensor per dim. RuntimeError unless bool.
    """
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if condition.dtype is dtypes.uint8:
        condition = ops.ne(condition, 0)
    if condition.dtype is not dtypes.bool_:
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype {condition.dtype.name}"
        )
    return ops.where(condition, input, other)


@in_float32()
def lerp(input: Any, end: Any, weight: Any) -> Any:
    """Interpolates: input + weight * (end - input); `weight` is a number or a tensor.

    RuntimeError unless dtypes agree, NotImplementedError for integers.
    """
    for name, value in (("end", end), ("weight", weight)):
        if is_tensor(value) and value.dtype is not input.dtype and not (name == "weight" and value.ndim == 0):
            raise RuntimeError(
                f"lerp: expected dtype {input.dtype.name} for `{name}` but got dtype {value.dtype.name}; convert it "
                "with .to(dtype)"
            )
    if input.dtype.category < 2:
        ops.takes("lerp", 2, 3)(input.dtype, {})
    return ops.lerp(input, end, weight)


@in_float32()
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """Gives input + value * tensor1 * tensor2, broadcasting."""
    kind = input.dtype
    if kind in _WIDE and tensor1.dtype is kind and tensor2.dtype is kind and type(value) in (int, float):
        return composed.addcmul(input, tensor1, tensor2, value)
    product = ops.mul(tensor1, tensor2)
    if not _is_one(value):
        integral = product.dtype.category < 2 and input.dtype.category < 2
        product = ops.mul(product, int(value) if integral and not is_tensor(value) else value)
    return ops.add(input, product)


@in_float32()
def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> Any:
    """Gives input + value * tensor1 / tensor2, broadcasting; RuntimeError when tensor1 and tensor2 are integers."""
    if tensor1.dtype.category < 2 and tensor2.dtype.category < 2:
        raise RuntimeError(
            "addcdiv: Integer division with addcdiv is no longer supported; convert tensor1 or tensor2 to floating "
            "point, or write input + value * torch.div(tensor1, tensor2, rounding_mode='trunc')"
        )
    quotient = ops.div(tensor1, tensor2)
    return ops.add(input, quotient if _is_one(value) else ops.mul(quotient, value))


def nan_to_num(input: Any, nan: float | None = None, posinf: float | None = None, neginf: float | None = None) -> Any:
    """Replaces NaN (default 0) and infinities (default: the dtype's largest and smallest finite number)."""
    if input.dtype.category < 2:
        zero = False if input.dtype is dtypes.bool_ else 0
        return ops.nan_to_num(input, zero, zero, zero)
    kind = input.dtype.to_real()
    limit = 3.3895313892515355e38 if kind is dtypes.bfloat16 else float(np.finfo(kind.numpy).max)
    return ops.nan_to_num(
        input, 0.0 if nan is None else nan, limit if posinf is None else posinf, -limit if neginf is None else neginf
    )


absolute = abs
arccos, arccosh = acos, acosh
arcsin, arcsinh = asin, asinh
arctan, arctan2, arctanh = atan, atan2, atanh
clip = clamp
divide = div
fix = trunc
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
multiply = mul
negative = neg
subtract = sub


def true_divide(input: Any, other: Any) -> Any:
    """Divides elementwise; integers give the default float."""
    return ops.div(input, other)
