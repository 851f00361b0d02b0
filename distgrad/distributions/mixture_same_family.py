"""Mixtures of distributions of one family.

Invariant: the last batch dim of the components is the one mixed over. Source: torch.distributions.MixtureSameFamily.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions.categorical import Categorical
from distgrad.distributions.distribution import Distribution
from distgrad.tensor import Size, Tensor

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """A mixture of the distributions along the last batch dim of `component_distribution`.

    ValueError when `mixture_distribution` is not categorical or its shape does not fit.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, mixture_distribution: Categorical, component_distribution: Distribution,
                 validate_args: bool | None = None) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError(" The Mixture distribution needs to be an  instance of torch.distributions.Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution need to be an instance of torch.distributions.Distribution")
        batch = component_distribution.batch_shape[:-1]
        for given, wanted in zip(reversed(mixture_distribution.batch_shape), reversed(batch)):
            if given != 1 and wanted != 1 and given != wanted:
                raise ValueError(
                    f"`mixture_distribution.batch_shape` ({mixture_distribution.batch_shape}) is not compatible with "
                    f"`component_distribution.batch_shape`({batch})"
                )
        count = mixture_distribution.param_shape[-1]
        if count != component_distribution.batch_shape[-1]:
            raise ValueError(
                f"`mixture_distribution component` ({count}) does not equal "
                f"`component_distribution.batch_shape[-1]` ({component_distribution.batch_shape[-1]})"
            )
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        self._events = len(component_distribution.event_shape)
        super().__init__(batch, component_distribution.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        new = self._copy(_instance)
        shape = Size(batch_shape)
        count = self._mixture_distribution.param_shape[-1]
        new._component_distribution = self._component_distribution.expand((*shape, count))
        new._mixture_distribution = self._mixture_distribution.expand(shape)
        new._batch_shape = shape
        return new

    @property
    def support(self) -> Any:
        return self._component_distribution.support

    @property
    def mixture_distribution(self) -> Categorical:
        """The distribution of the component."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components."""
        return self._component_distribution

    def _spread(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape, *(1,) * self._events)

    @property
    def mean(self) -> Tensor:
        return (self._spread(self._mixture_distribution.probs) * self._component_distribution.mean).sum(
            -1 - self._events)

    @property
    def variance(self) -> Tensor:
        probs = self._spread(self._mixture_distribution.probs)
        within = (probs * self._component_distribution.variance).sum(-1 - self._events)
        away = self._component_distribution.mean - self.mean.unsqueeze(-1 - self._events)
        return within + (probs * away.square()).sum(-1 - self._events)

    def cdf(self, value: Tensor) -> Tensor:
        chances = self._component_distribution.cdf(value.unsqueeze(-1 - self._events))
        return (chances * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        each = self._component_distribution.log_prob(value.unsqueeze(-1 - self._events))
        return dg.logsumexp(each + self._mixture_distribution.logits.log_softmax(-1), -1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with dg.no_grad():
            shape = Size(sample_shape)
            chosen = self._mixture_distribution.expand(self.batch_shape).sample(shape)
            samples = self._component_distribution.sample(shape)
            dim = len(shape) + len(self.batch_shape)
            index = self._spread(chosen.unsqueeze(-1))
            return samples.gather(dim, index.expand(*samples.shape[:dim], 1, *self.event_shape)).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self._mixture_distribution},\n  {self._component_distribution})"
