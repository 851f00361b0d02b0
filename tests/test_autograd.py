"""The local autograd engine against torch: backward, grad, hooks, modes, errors, and long chains."""

from __future__ import annotations

import gc
import inspect
import re
import weakref
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")
BOTH = pytest.mark.parametrize("T", [dg, torch], ids=["distgrad", "torch"])


def leaf(library: Any, *shape: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape)
    return library.tensor(values.tolist(), dtype=library.float64, requires_grad=True)


def same(ours: Any, theirs: Any, rtol: float = 1e-10) -> None:
    assert tuple(ours.shape) == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=rtol, atol=1e-12)


def on_both(function: Any) -> None:
    """Runs a function of a library, which gives tensors, on both and compares."""
    ours, theirs = function(dg), function(torch)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert (mine is None) == (other is None)
        if mine is not None:
            same(mine, other)


# backward and grad ------------------------------------------------------------------------------------------


def test_backward_accumulates_into_leaves() -> None:
    def run(T: Any) -> list[Any]:
        x, w = leaf(T, 4, 3), leaf(T, 3, 2, seed=1)
        for _ in range(3):
            ((x @ w).tanh() ** 2).sum().backward()
        return [x.grad, w.grad]

    on_both(run)


def test_gradient_of_a_leaf_used_many_ways() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3, 4)
        y = x.exp() * x + x.t().reshape(3, 4) - x.sum(dim=0) / (x * x + 1).mean()
        y[1:, 2].sum().backward()
        return [x.grad]

    on_both(run)


@pytest.mark.parametrize("shapes", [((4, 3), (3,)), ((4, 3), (4, 1)), ((3,), ()), ((2, 1, 3), (4, 1)), ((), (2, 0, 3))])
def test_gradients_have_the_shape_of_their_inputs(shapes: tuple[tuple[int, ...], ...]) -> None:
    def run(T: Any) -> list[Any]:
        a, b = leaf(T, *shapes[0]), leaf(T, *shapes[1], seed=1)
        a, b = (t if t.shape else t.detach().reshape(()).requires_grad_() for t in (a, b))
        if 0 in shapes[1]:
            b = T.zeros(shapes[1], dtype=T.float64, requires_grad=True)
        (a * b / (b * b + 2)).sum().backward()
        assert tuple(a.grad.shape) == shapes[0]
        assert tuple(b.grad.shape) == shapes[1]
        return [a.grad, b.grad]

    on_both(run)


def test_gradients_have_the_dtype_of_their_inputs() -> None:
    for T in (dg, torch):
        a = T.ones(3, dtype=T.float32, requires_grad=True)
        b = T.ones(3, dtype=T.float64, requires_grad=True)
        (a * b).sum().backward()
        assert a.grad.dtype == T.float32
        assert b.grad.dtype == T.float64


def test_backward_of_a_non_scalar_with_a_gradient() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3, 2)
        (x**3).backward(T.arange(6, dtype=T.float64).reshape(3, 2))
        return [x.grad]

    on_both(run)


def test_backward_of_several_roots() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        y = x * 2
        T.autograd.backward([y.sum(), (y * y).sum()])
        return [x.grad]

    on_both(run)


def test_grad_does_not_touch_grad_fields() -> None:
    def run(T: Any) -> list[Any]:
        x, w = leaf(T, 3), leaf(T, 3, seed=2)
        y = x * w
        result = T.autograd.grad(y.sum(), [x, y, w])
        assert x.grad is None
        assert w.grad is None
        return list(result)

    on_both(run)


def test_double_and_triple_gradients() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4)
        y = (x.sin() * x.exp()).sum()
        found = []
        for _ in range(3):
            (y,) = T.autograd.grad(y.sum(), x, create_graph=True)
            found.append(y)
        return found

    on_both(run)


def test_create_graph_makes_the_grad_field_differentiable() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4)
        (x**3).sum().backward(create_graph=True)
        first = x.grad
        assert first.requires_grad
        x.grad = None
        (first * first).sum().backward()
        return [first, x.grad]

    on_both(run)


