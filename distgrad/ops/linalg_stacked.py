"""Factorizations and solves of many small matrices at once: numpy steps over rows instead of a LAPACK call for each.

Invariant: pivots and packed forms are LAPACK's; matrices come as (B, m, n) and results differ from LAPACK's by rounding
alone.
"""

from __future__ import annotations

from math import prod

import numpy as np

_ROWS = 32  # up to so many rows a step over all matrices beats a LAPACK call per matrix ...
_MATRICES_PER_ROW = 3  # ... when there are at least so many matrices for each row


def many(batch: tuple[int, ...], rows: int) -> bool:
    """Says whether a batch is better worked on row by row than matrix by matrix."""
    return rows <= _ROWS and prod(batch) > _MATRICES_PER_ROW * rows


def lu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives packed factors, 1-based pivots (B, k) and info (B,) by elimination with partial pivoting, as getf2."""
    packed = x.copy()
    count, m, n = x.shape
    pivots = np.empty((count, min(m, n)), np.int32)
    info = np.zeros(count, np.int32)
    every = np.arange(count)
    for k in range(min(m, n)):
        column = packed[:, k:, k]
        sizes = np.abs(column.real) + np.abs(column.imag) if x.dtype.kind == "c" else np.abs(column)
        chosen = k + sizes.argmax(1)
        pivots[:, k] = chosen + 1
        packed[every, k], packed[every, chosen] = packed[every, chosen], packed[every, k]
        zero = packed[:, k, k] == 0
        info[zero & (info == 0)] = k + 1
        packed[:, k + 1 :, k] /= np.where(zero, 1, packed[:, k, k])[:, None]
        packed[:, k + 1 :, k + 1 :] -= packed[:, k + 1 :, k, None] * packed[:, k, None, k + 1 :]
    return packed, pivots, info


def order_of(pivots: np.ndarray, rows: int) -> np.ndarray:
    """Gives the order (B, rows) into which the row swaps of an LU factorization bring the rows."""
    order = np.tile(np.arange(rows), (len(pivots), 1))
    every = np.arange(len(pivots))
    for row, other in enumerate(pivots.T - 1):
        order[every, row], order[every, other] = order[every, other], order[every, row]
    return order


def solve_triangular(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """Gives X in A X = B by substitution, reading one triangle of A (B, n, n)."""
    out = np.array(np.broadcast_to(b, (len(a), *b.shape[1:])))
    n = a.shape[-1]
    for row in reversed(range(n)) if upper else range(n):
        known = slice(row + 1, n) if upper else slice(0, row)
        out[:, row] -= (a[:, row, None, known] @ out[:, known])[:, 0]
        if not unit:
            out[:, row] /= a[:, row, row, None]
    return out


def lu_solve(packed: np.ndarray, pivots: np.ndarray, b: np.ndarray, transpose: bool) -> np.ndarray:
    """Gives X in A X = B, or A^T X = B, from packed factors."""
    order = order_of(pivots, packed.shape[-1])[:, :, None]
    if not transpose:
        moved = np.take_along_axis(np.broadcast_to(b, (len(packed), *b.shape[1:])), order, 1)
        return solve_triangular(packed, solve_triangular(packed, moved, False, True), True, False)
    turned = packed.swapaxes(-2, -1)
    inner = solve_triangular(turned, solve_triangular(turned, b, False, False), True, True)
    out = np.empty_like(inner)
    np.put_along_axis(out, order, inner, 1)
    return out
