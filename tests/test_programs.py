"""Programs: when one is reused, what is in it, what it frees, how it prints, and what happens when an op fails."""

from __future__ import annotations

import collections
import inspect
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import dtypes
from distgrad.errors import RemoteOpError
from distgrad.meta import TensorMeta
from distgrad.op import op_named
from distgrad.placement import REPLICATE, Shard, Spec, balanced
from distgrad.program import Instruction, Program, bytes_moved, check, render
from distgrad.runtime import session as sessions


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def leaf(*shape: int, seed: int = 0) -> Any:
    return dg.tensor(normal(*shape, seed=seed), requires_grad=True)


def coordinator() -> Any:
    return sessions._running[0]._coordinator


def last_program() -> Program:
    return next(reversed(coordinator()._programs.values()))[1]


def slots() -> list[int]:
    """Gives how many values each worker holds once everything sent has been carried out."""
    dg.synchronize()
    coordinator()._send()
    return [len(worker.slots) for worker in coordinator().backend.workers]


@contextmanager
def counted_kernels(*names: str) -> Iterator[collections.Counter[str]]:
    """Counts kernel calls of ops while entered; workers must meet their programs inside."""
    counts: collections.Counter[str] = collections.Counter()
    before = {name: op_named(name).kernel for name in names}

    def wrap(name: str) -> Any:
        def counted(*args: Any, **attrs: Any) -> Any:
            counts[name] += 1
            return before[name](*args, **attrs)

        return counted

    for name in names:
        op_named(name).kernel = wrap(name)
    try:
        yield counts
    finally:
        for name, kernel in before.items():
            op_named(name).kernel = kernel


# Reuse ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_changing_numbers_build_no_program(workers: int) -> None:
    """Learning rates, loss weights, seeds, slice starts, step counters and exponents are inputs of a program."""
    with dg.init(local_mode=True, num_workers=workers):
        x, w = dg.shard(dg.from_numpy(normal(32, 3))), leaf(3, 1)
        momentum = dg.zeros(3, 1, dtype=dg.float64)
        for step in range(1, 13):
            dg.manual_seed(step)
            batch = x[2 * step : 2 * step + 4]
            noise = dg.randn(4, 1, dtype=dg.float64) * (0.01 * step)
            loss = (dg.nn.functional.dropout(batch @ w + noise, 0.3) ** 2).mean() * (1.0 / step)
            w.grad = None
            loss.backward()
            with dg.no_grad():
                momentum = momentum * 0.9 + w.grad
                w -= momentum * (0.1 / (1 - 0.9**step))
                w[step % 3, 0] = 0.5 / step
            loss.item()
            if step == 4:
                before = dg.stats()
        after = dg.stats()
        assert after.programs_built == before.programs_built
        assert after.programs_reused > before.programs_reused


def test_reused_programs_use_the_new_numbers() -> None:
    def run() -> list[Any]:
        x, found = dg.from_numpy(normal(10, 3)), []
        x = dg.shard(x)
        for step in range(5):
            dg.manual_seed(step)
            found.append(
                ((x[step : step + 3] * (step + 0.5) + dg.rand(3, 3, dtype=dg.float64)) ** (1 + step)).sum().item()
            )
        return found

    expected = run()
    with dg.init(local_mode=True, num_workers=3):
        np.testing.assert_allclose(run(), expected, rtol=1e-12)
        assert dg.stats().programs_built < 5


def test_another_structure_builds_a_program() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(normal(6, 2)))
        dg.synchronize()
        (x * 2).sum().item()
        built = dg.stats().programs_built
        (x * 3).sum().item()
        assert dg.stats().programs_built == built
        for other in (
            lambda: (x + 2).sum(),
            lambda: (x * 2).sum(dim=0)[0],
            lambda: (x[:3] * 2).sum(),
            lambda: (x * 2).mean(),
        ):
            other().item()
            built += 1
            assert dg.stats().programs_built == built


