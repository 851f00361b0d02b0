"""Distances and similarities of pairs of vectors.

Invariant: the layers have no parameters; the vectors' dimension disappears from the result.
"""

from __future__ import annotations

import distgrad as dg
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor


class PairwiseDistance(Module):
    """Computes the ``p``-norm of ``x1 - x2 + eps`` over the last dimension. Source: torch.nn.PairwiseDistance."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return dg.nn.functional.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """Computes the cosine of the angle between vectors along ``dim``. Source: torch.nn.CosineSimilarity."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return dg.nn.functional.cosine_similarity(x1, x2, self.dim, self.eps)
