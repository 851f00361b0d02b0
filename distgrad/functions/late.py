"""Functions of families that are imported when first used, so that importing distgrad stays quick.

Invariant: the first call imports the family and every call is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["late"]


def late(module: str, name: str) -> Callable[..., Any]:
    """Gives a stand-in for the function `name` of `distgrad.functions.<module>`."""

    def call(*args: Any, **options: Any) -> Any:
        return getattr(import_module(f"distgrad.functions.{module}"), name)(*args, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"See distgrad.functions.{module}.{name}."
    return call
