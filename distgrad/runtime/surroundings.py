"""The Python values a function takes from around it: globals, what its closure holds, the object it is a method of.

Invariant: two equal answers mean equal values, as far as they are looked at: plain values and which tensors, also one level
inside a container or an object. What modules and optimizers are made of is counted in `distgrad.changes` instead.
"""

from __future__ import annotations

import dis
import operator
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from distgrad.changes import modes, structure
from distgrad.op import is_tensor

PLAIN = (int, float, bool, str, bytes, type(None))
_INSIDE = 32  # entries of a container that are looked at
_MISSING = object()


def is_plain(value: Any) -> bool:
    """Says whether a value is a number, text or nothing, or a tuple of such."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def glimpse(value: Any) -> Any:
    """Gives what of a value is looked at."""
    if isinstance(value, PLAIN):
        return (type(value), value)
    return (type(value), id(value), *_inside(value))


def _inside(value: Any) -> tuple[Any, ...]:
    if is_tensor(value) or isinstance(value, type | ModuleType | FunctionType | MethodType) or _counted(value):
        return ()
    if isinstance(value, list | tuple):
        entries: Any = enumerate(value) if len(value) <= _INSIDE else ()
    elif isinstance(value, dict):
        entries = value.items() if len(value) <= _INSIDE else ()
    else:
        entries = getattr(value, "__dict__", {}).items()
    return tuple([
        (k, type(v), v) if isinstance(v, PLAIN) else (k, id(v)) for k, v in entries if isinstance(v, PLAIN) or is_tensor(v)
    ])


def _counted(value: Any) -> bool:
    """Says whether changes of a value are counted in `distgrad.changes`: those of a module are."""
    return hasattr(value, "named_modules") and not isinstance(value, type)


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


class Surroundings:
    """What is around one function, and how it was the last time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = getattr(function, "__code__", None)
        self._names = tuple(dict.fromkeys(_global_names(code))) if code is not None else ()
        self._globals: dict[str, Any] = getattr(function, "__globals__", {})
        self._cells = getattr(function, "__closure__", None) or ()
        self._owner = getattr(function, "__self__", None)
        self._values: list[Any] = []
        self._looked: list[tuple[Any, tuple[Any, ...]]] = []  # values that have an inside, and how it was
        self._counts = (-1, -1)
        self._form: tuple[Any, ...] = ()

    def now(self) -> tuple[Any, ...]:
        """Gives the values as they are: the very same tuple as before when nothing has changed."""
        values = [self._globals.get(name, _MISSING) for name in self._names]
        for cell in self._cells:
            try:
                values.append(cell.cell_contents)
            except ValueError:
                values.append(_MISSING)
        counts = (structure[0], modes[0])
        if (
            counts == self._counts
            and all(map(operator.is_, values, self._values))
            and all(_inside(value) == known for value, known in self._looked)
        ):
            return self._form
        around = [self._owner, *values]
        training = tuple(m.training for value in around if _counted(value) for m in value.modules())
        self._form = (structure[0], training, *map(glimpse, around))
        self._values, self._counts = values, counts
        inside = [(value, _inside(value)) for value in around if not isinstance(value, PLAIN)]
        self._looked = [
            (value, known) for value, known in inside
            if not (is_tensor(value) or isinstance(value, type | ModuleType | FunctionType | MethodType) or _counted(value))
        ]
        return self._form
