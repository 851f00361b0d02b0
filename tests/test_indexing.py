"""Indexing beyond the generic rows: keys at random against torch, views, errors, and what moves between workers."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


# Keys at random ---------------------------------------------------------------------------------------------


def _key(generator: random.Random, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Gives a random key; index tensors and masks are numpy arrays marked for conversion."""
    items: list[Any] = []
    dim = 0
    common = generator.choice([(3,), (1,), (2, 3), (2, 1)])
    draw = np.random.default_rng(generator.randrange(1 << 30))
    while dim < len(shape) and generator.random() < 0.85:
        size = shape[dim]
        kind = generator.choice(
            ["int", "slice", "slice", "none", "ellipsis", "tensor", "tensor", "list", "mask", "bool"]
        )
        if kind == "int":
            items.append(generator.randrange(-size, size))
        elif kind == "slice":
            ends = [generator.choice([None, generator.randint(-size - 1, size + 1)]) for _ in range(2)]
            items.append(slice(*ends, generator.choice([None, 1, 2, 3])))
        elif kind == "none":
            items.append(None)
        elif kind == "bool":
            items.append(generator.random() < 0.7)
        elif kind == "ellipsis":
            if Ellipsis in [i for i in items if not isinstance(i, np.ndarray)]:
                continue
            items.append(Ellipsis)
            dim += generator.randint(0, len(shape) - dim) - 1
        elif kind == "tensor":
            items.append(draw.integers(-size, size, generator.choice([common, (common[-1],), (1,)])))
        elif kind == "list":
            items.append([generator.randrange(-size, size) for _ in range(3)])
        elif dim + 1 < len(shape) and generator.random() < 0.3:
            items.append(draw.random((size, shape[dim + 1])) < 0.3)
            dim += 1
        else:
            items.append(draw.random(size) < 0.5)
        dim += kind not in ("none", "bool")
    return tuple(items)


