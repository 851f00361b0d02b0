"""Activation ops, softmax and log_softmax along an axis, logsumexp: one kernel each, rules that save one array.

Invariant: an elementwise rule saves the input or the output, never both, and prefers the output where the slope follows
from it (the next layer keeps that array anyway). Each `*_backward` op is the slope times the cotangent.
Definitions: the PyTorch pages of torch.nn.functional.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.families import along, elementwise, other_dims_rows, reduced_shape, reduction, unary
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops import across_reduction
from distgrad.ops.elementwise import (
    clamp_min_array,
    exp,
    expm1,
    keep,
    keep_array,
    le,
    lt,
    neg,
    select_array,
    sigmoid,
    takes,
    tanh,
    widened,
)
from distgrad.ops.reduction import sum as total
from distgrad.ops.slopes import slope_fits

_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_GELU_SCALE = math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715


def _into(ufunc: Any, x: Any) -> Any:
    """Applies a ufunc to a kernel's own temporary, in its memory (0-d results of numpy have none)."""
    return ufunc(x, out=x) if x.ndim else ufunc(x)


def _sigmoid(x: Any) -> Any:
    t = _into(np.exp, np.negative(x))
    t += 1
    return _into(np.reciprocal, t)


# Piecewise linear -------------------------------------------------------------------------------------------


def _relu(x: Any) -> Any:
    return clamp_min_array(x, x.dtype.type(0))


