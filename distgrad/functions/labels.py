"""Gradient functions under the name of the function the user called, where that one is made of several ops.

Invariant: only a function made during the call is named; what a call hands through keeps its own name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from distgrad.autodiff import GradFn, next_sequence

_Function = TypeVar("_Function", bound=Callable[..., Any])


def shown_as(name: str) -> Callable[[_Function], _Function]:
    """Makes the results of a function show this name as their `grad_fn`, as PyTorch's do."""

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def named(*args: Any, **kwargs: Any) -> Any:
            before = next_sequence()
            result = function(*args, **kwargs)
            for tensor in result if type(result) is tuple else (result,):
                made = tensor._fn
                if type(made) is GradFn and made.sequence > before:
                    made.label = name
            return result

        return named  # type: ignore[return-value]  # the same signature

    return decorate