def _run(library: Any, values: np.ndarray, key: tuple[Any, ...], number: bool) -> dict[str, Any]:
    own = tuple(library.from_numpy(k) if isinstance(k, np.ndarray) else k for k in key)
    x = library.from_numpy(values.copy()).requires_grad_()
    found: dict[str, Any] = {}
    try:
        y = x[own]
        weights = library.from_numpy(np.cos(np.arange(y.numel())).reshape(tuple(y.shape)))
        found["value"], found["grad"] = y.detach().numpy(), library.autograd.grad((y * weights).sum(), [x])[0].numpy()
        z = x * 1.0
        new = 2.5 if number else library.from_numpy(np.arange(1.0, 1 + y.numel()).reshape(tuple(y.shape)))
        z[own] = new
        weights = library.from_numpy(np.cos(np.arange(values.size)).reshape(values.shape))
        found["assigned"] = z.detach().numpy()
        found["assigned_grad"] = library.autograd.grad((z * weights).sum(), [x])[0].numpy()
    except (IndexError, RuntimeError, ValueError) as error:
        found["error"] = type(error)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_random_keys_equal_torch(seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(100):
        shape = tuple(generator.choice([1, 2, 3, 4, 5]) for _ in range(generator.randint(0, 4)))
        key = _key(generator, shape)
        values = np.random.default_rng(generator.randrange(1 << 30)).standard_normal(shape)
        number = generator.random() < 0.4
        ours, theirs = _run(dg, values, key, number), _run(torch, values, key, number)
        assert ours.keys() == theirs.keys(), (shape, key)
        for name, value in theirs.items():
            if name == "error":
                assert ours[name] is value, (shape, key)
            else:
                np.testing.assert_array_equal(ours[name], value, err_msg=f"{name} of {shape} {key}")


# Views and memory -------------------------------------------------------------------------------------------


def test_basic_keys_give_views() -> None:
    x = dg.tensor(np.zeros((4, 3)))
    row = x[1]
    row += 1.0
    part = x[2:, :2]
    part[0, 1] = 5.0
    np.testing.assert_array_equal(x.numpy(), [[0, 0, 0], [1, 1, 1], [0, 5, 0], [0, 0, 0]])
    x[3] = 7.0
    np.testing.assert_array_equal(part.numpy(), [[0, 5], [7, 7]])


def test_index_tensors_give_copies() -> None:
    x = dg.tensor(np.zeros(4))
    taken = x[dg.tensor([1, 2])]
    taken += 1.0
    assert not x.numpy().any()


def test_several_index_tensors_at_once() -> None:
    values = np.arange(60.0).reshape(3, 4, 5)
    i, j = np.array([[0, -1], [2, 1]]), np.array([[3, 0], [-4, 1]])
    for n in (dg, torch):
        x, a, b = n.tensor(values), n.tensor(i), n.tensor(j)
        np.testing.assert_array_equal(x[a, b].numpy(), values[i, j])
        np.testing.assert_array_equal(x[a, b, b].numpy(), values[i, j, j])
        np.testing.assert_array_equal(x.permute(2, 0, 1)[b, a].numpy(), values.transpose(2, 0, 1)[j, i])
        x[a, b].add_(1)  # a copy
        np.testing.assert_array_equal(x.numpy(), values)
        for key in ((a, b, b, b), (a, b + 1), (b, a)):
            with pytest.raises(IndexError):
                x[key]
    with pytest.raises(IndexError, match="index 4 is out of bounds for dimension 1 with size 4"):
        dg.tensor(values)[dg.tensor(i), dg.tensor(j) + 1]


def test_assigning_all_copies_the_value() -> None:
    memory = np.ones(3)
    value = dg.from_numpy(memory)
    x = dg.tensor(np.zeros(3))
    x[:] = value
    value.add_(1.0)
    np.testing.assert_array_equal(x.numpy(), np.ones(3))


def test_a_gather_saves_only_its_index() -> None:
    assert dg.op.OPS["take_along"].saved_for((True, False)) == ((1,), ())
    assert dg.op.OPS["take_rows"].saved_for((True, False)) == ((1,), ())


# Errors -----------------------------------------------------------------------------------------------------

ERRORS = [
    (lambda: dg.ones(3)[5], IndexError, "index 5 is out of bounds for dimension 0 with size 3"),
    (lambda: dg.ones(2, 3)[0, -4], IndexError, "index -4 is out of bounds for dimension 1 with size 3"),
    (lambda: dg.ones(3)[0, 0], IndexError, "too many indices for tensor of dimension 1"),
    (lambda: dg.tensor(3.0)[0], IndexError, "invalid index of a 0-dim tensor"),
    (lambda: dg.ones(3)[::-1], ValueError, "step must be greater than zero"),
    (lambda: dg.ones(3)[1.5], IndexError, "only integers, slices"),
    (
        lambda: dg.ones(3)[dg.tensor([1.0])],
        IndexError,
        "tensors used as indices must be long, int, byte or bool tensors",
    ),
    (lambda: dg.ones(3)[dg.tensor([True])], IndexError, "The shape of the mask [1] at index 0 does not match"),
    (lambda: dg.ones(3, 4)[[0, 1], [0, 1, 2]], IndexError, "could not be broadcast together with shapes [2], [3]"),
    (lambda: dg.ones(3, 4)[dg.tensor([0, 1]), dg.tensor([0, 1, 2])], IndexError, "with shapes [2], [3]"),
    (lambda: dg.ones(3)[dg.tensor([0, 3])], IndexError, "index 3 is out of bounds for dimension 0 with size 3"),
    (
        lambda: dg.ones(3, 4)[dg.tensor([0, 1]), dg.tensor([0, 9])],
        IndexError,
        "index 9 is out of bounds for dimension 1",
    ),
    (lambda: dg.ones(3).__setitem__(0, [1.0]), TypeError, "can't assign a list"),
    (lambda: dg.ones(3).__setitem__(0, 1j), RuntimeError, "cannot be converted to type float32"),
    (lambda: dg.ones(3).__setitem__([0, 1], dg.ones(3)), RuntimeError, "value tensor of shape [3] cannot be broadcast"),
    (
        lambda: dg.gather(dg.ones(3), 0, dg.tensor([-1])),
        RuntimeError,
        "index -1 is out of bounds for dimension 0 with size 3",
    ),
    (lambda: dg.gather(dg.ones(3, 2), 0, dg.zeros(1, 5).long()), RuntimeError, "no larger than self [3, 2]"),
    (lambda: dg.index_select(dg.ones(3), 0, dg.tensor([-1])), IndexError, "index -1 is out of bounds"),
    (
        lambda: dg.scatter_add(dg.ones(3), 0, dg.tensor([0]), dg.ones(1).double()),
        RuntimeError,
        "self.dtype to be equal",
    ),
    (lambda: dg.masked_fill(dg.ones(3), dg.ones(3), 1.0), RuntimeError, "only supports boolean masks"),
    (lambda: dg.masked_scatter(dg.ones(3), dg.ones(3).bool(), dg.ones(2)), RuntimeError, "(2 < 3)"),
    (
        lambda: dg.nn.functional.one_hot(dg.tensor([5]), 3),
        RuntimeError,
        "Class values must be smaller than num_classes, got 5",
    ),
    (lambda: dg.nn.functional.embedding(dg.tensor([3]), dg.ones(3, 2)), IndexError, "index 3 is out of bounds"),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[text for _, _, text in ERRORS])
def test_errors(call: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=re.escape(text)):
        call()


# Values the rows do not reach -------------------------------------------------------------------------------


def test_embedding_max_norm_shortens_used_rows_in_place() -> None:
    values = np.random.default_rng(0).standard_normal((6, 4)) * 3
    index = np.array([[0, 2], [2, 5]])
    results = []
    for library in (torch, dg):
        weight = library.from_numpy(values.copy())
        out = library.nn.functional.embedding(library.from_numpy(index), weight, max_norm=1.0)
        results.append((out.numpy(), weight.numpy()))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-6)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-6)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_halves_add_in_float32(kind: str) -> None:
    ones = dg.ones(5000, 2).to(getattr(dg, kind))
    total = dg.index_add(dg.zeros(1, 2).to(getattr(dg, kind)), 0, dg.zeros(5000).long(), ones)
    assert total.float().tolist() == [[4992.0 if kind == "bfloat16" else 5000.0] * 2]
    along = dg.scatter_add(dg.zeros(1).to(getattr(dg, kind)), 0, dg.zeros(5000).long(), ones[:, 0])
    assert along.float().tolist() == [4992.0 if kind == "bfloat16" else 5000.0]


