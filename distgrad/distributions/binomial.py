"""The binomial distribution.

Invariant: a sample is the smallest count whose cumulative probability reaches one uniform number, so it takes one word
per element. Source: torch.distributions.Binomial.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints, sampling
from distgrad.distributions.bernoulli import BinaryParameters
from distgrad.distributions.utils import broadcast_all
from distgrad.tensor import Tensor

__all__ = ["Binomial"]


class Binomial(BinaryParameters):
    """The number of successes in `total_count` trials with probability `probs` (or log odds `logits`)."""

    arg_constraints: ClassVar[dict[str, Any]] = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None) -> None:
        given = self._take(probs, logits)
        self.total_count, given = broadcast_all(total_count, given)
        self.total_count = self.total_count.to(given.dtype)
        self.__dict__["probs" if probs is not None else "logits"] = given
        super().__init__(given.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with dg.no_grad():
            return sampling.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        count = self.total_count
        ways = (count + 1).lgamma() - (value + 1).lgamma() - (count - value + 1).lgamma()
        # log p = -softplus(-logits), log (1 - p) = -softplus(logits).
        return ways + value * self.logits - count * dg.nn.functional.softplus(self.logits)

    def entropy(self) -> Tensor:
        """Gives the entropy; NotImplementedError unless all counts of trials are equal, which reads one value."""
        most = int(self.total_count.max().item())
        if not int(self.total_count.min().item()) == most:
            raise NotImplementedError("Inhomogeneous total count not supported by `entropy`.")
        found = self.log_prob(self.enumerate_support(False))
        return -(found.exp() * found).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        most = int(self.total_count.max().item())
        if not int(self.total_count.min().item()) == most:
            raise NotImplementedError("Inhomogeneous total count not supported by `enumerate_support`.")
        values = dg.arange(1 + most, dtype=self.total_count.dtype).reshape(-1, *(1,) * len(self.batch_shape))
        return values.expand(-1, *self.batch_shape) if expand else values