def test_programs_are_the_same_for_the_same_recording() -> None:
    texts = []
    for _ in range(2):
        with dg.init(local_mode=True, num_workers=3):
            x, w = dg.shard(dg.from_numpy(normal(7, 3))), leaf(3, 2)
            loss = (x @ w).tanh().sum()
            loss.backward()
            dg.synchronize()
            texts.append(str(last_program()))
    assert texts[0] == texts[1]


# What is in a program ---------------------------------------------------------------------------------------


def test_gradients_share_one_bucket() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(normal(9, 4)))
        weights = [leaf(4, 4, seed=i) for i in range(5)]
        h = x
        for w in weights:
            h = (h @ w).tanh()
        loss = (h**2).mean()
        loss.backward()
        before = dg.stats().collectives
        dg.synchronize()
        names = [i.op.name for i in last_program().instructions if i.exchanges]
        assert names == ["bucket"]
        assert dg.stats().collectives - before == 1
        (bucket,) = [i for i in last_program().instructions if i.op.name == "bucket"]
        assert len(bucket.ins) == 6  # five gradients and the loss


def test_dtypes_have_their_own_buckets() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(normal(6, 2)))
        a, b = leaf(2), dg.ones(2, dtype=dg.float32, requires_grad=True)
        ((x * a).sum() + (x.float() * b).sum()).backward()
        dg.synchronize()
        for instruction in last_program().instructions:
            assert instruction.op.name != "bucket" or len({s.meta.dtype for s in instruction.in_specs}) == 1
        np.testing.assert_allclose(b.grad.numpy(), normal(6, 2).sum(0), rtol=1e-5)
        np.testing.assert_allclose(a.grad.numpy(), normal(6, 2).sum(0), rtol=1e-12)


def test_equal_moves_happen_once() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x, y = dg.shard(dg.from_numpy(normal(6, 6))), dg.shard(dg.from_numpy(normal(6, 6, seed=1)), 1)
        a = x.redistribute(dg.Replicate()) + 1
        b = x.redistribute(dg.Replicate()) * 2
        c = y.redistribute(dg.Shard(1)) + 0  # it is there already
        before = dg.stats().collectives
        dg.synchronize()
        assert dg.stats().collectives - before == 1
        np.testing.assert_allclose((a + b + c).numpy(), normal(6, 6) * 3 + 1 + normal(6, 6, seed=1))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kind", ["float64", "int64"])
def test_every_move_between_placements_keeps_the_values(workers: int, kind: str) -> None:
    array = (normal(5, 3) * 10).astype(kind)
    places = [
        dg.Replicate(),
        dg.Shard(0),
        dg.Shard(1),
        dg.Shard(0, (0, *(2,) * (workers - 1), 5)),
        *(dg.Partial(reduce) for reduce in ("sum", "max", "min", "prod")),
    ]
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for source in places:
            for target in places:
                for last in (dg.Replicate(), dg.Shard(0)):
                    x = dg.from_numpy(array).redistribute(source).redistribute(target)
                    message = f"{source} to {target} to {last}"
                    np.testing.assert_array_equal(x.redistribute(last).numpy(), array, err_msg=message)


def test_dead_values_are_not_computed() -> None:
    with counted_kernels("exp", "sin", "cos", "tanh") as counts, dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(normal(6, 2)))
        x.exp()
        y = x.sin()
        for _ in range(3):
            z = x.cos()
        assert z.shape == (6, 2)
        (y * 2).sum().item()
        assert counts == {"sin": 2, "cos": 2}  # one of three cosines, on each worker
        del z
        with dg.no_grad():
            unused = leaf(2).tanh()
        assert unused.shape == (2,)


def test_backward_without_a_reader_of_the_loss_runs_no_dead_forward() -> None:
    with counted_kernels("exp", "log") as counts, dg.init(local_mode=True, num_workers=2):
        x, w = dg.shard(dg.from_numpy(np.abs(normal(6, 2)))), leaf(2)
        y = (x * w).sum() + x.log().sum()  # the logarithm has no gradient and nobody reads the sum
        y.backward()
        del y
        assert np.allclose(w.grad.numpy(), np.abs(normal(6, 2)).sum(0))
        assert not counts


