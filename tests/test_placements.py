"""Every op row on every placement of its inputs, on 1, 2, 3 and 5 simulated workers with uneven and empty shards,
against the same op without a session: values, gradients and double gradients."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_db import Array, OpRow, all_rows
from oracle import assert_same, evaluate

import distgrad as dg

ROWS = [pytest.param(row, id=row.name) for row in all_rows()]
CASES_PER_SAMPLE = 12  # of all combinations, drawn from a generator seeded by the row's name


def _placements(value: Any, workers: int, generator: random.Random) -> list[Any]:
    if not isinstance(value, np.ndarray):
        return [None]
    found: list[Any] = ["local", dg.Replicate()]
    if value.dtype.kind == "f":
        found.append(dg.Partial("sum"))
    for dim in range(value.ndim):
        rows = value.shape[dim]
        cuts = sorted(generator.randint(0, rows) for _ in range(workers - 1))
        found += [dg.Shard(dim), dg.Shard(dim, (0, *cuts, rows))]
    return found


def _cases(row: OpRow, workers: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    for index in range(len(row.samples)):
        generator = random.Random(zlib.crc32(f"{row.name}/{index}/{workers}".encode()))
        choices = [_placements(v, workers, generator) for v in row.inputs(index)]
        every = list(itertools.islice(itertools.product(*choices), 5000))
        for case in generator.sample(every, min(len(every), CASES_PER_SAMPLE)):
            yield index, case


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("row", ROWS)
def test_every_placement(row: OpRow, workers: int) -> None:
    expected: dict[int, dict[str, list[Any]]] = {}
    marks = {
        i: [isinstance(a, Array) and a.differentiable and row.grad for a in sample]
        for i, sample in enumerate(row.samples)
    }
    order = 2 if row.gradgrad else 1 if row.grad else 0
    for index in range(len(row.samples)):
        expected[index] = evaluate(dg, row.call, row.inputs(index), marks[index], order=order)
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for index, case in _cases(row, workers):
            found = evaluate(
                dg, row.call, row.inputs(index), marks[index], order=order,
                place=lambda t, i, case=case: t if isinstance(case[i], str) else t.redistribute(case[i]),
            )
            try:
                assert_same(found, expected[index], rtol=1e-10, atol=1e-12)
            except AssertionError as error:
                raise AssertionError(f"sample {index} with placements {case} on {workers} workers: {error}") from None
