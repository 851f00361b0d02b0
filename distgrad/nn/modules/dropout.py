"""Dropout layers.

Invariant: in evaluation mode, and with ``p=0``, a layer returns its input's values unchanged.
"""

from __future__ import annotations

import distgrad as dg
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor


class _DropoutNd(Module):
    """What the dropout layers share: their probability ``p``, in [0, 1] (else ValueError), and ``inplace``."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """Zeroes elements with probability ``p`` and scales the others by ``1/(1-p)``. Source: torch.nn.Dropout."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(_DropoutNd):
    """Drops elements so that mean and variance of SELU's output stay as they are. Source: torch.nn.AlphaDropout."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.alpha_dropout(input, self.p, self.training)
