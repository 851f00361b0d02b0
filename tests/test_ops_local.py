"""Every op row against torch: values, dtypes, shapes, gradients and double gradients, in float64 and float32."""

from __future__ import annotations

import numpy as np
import pytest
from op_db import Array, OpRow, all_rows
from oracle import assert_same, evaluate

import distgrad

torch = pytest.importorskip("torch")
CASES = [pytest.param(row, i, id=f"{row.name}-{i}") for row in all_rows() for i in range(len(row.samples))]


def _marks(row: OpRow, index: int) -> list[bool]:
    return [isinstance(a, Array) and a.differentiable and row.grad for a in row.samples[index]]


@pytest.mark.parametrize(("row", "index"), CASES)
def test_equals_torch(row: OpRow, index: int) -> None:
    inputs, marks = row.inputs(index), _marks(row, index)
    order = 2 if row.gradgrad else 1 if row.grad else 0
    ours = evaluate(distgrad, row.call, inputs, marks, order=order)
    theirs = evaluate(torch, row.call, inputs, marks, order=order)
    assert_same(ours, theirs, rtol=1e-7, atol=1e-7)
    assert ours.get("differentiable") == theirs.get("differentiable")


@pytest.mark.parametrize(("row", "index"), [c for c in CASES if c.values[0].float32 and c.values[1] == 0])
def test_equals_torch_in_float32(row: OpRow, index: int) -> None:
    inputs = [
        v.astype(np.float32) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v for v in row.inputs(index)
    ]
    marks = _marks(row, index)
    order = 1 if row.grad else 0
    ours = evaluate(distgrad, row.call, inputs, marks, order=order)
    theirs = evaluate(torch, row.call, inputs, marks, order=order)
    assert_same(ours, theirs, rtol=1.3e-5, atol=1e-5)
