"""Utilities under torch's names: ``data`` (datasets, samplers, loaders) and ``hooks`` (removable handles).

Invariant: nothing here touches a tensor's value, so importing or using it never moves data.
"""

from distgrad.utils import data, hooks

__all__ = ["data", "hooks"]
