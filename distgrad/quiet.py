"""Numpy's floating-point warnings off around one kernel, quickly: `np.errstate` takes as long as a small kernel.

Invariant: the state is the calling context's own, and is what it was before once a block is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["enter", "leave"]


def _slow_enter() -> Any:
    state = np.errstate(all="ignore")
    state.__enter__()
    return state


def _slow_leave(state: Any) -> None:
    state.__exit__(None, None, None)


def _quick() -> tuple[Any, Any]:
    """Gives the setting and restoring of the context variable that `np.errstate` itself sets, where numpy has it."""
    try:
        from numpy._core.umath import _extobj_contextvar as variable
    except ImportError:  # numpy keeps it elsewhere: its public form does the same
        return _slow_enter, _slow_leave
    with np.errstate(all="ignore"):
        ignoring = variable.get()
    return (lambda: variable.set(ignoring)), variable.reset


enter, leave = _quick()
