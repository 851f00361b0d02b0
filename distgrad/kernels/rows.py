"""A compiled kernel that adds rows at the positions of an index, as the gradient of an embedding does."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel


@kernel("2 i1 2")
def _add_rows(g: Any, index: Any, out: Any) -> None:
    for i in range(g.shape[0]):
        row = index[i]
        for j in range(g.shape[1]):
            out[row, j] += g[i, j]


def add_rows(g: np.ndarray, index: np.ndarray, rows: int) -> np.ndarray:
    """Adds rows of g (n, d) to row index[i] of zeros (rows, d), in order."""
    out = np.zeros((rows, g.shape[1]), g.dtype)
    _add_rows(g, index, out)
    return out
