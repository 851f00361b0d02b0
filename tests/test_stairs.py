"""Products up to a staircase: what they leave out is 0 exactly, and causal attention by them is torch's.

The oracle is the whole product with everything above the staircase set to 0; of attention, torch's own, and its formula
for second derivatives, which its fused attention has not.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import distgrad as dg
from distgrad.op import OPS
from distgrad.ops import stairs

LENGTHS = [1, 31, 64, 70, 129, 520]
KINDS = [(np.float64, 1e-12), (np.float32, 1e-4), (np.float16, 2e-2), (ml_dtypes.bfloat16, 1e-1)]
DATA = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return DATA.standard_normal(shape)


def staircase(rows: int) -> np.ndarray:
    """1 for the columns that a row's step takes."""
    mask = np.zeros((rows, rows))
    for first, last in stairs.steps(rows):
        mask[first:last, :last] = 1
    return mask


@pytest.mark.parametrize("rows", LENGTHS)
def test_steps_cover_the_diagonal_and_what_is_below(rows: int) -> None:
    mask = staircase(rows)
    assert (np.tril(mask) == np.tri(rows)).all()
    assert len(stairs.steps(rows)) <= 17
    assert rows < 200 or mask.sum() < 0.56 * rows * rows


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
@pytest.mark.parametrize("rows", LENGTHS)
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_products_up_to_the_staircase(batch: tuple[int, ...], rows: int, kind: Any, tolerance: float) -> None:
    mask = staircase(rows)
    a, b = (normal(*batch, 5, rows).swapaxes(-1, -2).astype(kind) for _ in range(2))  # not as it lies in memory
    square = normal(*batch, rows, rows).astype(kind)
    square[..., mask == 0] = np.nan  # is not looked at
    below = np.where(mask == 1, square, 0).astype(np.float64)
    wide, other = a.astype(np.float64), b.astype(np.float64)
    close = {"rtol": tolerance, "atol": tolerance * (1 + rows) ** 0.5}
    for name, inputs, expected in (
        ("stair_scores", (a, b), mask * (wide @ other.swapaxes(-1, -2))),
        ("stair_product", (square, b), below @ other),
        ("stair_product_turned", (square, b), below.swapaxes(-1, -2) @ other),
    ):
        made = OPS[name].kernel(*inputs)
        assert made.dtype == kind
        np.testing.assert_allclose(made.astype(np.float64), expected, **close, err_msg=name)
    scores = OPS["stair_scores"].kernel(a, b)
    assert not scores[..., mask == 0].any()


@pytest.mark.parametrize("rows", [64, 70])
@pytest.mark.parametrize("op", ["stair_scores", "stair_product", "stair_product_turned"])
def test_derivatives_of_any_order(op: str, rows: int) -> None:
    torch = pytest.importorskip("torch")
    arrays = [normal(2, rows, 3) if op == "stair_scores" else normal(2, rows, rows), normal(2, rows, 3)]
    cotangents = [normal(*a.shape) for a in arrays]
    mask = torch.tensor(staircase(rows))

    def theirs(a: Any, b: Any) -> Any:
        if op == "stair_scores":
            return mask * (a @ b.mT)
        return (mask * a).mT @ b if op == "stair_product_turned" else (mask * a) @ b

    found = []
    for T, function in ((dg, OPS[op]), (torch, theirs)):
        inputs = [T.tensor(a).requires_grad_() for a in arrays]
        first = T.autograd.grad(function(*inputs).sin().sum(), inputs, create_graph=True)
        both = sum((g * T.tensor(c)).sum() for g, c in zip(first, cotangents))
        found.append([g.detach().numpy() for g in (*first, *T.autograd.grad(both, inputs))])
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def attended(T: Any, arrays: list[np.ndarray], place: Any = lambda t: t) -> list[np.ndarray]:
    """Gives causal attention and its gradients."""
    inputs = [place(T.tensor(a)).requires_grad_() for a in arrays]
    y = T.nn.functional.scaled_dot_product_attention(*inputs, is_causal=True)
    y.sin().sum().backward()
    return [t.detach().numpy() for t in (y, *(i.grad for i in inputs))]


@pytest.mark.parametrize("shapes", [
    ((2, 3, 64, 4),) * 3, ((5, 130, 8), (5, 130, 8), (5, 130, 3)), ((70, 6),) * 3, ((2, 1, 300, 16),) * 3,
    ((2, 64, 4), (2, 80, 4), (2, 80, 4)), ((2, 3, 64, 4), (3, 64, 4), (3, 64, 4)), ((2, 63, 4),) * 3,
])
def test_causal_attention_is_torchs(shapes: Any) -> None:
    torch = pytest.importorskip("torch")
    arrays = [normal(*shape) for shape in shapes]
    for ours, theirs in zip(attended(dg, arrays), attended(torch, arrays), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("dim", [0, 1, 2, None])
def test_causal_attention_on_workers(workers: int, dim: int | None) -> None:
    arrays = [normal(4, 3, 70, 5) for _ in range(3)]
    expected = attended(dg, arrays)
    with dg.init(local_mode=True, num_workers=workers):
        place = (lambda t: dg.replicate(t)) if dim is None else (lambda t: dg.shard(t, dim))
        for ours, theirs in zip(attended(dg, arrays, place), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_factors_that_do_not_fit_are_refused_as_before() -> None:
    q, k = dg.randn(2, 70, 4), dg.randn(2, 70, 5)
    with pytest.raises(RuntimeError, match="inner dimensions differ"):
        dg.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True)
    with pytest.raises(RuntimeError, match="expected m1 and m2 to have the same dtype"):
        dg.nn.functional.scaled_dot_product_attention(q, q.double(), q, is_causal=True)