def test_values_that_a_later_backward_needs_are_kept() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x, w = dg.shard(dg.from_numpy(normal(7, 2))), leaf(2)
        y = (x * w).sin()
        total = (y * y).sum()
        del y
        dg.synchronize()
        assert total.item() > 0
        total.backward()
        np.testing.assert_allclose(
            w.grad.numpy(), (np.sin(2 * normal(7, 2) * normal(2)) * normal(7, 2)).sum(0), rtol=1e-10
        )


# Frees ------------------------------------------------------------------------------------------------------


def test_every_register_is_freed_after_its_last_use() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x, w = dg.shard(dg.from_numpy(normal(7, 3))), leaf(3, 2)
        loss = ((x @ w).tanh() ** 2).mean()
        loss.backward()
        dg.synchronize()
        program = last_program()
    alive = set(range(len(program.inputs) + program.numbers))
    last_use = {}
    for position, instruction in enumerate(program.instructions):
        assert set(instruction.ins) <= alive
        alive |= set(instruction.outs)
        for register in (*instruction.ins, *instruction.outs):
            last_use[register] = position
        alive -= set(instruction.free)
    freed = {r: p for p, i in enumerate(program.instructions) for r in i.free}
    assert freed == {r: p for r, p in last_use.items() if r not in program.outputs}
    assert alive - set(program.outputs) <= set(range(len(program.inputs) + program.numbers)) - set(last_use)


def test_worker_memory_stays_flat() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x, w = dg.shard(dg.from_numpy(normal(9, 3))), leaf(3, 2)
        sizes = []
        for step in range(60):
            loss = ((x @ w).tanh() ** 2).mean()
            w.grad = None
            loss.backward()
            with dg.no_grad():
                w -= 0.1 * w.grad
            if step % 7 == 0:
                with pytest.raises(RuntimeError):
                    (x @ x).sum()
            loss.item()
            sizes.append(tuple(slots()))
        assert len(set(sizes[5:])) == 1
        del loss
        w.grad = None
        assert slots() == [2, 2, 2]  # x and w


def test_freed_tensors_send_nothing_by_themselves() -> None:
    with dg.init(local_mode=True, num_workers=2):
        kept = [dg.shard(dg.from_numpy(normal(4, 2, seed=i))) for i in range(10)]
        assert slots() == [10, 10]
        before = dg.stats().control_messages
        kept.clear()
        assert dg.stats().control_messages == before
        assert slots() == [0, 0]


# Well-formed programs ---------------------------------------------------------------------------------------

META = TensorMeta.of((4, 3), dtypes.float64)
ROWS = Spec.of(META, Shard(0, balanced(4, 2)))
WHOLE = Spec.of(META, REPLICATE)


def _instruction(ins: tuple[int, ...], outs: tuple[int, ...], **options: Any) -> Instruction:
    return Instruction(op_named("mul"), {}, None, ins, outs, (ROWS,) * len(ins), (ROWS,) * len(outs), **options)


