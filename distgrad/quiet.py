"""Numpy's state around one kernel, quickly: `np.errstate` takes as long as a small kernel.

Floating-point warnings are off. Rows that are repeated, or do not follow each other, are not copied where that takes longer
than to work on them one by one: numpy's iterator copies them to fill its buffer, unless that holds less than a row.

Invariant: the state is the calling context's own, and is what it was before once a block is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

__all__ = ["by_rows", "enter", "enter_by_rows", "leave"]

_BUFFER = 512  # elements; numpy's own default is 8,192
_ROWS = range(400, 5600)  # elements of the rows that numpy would copy, and that are long enough not to
_LEAST_BYTES = 1 << 18
_FUNCTIONS = (np.add, np.subtract, np.multiply, np.true_divide)  # which read one repeated element as fast as many


def by_rows(function: Any, shape: Sequence[int], dtype: np.dtype) -> bool:
    """Says whether a ufunc with results of this shape and dtype is faster with a small buffer, if its inputs are not alike."""
    return (
        function in _FUNCTIONS and len(shape) > 1 and shape[-1] in _ROWS and dtype.char in "fd"
        and prod(shape) * dtype.itemsize >= _LEAST_BYTES
    )


def _slow_enter() -> Any:
    state = np.errstate(all="ignore")
    state.__enter__()
    return state


def _slow_leave(state: Any) -> None:
    state.__exit__(None, None, None)


def _quick() -> tuple[Any, Any, Any]:
    """Gives the setting and restoring of the context variable that `np.errstate` itself sets, where numpy has it."""
    try:
        from numpy._core.umath import _extobj_contextvar as variable
    except ImportError:  # numpy keeps it elsewhere: its public form does the same
        return _slow_enter, _slow_enter, _slow_leave
    with np.errstate(all="ignore"):  # which restores all of the state
        ignoring = variable.get()
        np.setbufsize(_BUFFER)
        small = variable.get()
    return (lambda: variable.set(ignoring)), (lambda: variable.set(small)), variable.reset


enter, enter_by_rows, leave = _quick()
