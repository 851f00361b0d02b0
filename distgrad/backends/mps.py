"""`backends.mps`: Apple's GPUs are not used here."""

from __future__ import annotations

__all__ = ["is_available", "is_built"]


def is_available() -> bool:
    """Says that there is no such GPU: False."""
    return False


def is_built() -> bool:
    """Says that distgrad is built without it: False."""
    return False
