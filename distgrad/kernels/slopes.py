"""Compiled gradients of elementwise functions: the cotangent times the slope, in one pass.

Invariant: each element is computed by the formula, and with the roundings, of numpy's kernel: nothing is reordered. A
cotangent is an array of the shape of the others, or one number that a broadcast repeats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel


@kernel("1 1 1", exact=True)
def _sqrt(h: Any, out: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] / (out[i] + out[i])
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g / (out[i] + out[i])


@kernel("1 1 1", exact=True)
def _reciprocal(h: Any, out: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            y[i] = -(h[i] * (out[i] * out[i]))
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = -(g * (out[i] * out[i]))


@kernel("1 1 1 1", exact=True)
def _quotient(h: Any, out: Any, b: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            y[i] = -(h[i] * (out[i] / b[i]))
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = -(g * (out[i] / b[i]))


@kernel("1 1 1", exact=True)
def _square(h: Any, x: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] * (x[i] + x[i])
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g * (x[i] + x[i])


@kernel("1 1 1", exact=True)
def _twice(h: Any, x: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            t = h[i] * x[i]
            y[i] = t + t
    else:
        g = h[0]
        for i in range(y.size):
            t = g * x[i]
            y[i] = t + t


@kernel("1 1 1", exact=True)
def _tanh(h: Any, out: Any, y: Any) -> None:
    one = y.dtype.type(1)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] * (one - out[i] * out[i])
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g * (one - out[i] * out[i])


@kernel("1 1 1", exact=True)
def _relu(h: Any, out: Any, y: Any) -> None:
    zero = y.dtype.type(0)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] if out[i] > zero else zero
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g if out[i] > zero else zero


@kernel("1 1 1", exact=True)
def _abs(h: Any, x: Any, y: Any) -> None:
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] * ((one if x[i] > zero else zero) - (one if x[i] < zero else zero))
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g * ((one if x[i] > zero else zero) - (one if x[i] < zero else zero))


@kernel("1 1 float float 1", exact=True)
def _clamp(h: Any, x: Any, low: Any, high: Any, y: Any) -> None:
    least, most, zero = x.dtype.type(low), x.dtype.type(high), x.dtype.type(0)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] if (x[i] >= least) & (x[i] <= most) else zero
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g if (x[i] >= least) & (x[i] <= most) else zero


@kernel("1 1 1", exact=True)
def _sigmoid(h: Any, out: Any, y: Any) -> None:
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] * (out[i] - out[i] * out[i])
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g * (out[i] - out[i] * out[i])


@kernel("1 1 float float 1", exact=True)
def _inside(h: Any, out: Any, low: Any, high: Any, y: Any) -> None:
    least, most, zero = out.dtype.type(low), out.dtype.type(high), out.dtype.type(0)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = zero if (out[i] <= least) | (out[i] >= most) else h[i]
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = zero if (out[i] <= least) | (out[i] >= most) else g


@kernel("1 1 1", exact=True)
def _hardsigmoid(h: Any, out: Any, y: Any) -> None:
    zero, one, share = out.dtype.type(0), out.dtype.type(1), out.dtype.type(1 / 6)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = h[i] * share if (out[i] > zero) & (out[i] < one) else zero
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = g * share if (out[i] > zero) & (out[i] < one) else zero


@kernel("1 1 float 1", exact=True)
def _above(h: Any, out: Any, limit: Any, y: Any) -> None:
    least, zero = out.dtype.type(limit), out.dtype.type(0)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = zero if out[i] <= least else h[i]
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = zero if out[i] <= least else g


@kernel("1 1 1", exact=True)
def _not_zero(h: Any, out: Any, y: Any) -> None:
    zero = out.dtype.type(0)
    if h.size == y.size:
        for i in range(y.size):
            y[i] = zero if out[i] == zero else h[i]
    else:
        g = h[0]
        for i in range(y.size):
            y[i] = zero if out[i] == zero else g


def _flat(h: np.ndarray) -> np.ndarray:
    # The one number is copied: a broadcast may not be written to, which is another type for the compiler.
    return h.reshape(-1) if h.flags.c_contiguous else h[(slice(0, 1),) * h.ndim].flatten()


def _each(function: Any, h: np.ndarray, *arrays: np.ndarray, numbers: tuple[float, ...] = ()) -> np.ndarray:
    y = np.empty(h.shape, h.dtype)
    function(_flat(h), *(a.reshape(-1) for a in arrays), *numbers, y.reshape(-1))
    return y


def sqrt(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h / (2 out), out the square root."""
    return _each(_sqrt, h, out)


def reciprocal(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives -h * out ** 2, out the reciprocal."""
    return _each(_reciprocal, h, out)


def quotient(h: np.ndarray, out: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives -h * out / b, out the quotient by b."""
    return _each(_quotient, h, out, b)


def square(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives 2 h * x."""
    return _each(_square, h, x)


def twice(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h * x + h * x."""
    return _each(_twice, h, x)


def tanh(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h * (1 - out ** 2), out the hyperbolic tangent."""
    return _each(_tanh, h, out)


def absolute(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h times the sign of x, 0 for NaN."""
    return _each(_abs, h, x)


def relu(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h where `out` is positive, else 0."""
    return _each(_relu, h, out)


def clamp(h: np.ndarray, x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gives h where x is between two numbers of its dtype, else 0."""
    return _each(_clamp, h, x, numbers=(low, high))


def sigmoid(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h * (out - out ** 2), out the sigmoid."""
    return _each(_sigmoid, h, out)


def inside(h: np.ndarray, out: np.ndarray, low: float, high: float) -> np.ndarray:
    """Gives h, but 0 where `out` is not between two numbers, or is one of them."""
    return _each(_inside, h, out, numbers=(low, high))


def hardsigmoid(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h / 6 where `out` is between 0 and 1, else 0."""
    return _each(_hardsigmoid, h, out)


def above(h: np.ndarray, x: np.ndarray, limit: float) -> np.ndarray:
    """Gives h, but 0 where x is at most `limit`."""
    return _each(_above, h, x, numbers=(limit,))


def not_zero(h: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Gives h, but 0 where `out` is 0."""
    return _each(_not_zero, h, out)
