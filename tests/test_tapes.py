"""Reverse passes of known structure: they give what differentiating again gives, and only alike passes count as alike."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from random_programs import Generator, Outcome, Program, compare, evaluate, well_conditioned

import distgrad as dg
from distgrad import tapes
from distgrad.runtime import coordinator

F = dg.nn.functional


def gradients(program: Program, place: Any) -> list[Any]:
    """Runs a program and `backward`; gives the gradients of its leaves."""
    leaves = [place(leaf, i).detach().requires_grad_() for i, leaf in enumerate(program.leaves())]
    values = program.run(leaves)
    total: Any = 0.0
    for number, value in enumerate([v for v in values[len(leaves) :] if v.requires_grad][-6:]):
        total = total + (value.sin() * (1 + 0.3 * number)).sum()
    if isinstance(total, float):
        return [None] * len(leaves)
    total.backward()
    return [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]


def sharding(seed: int) -> Any:
    """Gives a function that shards leaves or not, by the seed."""
    choice = random.Random(seed)
    return lambda t, i: dg.shard(t) if choice.random() < 0.6 else dg.replicate(t)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_random_programs_repeat_what_they_recorded(workers: int) -> None:
    made = [Generator(seed).build() for seed in range(9000 + 100 * workers, 9000 + 100 * workers + 30)]
    known = [(program, evaluate(program, order=1)) for program in made]
    known = [(program, outcome) for program, outcome in known if well_conditioned(program, outcome, 1e-12, 1)]
    assert len(known) > 15
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=0):
        for program, expected in known:
            for _ in range(4):
                found = Outcome(expected.values, gradients(program, sharding(program.seed)), expected.second)
                compare(found, expected, 1e-12, program, f"{workers} workers")
        repeated = dg.stats().passes_repeated
    assert 1.7 * len(known) <= repeated <= 2 * len(known)


def test_programs_that_take_turns_are_told_apart() -> None:
    made = [Generator(seed).build() for seed in range(9700, 9712)]
    known = [(program, evaluate(program, order=1)) for program in made]
    known = [(program, outcome) for program, outcome in known if well_conditioned(program, outcome, 1e-12, 1)]
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        for _ in range(5):
            for program, expected in known:
                found = Outcome(expected.values, gradients(program, sharding(program.seed)), expected.second)
                compare(found, expected, 1e-12, program, "in turn")
        assert dg.stats().passes_repeated >= 2 * len(known)


def training(steps: int, model: Any, make: Any) -> tuple[list[float], list[np.ndarray]]:
    optimizer = make(model.parameters())
    rng = np.random.default_rng(3)
    x, y = dg.shard(dg.from_numpy(rng.standard_normal((17, 6)))), dg.shard(dg.from_numpy(rng.integers(0, 3, 17)))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [p.detach().numpy() for p in model.parameters()]


def small_model() -> Any:
    dg.manual_seed(0)
    return dg.nn.Sequential(
        dg.nn.Linear(6, 8), dg.nn.BatchNorm1d(8), dg.nn.GELU(), dg.nn.Dropout(0.3), dg.nn.Linear(8, 3)
    ).double()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_training_is_bit_for_bit_what_it_is_without(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for repeats in (True, False):
        if not repeats:
            monkeypatch.setattr(tapes.Tapes, "find", lambda self, key: None)
        with dg.init(local_mode=True, num_workers=workers):
            found.append(training(8, small_model(), lambda p: dg.optim.Adam(p, lr=0.01)))
            # Step 1 finds data on its way, step 2 is the first of those alike, step 3 is kept.
            assert (dg.stats().passes_repeated >= 4) == repeats
    assert found[0][0] == found[1][0]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert (ours == theirs).all()


def repeated(function: Any, *arguments: Any) -> int:
    """Calls a function for each argument; gives how many passes were repeated."""
    before = dg.stats().passes_repeated
    for argument in arguments:
        function(argument)
    return dg.stats().passes_repeated - before


def test_numbers_are_part_of_the_structure() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(1.0, 7.0))).requires_grad_()

        def scaled(number: Any) -> None:
            x.grad = None
            (x * number).sum().backward()
            assert x.grad.tolist() == [float(number)] * 6
            x.grad = None
            (x**number).sum().backward()
            np.testing.assert_allclose(x.grad.numpy(), number * np.arange(1.0, 7.0) ** (number - 1), rtol=1e-15)

        assert repeated(scaled, *[2.0 + 0.5 * i for i in range(8)]) == 0
        assert repeated(scaled, 7.0, 7.0, 7.0, 7, 7.0) == 4  # two of the third call, two of the last
        minus = dg.shard(dg.from_numpy(np.full(6, -1.0))).requires_grad_()
        for zero in (0.0, 0.0, 0.0, -0.0, -0.0, -0.0):
            minus.grad = None
            (minus * zero).sum().backward()
            assert (np.signbit(minus.grad.numpy()) == np.signbit(zero)).all()


def test_one_value_twice_is_not_two_values() -> None:
    with dg.init(local_mode=True, num_workers=2):
        w = dg.shard(dg.from_numpy(np.arange(6.0))).requires_grad_()
        a, b = (dg.shard(dg.from_numpy(np.full(6, v))) for v in (2.0, 5.0))

        def pair(values: Any) -> None:
            w.grad = None
            first, second = values
            ((w * first).sin() + (w * second).sin()).sum().backward()
            one, two = (v.numpy() for v in values)
            expected = one * np.cos(one * np.arange(6.0)) + two * np.cos(two * np.arange(6.0))
            np.testing.assert_allclose(w.grad.numpy(), expected, rtol=1e-14)

        dg.synchronize()
        assert repeated(pair, *[(a, a)] * 4) == 2
        assert repeated(pair, *[(a, b)] * 4) == 2
        assert repeated(pair, (b, b), (b, a), (a, a)) == 3


def test_one_leaf_twice_is_not_two_leaves() -> None:
    with dg.init(local_mode=True, num_workers=2):
        u, v = (dg.shard(dg.from_numpy(np.arange(4.0) + i)).requires_grad_() for i in range(2))

        def product(leaves: Any) -> None:
            u.grad = v.grad = None
            one, two = leaves
            (one * two).sum().backward()
            if one is two:
                assert one.grad.tolist() == (2 * one).tolist()
            else:
                assert (one.grad.tolist(), two.grad.tolist()) == (two.tolist(), one.tolist())

        dg.synchronize()
        assert repeated(product, *[(u, u)] * 4) == 2
        assert repeated(product, *[(u, v)] * 4) == 2
        assert repeated(product, (v, u), (v, v), (u, v)) == 3


def test_gradients_add_up() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(5.0))).requires_grad_()
        for _ in range(7):
            (x * x).sum().backward()
        assert x.grad.tolist() == [14.0 * v for v in range(5)]
        assert dg.stats().passes_repeated > 3


def test_saved_values_go_after_a_repeated_pass() -> None:
    with dg.init(local_mode=True, num_workers=2) as session:
        x = dg.shard(dg.from_numpy(np.arange(5.0))).requires_grad_()
        live = []
        for _ in range(8):
            y = (x.sin() * x).sum()
            y.backward(retain_graph=True)
            y.backward()
            with pytest.raises(RuntimeError, match="second time"):
                y.backward()
            x.grad = None
            dg.synchronize()
            live.append(len(session._coordinator._slots._live))
        assert dg.stats().passes_repeated >= 8
        assert len(set(live[3:])) == 1  # nothing is held on the workers that the first steps did not hold


def test_what_is_not_reached_keeps_its_values() -> None:
    """A function whose outputs get no cotangent is not visited, and not released, as in PyTorch's ready count."""
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(1.0, 5.0))).requires_grad_()
        for _ in range(5):
            part = x.exp()
            values, _places = part.sort()
            (values.sum() * 2).backward()
            assert np.allclose(x.grad.numpy(), 2 * np.exp(np.arange(1.0, 5.0)))
            with pytest.raises(RuntimeError, match="second time"):
                part.sum().backward()
            x.grad = None


