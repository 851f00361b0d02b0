"""Dirichlet and beta distributions.

Invariant: samples are gamma samples divided by their sum, computed from their logarithms, so tiny concentrations
neither underflow nor lose their gradients. Source: torch.distributions.Dirichlet, torch.distributions.Beta.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints, sampling
from distgrad.distributions.distribution import Distribution
from distgrad.distributions.utils import broadcast_all
from distgrad.tensor import Size, Tensor

__all__ = ["Beta", "Dirichlet"]


def _normalized(concentration: Tensor) -> Tensor:
    """Draws points of the simplex (..., K)."""
    found = sampling.standard_gamma(concentration, logarithm=True).softmax(-1)
    info = dg.finfo(found.dtype)
    return found.clamp(info.tiny, 1 - info.eps / 2)


class Dirichlet(Distribution):
    """The Dirichlet distribution over the simplex with `concentration` (..., K).

    ValueError when it has no dim.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.ndim < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, True)

    @property
    def mode(self) -> Tensor:
        above = (self.concentration - 1).clamp(min=0.0)
        found = above / above.sum(-1, True)
        spread = (self.concentration < 1).all(-1, keepdim=True)
        corner = dg.nn.functional.one_hot(self.concentration.argmax(-1), self.concentration.shape[-1]).to(found.dtype)
        return dg.where(spread, corner, found)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, True)
        return self.concentration * (total - self.concentration) / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return _normalized(self.concentration.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a = self.concentration
        return dg.xlogy(a - 1.0, value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        k, total = a.shape[-1], a.sum(-1)
        return a.lgamma().sum(-1) - total.lgamma() - (k - total) * total.digamma() - ((a - 1.0) * a.digamma()).sum(-1)


class Beta(Distribution):
    """The beta distribution on (0, 1) with `concentration1` (alpha) and `concentration0` (beta)."""

    arg_constraints: ClassVar[dict[str, Any]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def __repr__(self) -> str:
        return "Beta()"

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return Dirichlet(self._both, validate_args=False).mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    @property
    def _both(self) -> Tensor:
        return dg.stack([self.concentration1, self.concentration0], -1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = Size(tuple(self._extended_shape(sample_shape)) + (2,))
        return _normalized(self._both.expand(shape)).select(-1, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        a, b = self.concentration1, self.concentration0
        ways = (a + b).lgamma() - a.lgamma() - b.lgamma()
        return dg.xlogy(a - 1.0, value) + dg.xlogy(b - 1.0, 1.0 - value) + ways

    def entropy(self) -> Tensor:
        return Dirichlet(self._both, validate_args=False).entropy()
