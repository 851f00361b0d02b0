"""Gradients that are one op when no graph is asked for: equal to the rules' formulas, to the bit, compiled or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.kernels import compiled
from distgrad.op import op_named

KINDS = pytest.mark.parametrize("kind", [np.float32, np.float64], ids=["float32", "float64"])
SIZE = compiled.LEAST
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sqrt": dg.sqrt,
    "reciprocal": dg.reciprocal,
    "quotient": lambda x: 3.0 / x,
    "quotient_of_one": lambda x: x / x.detach() + x.detach() / x,
    "square": dg.square,
    "power": lambda x: x**2,
    "tanh": dg.tanh,
    "abs": dg.abs,
    "clamp": lambda x: x.clamp(-0.5, 2.0),
    "clamp_by_tensor": lambda x: x.clamp(x.detach() * 0.5, x.detach() * 2),
    "sin": dg.sin,
    "cos": dg.cos,
    "product": lambda x: x * x,
    "product_of_aliases": lambda x: x * x.view(x.shape),
}
SLOPES = ("sqrt", "reciprocal", "quotient", "square", "tanh", "clamp", "sin", "cos", "relu", "twice", "abs")


@pytest.fixture(autouse=True)
def compiled_loops() -> Iterator[None]:
    before = dg.are_fused_kernels_enabled()
    dg.set_fused_kernels(True)
    yield
    dg.set_fused_kernels(before)


def numbers(kind: Any, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((3, SIZE)).astype(kind)
    info = np.finfo(kind)
    x[0, :11] = [0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, info.max, -info.max, 2.0, -0.5, info.smallest_subnormal]
    return x


def gradient(function: Callable[[Any], Any], x: np.ndarray, h: np.ndarray, create_graph: bool) -> np.ndarray:
    leaf = dg.tensor(x, requires_grad=True)
    (found,) = dg.autograd.grad(function(leaf), leaf, dg.from_numpy(h), create_graph=create_graph)
    return found.detach().numpy()


@KINDS
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("columns", [SIZE, 7], ids=["large", "small"])
def test_gradients_with_and_without_a_graph_are_equal(name: str, columns: int, kind: Any) -> None:
    x, h = numbers(kind)[:, :columns], numbers(kind, 1)[:, ::-1][:, :columns].copy()
    for cotangent in (h, np.broadcast_to(h[1, :1, None], x.shape), np.broadcast_to(h[2, :columns], x.shape)):
        given, wanted = (gradient(FUNCTIONS[name], x, cotangent, graph) for graph in (False, True))
        assert given.dtype == wanted.dtype == kind
        np.testing.assert_array_equal(given, wanted)


@KINDS
@pytest.mark.parametrize("name", SLOPES)
def test_compiled_slopes_equal_numpys(name: str, kind: Any) -> None:
    x, h = numbers(kind), numbers(kind, 1)
    ins: list[Any] = [np.flip(x, 1).copy(), x] if name == "quotient" else [x]
    if name == "clamp":
        ins += [kind(-0.5), kind(0.7)]
    for cotangent in (h, np.broadcast_to(h[0, 7], h.shape), np.broadcast_to(h[0, 20], h.shape)):
        found: list[np.ndarray] = []
        for on in (True, False):
            dg.set_fused_kernels(on)
            with np.errstate(all="ignore"):
                found.append(op_named("relu_backward" if name == "relu" else f"{name}_slope").kernel(cotangent, *ins))
        assert found[0].dtype == found[1].dtype == kind
        np.testing.assert_array_equal(*found)
        np.testing.assert_array_equal(x, numbers(kind))  # nothing was written to


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "complex64"])
def test_other_dtypes_take_the_same_formulas(kind: str) -> None:
    for name in ("sqrt", "reciprocal", "square", "power", "tanh", "sin", "cos", "abs"):
        leaf = (dg.rand(3, 50) + 0.5).to(getattr(dg, kind)).requires_grad_()
        y = FUNCTIONS[name](leaf)
        h = dg.ones_like(y) * 0.3
        given, wanted = (dg.autograd.grad(y, leaf, h, create_graph=graph, retain_graph=True)[0] for graph in (False, True))
        assert given.dtype is leaf.dtype
        assert dg.equal(given, wanted.detach()), name


@pytest.mark.parametrize("workers", [1, 3])
def test_in_sessions_gradients_are_the_same(workers: int) -> None:
    x = numbers(np.float64)[:, 11:60]
    expected = [gradient(f, x, np.ones_like(x), False) for f in FUNCTIONS.values()]
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=0):
        for function, wanted in zip(FUNCTIONS.values(), expected):
            leaf = dg.tensor(x, requires_grad=True)
            (function(leaf) * 1.0).sum().backward()
            np.testing.assert_array_equal(leaf.grad.numpy(), wanted)


def test_products_of_two_leaves_with_the_same_values_stay_two() -> None:
    x = dg.tensor(numbers(np.float64)[:, 20:40], requires_grad=True)
    y = x.detach().requires_grad_()
    (x * y).sum().backward()
    for leaf, other in ((x, y), (y, x)):
        np.testing.assert_array_equal(leaf.grad.numpy(), other.detach().numpy())
    seen: list[Any] = []
    product = x * x
    product.grad_fn.register_hook(lambda given, _: seen.append(given))
    product.sum().backward()
    assert len(seen[0]) == 2
    assert all(dg.equal(g, x.detach()) for g in seen[0])


def test_second_derivatives_exist() -> None:
    for name in ("sqrt", "reciprocal", "quotient", "square", "power", "tanh", "clamp", "sin", "cos"):
        leaf = (dg.rand(5, dtype=dg.float64) + 0.5).requires_grad_()
        assert dg.autograd.gradcheck(FUNCTIONS[name], leaf)
        assert dg.autograd.gradgradcheck(FUNCTIONS[name], leaf)


def test_every_slope_is_compiled_for_the_types_it_is_called_with() -> None:
    from distgrad.kernels import compiling, slopes

    compiling.warm_up()
    found = [entry for entry in compiling._kernels if entry[0].py_func.__module__ == slopes.__name__]
    assert found
    for dispatcher, words, kinds in found:  # the tests above have called them with nothing else
        assert set(dispatcher.signatures) == {compiling._signature(words, kind) for kind in kinds}, dispatcher
