"""Random programs give the same values, gradients and double gradients for any number of workers and any placements."""

from __future__ import annotations

import random
from typing import Any

import pytest
from random_programs import Generator, Outcome, Program, compare, evaluate, well_conditioned

import distgrad as dg
from distgrad.runtime import coordinator

WORKERS = pytest.mark.parametrize("workers", [1, 2, 3, 5, 8])


def programs(seeds: range, dtype: str = "float64", order: int = 2, **options: Any) -> list[tuple[Program, Outcome]]:
    """Makes programs and what they give without a session."""
    made = [Generator(seed, dtype, **options).build() for seed in seeds]
    known = [(program, evaluate(program, order=order)) for program in made]
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    kept = [(program, outcome) for program, outcome in known if well_conditioned(program, outcome, tolerance, order)]
    assert len(kept) > 0.6 * len(made)
    return kept


def placements(seed: int, workers: int) -> Any:
    """Gives a function that places each leaf at random: sharded unevenly on any dim, whole, in parts, or local."""
    choice = random.Random(seed)

    def place(tensor: Any, position: int) -> Any:
        dim = choice.randrange(tensor.ndim)
        rows = tensor.shape[dim]
        cuts = sorted(choice.randint(0, rows) for _ in range(workers - 1))
        placement = choice.choice(
            [
                None,
                dg.Replicate(),
                dg.Partial("sum"),
                dg.Shard(0),
                dg.Shard(dim),
                dg.Shard(dim, (0, *cuts, rows)),
                dg.Shard(0, (0, *(0,) * (workers - 1), tensor.shape[0])),
            ]
        )
        return tensor if placement is None else tensor.redistribute(placement)

    return place


@WORKERS
def test_mixed_placements(workers: int) -> None:
    known = programs(range(100 * workers, 100 * workers + 35))
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for program, expected in known:
            found = evaluate(program, placements(program.seed, workers))
            compare(found, expected, 1e-12, program, f"{workers} workers")


@WORKERS
def test_all_data_sharded_on_rows(workers: int) -> None:
    known = programs(range(2000 + 100 * workers, 2000 + 100 * workers + 20))
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=0):
        for program, expected in known:
            found = evaluate(program, lambda t, i: dg.shard(t) if i != 2 else t)
            compare(found, expected, 1e-12, program, f"{workers} workers, threshold 0")


@WORKERS
def test_float32(workers: int) -> None:
    known = programs(range(4000 + 100 * workers, 4000 + 100 * workers + 10), dtype="float32", order=1)
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for program, expected in known:
            found = evaluate(program, placements(program.seed, workers), order=1)
            compare(found, expected, 1e-5, program, f"{workers} workers, float32")


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_flushes_at_any_moment(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pending may be sent after any call; values in parts are then reduced while others are being recorded."""
    monkeypatch.setattr(coordinator, "PENDING_LIMIT", limit)
    known = programs(range(6000 + 10 * limit, 6000 + 10 * limit + 10))
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1 << 30):
        for program, expected in known:
            compare(
                evaluate(program, placements(program.seed, 3)), expected, 1e-12, program, f"flushes after {limit} calls"
            )


@pytest.mark.parametrize("workers", [2, 5])
def test_reading_values_in_between_changes_nothing(workers: int) -> None:
    known = programs(range(7000, 7015))
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for program, expected in known:
            choice = random.Random(program.seed)
            steps = [
                (text, lambda *a, f=f: _read(f(*a)), ins) if choice.random() < 0.2 else (text, f, ins)
                for text, f, ins in program.steps
            ]
            read = Program(program.seed, program.arrays, steps)
            compare(evaluate(read, placements(program.seed, workers)), expected, 1e-12, program, f"{workers} workers")


def _read(value: Any) -> Any:
    value.detach().numpy()
    return value


@WORKERS
def test_random_numbers_do_not_depend_on_the_workers(workers: int) -> None:
    def draws() -> list[Any]:
        dg.manual_seed(11)
        w = dg.nn.Linear(7, 3)
        return [
            dg.randn(5, 3),
            dg.rand(9),
            dg.randint(0, 100, (2, 6)),
            dg.randperm(11),
            dg.randn(0, 3),
            dg.nn.functional.dropout(dg.ones(13, 3), 0.5),
            w.weight,
            w.bias,
            dg.bernoulli(dg.full((7,), 0.3)),
            dg.normal(0.0, 2.0, (6,)),
            dg.rand_like(dg.ones(4, 4)),
            dg.randn(1),
        ]

    expected = [t.detach().numpy() for t in draws()]
    for threshold in (0, 1 << 30):
        with dg.init(local_mode=True, num_workers=workers, shard_threshold=threshold):
            for found, wanted in zip(draws(), expected, strict=True):
                assert (found.detach().numpy() == wanted).all()
