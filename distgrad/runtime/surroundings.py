"""The Python values a function takes from around it: globals, what its closure holds, the object it is a method of; and
those of the user's functions and modules that it finds there.

Invariant: two equal answers mean equal values, as far as they are looked at: plain values and which tensors, also one level
inside a container or an object. What modules and optimizers are made of is counted in `distgrad.changes` instead.
"""

from __future__ import annotations

import contextlib
import dis
import operator
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from distgrad.changes import modes, structure
from distgrad.op import is_tensor

PLAIN = (int, float, complex, bool, str, bytes, type(None), np.generic)
_INSIDE = 32  # entries of a container that are looked at
_CLOSED = (*PLAIN, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
_OURS = __name__.partition(".")[0]
_MISSING = object()


def is_plain(value: Any) -> bool:
    """Says whether a value is a number, text or nothing, or a tuple of such."""
    return isinstance(value, PLAIN) or (isinstance(value, tuple) and all(map(is_plain, value)))


def glimpse(value: Any) -> Any:
    """Gives what of a value is looked at."""
    if isinstance(value, PLAIN):
        return (type(value), value)
    return (type(value), id(value), *_inside(value))


def _has_inside(value: Any) -> bool:
    return not (is_tensor(value) or _counted(value) or isinstance(value, _CLOSED))


def _inside(value: Any) -> tuple[Any, ...]:
    if not _has_inside(value):
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


def _functions_of(value: Any) -> Iterator[Any]:
    """Gives the user's functions that may run when a value is used: itself, or a module's own methods."""
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        yield value
    elif _counted(value):
        for kind in {type(module) for module in value.modules()}:
            for base in kind.__mro__:
                if base.__module__.partition(".")[0] != _OURS:
                    yield from (f for f in vars(base).values() if isinstance(f, FunctionType))


class Surroundings:
    """What is around one function and the user's functions it calls, and how it was the last time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = getattr(function, "__func__", function)
        self._owner = getattr(function, "__self__", None)
        self._names: list[tuple[dict[str, Any], str]] = []  # of globals
        self._cells: list[Any] = []
        self.values: list[Any] = []  # whoever keeps a form keeps these, too: ids are of objects that live
        self._looked: list[tuple[Any, tuple[Any, ...]]] = []  # values that have an inside, and how it was
        self._counts = (-1, -1)
        self._form: tuple[Any, ...] = ()

    def now(self) -> tuple[Any, ...]:
        """Gives the values as they are: the very same tuple as before when nothing has changed."""
        counts = (structure[0], modes[0])
        if (
            counts == self._counts
            and all(map(operator.is_, self._read(), self.values))
            and all(_inside(value) == known for value, known in self._looked)
        ):
            return self._form
        self._find()
        self.values, self._counts = self._read(), counts
        around = [self._owner, *self.values]
        training = tuple(m.training for value in around if _counted(value) for m in value.modules())
        self._form = (structure[0], training, *map(glimpse, around))
        self._looked = [(value, _inside(value)) for value in around if _has_inside(value)]
        return self._form

    def _read(self) -> list[Any]:
        values = [place.get(name, _MISSING) for place, name in self._names]
        for cell in self._cells:
            try:
                values.append(cell.cell_contents)
            except ValueError:
                values.append(_MISSING)
        return values

    def _find(self) -> None:
        """Finds the globals and the closures of the function, and of those of the user's that it can reach."""
        self._names, self._cells = [], []
        known: dict[int, Any] = {}
        waiting = [self._function, *_functions_of(self._owner)]
        while waiting:
            function = waiting.pop()
            if id(function) in known or not isinstance(function, FunctionType):
                continue
            known[id(function)] = function
            if function.__module__ and function.__module__.partition(".")[0] == _OURS and function is not self._function:
                continue
            names = dict.fromkeys(_global_names(function.__code__))
            self._names += [(function.__globals__, name) for name in names]
            cells = list(function.__closure__ or ())
            self._cells += cells
            for value in (*(function.__globals__.get(name) for name in names), *_contents(cells)):
                waiting.extend(_functions_of(value))


def _contents(cells: list[Any]) -> Iterator[Any]:
    for cell in cells:
        with contextlib.suppress(ValueError):  # empty: its function is being made
            yield cell.cell_contents
