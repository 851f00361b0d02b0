"""Python's collector of cycles while a session runs: the graph of a step is not garbage, so it does not start for its sake.

A recorded step makes some thousand objects, which end with it by their reference counts. At Python's usual threshold of 700
that starts the collector several times a step, and each time for nothing (a quarter of the driver's time for a
transformer of 4 layers, measured). Invariant: whoever has switched the collector off, or set it anew meanwhile, keeps that.
"""

from __future__ import annotations

import gc

OBJECTS = 20_000  # made and not yet ended, from which the collector starts

_found: list[tuple[int, int, int]] = []


def relax() -> None:
    """Lets the collector start later."""
    first, second, third = gc.get_threshold()
    if 0 < first < OBJECTS:
        _found[:] = [(first, second, third)]
        gc.set_threshold(OBJECTS, second, third)


def restore() -> None:
    """Gives the collector its threshold back, if it is still the one that `relax` has set."""
    if _found:
        before = _found.pop()
        if gc.get_threshold() == (OBJECTS, *before[1:]):
            gc.set_threshold(*before)
