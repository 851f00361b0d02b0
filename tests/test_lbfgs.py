"""LBFGS and Adafactor against torch: the same losses, parameters and state. Invariant: torch is the only oracle."""

from __future__ import annotations

import numpy as np
import pytest

import distgrad as dg

torch = pytest.importorskip("torch")


def to_dg(tensor):
    return dg.from_numpy(tensor.detach().numpy().copy())


def train(library, module, x, y, options, steps=6):
    optimizer = library.optim.LBFGS(module.parameters(), max_iter=7, **options)

    def closure():
        optimizer.zero_grad()
        loss = ((module(x) - y) ** 2).mean()
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)], optimizer


@pytest.mark.parametrize("options", [
    {}, {"lr": 0.3, "history_size": 3}, {"line_search_fn": "strong_wolfe"},
    {"line_search_fn": "strong_wolfe", "lr": 0.5, "history_size": 4, "max_eval": 9},
])
def test_lbfgs_follows_torch(options):
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    ours = dg.nn.Sequential(dg.nn.Linear(3, 8), dg.nn.Tanh(), dg.nn.Linear(8, 1)).double()
    start = {name: to_dg(value) for name, value in theirs.state_dict().items()}
    ours.load_state_dict(start)
    x = torch.randn(40, 3, dtype=torch.float64)
    y = x.sum(1, keepdim=True).sin()
    expected, a = train(torch, theirs, x, y, options)
    found, b = train(dg, ours, to_dg(x), to_dg(y), options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    mine, other = b.state_dict(), a.state_dict()
    assert repr(b) == repr(a)
    assert mine["param_groups"] == other["param_groups"]
    mine, other = mine["state"][0], other["state"][0]
    assert set(mine) == set(other)
    assert (mine["func_evals"], mine["n_iter"]) == (other["func_evals"], other["n_iter"])
    assert len(mine["old_dirs"]) == len(other["old_dirs"])
    np.testing.assert_allclose(mine["d"].numpy(), other["d"].numpy(), rtol=1e-3, atol=1e-7)
    # A session gives the same curve.
    with dg.init(local_mode=True, num_workers=3):
        again = dg.nn.Sequential(dg.nn.Linear(3, 8), dg.nn.Tanh(), dg.nn.Linear(8, 1)).double()
        again.load_state_dict(start)
        sharded, _ = train(dg, again, dg.shard(to_dg(x)), dg.shard(to_dg(y)), options, 3)
    np.testing.assert_allclose(sharded, expected[:3], rtol=1e-6)


def test_lbfgs_state_can_be_loaded():
    dg.manual_seed(0)
    module = dg.nn.Linear(3, 1).double()
    x = dg.randn(20, 3, dtype=dg.float64)
    y = (x * x).sum(1, keepdim=True)
    _, optimizer = train(dg, module, x, y, {}, 2)
    copy = dg.nn.Linear(3, 1).double()
    copy.load_state_dict(module.state_dict())
    other = dg.optim.LBFGS(copy.parameters(), max_iter=7)
    other.load_state_dict(optimizer.state_dict())

    def closure(m, o):
        o.zero_grad()
        loss = ((m(x) - y) ** 2).mean()
        loss.backward()
        return loss

    optimizer.step(lambda: closure(module, optimizer))
    other.step(lambda: closure(copy, other))
    for mine, theirs in zip(module.parameters(), copy.parameters()):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=1e-12)


def test_lbfgs_minimizes_rosenbrock_like_torch():
    def minimize(library):
        p = library.tensor([-1.5, 2.0], dtype=library.float64, requires_grad=True)
        optimizer = library.optim.LBFGS([p], line_search_fn="strong_wolfe", max_iter=100)

        def closure():
            optimizer.zero_grad()
            loss = (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2
            loss.backward()
            return loss

        optimizer.step(closure)
        return p.detach().numpy()

    found = minimize(dg)
    np.testing.assert_allclose(found, [1.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(found, minimize(torch), atol=1e-9)


@pytest.mark.parametrize("options", [
    {}, {"lr": 0.1, "weight_decay": 0.1, "d": 1.5}, {"maximize": True, "eps": (1e-6, 1e-2), "beta2_decay": -0.5},
])
def test_adafactor_follows_torch(options):
    torch.manual_seed(1)
    starts = [torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (5,), (2, 3, 4), ())]
    theirs = [p.clone().requires_grad_() for p in starts]
    ours = [to_dg(p).requires_grad_() for p in starts]
    a, b = torch.optim.Adafactor(theirs, **options), dg.optim.Adafactor(ours, **options)
    assert repr(a) == repr(b)
    for _ in range(5):
        for parameters, optimizer in ((theirs, a), (ours, b)):
            optimizer.zero_grad()
            sum((p * p).sum() + (p.sin() * 3).sum() for p in parameters).backward()
            optimizer.step()
    for mine, other in zip(ours, theirs):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-9)
    for number, state in a.state_dict()["state"].items():
        mine = b.state_dict()["state"][number]
        assert set(mine) == set(state)
        for name, value in state.items():
            np.testing.assert_allclose(mine[name].numpy(), value.numpy(), rtol=1e-9)


@pytest.mark.parametrize("call", [
    lambda T: T.optim.LBFGS([{"params": [T.zeros(1)]}, {"params": [T.zeros(1)]}]),
    lambda T: T.optim.LBFGS([T.zeros(1)], lr=-1),
    lambda T: T.optim.Adafactor([T.zeros(1)], lr=-1),
    lambda T: T.optim.Adafactor([T.zeros(1)], beta2_decay=1),
    lambda T: T.optim.Adafactor([T.zeros(1)], d=0.5),
    lambda T: T.optim.Adafactor([T.zeros(1)], eps=(-1, 1e-3)),
])
def test_errors_are_torchs(call):
    with pytest.raises(ValueError) as theirs:  # the text is compared below
        call(torch)
    with pytest.raises(ValueError) as ours:  # the text is compared below
        call(dg)
    assert str(ours.value) == str(theirs.value)
