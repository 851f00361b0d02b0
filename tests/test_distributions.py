"""Distributions against torch: functions and their gradients by value, samples by their moments and by KS tests."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

RANDOM = np.random.default_rng(0)


def positive(*shape):
    return RANDOM.uniform(0.5, 2, shape)


def normal(*shape):
    return RANDOM.standard_normal(shape)


def chances(*shape):
    return RANDOM.uniform(0.1, 0.9, shape)


def simplex(*shape):
    x = RANDOM.uniform(0.1, 1, shape)
    return x / x.sum(-1, keepdims=True)


def definite(*shape):
    a = RANDOM.standard_normal((*shape, shape[-1]))
    return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])


HALF = np.array(0.7)
CASES = [
    ("Normal", {"loc": normal(3, 1), "scale": positive(4)}),
    ("LogNormal", {"loc": normal(3) * 0.3, "scale": positive(3) * 0.3}),
    ("Uniform", {"low": normal(3) - 3, "high": normal(3) + 3}),
    ("Bernoulli", {"probs": chances(3, 2)}),
    ("Bernoulli", {"logits": normal(3, 2)}),
    ("Geometric", {"probs": chances(4)}),
    ("Binomial", {"total_count": np.array(7.0), "probs": chances(4)}),
    ("Binomial", {"total_count": np.array(7.0), "logits": normal(4)}),
    ("Poisson", {"rate": positive(4) * 3}),
    ("Categorical", {"probs": simplex(3, 4)}),
    ("Categorical", {"logits": normal(3, 4)}),
    ("OneHotCategorical", {"logits": normal(3, 4)}),
    ("OneHotCategoricalStraightThrough", {"probs": simplex(3, 4)}),
    ("Gamma", {"concentration": positive(3) * 2, "rate": positive(3)}),
    ("Chi2", {"df": positive(3) * 3}),
    ("Beta", {"concentration1": positive(3) * 2, "concentration0": positive(3) * 2}),
    ("Dirichlet", {"concentration": positive(3, 4) * 2}),
    ("Exponential", {"rate": positive(3)}),
    ("Laplace", {"loc": normal(3), "scale": positive(3)}),
    ("Cauchy", {"loc": normal(3), "scale": positive(3)}),
    ("StudentT", {"df": positive(3) * 3 + 4, "loc": normal(3), "scale": positive(3)}),
    ("HalfNormal", {"scale": positive(3)}),
    ("HalfCauchy", {"scale": positive(3)}),
    ("Gumbel", {"loc": normal(3), "scale": positive(3)}),
    ("Multinomial", {"total_count": 5, "probs": simplex(3, 4)}),
    ("MultivariateNormal", {"loc": normal(3), "scale_tril": np.linalg.cholesky(definite(3))}),
    ("MultivariateNormal", {"loc": normal(2, 3), "covariance_matrix": definite(3)}),
    ("MultivariateNormal", {"loc": normal(3), "precision_matrix": definite(2, 3)}),
    ("RelaxedBernoulli", {"temperature": HALF, "probs": chances(3)}),
    ("RelaxedOneHotCategorical", {"temperature": HALF, "logits": normal(3, 4)}),
]
IDS = [f"{name}-{'-'.join(parameters)}" for name, parameters in CASES]


def build(library, name, parameters):
    """Gives the distribution and the parameters that require gradients."""
    given = {
        key: value if not isinstance(value, np.ndarray) else library.tensor(value, requires_grad=bool(value.ndim))
        for key, value in parameters.items()
    }
    wanted = [v for v in given.values() if hasattr(v, "requires_grad") and v.requires_grad]
    return getattr(library.distributions, name)(**given), wanted


def compare(theirs, ours, their_parameters, our_parameters, what):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-7, atol=1e-9, err_msg=what)
    assert ours.requires_grad == theirs.requires_grad, what
    if not theirs.requires_grad or not torch.isfinite(theirs).all():
        return
    weights = RANDOM.standard_normal(tuple(theirs.shape))
    options = {"allow_unused": True, "retain_graph": True}
    expected = torch.autograd.grad((theirs * torch.tensor(weights)).sum(), their_parameters, **options)
    found = dg.autograd.grad((ours * dg.tensor(weights)).sum(), our_parameters, **options)
    for mine, other in zip(found, expected):
        mine = 0.0 if mine is None else mine.numpy()
        other = 0.0 if other is None else other.numpy()
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-8, err_msg=f"gradient of {what}")


def has(distribution, name, *arguments):
    try:
        found = getattr(distribution, name)
        return found(*arguments) if arguments or name == "entropy" else found
    except NotImplementedError:
        return None


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=IDS)
def test_functions_match_torch(name, parameters):
    theirs, p = build(torch, name, parameters)
    ours, q = build(dg, name, parameters)
    assert repr(ours) == repr(theirs)
    assert (ours.batch_shape, ours.event_shape) == (tuple(theirs.batch_shape), tuple(theirs.event_shape))
    assert ours.has_rsample == theirs.has_rsample
    assert ours.has_enumerate_support == theirs.has_enumerate_support
    torch.manual_seed(0)
    values = theirs.sample((5,))
    given = dg.tensor(values.numpy())
    for attribute in ("mean", "mode", "variance", "stddev", "entropy"):
        expected = has(theirs, attribute)
        if expected is not None:
            compare(expected, has(ours, attribute), p, q, attribute)
    compare(theirs.log_prob(values), ours.log_prob(given), p, q, "log_prob")
    expected = has(theirs, "cdf", values)
    if expected is not None:
        if name in ("Gamma", "Chi2"):  # no gradient to the concentration, as in torch
            compare(expected.detach(), ours.cdf(given).detach(), [], [], "cdf")
        else:
            compare(expected, ours.cdf(given), p, q, "cdf")
    levels = RANDOM.uniform(0.05, 0.95, (5, *theirs.batch_shape))
    expected = has(theirs, "icdf", torch.tensor(levels))
    if expected is not None:
        compare(expected, ours.icdf(dg.tensor(levels)), p, q, "icdf")
    if theirs.has_enumerate_support:
        compare(theirs.enumerate_support(), ours.enumerate_support(), p, q, "enumerate_support")
    shape = (2, *theirs.batch_shape)
    expanded = ours.expand(shape)
    assert tuple(expanded.batch_shape) == shape
    compare(theirs.expand(shape).log_prob(values[:2]), expanded.log_prob(given[:2]), p, q, "expand")


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=IDS)
def test_samples_follow_the_distribution(name, parameters):
    theirs, p = build(torch, name, parameters)
    ours, q = build(dg, name, parameters)
    count = 5000
    torch.manual_seed(0)
    dg.manual_seed(0)
    samples = ours.sample((count,))
    assert not samples.requires_grad
    expected = theirs.sample((count,))
    assert tuple(samples.shape) == tuple(expected.shape)
    assert str(samples.dtype).rpartition(".")[2] == str(expected.dtype).rpartition(".")[2]
    mine, other = samples.numpy().reshape(count, -1), expected.numpy().reshape(count, -1)
    for column in range(mine.shape[1]):
        assert stats.ks_2samp(mine[:, column], other[:, column], method="asymp").pvalue > 1e-4
    no_moments = ("Cauchy", "HalfCauchy", "OneHotCategoricalStraightThrough", "RelaxedBernoulli",
                  "RelaxedOneHotCategorical")
    if not ours.has_rsample or name in no_moments:
        return
    # The pathwise gradient of the second moment against the gradient of its formula.
    drawn = ours.rsample((4 * count,))
    found = dg.autograd.grad((drawn * drawn).mean(0).sum(), q)
    moment = (theirs.variance + theirs.mean**2).sum()
    for mine, other in zip(found, torch.autograd.grad(moment, p, allow_unused=True)):
        if other is not None:
            mine, other = mine.numpy(), other.numpy()
            if mine.ndim > 1 and mine.shape[-1] == mine.shape[-2]:
                mine, other = mine + np.swapaxes(mine, -1, -2), other + np.swapaxes(other, -1, -2)
            assert np.abs(mine - other).max() < 0.2 * (np.abs(other).max() + 0.2)


SAME = ["Normal", "LogNormal", "Bernoulli", "Categorical", "OneHotCategorical", "Binomial", "Beta", "Dirichlet",
        "Gamma", "Exponential", "Geometric", "Laplace", "Poisson", "Cauchy", "Gumbel", "HalfNormal", "Uniform",
        "MultivariateNormal"]
PAIRS = [(name, name) for name in SAME] + [("Uniform", "Normal"), ("Normal", "Laplace"), ("Exponential", "Gamma")]


@pytest.mark.parametrize("names", PAIRS, ids=["-".join(names) for names in PAIRS])
def test_kl_matches_torch(names):
    first = dict(next(parameters for name, parameters in CASES if name == names[0]))
    second = dict(next(parameters for name, parameters in CASES if name == names[1]))
    if names in (("Uniform", "Normal"), ("Normal", "Laplace")):
        plain = {"loc": normal(3), "scale": positive(3)}
        first, second = (first, plain) if names[0] == "Uniform" else (plain, {"loc": normal(3), "scale": positive(3)})
    elif "probs" in second:
        second["probs"] = second["probs"][::-1].copy()
    else:
        second = {key: value * 1.3 if key not in ("loc", "total_count") else value for key, value in second.items()}
    (p, a), (q, b) = build(torch, names[0], first), build(torch, names[1], second)
    (r, c), (s, d) = build(dg, names[0], first), build(dg, names[1], second)
    kl, own = torch.distributions.kl_divergence, dg.distributions.kl_divergence
    compare(kl(p, q), own(r, s), a + b, c + d, "kl")
    if p.batch_shape and p.batch_shape == q.batch_shape:
        theirs, ours = torch.distributions.Independent, dg.distributions.Independent
        compare(kl(theirs(p, 1), theirs(q, 1)), own(ours(r, 1), ours(s, 1)), a + b, c + d, "independent")


@pytest.mark.parametrize("concentration", [0.01, 0.3, 1.0, 3.3, 50.0, 1e4])
def test_gamma_samples_and_their_gradients(concentration):
    a = dg.full((4000,), concentration, dtype=dg.float64).requires_grad_()
    dg.manual_seed(3)
    x = dg.distributions.Gamma(a, 1.0).rsample()
    assert stats.kstest(x.detach().numpy(), "gamma", args=(concentration,)).pvalue > 1e-3
    found = dg.autograd.grad(x.sum(), a)[0].numpy()
    expected = torch._standard_gamma_grad(torch.tensor(a.detach().numpy()), torch.tensor(x.detach().numpy())).numpy()
    # torch approximates it with a relative error of up to 3e-3.
    np.testing.assert_allclose(found, expected, rtol=4e-3, atol=1e-300)


def test_draws_do_not_depend_on_the_number_of_workers():
    D = dg.distributions

    def draws():
        dg.manual_seed(5)
        x = dg.linspace(-1, 1, 24, dtype=dg.float64).reshape(8, 3)
        x = dg.shard(x) if dg.is_initialized() else x
        found = [
            D.Normal(x, x.exp()).rsample(), D.Gamma(x.exp(), x.exp()).rsample((2,)), D.Beta(x.exp(), x.exp()).sample(),
            D.Categorical(logits=x).sample((4,)), D.Binomial(9, logits=x).sample(), D.Poisson(x.exp()).sample(),
            D.MultivariateNormal(x, dg.eye(3, dtype=dg.float64)).sample(), D.Multinomial(4, logits=x).sample(),
        ]
        return [v.numpy() for v in found]

    expected = draws()
    for workers in (1, 3, 5):
        with dg.init(local_mode=True, num_workers=workers, shard_threshold=1):
            for mine, other in zip(draws(), expected):
                np.testing.assert_array_equal(mine, other)


def test_sharded_parameters_do_not_communicate():
    D = dg.distributions
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1):
        x = dg.shard(dg.randn(8, 3, dtype=dg.float64))
        index = dg.shard(dg.zeros(8, dtype=dg.int64))
        dg.synchronize()
        before = dg.stats().collectives
        kept = [
            D.Normal(x, x.exp(), validate_args=False).rsample(),
            D.Beta(x.exp(), x.exp(), validate_args=False).rsample(),
            D.Categorical(logits=x, validate_args=False).sample(),
            D.Categorical(logits=x, validate_args=False).log_prob(index),
            D.MultivariateNormal(x, dg.eye(3, dtype=dg.float64), validate_args=False).log_prob(x),
        ]
        dg.synchronize()
        assert dg.stats().collectives == before
        assert all(value.placement == dg.Shard(0) for value in kept)


TRANSFORMS = [
    "ExpTransform()", "SigmoidTransform()", "TanhTransform()", "SoftplusTransform()", "AffineTransform(1.0, -2.0)",
    "AffineTransform(1.0, 2.0, event_dim=1)", "StickBreakingTransform()",
    "ComposeTransform([D.AffineTransform(0.5, 0.3), D.ExpTransform(), D.PowerTransform(2.0)])",
    "IndependentTransform(D.ExpTransform(), 1)", "ReshapeTransform((3,), (3, 1))",
    "StackTransform([D.ExpTransform(), D.TanhTransform(), D.SigmoidTransform()], 1)",
    "CatTransform([D.ExpTransform(), D.TanhTransform()], 1, [1, 2])",
]


@pytest.mark.parametrize("expression", TRANSFORMS)
def test_transforms_match_torch(expression):
    theirs = eval("D." + expression, {"D": torch.distributions})
    ours = eval("D." + expression, {"D": dg.distributions})
    values = normal(4, 3)
    x, u = torch.tensor(values), dg.tensor(values)
    y, v = theirs(x), ours(u)
    compare(y, v, [], [], "forward")
    compare(theirs.inv(y), ours.inv(v), [], [], "inverse")
    compare(theirs.log_abs_det_jacobian(x, y), ours.log_abs_det_jacobian(u, v), [], [], "jacobian")
    assert tuple(ours.forward_shape((4, 3))) == tuple(theirs.forward_shape((4, 3)))
    assert (ours.domain.event_dim, ours.codomain.event_dim) == (theirs.domain.event_dim, theirs.codomain.event_dim)
    assert ours.bijective == theirs.bijective


def test_transformed_and_mixture_distributions_match_torch():
    def of(T):
        D = T.distributions
        flow = [D.AffineTransform(1.0, 2.0), D.TanhTransform()]
        loc = T.linspace(-1, 1, 6, dtype=T.float64).reshape(2, 3)
        squashed = D.TransformedDistribution(D.Normal(loc, 0.5 + loc.abs()), flow)
        mixed = D.MixtureSameFamily(D.Categorical(T.ones(2, 3, dtype=T.float64)), D.Normal(loc, 1.0 + loc.abs()))
        logistic = D.TransformedDistribution(D.Uniform(T.zeros(3), T.ones(3)), D.SigmoidTransform().inv)
        values = T.linspace(-0.9, 0.9, 6, dtype=T.float64).reshape(2, 3)
        return [squashed.log_prob(values), squashed.cdf(values), squashed.icdf((values + 1) / 2), mixed.mean,
                mixed.variance, mixed.log_prob(values[:, 0]), mixed.cdf(values[:, 1]), logistic.log_prob(values[0]),
                squashed.expand((4, 2, 3)).log_prob(values)]

    for mine, other in zip(of(dg), of(torch)):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-6)
    D = dg.distributions
    mixed = D.MixtureSameFamily(D.Categorical(dg.ones(3)), D.Normal(dg.tensor([-5.0, 0.0, 5.0]), 0.1))
    assert mixed.sample((600,)).abs().mean().item() == pytest.approx(10 / 3, rel=0.15)


@pytest.mark.parametrize(
    "name", ["real", "positive", "unit_interval", "simplex", "lower_cholesky", "positive_definite"]
)
def test_registered_transforms_map_into_their_constraint(name):
    D = dg.distributions
    constraint = getattr(D.constraints, name)
    x = dg.tensor(normal(4, 3, 3))
    assert bool(constraint.check(D.transform_to(constraint)(x)).all())


ERRORS = [
    lambda D, T: D.Normal(T.tensor([0.0, 1.0]), T.tensor([1.0, -1.0])),
    lambda D, T: D.Bernoulli(T.tensor([1.5])),
    lambda D, T: D.Bernoulli(),
    lambda D, T: D.Normal(0.0, 1.0).log_prob(T.tensor([float("nan")])),
    lambda D, T: D.Normal(T.zeros(3), 1.0).log_prob(T.zeros(4)),
    lambda D, T: D.Categorical(probs=T.tensor([-0.1, 0.5])),
    lambda D, T: D.Categorical(T.tensor(1.0)),
    lambda D, T: D.Categorical(logits=T.zeros(3)).log_prob(T.tensor([4])),
    lambda D, T: D.Uniform(T.tensor([1.0]), T.tensor([0.0])),
    lambda D, T: D.MultivariateNormal(T.zeros(2), -T.eye(2)),
    lambda D, T: D.Dirichlet(T.zeros(3)),
    lambda D, T: D.Independent(D.Normal(0.0, 1.0), 1),
]


@pytest.mark.parametrize("call", ERRORS)
def test_errors_are_torchs(call):
    with pytest.raises(Exception) as theirs:  # whatever torch raises
        call(torch.distributions, torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(dg.distributions, dg)
    assert str(ours.value) == str(theirs.value)


def test_validation_can_be_switched_off():
    D = dg.distributions
    D.Normal(0.0, -1.0, validate_args=False)
    try:
        D.Distribution.set_default_validate_args(False)
        D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError, match="scale"):
        D.Normal(0.0, -1.0)
