"""In-place methods of large local tensors write to their own memory; every program here runs on torch, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import distgrad as dg
from distgrad import writing

SIZE = writing.LEAST * 8


def both(program: Callable[[Any], Any]) -> None:
    """Runs a program on torch and on distgrad, and compares the tensors it gives."""
    theirs, ours = (program(library) for library in (torch, dg))
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-6)


def numbers(n: Any, scale: float = 0.01) -> Any:
    return n.arange(SIZE, dtype=n.float32) * scale


def in_place_views(n: Any) -> Any:
    x = numbers(n)
    y, v, d, z = x.clone(), x[10:4500], x.detach(), x.view(64, -1)
    x += 1
    x *= y
    v.sub_(3)
    z[3:5] = 7
    d.div_(2)
    return x, y, v, d, z


def in_place_names(n: Any) -> Any:
    x = numbers(n)
    mask, other, held = x > 20, x, [x]
    x[mask] = 5
    x[:] = x * 2
    other += 1
    x.copy_(numbers(n, 0.001))
    x.exp_().clamp_(0, 1e6).sqrt_().neg_()
    x[1:] = x[:-1].clone()
    return x, other, held[0]


def in_place_numpy(n: Any) -> Any:
    array = np.arange(SIZE, dtype=np.float32)
    x, y = n.from_numpy(array), n.from_numpy(array)
    x += 1
    y *= 2
    x.clamp_(0, 5)
    seen = n.from_numpy(array.copy())
    own = numbers(n)
    given = own.numpy()
    own -= 3
    return x, y, seen, n.from_numpy(given)


def in_place_gradients(n: Any) -> Any:
    w = numbers(n).requires_grad_()
    b = numbers(n, 0.5)
    (w * b).sum().backward()
    with n.no_grad():
        w -= 0.1 * w.grad
    g = w.grad
    g.mul_(2)
    b.add_(1)
    first = g.clone()
    w.grad.zero_()
    h = w * 2
    h += 1
    k = (h * h).clone()
    k *= h
    k[5:50] = 0
    k.sum().backward()
    return w, w.grad, g, b, first, k


def in_place_shapes(n: Any) -> Any:
    x = numbers(n).view(64, -1).clone()
    y, r, s, u = x, x.sum(0), x.expand(2, *x.shape), x.t().contiguous()
    x -= r
    x /= n.ones(64, 1) * 2
    x[2:4, 5:] = r[5:]
    x[:, -3:] = 1
    x[10] = 2
    u += 3
    e = n.ones(SIZE)
    e.gt_(numbers(n))
    e += n.ones(1)
    e -= x.sum()
    e.fill_(2).mul_(e)
    return x, y, r, s, u, e


@pytest.mark.parametrize("program", [in_place_views, in_place_names, in_place_numpy, in_place_gradients, in_place_shapes])
def test_in_place_methods_equal_torch(program: Callable[[Any], Any]) -> None:
    both(program)


def test_in_place_methods_write_to_their_own_memory() -> None:
    x = numbers(dg)
    address = x._node.data.ctypes.data
    x += 1
    x *= x
    x.div_(3).sqrt_().clamp_(1, 50).sub_(dg.ones(SIZE))
    x[:] = 3
    x[5:7] = dg.ones(2)
    x[x > 2] = 0
    x.zero_().fill_(4).copy_(dg.ones(SIZE))
    assert x._node.data.ctypes.data == address
    before = x.clone()
    x += 1
    assert before.sum() == SIZE


@pytest.mark.parametrize("write", [
    lambda n, x: x.__setitem__(slice(0, 3), n.ones(4)), lambda n, x: x.add_(n.ones(3)), lambda n, x: x.fill_(n.ones(3)),
    lambda n, x: x.__setitem__((slice(0, 3), slice(0, 3)), 1), lambda n, x: x.requires_grad_().add_(1),
    lambda n, x: x.requires_grad_().zero_(), lambda n, x: x.requires_grad_().__setitem__(slice(0, 3), 1),
])
def test_in_place_errors_are_those_of_torch(write: Callable[[Any, Any], Any]) -> None:
    raised = []
    for n in (torch, dg):
        x = numbers(n)
        with pytest.raises(Exception) as caught:
            write(n, x)
        raised.append(caught.type)
        np.testing.assert_array_equal(x.detach().numpy(), numbers(torch).numpy())
    assert issubclass(raised[1], raised[0])


def written_by_index(n: Any) -> Any:
    x, y = numbers(n).view(-1, 2).clone(), numbers(n)
    before, view = x.clone(), y.view(-1, 2)[1:]
    index = n.tensor([[3, -1], [3, 0]])
    x[index] = 2.5
    y[index] = float("nan")
    kept = x.detach()
    x[n.tensor([1])] = -1
    x[n.tensor([], dtype=n.int64)] = 5
    return x, y.nan_to_num(), before, view.nan_to_num(), kept


def test_numbers_written_to_rows_of_an_index() -> None:
    both(written_by_index)
    x = numbers(dg)
    memory = x._node.data.ctypes.data
    x[dg.tensor([5, 6])] = 1
    assert x._node.data.ctypes.data == memory
    before = x.clone()
    with pytest.raises(IndexError, match=f"index {SIZE} is out of bounds for dimension 0 with size {SIZE}"):
        x[dg.tensor([0, SIZE])] = 9
    np.testing.assert_array_equal(x.numpy(), before.numpy())


def test_a_gradient_that_repeats_one_number_is_an_array_like_any_other() -> None:
    for loss in (lambda t: t.sum(), lambda t: (1.0 - t).sum(), lambda t: t.mean()):
        x = dg.zeros(5000, requires_grad=True)
        loss(x).backward()
        array = x.grad.numpy()
        array[7] += 1.0
        assert x.grad[7].item() == array[7] != x.grad[8].item()
