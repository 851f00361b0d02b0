"""A compiled kernel of Fisher and Yates's exchanges, which are one loop and no expression of arrays.

Invariant: the order is the one that `distgrad.draws` gives without it, bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from distgrad.kernels.compiling import kernel

_AHEAD = 256  # places whose partners are known before they are exchanged, so that reads of memory overlap


@kernel("1 1", kinds=(types.uint32,))
def _exchange(words: Any, order: Any) -> None:
    n = order.size
    partners = np.empty(_AHEAD, np.int64)
    for first in range(0, n - 1, _AHEAD):
        count = min(_AHEAD, n - 1 - first)
        for j in range(count):
            i = first + j
            partners[j] = i + np.int64(words[i] % np.uint32(n - i))
        for j in range(count):
            i, partner = first + j, partners[j]
            order[i], order[partner] = order[partner], order[i]


def exchanged(words: np.ndarray) -> np.ndarray:
    """Gives 0, ..., n - 1 (int64) after exchanging places i and i + words[i] % (n - i), i = 0, ..., n - 2; n < 2**31."""
    order = np.arange(len(words) + 1, dtype=np.int32)  # half the memory to jump about in
    _exchange(words, order)
    return order.astype(np.int64)
