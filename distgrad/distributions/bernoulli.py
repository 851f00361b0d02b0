"""The Bernoulli distribution and its relatives that count trials: geometric, binomial.

Invariant: exactly one of `probs` and `logits` is given; the other is computed when first read.
Source: torch.distributions.Bernoulli.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints
from distgrad.distributions.distribution import Distribution
from distgrad.distributions.utils import broadcast_all, lazy_property, logits_to_probs, probs_to_logits
from distgrad.tensor import Tensor

__all__ = ["Bernoulli", "BinaryParameters"]


class BinaryParameters(Distribution):
    """What distributions over success probabilities share: `probs` or `logits`, whichever is given."""

    def _take(self, probs: Any, logits: Any) -> Tensor:
        """Keeps the given one, broadcast; ValueError unless exactly one is given."""
        if (probs is None) == (logits is None):
            raise ValueError("Either `probs` or `logits` must be specified, but not both.")
        if probs is not None:
            (self.probs,) = broadcast_all(probs)
            return self.probs
        (self.logits,) = broadcast_all(logits)
        return self.logits

    @lazy_property
    def logits(self) -> Tensor:
        """The log odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """The probabilities."""
        return logits_to_probs(self.logits, is_binary=True)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        given = [name for name in ("probs", "logits") if name in self.__dict__]
        new = super().expand(batch_shape, _instance)
        for name in given:
            new.__dict__[name] = self.__dict__[name].expand(new.batch_shape)
        return new

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return (self.probs if "probs" in self.__dict__ else self.logits).shape


class Bernoulli(BinaryParameters):
    """The distribution of 1 with probability `probs` and 0 otherwise, `probs` or its log odds `logits` given."""

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.boolean
    has_enumerate_support = True
    _mean_carrier_measure = 0

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None) -> None:
        super().__init__(self._take(probs, logits).shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return dg.where(self.probs == 0.5, dg.nan, (self.probs >= 0.5).to(self.probs.dtype))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with dg.no_grad():
            return dg.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -dg.binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")

    def entropy(self) -> Tensor:
        return dg.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        values = dg.arange(2, dtype=self.probs.dtype).reshape(2, *(1,) * len(self.batch_shape))
        return values.expand(2, *self.batch_shape) if expand else values
