"""The multinomial distribution.

Invariant: a sample counts `total_count` draws of a categorical distribution. Source: torch.distributions.Multinomial.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints
from distgrad.distributions.categorical import Categorical
from distgrad.distributions.distribution import Distribution
from distgrad.tensor import Size, Tensor

__all__ = ["Multinomial"]


class Multinomial(Distribution):
    """The counts of K categories in `total_count` draws with `probs` (..., K) or log weights `logits`."""

    arg_constraints: ClassVar[dict[str, Any]] = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def __init__(self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None,
                 validate_args: bool | None = None) -> None:
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args=False)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        new = self._copy(_instance)
        new._categorical = self._categorical.expand(batch_shape)
        new._batch_shape = Size(batch_shape)
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Tensor:
        """The probabilities of the categories."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with dg.no_grad():
            draws = self._categorical.sample((self.total_count, *sample_shape))
            counts = dg.nn.functional.one_hot(draws, self.event_shape[0]).sum(0)
            return counts.to(self._categorical._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        logits, value = dg.broadcast_tensors(self.logits, value)
        impossible = (value == 0) & (logits == -dg.inf)
        powers = (dg.where(impossible, 0.0, logits) * value).sum(-1)
        return (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1) + powers

    def entropy(self) -> Tensor:
        from distgrad.distributions.binomial import Binomial

        n = dg.full((), float(self.total_count), dtype=self.probs.dtype)
        own = self._categorical.entropy()
        counts = Binomial(self.total_count, probs=self.probs, validate_args=False).enumerate_support(False)[1:]
        chances = Binomial(self.total_count, probs=self.probs, validate_args=False).log_prob(counts).exp()
        return n * own - (n + 1).lgamma() + (chances * (counts + 1).lgamma()).sum((0, -1))
