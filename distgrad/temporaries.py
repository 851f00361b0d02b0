"""Memory of an expression's intermediate results, used again by the operator that consumes them.

In `x * x + x` the product is a new array that nobody can name: the sum is written over it, which saves a pass over fresh
memory, as numpy does for its own arrays. Invariant: a tensor is written over only when an operator of the running
frame made it, the frame's code hands it from there straight to the operator at hand, nobody else refers to it, its node
or its array, and no gradient or program is recorded. Where a Python counts or compiles otherwise, nothing is reused.
"""

from __future__ import annotations

import dis
import sys
import weakref
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

import numpy as np

from distgrad import writing

LEAST = 1 << 15  # elements: below, memory is not what an operator's time goes to

_ARITHMETIC = frozenset((np.add, np.subtract, np.multiply, np.true_divide, np.square))
_REFERENCES = 5  # to a temporary: the frame's stack, the operator, two names of `reuse`, and getrefcount
_MAKING = frozenset(("BINARY_OP",))
_PUSHING = frozenset((
    "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF",
    "LOAD_CLOSURE", "PUSH_NULL", "KW_NAMES", "NOP", "CACHE", "EXTENDED_ARG"))
_TAKING = frozenset((
    "LOAD_ATTR", "LOAD_METHOD", "BINARY_OP", "BINARY_SUBSCR", "BINARY_SLICE", "BUILD_SLICE", "BUILD_TUPLE",
    "UNARY_NEGATIVE", "PRECALL", "CALL"))

# The latest large results of operators: a weak reference to each, the id of the frame, and where in its code it was.
latest: list[tuple[weakref.ref[Any], int, int] | None] = [None, None]


def made(tensor: Any, frame: FrameType) -> None:
    """Notes a large result of an operator that the frame runs."""
    data = tensor._node.data
    if data is not None and data.size >= LEAST and tensor._view is None and not tensor._needs_grad:
        latest[1] = latest[0]
        latest[0] = (weakref.ref(tensor), id(frame), frame.f_lasti)


@lru_cache(maxsize=4096)
def _consumed_as(code: CodeType, made_at: int, used_at: int) -> int | None:
    """Gives which operand (0, 1) of the operator at `used_at` is what the one at `made_at` left on the stack.

    None where it is neither, or where an instruction in between might have kept it. `depth` counts what lies on the
    stack from that result on.
    """
    depth = 0
    for instruction in dis.get_instructions(code):
        name, at = instruction.opname, instruction.offset
        if at < made_at:
            continue
        if at == made_at:
            if name not in _MAKING:
                return None
            depth = 1
        elif at == used_at:
            return {2: 0, 1: 1}.get(depth) if name == "BINARY_OP" else None
        elif name not in _PUSHING and (name not in _TAKING or depth < 2):
            return None
        else:
            depth += dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
            if depth < (1 if name in _PUSHING else 2):
                return None
    return None


def _is_large(left: Any, right: Any) -> bool:
    data = (getattr(left, "_node", None) or right._node).data
    return data is not None and data.size >= LEAST


def reuse(function: Any, left: Any, right: Any, frame: FrameType) -> Any:
    """Writes an operator's result over an operand that is an intermediate result, the left one first; None without one."""
    notes = latest[1], latest[0]
    if not _is_large(left, right):
        latest[:] = None, None  # small operators need not look here
        return None
    if function not in _ARITHMETIC:
        return None
    for note in notes:
        if note is None or note[1] != id(frame):
            continue
        temporary = note[0]()
        position = _consumed_as(frame.f_code, note[2], frame.f_lasti)
        if temporary is None or position is None or (left, right)[position] is not temporary:
            continue
        if sys.getrefcount(temporary) != _REFERENCES or temporary._needs_grad or temporary._shares_numpy:
            continue
        other = right if position == 0 else left
        if function is np.square:  # x ** 2
            done = position == 0 and writing.compute(temporary, function)
        else:
            done = writing.compute(temporary, function, other, swapped=position == 1)
        if done:
            latest[:] = None, None
            return temporary
    return None
