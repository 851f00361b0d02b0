"""Communication by count: messages, collectives and bytes of a training step, and ops that must not communicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.runtime import session as sessions

F = dg.nn.functional
WORKERS = pytest.mark.parametrize("workers", [2, 3, 5])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def exchanges(function: Callable[[], Any]) -> int:
    """Gives how many exchanges a function's results need; they are computed while still referred to."""
    dg.synchronize()
    before = dg.stats().collectives
    result = function()
    dg.synchronize()
    assert result is not None
    return dg.stats().collectives - before


def steady(step: Callable[[], Any], workers: int, *, warm: int = 3, steps: int = 5) -> dict[str, float]:
    """Runs a step until it is steady; gives what each of the following steps adds to the counters, all alike."""
    for _ in range(warm):
        step()
    found = []
    for _ in range(steps):
        before = dg.stats()
        step()
        after = dg.stats()
        found.append(
            {
                name: getattr(after, name) - getattr(before, name)
                for name in (
                    "control_messages",
                    "collectives",
                    "bytes_sent",
                    "driver_bytes",
                    "programs_built",
                    "programs_reused",
                )
            }
        )
    assert all(f == found[0] for f in found), found
    return found[0]


def mlp() -> Any:
    dg.manual_seed(0)
    return dg.nn.Sequential(
        dg.nn.Linear(6, 8), dg.nn.ReLU(), dg.nn.LayerNorm(8), dg.nn.Linear(8, 8), dg.nn.GELU(), dg.nn.Linear(8, 3)
    )


OPTIMIZERS = {
    "SGD": lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": lambda p: dg.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: dg.optim.AdamW(p, lr=0.01),
}