def test_gradient_penalty() -> None:
    def run(T: Any) -> list[Any]:
        x, w = leaf(T, 5, 3), leaf(T, 3, 4, seed=1)
        (g,) = T.autograd.grad((x @ w).tanh().sum(), x, create_graph=True)
        ((g.norm(dim=1) - 1) ** 2).mean().backward()
        return [w.grad, x.grad]

    on_both(run)


def test_accumulation_with_create_graph_adds() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4)
        (x**2).sum().backward(create_graph=True)
        (x**4).sum().backward(create_graph=True)
        total = x.grad
        x.grad = None
        total.sum().backward()
        return [total, x.grad]

    on_both(run)


def test_retain_graph_allows_a_second_pass() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 4)
        y = (x * x).sum()
        y.backward(retain_graph=True)
        y.backward()
        return [x.grad]

    on_both(run)


@BOTH
def test_a_second_backward_raises(T: Any) -> None:
    x = leaf(T, 4)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        y.backward()
    z = (x + 1).sum()  # nothing was saved, so there is nothing that could be gone
    z.backward()
    z.backward()


@BOTH
def test_errors_of_backward(T: Any) -> None:
    x = leaf(T, 4)
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        (x * 2).backward()
    with pytest.raises(
        RuntimeError, match=re.escape("element 0 of tensors does not require grad and does not have a grad_fn")
    ):
        x.detach().sum().backward()
    with pytest.raises(
        RuntimeError, match=re.escape("Mismatch in shape: grad_output[0] has a shape of torch.Size([3])")
    ):
        (x * 2).backward(T.ones(3, dtype=T.float64))
    with pytest.raises(RuntimeError, match="cannot be empty"):
        x.sum().backward(inputs=[])
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad=False"):
        x.sum().backward(inputs=[x.detach()])


@BOTH
def test_errors_of_grad(T: Any) -> None:
    x, unused = leaf(T, 4), leaf(T, 2)
    y = (x * x).sum()
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        T.autograd.grad(y, unused, retain_graph=True)
    with pytest.raises(RuntimeError, match="One of the differentiated Tensors does not require grad"):
        T.autograd.grad(y, x.detach(), retain_graph=True)
    assert T.autograd.grad(y, [x, unused], allow_unused=True, retain_graph=True)[1] is None
    zeros = T.autograd.grad(y, [x, unused], materialize_grads=True)[1]
    assert zeros.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="allow_unused"):
        T.autograd.grad(y, [x], materialize_grads=True, allow_unused=False)


def test_backward_into_chosen_inputs() -> None:
    def run(T: Any) -> list[Any]:
        x, w = leaf(T, 3), leaf(T, 3, seed=1)
        y = x * w
        (y * y).sum().backward(inputs=[w, y])
        assert x.grad is None
        return [w.grad, y.grad]

    # torch warns when the grad of a non-leaf is read, though inputs= filled it
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        on_both(run)


def test_integers_cannot_require_gradients() -> None:
    for T in (dg, torch):
        with pytest.raises(RuntimeError, match=r"[Oo]nly Tensors of floating point"):
            T.arange(3).requires_grad_()
        y = leaf(T, 3) * 2
        with pytest.raises(RuntimeError, match="you can only change requires_grad flags of leaf variables"):
            y.requires_grad_(False)


# Hooks ------------------------------------------------------------------------------------------------------


def test_leaf_hook_sees_the_whole_gradient_and_may_replace_it() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        seen = []
        x.register_hook(lambda g: seen.append(g.clone()))
        handle = x.register_hook(lambda g: g * 10)
        (x * x + x.exp()).sum().backward()
        first = x.grad.clone()
        handle.remove()
        x.grad = None
        (x * x).sum().backward()
        assert len(seen) == 2
        return [*seen, first, x.grad]

    on_both(run)


def test_hook_of_a_non_leaf_changes_what_flows_on() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        y = x * 3
        seen = []
        handle = y.register_hook(lambda g: g * 2)
        y.register_hook(lambda g: seen.append(g.clone()))
        (y * y + y).sum().backward(retain_graph=True)
        handle.remove()
        (y * y + y).sum().backward()
        return [x.grad, *seen]

    on_both(run)


