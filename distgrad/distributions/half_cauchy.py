"""The half-Cauchy distribution, under torch's module name.

Invariant: defined in `distgrad.distributions.half_normal`, with which it shares its base.
"""

from distgrad.distributions.half_normal import HalfCauchy

__all__ = ["HalfCauchy"]
