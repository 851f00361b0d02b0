"""Compiled kernels against numpy's and PyTorch's: values over the whole range, shapes at the edges, both settings."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import distgrad as dg
from distgrad.kernels import compiled, tiles
from distgrad.op import op_named

SIZE = compiled.LEAST
KINDS = pytest.mark.parametrize("kind", [np.float32, np.float64], ids=["float32", "float64"])
Arrays = tuple[np.ndarray, ...]


@pytest.fixture(autouse=True)
def both_settings() -> Iterator[None]:
    before = dg.are_fused_kernels_enabled()
    dg.set_fused_kernels(True)
    yield
    dg.set_fused_kernels(before)


def normal(kind: Any, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def everything(kind: Any) -> np.ndarray:
    """Gives numbers of all sizes and signs, denormal ones, infinities, NaN: more than enough to be fused."""
    info = np.finfo(kind)
    wide = np.geomspace(info.smallest_subnormal, info.max, SIZE)
    near = np.linspace(-120, 120, SIZE + 3)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.max, -info.max]
    with np.errstate(all="ignore"):
        return np.concatenate([wide, -wide, near, special]).astype(kind)


def kernel(name: str, *arrays: Any, on: bool, **attrs: Any) -> Arrays:
    dg.set_fused_kernels(on)
    with np.errstate(all="ignore"):
        result = op_named(name).kernel(*arrays, **attrs)
    return result if isinstance(result, tuple) else (result,)


def agree(name: str, *arrays: Any, parts: float = 8, size_of_terms: float = 0.0, **attrs: Any) -> Arrays:
    """Compares the compiled kernel with the other, within `parts` roundings of results or of terms of a size."""
    ours, theirs = kernel(name, *arrays, on=True, **attrs), kernel(name, *arrays, on=False, **attrs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            rounding = np.finfo(a.dtype).eps
            np.testing.assert_allclose(a, b, rtol=parts * rounding, atol=max(parts * size_of_terms * rounding, 1e-37))
        else:
            np.testing.assert_array_equal(a, b)
    return ours


def in_units(found: np.ndarray, exact: np.ndarray, kind: Any) -> float:
    """Gives the greatest error in units of the last place; both must be infinite and NaN alike."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(kind)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    finite = np.isfinite(rounded)
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(found[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))))


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
@pytest.mark.parametrize("shape", [(SIZE, 1), (301, 101), (3, 20001)], ids=str)
def test_layer_norm(shape: tuple[int, int], kind: Any) -> None:
    x, v = 2 * normal(kind, *shape) + 3, normal(kind, *shape, seed=1)
    weight, bias = normal(kind, 2, shape[1], seed=2)
    _, mean, rstd = agree("layer_norm", x, weight, bias, axis=(1,), eps=1e-5, parts=64, size_of_terms=4)
    if shape[1] == 1:
        return  # 1 / deviation is large and multiplies roundings
    agree("layer_norm_backward", v, x, weight, mean, rstd, axis=(1,), eps=1e-5, parts=64, size_of_terms=np.sqrt(shape[0]))
    tensors = [torch.from_numpy(a).double().requires_grad_() for a in (x, weight, bias)]
    torch.nn.functional.layer_norm(tensors[0], shape[1:], *tensors[1:]).backward(torch.from_numpy(v).double())
    found = kernel("layer_norm_backward", v, x, weight, mean, rstd, on=True, axis=(1,), eps=1e-5)
    tolerance = 2e-5 if kind is np.float32 else 1e-11
    for ours, theirs in zip(found, tensors, strict=True):
        assert theirs.grad is not None
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=tolerance, atol=tolerance * np.sqrt(shape[0]))


def test_layer_norm_of_rows_far_from_zero() -> None:
    x = (normal(np.float32, 200, 128) + 1000).astype(np.float32)
    y = kernel("layer_norm", x, np.ones(128, np.float32), np.zeros(128, np.float32), on=True, axis=(1,), eps=1e-5)[0]
    wide = x.astype(np.float64)
    exact = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    assert np.abs(y - exact).max() < 1e-4


