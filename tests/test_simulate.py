"""The model behind `benchmarks/simulate.py`: limits, monotony and numbers calculated by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = str(Path(__file__).resolve().parent.parent / "benchmarks")


@pytest.fixture(scope="module")
def model() -> ModuleType:
    sys.path.insert(0, BENCHMARKS)
    try:
        return importlib.import_module("simulate")
    finally:
        sys.path.remove(BENCHMARKS)


def test_one_worker_does_not_communicate(model: ModuleType) -> None:
    link = model.Link(1e-5, 1e-9)
    assert model.ring(1, 1e6, link) == model.recursive_doubling(1, 1e6, link) == 0
    assert model.hierarchical(1, 1, 1e6, link, link) == model.owners(1, 1, 1e6, link, link) == 0


def test_formulas_equal_hand_calculation(model: ModuleType) -> None:
    link = model.Link(10e-6, 1e-9)
    # 2 * 3 * 10 us + 2 * 3/4 * 1 ms; 2 * (10 us + 1 ms); ceil(log2 5) = 3.
    assert model.ring(4, 1e6, link) == pytest.approx(60e-6 + 1.5e-3)
    assert model.recursive_doubling(4, 1e6, link) == pytest.approx(2 * 1.01e-3)
    assert model.recursive_doubling(5, 1e6, link) == pytest.approx(3 * 1.01e-3)
    near = model.Link(1e-6, 1e-10)
    # Within: 2 * 1 us + 2 * 1/2 * 0.1 ms; between 4 nodes: as above.
    assert model.hierarchical(4, 2, 1e6, near, link) == pytest.approx(102e-6 + 1560e-6)
    # 8 workers own 125 kB each: 2 messages of 12.5 us and 1 us near, 2 * 6 far of 10 us and 2 * 125 us.
    assert model.owners(4, 2, 1e6, near, link) == pytest.approx(2 * 13.5e-6 + 12 * 260e-6)
    # One worker a node: the same as the ring.
    assert model.owners(4, 1, 1e6, near, link) == pytest.approx(model.ring(4, 1e6, link))
    assert model.chain(4, 1, 1e6, near, link) == model.owners(4, 1, 1e6, near, link)
    # 16 MB over 2 nodes in blocks of sqrt(16e6 * 500e3 / 4) bytes: 12 blocks, 15 rounds; within: 2 us + 1.6 ms.
    assert model.chain(2, 2, 16e6, near, link) == pytest.approx(1.602e-3 + 15 * (10e-6 + 16e6 / 12 * 1e-9))


def test_costs_grow_with_workers_bytes_and_slower_links(model: ModuleType) -> None:
    fast, slow = model.Link(1e-6, 1e-10), model.Link(1e-5, 1e-9)
    for function in (model.ring, model.recursive_doubling):
        times = [function(workers, 1e6, slow) for workers in range(1, 70)]
        assert times == sorted(times)
        assert function(8, 1e6, slow) < function(8, 2e6, slow)
        assert function(8, 1e6, fast) < function(8, 1e6, slow)
    assert model.hierarchical(4, 16, 1e6, fast, slow) < model.owners(4, 16, 1e6, fast, slow)
    assert model.chain(4, 16, 16e6, fast, slow) < model.owners(4, 16, 16e6, fast, slow)


def test_workers_beyond_the_cores_take_turns(model: ModuleType) -> None:
    costs = model.Costs(1e-3, 1e-5, 0.0, 0.0, 0.0)
    assert model.worker_seconds(costs, 1, 100, 2) == model.worker_seconds(costs, 2, 100, 2) == pytest.approx(2e-3)
    assert model.worker_seconds(costs, 8, 100, 2) == pytest.approx(8e-3)


def test_the_driver_runs_ahead_unless_values_are_read(model: ModuleType) -> None:
    assert model.step_seconds(3.0, 1.0, 2.0) == 4.0
    assert model.step_seconds(3.0, 1.0, 5.0) == 5.0
    assert model.step_seconds(3.0, 1.0, 2.0, reads=True) == 6.0


def test_the_driver_talks_to_one_worker_of_a_node_with_several(model: ModuleType) -> None:
    assert model.messages(64, 16, 4) == 64
    assert model.messages(64, 2, 4) == 128


def test_fit_finds_what_made_the_numbers_and_nothing_negative(model: ModuleType) -> None:
    sizes = [4e3, 1e6, 64e6]
    columns = [[1.0] * 3, sizes]
    assert model.fit(columns, [2e-4 + 3e-10 * size for size in sizes]) == pytest.approx([2e-4, 3e-10])
    fixed, rate = model.fit([[1.0, 1.0], [1.0, 2.0]], [1.0, 3.0])
    assert fixed >= 0 and rate > 0


def test_predictions_scale_as_their_parts_say(model: ModuleType) -> None:
    costs = model.Costs(1e-3, 1e-4, 2e-4, 1e-5, 1e-7)
    near, far = model.Link(1e-6, 1e-10), model.Link(2e-5, 1e-9)
    rows = model.predictions(costs, near, far, 16, 65_536, 512, 4)
    assert [row["workers"] for row in rows] == [16 << n for n in range(9)]
    driver = [0.2 + 0.01 * row["nodes"] + 1e-4 * row["workers"] for row in rows]
    assert [row["driver_ms"] for row in rows] == pytest.approx(driver)
    weak = [row["weak_hierarchical_ms"] for row in rows]
    assert weak == sorted(weak)
    assert all(row["strong_chain_eff"] <= 1 for row in rows)
