"""Several slices in one op, x[i, j] and x[1, 2:5]: against torch, and where a session begins after the view was taken."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.functions import subscript as functions
from distgrad.op import OPS

torch = pytest.importorskip("torch")

_SHAPE = (4, 5, 6, 3)


def _keys() -> list[tuple[Any, ...]]:
    draw = random.Random(0)
    keys: list[tuple[Any, ...]] = [(1, 2), (-1, slice(1, 4)), (slice(None), 3), (..., 2), (2, ..., 0), (None, 1, None, 2)]
    while len(keys) < 60:
        key: list[Any] = []
        for size in _SHAPE[: draw.randint(1, 4)]:
            start = draw.randrange(-size, size)
            key.append(draw.choice([start, slice(None), slice(draw.randrange(size), None, draw.choice([1, 2, 3])),
                                    slice(start, size), slice(2, 1)]))
        if draw.random() < 0.3:
            key.insert(draw.randint(0, len(key)), None)
        keys.append(tuple(key))
    return keys


def _calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Gives a list that every call of the op is added to."""
    op, seen = functions.subscript, []

    def noted(*args: Any, **attrs: Any) -> Any:
        seen.append(attrs)
        return op(*args, **attrs)

    monkeypatch.setattr(functions, "subscript", noted)
    return seen


def test_keys_of_slices_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, strides, offsets, both derivatives, and what is written into the view."""
    seen = _calls(monkeypatch)
    data = np.random.default_rng(0).standard_normal(_SHAPE)
    for key in _keys():
        results = []
        for T in (torch, dg):
            x = T.from_numpy(data.copy()).requires_grad_()
            taken = x[key]
            (first,) = T.autograd.grad((taken ** 3).sum(), x, create_graph=True)
            (second,) = T.autograd.grad((first * first).sum(), x)
            base = (x * 1).detach()
            row = base[key]
            row.mul_(2)
            written = x * 1
            written[key] = taken * 3
            (through,) = T.autograd.grad((written ** 2).sum(), x)
            steps = tuple(step for size, step in zip(taken.shape, taken.stride()) if size > 1)  # those that are taken
            place = (steps, taken.storage_offset()) if taken.numel() else None
            results.append(((tuple(taken.shape), place), [taken, first, second, base, row, written, through]))
        (place, theirs), (ours_place, ours) = results
        assert ours_place == place, key
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-12, atol=1e-12, err_msg=str(key))
    assert {len(attrs["axes"]) for attrs in seen} == {1, 2, 3}  # a fourth axis takes the longer way


@pytest.mark.parametrize("key", [(1, 2), (1, slice(0, 3)), (slice(0, 2), slice(1, 3))])
def test_a_view_shares_memory_and_is_named_as_torchs(key: tuple[Any, ...]) -> None:
    for T in (torch, dg):
        array = np.arange(12.0).reshape(3, 4)
        part = T.from_numpy(array)[key]
        array += 1
        np.testing.assert_array_equal(part.numpy(), array[key])
    names = {type(T.ones(3, 4, requires_grad=True)[key].grad_fn).__name__ if T is torch
             else T.ones(3, 4, requires_grad=True)[key].grad_fn.name() for T in (torch, dg)}
    assert len(names) == 1, names


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_view_taken_before_the_session_follows_its_base_into_it(workers: int) -> None:
    """The op has no rows of its own on workers: what it is given is gathered, and its gradient comes back whole."""
    base = dg.arange(12.0).reshape(4, 3).clone()
    number, row = base[1, 2], base[2, 1:]
    leaf = dg.arange(12.0).reshape(4, 3).requires_grad_()
    product = leaf[1, 2] * leaf[3, :2].sum()
    with dg.init(local_mode=True, num_workers=workers):
        base += dg.shard(dg.ones(4, 3))
        assert number.item() == 6.0
        assert row.tolist() == [8.0, 9.0]
        row.mul_(dg.shard(dg.tensor([2.0, 3.0])))
        assert base.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 16.0, 27.0], [10.0, 11.0, 12.0]]
        (product * dg.shard(dg.ones(5)).sum()).backward()
        assert leaf.grad is not None
        assert leaf.grad[1, 2].item() == 5 * 19.0
        assert leaf.grad[3].tolist() == [25.0, 25.0, 0.0]
        assert leaf.grad.sum().item() == 5 * 19.0 + 50.0


def test_workers_get_slices_and_not_this_op() -> None:
    """Rows of a sharded tensor stay where they are: `slice` knows the way to them."""
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.arange(20.0).reshape(5, 4))
        program = str(dg.explain(x[1:4, 2]))
        assert "subscript" not in program
        assert "slice" in program
        assert x[1:4, 2].tolist() == [6.0, 10.0, 14.0]


def test_the_transpose_is_its_own_transpose() -> None:
    """embed_subscript's gradient is subscript: of random values, both ways of the inner product agree."""
    draw = np.random.default_rng(1)
    attrs = {"axes": (0, 2), "sizes": (1, 2), "steps": (1, 2)}
    x, g = draw.standard_normal((3, 4, 5)), draw.standard_normal((4, 2))
    forward = OPS["subscript"].kernel(x, 2, 1, 0, shape=(4, 2), **attrs)
    back = OPS["embed_subscript"].kernel(g, 2, 1, 0, shape=(3, 4, 5), **attrs)
    np.testing.assert_allclose((forward * g).sum(), (x * back).sum())
    np.testing.assert_array_equal(forward, x[2, :, 1:5:2])
