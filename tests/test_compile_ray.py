"""compile() on Ray workers: several steps per message, kept slots, failures of single steps, and a worker that is killed."""

from __future__ import annotations

import io
import os
import signal
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.nn import functional as F

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((41, 5)), RNG.integers(0, 3, 41)


def train(steps: int, compiled: bool, sides: list[np.ndarray]) -> tuple[list[float], dict[str, list[Any]], int]:
    """Gives the losses, the parameters at the end and the messages sent; nothing is read before the end.

    Every batch of `sides` is the argument of a step in turn.
    """
    dg.manual_seed(1)
    model = dg.nn.Sequential(dg.nn.Linear(5, 7), dg.nn.Tanh(), dg.nn.Linear(7, 3)).double()
    optimizer = dg.optim.Adam(model.parameters(), lr=0.03)
    y = dg.shard(dg.from_numpy(Y))

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    chosen = dg.compile(step) if compiled else step
    batches = [dg.shard(dg.from_numpy(side)) for side in sides]
    before = dg.stats().control_messages
    losses = [chosen(batches[i % len(batches)]) for i in range(steps)]
    dg.synchronize()
    messages = dg.stats().control_messages - before
    return [loss.item() for loss in losses], {k: v.tolist() for k, v in model.state_dict().items()}, messages


@pytest.mark.parametrize("workers", [2, 4])
def test_steps_sent_together_are_the_steps(connected, workers):
    """Fewer messages than one a step and worker, and the same numbers to the last bit."""
    steps, sides = 60, [X, X[::-1] * 0.5]
    with dg.init(num_workers=workers):
        losses, state, messages = train(steps, compiled=True, sides=sides)
        assert dg.stats().steps_replayed >= steps - 4
    with dg.init(num_workers=workers):
        plain, known, each = train(steps, compiled=False, sides=sides)
    assert messages < steps * workers // 2 < each
    assert losses == plain
    assert state == known
    assert losses[-1] < losses[0]


def test_a_failure_among_steps_sent_ahead(connected):
    """Of four steps on their way, the result of the wrong one is lost; the others' results and gradients are there."""
    with dg.init(num_workers=2, timeout=20):
        table = dg.ones(6, dtype=dg.float64, requires_grad=True)
        good, wrong = (dg.shard(dg.tensor(rows)) for rows in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 99]))

        @dg.compile
        def step(rows: Any) -> Any:
            table.grad = None
            loss = (table[rows] ** 2).sum()
            loss.backward()
            return loss.detach()

        for _ in range(8):
            assert step(good).item() == 5.0
        before = dg.stats().steps_replayed
        results = [step(rows) for rows in (good, wrong, good, good)]
        assert dg.stats().steps_replayed - before == 4
        with pytest.raises(dg.RemoteOpError, match="99"):
            results[1].item()
        assert [results[i].item() for i in (0, 2, 3)] == [5.0] * 3
        assert table.grad.tolist() == [2.0] * 5 + [0.0]


def test_a_worker_killed_in_a_compiled_loop(connected):
    """The driver is told which worker is gone, and the same objects train on in a new session from what was saved."""
    rows = [dg.from_numpy(X), dg.from_numpy(Y)]
    model = dg.nn.Linear(5, 3).double()
    optimizer = dg.optim.Adam(model.parameters(), lr=0.1)

    @dg.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    file = io.BytesIO()
    with dg.init(num_workers=2, timeout=20) as session:
        x, y = map(dg.shard, rows)
        for _ in range(10):
            step(x, y)
        dg.save([model.state_dict(), optimizer.state_dict()], file)
        expected = [step(x, y).item() for _ in range(5)]
        victim = session.pids[1]
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(dg.errors.WorkerLostError, match=str(victim)):
            for _ in range(10_000):
                step(x, y).item()
    file.seek(0)
    with dg.init(num_workers=2):
        weights, state = dg.load(file)
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        x, y = map(dg.shard, rows)
        assert [step(x, y).item() for _ in range(5)] == expected