@pytest.mark.parametrize("on", [True, False])
def test_layer_norm_has_second_derivatives_whatever_the_kernel(on: bool) -> None:
    dg.set_fused_kernels(on)
    x, weight, bias = normal(np.float64, 200, 100), *normal(np.float64, 2, 100, seed=1)

    def second(T: Any, make: Callable[[np.ndarray], Any]) -> list[np.ndarray]:
        inputs = [make(a).requires_grad_() for a in (x, weight, bias)]
        y = T.nn.functional.layer_norm(inputs[0], (100,), inputs[1], inputs[2])
        first = T.autograd.grad(y.sin().sum(), inputs, create_graph=True)
        found = T.autograd.grad(sum((g * g).sum() for g in first), inputs)
        return [g.detach().numpy() for g in (*first, *found)]

    for ours, theirs in zip(second(dg, dg.tensor), second(torch, torch.tensor), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@KINDS
@pytest.mark.parametrize("rule", [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (5, 4, 2, 1)], ids=str)
def test_max_pool_and_its_gradient(rule: tuple[int, int, int, int], kind: Any) -> None:
    size, stride, padding, dilation = rule
    x = np.round(4 * normal(kind, 2, 3, 61, 55))  # with equal maxima
    x[0, 0, :3, :4] = np.nan
    x[0, 1, :9] = -np.inf
    out = [(n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in x.shape[2:]]
    rules = tuple(("window", n, t, size, stride, padding, dilation) for n, t in zip(x.shape[2:], out))
    values, indices = agree("max_pool", x, rules=rules)
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x), size, stride, padding, dilation, return_indices=True)
    np.testing.assert_array_equal(values, theirs[0])
    seen = np.isfinite(values)  # of windows of -inf, PyTorch's position differs between its versions
    np.testing.assert_array_equal(indices[seen], theirs[1].numpy()[seen])


