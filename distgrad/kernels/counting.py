"""A compiled kernel that counts elements in bins of equal width.

Invariant: with edges an element is counted where a search among them finds it; without, where arithmetic puts it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.kernels.compiling import kernel


@kernel("1 1 float float i1")
def _count(x: Any, edges: Any, low: Any, high: Any, counts: Any) -> None:
    kind = x.dtype.type
    bins = counts.size
    least, most, scale = kind(low), kind(high), kind(bins / (high - low))
    exact = edges.size > 0
    for i in range(x.size):
        v = x[i]
        if v >= least and v <= most:
            place = min(int((v - least) * scale), bins - 1)
            if exact:
                while place > 0 and v < edges[place]:
                    place -= 1
                while place < bins - 1 and v >= edges[place + 1]:
                    place += 1
            counts[place] += 1


def count(x: np.ndarray, edges: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Counts the elements of a flat x in `bins` equal parts of [low, high], between `edges` where there are any."""
    counts = np.zeros(bins, np.int64)
    _count(x, edges, low, high, counts)
    return counts
