"""Compiled kernels of activations that are made of straight pieces: one pass, where numpy compares, selects and multiplies."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel, scalar


@scalar
def _cut(v: Any, low: Any, high: Any) -> Any:
    v = low if v < low else v
    return high if v > high else v


@kernel("1 float 1")
def _leaky_relu(x: Any, slope: Any, y: Any) -> None:
    factor = x.dtype.type(slope)
    zero = x.dtype.type(0)
    for i in range(len(x)):
        v = x[i]
        y[i] = v if v > zero else v * factor


@kernel("1 1 float 1")
def _leaky_relu_backward(h: Any, x: Any, slope: Any, y: Any) -> None:
    factor = x.dtype.type(slope)
    zero = x.dtype.type(0)
    for i in range(len(x)):
        y[i] = h[i] if x[i] > zero else h[i] * factor


@kernel("1 1")
def _hardswish(x: Any, y: Any) -> None:
    kind = x.dtype.type
    zero, three, six = kind(0), kind(3), kind(6)
    for i in range(len(x)):
        y[i] = x[i] * _cut(x[i] + three, zero, six) / six


@kernel("1 1 1")
def _hardswish_backward(h: Any, x: Any, y: Any) -> None:
    kind = x.dtype.type
    three, half, one, zero = kind(3), kind(0.5), kind(1), kind(0)
    for i in range(len(x)):
        v = x[i]
        slope = one if v >= three else v / three + half
        y[i] = h[i] * (slope if v > -three else zero)


@kernel("1 1")
def _hardsigmoid(x: Any, y: Any) -> None:
    kind = x.dtype.type
    zero, three, six = kind(0), kind(3), kind(6)
    for i in range(len(x)):
        y[i] = _cut(x[i] + three, zero, six) / six


@kernel("1 float 1", exact=True)
def _softshrink(x: Any, limit: Any, y: Any) -> None:
    most = x.dtype.type(limit)
    for i in range(len(x)):
        y[i] = x[i] - _cut(x[i], -most, most)


@kernel("1 float 1", exact=True)
def _hardshrink(x: Any, limit: Any, y: Any) -> None:
    most, zero = x.dtype.type(limit), x.dtype.type(0)
    for i in range(len(x)):
        y[i] = zero if (x[i] >= -most) & (x[i] <= most) else x[i]


@kernel("1 float float 1", exact=True)
def _threshold(x: Any, limit: Any, value: Any, y: Any) -> None:
    least, other = x.dtype.type(limit), x.dtype.type(value)
    for i in range(len(x)):
        y[i] = other if x[i] <= least else x[i]


def leaky_relu(x: np.ndarray, slope: float) -> np.ndarray:
    """Gives x where positive, else x * slope."""
    y = np.empty(x.shape, x.dtype)
    _leaky_relu(x.reshape(-1), slope, y.reshape(-1))
    return y


def leaky_relu_backward(h: np.ndarray, x: np.ndarray, slope: float) -> np.ndarray:
    """Gives h where x is positive, else h * slope."""
    y = np.empty(x.shape, x.dtype)
    _leaky_relu_backward(h.reshape(-1), x.reshape(-1), slope, y.reshape(-1))
    return y


def hardswish(x: np.ndarray) -> np.ndarray:
    """Gives x * min(max(x + 3, 0), 6) / 6."""
    y = np.empty(x.shape, x.dtype)
    _hardswish(x.reshape(-1), y.reshape(-1))
    return y


def hardswish_backward(h: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives h times the slope of `hardswish` at x: 0 up to -3, 1 from 3 on, x / 3 + 1/2 between."""
    y = np.empty(x.shape, x.dtype)
    _hardswish_backward(h.reshape(-1), x.reshape(-1), y.reshape(-1))
    return y


def hardsigmoid(x: np.ndarray) -> np.ndarray:
    """Gives min(max(x + 3, 0), 6) / 6."""
    y = np.empty(x.shape, x.dtype)
    _hardsigmoid(x.reshape(-1), y.reshape(-1))
    return y


def softshrink(x: np.ndarray, limit: float) -> np.ndarray:
    """Gives what x is beyond -limit and limit, 0 between."""
    y = np.empty(x.shape, x.dtype)
    _softshrink(x.reshape(-1), limit, y.reshape(-1))
    return y


def hardshrink(x: np.ndarray, limit: float) -> np.ndarray:
    """Gives x, but 0 from -limit to limit."""
    y = np.empty(x.shape, x.dtype)
    _hardshrink(x.reshape(-1), limit, y.reshape(-1))
    return y


def threshold(x: np.ndarray, limit: float, value: float) -> np.ndarray:
    """Gives x, but `value` where x is at most `limit`."""
    y = np.empty(x.shape, x.dtype)
    _threshold(x.reshape(-1), limit, value, y.reshape(-1))
    return y
