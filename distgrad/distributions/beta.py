"""The beta distribution, under torch's module name.

Invariant: defined in `distgrad.distributions.dirichlet`, with which it shares its samples.
"""

from distgrad.distributions.dirichlet import Beta

__all__ = ["Beta"]
