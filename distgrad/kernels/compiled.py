"""Which kernels run as compiled loops: large arrays of float32 and float64, unless DISTGRAD_FUSED=0.

Invariant: the answer depends on an array's size and dtype alone, never on time, so that a program repeats its own bits.
"""

from __future__ import annotations

import os

import numpy as np

LEAST = 4096  # elements: below, numpy is as fast, and small programs never load the compiler
_enabled = [os.environ.get("DISTGRAD_FUSED", "1") != "0"]


def takes(array: np.ndarray) -> bool:
    """Says whether a kernel on this array runs compiled."""
    return array.size >= LEAST and array.dtype.char in "fd" and _enabled[0]


def enable(on: bool) -> None:
    """Switches compiled loops on or off in this process, and in sessions that begin later."""
    _enabled[0] = on
    os.environ["DISTGRAD_FUSED"] = "1" if on else "0"
