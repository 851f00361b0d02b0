"""Sessions on Ray workers: values, transports between nodes, failures of operations, and the messages of a step."""

from __future__ import annotations

import inspect
import logging
import pickle
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import errors
from distgrad.errors import RemoteOpError

GENERATOR = np.random.default_rng(5)
X = GENERATOR.standard_normal((37, 6)).astype(np.float32)
Y = GENERATOR.standard_normal((37, 3)).astype(np.float32)
W = GENERATOR.standard_normal((6, 3)).astype(np.float32)


def trained(steps: int = 4) -> tuple[list[float], np.ndarray]:
    """Losses and weights of a least-squares fit by gradient descent, wherever tensors are now."""
    x, y = dg.shard(dg.tensor(X)), dg.shard(dg.tensor(Y))
    w = dg.nn.Parameter(dg.tensor(W))
    losses = []
    for _ in range(steps):
        loss = ((dg.tanh(x @ w) - y) ** 2).mean()
        loss.backward()
        with dg.no_grad():
            w -= 0.1 * w.grad
        w.grad = None
        losses.append(loss.item())
    return losses, w.detach().numpy().copy()


@pytest.fixture(scope="module")
def alone() -> tuple[list[float], np.ndarray]:
    """The same without a session."""
    return trained()


@pytest.mark.parametrize(
    ("workers", "network", "nodes", "transport"),
    [
        (1, False, 1, "shared memory"),
        (2, False, 1, "shared memory"),
        (2, True, 1, "network"),
        (4, False, 2, "shared memory + network"),
        (4, True, 2, "network"),
        (5, False, 2, "shared memory + network"),
    ],
)
def test_same_numbers_over_every_transport(connected, alone, workers, network, nodes, transport):
    with dg.init(num_workers=workers, force_network=network) as session:
        assert (session.num_workers, session.nodes, session.transport) == (workers, nodes, transport)
        losses, weights = trained()
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    np.testing.assert_allclose(weights, alone[1], rtol=1e-5, atol=1e-6)


