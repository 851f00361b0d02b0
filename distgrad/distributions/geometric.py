"""The geometric distribution.

Invariant: values count the failures before the first success. Source: torch.distributions.Geometric.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints, sampling
from distgrad.distributions.bernoulli import BinaryParameters
from distgrad.tensor import Tensor

__all__ = ["Geometric"]


class Geometric(BinaryParameters):
    """The number of failures before the first success of trials with probability `probs` (or log odds `logits`)."""

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits).shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not (self.probs > 0).all():
            raise ValueError(
                f"Expected parameter probs (Tensor of shape {tuple(self.probs.shape)}) of distribution {self!r} to be "
                f"positive but found invalid values:\n{self.probs}"
            )

    @property
    def mean(self) -> Tensor:
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        return dg.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with dg.no_grad():
            u = sampling.uniforms(self._extended_shape(sample_shape), self.probs.dtype)
            return (u.log() / (-self.probs).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        # xlogy: a success in the first trial is certain when probs is 1.
        return dg.xlogy(value, 1 - self.probs) + self.probs.log()

    def entropy(self) -> Tensor:
        return dg.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs
