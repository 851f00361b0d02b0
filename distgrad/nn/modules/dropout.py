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


class Dropout1d(_DropoutNd):
    """Zeroes whole channels of ``(N, C, L)`` with probability ``p``. Source: torch.nn.Dropout1d."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_DropoutNd):
    """Zeroes whole channels of ``(N, C, H, W)`` with probability ``p``. Source: torch.nn.Dropout2d."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_DropoutNd):
    """Zeroes whole channels of ``(N, C, D, H, W)`` with probability ``p``. Source: torch.nn.Dropout3d."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.dropout3d(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_DropoutNd):
    """Drops whole channels as ``AlphaDropout`` drops elements. Source: torch.nn.FeatureAlphaDropout."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.feature_alpha_dropout(input, self.p, self.training)
