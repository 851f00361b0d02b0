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


def adam_step() -> tuple[Any, Any]:
    """Gives a model and its compiled training step."""
    model, x, y = problem()
    optimizer = dg.optim.Adam(model.parameters())

    @dg.compile
    def step() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step


def test_a_replay_sends_one_message_and_builds_nothing(session):
    _, step = adam_step()
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


def test_gradients_that_are_dropped_now_and_then(session):
    """A step adds to the gradient or sets it anew, as it finds it: with and without `zero_grad` outside."""
    def run(compiled: bool) -> list[float]:
        model, x, y = problem()
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

        def add() -> Any:
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss.detach()

        add = dg.compile(add) if compiled else add
        found = []
        for turn in range(30):
            if turn < 8 or turn > 20 or turn % 3 == 0:
                optimizer.zero_grad()
            found.append(add().item())
            if turn % 2:
                optimizer.step()
            found += [p.grad.sum().item() for p in model.parameters()]
        return found

    assert run(True) == run(False)
    assert counts()[1] >= 8


def steady(turns: int, change: Any = None, make: Any = MAKERS["adam"]) -> list[list[float]]:
    """Gives what a training loop finds, recorded and compiled; `change` does something between two steps."""
    both = []
    for compiled in (False, True):
        model, x, y = problem()
        optimizer = make(model.parameters())

        def step(model: Any = model, optimizer: Any = optimizer, x: Any = x, y: Any = y) -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.detach()

        step = dg.compile(step) if compiled else step
        losses, kept = [], []
        for turn in range(turns):
            losses.append(step())
            if change is not None:
                kept.append(change(turn, model, optimizer))
        found = [loss.item() for loss in losses]
        found += [v for p in model.parameters() for v in p.detach().flatten().tolist()]
        found += [v for p in model.parameters() if p.grad is not None for v in p.grad.flatten().tolist()]
        found += [v for tensors in kept for t in tensors or () for v in t.flatten().tolist()]
        both.append(found)
    return both


def between(kind: str) -> Any:
    saved: dict[str, Any] = {}

    def change(turn: int, model: Any, optimizer: Any) -> Any:
        parameters = list(model.parameters())
        if kind == "gradients" and turn % 5 == 3:
            return [p.grad for p in parameters]
        if kind == "values" and turn % 5 == 3:
            return [p.detach().clone() for p in parameters] + [p.data * 1 for p in parameters]
        if kind == "saved":
            if turn == 6:
                saved.update(weights=model.state_dict(), optimizer=optimizer.state_dict())
                saved["weights"] = {name: value.clone() for name, value in saved["weights"].items()}
            if turn == 14:
                model.load_state_dict(saved["weights"])
                optimizer.load_state_dict(saved["optimizer"])
        if kind == "written" and turn in (7, 11):
            with dg.no_grad():
                parameters[0].mul_(0.5)
                parameters[1].grad.add_(1.0)
        if kind == "dropped" and turn % 4 == 1:
            optimizer.zero_grad()
            return None
        if kind == "frozen" and turn == 9:
            parameters[0].requires_grad_(False)
        if kind == "rate" and turn in (5, 12):
            optimizer.param_groups[0]["lr"] *= 0.5
        if kind == "group" and turn == 9:
            optimizer.param_groups[0]["params"] = parameters[1:]
        return None

    return change


@pytest.mark.parametrize("make", ["adam", "momentum", "rmsprop"])
@pytest.mark.parametrize("kind", ["nothing", "gradients", "values", "saved", "written", "frozen", "rate", "group"])
def test_what_happens_between_replays(session, kind, make):
    maker = MAKERS[make] if make in MAKERS else lambda p: dg.optim.RMSprop(p, lr=0.01, momentum=0.5)
    plain, compiled = steady(20, between(kind), maker)
    assert compiled == plain
    assert counts()[1] >= 5


def test_gradients_dropped_outside_are_made_anew(session):
    plain, compiled = steady(16, between("dropped"))
    assert compiled == plain
    assert counts()[1] >= 10


def test_a_steady_step_keeps_its_slots(session):
    """Repetitions make no slots but their results'."""
    model, step = adam_step()
    for _ in range(8):
        step()
    dg.synchronize()
    slots = [p._node.slot for p in model.parameters()]
    before = dg.stats()
    losses = [step() for _ in range(12)]
    dg.synchronize()
    after = dg.stats()
    assert [p._node.slot for p in model.parameters()] == slots
    assert after.steps_replayed - before.steps_replayed == 12
    assert len({loss.item() for loss in losses}) == 12
    assert len({loss._node.slot.id for loss in losses}) == 12


def test_a_scheduler_inside_is_recorded(session):
    def run(compiled: bool) -> list[float]:
        model, x, y = problem()
        optimizer = dg.optim.Adam(model.parameters(), lr=0.02)
        scheduler = dg.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def step() -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            scheduler.step()
            return loss.detach()

        step = dg.compile(step) if compiled else step
        return [step().item() for _ in range(8)]

    assert run(True) == run(False)
    assert counts() == (8, 0)


def test_a_nested_module_that_evaluates(session):
    """The mode of a module that is reached through an object is looked at, too."""
    class Trainer:
        def __init__(self) -> None:
            dg.manual_seed(0)
            self.parts = {"model": dg.nn.Sequential(dg.nn.Linear(5, 4), dg.nn.BatchNorm1d(4))}
            self.x = dg.shard(dg.randn(11, 5))

        def run(self) -> Any:
            return self.parts["model"](self.x).detach().sum(0)

    def results(compiled: bool) -> list[Any]:
        trainer = Trainer()
        run = dg.compile(trainer.run) if compiled else trainer.run
        found = []
        for turn in range(16):
            trainer.parts["model"].train(turn < 6 or turn > 11)
            found.append(run().tolist())
        return found

    assert results(True) == results(False)


def test_a_failure_between_repetitions_spoils_what_depends_on_it(session):
    """The slots are the same in every step; only values that a failure reached are lost, and later ones are there."""
    table = dg.ones(6, dtype=dg.float64, requires_grad=True)
    index = dg.shard(dg.tensor([0, 1, 2, 3, 4]))

    @dg.compile
    def step(rows: Any) -> Any:
        table.grad = None
        loss = (table[rows] ** 2).sum()
        loss.backward()
        return loss.detach()

    for _ in range(8):
        assert step(index).item() == 5.0
    wrong = dg.shard(dg.tensor([0, 1, 99, 3, 4]))
    lost = step(wrong)
    with pytest.raises((dg.RemoteOpError, IndexError)):
        lost.item()
    good = step(index)
    assert good.item() == 5.0
    assert table.grad.tolist() == [2.0] * 5 + [0.0]


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


@pytest.mark.parametrize("kind", [complex, np.float32, np.complex64])
def test_numbers_of_other_kinds_are_looked_at(session, kind):
    """Each is a new object, which may come to lie where an earlier one was."""
    x = dg.shard(dg.arange(6.0))
    scale = kind(1)

    @dg.compile
    def step() -> Any:
        return (x * scale).sum()

    found = []
    for turn in range(24):
        scale = kind(turn // 4 % 3 + 1)
        found.append(step().item())
    assert found == [15.0 * (turn // 4 % 3 + 1) for turn in range(24)]


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
