"""Numpy's state around kernels: rows that are not copied give numpy's own bits, and the state is the caller's again."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import dispatch, writing
from distgrad.engine import interpreter
from distgrad.quiet import by_rows, enter_by_rows, leave

SHAPES = {"row": (1, 700), "column": (500, 1), "whole": (500, 700)}
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def drawn(kind: str, dtype: str, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2.0, SHAPES[kind]).astype(dtype)


@pytest.fixture(params=["local", "workers"])
def home(request: pytest.FixtureRequest) -> Any:
    if request.param == "local":
        yield dg.from_numpy
        return
    with dg.init(local_mode=True, num_workers=2):
        yield lambda array: dg.shard(dg.from_numpy(array)) if len(array) > 1 else dg.from_numpy(array)


def test_only_rows_that_numpy_would_copy_are_worked_on_one_by_one() -> None:
    kind = np.dtype("float32")
    assert by_rows(np.add, (500, 700), kind)
    for function, shape, dtype in (
        (np.maximum, (500, 700), kind), (np.add, (500, 10), kind), (np.add, (2, 700), kind), (np.add, (350_000,), kind),
        (np.add, (50, 7000), kind), (np.add, (500, 700), np.dtype("int32")),
    ):
        assert not by_rows(function, shape, dtype)


def test_the_buffer_is_small_only_inside() -> None:
    before = np.getbufsize(), np.geterr()
    token = enter_by_rows()
    try:
        assert np.getbufsize() < 1000
        assert set(np.geterr().values()) == {"ignore"}
    finally:
        leave(token)
    assert (np.getbufsize(), np.geterr()) == before


@pytest.mark.parametrize("module", [dispatch, writing, interpreter])
def test_every_way_to_a_kernel_takes_the_small_buffer(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    def watched() -> Any:
        entered.append(True)
        return enter_by_rows()

    monkeypatch.setattr(module, "enter_by_rows", watched)
    whole, row, thin = drawn("whole", "float32", 0), drawn("row", "float32", 1), np.ones((90_000, 4), np.float32)
    if module is interpreter:
        with dg.init(local_mode=True, num_workers=2):
            (dg.shard(dg.from_numpy(thin)) + 1.0).numpy()
            assert not entered
            (dg.shard(dg.from_numpy(whole)) + dg.from_numpy(row)).numpy()
        assert len(entered) == 2, "once on each worker"
        return
    x, y = dg.from_numpy(whole).clone(), dg.from_numpy(thin).clone()
    if module is writing:
        y += 1.0
        assert not entered
        x += dg.from_numpy(row)
    else:
        y + 1.0
        assert not entered
        x + dg.from_numpy(row)
    assert entered == [True]


@DTYPES
@pytest.mark.parametrize("function", [operator.add, operator.sub, operator.mul, operator.truediv])
@pytest.mark.parametrize("kinds", [("whole", "row"), ("column", "whole"), ("column", "row"), ("whole", "whole")])
def test_repeated_rows_give_numpys_bits(home: Any, function: Callable[..., Any], kinds: tuple[str, str], dtype: str) -> None:
    a, b = drawn(kinds[0], dtype, 0), drawn(kinds[1], dtype, 1)
    before = np.getbufsize(), np.geterr()
    np.testing.assert_array_equal(function(home(a), home(b)).numpy(), function(a, b))
    assert (np.getbufsize(), np.geterr()) == before


@DTYPES
def test_gradients_and_writing_in_place(home: Any, dtype: str) -> None:
    a, b, c = (drawn(kind, dtype, seed) for seed, kind in enumerate(("whole", "row", "column")))
    x, row = home(a).requires_grad_(), home(b).requires_grad_()
    with np.errstate(all="raise"):
        before = np.getbufsize(), np.geterr()
        (x * row * home(c)).sum().backward()
        y = home(a).clone()
        y += home(b)
        y /= home(c)
        assert (np.getbufsize(), np.geterr()) == before
    np.testing.assert_array_equal(x.grad.numpy(), np.ones_like(a) * c * b)
    np.testing.assert_allclose(row.grad.numpy(), (a * c).sum(0, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(y.numpy(), (a + b) / c)
