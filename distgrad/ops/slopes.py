"""Gradients of elementwise functions as one op each: what reverse passes without a graph of their own run.

Where a graph is asked for (create_graph) the rules use their plain formulas, which have derivatives; these ops have
none. Invariant: an op computes its rule's formula with the same roundings, in fewer passes over memory and with no more
than one array beside its inputs; it is linear in the cotangent h, its first input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.families import elementwise
from distgrad.kernels import compiled
from distgrad.op import Op
from distgrad.ops.selecting import keep_array


def slope_fits(h: Any, *arrays: Any) -> bool:
    """Says whether compiled loops take a cotangent, one number repeated or an array, and arrays of its shape."""
    first = arrays[0]
    if first.size < compiled.LEAST or not compiled.fits(*arrays) or h.dtype != first.dtype or h.shape != first.shape:
        return False
    return bool(h.flags.carray) or not any(h.strides)


def times(h: Any, slope: Any) -> Any:
    """Gives h * slope, in the memory of the slope, a kernel's own temporary, where that has the result's shape."""
    if slope.ndim and slope.shape == h.shape:
        return np.multiply(h, slope, out=slope)
    return h * slope


def _negated(x: Any) -> Any:
    return np.negative(x, out=x) if x.ndim else -x


def _sqrt(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.sqrt(h, out)
    return h / (out + out)


def _reciprocal(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.reciprocal(h, out)
    return _negated(times(h, out * out))


def _quotient(h: Any, out: Any, b: Any) -> Any:
    if slope_fits(h, out, b):
        from distgrad.kernels import slopes

        return slopes.quotient(h, out, b)
    return _negated(times(h, out / b))


def _square(h: Any, x: Any) -> Any:
    if slope_fits(h, x):
        from distgrad.kernels import slopes

        return slopes.square(h, x)
    return times(h, x + x)


def _twice(h: Any, x: Any) -> Any:
    if slope_fits(h, x):
        from distgrad.kernels import slopes

        return slopes.twice(h, x)
    product = h * x
    return np.add(product, product, out=product) if product.ndim else product + product


def _tanh(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.tanh(h, out)
    return times(h, 1 - out * out)


def _sigmoid(h: Any, out: Any) -> Any:
    if slope_fits(h, out):
        from distgrad.kernels import slopes

        return slopes.sigmoid(h, out)
    return times(h, out - out * out)


def _clamp(h: Any, x: Any, low: Any, high: Any) -> Any:
    if low.ndim == 0 and high.ndim == 0 and slope_fits(h, x):
        from distgrad.kernels import slopes

        return slopes.clamp(h, x, float(low), float(high))
    return keep_array((x >= low) & (x <= high), h)


def _minus(x: Any) -> Any:
    if x.size >= compiled.LEAST and not any(x.strides):
        return np.broadcast_to(np.negative(x[(slice(0, 1),) * x.ndim]), x.shape)
    return np.negative(x)


def _slope(name: str, kernel: Any, inputs: str) -> Op:
    return elementwise(f"{name}_slope", kernel, inputs, linear=("P" + "." * (len(inputs.split()) - 1),))


sqrt_slope = _slope("sqrt", _sqrt, "h out")
reciprocal_slope = _slope("reciprocal", _reciprocal, "h out")
quotient_slope = _slope("quotient", _quotient, "h out b")
"""The gradient of a / b by b; `out` is the quotient."""
square_slope = _slope("square", _square, "h x")
twice_slope = _slope("twice", _twice, "h x")
"""The gradient of x * x, which overflows where that of x ** 2 does not, and the other way round."""
tanh_slope = _slope("tanh", _tanh, "h out")
sigmoid_slope = _slope("sigmoid", _sigmoid, "h out")
clamp_slope = _slope("clamp", _clamp, "h x low high")
minus = elementwise("minus", _minus, "x", linear=("P",))
"""-x, as an array of one number repeated where x is that."""
sin_slope = _slope("sin", lambda h, x: times(h, np.cos(x)), "h x")
cos_slope = _slope("cos", lambda h, x: _negated(times(h, np.sin(x))), "h x")
