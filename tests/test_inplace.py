"""In-place operations and aliasing views, exactly as torch: locally, and on sharded tensors of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")
BOTH = pytest.mark.parametrize("T", [dg, torch], ids=["distgrad", "torch"])


def leaf(library: Any, *shape: int, seed: int = 0, grad: bool = True) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape)
    return library.tensor(values.tolist(), dtype=library.float64, requires_grad=grad)


def same(ours: Any, theirs: Any, message: str = "") -> None:
    assert tuple(ours.shape) == tuple(theirs.shape), message
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-10, atol=1e-12, err_msg=message)


def on_both(function: Callable[[Any], list[Any]]) -> None:
    for mine, other in zip(function(dg), function(torch), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            same(mine, other)


# Values -----------------------------------------------------------------------------------------------------


def _write_add(x: Any, T: Any) -> None:
    x.add_(1.5)


def _write_chain(x: Any, T: Any) -> None:
    x.mul_(2).sub_(x * 0.5).div_(3.0).clamp_(min=-0.2)


def _write_operators(x: Any, T: Any) -> None:
    x += 1
    x -= x[0].clone()
    x *= T.arange(4, dtype=T.float64)
    x /= 3
    x **= 2


def _write_row(x: Any, T: Any) -> None:
    x[1] = 7.0
    x[-1] = x[0] * 2


def _write_slices(x: Any, T: Any) -> None:
    x[1:3] += 10
    x[:, 1::2] *= -1
    x[..., 0] = T.arange(5, dtype=T.float64)


def _write_mask(x: Any, T: Any) -> None:
    x[x > 0] = 0.5
    x[x[:, 0] < 0] = T.arange(4, dtype=T.float64)


def _write_indices(x: Any, T: Any) -> None:
    x[T.tensor([0, 3])] = -1.0
    x[[1, 2], [0, 3]] = T.tensor([5.0, 6.0], dtype=T.float64)


def _write_all(x: Any, T: Any) -> None:
    x[:] = x.flip(0)
    x[...] += x


def _write_broadcast(x: Any, T: Any) -> None:
    x[2:4] = T.tensor([1.0, 2.0, 3.0, 4.0], dtype=T.float64)
    x[:, 1:3] = T.ones(5, 1, dtype=T.float64)


def _write_fills(x: Any, T: Any) -> None:
    x[0].fill_(3)
    x[:, 2].zero_()
    x[4].copy_(x[0] + x[1])


def _write_transposed(x: Any, T: Any) -> None:
    x.t()[1] += 5
    x.transpose(0, 1).mul_(2)
    x.permute(1, 0)[:, 2:4] = 0.25


def _write_reshaped(x: Any, T: Any) -> None:
    x.reshape(10, 2)[3] = 9
    x.view(-1)[5:8] += 1
    x.unsqueeze(0).squeeze().flatten()[::3] = 0


def _write_diagonal(x: Any, T: Any) -> None:
    x[:4].diagonal().fill_(1)


def _write_methods(x: Any, T: Any) -> None:
    x.masked_fill_(x > 1, 1.0).mul_(2).neg_()
    x.index_add_(0, T.tensor([0, 2, 0]), T.ones(3, 4, dtype=T.float64))


WRITES = [v for k, v in list(globals().items()) if k.startswith("_write_")]


@pytest.mark.parametrize("write", WRITES)
def test_values(write: Any) -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 5, 4, grad=False)
        alias, row, column = x.detach(), x[1], x[:, 2]
        write(x, T)
        return [x, alias, row, column]

    on_both(run)


@pytest.mark.parametrize("write", WRITES)
def test_gradients(write: Any) -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 5, 4)
        x = w * 2
        row = x[1]
        write(x, T)
        ((x * leaf(T, 5, 4, seed=1, grad=False)).sum() + (row**2).sum()).backward()
        return [x, row, w.grad]

    on_both(run)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("write", WRITES)
def test_on_workers(write: Any, workers: int) -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 5, 4)
        x = (w if T is torch else dg.shard(w)) * 2
        row, column = x[1], x[:, 2]
        write(x, T)
        ((x * leaf(T, 5, 4, seed=1, grad=False)).sum() + (row**2).sum()).backward()
        return [x, row, column, w.grad]

    with dg.init(local_mode=True, num_workers=workers):
        on_both(run)


# Aliasing ---------------------------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[Any], Any]] = {
    "row": lambda x: x[1],
    "slice": lambda x: x[1:3],
    "step": lambda x: x[::2],
    "transpose": lambda x: x.transpose(0, 1),
    "t": lambda x: x.t(),
    "T": lambda x: x.T,
    "view": lambda x: x.view(2, -1),
    "reshape": lambda x: x.reshape(-1),
    "flatten": lambda x: x.flatten(),
    "detach": lambda x: x.detach(),
    "data": lambda x: x.data,
    "unsqueeze": lambda x: x.unsqueeze(1),
    "narrow": lambda x: x.narrow(0, 1, 2),
    "select": lambda x: x.select(1, 0),
    "diagonal": lambda x: x.diagonal(),
    "chunk": lambda x: x.chunk(2)[1],
    "split": lambda x: x.split([1, 3])[1],
    "unbind": lambda x: x.unbind(1)[0],
    "deep": lambda x: x.t()[1:].reshape(-1, 4)[0, 1:],
    "deep_detached": lambda x: x[1:].detach().t()[0],
    "movedim": lambda x: x.movedim(0, 1),
    "squeeze": lambda x: x[:1].squeeze(0),
}
MULTIPLE = ("chunk", "split", "unbind")  # torch refuses writes to these when gradients are recorded


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_to_the_base_is_seen_through_the_view(name: str) -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4, 4, grad=False)
        v = VIEWS[name](x)
        x.mul_(3)
        x[1] += 1
        return [x, v, v * 2]

    on_both(run)


@pytest.mark.parametrize("name", VIEWS)
def test_a_write_to_the_view_is_seen_through_the_base(name: str) -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4, 4, grad=False)
        v, other = VIEWS[name](x), x[1:]
        v.add_(10)
        v *= 2
        return [x, v, other]

    on_both(run)


@pytest.mark.parametrize("name", [n for n in VIEWS if n not in MULTIPLE])
def test_a_write_to_the_view_of_a_non_leaf_has_gradients(name: str) -> None:
    def run(T: Any) -> list[Any]:
        w, u = leaf(T, 4, 4), leaf(T, 1, seed=3)
        x = w * 1.5
        v = VIEWS[name](x)
        v.mul_(v.detach() + 1)
        v += u
        (x.exp().sum() + (v * v).sum()).backward()
        return [x, v, w.grad, u.grad]

    on_both(run)


@pytest.mark.parametrize("name", [n for n in VIEWS if "detach" not in n and n not in ("data", *MULTIPLE)])
def test_a_write_with_gradients_to_the_view_of_a_plain_tensor(name: str) -> None:
    def run(T: Any) -> list[Any]:
        x, u = leaf(T, 4, 4, grad=False), leaf(T, 1, seed=3)
        v, alias = VIEWS[name](x), x.detach()
        v.mul_(u)
        assert x.requires_grad
        assert v.requires_grad
        assert not alias.requires_grad
        assert not x.is_leaf
        assert not v.is_leaf
        (x * x).sum().backward()
        return [x, v, alias, u.grad]

    on_both(run)


def test_overwritten_parts_get_no_gradient() -> None:
    for overwrite in (
        lambda x: x.zero_(),
        lambda x: x.fill_(2.0),
        lambda x: x.copy_(x.detach() * 3),
        lambda x: x[:].zero_(),
        lambda x: x.view(-1).fill_(1.0),
        lambda x: x.t().copy_(x.detach().clone()),
        lambda x: x.__setitem__(slice(None), 4.0),
        lambda x: x.__setitem__(1, 4.0),
        lambda x: x.masked_fill_(x.detach() > 0, 1.0),
    ):

        def run(T: Any, overwrite: Any = overwrite) -> list[Any]:
            w = leaf(T, 3, 3)
            x = w * 2
            overwrite(x)
            assert x.requires_grad
            (x * x).sum().backward()
            return [x, w.grad]

        on_both(run)


def test_writing_through_a_detached_tensor_changes_values_and_not_history() -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 3)
        x = w + 1
        d = x.detach()
        d.mul_(5)
        d[0] = 0
        (x + x).sum().backward()
        return [x, d, w.grad]

    on_both(run)


def test_a_detached_tensor_may_get_its_own_history() -> None:
    def run(T: Any) -> list[Any]:
        w, u = leaf(T, 3), leaf(T, 3, seed=1)
        x = w + 1
        d = x.detach()
        d.mul_(u)
        assert d.requires_grad
        (x.sum() + d.sum()).backward()
        return [x, d, w.grad, u.grad]

    on_both(run)


def test_version_chains_several_views_deep() -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 6, 4)
        x = w * 1.0
        a = x[1:5]
        b = a.t()
        c = b[1:3]
        d = c.reshape(2, 4)[1]
        for number, tensor in enumerate((d, b, x, c, a, d, x)):
            tensor.mul_(1.1 + number)
            tensor.sub_(tensor.mean())
        (a.sum() * 2 + (b * c[0, 0]).sum() + (d**3).sum() + x.exp().sum()).backward()
        return [x, a, b, c, d, w.grad]

    on_both(run)


def test_rows_at_an_index_tensor_are_views() -> None:
    def run(T: Any) -> list[Any]:
        w, index = leaf(T, 4, 3), T.tensor([2, 1])
        x = w * 1.0
        if T is dg and dg.is_initialized():
            index = dg.replicate(index)
        row = x[index[0]]
        x.mul_(2)
        row += 1
        index.zero_()
        x.sub_(0.5)
        (x.exp().sum() + row.sum()).backward()
        return [x, row, w.grad]

    on_both(run)
    with dg.init(local_mode=True, num_workers=3):
        on_both(run)


def test_expanded_tensors_refuse_writes_and_follow_their_base() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3, 1, grad=False)
        v = x.expand(3, 4)
        x.add_(1)
        with pytest.raises(
            RuntimeError, match="more than one element of the written-to tensor refers to a single memory"
        ):
            v.add_(1)
        return [x, v]

    on_both(run)


def test_copies_do_not_alias() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4, 4, grad=False)
        copies = [
            x.clone(),
            x + 0,
            x[[0, 1]],
            x[x > 0],
            x.t().contiguous(),
            x.t().reshape(-1),
            x.flip(0),
            x.to(T.float32),
            x.repeat(1, 2),
            T.cat([x, x]),
            T.stack([x]),
            x.detach().clone(),
            x.roll(1, 0),
        ]
        x.fill_(0.0)
        copies[0].add_(1)
        return [x, *copies]

    on_both(run)


# Errors -----------------------------------------------------------------------------------------------------


@BOTH
def test_leaves_that_require_gradients_refuse_writes(T: Any) -> None:
    w = leaf(T, 3, 3)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        w.add_(1)
    with pytest.raises(
        RuntimeError, match="a view of a leaf Variable that requires grad is being used in an in-place operation"
    ):
        w[0].mul_(2)
    with pytest.raises(RuntimeError, match="in-place operation"):
        w[0] = 1.0
    with pytest.raises(RuntimeError, match="in-place operation"):
        w -= 0.1 * w.detach()
    assert w.requires_grad
    assert w.is_leaf


@BOTH
def test_writes_must_fit(T: Any) -> None:
    x = T.ones(3)
    with pytest.raises(RuntimeError, match=r"output with shape \[3\] doesn't match the broadcast shape \[2, 3\]"):
        x.add_(T.ones(2, 3))
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type"):
        T.arange(3).add_(1.5)
    with pytest.raises(RuntimeError):
        x[0:2] = T.ones(3)
    assert x.tolist() == [1.0, 1.0, 1.0]


@BOTH
def test_views_cannot_be_detached_in_place(T: Any) -> None:
    v = (leaf(T, 3) * 2)[0]
    with pytest.raises(RuntimeError, match="Can't detach views in-place"):
        v.detach_()


# Training by hand -------------------------------------------------------------------------------------------


def test_gradient_descent_by_hand() -> None:
    def run(T: Any) -> list[Any]:
        x, y = leaf(T, 20, 3, grad=False), leaf(T, 20, 1, seed=5, grad=False)
        w, b = leaf(T, 3, 1, seed=1), T.zeros(1, dtype=T.float64, requires_grad=True)
        for _ in range(5):
            loss = ((x @ w + b - y) ** 2).mean()
            loss.backward()
            with T.no_grad():
                w -= 0.1 * w.grad
                b.sub_(b.grad, alpha=0.1)
                w.grad.zero_()
                b.grad = None
            assert w.requires_grad
            assert w.is_leaf
        w.data.mul_(0.5)
        w.data = w.data + 1
        (x @ w).sum().backward()
        return [loss, w, b, w.grad]

    on_both(run)
    with dg.init(local_mode=True, num_workers=3, shard_threshold=64):
        on_both(run)


def test_grad_fields_are_accumulated_in_place() -> None:
    def run(T: Any) -> list[Any]:
        w = leaf(T, 3)
        (w * 2).sum().backward()
        alias = w.grad
        (w * 3).sum().backward()
        return [w.grad, alias]

    on_both(run)


def test_a_gradient_that_passes_unchanged_is_not_shared() -> None:
    def run(T: Any) -> list[Any]:
        a, b = leaf(T, 3), leaf(T, 3, seed=1)
        (a + b).backward(T.ones(3, dtype=T.float64))
        a.grad.mul_(5)
        return [a.grad, b.grad]

    on_both(run)


def test_assigning_data_shares_and_keeps_the_leaf() -> None:
    def run(T: Any) -> list[Any]:
        w, new = leaf(T, 3), leaf(T, 2, 2, seed=1, grad=False)
        w.data = new
        new.add_(1)
        assert w.requires_grad
        assert w.is_leaf
        assert tuple(w.shape) == (2, 2)
        (w * w).sum().backward()
        return [w, w.grad]

    on_both(run)


# Saved values -----------------------------------------------------------------------------------------------


def test_saved_values_survive_later_writes() -> None:
    """torch refuses these programs; here the gradient is that of the values the operation saw."""
    for operation in (
        lambda t: t * t,
        lambda t: t.sin(),
        lambda t: t.exp(),
        lambda t: t / (t * t + 1),
        lambda t: t[1:] * t[:-1],
    ):

        def run(T: Any, write: bool, operation: Any = operation) -> Any:
            w = leaf(T, 4)
            x = w * 1.5
            y = operation(x)
            if write:
                x[0] = 100.0
                x.detach().mul_(3)
                y.detach().zero_()
                with dg.no_grad():
                    w.add_(1)
            y.sum().backward()
            return w.grad

        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            w = leaf(torch, 4)
            x = w * 1.5
            y = x * x
            x.mul_(3)
            y.sum().backward()
        same(run(dg, True), run(torch, False))


def test_saved_leaf_values_survive_with_double_gradients() -> None:
    def run(T: Any, write: bool) -> list[Any]:
        base = leaf(T, 3, grad=False)
        w = base.detach().requires_grad_()
        y = (w**3).sum()
        if write:
            base.add_(10)
        (g,) = T.autograd.grad(y, w, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), w)
        return [g, h]

    for ours, theirs in zip(run(dg, True), run(torch, False)):
        same(ours, theirs)


# Memory shared with numpy -----------------------------------------------------------------------------------


def test_from_numpy_shares_memory_both_ways() -> None:
    def run(T: Any) -> list[Any]:
        array = np.arange(6.0).reshape(2, 3)
        x = T.from_numpy(array)
        x[0] += 10
        x.t()[2].mul_(2)
        array[1, 0] = -5
        v = x[1]
        array[1, 1] = -6
        x.add_(1)
        v.neg_()
        return [T.from_numpy(array), x, v]

    on_both(run)


def test_what_was_computed_from_shared_memory_stays() -> None:
    def run(T: Any) -> list[Any]:
        array = np.arange(6.0).reshape(2, 3)
        x = T.from_numpy(array)
        w = T.ones(2, 3, dtype=T.float64, requires_grad=True)
        (w * 1).backward(x)
        others = [
            x.flip(0),
            x.clone(),
            x.t().contiguous(),
            T.zeros(2, 3, dtype=T.float64).copy_(x),
            x.roll(1, 0),
            x + 0,
            x.to(T.float32),
            T.cat([x]),
            x.real.clone(),
            x.repeat(1, 1),
            x.sort(dim=1).values,
            x.tril(),
            x.nan_to_num(),
            x.index_select(0, T.tensor([0, 1])),
        ]
        holder = T.zeros(2, 3, dtype=T.float64)
        holder[:] = x
        x.add_(100)
        return [*others, holder, w.grad]

    on_both(run)


def test_saved_values_of_shared_memory_survive() -> None:
    array = np.arange(3.0)
    x = dg.from_numpy(array)
    w = dg.ones(3, dtype=dg.float64, requires_grad=True)
    y = (w * x).sum() + (w * x[1:].sum()).sum()
    x.mul_(100)
    y.backward()
    assert w.grad.tolist() == [3.0, 4.0, 5.0]
    assert x.tolist() == [0.0, 100.0, 200.0]