@WORKERS
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("classify", [False, True], ids=["mse_loss", "cross_entropy"])
def test_a_training_step_is_one_message_per_worker(name: str, workers: int, classify: bool) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        model = mlp()
        optimizer = OPTIMIZERS[name](model.parameters())
        x = dg.shard(dg.from_numpy(normal(11, 6).astype(np.float32)))
        labels = dg.shard(dg.from_numpy(np.arange(11) % 3))
        targets = dg.shard(dg.from_numpy(normal(11, 3, seed=1).astype(np.float32)))

        def step() -> float:
            loss = F.cross_entropy(model(x), labels) if classify else F.mse_loss(model(x), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        first = step()
        counts = steady(step, workers)
        parameters = sum(p.numel() for p in model.parameters())
        assert counts["control_messages"] <= workers
        assert counts["programs_built"] == 0
        assert counts["programs_reused"] == 1
        assert counts["driver_bytes"] == 4  # the loss
        # Gradients and loss share a bucket. Cross-entropy divides by the number of labels that count, known to nobody
        # before it is added up over the workers, and its gradient does too.
        assert counts["collectives"] == (2 if classify else 1)
        assert counts["bytes_sent"] <= workers * (workers - 1) * (4 * (parameters + 1) + 64)
        assert step() < first


@pytest.mark.parametrize("workers", [1, 3])
def test_a_step_whose_loss_is_not_read_waits_for_nothing(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        model = mlp()
        optimizer = dg.optim.Adam(model.parameters())
        x = dg.shard(dg.from_numpy(normal(8, 6).astype(np.float32)))

        def step() -> None:
            optimizer.zero_grad()
            (model(x) ** 2).mean().backward()
            optimizer.step()

        counts = steady(step, workers)
        assert counts["driver_bytes"] == 0
        assert counts["control_messages"] <= workers
        assert counts["programs_built"] == 0


def test_a_step_by_hand_with_a_batch_from_the_driver() -> None:
    """Only the batch and the loss pass through the driver."""
    with dg.init(local_mode=True, num_workers=3):
        w, b = dg.tensor(normal(4, 2), requires_grad=True), dg.zeros(2, dtype=dg.float64, requires_grad=True)
        number = iter(range(100))

        def step() -> float:
            i = next(number)
            x = dg.shard(dg.from_numpy(normal(7, 4, seed=i)))
            loss = ((x @ w + b).tanh() ** 2).mean()
            loss.backward()
            with dg.no_grad():
                for p in (w, b):
                    p -= 0.1 / (i + 1) * p.grad
                    p.grad = None
            return loss.item()

        counts = steady(step, 3)
        assert counts["driver_bytes"] == 7 * 4 * 8 + 8
        assert counts["programs_built"] == 0
        assert counts["collectives"] == 1
        assert counts["control_messages"] <= 3


@WORKERS
def test_minibatches_of_sharded_data_move_only_rows(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.shard(dg.from_numpy(normal(40, 5)))
        w = dg.tensor(normal(5, 1), requires_grad=True)
        start = iter(range(0, 400, 2))

        def step() -> float:
            i = next(start)
            loss = ((x[i % 30 : i % 30 + 10] @ w) ** 2).mean()
            w.grad = None
            loss.backward()
            with dg.no_grad():
                w.sub_(0.01 * w.grad)
            return loss.item()

        for _ in range(3):
            step()
        before = dg.stats()
        for _ in range(8):
            step()
        after = dg.stats()
        assert after.programs_built == before.programs_built
        assert after.control_messages - before.control_messages <= 8 * workers
        assert after.driver_bytes - before.driver_bytes == 8 * 8


PER_ROW: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: (x * 2 + 1).tanh().exp() / (x.abs() + 1),
    "with a row vector": lambda x: x + dg.ones(6, dtype=x.dtype),
    "with a column": lambda x: x * x[:, :1],
    "matmul": lambda x: x @ dg.ones(6, 3, dtype=x.dtype),
    "linear": lambda x: F.linear(x, dg.ones(3, 6, dtype=x.dtype), dg.ones(3, dtype=x.dtype)),
    "sum of rows": lambda x: x.sum(dim=1),
    "mean of rows": lambda x: x.mean(dim=1, keepdim=True),
    "amax": lambda x: x.amax(dim=-1),
    "argmax": lambda x: x.argmax(dim=1),
    "var": lambda x: x.var(dim=1),
    "norm": lambda x: x.norm(dim=1),
    "logsumexp": lambda x: x.logsumexp(1),
    "softmax": lambda x: F.softmax(x, dim=1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "sort": lambda x: x.sort(dim=1),
    "topk": lambda x: x.topk(2, dim=1),
    "cumsum": lambda x: x.cumsum(1),
    "flip": lambda x: x.flip(1),
    "columns": lambda x: x[:, 1:4],
    "one column": lambda x: x[:, 2],
    "gather": lambda x: x.gather(1, x.argsort(dim=1)),
    "transpose": lambda x: x.t(),
    "permute": lambda x: x.reshape(-1, 2, 3).permute(2, 0, 1),
    "split heads": lambda x: x.reshape(-1, 3, 2),
    "flatten": lambda x: x.reshape(-1, 3, 2).flatten(1),
    "unsqueeze": lambda x: x.unsqueeze(1).squeeze(1),
    "expand": lambda x: x.unsqueeze(1).expand(-1, 4, -1),
    "cat of columns": lambda x: dg.cat([x, x * 2], dim=1),
    "stack": lambda x: dg.stack([x, x], dim=1),
    "chunk": lambda x: x.chunk(2, dim=1)[0],
    "where": lambda x: dg.where(x > 0, x, -x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "clamp": lambda x: x.clamp(-1, 1),
    "dropout": lambda x: F.dropout(x, 0.5),
    "rand_like": lambda x: x + dg.rand_like(x),
    "cast": lambda x: x.float().long(),
    "compare": lambda x: x > 0,
    "one_hot": lambda x: F.one_hot(x.argmax(dim=1), 6),
    "embedding": lambda x: F.embedding(x.argmax(dim=1), dg.ones(6, 4)),
    "loss per row": lambda x: F.cross_entropy(x, x.argmax(dim=1), reduction="none"),
    "pad": lambda x: F.pad(x, (1, 1)),
    "einsum": lambda x: dg.einsum("ij,kj->ik", x, dg.ones(2, 6, dtype=x.dtype)),
    "batched matmul": lambda x: x.reshape(-1, 2, 3) @ x.reshape(-1, 3, 2),
    "in place": lambda x: x.clone().mul_(2).add_(x),
    "column write": lambda x: _write_column(x.clone()),
    "sum, still in parts": lambda x: None,
    "zeros_like": lambda x: dg.zeros_like(x) + x,
    "linear then relu": lambda x: F.relu(F.linear(x, dg.ones(3, 6, dtype=x.dtype))),
}
del PER_ROW["sum, still in parts"]


def _write_column(x: Any) -> Any:
    x[:, 1] = 3.0
    x[:, 2] += x[:, 0]
    return x


@WORKERS
@pytest.mark.parametrize("name", PER_ROW)
def test_per_row_ops_communicate_nothing(name: str, workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        for rows in (12, 7, 1, 0):
            if rows == 0 and name == "one_hot":
                continue
            x = dg.shard(dg.from_numpy(normal(rows, 6)))
            assert exchanges(lambda x=x: PER_ROW[name](x)) == 0


@WORKERS
@pytest.mark.parametrize("name", [n for n in PER_ROW if n not in {"argmax", "cast", "compare", "one_hot", "embedding"}])
def test_gradients_of_per_row_ops_need_one_exchange_at_most(name: str, workers: int) -> None:
    """The gradient of the rows needs none; a replicated parameter's gradient is one all-reduce."""
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.shard(dg.tensor(normal(7, 6), requires_grad=True))
        w = dg.ones(6, dtype=dg.float64, requires_grad=True)

        def gradients() -> Any:
            found = PER_ROW[name](x * w)
            outs = [t for t in (found if isinstance(found, tuple) else (found,)) if t.requires_grad]
            return dg.autograd.grad(sum(t.tanh().sum() for t in outs), [x, w])

        assert exchanges(gradients) == 1


@WORKERS
def test_forward_of_a_model_on_sharded_rows_has_no_collective(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        model = mlp()
        x = dg.shard(dg.from_numpy(normal(13, 6).astype(np.float32)))
        dg.synchronize()
        assert exchanges(lambda: model(x)) == 0
        assert exchanges(lambda: model(x).argmax(dim=1)) == 0
        assert exchanges(lambda: F.mse_loss(model(x), model(x).detach() * 2)) == 1  # its mean


@WORKERS
def test_column_parallel_layers_communicate_nothing_and_row_parallel_ones_once(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.replicate(dg.from_numpy(normal(4, 6)))
        a, b = dg.shard(dg.from_numpy(normal(6, 10)), 1), dg.shard(dg.from_numpy(normal(10, 6)), 0)
        assert exchanges(lambda: (x @ a).relu()) == 0
        assert exchanges(lambda: (x @ a).relu() @ b) == 1
        assert exchanges(lambda: (x @ a).relu() @ b * 2 + 0.0 * x) == 1


@WORKERS
def test_values_read_together_are_reduced_together(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.shard(dg.from_numpy(normal(9, 6)))
        assert exchanges(lambda: (x.sum(), (x * x).sum(0), x.mean())) == 1


def test_reading_values_costs_one_message_per_owner() -> None:
    with dg.init(local_mode=True, num_workers=4):
        x = dg.shard(dg.from_numpy(normal(9, 6)))
        dg.synchronize()
        before = dg.stats()
        assert x.numpy().shape == (9, 6)
        after = dg.stats()
        assert after.control_messages - before.control_messages == 4
        assert after.driver_bytes - before.driver_bytes == 9 * 6 * 8
        replicated = dg.replicate(dg.from_numpy(normal(3)))
        dg.synchronize()
        before = dg.stats()
        replicated.tolist()
        after = dg.stats()
        assert after.control_messages - before.control_messages == 1
        assert after.driver_bytes - before.driver_bytes == 24


def test_recording_sends_nothing_until_a_value_is_needed() -> None:
    with dg.init(local_mode=True, num_workers=3) as session:
        x = dg.shard(dg.from_numpy(normal(9, 6)))
        dg.synchronize()
        before = dg.stats()
        y = x
        for _ in range(200):
            y = (y * 1.01).tanh()
        assert y.shape == (9, 6)
        assert dg.stats().control_messages == before.control_messages
        assert dg.stats().nodes_recorded - before.nodes_recorded == 400
        y.sum().item()
        assert dg.stats().control_messages - before.control_messages <= 2 * session.num_workers
        assert sessions._running[0] is session
