"""`autograd`: user-written functions, gradients on demand, hooks on the graph, checks and functional derivatives."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")
BOTH = pytest.mark.parametrize("T", [dg, torch], ids=["distgrad", "torch"])  # torch is run to check the test itself


def _cube(T: Any) -> Any:
    class Cube(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, scale: float = 1.0) -> Any:
            ctx.save_for_backward(x)
            ctx.scale = scale
            return scale * x**3

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return g * ctx.scale * 3 * x**2, None

    return Cube


@BOTH
def test_backward_of_the_user_is_used(T: Any) -> None:
    x = T.tensor([1.0, 2.0, -3.0], requires_grad=True)
    y = _cube(T).apply(x, 2.0)
    assert y.tolist() == [2.0, 16.0, -54.0]
    assert y.requires_grad
    assert not y.is_leaf
    assert y.grad_fn.name() == "CubeBackward"
    (y * T.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [6.0, 240.0, 5400.0]


@BOTH
def test_derivatives_of_any_order(T: Any) -> None:
    x = T.tensor([1.0, 2.0], dtype=T.float64, requires_grad=True)
    y = _cube(T).apply(x).sum()
    (first,) = T.autograd.grad(y, x, create_graph=True)
    (second,) = T.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = T.autograd.grad(second.sum(), x)
    assert first.tolist() == [3.0, 12.0]
    assert second.tolist() == [6.0, 12.0]
    assert third.tolist() == [6.0, 6.0]
    assert T.autograd.gradcheck(lambda x: _cube(T).apply(x, 0.5), (x,))
    assert T.autograd.gradgradcheck(lambda x: _cube(T).apply(x, 0.5), (x,))


@BOTH
def test_a_saved_output_is_part_of_the_graph(T: Any) -> None:
    class Exp(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = T.exp(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0]

    x = T.tensor(0.5, dtype=T.float64, requires_grad=True)
    (first,) = T.autograd.grad(Exp.apply(x), x, create_graph=True)
    (second,) = T.autograd.grad(first, x)
    np.testing.assert_allclose([first.item(), second.item()], np.exp(0.5))


@BOTH
def test_several_inputs_and_outputs(T: Any) -> None:
    class SumAndProduct(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            return a + b, a * b, T.argmax(a)

        @staticmethod
        def backward(ctx: Any, g_sum: Any, g_product: Any, g_index: Any) -> Any:
            _, b = ctx.saved_tensors
            assert ctx.needs_input_grad == (True, False)
            return g_sum + g_product * b, None

    a, b = T.tensor([1.0, 2.0], requires_grad=True), T.tensor([3.0, 4.0])
    total, product, index = SumAndProduct.apply(a, b)
    assert (total.requires_grad, product.requires_grad, index.requires_grad) == (True, True, False)
    product.sum().backward()  # g_sum is made of zeros
    assert a.grad.tolist() == [3.0, 4.0]


@BOTH
def test_gradients_that_nobody_gave_are_zeros_or_none(T: Any) -> None:
    seen: list[Any] = []

    class Two(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, materialize: bool) -> Any:
            ctx.set_materialize_grads(materialize)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            seen.append((g, h))
            return g * 1 if h is None else g + 2 * h, None

    x = T.tensor([1.0, 1.0], requires_grad=True)
    Two.apply(x, True)[0].sum().backward()
    Two.apply(x, False)[0].sum().backward()
    assert seen[0][1].tolist() == [0.0, 0.0]
    assert seen[1][1] is None
    assert x.grad.tolist() == [2.0, 2.0]


@BOTH
def test_non_differentiable_outputs(T: Any) -> None:
    class Signs(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            signs = T.sign(x)
            ctx.mark_non_differentiable(signs)
            return x * signs, signs

        @staticmethod
        def backward(ctx: Any, g: Any, _: Any) -> Any:
            return g * 7

    x = T.tensor([-1.0, 2.0], requires_grad=True)
    size, signs = Signs.apply(x)
    assert size.requires_grad
    assert not signs.requires_grad
    size.sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]


@BOTH
def test_forward_and_context_apart(T: Any) -> None:
    class Scale(T.autograd.Function):
        @staticmethod
        def forward(x: Any, factor: float) -> Any:
            return x * factor

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.factor = inputs[1]

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.factor, None

    x = T.tensor(2.0, requires_grad=True)
    Scale.apply(x, 5.0).backward()
    assert x.grad.item() == 5.0


@BOTH
def test_changing_an_input_in_place(T: Any) -> None:
    class Double(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g

    x = T.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    z = Double.apply(y)
    assert z is y
    assert z.tolist() == [6.0, 12.0]
    z.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]
    with pytest.raises(RuntimeError, match="leaf"):
        Double.apply(x)


@BOTH
def test_an_input_returned_as_it_is_becomes_another_tensor(T: Any) -> None:
    class Reverse(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return -g

    x = T.tensor([1.0, 2.0], requires_grad=True)
    y = Reverse.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [-1.0, -1.0]


@BOTH
def test_backward_may_write_to_slices(T: Any) -> None:
    class FirstRow(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            g = g.clone()
            g[1:].zero_()
            g[0][0] = 9.0
            return g

    x = T.ones(3, 2, requires_grad=True)
    FirstRow.apply(x).sum().backward()
    assert x.grad.tolist() == [[9.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


@BOTH
def test_once_differentiable_refuses_a_second_derivative(T: Any) -> None:
    class Square(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @T.autograd.function.once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return 2 * g * ctx.saved_tensors[0]

    x = T.tensor(3.0, requires_grad=True)
    Square.apply(x).backward()
    assert x.grad.item() == 6.0
    (g,) = T.autograd.grad(Square.apply(x), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable" if T is dg else "does not require grad"):
        g.backward()  # torch does not notice that g depends on the saved tensor


def _returning(T: Any, result: Any) -> Any:
    class Bad(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, k: float) -> Any:
            return x * k

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return result(g)

    x = T.ones(2, requires_grad=True)
    return lambda: Bad.apply(x, 2.0).sum().backward()


@BOTH
def test_mistakes_in_backward_are_named(T: Any) -> None:
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 2, got 1\)"):
        _returning(T, lambda g: g)()
    with pytest.raises(RuntimeError, match="different than None at position 2"):
        _returning(T, lambda g: (g, g))()
    with pytest.raises(RuntimeError, match="invalid gradient at index 0"):
        _returning(T, lambda g: (T.ones(3), None))()
    with pytest.raises(NotImplementedError):
        T.autograd.Function.apply(T.ones(1))


@BOTH
def test_saved_tensors_go_with_the_graph(T: Any) -> None:
    x = T.tensor(2.0, requires_grad=True)
    y = _cube(T).apply(x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 24.0
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


@BOTH
def test_without_gradients_nothing_is_linked(T: Any) -> None:
    x = T.tensor(2.0, requires_grad=True)
    with T.no_grad():
        assert not _cube(T).apply(x).requires_grad
    assert _cube(T).apply(T.tensor(2.0)).grad_fn is None


def test_a_call_is_freed_without_the_garbage_collector() -> None:
    class Exp(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = dg.exp(x)
            ctx.save_for_backward(x, y)
            return y

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[1]

    gc.collect()
    gc.disable()
    try:
        y = Exp.apply(dg.ones(3, requires_grad=True))
        reference = weakref.ref(y.grad_fn)
        y.sum().backward()
        del y
        assert reference() is None
    finally:
        gc.enable()


def test_functions_on_sharded_tensors_give_the_local_numbers() -> None:
    values = np.random.default_rng(1).standard_normal((7, 3))

    def run(place: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = dg.from_numpy(values.copy()).requires_grad_()
        y = _cube(dg).apply(place(x), 0.5)
        (g,) = dg.autograd.grad((y * y).sum(), x, create_graph=True)
        (h,) = dg.autograd.grad(g.sum(), x)
        return y.detach().numpy(), g.detach().numpy(), h.numpy()

    local = run(lambda x: x)
    with dg.init(num_workers=3, local_mode=True):
        for place in (dg.shard, lambda x: dg.shard(x, 1), dg.replicate):
            for ours, expected in zip(run(place), local):
                np.testing.assert_allclose(ours, expected, rtol=1e-12)


# The graph as users see it ----------------------------------------------------------------------------------


@BOTH
def test_next_functions_lead_to_the_leaves(T: Any) -> None:
    x, w = T.ones(2, requires_grad=True), T.ones(2)
    y = (x * w).sum()
    (inner, index), *_ = y.grad_fn.next_functions
    assert (inner.name(), index) == ("MulBackward0", 0)
    (leaf, _), (nothing, _) = inner.next_functions
    assert leaf.name().endswith("AccumulateGrad")
    assert leaf.variable is x
    assert nothing is None


@BOTH
def test_hooks_on_functions(T: Any) -> None:
    x = T.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    seen: list[Any] = []
    y.grad_fn.register_prehook(lambda gs: (gs[0] * 2,))
    handle = y.grad_fn.register_hook(lambda ins, outs: seen.append((ins[0].tolist(), outs[0].tolist())))
    y.sum().backward(retain_graph=True)
    handle.remove()
    y.sum().backward()
    assert seen == [([6.0, 6.0], [2.0, 2.0])]
    assert x.grad.tolist() == [12.0, 12.0]


@BOTH
def test_anomaly_detection_names_the_function(T: Any) -> None:
    x = T.tensor([0.0, 1.0], requires_grad=True)
    with pytest.warns(UserWarning, match="Anomaly"):
        checked = T.autograd.detect_anomaly()
    with checked:
        y = T.sqrt(x) * 0
        with pytest.raises(RuntimeError, match="SqrtBackward0' returned nan values in its 0th output"):
            y.sum().backward()
    T.sqrt(x).mul(0).sum().backward()
    assert np.isnan(x.grad.tolist()[0])


def test_anomaly_detection_shows_the_line_that_recorded_it() -> None:
    with dg.autograd.set_detect_anomaly(True):
        y = dg.sqrt(dg.zeros(1, requires_grad=True)) * 0  # this very line
        with pytest.raises(RuntimeError, match="this very line"):
            y.backward()


@BOTH
def test_variable_is_the_tensor(T: Any) -> None:
    x = T.autograd.Variable(T.ones(2), requires_grad=True)
    assert isinstance(x, T.Tensor)
    assert isinstance(T.ones(2), T.autograd.Variable)
    x.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


# Checks and functional derivatives --------------------------------------------------------------------------


@BOTH
def test_gradcheck_finds_a_wrong_gradient(T: Any) -> None:
    class Wrong(T.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2.1 * ctx.saved_tensors[0]

    x = T.tensor([1.0, 2.0], dtype=T.float64, requires_grad=True)
    assert not T.autograd.gradcheck(Wrong.apply, (x,), raise_exception=False)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        T.autograd.gradcheck(Wrong.apply, (x,))
    with pytest.raises(ValueError, match="at least one"):
        T.autograd.gradcheck(Wrong.apply, (x.detach(),))


@BOTH
def test_gradcheck_of_ops(T: Any) -> None:
    r = np.random.default_rng(3)
    a, b = (T.from_numpy(r.standard_normal(s)).requires_grad_() for s in ((2, 3), (3,)))
    assert T.autograd.gradcheck(lambda a, b: (T.tanh(a @ b), (a * b).sum(1)), (a, b))
    assert T.autograd.gradgradcheck(lambda a, b: T.tanh(a @ b), (a, b))
    z = T.from_numpy(r.standard_normal(2) + 1j * r.standard_normal(2)).requires_grad_()
    assert T.autograd.gradcheck(lambda z: z * z, (z,))


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in _flat(part)]
    return [value.detach().numpy()]


@pytest.mark.parametrize("name", ["jacobian", "hessian", "vjp", "jvp", "vhp", "hvp", "hessian_of_one", "unused"])
def test_functional_derivatives_equal_pytorchs(name: str) -> None:
    def call(T: Any) -> Any:
        F = T.autograd.functional
        x, w = T.tensor([[1.0, 2.0], [3.0, 4.0]]), T.tensor([1.0, -1.0])

        def two(x: Any, w: Any) -> Any:
            return x**2 @ w, x.sum()

        def number(x: Any, w: Any) -> Any:
            return (x**3 @ w).sum()

        return {
            "jacobian": lambda: F.jacobian(two, (x, w)),
            "hessian": lambda: F.hessian(number, (x, w)),
            "vjp": lambda: F.vjp(two, (x, w), (w, T.tensor(2.0))),
            "jvp": lambda: F.jvp(two, (x, w), (x, w)),
            "vhp": lambda: F.vhp(number, (x, w), (x, w)),
            "hvp": lambda: F.hvp(number, (x, w), (x, w)),
            "hessian_of_one": lambda: F.hessian(lambda w: (w**4).sum(), w),
            "unused": lambda: F.jacobian(lambda x, w: x.sum(), (x, w)),
        }[name]()

    ours, theirs = _flat(call(dg)), _flat(call(torch))
    assert [o.shape for o in ours] == [t.shape for t in theirs]
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine, other, rtol=1e-5)


@BOTH
def test_functional_with_a_graph_and_strict(T: Any) -> None:
    F = T.autograd.functional
    x = T.tensor([1.0, 2.0], requires_grad=True)
    F.jacobian(lambda x: x**3, x, create_graph=True).sum().backward()
    assert x.grad.tolist() == [6.0, 12.0]
    assert not F.jacobian(lambda x: x**3, x).requires_grad
    with pytest.raises(RuntimeError, match="independent of input 1"):
        F.vjp(lambda x, w: x.sum(), (x, T.ones(2)), strict=True)
    with pytest.raises(RuntimeError, match="v can only be None"):
        F.vjp(lambda x: x, x)