def test_many_rows_are_added_as_few_are() -> None:
    generator = np.random.default_rng(3)
    g, index = generator.standard_normal((900, 2, 7)), generator.integers(0, 40, 900)
    found = dg.index_add(
        dg.zeros(2, 40, 7).double(), 1, dg.from_numpy(index), dg.from_numpy(g.transpose(1, 0, 2).copy())
    )
    expected = np.zeros((40, 2, 7))
    np.add.at(expected, index, g)
    np.testing.assert_allclose(found.numpy(), expected.transpose(1, 0, 2), rtol=1e-12)


# On workers -------------------------------------------------------------------------------------------------


def test_another_slice_start_builds_no_program() -> None:
    x = np.arange(60.0).reshape(20, 3)
    with dg.init(local_mode=True, num_workers=3):
        t = dg.shard(dg.from_numpy(x))
        sums = []
        built = 0
        for start in range(0, 16, 4):
            sums.append((t[start : start + 4] * 2.0).sum().item())
            if start == 4:
                built = dg.stats().programs_built
        assert dg.stats().programs_built == built
    assert sums == [2 * x[i : i + 4].sum() for i in range(0, 16, 4)]


def test_only_rows_asked_for_move() -> None:
    x = np.random.default_rng(0).standard_normal((3000, 8))
    index = np.array([5, 2999, 1500, 7])
    with dg.init(local_mode=True, num_workers=3):
        t = dg.shard(dg.from_numpy(x))
        i = dg.replicate(dg.from_numpy(index))
        before = dg.stats().bytes_sent
        y = t[i]
        dg.synchronize()
        moved = dg.stats().bytes_sent - before
        assert isinstance(y.placement, dg.Shard)
        np.testing.assert_array_equal(y.numpy(), x[index])
    assert moved <= len(index) * 8 * 8


def test_rows_of_a_sharded_tensor_are_written_where_they_are() -> None:
    x = np.random.default_rng(0).standard_normal((30, 4))
    with dg.init(local_mode=True, num_workers=3):
        t = dg.shard(dg.from_numpy(x.copy()))
        i = dg.replicate(dg.from_numpy(np.array([2, -1, 17])))
        before = dg.stats().bytes_sent
        t[i] = 9.0
        t[t > 1] = 0.0
        dg.synchronize()
        assert dg.stats().bytes_sent == before
        expected = x.copy()
        expected[[2, -1, 17]] = 9.0
        expected[expected > 1] = 0.0
        assert isinstance(t.placement, dg.Shard)
        np.testing.assert_array_equal(t.numpy(), expected)


def test_an_index_out_of_range_on_workers_names_it() -> None:
    with dg.init(local_mode=True, num_workers=2):
        t = dg.shard(dg.ones(10, 3))
        i = dg.replicate(dg.from_numpy(np.array([2, 10])))
        with pytest.raises(Exception, match="index 10 is out of bounds for dimension 0 with size 10") as caught:
            t[i].numpy()
        assert type(caught.value).__name__ in ("RemoteOpError", "IndexError")
        assert t.sum().item() == 30.0


@pytest.mark.parametrize("include_self", [True, False])
def test_scattered_products_with_zeros_have_right_second_derivatives(include_self: bool) -> None:
    """With one zero, or two, in a place the slopes of the slopes are products without both; torch has 0 there."""
    x = dg.tensor([0.0, 2.0, 3.0], dtype=dg.float64, requires_grad=True)
    src = dg.tensor([0.5, 0.0, 0.0, 1.5, 2.5], dtype=dg.float64, requires_grad=True)
    index = dg.tensor([0, 1, 1, 2, 2])

    def product(x: Any, src: Any) -> Any:
        return dg.scatter_reduce(x, 0, index, src, "prod", include_self=include_self)

    assert dg.autograd.gradcheck(product, (x, src))
    assert dg.autograd.gradgradcheck(product, (x, src))


def test_one_value_in_many_rows_counts_once() -> None:
    """index_fill with a row named twice: the value's gradient is that of the rows, not of the index."""
    x = dg.zeros(3, 2, requires_grad=True)
    value = dg.tensor(1.5, requires_grad=True)
    dg.index_fill(x, 0, dg.tensor([1, 1, 2]), value).sum().backward()
    assert value.grad.item() == 4.0


def test_gather_of_nothing_takes_an_index_of_any_dims() -> None:
    found = dg.gather(dg.ones(5), 0, dg.zeros(2, 0, dtype=dg.int64))
    assert found.shape == (2, 0)