@KINDS
@pytest.mark.parametrize("name", ["batch_norm", "group_norm"])
def test_norms_of_channels(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LEAST", 1)
    shapes = [(5, 6, 9, 11), (40, 6), (3, 6, 2), (2, 6, 3, 4, 5), (1, 6, 700), (1300, 6), (4, 6, 0), (64, 6, 1, 1)]
    for shape, offset in itertools.product(shapes, (0.0, 300.0)):
        x = normal(kind, *shape) + kind(offset)
        v, w, b = normal(kind, *shape, seed=1), normal(kind, 6, seed=2), normal(kind, 6, seed=3)
        more = {"groups": 3} if name == "group_norm" else {}
        results = []
        for on in (True, False):
            found = kernel(name, x, w, b, on=on, eps=1e-5, **more)
            slopes = kernel(f"{name}_backward", v, x, w, *found[1:], on=on, **(more or {"eps": 1e-5}))
            results.append((*found, *slopes))
        rounding = float(np.finfo(kind).eps) * (1 + offset)
        for ours, theirs in zip(*results, strict=True):
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
            np.testing.assert_allclose(ours, theirs, rtol=60 * rounding, atol=60 * rounding * max(shape))


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


CONVOLUTIONS = {
    "plain": ((3, 3), (1, 1), (0, 0), (1, 1)),
    "padded": ((3, 5), (1, 1), (1, 2), (1, 1)),
    "strided": ((3, 2), (2, 3), (1, 0), (1, 1)),
    "dilated": ((2, 3), (1, 2), (3, 2), (2, 3)),
    "padding_beyond_the_kernel": ((1, 2), (2, 1), (3, 40), (1, 1)),
}


WAYS = pytest.mark.parametrize("way", ["tiles", "columns", "columns of blocks of rows"])


def in_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has convolutions done in one of the ways there are."""
    called = []
    for name in ("conv", "conv_input", "conv_weight"):
        function = getattr(tiles, name)
        monkeypatch.setattr(tiles, name, lambda *a, f=function: (called.append(f), f(*a))[1])
    if way != "tiles":
        monkeypatch.setattr("distgrad.ops.convolution._TAPS", 0)
    if way == "columns of blocks of rows":
        monkeypatch.setattr("distgrad.ops.convolution._BLOCK", 3000)
    monkeypatch.setattr(tiles, "called", called, raising=False)


@KINDS
@pytest.mark.parametrize("form", CONVOLUTIONS)
@WAYS
def test_convolution_and_its_gradients(form: str, way: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_way(way, monkeypatch)
    kernel_size, stride, padding, dilation = CONVOLUTIONS[form]
    x, w, b = normal(kind, 7, 4, 33, 29), normal(kind, 5, 4, *kernel_size, seed=1), normal(kind, 5, seed=2)
    theirs = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, w, b)), stride, padding, dilation)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": 1}
    size = tuple(theirs.shape[2:])
    (y,) = agree("conv_bias", x, w, b, size=size, size_of_terms=64, **attrs)
    np.testing.assert_allclose(y, theirs, rtol=1e-4 if kind is np.float32 else 1e-12, atol=1e-4)
    g = normal(kind, *y.shape, seed=3)
    agree("conv_input", g, w, size=x.shape[2:], size_of_terms=64, **attrs)
    agree("conv_weight", x, g, size=kernel_size, size_of_terms=1000, **attrs)
    assert bool(tiles.called) == (way == "tiles")  # type: ignore[attr-defined]


@WAYS
def test_convolution_in_one_dim_is_compiled_too(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_way(way, monkeypatch)
    x, w = normal(np.float32, 4, 6, 301), normal(np.float32, 7, 6, 5, seed=1)
    attrs = {"stride": (2,), "padding": (3,), "dilation": (2,), "groups": 1}
    (y,) = agree("conv", x, w, size=(150,), size_of_terms=64, **attrs)
    agree("conv_input", y, w, size=(301,), size_of_terms=1000, **attrs)
    agree("conv_weight", x, y, size=(5,), size_of_terms=20000, **attrs)
    assert bool(tiles.called) == (way == "tiles")  # type: ignore[attr-defined]


def test_convolutions_in_tiles_of_any_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows narrower than a vector and wider ones, whole numbers of vectors and not, strides and dilations that share
    factors, more padding than kernel, inputs longer than what is read, against PyTorch."""
    monkeypatch.setattr(compiled, "LEAST", 1)
    monkeypatch.setattr("distgrad.ops.convolution._CHANNELS", 1)
    monkeypatch.setattr("distgrad.ops.convolution._WASTE", 100.0)
    in_way("tiles", monkeypatch)
    choose = np.random.default_rng(7)
    done = 0
    while done < 250:
        kind = choose.choice([np.float32, np.float64])
        n, c, o = choose.integers(1, 5, 3)
        groups = int(choose.choice([1, 1, 2, 3]))
        kernel_size, stride, dilation = (tuple(choose.integers(1, 5, 2).tolist()) for _ in range(3))
        padding = tuple(choose.integers(0, 4, 2).tolist())
        height, width = choose.integers(1, 40, 2)
        x, w = normal(kind, n, groups * c, height, width, seed=done), normal(kind, groups * o, c, *kernel_size, seed=done + 1)
        size = [(s + 2 * p - d * (k - 1) - 1) // t + 1
                for s, p, d, k, t in zip((height, width), padding, dilation, kernel_size, stride)]
        if min(size) < 1 or (kernel_size == (1, 1) and padding == (0, 0)):
            continue
        done += 1
        b = normal(kind, groups * o, seed=done + 2)
        tx, tw, tb = (torch.from_numpy(v).requires_grad_() for v in (x, w, b))
        y = torch.nn.functional.conv2d(tx, tw, tb, stride, padding, dilation, groups)
        g = normal(kind, *y.shape, seed=done + 3)
        y.backward(torch.from_numpy(g))
        attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        case = f"{x.shape} {w.shape} {attrs} {kind.__name__}"
        tolerance = {"rtol": 1e-4, "atol": 2e-4} if kind is np.float32 else {"rtol": 1e-10, "atol": 1e-11}
        tiles.called.clear()  # type: ignore[attr-defined]
        for name, operands, shape, expected in (
            ("conv_bias", (x, w, b), y.shape[2:], y.detach()), ("conv_input", (g, w), x.shape[2:], tx.grad),
            ("conv_weight", (x, g), kernel_size, tw.grad),
        ):
            (found,) = kernel(name, *operands, on=True, size=tuple(shape), **attrs)
            np.testing.assert_allclose(found, expected, **tolerance, err_msg=f"{name} {case}")
        assert len(tiles.called) >= 3, case  # type: ignore[attr-defined]


def test_weights_gradient_of_what_is_not_finite() -> None:
    """What stands at the start of the next row is read with a zero, and must not make a NaN of an infinity."""
    x, g = normal(np.float32, 2, 3, 30, 27), normal(np.float32, 2, 5, 28, 25, seed=1)
    x[0, 1, 4, 0], x[1, 2, 29, 26] = np.inf, np.nan
    attrs = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    (ours,) = kernel("conv_weight", x, g, on=True, size=(3, 3), **attrs)
    theirs = torch.nn.grad.conv2d_weight(torch.from_numpy(x), (5, 3, 3, 3), torch.from_numpy(g)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert np.isinf(ours).any()
    assert np.isfinite(ours).any()


def test_transposed_convolution_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    in_way("tiles", monkeypatch)
    x, w = normal(np.float32, 3, 5, 21, 19), normal(np.float32, 5, 4, 3, 4, seed=1)
    ours = dg.nn.functional.conv_transpose2d(dg.from_numpy(x), dg.from_numpy(w), None, (2, 3), (1, 0), (1, 2), 1, (1, 1))
    theirs = torch.nn.functional.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(w), None, (2, 3), (1, 0), (1, 2), 1,
                                                  (1, 1))
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-4)
    assert tiles.called  # type: ignore[attr-defined]


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


