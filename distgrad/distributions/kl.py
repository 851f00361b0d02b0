"""Kullback-Leibler divergences between pairs of distributions.

Invariant: a pair is looked up by class, the most specific registered classes first; nothing is estimated by sampling.
Source: torch.distributions.kl.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import distgrad as dg
from distgrad import linalg
from distgrad.distributions.bernoulli import Bernoulli
from distgrad.distributions.binomial import Binomial
from distgrad.distributions.categorical import Categorical, OneHotCategorical
from distgrad.distributions.cauchy import Cauchy
from distgrad.distributions.dirichlet import Beta, Dirichlet
from distgrad.distributions.distribution import Distribution
from distgrad.distributions.exponential import Exponential
from distgrad.distributions.gamma import Gamma
from distgrad.distributions.geometric import Geometric
from distgrad.distributions.gumbel import Gumbel
from distgrad.distributions.half_normal import HalfNormal
from distgrad.distributions.independent import Independent
from distgrad.distributions.laplace import Laplace
from distgrad.distributions.multivariate_normal import MultivariateNormal, log_diagonal, mahalanobis
from distgrad.distributions.normal import Normal
from distgrad.distributions.poisson import Poisson
from distgrad.distributions.transformed_distribution import TransformedDistribution
from distgrad.distributions.uniform import Uniform
from distgrad.distributions.utils import sum_rightmost
from distgrad.tensor import Tensor

__all__ = ["kl_divergence", "register_kl"]

_REGISTRY: dict[tuple[type, type], Callable[[Any, Any], Tensor]] = {}
_EULER = 0.57721566490153286061


def register_kl(type_p: type, type_q: type) -> Callable[[Callable[[Any, Any], Tensor]], Callable[[Any, Any], Tensor]]:
    """Registers the decorated `function(p, q)` for distributions of two classes; TypeError for other classes."""
    for kind, name in ((type_p, "type_p"), (type_q, "type_q")):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"Expected {name} to be a Distribution subclass but got {kind}")

    def decorate(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
        _REGISTRY[type_p, type_q] = function
        return function

    return decorate


def _found(p: type, q: type) -> Callable[[Any, Any], Tensor] | None:
    """Gives the function of the closest registered classes, those of `p` counting before those of `q`."""
    for kind_p in p.__mro__:
        for kind_q in q.__mro__:
            function = _REGISTRY.get((kind_p, kind_q))
            if function is not None:
                return function
    return None


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """Gives KL(p || q) per batch element; NotImplementedError for a pair without a formula."""
    function = _found(type(p), type(q))
    if function is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type "
                                  f"{type(q).__name__}")
    return function(p, q)


def _where_zero(chance: Tensor, value: Tensor) -> Tensor:
    """Gives the value, 0 where the chance is 0."""
    return dg.where(chance == 0, 0.0, value)


@register_kl(Normal, Normal)
def _normal_normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())


@register_kl(Bernoulli, Bernoulli)
def _bernoulli_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    softplus = dg.nn.functional.softplus
    # log q = -softplus(-logits): finite wherever the logits are.
    won = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    lost = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    won = _where_zero(p.probs, dg.where(q.probs == 0, math.inf, won))
    lost = _where_zero(1 - p.probs, dg.where(q.probs == 1, math.inf, lost))
    return won + lost


@register_kl(Categorical, Categorical)
def _categorical_categorical(p: Categorical, q: Categorical) -> Tensor:
    each = p.probs * (p.logits - q.logits)
    each = dg.where((q.probs == 0).expand(each.shape), math.inf, each)
    return _where_zero(p.probs.expand(each.shape), each).sum(-1)


@register_kl(OneHotCategorical, OneHotCategorical)
def _one_hot_one_hot(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return _categorical_categorical(p._categorical, q._categorical)


@register_kl(Binomial, Binomial)
def _binomial_binomial(p: Binomial, q: Binomial) -> Tensor:
    each = p.probs * (p.logits - q.logits) + (-p.probs).log1p() - (-q.probs).log1p()
    return dg.where(p.total_count > q.total_count, math.inf, p.total_count * each)


@register_kl(Beta, Beta)
def _beta_beta(p: Beta, q: Beta) -> Tensor:
    return _dirichlet_of(p._both, q._both)


@register_kl(Dirichlet, Dirichlet)
def _dirichlet_dirichlet(p: Dirichlet, q: Dirichlet) -> Tensor:
    return _dirichlet_of(p.concentration, q.concentration)


def _dirichlet_of(a: Tensor, b: Tensor) -> Tensor:
    total = a.sum(-1)
    away = ((a - b) * (a.digamma() - total.digamma().unsqueeze(-1))).sum(-1)
    return total.lgamma() - b.sum(-1).lgamma() - (a.lgamma() - b.lgamma()).sum(-1) + away


@register_kl(Gamma, Gamma)
def _gamma_gamma(p: Gamma, q: Gamma) -> Tensor:
    return (
        q.concentration * (p.rate / q.rate).log() + q.concentration.lgamma() - p.concentration.lgamma()
        + (p.concentration - q.concentration) * p.concentration.digamma()
        + (q.rate - p.rate) * (p.concentration / p.rate)
    )


@register_kl(Exponential, Exponential)
def _exponential_exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - ratio.log() - 1


@register_kl(Geometric, Geometric)
def _geometric_geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits


@register_kl(Laplace, Laplace)
def _laplace_laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, away = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + away / q.scale + ratio * (-away / p.scale).exp() - 1


@register_kl(Poisson, Poisson)
def _poisson_poisson(p: Poisson, q: Poisson) -> Tensor:
    return p.rate * (p.rate.log() - q.rate.log()) - (p.rate - q.rate)


@register_kl(Cauchy, Cauchy)
def _cauchy_cauchy(p: Cauchy, q: Cauchy) -> Tensor:
    return ((p.scale + q.scale).square() + (p.loc - q.loc).square()).log() - (4 * p.scale * q.scale).log()


@register_kl(Gumbel, Gumbel)
def _gumbel_gumbel(p: Gumbel, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    shift, base = q.loc / q.scale, p.loc / q.scale
    moved = (shift - base + (ratio + 1).lgamma()).exp()
    return base - shift - ratio.log() + ratio * _EULER + moved - (1 + _EULER)


@register_kl(HalfNormal, HalfNormal)
def _half_normal_half_normal(p: HalfNormal, q: HalfNormal) -> Tensor:
    return _normal_normal(p.base_dist, q.base_dist)


@register_kl(Uniform, Uniform)
def _uniform_uniform(p: Uniform, q: Uniform) -> Tensor:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return dg.where((q.low > p.low) | (q.high < p.high), math.inf, found)


@register_kl(Uniform, Normal)
def _uniform_normal(p: Uniform, q: Normal) -> Tensor:
    width = p.high - p.low
    middle = ((p.high + p.low - 2 * q.loc) / 2).square()
    spread = width.square() / 12
    return (math.sqrt(2 * math.pi) * q.scale / width).log() + 0.5 * (spread + middle) / q.scale.square()


@register_kl(Normal, Laplace)
def _normal_laplace(p: Normal, q: Laplace) -> Tensor:
    away = p.loc - q.loc
    z = away / p.scale
    mean = math.sqrt(2 / math.pi) * p.scale * (-0.5 * z.square()).exp() + away * (z * math.sqrt(0.5)).erf()
    return (q.scale / p.scale).log() + mean / q.scale + (math.log(2) - 0.5 * (1 + math.log(2 * math.pi)))


@register_kl(Exponential, Gamma)
def _exponential_gamma(p: Exponential, q: Gamma) -> Tensor:
    ratio = q.rate / p.rate
    return -q.concentration * ratio.log() + ratio + q.concentration.lgamma() + q.concentration * _EULER - (1 + _EULER)


@register_kl(Independent, Independent)
def _independent_independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("KL of Independent distributions with different reinterpreted_batch_ndims")
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), p.reinterpreted_batch_ndims)


@register_kl(TransformedDistribution, TransformedDistribution)
def _transformed_transformed(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL of transformed distributions with different transforms or event shapes")
    return kl_divergence(p.base_dist, q.base_dist)


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event shapes cannot be "
                         "computed")
    own, other = p._unbroadcasted_scale_tril, q._unbroadcasted_scale_tril
    n = p.event_shape[0]
    batch = dg.broadcast_tensors(own.detach()[..., 0, 0], other.detach()[..., 0, 0])[0].shape
    trace = linalg.solve_triangular(
        other.expand(*batch, n, n), own.expand(*batch, n, n), upper=False
    ).square().sum((-2, -1))
    distance = mahalanobis(other, q.loc - p.loc)
    return log_diagonal(other) - log_diagonal(own) + 0.5 * (trace + distance - n)
