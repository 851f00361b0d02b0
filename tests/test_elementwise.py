"""Elementwise and activation functions where the generic rows do not reach: errors, 16-bit floats, integer wrapping,
and the kernels' two ways (bits or np.where, products or powers) against each other."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.functions import activation
from distgrad.functions import elementwise as functions
from distgrad.ops import elementwise as ops

torch = pytest.importorskip("torch")

FLOATS = [1.5, -0.5, 0.25]
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "bool - bool": lambda T, F: T.tensor([True]) - T.tensor([True]),
    "bool - 1": lambda T, F: T.tensor([True]) - 1,
    "1 - bool": lambda T, F: 1 - T.tensor([True]),
    "int - bool": lambda T, F: T.tensor([1]) - T.tensor([True]),
    "-bool": lambda T, F: -T.tensor([True]),
    "+bool": lambda T, F: T.positive(T.tensor([True])),
    "int // 0": lambda T, F: T.tensor([3]) // 0,
    "int % 0": lambda T, F: T.tensor([3]) % T.tensor([0]),
    "fmod 0": lambda T, F: T.fmod(T.tensor([3]), 0),
    "trunc 0": lambda T, F: T.div(T.tensor([3]), 0, rounding_mode="trunc"),
    "mode": lambda T, F: T.div(T.tensor(FLOATS), 2, rounding_mode="nearest"),
    "int ** -1": lambda T, F: T.tensor([3]) ** -1,
    "float & float": lambda T, F: T.bitwise_and(T.tensor(FLOATS), T.tensor(FLOATS)),
    "~float": lambda T, F: T.bitwise_not(T.tensor(FLOATS)),
    "float << float": lambda T, F: T.bitwise_left_shift(T.tensor(FLOATS), T.tensor(FLOATS)),
    "abs(bool)": lambda T, F: T.abs(T.tensor([True])),
    "floor(bool)": lambda T, F: T.floor(T.tensor([True])),
    "frac(int)": lambda T, F: T.frac(T.tensor([3])),
    "clamp without bounds": lambda T, F: T.clamp(T.tensor(FLOATS)),
    "lerp of ints": lambda T, F: T.lerp(T.tensor([1]), T.tensor([2]), 0.5),
    "lerp of two dtypes": lambda T, F: T.lerp(T.tensor(FLOATS), T.tensor(FLOATS, dtype=T.float64), 0.5),
    "addcdiv of ints": lambda T, F: T.addcdiv(T.tensor([1]), T.tensor([1]), T.tensor([1])),
    "heaviside": lambda T, F: T.heaviside(T.tensor(FLOATS), T.tensor([1.0], dtype=T.float64)),
    "alpha": lambda T, F: T.add(T.tensor([1]), T.tensor([1]), alpha=0.5),
    "bool alpha": lambda T, F: T.sub(T.tensor([1]), T.tensor([1]), alpha=True),
    "isclose": lambda T, F: T.isclose(T.tensor(FLOATS), T.tensor(FLOATS, dtype=T.float64)),
    "where": lambda T, F: T.where(T.tensor(FLOATS), 1.0, 2.0),
    "polygamma": lambda T, F: T.polygamma(-1, T.tensor(FLOATS)),
    "imag": lambda T, F: T.imag(T.tensor(FLOATS)),
    "broadcast": lambda T, F: T.add(T.tensor([1.0, 2.0]), T.tensor([1.0, 2.0, 3.0])),
    "relu(bool)": lambda T, F: F.relu(T.tensor([True])),
    "softmax(int)": lambda T, F: F.softmax(T.tensor([1, 2]), 0),
    "softmax(dim=5)": lambda T, F: F.softmax(T.tensor(FLOATS), 5),
    "gelu(int)": lambda T, F: F.gelu(T.tensor([1])),
    "gelu approximate": lambda T, F: F.gelu(T.tensor(FLOATS), approximate="erf"),
    "softshrink": lambda T, F: F.softshrink(T.tensor(FLOATS), -1.0),
    "celu": lambda T, F: F.celu(T.tensor(FLOATS), 0.0),
    "glu": lambda T, F: F.glu(T.tensor(FLOATS)),
    "prelu": lambda T, F: F.prelu(T.tensor([FLOATS]), T.tensor([0.1, 0.2])),
}


@pytest.mark.parametrize("name", CALLS)
def test_raises_torchs_error_class(name: str) -> None:
    with pytest.raises((RuntimeError, IndexError, TypeError, ValueError)) as theirs:
        CALLS[name](torch, torch.nn.functional)
    expected = next(c for c in (IndexError, TypeError, ValueError, RuntimeError) if theirs.errisinstance(c))
    with pytest.raises(expected):
        CALLS[name](dg, activation)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [
    "exp", "log1p", "sin", "tanh", "sigmoid", "erf", "lgamma", "square", "sqrt", "sign", "round", "sinc", "relu",
    "gelu", "silu", "mish", "elu", "selu", "softplus", "softsign", "hardswish", "hardsigmoid", "hardtanh", "leaky_relu",
    "logsigmoid", "softmax", "log_softmax", "clamp", "pow", "where",
])
def test_sixteen_bit_floats(name: str, dtype: str) -> None:
    values = np.random.default_rng(3).uniform(0.25, 2.0, (5, 4)).astype(np.float32)

    def run(library: Any, namespace: Any) -> tuple[str, np.ndarray]:
        x = library.from_numpy(values.copy()).to(getattr(library, dtype)).requires_grad_()
        if "softmax" in name:
            y = getattr(namespace, name)(x, 1)
        elif name == "clamp":
            y = library.clamp(x, 0.5, 1.5)
        elif name == "pow":
            y = x**2 + x**1.5
        elif name == "where":
            y = library.where(x > 1, x, 2.0)
        else:
            y = getattr(namespace, name)(x) if hasattr(namespace, name) else getattr(library, name)(x)
        (g,) = library.autograd.grad(y, [x], [library.ones_like(y)])
        assert str(g.dtype).endswith(dtype)
        return str(y.dtype).rpartition(".")[2], np.stack([t.detach().to(library.float32).numpy() for t in (y, g)])

    mine, theirs = run(dg, activation), run(torch, torch.nn.functional)
    assert mine[0] == theirs[0] == dtype
    tolerance = 4e-3 if dtype == "float16" else 2e-2
    np.testing.assert_allclose(mine[1], theirs[1], rtol=tolerance, atol=tolerance)


def test_numbers_wrap_to_the_tensors_dtype() -> None:
    x = np.array([200, 5], dtype=np.uint8)
    for number in (300, -1):
        ours = functions.add(dg.from_numpy(x), number)
        assert ours.dtype is dg.uint8
        np.testing.assert_array_equal(ours.numpy(), (torch.from_numpy(x.copy()) + number).numpy())


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "complex64", "complex128", "int8", "int64", "bool"])
def test_selection_by_bits_equals_where(kind: str) -> None:
    generator = np.random.default_rng(0)
    a, b = ((generator.standard_normal((128, 64)) * 50).astype(kind) for _ in range(2))
    if np.dtype(kind).kind == "f":
        a[0, :3], b[0, :3] = (np.nan, np.inf, -0.0), (-np.inf, np.nan, 1)
    mask = generator.random((128, 64)) < 0.5
    for x, y, m in ((a, b, mask), (a.T, b.T, mask.T), (a, b[:1], mask), (a[0], b, mask[:, :1]), (a, b[0, 0], mask)):
        np.testing.assert_array_equal(ops.select_array(m, x, y), np.where(m, x, y))
        np.testing.assert_array_equal(ops.keep_array(m, x), np.where(m, x, np.zeros((), kind)))


def test_powers_by_products_equal_powers() -> None:
    x = np.array([-2.0, -0.0, 0.0, 0.5, 3.0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        for exponent in (2, 3, 1, -1, -2, 0, 4):
            np.testing.assert_allclose(ops.power_array(x, np.float64(exponent)), np.power(x, exponent), rtol=1e-15)


def test_gradient_of_a_number_exponent_is_finite_at_zero_and_below() -> None:
    for exponent in (0, 1, 2, 3, 2.0):
        x = dg.from_numpy(np.array([0.0, -1.0, 2.0])).requires_grad_()
        t = torch.tensor([0.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
        (ours,) = dg.autograd.grad(x**exponent, [x], [dg.ones_like(x)])
        (theirs,) = torch.autograd.grad(t**exponent, [t], [torch.ones_like(t)])
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_casts_between_all_dtypes_equal_torchs() -> None:
    names = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
             "complex64")
    values = np.array([0.0, 1.0, -1.5, 2.75, 100.2])
    for source, target in itertools.product(names, names):
        if source == target:
            continue
        ours = dg.from_numpy(values).to(getattr(dg, source)).to(getattr(dg, target))
        with warnings.catch_warnings(action="ignore"):
            theirs = torch.from_numpy(values).to(getattr(torch, source)).to(getattr(torch, target))
        if target == "bfloat16":
            ours, theirs = ours.to(dg.float32), theirs.float()
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=f"{source} to {target}")


def test_signbit_of_zeros() -> None:
    np.testing.assert_array_equal(functions.signbit(dg.from_numpy(np.array([0.0, -0.0]))).numpy(), [False, True])


def test_gelu_in_float32_is_as_exact_as_the_dtype() -> None:
    x = np.linspace(-9, 9, 20_001).astype(np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(activation.gelu(dg.from_numpy(x)).numpy(), exact, rtol=3e-7, atol=3e-7)


def test_inplace_activation_changes_the_input() -> None:
    for name in ("relu", "silu", "hardtanh", "leaky_relu", "elu", "selu", "celu", "mish", "hardswish", "hardsigmoid"):
        x = dg.from_numpy(np.array([-2.0, 0.5, 3.0]))
        result = getattr(activation, name)(x, inplace=True)
        assert result is x
        expected = getattr(torch.nn.functional, name)(torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64))
        np.testing.assert_allclose(x.numpy(), expected.numpy(), rtol=1e-12)
