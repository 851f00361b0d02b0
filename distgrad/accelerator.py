"""`accelerator` under PyTorch's names: there is none; the CPU computes.

Invariant: questions are answered with no and none.
"""

from __future__ import annotations

from typing import Any

__all__ = ["current_accelerator", "device_count", "is_available", "synchronize"]


def is_available() -> bool:
    """Says that there is no accelerator: False."""
    return False


def device_count() -> int:
    """Gives the number of accelerators: 0."""
    return 0


def current_accelerator(check_available: bool = False) -> Any:
    """Gives the accelerator's device: None."""
    return None


def synchronize(device: Any = None) -> None:
    """Does nothing: there is no accelerator to wait for."""
