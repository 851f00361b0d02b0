"""``Distribution``: shapes, validation and what all distributions can do.

Invariant: validating a call reads one value, whatever is checked: all checks are combined first, and only a failure
looks for the culprit. Source: torch.distributions.Distribution.
"""

from __future__ import annotations

from typing import Any, ClassVar

import distgrad as dg
from distgrad.distributions import constraints
from distgrad.distributions.utils import lazy_property
from distgrad.tensor import Size, Tensor
from distgrad.warn import warn_user

__all__ = ["Distribution"]


class Distribution:
    """Base of all distributions: `batch_shape` independent ones, each over events of `event_shape`.

    `arg_constraints` names the parameters and what they may be; `support` is what samples may be.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args = __debug__
    arg_constraints: ClassVar[dict[str, Any]]

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Sets whether distributions check parameters and values unless told otherwise; ValueError for a non-bool."""
        if value not in (True, False):
            raise ValueError(f"set_default_validate_args: value must be True or False, got {value!r}")
        Distribution._validate_args = value

    def __init__(self, batch_shape: Any = (), event_shape: Any = (), validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        try:
            rules = self.arg_constraints
        except (AttributeError, NotImplementedError):
            warn_user(
                f"{type(self)} does not define `arg_constraints`. Please set `arg_constraints = {{}}` or initialize "
                "the distribution with `validate_args=False` to turn off validation.",
            )
            return
        checked = []
        for name, rule in rules.items():
            if constraints.is_dependent(rule):
                continue
            if name not in self.__dict__ and isinstance(getattr(type(self), name, None), lazy_property):
                continue
            checked.append((name, rule, getattr(self, name)))
        with dg.no_grad():
            flags = [rule.check(value).all() for _, rule, value in checked]
            if not flags or _all(flags):
                return
        for (name, rule, value), flag in zip(checked, flags):
            if not flag:
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape {tuple(value.shape)}) of distribution "
                    f"{self!r} to satisfy the constraint {rule!r}, but found invalid values:\n{value}"
                )

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        """Gives the distribution with its parameters expanded to another batch shape."""
        new = self._copy(_instance)
        shape = Size(batch_shape)
        for name, rule in self.arg_constraints.items():
            value = self.__dict__.get(name)
            if isinstance(value, Tensor):
                new.__dict__[name] = value.expand(shape + value.shape[value.ndim - rule.event_dim :])
        new._batch_shape = shape
        return new

    def _copy(self, instance: Any = None) -> Any:
        """Gives a distribution of the same class with the same attributes, without checking anything."""
        new = object.__new__(type(self)) if instance is None else instance
        new.__dict__.update(self.__dict__)
        return new

    @property
    def batch_shape(self) -> Size:
        """The shape over which parameters are batched."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of a single sample, without batching."""
        return self._event_shape

    @property
    def support(self) -> Any:
        """What samples may be."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """The most likely value."""
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws samples of shape `sample_shape + batch_shape + event_shape`, without gradients."""
        with dg.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws samples whose gradients reach the parameters."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Tensor:
        """Draws `n` samples; prefer `sample((n,))`."""
        warn_user("sample_n will be deprecated. Use .sample((n,)) instead", UserWarning)
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """Gives the logarithm of the density or probability of each value."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """Gives the probability of a sample up to each value."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """Gives the values up to which samples have the given probabilities."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Gives all values of a discrete distribution along a new first dim."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Gives the entropy of each distribution in the batch."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """Gives exp(entropy)."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        if not isinstance(sample_shape, tuple):
            sample_shape = tuple(sample_shape)
        return Size(sample_shape + tuple(self._batch_shape) + tuple(self._event_shape))

    def _validate_sample(self, value: Tensor) -> None:
        """Raises ValueError for a value of a wrong shape or outside the support, which reads one flag."""
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        events = value.ndim - len(self._event_shape)
        if value.shape[max(events, 0) :] != self._event_shape:
            raise ValueError(
                f"The right-most size of value must match event_shape: {value.shape} vs {self._event_shape}."
            )
        expected = self._batch_shape + self._event_shape
        for i, j in zip(reversed(value.shape), reversed(expected)):
            if i != 1 and j != 1 and i != j:
                raise ValueError(
                    f"Value is not broadcastable with batch_shape+event_shape: {value.shape} vs {expected}."
                )
        try:
            support = self.support
        except NotImplementedError:
            warn_user(
                f"{type(self)} does not define `support` to enable sample validation. Please initialize the "
                "distribution with `validate_args=False` to turn off validation.",
            )
            return
        with dg.no_grad():
            valid = bool(support.check(value).all())
        if not valid:
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) to be within the "
                f"support ({support!r}) of the distribution {self!r}, but found invalid values:\n{value}"
            )

    def __repr__(self) -> str:
        parts = []
        for name in self.arg_constraints:
            value = self.__dict__.get(name)
            if isinstance(value, Tensor):
                shown = value.shape if value.shape.numel() != 1 else value.item() if not value.ndim else value
                parts.append(f"{name}: {shown}")
            elif value is not None:
                parts.append(f"{name}: {value}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _all(flags: list[Tensor]) -> bool:
    """Reads whether all 0-d flags are true."""
    whole = flags[0]
    for flag in flags[1:]:
        whole = whole & flag
    return bool(whole)
