"""`functional_call` under its older name.

Invariant: it is the function of `distgrad.func`.
"""

from distgrad.func import functional_call

__all__ = ["functional_call"]