def _program(*instructions: Instruction, outputs: tuple[int, ...] = (2,), registers: int = 5) -> Program:
    return Program((ROWS, ROWS), 0, instructions, outputs, registers=registers)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_program(_instruction((0, 4), (2,))), "instruction 0 (mul) reads %4, which is not there"),
        (_program(_instruction((0, 1), (1,))), "instruction 0 (mul) cannot write %1"),
        (_program(_instruction((0, 1), (9,))), "instruction 0 (mul) cannot write %9"),
        (_program(_instruction((0, 1), (2,), free=(2,))), "instruction 0 (mul) cannot free %2"),
        (_program(_instruction((0, 1), (2,), free=(3,))), "instruction 0 (mul) cannot free %3"),
        (
            _program(_instruction((0, 1), (2,), free=(0,)), _instruction((0, 2), (3,))),
            "instruction 1 (mul) reads %0, which is not there",
        ),
        (
            _program(replace(_instruction((0, 1), (2,)), in_specs=(ROWS,))),
            "instruction 0 (mul) has not one spec per register",
        ),
        (_program(_instruction((0, 1), (3,))), "output %2 is not there at the end"),
    ],
)
def test_check_refuses(program: Program, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check(program)
    assert str(caught.value) == message


def test_check_gives_a_good_program_back() -> None:
    program = _program(_instruction((0, 1), (2,), free=(0,)))
    assert check(program) is program


def test_render() -> None:
    gather = Instruction(op_named("redistribute"), {"placement": REPLICATE}, None, (2,), (3,), (ROWS,), (WHOLE,))
    program = Program(
        (ROWS,), 1, (replace(_instruction((0, 1), (2,)), in_specs=(ROWS, float)), gather), (3,), registers=4
    )
    assert str(program).splitlines() == [
        "inputs  %0: float64[4, 3] Shard(0)",
        "numbers %1",
        "%2: float64[4, 3] Shard(0) = mul(%0, %1)",
        "%3: float64[4, 3] Replicate() = redistribute(%2) placement=Replicate()",
        "outputs %3",
    ]
    assert render(program, 2).splitlines()[3].endswith("  # moves 48 bytes per worker")
    assert bytes_moved(gather, 1) == 0
    assert bytes_moved(program.instructions[0], 2) == 0
    assert str(pickle.loads(pickle.dumps(program))) == str(program)


def test_explain() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x, w = dg.shard(dg.from_numpy(normal(4, 3))), dg.replicate(dg.from_numpy(normal(3, 2)))
        y = (x @ w).sum(dim=0)
        unrelated = x.exp()
        before = dg.stats()
        text = dg.explain(y)
        assert dg.stats() == before
        assert text.splitlines() == [
            "inputs  %0: float64[4, 3] Shard(0), %1: float64[3, 2] Replicate()",
            "%2: float64[4, 2] Shard(0) = matmul(%0, %1)",
            "%3: float64[2] Partial('sum') = sum(%2) axis=(0,) keepdims=False",
            "%4: float64[2] Replicate() = redistribute(%3) placement=Replicate()  # moves 16 bytes per worker",
            "outputs %4",
        ]
        y.tolist()
        assert dg.explain(y) == "computed already: float64[2] Replicate(); nothing to run"
        assert unrelated.shape == (4, 3)
        assert dg.explain(dg.ones(2, dtype=dg.float64)).startswith("local: float64[2]") or "full" in dg.explain(
            dg.ones(2)
        )
    assert dg.explain(dg.ones(3)) == "local: float32[3]; computed in this process when its operation was called"


# Errors at the user's line ----------------------------------------------------------------------------------


def test_wrong_shapes_raise_at_once_and_send_nothing() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.from_numpy(normal(4, 3)))
        dg.synchronize()
        before = dg.stats()
        wrong = [
            lambda: x @ x,
            lambda: x + dg.ones(5),
            lambda: x.reshape(5, 5),
            lambda: x.sum(dim=7),
            lambda: x[9],
            lambda: dg.cat([x, x[0]]),
            lambda: x.redistribute(dg.Shard(5)),
            lambda: x.view(-1).t().mm(x),
            lambda: x.redistribute(dg.Shard(0, (0, 1, 2))),
            lambda: dg.nn.functional.cross_entropy(x, x[:, :2].long()),
        ]
        for call in wrong:
            with pytest.raises((RuntimeError, IndexError, ValueError)) as caught:
                call()
            frames = [str(entry.path) for entry in caught.traceback]
            assert frames[1] == __file__  # the lambda's own line, called from this test
            assert not isinstance(caught.value, RemoteOpError)
        assert dg.stats().control_messages == before.control_messages


def _line() -> int:
    return inspect.currentframe().f_back.f_lineno  # type: ignore[union-attr]  # a caller there is


