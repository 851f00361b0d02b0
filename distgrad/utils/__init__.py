"""Utilities under torch's names: ``data`` (datasets, samplers, loaders) and ``hooks`` (removable handles),
``checkpoint`` (recomputing instead of saving).

Invariant: nothing here touches a tensor's value, so importing or using it never moves data.
"""

from distgrad.utils import checkpoint, data, hooks, model_zoo

__all__ = ["checkpoint", "data", "hooks", "model_zoo"]
