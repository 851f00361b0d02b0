"""Which results of large ops are temporaries: known to nothing but the expression they stand in.

`a * b + c` makes a * b for the addition alone, whose result can take its memory, as numpy's does. That nobody else counts
as an owner does not prove it: C code may call an operator with a value it has only borrowed (an array of objects does). So
the place has to prove it as well. Invariant: `spare_operand` gives a tensor only to an operator in the very frame where it
was made, when nothing stands between the two in the code but loads and operators: no jump comes or goes there,
nothing stores, and what the loads and the other operators run never saw the tensor.
"""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType
from typing import Any

LEAST_BYTES = 1 << 18  # as numpy: below, the result's memory is in the cache anyway
_MOST = 16  # results that are remembered

_PACKAGE = __name__.partition(".")[0]
_HARMLESS = tuple(name.startswith(("LOAD_", "BINARY_", "UNARY_")) or name in ("CACHE", "EXTENDED_ARG") for name in dis.opname)


def _references(a: Any, b: Any) -> int:
    """Gives what `sys.getrefcount` says of an operand where `spare_operand` asks it."""
    for one in (a, b):
        return sys.getrefcount(one)
    raise AssertionError


class _Probe:
    def __add__(self, other: Any) -> int:
        return _references(self, other)


_probe = _Probe()
_ALONE = _Probe() + 1
_COUNTS = _probe + 1 > _ALONE  # not where the interpreter does not count what its own stack holds

made: dict[int, tuple[int, CodeType, int]] = {}
"""For the latest large results, by the tensor's `id`: where they were made (the frame's `id`, its code, the instruction)."""


def note(tensor: Any) -> None:
    """Remembers where in the user's code an op, which calls this, makes a large result."""
    if not _COUNTS:
        return
    frame: Any = sys._getframe(2)
    while frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
        if frame is None:
            return
    if len(made) >= _MOST:
        made.clear()
    made[id(tensor)] = (id(frame), frame.f_code, frame.f_lasti)


def spare_operand(a: Any, b: Any) -> Any:
    """Gives the operand of an operator, whose method calls this, that is a temporary; None where none is."""
    for one in (a, b):
        if id(one) in made and sys.getrefcount(one) == _ALONE:
            frame = sys._getframe(2)
            where, code, start = made.pop(id(one), (0, None, 0))
            if code is not None and where == id(frame) and code is frame.f_code and _straight(code, start, frame.f_lasti):
                return one
    return None


@lru_cache(maxsize=4096)
def _straight(code: CodeType, start: int, stop: int) -> bool:
    """Says whether an operator stands at `stop` and only loads and operators between `start` and it (offsets in bytes)."""
    steps = code.co_code
    if stop <= start or not dis.opname[steps[stop]].startswith("BINARY_OP"):
        return False
    labels = dis.findlabels(steps)  # type: ignore[arg-type]  # takes the bytes, says its documentation
    if any(start < label <= stop for label in labels):  # a jump comes in
        return False
    return all(_HARMLESS[step] for step in steps[start + 2 : stop : 2])
