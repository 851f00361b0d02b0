"""Compiled loops of layers, normalizations, pooling and convolutions, against numpy's and PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from loops import KINDS, SIZE, agree, both_settings, kernel, normal  # noqa: F401  # a fixture

import distgrad as dg
from distgrad.kernels import compiled, tiles


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
        if done % 4 == 0:  # a channel of its own for each result
            c, o, groups = 1, 1, 3
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
        w.flags.writeable = b.flags.writeable = done % 3 > 0  # what a worker is sent cannot be written to
        tx, tw, tb = (torch.from_numpy(v.copy()).requires_grad_() for v in (x, w, b))
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
