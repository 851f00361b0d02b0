"""Contractions beyond the generic rows: equations at random against torch, errors, halves, and what moves."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.functions.contraction import multi_dot

torch = pytest.importorskip("torch")


def _equation(generator: random.Random) -> tuple[str, list[tuple[int, ...]]]:
    letters = "abcdef"
    sizes = {letter: generator.choice([1, 2, 3, 4]) for letter in letters}
    terms, shapes = [], []
    dots = [2, 3][: generator.randint(0, 2)] if generator.random() < 0.3 else None
    for _ in range(generator.randint(1, 3)):
        term = [generator.choice(letters) for _ in range(generator.randint(0, 4))]
        shape = [sizes[letter] for letter in term]
        if shape and generator.random() < 0.15:
            place = generator.randrange(len(shape))
            if term.count(term[place]) == 1:
                shape[place] = 1
        if dots is not None and generator.random() < 0.7:
            place = generator.randint(0, len(term))
            shape[place:place] = [generator.choice([1, n]) for n in dots[generator.randint(0, len(dots)) :]]
            term.insert(place, "...")
        terms.append("".join(term))
        shapes.append(tuple(shape))
    equation = ",".join(terms)
    if generator.random() < 0.7:
        every = sorted(set("".join(terms)) - {"."})
        generator.shuffle(every)
        output = "".join(every[: generator.randint(0, len(every))])
        equation += "->" + ("..." if "..." in equation and generator.random() < 0.8 else "") + output
    return equation, shapes


def _evaluate(library: Any, equation: str, values: list[np.ndarray]) -> Any:
    tensors = [library.from_numpy(np.array(v)).requires_grad_() for v in values]
    try:
        y = library.einsum(equation, *tensors)
    except RuntimeError as error:
        return type(error)
    weights = library.from_numpy(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
    first = library.autograd.grad((y * y * weights).sum(), tensors, create_graph=True)
    second = library.autograd.grad(sum((g * g).sum() for g in first), tensors)
    return [v.detach().numpy() for v in (y, *first, *second)]


@pytest.mark.parametrize("seed", range(3))
def test_random_equations_equal_torch(seed: int) -> None:
    generator = random.Random(seed)
    for number in range(60):
        equation, shapes = _equation(generator)
        values = [np.random.default_rng([seed, number, i]).standard_normal(s) for i, s in enumerate(shapes)]
        ours, theirs = _evaluate(dg, equation, values), _evaluate(torch, equation, values)
        if isinstance(theirs, type):
            assert ours is theirs, (equation, shapes)
            continue
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape, (equation, shapes)
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8, err_msg=f"{equation} {shapes}")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_halves_sum_in_float32(kind: str) -> None:
    dtype = getattr(dg, kind)
    a, b = dg.ones(2, 4096).to(dtype), dg.ones(4096, 3).to(dtype)
    for y in (dg.matmul(a, b), dg.einsum("ij,jk->ik", a, b), dg.nn.functional.linear(a, b.transpose(0, 1))):
        assert y.dtype is dtype
        assert y.float().tolist() == [[4096.0] * 3] * 2
    assert dg.einsum("ij->i", a).float().tolist() == [4096.0] * 2


def test_einsum_sums_long_axes_pairwise() -> None:
    x = dg.full((2**25,), 0.1)
    assert abs(dg.einsum("i->", x).item() / 2**25 - 0.1) < 1e-6


def test_multi_dot_takes_vectors_at_the_ends() -> None:
    values = [np.random.default_rng(i).standard_normal(s) for i, s in enumerate([(3,), (3, 5), (5, 2), (2,)])]
    found = multi_dot([dg.from_numpy(v) for v in values])
    np.testing.assert_allclose(found.numpy(), torch.linalg.multi_dot([torch.from_numpy(v) for v in values]).numpy())
    with pytest.raises(RuntimeError, match="expected at least 2 tensors but got 1"):
        multi_dot([dg.ones(2, 2)])


ERRORS = [
    (
        lambda: dg.matmul(dg.ones(32, 10), dg.ones(12, 4)),
        RuntimeError,
        "matmul: inner dimensions differ, (32, 10) @ (12, 4): 10 != 12",
    ),
    (lambda: dg.ones(3) @ dg.ones(4, 2), RuntimeError, "matmul: inner dimensions differ, (3,) @ (4, 2): 3 != 4"),
    (
        lambda: dg.matmul(dg.ones(3, 3), dg.ones(3, 3).double()),
        RuntimeError,
        "expected m1 and m2 to have the same dtype",
    ),
    (lambda: dg.matmul(dg.tensor(1.0), dg.ones(3)), RuntimeError, "need to be at least 1D, but they are 0D and 1D"),
    (lambda: dg.matmul(dg.ones(2, 2).bool(), dg.ones(2, 2).bool()), NotImplementedError, "not implemented for 'Bool'"),
    (lambda: dg.mm(dg.ones(3), dg.ones(3, 3)), RuntimeError, "mm: input must be a 2D tensor"),
    (lambda: dg.bmm(dg.ones(3, 2, 2), dg.ones(2, 2, 2)), RuntimeError, "bmm: batch sizes differ"),
    (lambda: dg.dot(dg.ones(3), dg.ones(4)), RuntimeError, "inconsistent tensor size"),
    (
        lambda: dg.addmm(dg.ones(5), dg.ones(3, 3), dg.ones(3, 4)),
        RuntimeError,
        "input [5] does not broadcast to [3, 4]",
    ),
    (lambda: dg.nn.functional.linear(dg.ones(2, 3), dg.ones(4, 5)), RuntimeError, "linear: inner dimensions differ"),
    (
        lambda: dg.tensordot(dg.ones(2, 3), dg.ones(4, 3), 1),
        RuntimeError,
        "first has size 3 in dim 1 and second has size 4",
    ),
    (lambda: dg.einsum("ij,jk", dg.ones(2, 4), dg.ones(5, 3)), RuntimeError, "subscript j has size 5 for operand 1"),
    (lambda: dg.einsum("ij->k", dg.ones(2, 3)), RuntimeError, "output subscript k does not appear"),
    (lambda: dg.einsum("ij->ii", dg.ones(2, 3)), RuntimeError, "output subscript i appears more than once"),
    (lambda: dg.einsum("ij", dg.ones(2)), RuntimeError, "the number of subscripts in the equation (2) does not match"),
    (lambda: dg.einsum("i-j", dg.ones(2, 3)), RuntimeError, "invalid subscript given at index 1"),
    (lambda: dg.einsum("ij,j", dg.ones(2, 3)), RuntimeError, "fewer operands were provided than specified"),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[text for _, _, text in ERRORS])
def test_errors(call: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()


def test_a_factor_is_saved_only_for_the_other_ones_gradient() -> None:
    for name in ("matmul", "linear", "einsum_pair"):
        op = dg.op.OPS[name]
        assert op.saved_for((True, False)) == ((1,), ())
        assert op.saved_for((False, True)) == ((0,), ())


def test_a_data_parallel_linear_moves_one_gradient() -> None:
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((24, 3, 5)), generator.standard_normal((4, 5))
    with dg.init(local_mode=True, num_workers=3):
        inputs = dg.shard(dg.from_numpy(x))
        weight = dg.replicate(dg.from_numpy(w)).requires_grad_()
        before = dg.stats()
        y = dg.nn.functional.linear(inputs, weight)
        assert y.placement is dg.Shard(0)
        (y * y).sum().backward()
        found = weight.grad.numpy()
        assert dg.stats().collectives - before.collectives <= 1
    np.testing.assert_allclose(found, 2 * np.einsum("bto,bti->oi", x @ w.T, x), rtol=1e-12)


def test_products_without_a_sum_keep_the_sign_of_zero() -> None:
    minus, zero = dg.full((120,), -1.0), dg.zeros(100)
    for product in (dg.einsum("i,j->ij", minus, zero), dg.outer(minus, zero)):
        assert np.signbit(product.numpy()).all()