def test_one_worker_on_each_node(connected, alone):
    """Two nodes with one worker each exchange over the network alone."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    held = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    ray.get(held.ready(), timeout=30)
    try:
        with dg.init(num_workers=2) as session:
            assert (session.nodes, session.transport) == (2, "network")
            losses, _ = trained()
    finally:
        remove_placement_group(held)
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)


@pytest.mark.parametrize("sliced", [None, True])
def test_large_gradients_over_two_nodes(connected, sliced):
    """Two nodes of two workers: all-reduces go from node to node, and optimizer steps in slices only when asked for."""
    def losses() -> list[float]:
        x = dg.shard(dg.from_numpy(np.random.default_rng(8).standard_normal((64, 600), dtype=np.float32)))
        dg.manual_seed(0)
        layer = dg.nn.Linear(600, 600)
        optimizer = dg.optim.Adam(layer.parameters(), lr=0.01)
        found = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = (layer(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        state = optimizer.state[layer.weight]["exp_avg"].placement
        assert not dg.is_initialized() or isinstance(state, dg.Shard) == bool(sliced)
        return found

    alone = losses()
    with dg.init(num_workers=4, shard_optimizer=sliced) as session:
        assert session.nodes == 2
        np.testing.assert_allclose(losses(), alone, rtol=1e-5)


def test_large_values_travel_whole(connected):
    """Several megabytes go to their owners, between workers and back; what comes back may be written to."""
    big = GENERATOR.standard_normal((3001, 257))
    with dg.init(num_workers=4, force_network=True):
        t = dg.from_numpy(big)
        assert t.placement == dg.Shard(0)
        back = (t * 1.0).redistribute(dg.Replicate()).numpy()
        np.testing.assert_array_equal(back, big)
        back[0, 0] = 7.0
        np.testing.assert_array_equal((t * 1.0).redistribute(dg.Shard(1)).numpy(), big)
        assert dg.stats().bytes_sent >= 2 * big.nbytes * 3 // 4


@pytest.fixture
def two(connected) -> Any:
    """A session of two workers."""
    with dg.init(num_workers=2, timeout=20) as session:
        yield session


def test_a_failure_names_line_op_worker_and_shapes(two):
    x = dg.shard(np.arange(12, dtype=np.float32).reshape(6, 2))
    index = dg.shard(np.array([0, 1, 0, 1, 0, 9]))
    good = x * 2
    line = inspect.currentframe().f_lineno + 1
    bad = dg.gather(x, 1, index.reshape(6, 1))
    worse = bad.sum() + 1
    with pytest.raises(RemoteOpError) as caught:
        worse.item()
    error = caught.value
    text = str(error)
    assert error.where == f"{__file__}:{line}"
    assert f"{__file__}:{line}" in text
    assert error.op == "take_along"
    assert "take_along failed on worker 1 of 2" in text
    assert "(3, 2), (3, 1)" in text
    assert error.cause == "RuntimeError"
    assert "Traceback" in error.worker_traceback
    with pytest.raises(RemoteOpError, match="take_along failed on worker 1"):
        bad.numpy()
    np.testing.assert_array_equal(good.numpy(), np.arange(12).reshape(6, 2) * 2)
    assert (x.sum()).item() == 66


def test_a_failing_user_function(two):
    def fails_on_large_rows(rows: Any) -> Any:
        if rows.sum().item() > 10:
            raise LookupError("no such thing")
        return rows * 2

    x = dg.shard(np.arange(6, dtype=np.float32))
    line = inspect.currentframe().f_lineno + 2
    with pytest.raises(RemoteOpError, match="no such thing") as caught:
        dg.map_shards(fails_on_large_rows, x).numpy()
    assert caught.value.where == f"{__file__}:{line}"
    assert (caught.value.worker, caught.value.cause) == (1, "LookupError")
    assert "in fails_on_large_rows" in caught.value.worker_traceback
    np.testing.assert_array_equal(dg.map_shards(fails_on_large_rows, x * 0.1).numpy(), (x * 0.2).numpy())


def test_a_function_that_the_workers_cannot_import(two, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def twice(rows):\n    return rows * 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    x = dg.shard(np.arange(6, dtype=np.float32))
    with pytest.raises(RemoteOpError, match="No module named 'only_here'"):
        dg.map_shards(only_here.twice, x)
    assert x.sum().item() == 15


def test_a_function_that_cannot_be_pickled(two):
    import threading

    lock = threading.Lock()
    x = dg.shard(np.arange(6, dtype=np.float32))

    def locked(rows: Any) -> Any:
        with lock:
            return rows

    with pytest.raises(TypeError, match=r"map_shards: .*locked.* cannot be sent to the workers.*lock"):
        dg.map_shards(locked, x)
    assert x.sum().item() == 15


def test_unread_failures_are_reported_at_shutdown(two, caplog):
    x = dg.shard(np.arange(12, dtype=np.float32).reshape(6, 2))
    line = inspect.currentframe().f_lineno + 1
    lost = dg.gather(x, 1, dg.shard(np.full((6, 1), 7)))
    dg.synchronize()
    del lost
    with caplog.at_level(logging.WARNING, "distgrad"):
        dg.shutdown()
    assert f"{__file__}:{line}" in caplog.text


def test_wrong_shapes_send_nothing(two):
    x = dg.shard(np.ones((6, 2), np.float32))
    x.sum().item()
    before = dg.stats().control_messages
    with pytest.raises(RuntimeError, match="matmul"):
        x @ dg.ones(3, 4)
    assert dg.stats().control_messages == before


def test_every_error_pickles():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.DistgradError)]
    assert len(kinds) == 10
    for kind in kinds:
        error = kind("what happened", missing=[1], seconds=2.5, op="add", where="a.py:3")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (str(again), again.details) == ("what happened", error.details)
        assert (again.missing, again.where) == ([1], "a.py:3")


def test_a_steady_step_is_one_message_a_worker(two):
    x, y = dg.shard(dg.tensor(X)), dg.shard(dg.tensor(Y))
    model = dg.nn.Sequential(dg.nn.Linear(6, 8), dg.nn.ReLU(), dg.nn.Linear(8, 3))
    optimizer = dg.optim.Adam(model.parameters(), lr=0.01)

    def step() -> Any:
        optimizer.zero_grad()
        loss = dg.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    first = step().item()
    for _ in range(3):
        step().item()
    before, steps = dg.stats(), 10
    losses = [step().item() for _ in range(steps)]
    after = dg.stats()
    assert after.control_messages - before.control_messages <= steps * 2
    assert after.programs_built == before.programs_built
    assert after.driver_bytes - before.driver_bytes <= steps * 4
    assert after.collectives - before.collectives <= steps * 2
    assert losses[-1] < first
    ahead = [step() for _ in range(steps)]
    dg.synchronize()
    again = dg.stats()
    assert again.control_messages - after.control_messages <= steps * 2
    assert again.programs_built == after.programs_built
    assert ahead[-1].item() < losses[-1]
