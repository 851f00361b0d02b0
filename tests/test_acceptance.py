"""What a user sees of a session as a whole: whole training loops by count, and where tensors live by themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg

F = dg.nn.functional
ROWS, SIZE = 203, 20
X = np.random.default_rng(0).standard_normal((ROWS, 6)).astype(np.float32)
Y = np.arange(ROWS) % 3
Batches = Callable[[Any, Any], Iterator[tuple[Any, Any]]]

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: dg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "Adam": lambda p: dg.optim.Adam(p, lr=0.01),
    "AdamW": lambda p: dg.optim.AdamW(p, lr=0.01, amsgrad=True),
    "RMSprop": lambda p: dg.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: dg.optim.lr_scheduler.StepLR(o, 2),
    "CosineAnnealingLR": lambda o: dg.optim.lr_scheduler.CosineAnnealingLR(o, 50),
    "LambdaLR": lambda o: dg.optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.99**epoch),
}


def by_slices(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    for start in itertools.chain.from_iterable(itertools.repeat(range(0, ROWS - SIZE, SIZE))):
        yield x[start : start + SIZE], y[start : start + SIZE]


def by_permutation(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    while True:
        order = dg.randperm(ROWS)
        for start in range(0, ROWS - SIZE, SIZE):
            chosen = order[start : start + SIZE]
            yield x[chosen], y[chosen]


def by_loader(x: Any, y: Any) -> Iterator[tuple[Any, Any]]:
    data, _ = dg.utils.data.random_split(dg.utils.data.TensorDataset(x, y), [180, ROWS - 180])
    loader = dg.utils.data.DataLoader(data, batch_size=SIZE, shuffle=True)
    while True:
        yield from loader


BATCHES: dict[str, Batches] = {"slices": by_slices, "permutation": by_permutation, "loader": by_loader}


def train(
    workers: int, batches: str, *, optimizer: str = "SGD", scheduler: str = "StepLR", read: str = "after",
    sharded: bool = True, accumulate: int = 1, steps: int = 34,
) -> tuple[list[float], list[tuple[int, int, int]]]:
    """Gives the losses that were read, and per step its messages, new programs and bytes through the driver."""
    dg.manual_seed(0)
    model = dg.nn.Sequential(dg.nn.Linear(6, 16), dg.nn.ReLU(), dg.nn.Dropout(0.3), dg.nn.Linear(16, 3))
    optim = OPTIMIZERS[optimizer](model.parameters())
    rate = SCHEDULERS[scheduler](optim)
    x, y = dg.from_numpy(X), dg.from_numpy(Y)
    if sharded:
        x, y = dg.shard(x), dg.shard(y)
    batch = BATCHES[batches](x, y)
    losses: list[float] = []
    counts: list[tuple[int, int, int]] = []
    loss: Any = None
    for _ in range(steps):
        before = dg.stats() if workers else None
        optim.zero_grad()
        for _ in range(accumulate):
            rows, labels = next(batch)
            loss = F.cross_entropy(model(rows), labels) / accumulate
            if read == "forward":
                losses.append(loss.item())
            loss.backward()
        if read == "before":
            losses.append(loss.item())
        dg.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        rate.step()
        if read == "after":
            losses.append(loss.item())
        if before is not None:
            after = dg.stats()
            counts.append(
                (
                    after.control_messages - before.control_messages,
                    after.programs_built - before.programs_built,
                    after.driver_bytes - before.driver_bytes,
                )
            )
    return losses or [loss.item()], counts


def check_steady(workers: int, **options: Any) -> None:
    expected, _ = train(0, **options)
    with dg.init(local_mode=True, num_workers=workers):
        found, counts = train(workers, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    read = 0 if options.get("read") == "never" else 4
    assert set(counts[-10:]) == {(workers, 0, read)}


@pytest.mark.parametrize("read", ["after", "before", "forward", "never"])
@pytest.mark.parametrize("batches", BATCHES)
def test_a_steady_step_is_one_message_wherever_the_loss_is_read(batches: str, read: str) -> None:
    check_steady(3, batches=batches, read=read)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_steady_step_is_one_message_with_every_optimizer(optimizer: str, scheduler: str) -> None:
    check_steady(2, batches="slices", optimizer=optimizer, scheduler=scheduler)


@pytest.mark.parametrize("batches", BATCHES)
def test_small_data_given_in_a_session_is_sent_once(batches: str) -> None:
    check_steady(3, batches=batches, sharded=False)


def test_accumulated_gradients_are_one_message_a_step() -> None:
    check_steady(3, batches="slices", accumulate=3)


def test_a_look_at_another_loss_does_not_hold_a_step_back() -> None:
    with dg.init(local_mode=True, num_workers=2):
        w = dg.ones(3, requires_grad=True)
        optimizer = dg.optim.SGD([w], lr=0.1)
        x = dg.shard(dg.arange(12.0).reshape(4, 3))

        def step() -> int:
            optimizer.zero_grad()
            (x @ w).sum().backward()
            before = dg.stats().control_messages
            optimizer.step()
            return dg.stats().control_messages - before

        assert step() == 2
        (x @ w).mean().item()
        assert [step(), step()] == [2, 2]


def test_a_held_back_step_is_sent_with_the_next_one() -> None:
    with dg.init(local_mode=True, num_workers=2):
        w = dg.ones(3, requires_grad=True)
        optimizer = dg.optim.SGD([w], lr=0.1)
        x = dg.shard(dg.ones(4, 3))
        sent = []
        for read in (True, True, True, False, False):
            optimizer.zero_grad()
            loss = (x @ w).sum()
            loss.backward()
            if read:
                loss.item()
            before = dg.stats().control_messages
            optimizer.step()
            sent.append(dg.stats().control_messages - before)
        assert sent == [2, 0, 0, 2, 2]
        assert w.tolist() == pytest.approx([1 - 5 * 0.4] * 3)


def test_a_single_row_is_read_from_its_owner_every_time() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.arange(6.0))
        assert [(x[i : i + 1] * 2).tolist() for i in (5, 4, 5, 0, 5)] == [[10.0], [8.0], [10.0], [0.0], [10.0]]
        y = dg.shard(dg.tensor([3.0])).redistribute(dg.Shard(0, (0, 0, 0, 1)))
        assert [(y + k).item() for k in range(4)] == [3, 4, 5, 6]


def test_writing_to_a_value_that_was_read_changes_no_tensor() -> None:
    with dg.init(local_mode=True, num_workers=2):
        tensors = [dg.ones(3), dg.shard(dg.ones(3)), dg.tensor([1.0, 1.0, 1.0]), dg.ones(3, requires_grad=True)]
        for x in tensors:
            for read in (x.detach().numpy(), *(t.detach().numpy() for t in (x.sum(), x.sum(), x.sum()))):
                read[...] = 7.0
            assert x.tolist() == [1.0, 1.0, 1.0]
            assert x.sum().item() == 3.0


# Where tensors live that nobody placed

LARGE = (600, 600)


def test_what_needs_gradients_is_replicated_however_large() -> None:
    with dg.init(local_mode=True, num_workers=3):
        data = np.zeros(LARGE, np.float32)
        assert dg.tensor(data).placement == dg.randn(*LARGE).placement == dg.Shard(0)
        leaves = [
            dg.tensor(data, requires_grad=True), dg.randn(*LARGE, requires_grad=True),
            dg.zeros(LARGE, requires_grad=True), dg.nn.Parameter(dg.randn(*LARGE)), dg.nn.Parameter(dg.tensor([1.0])),
            dg.nn.Parameter(dg.tensor(1.0)), dg.nn.Linear(*LARGE).weight,
        ]
        for leaf in leaves:
            assert leaf.placement == dg.Replicate()
            assert leaf.is_leaf
            assert leaf.requires_grad


def test_a_tensor_like_another_lives_where_that_one_does() -> None:
    makers = (dg.zeros_like, dg.ones_like, dg.rand_like, dg.randn_like, lambda t: dg.full_like(t, 2.0),
              lambda t: dg.randint_like(t, 5))
    with dg.init(local_mode=True, num_workers=3):
        for placement in (dg.Shard(0), dg.Shard(1), dg.Shard(0, (0, 1, 1, 4)), dg.Replicate()):
            like = dg.ones(4, 5).redistribute(placement)
            dg.synchronize()
            before = dg.stats().collectives
            made = [make(like) for make in makers]
            dg.synchronize()
            assert dg.stats().collectives == before
            assert all(m.placement == placement for m in made)
        leaf = dg.zeros_like(dg.shard(dg.ones(4, 5)), requires_grad=True)
        assert leaf.is_leaf
        assert leaf.placement == dg.Shard(0)


def test_random_values_made_again_elsewhere_are_the_same() -> None:
    dg.manual_seed(3)
    expected = dg.randn(6, 4).tolist()
    with dg.init(local_mode=True, num_workers=3):
        for placement in (dg.Shard(0), dg.Shard(1), dg.Shard(0, (0, 4, 4, 6)), dg.Replicate()):
            dg.manual_seed(3)
            before = dg.stats().bytes_sent
            made = dg.shard(dg.randn(6, 4)).redistribute(placement)
            dg.synchronize()
            assert dg.stats().bytes_sent == before
            assert made.tolist() == expected


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_state_lives_with_its_parameter(optimizer: str) -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        model = dg.nn.Linear(4, 3)
        optim = OPTIMIZERS[optimizer](model.parameters())
        model(dg.ones(5, 4)).sum().backward()
        optim.step()
        state = [v for values in optim.state.values() for v in values.values() if isinstance(v, dg.Tensor)]
        assert state
        assert all(v.placement == dg.Replicate() for v in state)


def test_rows_of_small_data_go_to_their_owners_only() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.tensor(np.ones((7, 2))))
        assert x.sum().item() == 14
        assert dg.stats().driver_bytes == 7 * 2 * 8 + 8


def test_small_data_of_a_session_is_a_copy_and_outlives_it() -> None:
    array = np.array([1.0, 2.0])
    with dg.init(local_mode=True, num_workers=2):
        x = dg.from_numpy(array)
        assert x.placement == dg.Replicate()
        array[0] = 7.0
        x.numpy()[1] = 7.0
        before = dg.stats().control_messages
        assert x.tolist() == [1.0, 2.0]
        assert dg.stats().control_messages == before
        assert (x + dg.shard(dg.ones(2))).tolist() == [2.0, 3.0]
        assert x.cpu().placement is None
    assert (x * 2).tolist() == [2.0, 4.0]
    with dg.init(local_mode=True, num_workers=3):
        assert (x + 1).tolist() == [2.0, 3.0]


def test_small_data_joins_a_function_on_the_workers() -> None:
    with dg.init(local_mode=True, num_workers=2):
        w = dg.tensor([1.0, 2.0])
        assert dg.map_shards(lambda rows: rows * w, dg.shard(dg.ones(3, 2))).sum().item() == 9
        assert (w * 2).tolist() == [2.0, 4.0]


# Text


def test_a_single_number_formats_as_its_value() -> None:
    torch = pytest.importorskip("torch")
    for T in (dg, torch):
        assert f"{T.tensor(3)} {T.tensor(0.5):.2f} {T.tensor([1.0])}" == "3 0.50 tensor([1.])"
        with pytest.raises(TypeError, match="format"):
            format(T.tensor([1.0]), ".2f")


@pytest.mark.parametrize(
    "call",
    [
        lambda T, x, y: (x * y).sum(), lambda T, x, y: x.sum(1), lambda T, x, y: x.mean(), lambda T, x, y: x.mean(0),
        lambda T, x, y: x.max(), lambda T, x, y: x.max(0).values, lambda T, x, y: x.amax(0), lambda T, x, y: x.var(),
        lambda T, x, y: x.std(0), lambda T, x, y: 1 - x, lambda T, x, y: 1 / x, lambda T, x, y: x**2,
        lambda T, x, y: x**y, lambda T, x, y: 2**x, lambda T, x, y: x @ y, lambda T, x, y: T.stack([x, y]),
        lambda T, x, y: T.bmm(T.stack([x, y]), T.stack([y, x])), lambda T, x, y: T.mv(x, y[0]), lambda T, x, y: x[0],
        lambda T, x, y: T.dot(x[0], y[0]), lambda T, x, y: T.cat([x, y]), lambda T, x, y: x.t(), lambda T, x, y: x.T,
        lambda T, x, y: x.transpose(0, 1), lambda T, x, y: x.unsqueeze(0), lambda T, x, y: x.unsqueeze(0).squeeze(0),
        lambda T, x, y: x.unsqueeze(0).squeeze(), lambda T, x, y: x.split(1)[0], lambda T, x, y: x.unbind()[1],
        lambda T, x, y: x[T.tensor([0, 1])], lambda T, x, y: x[x > 0], lambda T, x, y: x[0:1], lambda T, x, y: x.clamp(0, 1),
        lambda T, x, y: x.detach(), lambda T, x, y: x.reshape(4), lambda T, x, y: x.flatten()[1:],
        lambda T, x, y: T.nn.functional.linear(x, y), lambda T, x, y: T.nn.functional.linear(x, y, y[0]),
        lambda T, x, y: T.nn.functional.layer_norm(x, (2,)), lambda T, x, y: T.nn.functional.layer_norm(x, (2,), y[0]),
        lambda T, x, y: T.nn.functional.embedding(T.tensor([0]), x), lambda T, x, y: T.nn.functional.mse_loss(x, y),
        lambda T, x, y: T.nn.functional.cross_entropy(x, T.tensor([0, 1])),
        lambda T, x, y: T.nn.functional.binary_cross_entropy_with_logits(x, T.ones(2, 2)),
        lambda T, x, y: T.nn.functional.binary_cross_entropy(x.sigmoid(), T.ones(2, 2)),
    ],
)  # fmt: skip
def test_results_print_with_the_gradient_function_pytorch_names(call: Callable[..., Any]) -> None:
    torch = pytest.importorskip("torch")
    texts = []
    for T in (dg, torch):
        x, y = (T.tensor(v, requires_grad=True) for v in ([[1.0, 2.0], [3.0, 5.0]], [[0.5, 0.25], [0.125, 0.75]]))
        texts.append(repr(call(T, x, y)))
    assert texts[0] == texts[1]


def test_a_function_that_hands_its_input_through_does_not_rename_it() -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True).exp()
    assert x.chunk(1)[0].grad_fn.name() in ("SplitBackward0", "ExpBackward0")
    assert x.grad_fn.name() == "ExpBackward0"