def test_hooks_and_own_functions_run_every_time() -> None:
    class Double(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            calls.append("function")
            return g * 2

    calls: list[str] = []
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(4.0))).requires_grad_()

        def hooked(kind: str) -> None:
            x.grad = None
            y = x * 3
            if kind == "function":
                y = Double.apply(y)
            elif kind == "hook":
                y.register_hook(lambda g: calls.append("hook"))
            elif kind == "node":
                y.grad_fn.register_hook(lambda a, b: calls.append("node"))
            elif kind == "retain":
                y.retain_grad()
            y.sin().sum().backward()
            factor = 6 if kind == "function" else 3
            np.testing.assert_allclose(x.grad.numpy(), factor * np.cos(factor * np.arange(4.0)), rtol=1e-14)
            if kind == "retain":
                np.testing.assert_allclose(y.grad.numpy(), np.cos(3 * np.arange(4.0)), rtol=1e-14)

        for kind in ("function", "hook", "node", "retain"):
            calls.clear()
            assert repeated(hooked, *["plain"] * 4) >= 2
            assert repeated(hooked, *[kind] * 4) == 0
            assert calls == ([] if kind == "retain" else [kind] * 4)

        handle = x.register_hook(lambda g: g * 10)  # a leaf's runs after the pass
        assert repeated(lambda _: (setattr(x, "grad", None), (x * 3).sin().sum().backward()), 1, 2) == 2
        np.testing.assert_allclose(x.grad.numpy(), 30 * np.cos(3 * np.arange(4.0)), rtol=1e-14)
        handle.remove()