def _relu_backward(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.relu(h, out)
    return keep_array(out > 0, h)


def _leaky_relu(x: Any, slope: Any) -> Any:
    if slope.ndim == 0 and x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.leaky_relu(x, float(slope))
    if slope.ndim == 0 and 0 < slope <= 1:
        return np.maximum(x, x * slope)
    return select_array(x > 0, x, x * slope)


def _leaky_relu_backward(h: Any, x: Any, slope: Any) -> Any:
    if slope.ndim == 0 and h.size >= compiled.LEAST and compiled.fits(h, x):
        from distgrad.kernels import bends

        return bends.leaky_relu_backward(h, x, float(slope))
    return select_array(x > 0, h, h * slope)


relu = unary("relu", _relu, lambda g, y: relu_backward(g, y), result="promote", check=takes("relu", 1, 2))
relu_backward: Op = elementwise("relu_backward", _relu_backward, "h out", linear=("P.",),
                            vjps=(lambda g, out: relu_backward(g, out), None))
leaky_relu = elementwise("leaky_relu", _leaky_relu, "x slope", check=takes("leaky_relu", 2), vjps=(
    lambda g, x, slope: leaky_relu_backward(g, x, slope), lambda g, x: keep(le(x, 0), g * x)))
leaky_relu_backward: Op = elementwise(
    "leaky_relu_backward", _leaky_relu_backward, "h x slope", linear=("P..",),
    vjps=(lambda g, x, slope: leaky_relu_backward(g, x, slope), None, lambda g, h, x: keep(le(x, 0), g * h)))


def _hardtanh(x: Any, low: Any, high: Any) -> Any:
    return np.clip(x, low, high) if x.dtype.kind in "fiu" else np.minimum(np.maximum(x, low), high)


def _hardtanh_backward(h: Any, out: Any, low: Any, high: Any) -> Any:
    if low.ndim == 0 and high.ndim == 0 and slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.inside(h, out, float(low), float(high))
    return keep_array(~((out <= low) | (out >= high)), h)


def _threshold(x: Any, limit: Any, value: Any) -> Any:
    if limit.ndim == 0 and value.ndim == 0 and x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.threshold(x, float(limit), float(value))
    return select_array(x <= limit, value, x)


def _threshold_backward(h: Any, x: Any, limit: Any) -> Any:
    if limit.ndim == 0 and slope_fits(h, x):
        from distgrad.kernels import slopes

        return slopes.above(h, x, float(limit))
    return keep_array(~(x <= limit), h)


def _hardshrink(x: Any, limit: Any) -> Any:
    if limit.ndim == 0 and x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.hardshrink(x, float(limit))
    return keep_array(~((x >= -limit) & (x <= limit)), x)


def _softshrink(x: Any, limit: Any) -> Any:
    if limit.ndim == 0 and x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.softshrink(x, float(limit))
    return x - np.minimum(np.maximum(x, -limit), limit)


def _shrink_backward(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.not_zero(h, out)
    return keep_array(out != 0, h)


# Unlike clamp, no gradient passes at the bounds themselves.
hardtanh = elementwise("hardtanh", _hardtanh, "x low high", check=takes("hardtanh", 1, 2),
                       vjps=(lambda g, y, low, high: hardtanh_backward(g, y, low, high), None, None))
hardtanh_backward: Op = elementwise("hardtanh_backward", _hardtanh_backward, "h out low high", linear=("P...",), vjps=(
    lambda g, out, low, high: hardtanh_backward(g, out, low, high), None, None, None))
_inside: Op = elementwise("inside", lambda x, low, high: (x > low) & (x < high), "x low high", result="bool")
threshold = elementwise("threshold", _threshold, "x limit value", check=takes("threshold", 1, 2),
                        vjps=(lambda g, x, limit: threshold_backward(g, x, limit), None, None))
threshold_backward: Op = elementwise("threshold_backward", _threshold_backward, "h x limit", linear=("P..",), vjps=(
    lambda g, x, limit: threshold_backward(g, x, limit), None, None))
hardshrink = elementwise("hardshrink", _hardshrink, "x limit", check=takes("hardshrink", 2),
                         vjps=(lambda g, y: shrink_backward(g, y), None))
softshrink = elementwise("softshrink", _softshrink, "x limit", check=takes("softshrink", 2),
                         vjps=(lambda g, y: shrink_backward(g, y), None))
shrink_backward: Op = elementwise("shrink_backward", _shrink_backward, "h out", linear=("P.",), vjps=(
    lambda g, out: shrink_backward(g, out), None))


@widened
def _hardsigmoid(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.hardsigmoid(x)
    return np.clip(x + 3, x.dtype.type(0), x.dtype.type(6)) / 6


def _hardsigmoid_backward(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.hardsigmoid(h, out)
    return keep_array((out > 0) & (out < 1), h * h.dtype.type(1 / 6))


@widened
def _hardswish(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import bends

        return bends.hardswish(x)
    return x * np.clip(x + 3, x.dtype.type(0), x.dtype.type(6)) / 6


@widened
def _hardswish_backward(g: Any, x: Any) -> Any:
    if g.size >= compiled.LEAST and compiled.fits(g, x):
        from distgrad.kernels import bends

        return bends.hardswish_backward(g, x)
    slope = select_array(x >= 3, np.ones((), x.dtype), x / 3 + x.dtype.type(0.5))
    return g * keep_array(x > -3, slope)


hardsigmoid = unary("hardsigmoid", _hardsigmoid, lambda g, y: hardsigmoid_backward(g, y), result="promote",
                    check=takes("hardsigmoid", 2))
hardsigmoid_backward: Op = elementwise("hardsigmoid_backward", _hardsigmoid_backward, "h out", linear=("P.",), vjps=(
    lambda g, out: hardsigmoid_backward(g, out), None))
hardswish = unary("hardswish", _hardswish, lambda g, x: hardswish_backward(g, x), result="promote",
                  check=takes("hardswish", 2))
hardswish_backward: Op = elementwise("hardswish_backward", _hardswish_backward, "h x", linear=("P.",), vjps=(
    lambda g, x: hardswish_backward(g, x), lambda g, h, x: keep(_inside(x, -3, 3), g * h * (1 / 3))))


# Exponential linear units -----------------------------------------------------------------------------------
# y = scale * x for x > 0, else scale * alpha * (exp(inner * x) - 1). The slope below 0 is inner * (y + scale * alpha):
# the output alone is saved; y > 0 exactly where x > 0 (alpha and inner of one sign: see functions.elu).


@widened
def _elu(x: Any, alpha: Any, scale: Any, inner: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x) and np.ndim(alpha) == np.ndim(scale) == np.ndim(inner) == 0 and inner > 0:
        from distgrad.kernels import activations

        return activations.elu(x, float(alpha), float(scale), float(inner))
    below = _into(np.expm1, x * inner)
    below *= alpha
    y = select_array(x > 0, x, below)
    return y if scale == 1 else y * scale


@widened
def _elu_backward(h: Any, out: Any, alpha: Any, scale: Any, inner: Any) -> Any:
    return h * select_array(out > 0, scale, (out + alpha * scale) * inner)


elu = elementwise("elu", _elu, "x alpha scale inner", check=takes("elu", 2), vjps=(
    lambda g, y, alpha, scale, inner: elu_backward(g, y, alpha, scale, inner), None, None, None))
elu_backward: Op = elementwise("elu_backward", _elu_backward, "h out alpha scale inner", linear=("P....",), vjps=(
    lambda g, out, alpha, scale, inner: elu_backward(g, out, alpha, scale, inner),
    lambda g, h, out, inner: keep(lt(out, 0), g * h * inner), None, None, None))


# Smooth activations -----------------------------------------------------------------------------------------


def _normal_cdf(x: Any) -> tuple[Any, Any]:
    """Gives the standard normal distribution function and exp(-x * x / 2).

    float32 takes formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions, whose error (1.5e-7 for
    erf) is that of rounding 1 + erf; its tail is relative to exp(-x * x / 2). scipy's erf is ten times slower.
    """
    bell = np.square(x)
    bell *= x.dtype.type(-0.5)
    bell = _into(np.exp, bell)
    if x.dtype != np.float32:
        from scipy import special

        return special.ndtr(x).astype(x.dtype, copy=False), bell
    t = np.absolute(x)
    t *= np.float32(0.3275911 * _ROOT_HALF)
    t += np.float32(1)
    t = _into(np.reciprocal, t)
    tail = t * np.float32(0.5 * 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(0.5 * coefficient)
        tail *= t
    tail *= bell
    return select_array(x < 0, tail, 1 - tail), bell


@widened
def _gelu(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits_single(x):
        from distgrad.kernels import activations

        return activations.gelu(x)
    return x * _normal_cdf(x)[0]


@widened
def _gelu_backward(h: Any, x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits_single(h, x):
        from distgrad.kernels import activations

        return activations.gelu_backward(h, x)
    slope, bell = _normal_cdf(x)
    bell = bell * x
    bell *= x.dtype.type(_DENSITY)
    return h * (slope + bell)


gelu = unary("gelu", _gelu, lambda g, x: gelu_backward(g, x), result="promote", check=takes("gelu", 2))
gelu_backward: Op = elementwise("gelu_backward", _gelu_backward, "h x", linear=("P.",), vjps=(
    lambda g, x: gelu_backward(g, x),
    lambda g, h, x: g * h * ((2.0 - x * x) * exp(x * x * -0.5) * _DENSITY)))


def _gelu_tanh_inner(x: Any) -> tuple[Any, Any]:
    kind, squared = x.dtype.type, np.square(x)
    return np.tanh(x * (squared * kind(_GELU_SCALE * _GELU_CUBE) + kind(_GELU_SCALE))), squared


@widened
def _gelu_tanh(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.gelu_tanh(x)
    return (x * x.dtype.type(0.5)) * (_gelu_tanh_inner(x)[0] + 1)


@widened
def _gelu_tanh_backward(h: Any, x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(h, x):
        from distgrad.kernels import activations

        return activations.gelu_tanh_backward(h, x)
    kind = x.dtype.type
    t, squared = _gelu_tanh_inner(x)
    rise = x * (squared * kind(3 * _GELU_SCALE * _GELU_CUBE) + kind(_GELU_SCALE))
    return h * ((1 + t + rise * (1 - t * t)) * kind(0.5))


def _gelu_tanh_second(g: Any, h: Any, x: Any) -> Any:
    """With u = k (x + c x^3) and t = tanh u: (1 - t^2) (u' + x u'' / 2 - x t u'^2)."""
    t = tanh((x + x * x * x * _GELU_CUBE) * _GELU_SCALE)
    first = (x * x * (3 * _GELU_CUBE) + 1.0) * _GELU_SCALE
    half_second = x * (3 * _GELU_SCALE * _GELU_CUBE)
    return g * h * ((1.0 - t * t) * (first + x * half_second - x * t * first * first))


gelu_tanh = unary("gelu_tanh", _gelu_tanh, lambda g, x: gelu_tanh_backward(g, x), result="promote",
                  check=takes("gelu", 2))
gelu_tanh_backward: Op = elementwise("gelu_tanh_backward", _gelu_tanh_backward, "h x", linear=("P.",), vjps=(
    lambda g, x: gelu_tanh_backward(g, x), _gelu_tanh_second))


@widened
def _silu(x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.silu(x)
    return x * _sigmoid(x)


@widened
def _silu_backward(h: Any, x: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(h, x):
        from distgrad.kernels import activations

        return activations.silu_backward(h, x)
    s = _sigmoid(x)
    return h * (s * (1 + x * (1 - s)))


def _silu_second(g: Any, h: Any, x: Any) -> Any:
    s = sigmoid(x)
    return g * h * (s * (1.0 - s) * (2.0 + x * (1.0 - 2.0 * s)))


silu = unary("silu", _silu, lambda g, x: silu_backward(g, x), result="promote", check=takes("silu", 2, 3))
silu_backward: Op = elementwise("silu_backward", _silu_backward, "h x", linear=("P.",), vjps=(
    lambda g, x: silu_backward(g, x), _silu_second))


def _softplus_array(x: Any) -> Any:
    t = _into(np.exp, np.negative(np.absolute(x)))
    return np.maximum(x, 0) + _into(np.log1p, t)


@widened
def _mish(x: Any) -> Any:
    return x * np.tanh(_softplus_array(x))


@widened
def _mish_backward(h: Any, x: Any) -> Any:
    t = np.tanh(_softplus_array(x))
    return h * (t + x * _sigmoid(x) * (1 - t * t))


def _mish_second(g: Any, h: Any, x: Any) -> Any:
    """With t = tanh(softplus x), s = sigmoid x and d = t' = s (1 - t^2): d (2 + x (1 - s - 2 s t))."""
    t, s = tanh(softplus(x, 1.0, 20.0)), sigmoid(x)
    return g * h * (s * (1.0 - t * t) * (2.0 + x * (1.0 - s - 2.0 * s * t)))


mish = unary("mish", _mish, lambda g, x: mish_backward(g, x), result="promote", check=takes("mish", 2))
mish_backward: Op = elementwise("mish_backward", _mish_backward, "h x", linear=("P.",), vjps=(
    lambda g, x: mish_backward(g, x), _mish_second))


@widened
def _softplus(x: Any, beta: Any, limit: Any) -> Any:
    if x.size >= compiled.LEAST and compiled.fits(x) and np.ndim(beta) == 0 and beta and np.ndim(limit) == 0:
        from distgrad.kernels import activations

        return activations.softplus(x, float(beta), float(limit))
    scaled = x * beta
    return select_array(scaled > limit, x, _softplus_array(scaled) / beta)


@widened
def _softplus_backward(h: Any, x: Any, beta: Any, limit: Any) -> Any:
    if np.ndim(beta) == np.ndim(limit) == 0 and h.size >= compiled.LEAST and compiled.fits(h, x):
        from distgrad.kernels import activations

        return activations.softplus_backward(h, x, float(beta), float(limit))
    scaled = x * beta
    return select_array(scaled > limit, h, h * _sigmoid(scaled))


def _softplus_second(g: Any, h: Any, x: Any, beta: Any, limit: Any) -> Any:
    scaled = x * beta
    s = sigmoid(scaled)
    return keep(le(scaled, limit), g * h * (s * (1.0 - s) * beta))


softplus = elementwise("softplus", _softplus, "x beta limit", check=takes("softplus", 2), vjps=(
    lambda g, x, beta, limit: softplus_backward(g, x, beta, limit), None, None))
softplus_backward: Op = elementwise("softplus_backward", _softplus_backward, "h x beta limit", linear=("P...",), vjps=(
    lambda g, x, beta, limit: softplus_backward(g, x, beta, limit), _softplus_second, None, None))


@widened
def _log_sigmoid(x: Any) -> Any:
    t = _into(np.log1p, _into(np.exp, np.negative(np.absolute(x))))
    return np.minimum(x, 0) - t


# 1 - sigmoid(x) = -expm1(y), exact at both ends.
log_sigmoid = unary("log_sigmoid", _log_sigmoid, lambda g, y: neg(g * expm1(y)), result="promote",
                    check=takes("log_sigmoid", 2))


# Along an axis ----------------------------------------------------------------------------------------------


def _maximum_along(x: Any, axis: Any) -> Any:
    return np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf)


def _softmax_parts(x: Any, axis: int) -> tuple[Any, Any, Any]:
    """Gives x minus its maximum, the exponential of that, and the sum of the exponentials along the axis."""
    shifted = x - _maximum_along(x, axis)
    powers = np.exp(shifted)
    return shifted, powers, np.add.reduce(powers, axis=axis, keepdims=True)


@widened
def _softmax(x: Any, *, axis: int) -> Any:
    if x.size >= compiled.LEAST and axis == x.ndim - 1 and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.softmax(x)
    if not x.ndim:
        return np.exp(x - x)
    _, powers, sums = _softmax_parts(x, axis)
    powers /= sums
    return powers


@widened
def _log_softmax(x: Any, *, axis: int) -> Any:
    if x.size >= compiled.LEAST and axis == x.ndim - 1 and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.log_softmax(x)
    if not x.ndim:
        return x - x
    shifted, _, sums = _softmax_parts(x, axis)
    shifted -= np.log(sums)
    return shifted


@widened
def _softmax_backward(h: Any, out: Any, *, axis: int) -> Any:
    if h.size >= compiled.LEAST and axis == h.ndim - 1 and compiled.fits(h, out):
        from distgrad.kernels import activations

        return activations.softmax_backward(h, out)
    if not out.ndim:
        return h - h
    if axis == out.ndim - 1:
        t = h - np.vecdot(h, out)[..., None]
    else:
        t = h - np.add.reduce(h * out, axis=axis, keepdims=True)
    t *= out
    return t


@widened
def _log_softmax_backward(h: Any, out: Any, *, axis: int) -> Any:
    if h.size >= compiled.LEAST and axis == h.ndim - 1 and compiled.fits(h, out):
        from distgrad.kernels import activations

        return activations.log_softmax_backward(h, out)
    return h - np.exp(out) * np.add.reduce(h, axis=axis, keepdims=True) if out.ndim else h - h


def _pair_meta(h: TensorMeta, out: TensorMeta, *, axis: int) -> MetaResult:
    return (out,), None if h.dtype is out.dtype else (out.dtype, None)


def _pair_rows(through: Callable[..., Any]) -> Callable[..., Iterable[Row]]:
    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        if outs[0].ndim:
            yield Row((attrs["axis"],) * 2, (attrs["axis"],), through=through)
        yield Row(("sum", None), ("sum",))

    return rows


def _along_axis(x: Any, axis: int) -> Any:
    return total(x, axis=(axis,) if x.ndim else (), keepdims=True)


def softmax_backward_rule(g: Any, h: Any, out: Any, axis: int) -> Any:
    """Gives the gradient of `softmax_backward` by the output of softmax."""
    return g * (h - _along_axis(h * out, axis)) - h * _along_axis(g * out, axis)


softmax = along("softmax", _softmax, lambda g, y, axis: softmax_backward(g, y, axis=axis),
                through=across_reduction.softmax)
softmax_backward: Op = Op(
    "softmax_backward", _softmax_backward, meta=_pair_meta, inputs="h out",
    rows=_pair_rows(across_reduction.softmax_backward),
    vjps=(lambda g, out, axis: softmax_backward(g, out, axis=axis), softmax_backward_rule))
log_softmax = along("log_softmax", _log_softmax, lambda g, y, axis: log_softmax_backward(g, y, axis=axis),
                    through=across_reduction.log_softmax)
log_softmax_backward: Op = Op(
    "log_softmax_backward", _log_softmax_backward, meta=_pair_meta, inputs="h out",
    rows=_pair_rows(across_reduction.log_softmax_backward), vjps=(
        lambda g, out, axis: g - _along_axis(g * exp(out), axis),
        lambda g, h, out, axis: neg(_along_axis(h, axis) * g * exp(out))))


@widened
def _logsumexp(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not axis:
        return np.log(np.exp(1j * x.imag)) + x.real if x.dtype.kind == "c" else np.array(x)
    top = _maximum_along(x.real, axis)
    top = keep_array(np.isfinite(top), top)  # an infinite maximum must not be subtracted from itself
    powers = x - top
    np.exp(powers, out=powers)
    y = np.log(np.add.reduce(powers, axis=axis, keepdims=True)) + top
    return y.reshape(reduced_shape(x.shape, axis, keepdims))


def _logsumexp_rule(g: Any, y: Any, x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    if not keepdims:
        kept = reduced_shape(x.shape, axis, True)
        g, y = g.reshape(kept), y.reshape(kept)
    return g * exp(x - y)


# The rule needs input and output: recomputing either costs a pass over the input.
logsumexp = reduction("logsumexp", _logsumexp, _logsumexp_rule, through=across_reduction.logsumexp)
