"""`backends.mkl`: not used here."""

from __future__ import annotations

__all__ = ["is_available"]


def is_available() -> bool:
    """Says that it is not used: False."""
    return False