def with_edges(kind: Any, *shape: int) -> np.ndarray:
    """Gives numbers many of which are equal, with NaN, infinities and zeros of both signs among them."""
    x = np.round(20 * normal(kind, *shape))
    if x.dtype.kind == "f":
        flat = x.reshape(-1)
        flat[::97], flat[::31], flat[::501], flat[1::503] = np.nan, -0.0, np.inf, -np.inf
    return x


SHAPES = pytest.mark.parametrize("shape", [(SIZE + 1,), (9, 600), (600, 9), (3, 700, 5)], ids=str)


@SHAPES
@pytest.mark.parametrize("kind", ["float32", "float64", "int64", "int32"])
def test_sorts_are_stable_and_equal_torch(kind: str, shape: tuple[int, ...]) -> None:
    x = with_edges(kind, *shape)
    for dim in range(x.ndim):
        for descending in (False, True):
            theirs = torch.sort(torch.from_numpy(x), dim=dim, descending=descending, stable=True)
            for on in (True, False):
                values, places = kernel("sort", x, on=on, axis=dim, descending=descending)
                np.testing.assert_array_equal(values, theirs.values)
                np.testing.assert_array_equal(places, theirs.indices)
                np.testing.assert_array_equal(kernel("argsort", x, on=on, axis=dim, descending=descending)[0], places)
                zeros = values == 0
                np.testing.assert_array_equal(np.signbit(values[zeros]), np.signbit(theirs.values.numpy()[zeros]))


