"""`testing.assert_close` accepts and refuses what torch.testing.assert_close does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import distgrad as dg

torch = pytest.importorskip("torch")

CASES: list[Callable[[Any, Any], None]] = [
    lambda T, c: c(T.ones(2), T.ones(2)),
    lambda T, c: c(T.ones(2), T.ones(2) + 1e-6),
    lambda T, c: c(T.ones(2), T.ones(2) + 1e-4),
    lambda T, c: c(T.ones(2, dtype=T.float64), T.ones(2, dtype=T.float64) + 1e-6),
    lambda T, c: c(T.ones(2, dtype=T.float64), T.ones(2, dtype=T.float64) + 1e-8),
    lambda T, c: c(T.ones(2, dtype=T.float16), T.ones(2, dtype=T.float16) + 1e-3),
    lambda T, c: c(T.ones(2, dtype=T.bfloat16), T.ones(2, dtype=T.bfloat16) + 1e-2),
    lambda T, c: c(T.ones(2), T.ones(2) * 1.1, rtol=0.2, atol=0.0),
    lambda T, c: c(T.ones(2), T.ones(2), rtol=0.2),
    lambda T, c: c(T.ones(2), T.ones(2, dtype=T.float64)),
    lambda T, c: c(T.ones(2), T.ones(2, dtype=T.float64), check_dtype=False),
    lambda T, c: c(T.ones(2), T.ones(1, 2)),
    lambda T, c: c(T.tensor([1, 2]), T.tensor([1, 3])),
    lambda T, c: c(T.tensor([1, 2]), T.tensor([1, 3]), rtol=0.0, atol=1.0),
    lambda T, c: c(T.tensor([True]), T.tensor([False])),
    lambda T, c: c(T.tensor([float("nan")]), T.tensor([float("nan")])),
    lambda T, c: c(T.tensor([float("nan")]), T.tensor([float("nan")]), equal_nan=True),
    lambda T, c: c(T.tensor([float("inf")]), T.tensor([float("inf")])),
    lambda T, c: c(T.tensor([float("inf")]), T.tensor([1.0])),
    lambda T, c: c(T.tensor([1j]), T.tensor([1j + 1e-7])),
    lambda T, c: c(T.zeros(0, 2), T.zeros(0, 2)),
    lambda T, c: c([T.ones(1), 2.0], [T.ones(1), 2.0 + 1e-9]),
    lambda T, c: c([T.ones(1)], [T.ones(1), T.ones(1)]),
    lambda T, c: c({"a": T.ones(1)}, {"a": T.ones(1)}),
    lambda T, c: c({"a": T.ones(1)}, {"b": T.ones(1)}),
    lambda T, c: c({"a": (T.ones(1),)}, {"a": (T.zeros(1),)}),
    lambda T, c: c(None, None),
    lambda T, c: c(None, T.ones(1)),
    lambda T, c: c(1, 1.0),
    lambda T, c: c(1.0, 1.1),
    lambda T, c: c("a", "a"),
    lambda T, c: c(T.ones(2, requires_grad=True), T.ones(2)),
]


def _outcome(call: Callable[[], None]) -> type[BaseException] | None:
    try:
        call()
    except Exception as error:  # what torch raises is the expectation
        return type(error)
    return None


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_same_verdict_as_pytorch(number: int) -> None:
    ours = _outcome(lambda: CASES[number](dg, dg.testing.assert_close))
    assert ours is _outcome(lambda: CASES[number](torch, torch.testing.assert_close))


def test_a_failure_says_where_and_how_much() -> None:
    actual, expected = dg.tensor([[1.0, 2.0], [3.0, 4.0]]), dg.tensor([[1.0, 2.0], [3.0, 5.0]])
    with pytest.raises(AssertionError) as ours:
        dg.testing.assert_close({"w": actual}, {"w": expected})
    with pytest.raises(AssertionError) as theirs:
        torch.testing.assert_close({"w": torch.tensor(actual.tolist())}, {"w": torch.tensor(expected.tolist())})
    assert str(ours.value) == str(theirs.value)
    with pytest.raises(AssertionError, match=r"^mine$"):
        dg.testing.assert_close(actual, expected, msg="mine")
    with pytest.raises(AssertionError, match=r"^2 elements: Tensor-likes"):
        dg.testing.assert_close(actual, expected, msg=lambda text: f"2 elements: {text}")


def test_sharded_tensors_are_compared_by_value() -> None:
    x = dg.arange(7.0)
    with dg.init(num_workers=3, local_mode=True):
        dg.testing.assert_close(dg.shard(x), x)
        with pytest.raises(AssertionError, match="1 / 7"):
            dg.testing.assert_close(dg.shard(x), dg.where(x == 3, -1.0, x))


def test_allclose_ignores_dtypes() -> None:
    dg.testing.assert_allclose(dg.ones(2, dtype=dg.float64), [1, 1])
    with pytest.raises(AssertionError):
        dg.testing.assert_allclose(dg.ones(2), [1, 2])
