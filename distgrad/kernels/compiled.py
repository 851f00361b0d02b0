"""Which kernels run as compiled loops: large arrays of float32 and float64, unless DISTGRAD_FUSED=0.

Invariant: the answer depends on an array's size, layout and dtype alone, never on time, so that a program repeats its
own bits.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

LEAST = 4096  # elements: below, numpy is as fast, and small programs never load the compiler
_enabled = [os.environ.get("DISTGRAD_FUSED", "1") != "0"]
_FLOAT32 = np.dtype(np.float32)
_KINDS = frozenset((_FLOAT32, np.dtype(np.float64)))


def takes(array: np.ndarray) -> bool:
    """Says whether a kernel on this array runs compiled."""
    return takes_elements(array.size, array.dtype)


def takes_elements(count: int, kind: np.dtype) -> bool:
    """Says whether a kernel on so many elements of a dtype runs compiled."""
    return count >= LEAST and kind.char in "fd" and _enabled[0]


def fits(*arrays: Any) -> bool:
    """Says whether arrays of any size are what compiled loops take: contiguous, of one shape and dtype."""
    first = arrays[0]
    if not _enabled[0] or first.dtype not in _KINDS:
        return False
    return all(type(a) is np.ndarray and a.dtype == first.dtype and a.shape == first.shape and a.flags.carray
               for a in arrays)


def fits_single(*arrays: Any) -> bool:
    """Says the same for loops that exist in float32 alone."""
    return arrays[0].dtype == _FLOAT32 and fits(*arrays)


def fits_along(x: np.ndarray, index: np.ndarray, axis: int) -> bool:
    """Says whether compiled loops read and write the elements of x that an index of int64 names along an axis."""
    return (index.size >= LEAST and _enabled[0] and index.dtype == np.int64 and index.flags.carray and x.flags.carray
            and x.itemsize in (4, 8) and x.dtype.kind in "fic"
            and x.shape[:axis] == index.shape[:axis] and x.shape[axis + 1 :] == index.shape[axis + 1 :])


def enable(on: bool) -> None:
    """Switches compiled loops on or off in this process, and in sessions that begin later."""
    _enabled[0] = on
    os.environ["DISTGRAD_FUSED"] = "1" if on else "0"


def enabled() -> bool:
    """Says whether compiled loops are on."""
    return _enabled[0]


def _warm_up() -> None:
    from distgrad.kernels.compiling import warm_up

    warm_up()


def warm_up_in_background() -> threading.Thread:
    """Compiles every kernel, or loads it from disk, in a thread; a process that ends waits for one kernel at most."""
    thread = threading.Thread(target=_warm_up, name="distgrad-warm-up")
    thread.start()
    return thread
