"""Functions of several ops on 16-bit floats: computed in float32 and rounded once, as PyTorch's kernels do.

Invariant: with other dtypes a call is passed on as it is; gradients come back in the arguments' own dtypes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from distgrad import dtypes
from distgrad.op import is_tensor
from distgrad.ops.elementwise import cast

__all__ = ["in_float32"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_HALVES = frozenset((dtypes.float16, dtypes.bfloat16))


def _widened(value: Any) -> Any:
    return cast(value, dtype="float32") if is_tensor(value) and value.dtype in _HALVES else value


def in_float32(*in_place: str) -> Callable[[_Function], _Function]:
    """Makes a function whose first argument is a 16-bit float compute in float32 and give that dtype back.

    `in_place`: parameters that the function writes to, which stay as they are.
    """

    def decorate(function: _Function) -> _Function:
        names = function.__code__.co_varnames  # the parameters come first
        kept = frozenset(names.index(name) for name in in_place)

        @functools.wraps(function)
        def wide(*args: Any, **options: Any) -> Any:
            first: Any = args[0] if args else options.get(names[0])
            if not is_tensor(first) or first.dtype not in _HALVES:
                return function(*args, **options)
            kind = first.dtype
            result = function(
                *(v if position in kept else _widened(v) for position, v in enumerate(args)),
                **{name: v if name in in_place else _widened(v) for name, v in options.items()},
            )
            if type(result) is tuple:
                return tuple(_narrowed(part, kind) for part in result)
            return _narrowed(result, kind)

        return wide  # type: ignore[return-value]  # the same signature

    return decorate


def _narrowed(value: Any, kind: dtypes.dtype) -> Any:
    return cast(value, dtype=kind.name) if is_tensor(value) and value.dtype is dtypes.float32 else value
