"""Compiled kernels of sums: numpy reads a row at a third of the speed of memory, and columns in one precision.

Invariant: sums are taken in two levels, so that rounding errors do not grow with the length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel

_RUN = 1024  # elements added up before they join a total in double precision


@kernel("2 1")
def _sum_rows(x: Any, out: Any) -> None:
    n = x.shape[1]
    for i in range(x.shape[0]):
        total = 0.0
        for first in range(0, n, _RUN):
            run = x[i, first : min(first + _RUN, n)]
            part = x.dtype.type(0)
            for j in range(run.size):
                part += run[j]
            total += part
        out[i] = total


def sum_rows(x: np.ndarray) -> np.ndarray:
    """Adds up the rows of x (rows, n)."""
    out = np.empty(len(x), x.dtype)
    _sum_rows(x, out)
    return out
