"""Compiled kernels for what numpy does slowly: several passes, or loops numpy has no function for.

Each stands beside a numpy kernel of an op that gives the same values within rounding, is its oracle in the tests, and
is what small arrays take. Invariant: whether a call takes the compiled kernel follows from shapes, dtypes and the
setting alone, never from what has been compiled so far; nothing here is imported before a large array needs it.

The modules: `activations` (whatever takes an exponential), `elementwise`, `norms`, `pooling`, `rows` (sums by index).
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

SIZE = 16384
"""Elements from which calls are fused: below, starting Numba would cost a small program more than it ever gains."""

_KINDS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_FLOAT32 = np.dtype(np.float32)


class _Switch:
    """Whether compiled kernels are used. DISTGRAD_FUSED=0 in the environment switches them off."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = os.environ.get("DISTGRAD_FUSED", "1") != "0"


switch = _Switch()


def takes(*arrays: Any) -> bool:
    """Says whether arrays are what compiled kernels take: contiguous, of one shape, all float32 or all float64."""
    first = arrays[0]
    if not switch.on or first.dtype not in _KINDS:
        return False
    return all(type(a) is np.ndarray and a.dtype == first.dtype and a.shape == first.shape and a.flags.carray
               for a in arrays)


def takes_single(*arrays: Any) -> bool:
    """Says the same for kernels that exist in float32 alone."""
    return arrays[0].dtype == _FLOAT32 and takes(*arrays)


def _warm_up() -> None:
    from distgrad.fused.compiling import warm_up

    warm_up()


def warm_up_in_background() -> threading.Thread:
    """Compiles every kernel, or loads it from disk, in a thread; a process that ends waits for one kernel at most."""
    thread = threading.Thread(target=_warm_up, name="distgrad-warm-up")
    thread.start()
    return thread