def test_hook_with_grad_and_with_retain_grad() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        y = x * 3
        y.retain_grad()
        y.register_hook(lambda g: -g)
        z = (y * y).sum()
        (a,) = T.autograd.grad(z, x, retain_graph=True)
        (b,) = T.autograd.grad(z, y, retain_graph=True)
        z.backward()
        return [a, b, y.grad, x.grad]

    on_both(run)


def test_post_accumulate_hook_runs_after_accumulation() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        seen = []

        def apply(t: Any) -> None:
            seen.append(t.grad.clone())
            t.grad = None

        x.register_post_accumulate_grad_hook(apply)
        (x * x).sum().backward()
        (x * 3).sum().backward()
        assert x.grad is None
        return seen

    on_both(run)


def test_post_accumulate_hook_needs_a_leaf() -> None:
    with pytest.raises(RuntimeError, match="post accumulate grad hooks cannot be registered on non-leaf tensors"):
        (leaf(dg, 3) * 2).register_post_accumulate_grad_hook(lambda t: None)


@BOTH
def test_hooks_need_a_gradient(T: Any) -> None:
    with pytest.raises(RuntimeError, match="cannot register a hook on a tensor that doesn't require gradient"):
        T.ones(3).register_hook(lambda g: g)
    with pytest.raises(RuntimeError, match="can't retain_grad on Tensor that has requires_grad=False"):
        T.ones(3).retain_grad()


def test_hook_may_change_the_gradient_in_place() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)

        def silence(g: Any) -> Any:
            g = g.clone()
            g[0] = 0
            part = g[1:]
            part *= 5
            return g

        (x * 2).register_hook(silence)
        y = x * 2
        y.register_hook(silence)
        (y * y).sum().backward()
        return [x.grad]

    on_both(run)


def test_retain_grad_keeps_the_gradient_of_a_non_leaf() -> None:
    def run(T: Any) -> list[Any]:
        x = leaf(T, 3)
        y = x.exp()
        y.retain_grad()
        assert y.retains_grad
        (y * y).sum().backward()
        return [y.grad, x.grad]

    on_both(run)


# Modes ------------------------------------------------------------------------------------------------------


@BOTH
def test_modes(T: Any) -> None:
    x = leaf(T, 3)
    with T.no_grad():
        assert not T.is_grad_enabled()
        assert not (x * 2).requires_grad
        with T.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    with T.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    T.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    T.set_grad_enabled(True)
    with T.inference_mode():
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), T.no_grad():
        raise ZeroDivisionError
    assert T.is_grad_enabled()


@BOTH
def test_modes_decorate(T: Any) -> None:
    x = leaf(T, 3)

    @T.no_grad()
    def plain() -> Any:
        return x * 2

    @T.enable_grad()
    def enabled() -> Any:
        return x * 2

    @T.no_grad()
    def generator() -> Any:
        yield x * 2
        yield x * 3

    assert not plain().requires_grad
    with T.no_grad():
        assert enabled().requires_grad
    outs = []
    for out in generator():
        assert T.is_grad_enabled()
        outs.append(out)
    assert [o.requires_grad for o in outs] == [False, False]


@BOTH
def test_backward_works_under_no_grad(T: Any) -> None:
    x = leaf(T, 3)
    y = (x * x).sum()
    with T.no_grad():
        y.backward()
    assert np.allclose(x.grad.numpy(), 2 * x.detach().numpy())
    assert not x.grad.requires_grad


@BOTH
def test_detach_cuts_the_graph(T: Any) -> None:
    x = leaf(T, 3)
    y = x * 2
    (y * y.detach()).sum().backward()
    assert np.allclose(x.grad.numpy(), 4 * x.detach().numpy())
    assert y.detach().is_leaf
    assert not y.detach().requires_grad
    assert not y.is_leaf
    assert y.grad_fn is not None
    z = y.detach_()
    assert z is y
    assert y.is_leaf
    assert y.grad_fn is None


# Control flow, depth, sharing -------------------------------------------------------------------------------