@SHAPES
@KINDS
def test_runs_and_extremes_along_a_dim_equal_torch(kind: Any, shape: tuple[int, ...]) -> None:
    x = with_edges(kind, *shape)
    tall = with_edges(kind, 200, 70)  # groups of rows, the last of them short
    for name, ours in (("max", "max_along"), ("min", "min_along")):
        for given in (tall, np.nan_to_num(tall, nan=-3), np.zeros_like(tall)):
            for mine, other in zip(kernel(ours, given, on=True, axis=0, keepdims=False),
                                   getattr(torch, name)(torch.from_numpy(given), 0), strict=True):
                np.testing.assert_array_equal(mine, other)
    given = torch.from_numpy(x)
    for dim in range(x.ndim):
        for name, ours in (("max", "max_along"), ("min", "min_along"), ("cummax", "cummax"), ("cummin", "cummin")):
            more = {"keepdims": False} if ours.endswith("along") else {}
            theirs = getattr(torch, name)(given, dim)
            for on in (True, False):
                for mine, other in zip(kernel(ours, x, on=on, axis=dim, **more), theirs, strict=True):
                    np.testing.assert_array_equal(mine, other)


@SHAPES
@KINDS
def test_running_sums_are_as_exact_as_torch(kind: Any, shape: tuple[int, ...]) -> None:
    x = 1 + 0.01 * normal(kind, *shape)
    for dim in range(x.ndim):
        for name, run in (("cumsum", np.cumsum), ("cumprod", np.cumprod)):
            exact = run(x, dim, dtype=np.longdouble)
            theirs = np.abs(getattr(torch, name)(torch.from_numpy(x), dim).numpy() - exact)
            (ours,) = agree(name, x, axis=dim, parts=8 if kind is np.float32 else 4 * x.shape[dim])
            rounding = np.finfo(kind).eps * np.abs(exact)
            assert np.max(np.abs(ours - exact) - rounding) <= np.max(theirs)
        agree("reverse_cumsum", x, axis=dim, parts=8 if kind is np.float32 else 4 * x.shape[dim])
    edges = with_edges(kind, *shape)
    for dim in range(x.ndim):
        with np.errstate(all="ignore"):
            agree("cumsum", edges, axis=dim, parts=1e4)


@SHAPES
@KINDS
def test_sums_of_squares_and_of_numbers_that_are_not_nan(kind: Any, shape: tuple[int, ...]) -> None:
    x = 1000 + normal(kind, *shape)
    given = torch.from_numpy(x)
    rounding = np.finfo(kind).eps
    for dim in [None, *range(x.ndim)]:
        axis = tuple(range(x.ndim)) if dim is None else (dim,)
        agree("sum", x, axis=axis, keepdims=True, parts=64)
        agree("norm", x, axis=axis, keepdims=False, parts=64)
        (variance,) = agree("variance", x, 7.0, axis=axis, keepdims=False, parts=1e3, size_of_terms=1)
        exact = x.astype(np.float64).var(axis) * (x.size if dim is None else x.shape[dim]) / 7
        np.testing.assert_allclose(variance, exact, rtol=1e3 * rounding, atol=1e3 * rounding)
        for name in ("var", "std"):
            ours = getattr(dg, name)(dg.from_numpy(x), dim).numpy()
            np.testing.assert_allclose(ours, getattr(torch, name)(given, dim), rtol=4e3 * rounding,
                                       atol=1e3 * rounding)
    y = with_edges(kind, *shape)
    np.testing.assert_array_equal(kernel("without_nan", y, on=True)[0], np.where(np.isnan(y), 0, y))
    agree("without_nan", y)


