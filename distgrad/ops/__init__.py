"""Op records by family."""

from __future__ import annotations


def load() -> None:
    """Imports every family, so that every op is defined."""
    import distgrad  # noqa: F401  # the public namespace imports all families
