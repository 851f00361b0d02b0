"""Compiled kernels of one step of a recurrent layer, between its products of matrices.

Invariant: gates stand in PyTorch's order (i, f, g, o) in the first four parts of a workspace row, the cell in the fifth.
"""

from __future__ import annotations

from typing import Any

from distgrad.kernels.compiling import kernel


@kernel("2 2 2 2")
def lstm_cell(squashed: Any, cell: Any, workspace: Any, new_cell: Any) -> None:
    """Makes the gates and the cell of a step from tanh of what arrives (halved, but for g): sigmoid(2 x) = (1 + tanh x) / 2."""
    half, size = squashed.dtype.type(0.5), cell.shape[1]
    for b in range(cell.shape[0]):
        row, gates, before, after = squashed[b], workspace[b], cell[b], new_cell[b]
        # Slices, not offsets: the compiler then knows that nothing overlaps, and makes vectors.
        in_i, in_f, in_g, in_o = row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]
        out_i, out_f, out_g = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size]
        out_o, out_c = gates[3 * size : 4 * size], gates[4 * size :]
        for j in range(size):
            i, f, g = half + half * in_i[j], half + half * in_f[j], in_g[j]
            c = f * before[j] + i * g
            out_i[j], out_f[j], out_g[j], out_c[j] = i, f, g, c
            out_o[j] = half + half * in_o[j]
            after[j] = c


@kernel("2 2 2 2 2 2 2")
def lstm_cell_backward(
    workspace: Any, before: Any, squashed: Any, from_above: Any, from_later: Any, cell_slope: Any, slope: Any
) -> None:
    """Gives the slopes of what arrives at the gates; `cell_slope` becomes that of the cell before.

    `before` is that cell, `squashed` tanh of this one; the output's slope is `from_above` + `from_later`.
    """
    one, size = before.dtype.type(1), before.shape[1]
    for b in range(before.shape[0]):
        gates, c, t, d = workspace[b], before[b], squashed[b], slope[b]
        above, later, carried = from_above[b], from_later[b], cell_slope[b]
        of_i, of_f, of_g = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size]
        of_o, d_i, d_f = gates[3 * size : 4 * size], d[:size], d[size : 2 * size]
        d_g, d_o = d[2 * size : 3 * size], d[3 * size :]
        for j in range(size):
            i, f, g, o = of_i[j], of_f[j], of_g[j], of_o[j]
            now = above[j] + later[j]
            to_cell = carried[j] + now * o * (one - t[j] * t[j])
            d_i[j] = to_cell * g * i * (one - i)
            d_f[j] = to_cell * c[j] * f * (one - f)
            d_g[j] = to_cell * i * (one - g * g)
            d_o[j] = now * t[j] * o * (one - o)
            carried[j] = to_cell * f
