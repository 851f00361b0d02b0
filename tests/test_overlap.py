"""Reductions beside the backward pass: the same bits whenever they are carried out, failures in their place, order kept.

Most run on a local group whose exchanges, once begun, are carried out at once or as late as they may: whatever writes over
what they send, or reads what they bring too early, gives other bits.
"""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import distgrad as dg
from distgrad import graph, lower, nn
from distgrad.engine.interpreter import Begin, End
from distgrad.errors import RemoteOpError, WorkerLostError
from distgrad.program import Program
from distgrad.runtime import local

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((29, 13)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 29)


class Beginning(local.LocalGroup):
    """A local group that begins exchanges; `late`: they are carried out when somebody waits for them."""

    overlaps = True
    late = True
    begun = 0
    most = 0

    def _lockstep(self, items):
        assert len({type(item) for item in items}) == 1
        self.waiting = getattr(self, "waiting", [])
        if type(items[0]) is Begin:
            type(self).begun += 1
            ticket = {"exchanges": [item.exchange for item in items], "results": None}
            self.waiting.append(ticket)
            type(self).most = max(self.most, len(self.waiting))
            if not self.late:
                self.carry_out()
            return [ticket] * len(items)
        if type(items[0]) is End:
            self.carry_out(items[0].ticket)
            return items[0].ticket["results"]
        self.carry_out()
        return super()._lockstep(items)

    def carry_out(self, last=None):
        """Carries out what was begun, in order, up to `last`."""
        while self.waiting and (last is None or last["results"] is None):
            ticket = self.waiting.pop(0)
            ticket["results"] = super()._lockstep(ticket["exchanges"])


@pytest.fixture(params=["late", "early"])
def beginning(request, monkeypatch):
    """Sessions whose exchanges are begun, with buckets so small that there are several."""
    monkeypatch.setattr(Beginning, "late", request.param == "late")
    monkeypatch.setattr(Beginning, "begun", 0)
    monkeypatch.setattr(Beginning, "most", 0)
    monkeypatch.setattr(local, "LocalGroup", Beginning)
    return Beginning


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    monkeypatch.setattr(lower, "FIRST_BUCKET_BYTES", 600)
    monkeypatch.setattr(lower, "AHEAD_BYTES", 1200)


class Training:
    """A model of several layers; `clip` reads the whole gradients before the step."""

    def __init__(self, clip=False):
        dg.manual_seed(0)
        widths = [13, 17, 19, 23, 4]
        layers = [m for a, b in zip(widths, widths[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
        self.model, self.clip = nn.Sequential(*layers[:-1]), clip
        self.optimizer = dg.optim.Adam(self.model.parameters(), lr=0.01)
        self.x, self.y = dg.shard(dg.from_numpy(ROWS)), dg.shard(dg.from_numpy(CLASSES))

    def step(self):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.5)
        self.optimizer.step()
        return loss.detach()

    def values(self):
        return [p.detach().numpy() for p in self.model.parameters()]


def trained(workers, sliced, clip, steps=3):
    with dg.init(local_mode=True, num_workers=workers, shard_optimizer=sliced):
        training = Training(clip)
        losses = [training.step() for _ in range(steps)]
        return [loss.numpy() for loss in losses] + training.values()


def same(ours, theirs):
    assert [a.tobytes() for a in ours] == [b.tobytes() for b in theirs]


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("sliced", [True, False])
@pytest.mark.parametrize("clip", [False, True])
def test_the_same_bits_whenever_they_are_carried_out(beginning, monkeypatch, workers, sliced, clip):
    ours = trained(workers, sliced, clip)
    assert beginning.begun >= 3 * 2
    assert beginning.most > 1 or not beginning.late
    monkeypatch.undo()
    same(ours, trained(workers, sliced, clip))


def lose_a_step():
    """A gradient fails on the last worker: what depends on it is lost, and the session goes on."""
    training = Training()
    training.step()
    dg.synchronize()
    training.y = dg.shard(dg.from_numpy(np.where(np.arange(29) == 28, 99, CLASSES)))  # no such class
    training.step()
    with pytest.raises(RemoteOpError):
        training.values()
    fresh = Training()
    fresh.step()
    assert all(np.isfinite(v).all() for v in fresh.values())


def test_a_failed_gradient_poisons_what_depends_on_it(beginning):
    with dg.init(local_mode=True, num_workers=3):
        lose_a_step()


def test_rows_in_blocks_and_a_limit_of_memory(beginning, monkeypatch):
    """A limit makes programs wait for their exchanges, for it is planned without what these hold."""
    with dg.init(local_mode=True, num_workers=2, memory_per_worker=1 << 20):
        training = Training()
        training.step()
        ours = training.values()
    assert beginning.begun == 0
    monkeypatch.undo()
    same(ours, trained(2, None, False, steps=1)[1:])


def test_other_exchanges_are_not_begun(beginning):
    """Whatever else exchanges rows, with numbers or nothing among its inputs, is carried out where it stands."""
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        x = dg.shard(dg.from_numpy(ROWS)).requires_grad_()
        y = dg.where(x.cumsum(0) > 0, 2.0, x).sort(0).values.flip(0)
        loss = (y * y.roll(3, 0)).sum() + dg.cat([x, y]).logsumexp(0).sum()
        loss.backward()
        found = [loss.detach().numpy(), x.grad.numpy()]
    x = dg.tensor(ROWS).requires_grad_()
    y = dg.where(x.cumsum(0) > 0, 2.0, x).sort(0).values.flip(0)
    loss = (y * y.roll(3, 0)).sum() + dg.cat([x, y]).logsumexp(0).sum()
    loss.backward()
    for ours, theirs in zip(found, [loss.detach().numpy(), x.grad.numpy()]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_reductions_stand_where_their_gradients_are_made():
    with dg.init(local_mode=True, num_workers=2):
        programs: list[Program] = []
        whole = graph.session()._program

        def seen(recorded):
            programs.append(lower.lower(recorded, ahead=True))
            return whole(recorded)

        graph.session()._program = seen
        Training().step().numpy()
    (program,) = [p for p in programs if any(i.op.name == "adam_steps" for i in p.instructions)]
    assert program.ahead
    names = [i.op.name for i in program.instructions]
    buckets = [i for i, name in enumerate(names) if name == "bucket"]
    assert len(buckets) >= 3
    assert all("matmul" in names[a:b] for a, b in zip(buckets, buckets[1:]))
    for position in buckets:
        read = {r for i in program.instructions[position + 1 : names.index("adam_steps")] for r in i.ins}
        assert not read.intersection(program.instructions[position].outs)


# Over sockets ---------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.parametrize("clip", [False, True])
def test_over_the_network(connected, clip):
    expected = trained(3, None, clip)
    with dg.init(num_workers=3, force_network=True):
        assert graph.session().backend.overlaps
        training = Training(clip)
        losses = [training.step() for _ in range(3)]
        same([loss.numpy() for loss in losses] + training.values(), expected)


@pytest.mark.ray
@pytest.mark.parametrize("rank", [0, 2])
def test_a_worker_killed_while_exchanges_are_on_their_way(connected, rank):
    session = dg.init(num_workers=3, force_network=True)
    training = Training()
    training.step().numpy()
    for _ in range(5):
        training.step()
    os.kill(session.pids[rank], signal.SIGKILL)
    with pytest.raises(WorkerLostError, match=str(session.pids[rank])):
        for _ in range(1000):
            training.step().numpy()


@pytest.mark.ray
def test_a_failed_gradient_over_the_network(connected):
    with dg.init(num_workers=3, force_network=True):
        lose_a_step()
