"""Relaxed one-hot categorical distributions, under torch's module name.

Invariant: defined in `distgrad.distributions.relaxed_bernoulli`.
"""

from distgrad.distributions.relaxed_bernoulli import ExpRelaxedCategorical, RelaxedOneHotCategorical

__all__ = ["ExpRelaxedCategorical", "RelaxedOneHotCategorical"]
