"""The multivariate normal distribution.

Invariant: whichever of the three matrices is given, the lower Cholesky factor of the covariance is what computes.
Source: torch.distributions.MultivariateNormal.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import distgrad as dg
from distgrad import linalg
from distgrad.distributions import constraints, sampling
from distgrad.distributions.distribution import Distribution
from distgrad.distributions.utils import lazy_property
from distgrad.meta import broadcast_shapes
from distgrad.tensor import Size, Tensor

__all__ = ["MultivariateNormal"]


def mahalanobis(lower: Tensor, away: Tensor) -> Tensor:
    """Gives |L^-1 x|**2 for L (*B, n, n) and x (*S, *B, n)."""
    if lower.ndim == 2:
        # One small system for all vectors: they stay where they are when they are sharded.
        identity = dg.eye(lower.shape[-1], dtype=lower.dtype)
        return (away @ linalg.solve_triangular(lower, identity, upper=False).mT).square().sum(-1)
    batch = broadcast_shapes("mahalanobis", tuple(lower.shape[:-2]), tuple(away.shape[:-1]))
    n = away.shape[-1]
    solved = linalg.solve_triangular(
        lower.expand(*batch, n, n), away.expand(*batch, n).unsqueeze(-1), upper=False
    )
    return solved.square().sum((-2, -1))


def log_diagonal(lower: Tensor) -> Tensor:
    """Gives half the log-determinant of L @ L^T."""
    return lower.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def precision_to_scale_tril(precision: Tensor) -> Tensor:
    """Gives the lower Cholesky factor of the inverse of a positive definite matrix."""
    # Reversing rows and columns turns the upper factor of the inverse into a lower one.
    flipped = linalg.cholesky(precision.flip((-2, -1)))
    upper = flipped.flip((-2, -1)).mT
    identity = dg.eye(precision.shape[-1], dtype=precision.dtype).expand(precision.shape)
    return linalg.solve_triangular(upper, identity, upper=False)


class MultivariateNormal(Distribution):
    """The normal distribution over vectors with mean `loc` (..., n) and one of the three matrices (..., n, n).

    ValueError unless exactly one of covariance_matrix, precision_matrix and scale_tril is given, and when dims lack.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None) -> None:
        if loc.ndim < 1:
            raise ValueError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        present = [(name, value) for name, value in given.items() if value is not None]
        if len(present) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified."
            )
        name, matrix = present[0]
        if matrix.ndim < 2:
            raise ValueError(f"{name} must be at least two-dimensional, with optional leading batch dimensions")
        batch = broadcast_shapes("MultivariateNormal", tuple(matrix.shape[:-2]), tuple(loc.shape[:-1]))
        setattr(self, name, matrix.expand(*batch, *matrix.shape[-2:]))
        self.loc = loc.expand(*batch, loc.shape[-1])
        super().__init__(batch, self.loc.shape[-1:], validate_args=validate_args)
        if name == "scale_tril":
            self._unbroadcasted_scale_tril = matrix
        elif name == "covariance_matrix":
            self._unbroadcasted_scale_tril = linalg.cholesky(matrix)
        else:
            self._unbroadcasted_scale_tril = precision_to_scale_tril(matrix)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        new = super().expand(batch_shape, _instance)
        new._batch_shape = Size(batch_shape)
        return new

    def _full(self, matrix: Tensor) -> Tensor:
        return matrix.expand(*self._batch_shape, *self._event_shape, *self._event_shape)

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._full(self._unbroadcasted_scale_tril)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self._full(self._unbroadcasted_scale_tril @ self._unbroadcasted_scale_tril.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        lower = self._unbroadcasted_scale_tril
        identity = dg.eye(lower.shape[-1], dtype=lower.dtype).expand(lower.shape)
        inverse = linalg.solve_triangular(lower, identity, upper=False)
        return self._full(inverse.mT @ inverse)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._unbroadcasted_scale_tril.square().sum(-1).expand(self._batch_shape + self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = sampling.normals(self._extended_shape(sample_shape), self.loc.dtype)
        return self.loc + (self._unbroadcasted_scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        lower = self._unbroadcasted_scale_tril
        distance = mahalanobis(lower, value - self.loc)
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + distance) - log_diagonal(lower)

    def entropy(self) -> Tensor:
        found = 0.5 * self._event_shape[0] * (1.0 + math.log(2 * math.pi))
        return (log_diagonal(self._unbroadcasted_scale_tril) + found).expand(self._batch_shape)
