"""A first session at the prompt prints what PyTorch prints, character for character (our module's name in dtypes)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

X, Y = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]


def _gradient(T: Any) -> Any:
    x = T.tensor(2.0, requires_grad=True)
    y = x**2 + 3 * x + 1
    y.backward()
    return x.grad


def _mean_gradient(T: Any) -> Any:
    x = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * 2).mean().backward()
    return x.grad


SESSION: list[tuple[Callable[[Any], Any], str]] = [
    (lambda T: T.tensor([1, 2, 3]), "tensor([1, 2, 3])"),
    (lambda T: T.zeros((2, 3)), "tensor([[0., 0., 0.],\n        [0., 0., 0.]])"),
    (lambda T: T.tensor(X) + T.tensor(Y), "tensor([[ 6.,  8.],\n        [10., 12.]])"),
    (lambda T: T.tensor(X) * T.tensor(Y), "tensor([[ 5., 12.],\n        [21., 32.]])"),
    (lambda T: T.matmul(T.tensor(X), T.tensor(Y)), "tensor([[19., 22.],\n        [43., 50.]])"),
    (lambda T: T.arange(12).shape, "torch.Size([12])"),
    (
        lambda T: T.arange(12).reshape(3, 4),
        "tensor([[ 0,  1,  2,  3],\n        [ 4,  5,  6,  7],\n        [ 8,  9, 10, 11]])",
    ),
    (lambda T: T.arange(12).reshape(3, 4).shape, "torch.Size([3, 4])"),
    (lambda T: T.arange(3).unsqueeze(0), "tensor([[0, 1, 2]])"),
    (lambda T: T.arange(3).unsqueeze(0).shape, "torch.Size([1, 3])"),
    (lambda T: T.arange(3).unsqueeze(0).squeeze(0), "tensor([0, 1, 2])"),
    (lambda T: T.arange(3).unsqueeze(0).squeeze(0).shape, "torch.Size([3])"),
    (lambda T: T.from_numpy(np.array([1, 2, 3])), "tensor([1, 2, 3])"),
    (lambda T: T.from_numpy(np.array([1.0, 2.0])), "tensor([1., 2.], dtype=distgrad.float64)"),
    (lambda T: T.tensor([1, 2, 3]).numpy(), "array([1, 2, 3])"),
    (lambda T: T.tensor(2.0, requires_grad=True), "tensor(2., requires_grad=True)"),
    (_gradient, "tensor(7.)"),
    (_mean_gradient, "tensor([0.6667, 0.6667, 0.6667])"),
    (lambda T: T.tensor(X) > 2, "tensor([[False, False],\n        [ True,  True]])"),
    (lambda T: T.tensor([1.5, float("nan"), float("inf")]), "tensor([1.5000,    nan,    inf])"),
    (lambda T: T.tensor([1e-8, 1.0]), "tensor([1.0000e-08, 1.0000e+00])"),
    (lambda T: T.arange(2000), "tensor([   0,    1,    2,  ..., 1997, 1998, 1999])"),
    (lambda T: T.tensor([]), "tensor([])"),
    (lambda T: T.zeros(0, 3), "tensor([], size=(0, 3))"),
    (lambda T: T.float64, "distgrad.float64"),
    (lambda T: T.device("cpu"), "device(type='cpu')"),
    (lambda T: T.tensor(X).dtype, "distgrad.float32"),
    (lambda T: T.finfo(T.float32), "finfo(resolution=1e-06, min=-3.40282e+38, max=3.40282e+38, eps=1.19209e-07, "
     "smallest_normal=1.17549e-38, tiny=1.17549e-38, dtype=float32)"),
    (lambda T: T.iinfo(T.int64), "iinfo(min=-9.22337e+18, max=9.22337e+18, dtype=int64)"),
    (
        lambda T: T.max(T.tensor(X), 1),
        "torch.return_types.max(\nvalues=tensor([2., 4.]),\nindices=tensor([1, 1]))",
    ),
]  # fmt: skip


@pytest.mark.parametrize("line", range(len(SESSION)))
def test_session(line: int) -> None:
    call, text = SESSION[line]
    assert repr(call(dg)) == text


@pytest.mark.parametrize("line", range(len(SESSION)))
def test_the_texts_are_pytorchs(line: int) -> None:
    torch = pytest.importorskip("torch")
    call, text = SESSION[line]
    assert repr(call(torch)) == text.replace("distgrad.", "torch.")


def test_long_and_wide_tensors_are_summarised_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    for shape in ((1001,), (40, 40), (3, 30, 30), (1100, 2)):
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        text = repr(dg.from_numpy(values))
        assert text == repr(torch.from_numpy(values))
        assert "..." in text


def test_randn_is_reproducible_under_a_seed() -> None:
    dg.manual_seed(7)
    first = dg.randn(3, 4)
    assert not bool((first == dg.randn(3, 4)).any())
    dg.manual_seed(7)
    assert bool((first == dg.randn(3, 4)).all())
    assert first.dtype is dg.float32


def test_print_options_apply_and_come_back() -> None:
    x = dg.tensor([1.23456789, 2.0])
    with dg.printoptions(precision=2):
        assert repr(x) == "tensor([1.23, 2.00])"
    assert repr(x) == "tensor([1.2346, 2.0000])"


def test_a_sharded_tensor_prints_like_a_local_one() -> None:
    whole = [dg.arange(50.0).reshape(25, 2), dg.arange(4000).reshape(2000, 2), dg.arange(3)]
    texts = [repr(t) for t in whole]
    with dg.init(num_workers=3, local_mode=True):
        assert [repr(dg.shard(t)) for t in whole] == texts
