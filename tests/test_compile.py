"""compile(): replayed steps give what recorded ones give, and what cannot be replayed is recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.nn import functional as F


@pytest.fixture(params=[1, 3])
def session(request):
    with dg.init(local_mode=True, num_workers=request.param):
        yield


def problem(rows: int = 23) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    dg.manual_seed(0)
    model = dg.nn.Sequential(dg.nn.Linear(4, 8), dg.nn.Tanh(), dg.nn.Linear(8, 3)).double()
    x = dg.shard(dg.from_numpy(rng.standard_normal((rows, 4))))
    y = dg.shard(dg.from_numpy(rng.integers(0, 3, rows)))
    return model, x, y


def counts() -> tuple[int, int]:
    found = dg.stats()
    return found.steps_recorded, found.steps_replayed


MAKERS = {
    "adam": lambda p: dg.optim.Adam(p, lr=0.02),
    "adamw": lambda p: dg.optim.AdamW(p, lr=0.02, weight_decay=0.1),
    "sgd": lambda p: dg.optim.SGD(p, lr=0.1),
    "momentum": lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


def train(optimizer: str, steps: int, compiled: bool, schedule: bool = False) -> list[float]:
    model, x, y = problem()
    steer = MAKERS[optimizer](model.parameters())
    scheduler = dg.optim.lr_scheduler.StepLR(steer, 2, 0.5)

    def step(a: Any, b: Any) -> Any:
        steer.zero_grad()
        loss = F.cross_entropy(model(a), b)
        loss.backward()
        steer.step()
        return loss

    step = dg.compile(step) if compiled else step
    losses = []
    for _ in range(steps):
        losses.append(step(x, y).item())
        if schedule:
            scheduler.step()
    return [*losses, *(v for p in model.parameters() for v in p.detach().flatten().tolist()),
            *(v for p in model.parameters() for v in p.grad.flatten().tolist())]


@pytest.mark.parametrize("optimizer", list(MAKERS))
def test_replayed_steps_are_the_steps(session, optimizer):
    plain = train(optimizer, 9, compiled=False)
    assert counts() == (0, 0)
    assert train(optimizer, 9, compiled=True) == plain
    recorded, replayed = counts()
    assert recorded + replayed == 9
    assert replayed >= 5


def test_the_learning_rate_is_asked_for_anew(session):
    plain = train("adam", 10, compiled=False, schedule=True)
    assert train("adam", 10, compiled=True, schedule=True) == plain
    assert counts()[1] >= 6


def test_a_replay_sends_one_message_and_builds_nothing(session):
    model, x, y = problem()
    optimizer = dg.optim.Adam(model.parameters())

    @dg.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    for _ in range(5):
        step()
    before = dg.stats()
    for _ in range(10):
        step()
    after = dg.stats()
    workers = dg.stats().control_messages and (after.control_messages - before.control_messages) // 10
    assert after.steps_replayed - before.steps_replayed == 10
    assert after.nodes_recorded == before.nodes_recorded
    assert after.programs_built == before.programs_built
    assert workers in (1, 3)


def test_new_batches_are_arguments(session):
    """Other data of the same shape is replayed, other shapes are recorded; both give the recorded values."""
    def run(compiled: bool) -> list[float]:
        rng = np.random.default_rng(1)
        weight = dg.zeros(4, dtype=dg.float64, requires_grad=True)
        optimizer = dg.optim.SGD([weight], lr=0.1)

        def step(a: Any, b: Any) -> Any:
            optimizer.zero_grad()
            loss = ((a @ weight - b) ** 2).mean()
            loss.backward()
            optimizer.step()
            return {"loss": loss, "count": len(a)}

        step = dg.compile(step) if compiled else step
        found = []
        for rows in [12] * 6 + [7] * 6 + [12] * 3:
            out = step(dg.from_numpy(rng.standard_normal((rows, 4))), dg.from_numpy(rng.standard_normal(rows)))
            found += [out["loss"].item(), out["count"]]
        return [*found, *weight.detach().tolist()]

    assert run(True) == run(False)
    assert counts()[1] >= 7


def test_gradients_accumulate(session):
    def run(compiled: bool) -> list[float]:
        model, x, y = problem()

        def add() -> None:
            F.cross_entropy(model(x), y).backward()

        add = dg.compile(add) if compiled else add
        for _ in range(6):
            add()
        return [v for p in model.parameters() for v in p.grad.flatten().tolist()]

    assert run(True) == run(False)


@pytest.mark.parametrize("kind", ["reads", "random", "counter", "keeps", "forward", "mode"])
def test_what_cannot_be_replayed_is_recorded(session, kind):
    def run(compiled: bool) -> list[float]:
        model, x, y = problem()
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)
        kept: list[Any] = []
        scale = [1.0]

        def step() -> Any:
            optimizer.zero_grad()
            out = model(F.dropout(x, 0.5) if kind == "random" else x)
            if kind == "mode" and model.training:
                out = out * 2
            loss = F.cross_entropy(out, y) * scale[0]
            if kind == "counter":
                scale[0] += 1
            if kind == "keeps":
                kept.append(out.detach().sum())
            if kind == "forward":
                return loss
            if kind == "reads" and loss.item() < 0:
                return loss
            loss.backward()
            optimizer.step()
            return loss.detach()

        step = dg.compile(step) if compiled else step
        found = []
        for turn in range(8):
            if kind == "mode":
                model.train(turn % 4 < 2)
            loss = step()
            if kind == "forward":
                loss.backward()
                optimizer.step()
            found.append(loss.item())
        return [*found, *(k.item() for k in kept)]

    assert run(True) == run(False)
    recorded, replayed = counts()
    assert recorded + replayed == 8
    assert replayed >= 3 if kind == "mode" else replayed == 0


def test_plain_values_around_the_function_are_looked_at(session):
    """A number that was constant for many calls and then changes is not taken for the old one."""
    options = {"scale": 1.0}
    x = dg.shard(dg.arange(6.0))
    weight = dg.ones(6, requires_grad=True)

    @dg.compile
    def step() -> Any:
        weight.grad = None
        ((x * weight).sum() * options["scale"]).backward()
        return weight.grad.sum()

    assert [step().item() for _ in range(6)] == [15.0] * 6
    options["scale"] = 2.0
    assert [step().item() for _ in range(6)] == [30.0] * 6
    options["scale"] = 1.0
    assert step().item() == 15.0
    assert counts()[1] >= 5


def test_without_a_session_it_is_the_function():
    @dg.compile(fullgraph=True)
    def double(x: Any) -> Any:
        """Doubles."""
        return x * 2

    assert double(dg.tensor([1.0])).tolist() == [2.0]
    assert double.__doc__ == "Doubles."
    model = dg.nn.Linear(1, 1)
    assert dg.compile(model) is model


def test_a_new_session_begins_anew():
    model = dg.nn.Linear(2, 1)
    optimizer = dg.optim.SGD(model.parameters(), lr=0.1)
    data = np.ones((4, 2), np.float32)

    @dg.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(2):
        with dg.init(local_mode=True, num_workers=2):
            start = {k: v.cpu() for k, v in model.state_dict().items()}
            model.load_state_dict({k: dg.from_numpy(np.zeros(tuple(v.shape), np.float32)) for k, v in start.items()})
            x = dg.shard(dg.from_numpy(data))
            for _ in range(6):
                assert step(x).item() >= 0
            assert counts()[1] >= 2
            values = {k: v.cpu() for k, v in model.state_dict().items()}
        model = dg.nn.Linear(2, 1)
        model.load_state_dict(values)
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)
