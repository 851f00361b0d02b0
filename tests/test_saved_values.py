"""What the local engine saves and computes: only what a rule needs, and nothing twice."""

from __future__ import annotations

import collections
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.op import OPS


def leaf(*shape: int, seed: int = 0) -> Any:
    return dg.tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


@contextmanager
def counted_kernels() -> Iterator[collections.Counter[str]]:
    """Counts kernel calls by op while entered."""
    counts: collections.Counter[str] = collections.Counter()
    before = {}

    def wrap(name: str, kernel: Any) -> Any:
        def counted(*args: Any, **attrs: Any) -> Any:
            counts[name] += 1
            return kernel(*args, **attrs)

        return counted

    for name, op in OPS.items():
        before[name] = op.kernel
        op.kernel = wrap(name, op.kernel)
    try:
        yield counts
    finally:
        for name, kernel in before.items():
            OPS[name].kernel = kernel


def test_diamonds_are_walked_once() -> None:
    depth = 60
    x = dg.ones((), dtype=dg.float64, requires_grad=True)
    y = x
    for _ in range(depth):
        y = (y + y) * 0.5
    with counted_kernels() as counts:
        y.backward()
    assert x.grad.item() == 1.0
    assert sum(counts.values()) <= 3 * depth + 2


# What is saved and what is computed -------------------------------------------------------------------------


def _survivors(build: Any) -> dict[str, bool]:
    """Builds {name: tensor} and the result; says which arrays the result's graph keeps once the tensors are gone."""
    named, result = build()
    arrays = {name: weakref.ref(t._node.data) for name, t in named.items()}
    fn = result._fn
    named.clear()
    del result, named
    gc.collect()
    alive = {name: r() is not None for name, r in arrays.items()}
    del fn
    return alive


def _fresh(seed: int = 0) -> Any:
    return dg.from_numpy(np.random.default_rng(seed).standard_normal(100).copy())


def _grown(seed: int = 0) -> Any:
    """A tensor that needs a gradient and whose own history holds no array."""
    return _fresh(seed).requires_grad_() + 1.0


def test_exp_saves_its_output_only() -> None:
    def build() -> Any:
        x = _grown()
        y = x.exp()
        return {"x": x, "y": y}, y

    assert _survivors(build) == {"x": False, "y": True}


def test_add_saves_nothing() -> None:
    def build() -> Any:
        x, z = _grown(), _grown(1)
        y = x + z
        return {"x": x, "z": z, "y": y}, y

    assert _survivors(build) == {"x": False, "z": False, "y": False}


def test_mul_saves_the_other_factor() -> None:
    def build() -> Any:
        x, z = _grown(), _fresh(1)
        y = x * z
        return {"x": x, "z": z, "y": y}, y

    assert _survivors(build) == {"x": False, "z": True, "y": False}


def test_sin_saves_its_input_and_relu_one_of_two() -> None:
    def build_sin() -> Any:
        x = _grown()
        y = x.sin()
        return {"x": x, "y": y}, y

    def build_relu() -> Any:
        x = _grown()
        y = x.relu()
        return {"x": x, "y": y}, y

    assert _survivors(build_sin) == {"x": True, "y": False}
    assert sum(_survivors(build_relu).values()) == 1


def test_movement_and_sums_save_nothing() -> None:
    for move in (
        lambda x: x.sum(),
        lambda x: x.reshape(10, 10).transpose(0, 1),
        lambda x: x[3:7],
        lambda x: x.mean(),
        lambda x: dg.cat([x, x]),
        lambda x: -x,
        lambda x: x * 2.0,
        lambda x: x.expand(3, 100),
        lambda x: x.cumsum(0),
    ):

        def build(move: Any = move) -> Any:
            x = _grown() * 1.0  # the view ops keep what they read; an owner that is gone must not be kept by the graph
            y = move(x)
            return {"x": x}, y

        named = build()
        history = weakref.ref(named[0]["x"]._node.data)
        fn = named[1]._fn
        del named
        gc.collect()
        assert history() is None, move(_fresh())
        del fn


def test_matmul_saves_only_what_its_needed_rules_use() -> None:
    def build() -> Any:
        x, w = dg.from_numpy(np.ones((10, 10))), dg.from_numpy(np.ones((10, 10))).requires_grad_() + 0.0
        y = x @ w
        return {"x": x, "w": w, "y": y}, y

    assert _survivors(build) == {"x": True, "w": False, "y": False}


def test_saved_values_go_after_backward() -> None:
    x = _grown()
    y = x.sin()
    array = weakref.ref(x._node.data)
    y.sum().backward()
    del x
    gc.collect()
    assert array() is None
    assert y.shape == (100,)


def test_nothing_is_saved_without_gradients() -> None:
    x = _fresh()
    array = weakref.ref(x._node.data)
    y = x.sin() * x.exp()
    with dg.no_grad():
        z = _grown().sin()
    del x
    gc.collect()
    assert array() is None
    assert y._fn is None
    assert z._fn is None


def test_forward_runs_one_kernel_per_op_and_backward_runs_no_forward_again() -> None:
    x, w = leaf(6, 5), leaf(5, 4, seed=1)
    with counted_kernels() as counts:
        loss = ((x @ w).exp().tanh() + 1.0).log().sum()
    assert counts == {"matmul": 1, "exp": 1, "tanh": 1, "add": 1, "log": 1, "sum": 1}
    with counted_kernels() as counts:
        loss.backward()
    for name in ("exp", "tanh", "log"):
        assert name not in counts
    assert counts["matmul"] == 2  # one per operand that needs a gradient


def test_backward_computes_only_the_cotangents_that_are_needed() -> None:
    x, w = leaf(6, 5), leaf(5, 4, seed=1)
    with counted_kernels() as counts:
        (x.detach() @ w).sum().backward()
    assert counts["matmul"] == 2  # the product and the gradient of w
    y = (x @ w).exp()
    z = (x * 2).sin()
    total = y.sum() + z.sum()
    with counted_kernels() as counts:
        dg.autograd.grad(total, w)
    assert "cos" not in counts
    assert counts["matmul"] == 1


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "layer_norm", "cross_entropy", "gelu", "std", "logsumexp"])
def test_fused_rules_do_not_repeat_their_forward(name: str) -> None:
    x = leaf(6, 5)
    F = dg.nn.functional
    calls = {
        "softmax": lambda: F.softmax(x, dim=1),
        "log_softmax": lambda: F.log_softmax(x, dim=1),
        "layer_norm": lambda: F.layer_norm(x, (5,)),
        "gelu": lambda: F.gelu(x),
        "std": lambda: x.std(dim=1),
        "cross_entropy": lambda: F.cross_entropy(x, dg.tensor([0, 1, 2, 3, 4, 0])),
        "logsumexp": lambda: x.logsumexp(1),
    }
    with counted_kernels() as forward:
        y = calls[name]()
    y = y.sum()
    with counted_kernels() as backward:
        y.backward()
    arithmetic = {
        "add",
        "sub",
        "mul",
        "div",
        "neg",
        "sum",
        "reshape",
        "expand",
        "cast",
        "full",
        "pow",
        "matmul",
        "mean",
    }
    assert not (set(forward) & set(backward)) - arithmetic
