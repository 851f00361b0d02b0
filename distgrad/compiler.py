"""`compiler` under PyTorch's names: `compile` itself, and what PyTorch puts beside it, which changes nothing here."""

from __future__ import annotations

from typing import Any

from distgrad.runtime.session import compile

__all__ = ["compile", "cudagraph_mark_step_begin", "disable", "is_compiling", "is_dynamo_compiling", "reset"]


def disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Gives the function as it is, as a decorator with or without arguments."""
    return (lambda function: function) if fn is None else fn


def is_compiling() -> bool:
    """Says that nothing is being compiled: False."""
    return False


is_dynamo_compiling = is_compiling


def reset() -> None:
    """Does nothing: there is no compiled code to forget."""


def cudagraph_mark_step_begin() -> None:
    """Does nothing: there are no CUDA graphs."""
