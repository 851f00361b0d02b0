"""torch.nn.functional's checks and warnings, the creation functions' errors, and numerics the op rows do not reach."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def refused(name: str, call: Callable[[Any], Any]) -> Any:
    return pytest.param(call, id=name)


def integers(T: Any, *shape: int) -> Any:
    return T.zeros(*shape, dtype=T.int64)


@pytest.mark.parametrize("call", [
    refused("negative size", lambda T: T.zeros(2, -1)),
    refused("float size", lambda T: T.zeros(2.5)),
    refused("unknown keyword", lambda T: T.zeros(2, foo=1)),
    refused("full overflow", lambda T: T.full((2,), 300, dtype=T.uint8)),
    refused("full overflow int32", lambda T: T.full((2,), 2**40, dtype=T.int32)),
    refused("full nan", lambda T: T.full((2,), float("nan"), dtype=T.int64)),
    refused("full float overflow", lambda T: T.full((2,), 1e50)),
    refused("full complex", lambda T: T.full((2,), 1j, dtype=T.float32)),
    refused("arange step 0", lambda T: T.arange(0, 5, 0)),
    refused("arange wrong sign", lambda T: T.arange(0, 5, -1)),
    refused("arange infinite", lambda T: T.arange(0, float("inf"))),
    refused("linspace negative", lambda T: T.linspace(0, 1, -1)),
    refused("integer requires grad", lambda T: T.zeros(2, dtype=T.int64, requires_grad=True)),
    refused("randint empty", lambda T: T.randint(3, 3, (2,))),
    refused("randint out of dtype", lambda T: T.randint(300, (2,), dtype=T.uint8)),
    refused("rand of integers", lambda T: T.rand(2, dtype=T.int64)),
    refused("negative std", lambda T: T.normal(0.0, -1.0, (2,))),
    refused("negative std tensor", lambda T: T.normal(T.zeros(2), -T.ones(2))),
    refused("multinomial zeros", lambda T: T.multinomial(T.zeros(3), 1)),
    refused("multinomial too many", lambda T: T.multinomial(T.ones(3), 4)),
    refused("multinomial dims", lambda T: T.multinomial(T.ones(2, 2, 2), 1)),
    refused("multinomial negative", lambda T: T.multinomial(-T.ones(3), 1)),
    refused("bernoulli above 1", lambda T: T.bernoulli(T.full((2,), 2.0))),
    refused("bernoulli integers", lambda T: T.bernoulli(integers(T, 2))),
    refused("poisson negative", lambda T: T.poisson(-T.ones(2))),
    refused("uniform_ reversed", lambda T: T.ones(3).uniform_(2, 1)),
    refused("uniform_ integers", lambda T: integers(T, 3).uniform_()),
    refused("exponential_ negative", lambda T: T.ones(3).exponential_(-1)),
    refused("geometric_ above 1", lambda T: T.ones(3).geometric_(1.5)),
    refused("uniform_ on a leaf", lambda T: T.ones(3, requires_grad=True).uniform_()),
    refused("layer_norm shape", lambda T: T.nn.functional.layer_norm(T.ones(2, 3), (4,))),
    refused("layer_norm weight", lambda T: T.nn.functional.layer_norm(T.ones(2, 3), (3,), T.ones(2))),
    refused("layer_norm integers", lambda T: T.nn.functional.layer_norm(integers(T, 2, 3), (3,))),
    refused("rms_norm shape", lambda T: T.nn.functional.rms_norm(T.ones(2, 3), (2,))),
    refused("group_norm groups", lambda T: T.nn.functional.group_norm(T.ones(2, 3), 2)),
    refused("group_norm single", lambda T: T.nn.functional.group_norm(T.ones(1, 1), 1)),
    refused("batch_norm single", lambda T: T.nn.functional.batch_norm(T.ones(1, 3), None, None, training=True)),
    refused("batch_norm no statistics", lambda T: T.nn.functional.batch_norm(T.ones(4, 3), None, None)),
    refused("batch_norm channels", lambda T: T.nn.functional.batch_norm(T.ones(4, 3), T.ones(2), T.ones(3))),
    refused("instance_norm single", lambda T: T.nn.functional.instance_norm(T.ones(2, 3, 1))),
    refused("local_response_norm dims", lambda T: T.nn.functional.local_response_norm(T.ones(2, 3), 2)),
    refused("reduction", lambda T: T.nn.functional.mse_loss(T.ones(2), T.ones(2), reduction="average")),
    refused("mse weight", lambda T: T.nn.functional.mse_loss(T.ones(2), T.ones(2), weight=T.ones(3))),
    refused("beta", lambda T: T.nn.functional.smooth_l1_loss(T.ones(2), T.ones(2), beta=-1.0)),
    refused("delta", lambda T: T.nn.functional.huber_loss(T.ones(2), T.ones(2), delta=0.0)),
    refused("nll batch", lambda T: T.nn.functional.nll_loss(T.ones(3, 4), integers(T, 2))),
    refused("nll float target", lambda T: T.nn.functional.nll_loss(T.ones(3, 4), T.ones(3))),
    refused("nll class", lambda T: T.nn.functional.nll_loss(T.ones(3, 4), integers(T, 3) + 4)),
    refused("nll weight", lambda T: T.nn.functional.nll_loss(T.ones(3, 4), integers(T, 3), T.ones(3))),
    refused("cross_entropy target", lambda T: T.nn.functional.cross_entropy(T.ones(3, 4, 2), integers(T, 3, 5))),
    refused("cross_entropy smoothing",
            lambda T: T.nn.functional.cross_entropy(T.ones(3, 4), integers(T, 3), label_smoothing=1.5)),
    refused("cross_entropy integers as probabilities",
            lambda T: T.nn.functional.cross_entropy(T.ones(3, 4), integers(T, 3, 4))),
    refused("bce sizes", lambda T: T.nn.functional.binary_cross_entropy(T.ones(3), T.ones(2))),
    refused("bce range", lambda T: T.nn.functional.binary_cross_entropy(T.ones(3) * 2, T.ones(3))),
    refused("bce logits sizes", lambda T: T.nn.functional.binary_cross_entropy_with_logits(T.ones(3), T.ones(2))),
    refused("gaussian variance", lambda T: T.nn.functional.gaussian_nll_loss(T.ones(3), T.ones(3), -T.ones(3))),
    refused("gaussian size", lambda T: T.nn.functional.gaussian_nll_loss(T.ones(3, 4), T.ones(3, 4), T.ones(2))),
    refused("margin_ranking dims",
            lambda T: T.nn.functional.margin_ranking_loss(T.ones(3), T.ones(3), T.ones(3, 1))),
    refused("multi_margin p", lambda T: T.nn.functional.multi_margin_loss(T.ones(3, 4), integers(T, 3), p=3)),
    refused("multilabel_margin size",
            lambda T: T.nn.functional.multilabel_margin_loss(T.ones(3, 4), integers(T, 3, 5))),
    refused("triplet dims", lambda T: T.nn.functional.triplet_margin_loss(T.ones(3), T.ones(3), T.ones(3, 1))),
    refused("cosine_embedding dims",
            lambda T: T.nn.functional.cosine_embedding_loss(T.ones(3, 2), T.ones(3, 2), T.ones(3, 1))),
    refused("dropout p", lambda T: T.nn.functional.dropout(T.ones(2), 1.5)),
    refused("dropout integers", lambda T: T.nn.functional.dropout(integers(T, 2))),
    refused("dropout1d dims", lambda T: T.nn.functional.dropout1d(T.ones(2))),
    refused("rrelu bounds", lambda T: T.nn.functional.rrelu(T.ones(2), 0.5, 0.1)),
    refused("attention both masks", lambda T: T.nn.functional.scaled_dot_product_attention(
        T.ones(1, 2, 2), T.ones(1, 2, 2), T.ones(1, 2, 2), T.ones(2, 2), is_causal=True)),
])
def test_refuses_what_torch_refuses(call: Callable[[Any], Any]) -> None:
    with pytest.raises(Exception) as theirs:  # whatever torch raises is what we want
        call(torch)
    with pytest.raises(type(theirs.value)) as ours:
        call(dg)
    assert not isinstance(ours.value, AttributeError | AssertionError)
    assert len(str(ours.value)) > 10


def test_a_missing_device_is_refused() -> None:
    for call in (lambda: dg.zeros(2, device="cuda"), lambda: dg.rand(2, device="cuda:1")):
        with pytest.raises(RuntimeError, match="cuda"):
            call()
    assert dg.zeros(2, device="cpu", pin_memory=False, layout=None).tolist() == [0, 0]


@pytest.mark.parametrize("call", [
    lambda T: T.nn.functional.mse_loss(T.ones(3, 1), T.ones(3)),
    lambda T: T.nn.functional.l1_loss(T.ones(3, 1), T.ones(3)),
    lambda T: T.nn.functional.huber_loss(T.ones(3, 1), T.ones(3)),
    lambda T: T.nn.functional.kl_div(T.ones(3), T.ones(3)),
    lambda T: T.nn.functional.mse_loss(T.ones(3), T.ones(3), size_average=False),
    lambda T: T.nn.functional.nll_loss(T.ones(3, 2), T.zeros(3, dtype=T.int64), reduce=False),
    lambda T: T.nn.functional.dropout2d(T.ones(2, 3, 4), 0.0),
    lambda T: T.nn.functional.dropout3d(T.ones(2, 3, 4), 0.0),
])
def test_warns_as_torch_does(call: Callable[[Any], Any]) -> None:
    texts = []
    for library in (torch, dg):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(library)
        texts.append([(w.category, " ".join(str(w.message).split())) for w in caught])
        assert all(w.filename == __file__ for w in caught) or library is torch
    assert [w[0] for w in texts[0]] == [w[0] for w in texts[1]]
    assert texts[0][0][1][:60] == texts[1][0][1][:60]


def both(call: Callable[[Any, Any], Any], data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return tuple(call(T, T.from_numpy(data.copy())).numpy() for T in (dg, torch))


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_layer_norm_in_float32_far_from_zero(offset: float) -> None:
    data = (np.random.default_rng(0).standard_normal((16, 1000)) + offset).astype(np.float32)
    ours, theirs = both(lambda T, x: T.nn.functional.layer_norm(x, (1000,)), data)
    exact = (data.astype(np.float64) - data.mean(1, keepdims=True, dtype=np.float64)) / data.std(
        1, keepdims=True, dtype=np.float64)
    allowed = max(np.abs(theirs - exact).max() * 3, 1e-5)
    assert np.abs(ours - exact).max() <= allowed


def test_norms_of_long_rows() -> None:
    data = (np.random.default_rng(0).standard_normal((2, 100_000)) + 3).astype(np.float32)
    ours, theirs = both(lambda T, x: T.nn.functional.layer_norm(x, (100_000,)), data)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norms_in_half_precision(name: str, dtype: str) -> None:
    data = np.random.default_rng(0).standard_normal((8, 64)).astype(np.float32)

    def call(T: Any, x: Any) -> Any:
        return getattr(T.nn.functional, name)(x.to(getattr(T, dtype)), (64,)).float()

    ours, theirs = both(call, data)
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2)


def test_cross_entropy_of_huge_logits_and_no_rows() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-3e4, 1e4, 5.0]])
    ours, theirs = both(lambda T, x: T.nn.functional.cross_entropy(x, T.tensor([1, 1]), reduction="none"), logits)
    np.testing.assert_allclose(ours, theirs)
    for reduction in ("mean", "sum", "none"):
        ours, theirs = both(
            lambda T, x, r=reduction: T.nn.functional.cross_entropy(x, T.zeros(0, dtype=T.int64), reduction=r),
            np.zeros((0, 3)))
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = both(lambda T, x: T.nn.functional.cross_entropy(x, T.tensor([-100, -100])), logits)
    assert np.isnan(ours)
    assert np.isnan(theirs)


def test_gradients_at_the_edges_of_binary_cross_entropy() -> None:
    found = []
    for T in (dg, torch):
        x = T.tensor([0.0, 1.0, 0.0, 1.0], dtype=T.float64, requires_grad=True)
        loss = T.nn.functional.binary_cross_entropy(x, T.tensor([0.0, 1.0, 1.0, 0.0], dtype=T.float64), reduction="sum")
        found.append(T.autograd.grad(loss, x)[0].numpy())
    np.testing.assert_allclose(*found)


def test_attention_of_a_query_that_sees_nothing() -> None:
    mask = np.array([[True, False, True], [False, False, False]])
    found = []
    for T in (dg, torch):
        q = T.ones(1, 2, 4, dtype=T.float64).requires_grad_()
        out = T.nn.functional.scaled_dot_product_attention(
            q, T.ones(1, 3, 4, dtype=T.float64), T.ones(1, 3, 2, dtype=T.float64), T.from_numpy(mask))
        grad = T.autograd.grad(out.sum(), q)[0]
        found.append((out.detach().numpy(), grad.numpy()))
    np.testing.assert_allclose(found[0][0], [[[1, 1], [0, 0]]])
    np.testing.assert_allclose(found[0][0], found[1][0])
    assert np.isfinite(found[0][1]).all()


def test_a_loss_over_sharded_rows_moves_only_sums() -> None:
    generator = np.random.default_rng(0)
    logits, target = generator.standard_normal((4000, 5)), generator.integers(0, 5, 4000)
    with dg.init(local_mode=True, num_workers=3):
        x, t = dg.shard(dg.from_numpy(logits)), dg.shard(dg.from_numpy(target))
        dg.synchronize()
        before = dg.stats().bytes_sent
        value = dg.nn.functional.cross_entropy(x, t, ignore_index=2).item()
        moved = dg.stats().bytes_sent - before
    assert moved < 4000  # less than a byte per row
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(target), ignore_index=2)
    assert value == pytest.approx(expected.item(), rel=1e-12)


def test_functional_has_torch_signatures() -> None:
    import inspect

    for name in dg.nn.functional.__all__:
        theirs = getattr(torch.nn.functional, name)
        try:
            expected = list(inspect.signature(theirs).parameters)
        except ValueError:  # a builtin without a signature
            continue
        if expected in (["args", "kwargs"], ["input"]):
            continue
        found = list(inspect.signature(getattr(dg.nn.functional, name)).parameters)
        assert found[: len(expected)] == expected, name


HALF_CALLS = {
    "layer_norm": lambda T, x: T.nn.functional.layer_norm(x, (6,)),
    "group_norm": lambda T, x: T.nn.functional.group_norm(x, 2),
    "batch_norm": lambda T, x: T.nn.functional.batch_norm(x, None, None, training=True),
    "avg_pool1d": lambda T, x: T.nn.functional.avg_pool1d(x.unsqueeze(0), 3),
    "addmm": lambda T, x: T.addmm(x[:, :4], x, x.mT[:, :4], beta=0.3, alpha=0.7),
    "var_mean": lambda T, x: T.var_mean(x, 1)[0],
    "lerp": lambda T, x: T.lerp(x, x.flip(0), 0.3),
    "attention": lambda T, x: T.nn.functional.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", HALF_CALLS)
def test_halves_are_rounded_once(name: str, kind: str) -> None:
    """Functions of several ops give the float32 result of their 16-bit inputs, rounded; gradients have the input's dtype."""
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    x = dg.from_numpy(values).to(getattr(dg, kind)).requires_grad_()
    found = HALF_CALLS[name](dg, x)
    assert found.dtype is getattr(dg, kind)
    exact = HALF_CALLS[name](dg, x.detach().float())
    assert dg.equal(found.detach(), exact.to(found.dtype))
    found.sum().backward()
    assert x.grad.dtype is found.dtype


def test_running_statistics_of_halves_are_updated() -> None:
    x = dg.randn(8, 3).half()
    mean, var = dg.zeros(3).half(), dg.ones(3).half()
    dg.nn.functional.batch_norm(x, mean, var, training=True, momentum=1.0)
    assert mean.dtype is dg.float16
    assert dg.testing.assert_close(mean, x.float().mean(0).half()) is None
