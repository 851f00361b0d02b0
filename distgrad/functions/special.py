"""Special functions with PyTorch's signatures.

Invariant: here stand functions that are more than an op; ops whose call is PyTorch's already are exported as they are.
Definitions: the PyTorch pages "torch.special" and "torch, Math operations".
"""

from __future__ import annotations

import math
from typing import Any

from distgrad import dtypes
from distgrad.functions.reduction import return_type
from distgrad.ops import elementwise
from distgrad.ops import special as ops
from distgrad.ops.special import i0, igamma, igammac

__all__ = ["frexp", "i0", "igamma", "igammac", "mvlgamma"]

_FREXP = return_type("frexp", ("mantissa", "exponent"))


def frexp(input: Any) -> Any:
    """Splits each element into mantissa * 2 ** exponent, as a named tuple (mantissa, exponent); exponents are int32.

    RuntimeError unless floating. PyTorch: torch.frexp.
    """
    return _FREXP(*ops.frexp(input))


def mvlgamma(input: Any, p: int) -> Any:
    """Gives the logarithm of the multivariate gamma function with dimension p, for elements above (p - 1) / 2.

    RuntimeError for p below 1. PyTorch: torch.mvlgamma.
    """
    if p < 1:
        raise RuntimeError(f"p has to be greater than or equal to 1, got {p}")
    x = input if input.dtype.category >= 2 else elementwise.cast(input, dtype=dtypes.default().name)
    total = elementwise.lgamma(x)
    for j in range(1, p):
        total = total + elementwise.lgamma(x - j / 2)
    return total + p * (p - 1) / 4 * math.log(math.pi) if p > 1 else total