def test_anomaly_mode_looks_at_every_function() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.array([1.0, -1.0, 2.0]))).requires_grad_()
        for _ in range(4):
            (x.sqrt() * 2).sum().backward()
        with pytest.warns(UserWarning, match="Anomaly"):
            detecting = dg.autograd.detect_anomaly()
        with detecting, pytest.raises(RuntimeError, match="returned nan"):
            (x.sqrt() * 2).sum().backward()


def test_cotangents_that_are_given_may_change() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(np.arange(6.0))).requires_grad_()
        sharded, whole = dg.shard(dg.from_numpy(np.arange(6.0))), dg.replicate(dg.from_numpy(np.arange(6.0) + 1))
        dg.synchronize()
        for g in (sharded, sharded, sharded, whole, whole, sharded, whole, dg.ones(12, dtype=dg.float64)[::2], whole):
            x.grad = None
            (x * 2).backward(g)
            assert x.grad.tolist() == (2 * g).tolist()
        assert dg.stats().passes_repeated >= 3


def test_several_roots() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(np.arange(6.0))).requires_grad_()
        for _ in range(5):
            x.grad = None
            y = x.sin()
            dg.autograd.backward([(y * 2).sum(), (y * x).sum()])
            ours = np.arange(6.0)
            np.testing.assert_allclose(x.grad.numpy(), (2 + ours) * np.cos(ours) + np.sin(ours), rtol=1e-14)
        assert dg.stats().passes_repeated >= 2


def test_second_derivatives_are_differentiated_once_too() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(1.0, 6.0))).requires_grad_()
        for _ in range(5):
            x.grad = None
            (g,) = dg.autograd.grad((x**3).sum(), x, create_graph=True)
            (g * g).sum().backward()
            np.testing.assert_allclose(x.grad.numpy(), 36 * np.arange(1.0, 6.0) ** 3, rtol=1e-14)
        assert dg.stats().passes_repeated >= 2


@pytest.mark.parametrize("limit", [3, 11, 29])
def test_a_flush_in_the_middle(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "PENDING_LIMIT", limit)
    with dg.init(local_mode=True, num_workers=3):
        ours, _ = training(7, small_model(), lambda p: dg.optim.SGD(p, lr=0.1))
    theirs, _ = training(7, small_model(), lambda p: dg.optim.SGD(p, lr=0.1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_another_default_dtype() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(np.arange(1.0, 6.0))).requires_grad_()
        try:
            for kind in (dg.float32, dg.float64) * 2:
                dg.set_default_dtype(kind)
                for _ in range(4):
                    x.grad = None
                    F.gelu(x).var().backward()
                    assert x.grad.dtype is dg.float64
        finally:
            dg.set_default_dtype(dg.float32)
        assert dg.stats().passes_repeated >= 4


def test_few_structures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapes, "KEPT", 5)
    with dg.init(local_mode=True, num_workers=2) as session:
        x = dg.shard(dg.from_numpy(np.arange(1.0, 6.0))).requires_grad_()
        for count in (*range(1, 30), 29, 29):
            y = x
            for _ in range(count):
                y = y.sin()
            y.sum().backward()
        assert len(session._coordinator.tapes._known) == 5
        assert dg.stats().passes_repeated == 1
