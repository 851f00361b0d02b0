"""`mps` under PyTorch's names, for scripts that ask: there is never such a GPU here.

Invariant: questions are answered with no and none; seeding and emptying do nothing.
"""

from __future__ import annotations

__all__ = ["current_allocated_memory", "device_count", "empty_cache", "is_available", "manual_seed", "synchronize"]


def is_available() -> bool:
    """Says that there is none of Apple's GPUs: False."""
    return False


def device_count() -> int:
    """Gives the number of Apple's GPUs: 0."""
    return 0


def empty_cache() -> None:
    """Does nothing: there is no memory of a GPU."""


def current_allocated_memory() -> int:
    """Gives the bytes of GPU memory in use: 0."""
    return 0


def manual_seed(seed: int) -> None:
    """Does nothing; `distgrad.manual_seed` seeds."""


def synchronize() -> None:
    """Does nothing: there is no GPU to wait for."""
