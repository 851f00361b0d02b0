"""Gradients are added up in the memory of one of them, and nobody who holds one sees it change."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

import distgrad as dg

SHAPE = (70, 80)  # more elements than it takes


def numbers(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE)


def _program(T: Any, leaves: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Gives a random list of tensors made of one another, with many uses of each, and those to watch."""
    rng, values, watched = random.Random(seed), list(leaves), []
    for _ in range(12):
        a, b = rng.choice(values), rng.choice(values)
        step = rng.randrange(11)
        if step == 0:
            new = a + b
        elif step == 1:
            new = a - b
        elif step == 2:
            new = T.tanh(a) * b
        elif step == 3:
            start = rng.randrange(1, 30)
            new = T.cat([a[start:] * 2, b[:start]])
        elif step == 4:
            new = a[:, 10:60].sum(1, keepdim=True) + b
        elif step == 5:
            new = T.cat([a[::2], b[1::2]])
        elif step == 6:
            new = a * a
        elif step == 9:
            new = -a
        elif step == 10:
            new = a * T.exp(-T.abs(-b))
        elif step == 7:
            new = (a[1:, 5:] - b[:-1, :-5]).sum() * a
        else:
            new = a.reshape(80, 70).T.reshape(70, 80) * 0.5 + a
        if rng.random() < 0.3:
            watched.append(new)
        values.append(new / 3)
    return values, watched


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_with_watchers(seed: int) -> None:
    found = []
    for T, make in ((dg, dg.tensor), (torch, torch.tensor)):
        leaves = [make(numbers(i)).requires_grad_() for i in range(3)]
        values, watched = _program(T, leaves, seed)
        seen: list[Any] = []
        for position, value in enumerate(watched):
            if position % 2:
                value.register_hook(seen.append)
            else:
                value.retain_grad()
        given = make(numbers(9))
        values[-1].backward(given, retain_graph=True)
        first = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
        held = [leaf.grad for leaf in leaves if leaf.grad is not None]
        copies = [g.clone() for g in seen]
        np.testing.assert_array_equal(given.numpy(), numbers(9))
        wanted = [*leaves, *watched]
        again = T.autograd.grad(values[-1], wanted, given, allow_unused=True, retain_graph=True)
        assert all(bool((a == b).all()) for a, b in zip(seen, copies))
        values[-1].backward(given)
        assert all(bool((a == 2 * b).all()) for a, b in zip(held, first))
        kept = [value.grad for value in watched[::2]]
        found.append([None if t is None else t.detach().numpy() for t in (*first, *copies, *again, *kept)])
    assert len(found[0]) == len(found[1])
    for ours, theirs in zip(*found):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_same_gradient_in_two_places_is_not_written_to() -> None:
    a, b = (dg.tensor(numbers(i), requires_grad=True) for i in range(2))
    c = a * 2 + b * 2
    (a + b + c * c + a).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), 2 + 8 * (numbers(0) + numbers(1)), rtol=1e-12)
    np.testing.assert_allclose(b.grad.numpy(), 1 + 8 * (numbers(0) + numbers(1)), rtol=1e-12)


def test_a_gradient_that_the_user_gave_is_not_written_to() -> None:
    x = dg.tensor(numbers(0), requires_grad=True)
    given = dg.tensor(numbers(1))
    (x + x + x[1:].sum() + x.tanh()).backward(given)
    np.testing.assert_array_equal(given.numpy(), numbers(1))


def test_a_function_of_the_users_may_keep_what_it_gives() -> None:
    kept: list[Any] = []

    class Twice(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            kept.append(g * 2)
            return kept[-1]

    x = dg.tensor(numbers(0), requires_grad=True)
    (Twice.apply(x) + x * x + x[3:].sum() + Twice.apply(x)).sum().backward()
    for g in kept:
        np.testing.assert_array_equal(g.numpy(), np.full(SHAPE, 2.0))


def test_slices_add_to_what_is_there() -> None:
    x = dg.tensor(numbers(0), requires_grad=True)
    parts = [x[i:, 2:40:3] for i in range(5)]
    sum(p.sum() * float(i + 1) for i, p in enumerate(parts)).backward()
    wanted = np.zeros(SHAPE)
    for i in range(5):
        wanted[i:, 2:40:3] += i + 1
    np.testing.assert_array_equal(x.grad.numpy(), wanted)
