"""The chi-squared distribution, under torch's module name.

Invariant: defined in `distgrad.distributions.gamma`, of which it is a special case.
"""

from distgrad.distributions.gamma import Chi2

__all__ = ["Chi2"]
