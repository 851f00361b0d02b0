"""Random numbers: generators, distributions, dropout, and the same numbers for any number of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

import distgrad as dg
from distgrad.functions import random as functions
from distgrad.nn import functional as F

SIZE = 4000


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with dg.random.fork_rng():
        dg.manual_seed(11)
        yield


# Generators -------------------------------------------------------------------------------------------------


def test_a_seed_fixes_the_numbers() -> None:
    first = [dg.rand(3).tolist(), dg.randn(2).tolist()]
    again = [dg.rand(3).tolist(), dg.randn(2).tolist()]
    dg.manual_seed(11)
    assert [dg.rand(3).tolist(), dg.randn(2).tolist()] == first
    assert first != again
    dg.manual_seed(12)
    assert dg.rand(3).tolist() != first[0]


def test_a_generator_draws_by_itself() -> None:
    own = dg.Generator().manual_seed(3)
    assert own.initial_seed() == 3
    first = dg.rand(4, generator=own)
    before = dg.get_rng_state().tolist()
    second = dg.rand(4, generator=own)
    assert dg.get_rng_state().tolist() == before
    assert first.tolist() != second.tolist()
    other = dg.Generator("cpu").manual_seed(3)
    assert dg.rand(4, generator=other).tolist() == first.tolist()
    dg.manual_seed(3)
    assert dg.rand(4).tolist() == first.tolist()


def test_a_state_brings_the_draws_back() -> None:
    dg.rand(2)
    state = dg.get_rng_state()
    expected = [dg.rand(3).tolist() for _ in range(2)]
    dg.set_rng_state(state)
    assert [dg.rand(3).tolist() for _ in range(2)] == expected
    own = dg.Generator()
    own.set_state(state)
    assert dg.rand(3, generator=own).tolist() == expected[0]
    assert dg.rand(3, generator=own.clone_state()).tolist() == expected[1]
    assert (state.dtype, tuple(state.shape)) == (dg.uint8, (24,))


def test_seeds_at_the_ends_of_their_range() -> None:
    assert dg.manual_seed(2**64 - 1).initial_seed() == 2**64 - 1
    first = dg.rand(2).tolist()
    dg.manual_seed(-1)
    assert dg.initial_seed() == 2**64 - 1
    assert dg.rand(2).tolist() == first
    assert dg.seed() == dg.initial_seed()


def test_what_generators_refuse() -> None:
    with pytest.raises(RuntimeError, match="cuda"):
        dg.Generator("cuda")
    with pytest.raises(RuntimeError, match="Overflow"):
        dg.manual_seed(2**64)
    with pytest.raises(TypeError, match="uint8"):
        dg.set_rng_state(dg.zeros(16))
    with pytest.raises(RuntimeError, match="24"):
        dg.set_rng_state(dg.zeros(3, dtype=dg.uint8))
    with pytest.raises(TypeError, match="Generator"):
        dg.rand(2, generator=7)


def test_fork_rng_gives_the_state_back() -> None:
    before = dg.get_rng_state().tolist()
    with dg.random.fork_rng():
        dg.rand(3)
    assert dg.get_rng_state().tolist() == before
    with dg.random.fork_rng(enabled=False):
        dg.rand(3)
    assert dg.get_rng_state().tolist() != before


# Distributions ----------------------------------------------------------------------------------------------


def filled(name: str, *args: Any) -> Callable[[], dg.Tensor]:
    return lambda: getattr(functions, name)(dg.zeros(SIZE, dtype=dg.float64), *args)


@pytest.mark.parametrize(("draw", "cdf"), [
    pytest.param(lambda: dg.rand(SIZE, dtype=dg.float64), stats.uniform().cdf, id="rand"),
    pytest.param(lambda: dg.randn(SIZE, dtype=dg.float64), stats.norm().cdf, id="randn"),
    pytest.param(lambda: dg.normal(dg.full((SIZE,), 2.0), 3.0), stats.norm(2, 3).cdf, id="normal"),
    pytest.param(filled("uniform_", -2.0, 3.0), stats.uniform(-2, 5).cdf, id="uniform_"),
    pytest.param(filled("normal_", 1.0, 0.5), stats.norm(1, 0.5).cdf, id="normal_"),
    pytest.param(filled("exponential_", 2.0), stats.expon(scale=0.5).cdf, id="exponential_"),
    pytest.param(filled("log_normal_", 0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3)).cdf, id="log_normal_"),
    pytest.param(filled("cauchy_", 1.0, 2.0), stats.cauchy(1, 2).cdf, id="cauchy_"),
])
def test_continuous_distribution(draw: Callable[[], dg.Tensor], cdf: Callable[..., Any]) -> None:
    values = draw()
    assert values.shape == (SIZE,)
    assert stats.kstest(values.numpy(), cdf).pvalue > 1e-3


@pytest.mark.parametrize(("draw", "law"), [
    pytest.param(lambda: dg.randint(-2, 4, (SIZE,)), stats.randint(-2, 4), id="randint"),
    pytest.param(lambda: dg.randint_like(dg.zeros(SIZE), 5), stats.randint(0, 5), id="randint_like"),
    pytest.param(lambda: dg.bernoulli(dg.full((SIZE,), 0.3)), stats.bernoulli(0.3), id="bernoulli"),
    pytest.param(lambda: dg.bernoulli(dg.zeros(SIZE), 0.7), stats.bernoulli(0.7), id="bernoulli_number"),
    pytest.param(lambda: dg.poisson(dg.full((SIZE,), 2.5)), stats.poisson(2.5), id="poisson"),
    pytest.param(filled("random_", 6), stats.randint(0, 6), id="random_to"),
    pytest.param(filled("random_", -3, 2), stats.randint(-3, 2), id="random_from_to"),
    pytest.param(filled("bernoulli_", 0.4), stats.bernoulli(0.4), id="bernoulli_"),
    pytest.param(lambda: functions.bernoulli_(dg.zeros(SIZE), dg.tensor(0.25)), stats.bernoulli(0.25),
                 id="bernoulli_p"),
    pytest.param(filled("geometric_", 0.3), stats.geom(0.3), id="geometric_"),
])
def test_discrete_distribution(draw: Callable[[], dg.Tensor], law: Any) -> None:
    values = draw().numpy()
    found, counts = np.unique(values, return_counts=True)
    common = found[law.pmf(found) * SIZE >= 5]
    expected = law.pmf(common) * SIZE
    observed = np.array([counts[found == v][0] for v in common])
    rest = SIZE - expected.sum()
    if rest >= 5:
        observed, expected = np.append(observed, SIZE - observed.sum()), np.append(expected, rest)
    assert law.pmf(found).min() > 0
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


def test_multinomial_follows_the_weights() -> None:
    weights = dg.tensor([2.0, 0.0, 1.0, 5.0])
    drawn = np.bincount(dg.multinomial(weights, SIZE, replacement=True).numpy(), minlength=4)
    assert drawn[1] == 0
    assert stats.chisquare(drawn[[0, 2, 3]], SIZE * np.array([2, 1, 5]) / 8).pvalue > 1e-3
    first = np.bincount(dg.multinomial(weights.expand(SIZE, 4), 2).numpy()[:, 0], minlength=4)
    assert stats.chisquare(first[[0, 2, 3]], SIZE * np.array([2, 1, 5]) / 8).pvalue > 1e-3


def test_multinomial_without_replacement_repeats_nothing() -> None:
    drawn = dg.multinomial(dg.tensor([1.0, 0.0, 2.0, 3.0]).expand(50, 4), 3).numpy()
    assert drawn.shape == (50, 3)
    assert all(sorted(row) == [0, 2, 3] for row in drawn.tolist())


def test_randperm_is_a_permutation() -> None:
    order = dg.randperm(100)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() != list(range(100))


def test_dtypes_and_options() -> None:
    assert dg.rand(2, requires_grad=True).requires_grad
    assert dg.randn(2, 3, dtype=dg.complex128).dtype is dg.complex128
    half = dg.randn(300, dtype=dg.float16)
    assert half.dtype is dg.float16
    assert 0.7 < half.float().std().item() < 1.3
    whole = functions.random_(dg.zeros(200, dtype=dg.int8))
    assert whole.min().item() >= 0
    assert whole.max().item() > 60
    same = dg.empty(3)
    assert same.uniform_(1.0, 2.0) is same
    assert bool((same >= 1).all())


# Dropout ----------------------------------------------------------------------------------------------------


def test_dropout_zeroes_and_scales_and_so_does_its_gradient() -> None:
    x = dg.full((40, 50), 3.0, dtype=dg.float64).requires_grad_()
    y = F.dropout(x, 0.25)
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.05
    np.testing.assert_allclose(y.detach().numpy()[kept], 4.0)
    (grad,) = dg.autograd.grad(y.sum(), x)
    np.testing.assert_allclose(grad.numpy(), kept / 0.75)


def test_dropout_saves_a_bool_mask_and_nothing_else() -> None:
    x = dg.ones(64, 64, requires_grad=True)
    fn = F.dropout(x, 0.5).grad_fn
    saved = [n.data for n in (*fn.ins.values(), *fn.outs.values()) if hasattr(n, "data")]
    assert [(a.dtype.name, a.shape) for a in saved] == [("bool", (64, 64))]


def test_dropout_outside_training_is_the_input_itself() -> None:
    x = dg.ones(3)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert F.alpha_dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 1.0).tolist() == [0, 0, 0]
    assert F.dropout(x, 0.5, inplace=True) is x
    with pytest.raises(ValueError, match="between 0 and 1"):
        F.dropout(x, 1.5)


@pytest.mark.parametrize(("function", "shape", "channel_dims"), [
    (F.dropout1d, (6, 8, 5), 2), (F.dropout1d, (8, 5), 1), (F.dropout2d, (6, 8, 3, 4), 2),
    (F.dropout3d, (6, 8, 2, 3, 2), 2), (F.dropout3d, (8, 2, 3, 2), 1),
])
def test_channel_dropout(function: Callable[..., Any], shape: tuple[int, ...], channel_dims: int) -> None:
    y = function(dg.ones(*shape), 0.5).numpy().reshape(*shape[:channel_dims], -1)
    assert (y == y[..., :1]).all()
    assert set(np.unique(y)) == {0.0, 2.0}


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = dg.randn(200, 200)
    y = F.alpha_dropout(x, 0.3, training=True)
    assert abs(y.mean().item()) < 0.03
    assert abs(y.std().item() - 1) < 0.03
    z = F.feature_alpha_dropout(dg.ones(30, 20, 4), 0.5, training=True).numpy()
    assert (z == z[..., :1]).all()
    assert len(np.unique(z)) == 2


def test_rrelu_draws_slopes_in_training() -> None:
    x = dg.full((1000,), -2.0, dtype=dg.float64)
    slopes = F.rrelu(x, 0.1, 0.5, training=True).numpy() / -2
    assert stats.kstest(slopes, stats.uniform(0.1, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_allclose(F.rrelu(x, 0.1, 0.5).numpy(), -0.6)


def test_gumbel_softmax_draws_with_the_softmax_probabilities() -> None:
    logits = dg.tensor([0.0, 1.0, 2.0], dtype=dg.float64).expand(SIZE, 3).detach().requires_grad_()
    hard = F.gumbel_softmax(logits, hard=True)
    counts = hard.detach().numpy().round().sum(0)
    expected = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    assert stats.chisquare(counts, SIZE * expected).pvalue > 1e-3
    (grad,) = dg.autograd.grad((hard * dg.tensor([1.0, 2.0, 3.0])).sum(), logits)
    assert grad.abs().sum().item() > 0
    soft = F.gumbel_softmax(logits, tau=0.5)
    np.testing.assert_allclose(soft.sum(-1).detach().numpy(), 1.0)


# The same numbers wherever they are made --------------------------------------------------------------------


def every_draw() -> list[Any]:
    """One result of every random function, on tensors of 7 rows."""
    x = dg.arange(7.0, dtype=dg.float64).reshape(7, 1) * dg.ones(7, 5, dtype=dg.float64)
    p = (x + 1) / 8
    return [
        dg.rand(7, 5), dg.randn(7, 5, dtype=dg.float64), dg.randint(-5, 1000, (7, 3)), dg.randperm(7),
        dg.rand(7, 2, dtype=dg.complex64), dg.randn_like(x), dg.normal(x, p), dg.normal(0.0, p),
        dg.normal(1.0, 2.0, (7, 2)),
        dg.bernoulli(p), dg.bernoulli(x, 0.4), dg.poisson(x), dg.multinomial(p, 2), dg.multinomial(p, 9, True),
        dg.empty(7, 3).uniform_(-1, 1), dg.empty(7, 3).normal_(1, 2), dg.empty(7, 3).exponential_(),
        dg.empty(7, 3).log_normal_(), dg.empty(7, 3).cauchy_(), dg.empty(7, 3).geometric_(0.3),
        dg.zeros(7, 3, dtype=dg.int64).random_(9), dg.empty(7, 3).bernoulli_(0.5), F.dropout(x + 1, 0.4),
        F.dropout2d(dg.ones(7, 3, 2, 2), 0.5), F.alpha_dropout(x, 0.4, True), F.rrelu(-x, training=True),
        F.gumbel_softmax(x),
    ]


@pytest.mark.parametrize("threshold", [0, 1 << 30])
@pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])
def test_numbers_do_not_depend_on_the_workers(workers: int, threshold: int) -> None:
    expected = [t.numpy() for t in every_draw()]
    dg.manual_seed(11)
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=threshold):
        found = [t.numpy() for t in every_draw()]
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("shape", [(7, 6), (2, 6), (0, 6)])
@pytest.mark.parametrize("dim", [0, 1])
def test_draws_for_sharded_inputs_do_not_depend_on_the_dim_and_move_nothing(dim: int, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).uniform(0.2, 0.9, shape)

    def draws(x: Any) -> list[Any]:
        return [F.dropout(x, 0.5), dg.bernoulli(x), dg.poisson(x), dg.normal(x, x)]

    expected = [t.numpy() for t in draws(dg.from_numpy(data.copy()))]
    dg.manual_seed(11)
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(data.copy()), dim)
        found = draws(x)
        assert all(t.placement == dg.Shard(dim) for t in found)
        before = dg.stats().collectives
        dg.synchronize()
        assert dg.stats().collectives == before
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine.numpy(), other)


def test_new_draws_make_no_new_programs() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.ones(6, 4))
        counts = []
        for seed in (1, 2, 2**63 + 5, -4):
            dg.manual_seed(seed)
            F.dropout(x, 0.1 * (seed % 3 + 1)).numpy()
            dg.rand(5).numpy()
            counts.append(dg.stats().programs_built)
    assert counts[1] == counts[-1]  # the first one also makes x
