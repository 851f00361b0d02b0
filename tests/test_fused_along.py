"""Compiled loops along a dim: sorts, running results, extremes, sums and indices, against numpy's and PyTorch's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from loops import KINDS, SIZE, agree, both_settings, kernel, normal  # noqa: F401  # a fixture

import distgrad as dg


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