def test_control_flow_depends_on_values() -> None:
    def run(T: Any) -> list[Any]:
        found = []
        for seed in range(4):
            x = leaf(T, 3, seed=seed)
            y, steps = x * 1.0, 0
            while float(y.norm()) < 50 and steps < 30:
                y = y * 1.7 if y[0] > 0 else y.abs() + x
                steps += 1
            for i in range(3):
                if y[i] > y[(i + 1) % 3]:
                    y = y * x[i]
            y.sum().backward()
            found += [y, x.grad]
        return found

    on_both(run)


def test_recurrent_net_through_time() -> None:
    def run(T: Any) -> list[Any]:
        w, u = leaf(T, 4, 4), leaf(T, 3, 4, seed=1)
        x = leaf(T, 12, 2, 3, seed=2)
        h = T.zeros(2, 4, dtype=T.float64)
        loss = 0.0
        for t in range(12):
            h = (h @ w * 0.3 + x[t] @ u).tanh()
            loss = loss + (h**2).mean()
        loss.backward()
        return [w.grad, u.grad, x.grad]

    on_both(run)


@pytest.mark.parametrize("length", [2_000, 20_000])
def test_long_chains_need_no_recursion(length: int) -> None:
    x = dg.ones(2, dtype=dg.float64, requires_grad=True)
    y = x
    for _ in range(length):
        y = y * 1.0001 + 0.0 if length < 10_000 else y * 1.0001
    y.sum().backward(retain_graph=True)
    np.testing.assert_allclose(x.grad.numpy(), 1.0001**length, rtol=1e-9)
    (g,) = dg.autograd.grad(y.sum(), x)
    np.testing.assert_allclose(g.numpy(), 1.0001**length, rtol=1e-9)
    last = weakref.ref(x)
    del y, g, x
    gc.collect()
    assert last() is None


def test_long_chains_are_freed_without_backward() -> None:
    x = dg.ones(2, requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y.sin()
    del y
    assert x.grad is None


def test_long_chains_of_views_and_of_detached_tensors() -> None:
    x = dg.arange(6.0)
    y = x
    for i in range(20_000):
        y = y.reshape(2, 3) if i % 2 == 0 else y.reshape(6)
    y.add_(1)
    assert x.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    d = x
    for _ in range(20_000):
        d = d.detach()
    x.mul_(2)
    assert d.tolist() == x.tolist()
    d.zero_()
    assert y.tolist() == [0.0] * 6
    del x, y, d


def test_history_is_not_kept_by_detached_values() -> None:
    w = dg.ones(3, requires_grad=True)
    kept = []
    for keep in (
        lambda t: t.detach(),
        lambda t: t.data,
        lambda t: t[0].detach(),
        lambda t: t.detach()[0],
        lambda t: t.reshape(3, 1).transpose(0, 1).detach(),
    ):
        h = w * 2
        history = weakref.ref(h._fn)
        kept.append(keep(h))
        with dg.no_grad():
            kept.append(h[1:])
        del h
        gc.collect()
        assert history() is None
    assert kept[0].tolist() == [2.0, 2.0, 2.0]


def test_what_a_reverse_pass_records_belongs_to_its_line_and_what_a_hook_does_to_the_hooks():
    from distgrad import graph
    from distgrad.runtime.sites import where

    class Double(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2  # of the user's rule

    def lines() -> list[int]:
        return [int(where(call.site).rpartition(":")[2]) for call in graph.session().pending]

    here = inspect.currentframe().f_code.co_firstlineno
    source = inspect.getsource(inspect.currentframe()).splitlines()
    rule, hook, back = (here + next(i for i, line in enumerate(source) if line.endswith(mark))
                        for mark in ("# of the user's rule", "# of the hook", "# the reverse pass"))
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.arange(6.0, dtype=dg.float64)).requires_grad_()
        y = x.sin() * x
        y.register_hook(
            lambda g: g.exp()  # of the hook
        )
        loss = Double.apply(y).cos().sum()
        before = len(lines())
        loss.backward()  # the reverse pass
        made = lines()[before:]
        assert {rule, hook, back} == set(made)
        assert made.count(back) > 4
        assert made.count(hook) == 1
        assert graph.held_site == [None]
        with pytest.raises(RuntimeError, match="second time"):
            loss.backward()
        assert graph.held_site == [None]
