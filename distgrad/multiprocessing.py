"""`multiprocessing` under PyTorch's names: Python's own, whose processes are sent tensors as copies.

Invariant: the names are those of Python's module; a tensor is never shared memory between processes.
"""

from __future__ import annotations

import multiprocessing as _python
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [*_python.__all__, "get_all_sharing_strategies", "get_sharing_strategy", "set_sharing_strategy"]


def get_all_sharing_strategies() -> set[str]:
    """Gives the one way tensors reach another process: "copy"."""
    return {"copy"}


def get_sharing_strategy() -> str:
    """Gives how tensors reach another process: "copy"."""
    return "copy"


def set_sharing_strategy(new_strategy: Any) -> None:
    """Accepts PyTorch's "file_descriptor" and "file_system"; tensors are copied. ValueError for another."""
    if new_strategy not in ("file_descriptor", "file_system", "copy"):
        raise ValueError(f"set_sharing_strategy: got {new_strategy!r}; allowed: 'file_descriptor', 'file_system'")
