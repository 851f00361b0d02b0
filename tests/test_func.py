"""`func` against torch.func, and `checkpoint` against the same function without one."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg
from distgrad import func
from distgrad.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential

torch = pytest.importorskip("torch")

RANDOM = np.random.default_rng(0)
A, B = RANDOM.standard_normal(3), RANDOM.standard_normal((2, 3))


def same(ours, theirs):
    mine, other = func._leaves(ours), torch.utils._pytree.tree_leaves(theirs)
    assert len(mine) == len(other)
    for a, b in zip(mine, other):
        assert tuple(a.shape) == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)
        assert a.requires_grad == b.requires_grad


def cubes(library):
    return lambda x: (x**3).sum()


def product(library):
    return lambda x: library.sin(x).prod()


def several(library):
    return lambda x, y: (library.sin(x) * y.sum(), {"k": x @ y.T})


@pytest.mark.parametrize("function", [cubes, product])
@pytest.mark.parametrize("transform", ["grad", "hessian", "jacrev", "jacfwd", "grad_and_value"])
def test_transforms_match_torch(function, transform):
    expected = getattr(torch.func, transform)(function(torch))(torch.tensor(A))
    same(getattr(func, transform)(function(dg))(dg.tensor(A)), expected)


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
def test_jacobians_of_nested_outputs(transform, argnums):
    expected = getattr(torch.func, transform)(several(torch), argnums=argnums)(torch.tensor(A), torch.tensor(B))
    same(getattr(func, transform)(several(dg), argnums=argnums)(dg.tensor(A), dg.tensor(B)), expected)


def test_products_match_torch():
    cotangent, other = RANDOM.standard_normal(3), RANDOM.standard_normal(2)
    theirs, pull = torch.func.vjp(several(torch), torch.tensor(A), torch.tensor(B))
    ours, own_pull = func.vjp(several(dg), dg.tensor(A), dg.tensor(B))
    same(ours, theirs)
    same(own_pull((dg.tensor(cotangent), {"k": dg.tensor(other)})),
         pull((torch.tensor(cotangent), {"k": torch.tensor(other)})))
    same(func.jvp(several(dg), (dg.tensor(A), dg.tensor(B)), (dg.tensor(A * 2), dg.tensor(B * 3))),
         torch.func.jvp(several(torch), (torch.tensor(A), torch.tensor(B)), (torch.tensor(A * 2), torch.tensor(B * 3))))


def test_transforms_nest_and_take_containers():
    def twice(library, F):
        return F.grad(F.grad(lambda x: library.sin(x) * x**3))(library.tensor(0.7, dtype=library.float64))

    same(twice(dg, func), twice(torch, torch.func))

    def loss(p, x):
        return (p["w"] * x).sum() + p["b"][0] ** 2, x

    def run(T, F):
        p = {"w": T.tensor(A), "b": (T.tensor(2.0, dtype=T.float64),)}
        return F.grad_and_value(loss, has_aux=True)(p, T.tensor(B))

    same(run(dg, func), run(torch, torch.func))
    w = dg.tensor(2.0, requires_grad=True)
    found = func.grad(lambda x: w * x**2)(dg.tensor(3.0))
    found.backward()  # what the function used beside its arguments stays differentiable
    assert w.grad.item() == 6.0


def test_functional_call():
    layer = dg.nn.Sequential(dg.nn.Linear(3, 2), dg.nn.Tanh(), dg.nn.Linear(2, 1))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    other = {name: dg.ones_like(value) for name, value in before.items()}
    x = dg.ones(4, 3)
    found = func.functional_call(layer, other, x)
    np.testing.assert_allclose(found.detach().numpy(), np.full((4, 1), 2 * np.tanh(4.0) + 1), rtol=1e-6)
    gradients = func.grad(lambda p: func.functional_call(layer, p, (x,)).sum())(other)
    assert {name: tuple(g.shape) for name, g in gradients.items()} == {n: tuple(v.shape) for n, v in other.items()}
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\): nope"):
        func.functional_call(layer, {"nope": x}, x, strict=True)
    tied = dg.nn.ModuleList([dg.nn.Linear(2, 2, bias=False)] * 2)
    tied.forward = lambda x: tied[1](tied[0](x))
    assert func.functional_call(tied, {"0.weight": dg.eye(2) * 3}, dg.ones(1, 2)).tolist() == [[9.0, 9.0]]


@pytest.mark.parametrize("call", [
    lambda F, T: F.grad(lambda x: x)(T.ones(3)),
    lambda F, T: F.grad(lambda x: x.sum(), argnums=1)(T.ones(3)),
    lambda F, T: F.grad(lambda x: 1.0)(T.ones(3)),
    lambda F, T: F.functional_call(T.nn.Linear(1, 1), ({"bias": T.ones(1)}, {"bias": T.ones(1)}), T.ones(1)),
])
def test_errors_have_torchs_class(call):
    with pytest.raises(Exception) as theirs:  # whatever torch raises
        call(torch.func, torch)
    with pytest.raises(type(theirs.value)):
        call(func, dg)


# Checkpoints ------------------------------------------------------------------------------------------------


def network():
    dg.manual_seed(0)
    parts = dg.nn.Sequential(dg.nn.Linear(4, 6), dg.nn.Tanh(), dg.nn.Dropout(0.3), dg.nn.Linear(6, 5), dg.nn.ReLU(),
                             dg.nn.Linear(5, 1)).double()
    return parts, dg.randn(7, 4, dtype=dg.float64).requires_grad_()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("workers", [0, 3])
def test_checkpoint_gives_the_same_gradients(order, workers):
    calls = []

    def gradients(checkpointed):
        module, x = network()
        x = dg.shard(x.detach()).requires_grad_() if workers else x

        def forward(value):
            calls.append(1)
            hidden = module[:3](value) * 2
            hidden.add_(1.0)
            return module[3:](hidden)

        dg.manual_seed(3)
        inner = x * 1.5
        y = checkpoint(forward, inner, use_reentrant=False) if checkpointed else forward(inner)
        after = dg.rand(2).tolist()
        wanted = [x, *module.parameters()]
        found = dg.autograd.grad((y**2).sum(), wanted, create_graph=order > 1)
        if order > 1:
            found = dg.autograd.grad(sum((g * g).sum() for g in found), wanted, allow_unused=True)
        return [None if g is None else g.numpy() for g in found], after

    if workers:
        with dg.init(local_mode=True, num_workers=workers, shard_threshold=1):
            plain, checked = gradients(False), gradients(True)
    else:
        plain, checked = gradients(False), gradients(True)
    assert len(calls) == 3
    assert plain[1] == checked[1]
    for mine, other in zip(checked[0], plain[0]):
        np.testing.assert_array_equal(mine, other)


def test_checkpoint_saves_nothing_until_backward():
    x = dg.randn(5).requires_grad_()
    y = checkpoint(lambda v: v.sin().exp(), x, use_reentrant=True)
    assert len(y.grad_fn.outs) == 0
    nested = checkpoint(lambda v: checkpoint(lambda w: (w.sin() * w).exp(), v).cos(), x)
    expected = dg.autograd.grad((x.sin() * x).exp().cos().sum(), x)[0]
    np.testing.assert_allclose(dg.autograd.grad(nested.sum(), x)[0].numpy(), expected.numpy())
    with dg.no_grad():
        assert not checkpoint(lambda v: v * 2, x).requires_grad


def test_checkpoint_notices_another_computation():
    x = dg.randn(5).requires_grad_()
    calls = []

    def changing(value):
        calls.append(1)
        return value.sin() if len(calls) == 1 else value.exp().sin()

    with pytest.raises(CheckpointError, match="recomputed"):
        checkpoint(changing, x).sum().backward()


def test_checkpoint_sequential():
    module, x = network()
    found = []
    for run in (lambda: checkpoint_sequential(module, 2, x, use_reentrant=False), lambda: module(x)):
        dg.manual_seed(3)
        module.zero_grad()
        run().sum().backward()
        found.append([p.grad.numpy().copy() for p in module.parameters()])
    for mine, other in zip(*found):
        np.testing.assert_array_equal(mine, other)


def test_vmap_equals_torchs():
    x, y = np.random.default_rng(0).normal(size=(2, 4, 3))

    def results(T, func):
        a, b = T.tensor(x, requires_grad=True), T.tensor(y)
        vmap = func.vmap
        out = [
            vmap(lambda u, v: (u * v).sum())(a, b),
            vmap(lambda u, v: {"sum": u + v, "neg": -u}, in_dims=(1, None), out_dims=1)(a, b[:, 0])["sum"],
            vmap(vmap(lambda u, v: u * v + 1, in_dims=(0, None)), in_dims=(0, 0))(a, b[:, 0]),
            vmap(func.grad(lambda u: (u**3).sum()))(a),
            vmap(func.jacrev(lambda u: u.sin() * u.sum()), in_dims=1)(a),
            vmap(lambda p: p["w"] @ p["w"], in_dims=({"w": 0},))({"w": a}),
        ]
        sum(o.sum() for o in out).backward()
        return [o.detach().numpy() for o in (*out, a.grad)]

    for ours, theirs in zip(results(dg, dg.func), results(torch, torch.func), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    same = dg.vmap(lambda u: u + dg.randn(2), randomness="same")(dg.zeros(3, 2))
    assert same.tolist() == [same[0].tolist()] * 3
    for bad in (lambda: dg.vmap(lambda u, v: u)(dg.ones(2), dg.ones(3)), lambda: dg.vmap(lambda u: u, in_dims=1)(dg.ones(2)),
                lambda: dg.vmap(lambda u: u, in_dims=None)(dg.ones(2))):  # fmt: skip
        with pytest.raises(ValueError, match="vmap"):
            bad()
    models = [dg.nn.Linear(3, 2) for _ in range(4)]
    params, _ = dg.func.stack_module_state(models)
    outs = dg.vmap(lambda p, u: dg.func.functional_call(models[0], p, (u,)), in_dims=(0, None))(params, dg.ones(3))
    assert dg.allclose(outs, dg.stack([m(dg.ones(3)) for m in models]))
