"""Converts kernel inputs to the dtype an op computes in."""

from __future__ import annotations

from typing import Any

import numpy as np


def convert(value: Any, kind: np.dtype) -> Any:
    """Gives an array or a Python number in a numpy dtype; integers wrap as in C."""
    if type(value) is np.ndarray:
        return value if value.dtype == kind else cast_array(value, kind)
    if kind.kind in "fcV":
        return kind.type(value)
    return np.array(value).astype(kind)[()]


def cast_array(value: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Gives an array in another dtype as PyTorch converts: complex loses its imaginary part, negative floats wrap."""
    if value.dtype.kind == "c" and kind.kind != "c":
        return value.real.astype(kind)
    if kind.kind == "u" and value.dtype.kind == "f":
        return value.astype(np.int64).astype(kind)
    return value.astype(kind)
