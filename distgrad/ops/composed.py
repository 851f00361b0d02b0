"""Elementwise formulas of several operations as one op each, which reads and writes large arrays once.

Invariant: the operations, their order and their roundings are those of the formula written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.families import elementwise
from distgrad.kernels import compiled


def _addcmul(a: Any, b: Any, c: Any, value: Any) -> Any:
    if a.size >= compiled.LEAST and value.ndim == 0 and compiled.fits(a, b, c):
        from distgrad.kernels import elementwise as loops

        return loops.addcmul(a, b, c, float(value))
    product = b * c
    if value.ndim or value != 1:
        product = product * value
    return a + product


def _isclose(a: Any, b: Any, *, rtol: float, atol: float, equal_nan: bool) -> Any:
    shape = np.broadcast_shapes(a.shape, b.shape)
    if a.size >= compiled.LEAST and compiled.fits(a) and a.dtype == b.dtype and shape == a.shape:
        from distgrad.kernels import elementwise as loops

        whole = b if compiled.fits(a, b) else np.array(np.broadcast_to(b, a.shape), order="C")
        return loops.isclose(a, whole, rtol, atol, equal_nan)
    kind = b.dtype.type
    difference = np.absolute(a - b)
    close = (difference <= np.absolute(b * kind(rtol)) + kind(atol)) & np.isfinite(difference) | (a == b)
    return close | ((a != a) & (b != b)) if equal_nan else close


addcmul = elementwise("addcmul", _addcmul, "a b c value", linear=("PP..", "P.P."), vjps=(
    lambda g: g, lambda g, c, value: g * value * c, lambda g, b, value: g * value * b, None))
"""a + b * c * value of floating tensors, for a number `value`."""
isclose = elementwise("isclose", _isclose, "a b", result="bool")
"""Whether |a - b| <= atol + rtol * |b| and is finite, or a and b are equal (NaN too, with `equal_nan`)."""
