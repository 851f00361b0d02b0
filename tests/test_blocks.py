"""Row blocks: programs cut along the batch give what they give in one piece, within a limit of memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import graph
from distgrad.engine import blocks, interpreter
from distgrad.nn import functional as F


@pytest.fixture
def small_blocks(monkeypatch):
    """Everything that can be cut is cut, into blocks of a row or two."""
    monkeypatch.setattr(blocks, "LEAST_BYTES", 0)
    monkeypatch.setattr(blocks, "CACHE_BYTES", 1)
    monkeypatch.setattr(blocks, "LEAST_ROWS", 1)


def cut_programs() -> int:
    """How many programs of worker 0 hold a segment in blocks."""
    session: Any = graph.session()
    programs = session.backend.workers[0].programs.values()
    return sum(any(type(s) is interpreter._Blocks for s in p.steps) for p in programs)


def training(steps: int = 4, rows: int = 41) -> list[float]:
    rng = np.random.default_rng(3)
    dg.manual_seed(1)
    model = dg.nn.Sequential(dg.nn.Linear(6, 16), dg.nn.LayerNorm(16), dg.nn.GELU(), dg.nn.Dropout(0.2), dg.nn.Linear(16, 3))
    model.double()
    x = dg.shard(dg.from_numpy(rng.standard_normal((rows, 6))))
    y = dg.shard(dg.from_numpy(rng.integers(0, 3, rows)))
    optimizer = dg.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [*losses, *(p.sum().item() for p in model.parameters())]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_training_in_blocks_is_training(small_blocks, workers):
    plain = training()
    with dg.init(local_mode=True, num_workers=workers):
        found = training()
        assert cut_programs() > 0
    np.testing.assert_allclose(found, plain, rtol=1e-11)


def test_forward_and_backward_share_a_segment(small_blocks):
    """A logistic regression reads its rows once: everything between data and sums is one segment."""
    with dg.init(local_mode=True, num_workers=2):
        x, y = (dg.shard(dg.from_numpy(np.ones((20, k)))) for k in (3, 1))
        weight = dg.zeros(3, 1, dtype=dg.float64, requires_grad=True)
        loss = F.binary_cross_entropy_with_logits(x @ weight, y)
        loss.backward()
        assert loss.item() == pytest.approx(np.log(2))
        session: Any = graph.session()
        cut = [s for p in session.backend.workers[0].programs.values() for s in p.steps if type(s) is interpreter._Blocks]
        assert len(cut) == 1
        names = {s.instruction.op.name for s in cut[0].plain}
        assert "matmul" in names
        assert {"mean_logit_loss", "logit_gradient"} <= names
        assert len(cut[0].blocks) == 10


def test_values_between_exchanges_cross_segments(small_blocks):
    """Batch statistics are needed whole before the rows are normalised."""
    data = np.random.default_rng(0).standard_normal((23, 4))

    def run() -> Any:
        x = dg.shard(dg.from_numpy(data)).requires_grad_()
        y = F.batch_norm(x * 2, None, None, training=True)
        (y ** 3).sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    plain = run()
    with dg.init(local_mode=True, num_workers=3):
        found = run()
        assert cut_programs() > 0
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)


def test_a_failure_in_a_block_names_its_line_and_spares_the_rest(small_blocks):
    with dg.init(local_mode=True, num_workers=2):
        table = dg.from_numpy(np.arange(8.0).reshape(4, 2))
        index = dg.shard(dg.from_numpy(np.array([0, 1, 2, 3, 1, 9])))
        good = (dg.shard(dg.from_numpy(np.ones(6))) * 2).sum()
        bad = F.embedding(index, table).sum()
        with pytest.raises(dg.RemoteOpError, match="test_blocks.py"):
            bad.item()
        assert good.item() == 12.0


def test_a_limit_of_memory_holds_at_ten_times_the_batch(monkeypatch):
    monkeypatch.setattr(blocks, "LEAST_BYTES", 1 << 60)  # nothing is cut for the cache's sake

    def peak(limit: int | None, rows: int) -> tuple[int, float]:
        with dg.init(local_mode=True, num_workers=1, memory_per_worker=limit):
            dg.manual_seed(0)
            model = dg.nn.Sequential(*(dg.nn.Linear(64, 64) for _ in range(8)), dg.nn.Linear(64, 1))
            x = dg.shard(dg.ones(rows, 64) * 0.5)
            for _ in range(2):
                model.zero_grad()
                loss = model(x).square().mean()
                loss.backward()
                value = loss.item()
            dg.synchronize()
            tracemalloc.start()
            model.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            value = loss.item()
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most, value

    limit = 8 << 20
    free, expected = peak(None, 20_000)  # 5 MB of data, nine activations of 5 MB
    held, found = peak(limit, 20_000)
    assert free > 5 * limit
    assert held < limit
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "1"])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="memory_per_worker"):
        dg.init(local_mode=True, memory_per_worker=limit)


def test_a_limit_that_cannot_be_kept_is_told_with_the_largest_values():
    """A product of two losses needs both before the first gradient: the rows cannot be cut."""
    with dg.init(local_mode=True, num_workers=1, memory_per_worker=1 << 20):
        x = dg.shard(dg.ones(2000, 64)).requires_grad_()
        loss = x.square().mean() * x.exp().mean()
        loss.backward()
        told = r"(?s)worker 0 needs about .* more than the 1,048,576 allowed.*\(2000, 64\) float32"
        with pytest.warns(RuntimeWarning, match=told):
            value = loss.item()
        assert value == pytest.approx(np.e, rel=1e-5)


def test_a_limit_that_is_kept_is_not_told_of(recwarn):
    with dg.init(local_mode=True, num_workers=2, memory_per_worker=4 << 20):
        x = dg.shard(dg.from_numpy(np.ones((20_000, 16), np.float32)))
        model = dg.nn.Sequential(*(layer for _ in range(6) for layer in (dg.nn.Linear(16, 16), dg.nn.Dropout(0.2))))
        loss = model(x).square().mean() + 0.5 * model(x).abs().mean()
        loss.backward()
        assert np.isfinite(loss.item())
        assert cut_programs() > 0
    assert not [w for w in recwarn if "memory_per_worker" in str(w.message)]


def test_what_exchanges_take_counts_within_a_limit(monkeypatch):
    """Less is left for rows where the memory that ranks share takes a part of the limit."""
    monkeypatch.setattr(blocks, "LEAST_BYTES", 1 << 60)  # nothing is cut for the cache's sake

    def most_blocks(shared: int) -> int:
        with dg.init(local_mode=True, num_workers=2, memory_per_worker=6 << 20):
            session: Any = graph.session()
            asked: list[int] = []
            for worker in session.backend.workers:
                worker._exchanged = lambda nbytes: asked.append(nbytes) or shared
            x = dg.shard(dg.from_numpy(np.ones((40_000, 16), np.float32)))
            model = dg.nn.Sequential(*(dg.nn.Linear(16, 16) for _ in range(6)))
            loss = model(x).square().mean()
            loss.backward()
            assert np.isfinite(loss.item())
            assert max(asked) == 4 + sum(4 * p.numel() for p in model.parameters())  # the loss and the gradients
            steps = [step for program in session.backend.workers[0].programs.values() for step in program.steps]
            return max(len(step.blocks) for step in steps if type(step) is interpreter._Blocks)

    assert 1 < most_blocks(0) < most_blocks(3 << 20)


def test_large_data_stays_where_it_was_received():
    actor = pytest.importorskip("distgrad.runtime.actor")
    from distgrad.runtime.messages import Put

    large, small = np.arange(actor.LARGE // 4 + 1, dtype=np.float32), np.arange(5)
    (head,), data = actor.pack_messages([[Put(1, large), Put(2, small)]])
    packed = bytearray(data[0])
    first, second = (m.array for m in actor.unpack_messages(head, packed))
    assert np.shares_memory(first, np.frombuffer(packed, np.uint8))
    assert first.flags.carray
    assert second.base is None
    np.testing.assert_array_equal(first, large)
    np.testing.assert_array_equal(second, small)
