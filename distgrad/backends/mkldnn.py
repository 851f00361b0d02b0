"""`backends.mkldnn`: oneDNN is not used here."""

from __future__ import annotations

__all__ = ["enabled", "is_available"]

enabled: bool = False


def is_available() -> bool:
    """Says that oneDNN is not used: False."""
    return False
