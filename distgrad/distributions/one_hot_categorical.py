"""One-hot categorical distributions, under torch's module name.

Invariant: defined in `distgrad.distributions.categorical`.
"""

from distgrad.distributions.categorical import OneHotCategorical, OneHotCategoricalStraightThrough

__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]
