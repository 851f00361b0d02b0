"""`backends.cudnn`: settings that scripts write; there is no cuDNN here and they change nothing."""

from __future__ import annotations

__all__ = ["allow_tf32", "benchmark", "deterministic", "enabled", "is_available", "version"]

enabled: bool = False
benchmark: bool = False
deterministic: bool = True
allow_tf32: bool = False


def is_available() -> bool:
    """Says that there is no cuDNN: False."""
    return False


def version() -> int | None:
    """Gives the version of cuDNN: None."""
    return None
