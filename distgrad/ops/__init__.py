"""Op records by family."""

from __future__ import annotations


def load() -> None:
    """Imports every family, so that every op is defined: a worker must know the ops of its driver."""
    import importlib
    import pkgutil

    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
