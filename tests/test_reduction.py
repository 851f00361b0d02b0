"""Reductions beyond the op rows: accuracy of long sums, memory orders, results with names, errors."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops import reduction


@pytest.mark.parametrize(("shape", "axis"), [
    ((30_000, 3), (0,)), ((3, 30_000), (1,)), ((7, 5_000, 3), (1,)), ((64, 8, 9, 9), (0, 2, 3)), ((50_001,), (0,)),
    ((20, 300, 5), (0, 2)), ((5, 6, 200), ()),
])
@pytest.mark.parametrize("order", ["C", "F", "strided", "broadcast"])
def test_long_float32_sums_stay_exact(shape: tuple[int, ...], axis: tuple[int, ...], order: str) -> None:
    x = np.random.default_rng(3).random(shape, dtype=np.float32) + 1
    if order == "F":
        x = np.asfortranarray(x)
    elif order == "strided":
        x = np.repeat(x, 2, -1)[..., ::2]
    elif order == "broadcast":
        x = np.broadcast_to(x[:1], shape)
    exact = x.astype(np.float64)
    for keepdims in (False, True):
        total = reduction.sum.kernel(x, axis=axis, keepdims=keepdims)
        assert total.dtype == np.float32
        np.testing.assert_allclose(total, exact.sum(axis, keepdims=keepdims), rtol=1.3e-6)
        np.testing.assert_allclose(
            reduction.mean.kernel(x, axis=axis, keepdims=keepdims), exact.mean(axis, keepdims=keepdims), rtol=1.3e-6
        )


def test_halves_accumulate_in_float32() -> None:
    ones = dg.ones(5000, dtype=dg.float16)
    assert ones.sum().item() == 5000.0  # one by one, float16 would stop at 2048
    assert (ones * 60_000).mean().item() == 60_000.0 - 60_000.0 % 32


@pytest.mark.parametrize(("op", "identity"), [(reduction.amax, -np.inf), (reduction.amin, np.inf), (reduction.sum, 0),
                                              (reduction.prod, 1)])
def test_an_empty_shard_gives_the_identity(op: Any, identity: float) -> None:
    assert op.kernel(np.empty((0, 2)), axis=(0,), keepdims=False).tolist() == [identity, identity]


def test_named_results_print_as_torch_prints_and_pickle() -> None:
    found = dg.max(dg.tensor([[1.0, 5.0], [3.0, 2.0]]), 1)
    assert repr(found) == "torch.return_types.max(\nvalues=tensor([5., 3.]),\nindices=tensor([1, 0]))"
    values, indices = found
    assert values is found.values
    assert indices is found.indices
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is type(found)
    assert again.indices.tolist() == [1, 0]


def test_a_norm_of_zeros_has_gradient_zero() -> None:
    for p in (1, 2, 3, 0.5, float("inf")):
        x = dg.zeros(3, requires_grad=True)
        dg.norm(x, p).backward()
        assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_second_derivatives_of_a_product_with_zeros() -> None:
    values = [0.0, 2.0, 0.0, 3.0]
    x = dg.tensor(values, dtype=dg.float64, requires_grad=True)
    (first,) = dg.autograd.grad(x.prod(), [x], create_graph=True)
    rows = [dg.autograd.grad(first, [x], dg.eye(4, dtype=dg.float64).select(0, i), retain_graph=True)[0].tolist()
            for i in range(4)]
    others = [
        [0.0 if i == j else float(np.prod([v for k, v in enumerate(values) if k not in (i, j)])) for j in range(4)]
        for i in range(4)
    ]
    assert rows == others


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda x: dg.arange(3).mean(), RuntimeError, "could not infer output dtype.* Long"),
    (lambda x: dg.var(dg.arange(3)), RuntimeError, "only support floating point"),
    (lambda x: x.sum((0, 0)), RuntimeError, "multiple times"),
    (lambda x: x.sum(2), IndexError, "Dimension out of range"),
    (lambda x: dg.zeros(0).max(), RuntimeError, "Specify the reduction dim"),
    (lambda x: dg.zeros(0, 3).max(0), IndexError, "non-zero size"),
    (lambda x: dg.zeros(0, 3).amax(0), IndexError, "non-zero size"),
    (lambda x: (x > 2).argmax(), RuntimeError, "bool"),
    (lambda x: x.sum(0, dim=0, axis=0), TypeError, "give one of them"),
    (lambda x: x.prod((0, 1)), TypeError, "dim must be an int"),
    (lambda x: dg.norm(dg.arange(3)), RuntimeError, "floating point or complex"),
])
def test_wrong_arguments_raise_what_torch_raises(call: Callable[[Any], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call(dg.arange(6.0).reshape(2, 3))
