"""Probability distributions under torch.distributions' names.

Invariant: every name here means what the same name in torch.distributions means. Samples take a fixed number of words
of the generator per element, so they do not depend on the number of workers. They are torch's from the same seed but
for those of gamma and count distributions (see `distgrad.ops.sampling`).
"""

from distgrad.distributions import constraints, kl, transforms, utils
from distgrad.distributions.bernoulli import Bernoulli
from distgrad.distributions.binomial import Binomial
from distgrad.distributions.categorical import Categorical, OneHotCategorical, OneHotCategoricalStraightThrough
from distgrad.distributions.cauchy import Cauchy
from distgrad.distributions.constraint_registry import biject_to, transform_to
from distgrad.distributions.dirichlet import Beta, Dirichlet
from distgrad.distributions.distribution import Distribution
from distgrad.distributions.exponential import Exponential
from distgrad.distributions.gamma import Chi2, Gamma
from distgrad.distributions.geometric import Geometric
from distgrad.distributions.gumbel import Gumbel
from distgrad.distributions.half_normal import HalfCauchy, HalfNormal
from distgrad.distributions.independent import Independent
from distgrad.distributions.kl import kl_divergence, register_kl
from distgrad.distributions.laplace import Laplace
from distgrad.distributions.log_normal import LogNormal
from distgrad.distributions.mixture_same_family import MixtureSameFamily
from distgrad.distributions.multinomial import Multinomial
from distgrad.distributions.multivariate_normal import MultivariateNormal
from distgrad.distributions.normal import Normal
from distgrad.distributions.poisson import Poisson
from distgrad.distributions.relaxed_bernoulli import RelaxedBernoulli, RelaxedOneHotCategorical
from distgrad.distributions.studentT import StudentT
from distgrad.distributions.transformed_distribution import TransformedDistribution
from distgrad.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from distgrad.distributions.uniform import Uniform

__all__ = [
    "AbsTransform", "AffineTransform", "Bernoulli", "Beta", "Binomial", "CatTransform", "Categorical", "Cauchy", "Chi2",
    "ComposeTransform", "Dirichlet", "Distribution", "ExpTransform", "Exponential", "Gamma", "Geometric", "Gumbel",
    "HalfCauchy", "HalfNormal", "Independent", "IndependentTransform", "Laplace", "LogNormal", "LowerCholeskyTransform",
    "MixtureSameFamily", "Multinomial", "MultivariateNormal", "Normal", "OneHotCategorical",
    "OneHotCategoricalStraightThrough", "Poisson", "PositiveDefiniteTransform", "PowerTransform", "RelaxedBernoulli",
    "RelaxedOneHotCategorical", "ReshapeTransform", "SigmoidTransform", "SoftmaxTransform", "SoftplusTransform",
    "StackTransform", "StickBreakingTransform", "StudentT", "TanhTransform", "Transform", "TransformedDistribution",
    "Uniform", "biject_to", "constraints", "identity_transform", "kl", "kl_divergence", "register_kl", "transform_to",
    "transforms", "utils",
]  # fmt: skip
