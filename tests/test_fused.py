"""Compiled kernels against numpy's and PyTorch's: values over the whole range, shapes at the edges, both settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from loops import KINDS, SIZE, agree, both_settings, everything, in_units, kernel, normal  # noqa: F401  # a fixture
from numba import types

import distgrad as dg
from distgrad.kernels import compiled


@KINDS
def test_sigmoid_is_right_within_two_units_everywhere(kind: Any) -> None:
    x = everything(kind)
    (y,) = kernel("sigmoid", x, on=True)
    with np.errstate(all="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.longdouble)))
    assert in_units(y[np.abs(x) < 87], exact[np.abs(x) < 87], kind) <= 2.5
    np.testing.assert_allclose(y, exact.astype(kind), rtol=1e-6, atol=1e-37)
    assert np.array_equal(np.isnan(y), np.isnan(x))


@KINDS
def test_exponentials_of_softmax_are_right_down_to_denormal_results(kind: Any) -> None:
    low = -103.0 if kind is np.float32 else -744.0
    x = np.linspace(low, 0, SIZE).astype(kind)
    rows = np.stack([x, np.zeros_like(x)], 1)
    (y,) = kernel("softmax", rows, on=True, axis=1)
    wide = rows.astype(np.longdouble)
    exact = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    assert in_units(y, exact, kind) <= 3
    assert y[0, 0] > 0


def test_gelu_is_relatively_exact_on_both_sides() -> None:
    from scipy import special

    x = np.linspace(-12, 12, 4 * SIZE).astype(np.float32)
    wide = x.astype(np.float64)
    (y,) = kernel("gelu", x, on=True)
    assert in_units(y, wide * special.ndtr(wide), np.float32) <= 7.5
    (slope,) = kernel("gelu_backward", np.ones_like(x), x, on=True)
    exact = special.ndtr(wide) + wide * np.exp(-wide * wide / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=1e-7)
    torch_y = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(y, torch_y, rtol=5e-7, atol=1e-6)
    edges = np.array([np.inf, -np.inf, np.nan, -20.0, 1e-40, 0.0] * SIZE, np.float32)
    np.testing.assert_array_equal(kernel("gelu", edges, on=True)[0], kernel("gelu", edges, on=False)[0])


SMOOTH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "sigmoid": torch.sigmoid,
}


@KINDS
@pytest.mark.parametrize("name", SMOOTH)
def test_activations_equal_numpy_and_torch(name: str, kind: Any) -> None:
    x = 3 * normal(kind, 3, SIZE // 2 + 1)
    (y,) = agree(name, x, size_of_terms=4)
    torch_x = torch.from_numpy(x).requires_grad_()
    torch_y = SMOOTH[name](torch_x)
    h = normal(kind, *x.shape, seed=1)
    torch_y.backward(torch.from_numpy(h))
    rounding = np.finfo(kind).eps
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=8 * rounding, atol=16 * rounding)
    if name != "sigmoid":
        (back,) = agree(f"{name}_backward", h, x, size_of_terms=16)
        assert torch_x.grad is not None
        np.testing.assert_allclose(back, torch_x.grad.numpy(), rtol=16 * rounding, atol=64 * rounding)


@KINDS
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_activations_treat_edges_as_numpy_does(name: str, kind: Any) -> None:
    x = everything(kind)
    ours, theirs = (kernel(name, x, on=on)[0] for on in (True, False))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@KINDS
def test_logit_loss_and_its_slope(kind: Any) -> None:
    x, target = 5 * normal(kind, SIZE + 5), (normal(kind, SIZE + 5, seed=1) > 0).astype(kind)
    (y,) = agree("binary_cross_entropy_with_logits", x, target, size_of_terms=4)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(torch.from_numpy(x), torch.from_numpy(target),
                                                                  reduction="none")
    np.testing.assert_allclose(y, theirs, rtol=1e-5 if kind is np.float32 else 1e-13, atol=1e-6)
    agree("logit_slope", x, target, size_of_terms=1)
    (total,) = agree("mean_logit_loss", x, target, size_of_terms=4)
    np.testing.assert_allclose(total, y.mean(dtype=np.float64), rtol=1e-6 if kind is np.float32 else 1e-13)
    agree("logit_gradient", x, target, np.asarray(kind(0.3)), size_of_terms=1)
    (total,) = agree("mean_square_distance", x, target, size_of_terms=8)
    np.testing.assert_allclose(total, np.mean((x - target) ** 2, dtype=np.float64), rtol=1e-6 if kind is np.float32 else 1e-13)
    agree("scaled_difference", x, target, np.asarray(kind(0.3)), size_of_terms=2)
    edges = np.array([np.inf, -np.inf, np.nan, 0.0] * SIZE, kind)
    agree("binary_cross_entropy_with_logits", edges, np.ones_like(edges))


@KINDS
def test_elu_is_right_within_two_units_everywhere(kind: Any) -> None:
    x = everything(kind)
    numbers = (kind(1), kind(1), kind(1))
    (y,) = agree("elu", x, *numbers, parts=4)
    with np.errstate(all="ignore"):
        exact = np.where(x > 0, x, np.expm1(x.astype(np.longdouble)))
    assert in_units(y, exact, kind) <= 2
    np.testing.assert_array_equal(np.signbit(y), np.signbit(x))
    agree("elu", x, kind(1.67), kind(1.05), kind(0.6), parts=6)
    agree("elu", x, kind(0), kind(1), kind(1))


@KINDS
@pytest.mark.parametrize("columns", [1, 2, 7, 64, 1000])
def test_softmax_and_log_softmax(columns: int, kind: Any) -> None:
    x = 4 * normal(kind, SIZE // columns + 2, columns)
    x[0, 0], x[1] = np.nan, -np.inf
    x[2, columns // 2] = np.inf
    for name in ("softmax", "log_softmax"):
        (y,) = agree(name, x, axis=1, parts=16, size_of_terms=16)
        theirs = getattr(torch, name)(torch.from_numpy(x), 1).numpy()
        np.testing.assert_allclose(y, theirs, rtol=2e-6 if kind is np.float32 else 1e-14, atol=1e-5)
        out = kernel(name, normal(kind, *x.shape), on=False, axis=1)[0]
        agree(f"{name}_backward", normal(kind, *x.shape, seed=1), out, axis=1, parts=16, size_of_terms=np.sqrt(columns))
    agree("softmax", x.reshape(1, *x.shape), axis=1)  # another dim is numpy's


@KINDS
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(40, 33, 17), (3, 50, 64), (2, 3, 64, 64)], ids=str)
def test_attention_weights(shape: tuple[int, ...], causal: bool, kind: Any) -> None:
    x, h = 4 * normal(kind, *shape), normal(kind, *shape, seed=1)
    x[0, ..., -1, 0] = -np.inf
    (y,) = agree("attention_weights", x, scale=0.3, causal=causal)
    if causal:
        assert not np.triu(y, 1).any()
    agree("attention_weights_backward", h, y, scale=0.3, size_of_terms=1)


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_has_second_derivatives_whatever_the_kernel(on: bool, causal: bool) -> None:
    dg.set_fused_kernels(on)
    arrays = [normal(np.float64, 2, 3, length, 5, seed=length) for length in (31, 33, 33)]

    def second(T: Any, make: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
        inputs = [make(a).requires_grad_() for a in arrays]
        q, k, v = inputs
        scores = q @ k.transpose(-2, -1) / 5**0.5  # PyTorch's fused attention has no second derivative
        if T is torch:
            mask = T.ones(31, 33, dtype=T.bool).tril() if causal else T.ones(31, 33, dtype=T.bool)
            y = scores.masked_fill(~mask, -float("inf")).softmax(-1) @ v
        else:
            y = T.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        first = T.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        return [g.detach().numpy() for g in (y, *first, *T.autograd.grad(sum((g * g).sum() for g in first), inputs))]

    for ours, theirs in zip(second(dg, dg.tensor), second(torch, torch.tensor), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@KINDS
def test_activations_of_straight_pieces(kind: Any) -> None:
    x = np.concatenate([everything(kind), np.linspace(-4, 4, 4001, dtype=kind), np.array([-3, 3, 0, -0.0], kind)])
    h = np.resize(np.array([1.5, -2.0, np.inf, 0.0, -0.25], kind), x.shape)
    for slope in (0.01, 0.0, -0.5, 2.0):
        for name, operands in (("leaky_relu", (x,)), ("leaky_relu_backward", (h, x))):
            (ours,) = kernel(name, *operands, np.asarray(slope, kind), on=True)
            (theirs,) = kernel(name, *operands, np.asarray(slope, kind), on=False)
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name} {slope}")
    agree("hardswish", x, parts=2)
    agree("hardswish_backward", h, x, parts=2)
    agree("hardsigmoid", x, parts=2)
    exact: list[tuple[str, tuple[np.ndarray, ...], tuple[float, ...]]] = [
        ("hardtanh", (x,), (-1.0, 2.5)), ("hardtanh_backward", (h, x), (-1.0, 2.5)), ("softshrink", (x,), (0.5,)),
        ("hardshrink", (x,), (0.5,)), ("shrink_backward", (h, x), ()), ("threshold", (x,), (0.5, -7.0)),
        ("threshold_backward", (h, x), (0.5,)), ("sigmoid_slope", (h, x), ()),
        ("hardsigmoid_backward", (h, x), ()),
    ]
    for name, operands, numbers in exact:
        given = (*operands, *(np.asarray(n, kind) for n in numbers))
        np.testing.assert_array_equal(*kernel(name, *given, on=True), *kernel(name, *given, on=False), err_msg=name)
        if operands[0] is h:  # one number, which a broadcast repeats
            given = (np.broadcast_to(h[:1], h.shape), *given[1:])
            np.testing.assert_array_equal(*kernel(name, *given, on=True), *kernel(name, *given, on=False), err_msg=name)


@KINDS
@pytest.mark.parametrize("name", ["hardtanh", "relu6", "hardsigmoid", "hardshrink", "softshrink", "threshold", "softplus",
                                  "sigmoid"])
def test_bends_and_their_gradients_are_torchs(name: str, kind: Any) -> None:
    edges = [-6, -3, -1, -0.5, -0.0, 0, 0.5, 1, 3, 6, np.nan, np.inf, -np.inf]
    x = np.concatenate([np.linspace(-40, 40, SIZE), edges]).astype(kind)
    h = normal(kind, x.size)
    numbers = (0.5, -7.0) if name == "threshold" else ()
    found = []
    for T, on in ((torch, True), (dg, True), (dg, False)):
        dg.set_fused_kernels(on)
        leaf = T.from_numpy(x.copy()).requires_grad_()
        y = getattr(T.nn.functional, name)(leaf, *numbers)
        (g,) = T.autograd.grad(y, leaf, T.from_numpy(h))
        found.append((y.detach().numpy(), g.numpy()))
    for ours in found[1:]:
        for mine, theirs in zip(ours, found[0]):
            np.testing.assert_allclose(mine, theirs, rtol=2e-6 if kind is np.float32 else 1e-14, atol=1e-7)


@KINDS
def test_rows_and_elements_added_by_index(kind: Any) -> None:
    rng = np.random.default_rng(0)
    g, index = normal(kind, 700, 33), rng.integers(0, 40, 700)
    agree("add_rows", g, index, shape=(40, 33), axis=0, size_of_terms=16)
    places = rng.integers(0, 50, (700, 33))
    agree("add_along", g, places, shape=(700, 50), axis=1, size_of_terms=4)
    agree("add_along", g, places % 33, shape=(700, 33), axis=0, size_of_terms=16)  # along another dim: numpy's
    with pytest.raises(RuntimeError, match="index 50 is out of bounds"):
        kernel("add_along", g, places + 1, on=True, shape=(700, 50), axis=1)


@KINDS
def test_formulas_of_several_operations(kind: Any) -> None:
    x, y, z = everything(kind), np.roll(everything(kind), 7), everything(kind)[::-1].copy()
    for value in (1, 0.3, -2.5):
        (found,) = agree("addcmul", x, y, z, kind(value), parts=0)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(found, x + y * z * kind(value))
    agree("addcmul", x[None], y, z[None, :1], kind(2), parts=0)  # what broadcasts: numpy's
    near = x * kind(1 + 1e-5)
    for other in (x, near, y, near[:1]):
        for equal_nan in (False, True):
            (found,) = agree("isclose", x, other, rtol=1e-5, atol=1e-8, equal_nan=equal_nan)
            wanted = torch.isclose(torch.from_numpy(x), torch.from_numpy(np.broadcast_to(other, x.shape).copy()),
                                   equal_nan=equal_nan).numpy()
            assert (found != wanted).mean() < 0.02  # roundings at the bound
    rows = normal(kind, 70, 90)
    for target in (rows[0], rows[0, 0], rows[:, :1]):
        (found,) = agree("mean_square_distance", rows, np.broadcast_to(target, rows.shape), parts=32)
        np.testing.assert_allclose(found, np.mean((rows - target) ** 2, dtype=np.float64), rtol=1e-5)


@KINDS
def test_simple_arithmetic(kind: Any) -> None:
    x, y = normal(kind, 5, SIZE // 3), normal(kind, 5, SIZE // 3, seed=1)
    x[0, :4] = [np.nan, np.inf, -np.inf, 0]
    agree("relu_backward", x, y)
    agree("relu_backward", y, x)
    agree("masked_scale", x, y > 0, 1.25)
    agree("masked_scale", x, y[:1] > 0, 1.25)  # a mask that broadcasts: numpy's
    w, b = normal(kind, 40, x.shape[1], seed=2), normal(kind, 40, seed=3)
    agree("linear_bias", normal(kind, 900, x.shape[1]), w, b, size_of_terms=100)


@KINDS
def test_what_is_small_strided_empty_or_read_only_is_numpys(kind: Any) -> None:
    whole = normal(kind, SIZE, 2)
    fixed = whole.copy()
    fixed.flags.writeable = False
    for x in (whole[:, 0], whole[:10], whole[:0], whole[::2].T, fixed, whole.astype(whole.dtype.newbyteorder())):
        assert x.size < SIZE or not compiled.fits(x)
        np.testing.assert_array_equal(kernel("silu", x, on=True)[0], kernel("silu", x, on=False)[0])
    dg.set_fused_kernels(True)
    assert compiled.fits(whole)
    assert not compiled.fits(whole, whole.astype(np.float16))
    assert not compiled.fits(whole, whole[:1])


@pytest.mark.parametrize("on", [True, False])
def test_a_training_step_is_the_same_on_any_number_of_workers(on: bool) -> None:
    dg.set_fused_kernels(on)
    x, labels = normal(np.float32, 96, 64), np.arange(96) % 10

    def gradients(workers: int) -> list[np.ndarray]:
        with dg.init(local_mode=True, num_workers=workers):
            dg.manual_seed(0)
            model = dg.nn.Sequential(dg.nn.Linear(64, 512), dg.nn.GELU(), dg.nn.LayerNorm(512), dg.nn.Linear(512, 512),
                                     dg.nn.SiLU(), dg.nn.Linear(512, 10))
            loss = dg.nn.functional.cross_entropy(model(dg.shard(dg.from_numpy(x))), dg.shard(dg.from_numpy(labels)))
            loss.backward()
            return [loss.detach().numpy(), *(p.grad.numpy() for p in model.parameters())]

    for one, several in zip(gradients(1), gradients(2), strict=True):
        np.testing.assert_allclose(one, several, rtol=1e-4, atol=1e-6)


def test_small_programs_never_import_numba_and_large_ones_only_when_allowed() -> None:
    code = ("import sys, distgrad as dg\nx = dg.randn({size}, requires_grad=True)\n"
            "dg.nn.functional.gelu(x).sum().backward()\nprint('numba' in sys.modules)")

    def imported(size: int, setting: str) -> bool:
        run = subprocess.run([sys.executable, "-c", code.format(size=size)], capture_output=True, text=True, check=True,
                             timeout=60, env={**os.environ, "DISTGRAD_FUSED": setting})
        return run.stdout.strip() == "True"

    assert not imported(SIZE - 1, "1")
    assert imported(SIZE, "1")
    assert not imported(SIZE, "0")


def test_without_a_directory_for_compiled_code_kernels_work_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core import caching

    from distgrad.kernels import compiling

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    monkeypatch.setattr(compiling, "_kernels", [])

    @compiling.kernel("1")
    def double(x: Any) -> None:
        for i in range(x.size):
            x[i] *= x.dtype.type(2)

    x = normal(np.float32, 9)
    expected = 2 * x
    double(x)
    np.testing.assert_array_equal(x, expected)


# Order, runs and sums of large arrays ----------------------------------------------------------------------


@KINDS
def test_signs_ranges_and_softplus(kind: Any) -> None:
    x = everything(kind)
    agree("sign", x, parts=0)
    name = np.dtype(kind).name
    for ours, theirs in (
        (lambda n: n.arange(-3, 3, 0.001, dtype=getattr(n, name)), 1), (lambda n: n.arange(SIZE, dtype=getattr(n, name)), 0),
        (lambda n: n.linspace(-1, 7, SIZE + 3, dtype=getattr(n, name)), 1),
    ):
        for on in (True, False):
            dg.set_fused_kernels(on)
            np.testing.assert_allclose(ours(dg).numpy(), ours(torch).numpy(), rtol=0, atol=theirs * 8 * np.finfo(kind).eps)
    for beta in (1.0, 0.5, 3.0):
        (y,) = kernel("softplus", x, beta, 20.0, on=True)
        expected = torch.nn.functional.softplus(torch.from_numpy(x), beta, 20.0).numpy()
        np.testing.assert_allclose(y, expected, rtol=16 * np.finfo(kind).eps, atol=1e-37)


def test_every_kernel_is_compiled_ahead_for_the_types_it_is_called_with() -> None:
    from distgrad.kernels import compiling

    compiling.warm_up()
    assert len(compiling._kernels) > 20
    for dispatcher, words, kinds in compiling._kernels:
        if dispatcher.py_func.__module__.rpartition(".")[2] not in compiling.MODULES:
            continue  # compiled with their first use
        found = set(dispatcher.signatures)  # those of tests before this one, too
        assert found <= {compiling._signature(words, kind) for kind in kinds}, dispatcher
        if types.float32 in kinds:
            assert compiling._signature(words, types.float32) in found, dispatcher