def test_variance_has_the_gradients_of_torch() -> None:
    x = normal(np.float64, 70, 61)
    for options in ({"dim": 0}, {"dim": None, "correction": 0}, {"dim": 1, "keepdim": True}):
        gradients = []
        for library, leaf in ((torch, torch.from_numpy(x.copy())), (dg, dg.from_numpy(x.copy()))):
            leaf.requires_grad_()
            (first,) = library.autograd.grad((library.var(leaf, **options) ** 2).sum(), leaf, create_graph=True)
            (first**2).sum().backward()
            gradients.append((first.detach().numpy(), leaf.grad.numpy()))
        for mine, other in zip(*gradients, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


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


@KINDS
def test_histograms_equal_torch(kind: Any) -> None:
    x = normal(kind, 2 * SIZE)
    x[::97], x[::501] = np.nan, 9
    rounded = np.round(x, 1)  # many elements on the edges of bins
    for bins, low, high in ((10, -2.0, 2.0), (7, -0.5, 3.25), (64, -4.0, 4.0)):
        found = []
        for on in (True, False):
            dg.set_fused_kernels(on)
            for library, given in ((dg, dg.from_numpy(x)), (torch, torch.from_numpy(x))):
                found.append(library.histogram(given, bins, range=(low, high))[0].numpy())
                np.testing.assert_array_equal(found[-1], found[0])
                np.testing.assert_array_equal(library.histc(given, bins, low, high).numpy(), found[0])
        for name in ("histogram", "histc"):
            counts = []
            for on in (True, False):
                dg.set_fused_kernels(on)
                given = dg.from_numpy(rounded)
                counts.append(dg.histc(given, bins, low, high) if name == "histc" else dg.histogram(
                    given, bins, range=(low, high))[0])
            np.testing.assert_array_equal(counts[0].numpy(), counts[1].numpy())


@SHAPES
@KINDS
def test_first_elements_are_those_of_a_stable_sort(kind: Any, shape: tuple[int, ...]) -> None:
    x = with_edges(kind, *shape)
    for dim, size in enumerate(shape):
        for largest, count in itertools.product((True, False), (1, min(5, size), min(16, size))):
            (ordered,) = kernel("argsort", x, on=False, axis=dim, descending=largest)
            for on in (True, False):
                (found,) = kernel("topk", x, on=on, axis=dim, count=count, largest=largest)
                np.testing.assert_array_equal(found, ordered.take(range(count), dim))


@SHAPES
@KINDS
def test_elements_read_and_written_along_a_dim_equal_torch(kind: Any, shape: tuple[int, ...]) -> None:
    x, src = normal(kind, *shape), normal(kind, *shape, seed=1)
    for dim, size in enumerate(shape):
        index = np.random.default_rng(dim).integers(0, size, shape)
        theirs = [torch.from_numpy(v) for v in (x, index, src)]
        for on in (True, False):
            np.testing.assert_array_equal(kernel("take_along", x, index, on=on, axis=dim)[0],
                                          torch.gather(theirs[0], dim, theirs[1]))
            np.testing.assert_array_equal(kernel("scatter", x, index, src, on=on, axis=dim)[0],
                                          torch.scatter(theirs[0], dim, theirs[1], theirs[2]))
            np.testing.assert_array_equal(kernel("scatter", x, index, 0.1, on=on, axis=dim)[0],
                                          torch.scatter(theirs[0], dim, theirs[1], 0.1))
        for wrong in (size, -1):
            index[(-1,) * len(shape)] = wrong
            for name, given in (("take_along", ()), ("scatter", (src,))):
                with pytest.raises(RuntimeError, match=f"index {wrong} is out of bounds for dimension {dim}"):
                    kernel(name, x, index, *given, on=True, axis=dim)
        np.testing.assert_array_equal(kernel("take_along", x, index, on=True, axis=dim, wrap=True)[0],
                                      np.take_along_axis(x, index, dim))


def test_permutations_are_the_same_bit_for_bit() -> None:
    for n in (SIZE, SIZE + 257, 60_000):
        found = []
        for on in (True, False):
            dg.set_fused_kernels(on)
            found.append(dg.randperm(n, generator=dg.Generator().manual_seed(n)).numpy())
        np.testing.assert_array_equal(found[0], found[1])
        theirs = torch.randperm(n, generator=torch.Generator().manual_seed(n))
        np.testing.assert_array_equal(found[0], theirs.numpy())


def test_every_kernel_is_compiled_ahead_for_the_types_it_is_called_with() -> None:
    from distgrad.kernels import compiling

    compiling.warm_up()
    assert len(compiling._kernels) > 20
    for dispatcher, words, kinds in compiling._kernels:
        if "slopes" not in dispatcher.py_func.__module__:  # the tests above have called the others for all kinds
            assert len(dispatcher.signatures) == len(kinds), dispatcher
        assert set(dispatcher.signatures) <= {compiling._signature(words, kind) for kind in kinds}, dispatcher
