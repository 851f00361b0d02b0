"""Optimizer steps of each worker's own rows: the same bits as steps of whole parameters, and as many bytes moved.

Invariant: each comparison is of `shard_optimizer=True` with `False`, on the same data and the same number of workers.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

import distgrad as dg
from distgrad import graph, nn
from distgrad.engine import blocks
from distgrad.errors import RemoteOpError
from distgrad.ops import optimizers
from distgrad.optim import optimizer as optimizer_module
from distgrad.placement import Replicate, Shard
from distgrad.runtime import slices
from distgrad.runtime.collectives import Counter, run_lockstep

OPTIMIZERS = {
    "adam": lambda params: dg.optim.Adam(params, lr=0.01, weight_decay=0.1),
    "adamw": lambda params: dg.optim.AdamW(params, lr=0.01),
    "sgd": lambda params: dg.optim.SGD(params, lr=0.1, weight_decay=0.1),
    "nesterov": lambda params: dg.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
}
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((29, 13)).astype(np.float32)
CLASSES = RNG.integers(0, 4, 29)


class Training:
    """A small model in the running session; its last layer has fewer rows than five workers."""

    def __init__(self, make=OPTIMIZERS["adam"], width=37):
        dg.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(13, width), nn.ReLU(), nn.Linear(width, 4))
        self.params = list(self.model.parameters())
        self.optimizer = make(self.params)
        self.x, self.y = dg.shard(dg.from_numpy(ROWS)), dg.shard(dg.from_numpy(CLASSES))

    def backward(self):
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        return loss.detach()

    def step(self):
        self.optimizer.zero_grad()
        loss = self.backward()
        self.optimizer.step()
        return loss

    def states(self):
        return [v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, dg.Tensor)]

    def values(self):
        tensors = [*self.params, *(p.grad for p in self.params if p.grad is not None), *self.states()]
        return [t.detach().numpy() for t in tensors]

    def whole(self):
        return all(isinstance(p.placement, Replicate) for p in self.params)


def init(workers, sliced, **more):
    return dg.init(local_mode=True, num_workers=workers, shard_optimizer=sliced, **more)


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def both(scenario, workers, **more):
    """Runs a scenario with whole steps and with slices, and compares every value it gives, bit for bit."""
    found = []
    for sliced in (False, True):
        with init(workers, sliced, **more):
            found.append(scenario())
    same(*found)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("frame", [64, 1 << 20])
def test_halves_of_an_all_reduce(workers, frame, monkeypatch):
    """Several arrays at once, rows cut anywhere, some values whole."""
    monkeypatch.setattr(slices, "FRAME_BYTES", frame)
    rng = np.random.default_rng(workers)
    shapes = [(7, 5), (3,), (1, 9), (), (0, 4), (40, 2, 3)]
    arrays = [[rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(workers)]
    offsets = [
        None if not s or s == (3,) else (0, *sorted(rng.integers(0, s[0] + 1, workers - 1).tolist()), s[0]) for s in shapes
    ]
    sums = [list(accumulate(parts, np.add))[-1] for parts in zip(*arrays)]
    given = [[a.copy() for a in own] for own in arrays]
    counter = Counter()
    found = run_lockstep(
        [slices.reduce_scatter_all(r, workers, given[r], offsets) for r in range(workers)], counter
    )
    for rank, results in enumerate(found):
        same(results, [s if o is None else s[o[rank] : o[rank + 1]] for s, o in zip(sums, offsets)])
        same(given[rank], arrays[rank])
    cut = [(s, o) for s, o in zip(sums, offsets) if o is not None]
    wholes = [[np.full_like(s, np.nan) for s, _ in cut] for _ in range(workers)]
    for rank, own in enumerate(wholes):
        for array, (total, o) in zip(own, cut):
            array[o[rank] : o[rank + 1]] = total[o[rank] : o[rank + 1]]
    cuts = [o for _, o in cut]
    run_lockstep([slices.all_gather_all(r, workers, wholes[r], cuts) for r in range(workers)], counter)
    for own in wholes:
        same(own, [s for s, _ in cut])
    along = sum(s.nbytes for s, o in zip(sums, offsets) if o is None)
    assert counter.bytes_sent == (workers - 1) * (2 * sum(s.nbytes for s, _ in cut) + workers * along)


@pytest.mark.parametrize("width", [37, 701])  # all sizes are left to numpy; compiled loops on slices it would be left
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_bits_as_whole_steps(name, workers, width):
    def scenario():
        training = Training(OPTIMIZERS[name], width)
        losses = [training.step() for _ in range(5)]
        assert training.whole()
        if graph.session().shard_optimizer and workers > 1:
            assert isinstance(training.params[0].grad.placement, Shard)
            assert all(isinstance(s.placement, Shard) for s in training.states() if s.shape[0] >= workers)
        return [loss.numpy() for loss in losses] + training.values()

    both(scenario, workers)


def test_without_compiled_loops():
    def scenario():
        training = Training(OPTIMIZERS["nesterov"])
        for _ in range(3):
            training.step()
        return training.values()

    dg.set_fused_kernels(False)
    try:
        both(scenario, 3)
    finally:
        dg.set_fused_kernels(True)


def test_what_a_loop_does_between_steps():
    """Values are read, gradients clipped, scaled, kept and changed by hand, states saved and loaded, in both ways alike."""
    def scenario():
        training, seen = Training(), []
        training.step()
        seen += [p.grad.numpy() for p in training.params]
        training.optimizer.zero_grad(set_to_none=False)
        loss = training.backward()
        seen += [loss.numpy()]  # sends the gradients before the step
        training.optimizer.step()
        training.optimizer.zero_grad()
        training.backward()
        seen += [nn.utils.clip_grad_norm_(training.params, 0.01).numpy()]
        training.optimizer.step()
        training.step()
        held = [p.grad for p in training.params]
        training.optimizer.zero_grad()
        training.backward()
        kept = [p.grad.detach() for p in training.params]  # somebody else has the whole gradient
        training.optimizer.step()
        seen += [g.numpy() for g in held + kept]
        with dg.no_grad():
            for p in training.params:
                p -= 0.1 * p.grad
        assert training.whole()
        saved = training.optimizer.state_dict()
        training.step()
        training.optimizer.load_state_dict(saved)
        fresh = Training()
        fresh.optimizer.load_state_dict(saved)
        for each in (training, fresh):
            each.step()
            each.step()
            seen += each.values()
        seen += [v.numpy() for s in fresh.optimizer.state_dict()["state"].values() for v in s.values()]
        return seen

    both(scenario, 3)


def test_gradients_added_up():
    def scenario():
        training = Training()
        for _ in range(3):
            training.optimizer.zero_grad()
            training.backward()
            training.backward()
            training.optimizer.step()
        return training.values()

    both(scenario, 2)


def test_by_itself_only_where_nothing_more_is_moved(monkeypatch):
    with init(2, None):
        training = Training()
        training.step()
        assert not any(isinstance(s.placement, Shard) for s in training.states())  # too few parameters
    monkeypatch.setattr(optimizer_module, "SLICED_ELEMENTS", 100)

    def clipped(training):
        nn.utils.clip_grad_norm_(training.params, 1.0)

    def read(training):
        training.params[0].grad.numpy()

    for before, expected in ((clipped, False), (read, False), (lambda training: None, True)):
        with init(2, None):
            training = Training()
            for _ in range(2):
                training.optimizer.zero_grad()
                training.backward()
                before(training)
                training.optimizer.step()
            assert [isinstance(s.placement, Shard) for s in training.states()] == [expected] * 8


@pytest.mark.parametrize("workers", [2, 4])
def test_bytes_messages_and_memory(workers):
    """A steady step sends 2 (W-1)/W of the gradients' bytes, and each worker holds 1/W of the states."""
    held = {}
    for sliced in (False, True):
        with init(workers, sliced):
            training = Training(width=64 * workers)
            for _ in range(4):
                training.step()
            dg.synchronize()
            before = dg.stats()
            for _ in range(3):
                loss = training.step()
            dg.synchronize()
            after = dg.stats()
            size = sum(p.numpy().nbytes for p in (p.detach() for p in training.params))
            sent = (after.bytes_sent - before.bytes_sent) / 3 / workers
            limit = 2 * (workers - 1) / workers * size
            assert limit <= sent <= limit + 12 * workers * workers  # the loss and the count of rows go along
            assert after.control_messages - before.control_messages == 3 * workers
            assert after.programs_built == before.programs_built
            assert np.isfinite(loss.item())
            states = [s._node.slot.id for s in training.states()]
            held[sliced] = [sum(w.slots[s].nbytes for s in states) for w in graph.session().backend.workers]
    assert held[True] == [sum(held[False]) // workers**2] * workers


def test_compiled_step_replays():
    def scenario():
        training = Training()
        step = dg.compile(training.step)
        for _ in range(6):
            step()
        assert dg.stats().steps_replayed >= 3
        return training.values()

    both(scenario, 2)


@pytest.mark.filterwarnings("ignore:memory_per_worker")
def test_rows_in_blocks_under_a_limit_of_memory(monkeypatch):
    """The rows that are cut are the data's, not those of the states; how many blocks depends on what else is kept."""
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 1 << 10)  # as small as the tensors here
    found = []
    for sliced in (False, True):
        with init(2, sliced, memory_per_worker=70_000):
            training = Training(width=200)
            for _ in range(3):
                training.step()
            found.append(training.values())
            worker = graph.session().backend.workers[0]
            assert any(len(step.blocks) > 1 for step in worker.programs[max(worker.programs)].steps if hasattr(step, "blocks"))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_step_that_fails_on_one_worker(rank, monkeypatch):
    """The others are not left waiting, what depends on it is lost, and the session goes on."""
    whole, calls = optimizers._adam, []

    def fails(*args):
        calls.append(None)
        if len(calls) == 4 * rank + 2:  # the second parameter of that rank
            raise MemoryError("no room")
        whole(*args)

    with init(3, True):
        training = Training()
        training.step()
        dg.synchronize()
        monkeypatch.setattr(optimizers, "_adam", fails)
        training.step()
        with pytest.raises(RemoteOpError, match="no room"):
            training.params[0].detach().numpy()
        monkeypatch.undo()
        assert float(training.x.sum().item()) == pytest.approx(float(ROWS.sum()), rel=1e-4)
        fresh = Training()
        fresh.step()
        assert np.isfinite(fresh.params[0].detach().numpy()).all()


def test_a_gradient_that_fails_on_one_worker():
    with init(3, True):
        training = Training()
        training.step()
        training.optimizer.zero_grad()
        training.y = dg.shard(dg.from_numpy(np.where(np.arange(29) == 28, 99, CLASSES)))  # no such class
        training.backward()
        training.optimizer.step()
        with pytest.raises(RemoteOpError):
            training.params[0].detach().numpy()
        fresh = Training()
        fresh.step()
        assert np.isfinite(fresh.params[0].detach().numpy()).all()


@pytest.mark.parametrize("network", [False, True])
def test_over_transports(connected, network):
    def scenario():
        training = Training()
        for _ in range(3):
            training.step()
        return training.values()

    with init(2, False):
        expected = scenario()
    with dg.init(num_workers=2, force_network=network, shard_optimizer=True):
        same(scenario(), expected)


def test_the_setting_is_checked():
    with pytest.raises(TypeError, match="shard_optimizer must be True, False or None, got 'yes'"):
        dg.init(local_mode=True, shard_optimizer="yes")
