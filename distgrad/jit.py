"""`jit` under PyTorch's names: programs are recorded and cached by themselves here, so functions stay as they are.

Invariant: what these give back is the very object they were given.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ignore", "script", "trace"]


def script(obj: Any, *args: Any, **options: Any) -> Any:
    """Gives the function or module as it is; a decorator too (PyTorch: torch.jit.script)."""
    return obj


def trace(func: Any, example_inputs: Any = None, **options: Any) -> Any:
    """Gives the function or module as it is: data-dependent Python keeps working (PyTorch: torch.jit.trace)."""
    return func


def ignore(drop: Any = False, **options: Any) -> Any:
    """Gives the function as it is, as a decorator with or without arguments (PyTorch: torch.jit.ignore)."""
    return drop if callable(drop) else lambda function: function
