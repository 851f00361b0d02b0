"""Results of large local ops that only their expression knows: the next operator takes their memory, and nobody notices."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad import temporaries, writing

COUNT = temporaries.LEAST_BYTES // 4


@pytest.fixture
def x() -> dg.Tensor:
    return dg.from_numpy(np.linspace(0.5, 2.0, COUNT, dtype=np.float32)).clone()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """True for each time that an op was computed over an operand."""
    times: list[bool] = []
    inner = writing.leave

    def watched(state: Any) -> None:
        times.append(True)
        inner(state)

    monkeypatch.setattr(writing, "leave", watched)
    return times


def _less_a_row(x: Any) -> Any:
    row = x[1]
    return x * 3 - row


FORMULAS: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "left": (1, lambda x: x * x + x),
    "right": (1, lambda x: x - x * x),
    "number on the left": (1, lambda x: 3 - x * x),
    "number on the right": (1, lambda x: x * x / 2),
    "numbers": (2, lambda x: 0.5 * x + 1 - x),
    "horner": (3, lambda x: (x * 0.5 + 1) * x + 2),
    "square": (2, lambda x: x**2 + 3 * x + 1),
    "two temporaries": (1, lambda x: x * x + x / 3),
    "row": (1, lambda x: _less_a_row(x.reshape(64, -1))),
    "negative": (1, lambda x: -x * x),
    "in place": (0, lambda x: x * x),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_take_the_memory_and_give_what_numpy_gives(name: str, x: dg.Tensor, written: list[bool]) -> None:
    times, formula = FORMULAS[name]
    before = x.numpy().copy()
    np.testing.assert_array_equal(formula(x).numpy(), formula(before))
    assert written == [True] * times
    np.testing.assert_array_equal(x.numpy(), before)


def test_what_a_function_gave_is_a_temporary_too(x: dg.Tensor, written: list[bool]) -> None:
    twice = x * 2
    keep = twice.numpy().copy()
    np.testing.assert_array_equal((dg.relu(x) + x).numpy(), keep)
    np.testing.assert_array_equal((x + x.clone()).numpy(), keep)
    assert written == [True] * 2
    np.testing.assert_array_equal((twice.detach() + x).numpy(), keep + x.numpy())  # gives another one's memory
    assert written == [True] * 2
    np.testing.assert_array_equal(twice.numpy(), keep)


def test_a_result_with_another_name_is_left_alone(x: dg.Tensor, written: list[bool]) -> None:
    product = x * x
    kept = product.numpy().copy()
    total = product + 1
    held = [x * x]
    again = held[0] + 1
    walrus = (named := x * x) + 1
    for value in (total, again, walrus):
        np.testing.assert_array_equal(value.numpy(), kept + 1)
    for value in (product, held[0], named):
        np.testing.assert_array_equal(value.numpy(), kept)
    assert written == []


def test_operators_that_are_called_from_c_leave_their_operands_alone(x: dg.Tensor, written: list[bool]) -> None:
    expected = x.numpy() * x.numpy()
    box = np.empty(1, object)
    box[0] = x * x  # known to the array alone, as a temporary is to its expression
    more = box + 1
    np.testing.assert_array_equal(box[0].numpy(), expected)
    np.testing.assert_array_equal(more[0].numpy(), expected + 1)
    total = functools.reduce(operator.add, (x * x, x * x, x * x))
    np.testing.assert_allclose(total.numpy(), 3 * expected, rtol=1e-6)
    product = (x * x).__add__(x)
    np.testing.assert_array_equal(product.numpy(), expected + x.numpy())
    assert written == []


def test_branches_and_generators_leave_what_another_way_may_have_brought(x: dg.Tensor, written: list[bool]) -> None:
    def products() -> Iterator[dg.Tensor]:
        while True:
            yield x * x

    expected = x.numpy() * x.numpy()
    for chosen in (True, False):
        value = (x * x if chosen else x) + 1
        np.testing.assert_array_equal(value.numpy(), (expected if chosen else x.numpy()) + 1)
        value = (x if chosen else x * x) + 1
        np.testing.assert_array_equal(value.numpy(), (x.numpy() if chosen else expected) + 1)
    source = products()
    np.testing.assert_array_equal((next(source) + 1).numpy(), expected + 1)
    assert written == []


def test_what_a_gradient_needs_is_left_alone(x: dg.Tensor, written: list[bool]) -> None:
    leaf = x.clone().requires_grad_()
    y = (leaf * leaf) * (leaf * leaf)
    y.sum().backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(leaf.grad.numpy(), 4 * x.numpy() ** 3, rtol=1e-6)
    z = (x * x) * leaf  # x * x needs no gradient, but leaf's does need x * x
    z.sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), 4 * x.numpy() ** 3 + x.numpy() ** 2, rtol=1e-6)
    assert written == []
    with dg.no_grad():
        np.testing.assert_array_equal((leaf * leaf + leaf).numpy(), x.numpy() * x.numpy() + x.numpy())
    assert written[-1:] == [True]


@pytest.mark.parametrize("formula", [
    lambda x: x * x > 1,
    lambda x: x * x + x.double(),
    lambda x: x[:1] * 2 + x,
    lambda x: x * x + 1j,
    lambda x: (x > 1) * x,
    lambda x: (x * x).view(2, -1) + 1,
    lambda x: (x * x).reshape(1, -1) + x.reshape(-1, 1)[:3],
])
def test_results_of_another_dtype_or_shape_get_memory_of_their_own(formula: Any, x: dg.Tensor, written: list[bool]) -> None:
    found = formula(x)
    copy = dg.from_numpy(np.array(x.numpy()))
    expected = formula(copy[:]) if found.ndim == 1 else formula(copy)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert written == []


def test_small_results_are_not_remembered() -> None:
    temporaries.made.clear()
    small = dg.ones(10)
    assert float((small * small + small).sum()) == 20.0
    assert not temporaries.made


def test_only_so_many_results_are_remembered(x: dg.Tensor) -> None:
    kept = [x * i for i in range(100)]
    assert len(temporaries.made) <= 16 < len(kept)