def test_a_failing_op_names_line_worker_and_shapes() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.replicate(dg.from_numpy(normal(5, 2)))
        index = dg.shard(dg.tensor([0, 1, 2, 3, 4, 99]))
        good = x * 2
        bad, line = x[index], _line()
        after = bad.exp().sum()
        independent = (x + 1).sum()
        with pytest.raises(RemoteOpError) as caught:
            after.item()
        error = caught.value
        assert error.worker == 2
        assert error.cause == "IndexError"
        assert error.where == f"{__file__}:{line}"
        assert error.op in str(error)
        assert "(5, 2), (2,)" in str(error)
        assert "99" in str(error)
        assert "Traceback" in error.worker_traceback
        other = pickle.loads(pickle.dumps(error))
        assert str(other) == str(error)
        assert other.where == error.where
        with pytest.raises(RemoteOpError, match="failed on worker 2 of 3"):
            bad.numpy()
        np.testing.assert_allclose(good.numpy(), normal(5, 2) * 2)
        np.testing.assert_allclose(independent.item(), (normal(5, 2) + 1).sum())


def test_only_dependents_are_lost() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x, w, u = dg.shard(dg.from_numpy(normal(4, 2))), leaf(2), leaf(2, seed=1)
        index = dg.shard(dg.tensor([0, 1, 7, 0]))  # 7 is out of range, on worker 1 alone
        lost = (w[None].expand(3, 2)[index] * x).sum()
        kept = (x * u).sum()
        (lost + kept).backward()  # u's gradient does not depend on the lost rows, though it shares their bucket
        with pytest.raises(RemoteOpError):
            lost.item()
        np.testing.assert_allclose(kept.item(), (normal(4, 2) * normal(2, seed=1)).sum())
        np.testing.assert_allclose(u.grad.numpy(), normal(4, 2).sum(0))
        with pytest.raises(RemoteOpError):
            w.grad.numpy()
        with pytest.raises(RemoteOpError):  # what is recorded from a lost value later is lost too
            (w.grad * 2 + u).sum().item()
        w.grad = u.grad = None
        for _ in range(3):  # the same program goes on working
            (x * w * u).sum().backward()
        np.testing.assert_allclose(w.grad.numpy(), 3 * (normal(4, 2) * normal(2, seed=1)).sum(0))


def test_the_session_goes_on_after_failures_in_many_steps() -> None:
    with dg.init(local_mode=True, num_workers=3):
        table, w = dg.replicate(dg.from_numpy(normal(5, 2))), leaf(2)
        sizes, failed = [], 0
        for step in range(30):
            rows = [0, 1, 2, 3, 4 if step % 3 else 50, 0]
            loss = (table[dg.shard(dg.tensor(rows))] * w).sum()
            try:
                loss.item()
            except RemoteOpError:
                failed += 1
            else:
                np.testing.assert_allclose(loss.item(), (normal(5, 2)[rows] * normal(2)).sum())
            del loss
            sizes.append(tuple(slots()))
        assert failed == 10
        assert len(set(sizes[2:])) == 1


def test_an_update_that_failed_is_visible_only_where_it_was_lost() -> None:
    with dg.init(local_mode=True, num_workers=2):
        a, b = leaf(3), leaf(3, seed=1)
        a, b = (dg.replicate(t.detach()) for t in (a, b))
        index = dg.shard(dg.tensor([0, 1, 2, 17]))
        a.add_(a[index].sum())
        b.add_(1)
        np.testing.assert_allclose(b.numpy(), normal(3, seed=1) + 1)
        with pytest.raises(RemoteOpError):
            a.numpy()
        a.copy_(b)  # overwritten, it is whole again
        np.testing.assert_allclose(a.numpy(), normal(3, seed=1) + 1)


def test_failures_nobody_read_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="distgrad"), dg.init(local_mode=True, num_workers=2):
        x = dg.replicate(dg.from_numpy(normal(5, 2)))
        bad, line = x[dg.shard(dg.tensor([0, 99]))], _line()
        dg.synchronize()
        assert bad.shape == (2, 2)
    assert f"{__file__}:{line}" in caplog.text
