"""Movement beyond the op rows: aliasing and strides against torch, kernels that exchange rows against numpy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.meta import TensorMeta
from distgrad.ops import movement
from distgrad.placement import Shard, Spec, balanced
from distgrad.runtime.collectives import run_lockstep

torch = pytest.importorskip("torch")


def _write_through_views(T: Any) -> Any:
    x = T.arange(24.0).reshape(2, 3, 4)
    x.permute(2, 0, 1).narrow(0, 1, 2).add_(100)
    x.select(1, 0).mul_(2)
    x.select(0, 0).diagonal().zero_()
    x.transpose(0, 1).reshape(-1).add_(7)  # not a view: torch copies here
    x.flatten(1).unsqueeze(0).squeeze().sub_(1)
    for part in x.unbind(2):
        part.add_(1)
    for number, part in enumerate(x.split(2, dim=1)):
        part.add_(number)
    x.view(4, 6).chunk(2, 1)[1].mul_(3)
    x.view(-1).view(6, 4).diagonal(1).add_(5)
    x.unsqueeze(0).expand(1, 2, 3, 4).add_(1)
    x.contiguous().add_(2)
    x.clone().add_(3)
    x.transpose(1, 2).contiguous().add_(1000)
    return x


def test_writing_through_views_reaches_what_torch_reaches() -> None:
    np.testing.assert_array_equal(_write_through_views(dg).numpy(), _write_through_views(torch).numpy())


def test_gradients_flow_through_writes_to_views() -> None:
    def gradient(T: Any) -> np.ndarray:
        w = T.arange(12.0).reshape(3, 4).requires_grad_()
        x = w * 2
        x.t().narrow(0, 1, 2).mul_(w.t().narrow(0, 1, 2))
        x.diagonal().pow_(2)
        x.view(-1).select(0, 5).mul_(3)
        x.unsqueeze(1).expand(3, 1, 4).add_(w.unsqueeze(1))
        x.pow(2).sum().backward()
        return w.grad.numpy()

    np.testing.assert_allclose(gradient(dg), gradient(torch), rtol=1e-6)


@pytest.mark.parametrize("chain", [
    lambda x: x.permute(2, 0, 1), lambda x: x.transpose(0, 1).flatten(1), lambda x: x.narrow(2, 1, 2),
    lambda x: x.narrow(0, 1, 1).reshape(-1), lambda x: x.diagonal(0, 1, 2), lambda x: x.unsqueeze(1).expand(2, 5, 3, 4),
    lambda x: x.unfold(2, 2, 2), lambda x: x.select(1, 2).reshape(2, 2, 2), lambda x: x.t() if x.ndim == 2 else x.mT.mT,
    lambda x: x.narrow(1, 0, 0), lambda x: x.permute(1, 0, 2).reshape(3, 8),
])
def test_strides_are_those_of_torch(chain: Callable[[Any], Any]) -> None:
    ours = chain(dg.arange(24.0).reshape(2, 3, 4))
    theirs = chain(torch.arange(24.0).reshape(2, 3, 4))
    assert dg.functions.movement.stride(ours) == theirs.stride()
    assert dg.functions.movement.is_contiguous(ours) == theirs.is_contiguous()


def _rows_written_and_read(T: Any, shape: tuple[int, ...], dim: int, of_view: bool) -> Any:
    base = T.arange(24.0).reshape(shape)
    x = base.transpose(0, -1) if of_view else base
    dim = len(shape) - 1 - dim if of_view else dim
    rows = x.unbind(dim)
    again = x.unbind(dim) if dim else [x[place - (place % 2) * len(rows)] for place in range(len(rows))]
    w = T.ones(rows[0].shape).requires_grad_()
    yield from ((row, T.tensor([row.storage_offset(), row.is_contiguous(), *row.stride()])) for row in rows)
    rows[0].add_(100)  # reaches the base and rows taken before and after
    x.mul_(2)
    again[1][...] = -1.0
    yield base, T.stack(again)
    kept = rows[-1].detach()
    base.zero_()
    inner = rows[1].unsqueeze(0)  # of a row that has not been read since
    inner.sub_(3)
    yield base, kept
    x.select(dim, 0).mul_(w).add_(w)  # torch lets no history come in by a row of several
    (base * base).sum().backward()
    yield base.detach(), w.grad
    x.detach().fill_(5.0)
    yield from ((a.detach(), b.detach()) for a, b in zip(rows, again))


@pytest.mark.parametrize("of_view", [False, True], ids=["whole", "view"])
def test_rows_are_views_as_those_of_torch(of_view: bool) -> None:
    for shape in ((24,), (4, 6), (2, 3, 4)):
        for dim in range(len(shape)):
            ours, theirs = (_rows_written_and_read(T, shape, dim, of_view) for T in (dg, torch))
            for mine, other in zip(ours, theirs, strict=True):
                for a, b in zip(mine, other, strict=True):
                    assert (tuple(a.shape), a.stride()) == (tuple(b.shape), b.stride())
                    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_view_of_what_does_not_lie_in_order_is_refused() -> None:
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        dg.arange(6.0).reshape(2, 3).t().view(6)


@pytest.mark.parametrize("view", [lambda x: x.expand(2, 3), lambda x: x.unfold(0, 2, 1)])
def test_writing_where_elements_share_memory_is_refused(view: Callable[[Any], Any]) -> None:
    with pytest.raises(RuntimeError, match="single memory location"):
        view(dg.ones(3)).add_(1)


@pytest.mark.parametrize(("shape", "new", "expected"), [
    ((4, 3), (12,), [(0, 0, 1, 3)]),
    ((12,), (3, 4), [(0, 0, 4, 1)]),
    ((6, 1, 4, 5), (1, 24, 5), [(0, 1, 1, 4), (3, 2, 1, 1)]),
    ((6, 4), (4, 6), [(0, 0, 3, 2)]),
    ((5, 4), (4, 5), []),
    ((0, 3), (0, 1, 3), [(0, 0, 1, 1)]),
])
def test_reshape_groups(shape: tuple[int, ...], new: tuple[int, ...], expected: list[tuple[int, ...]]) -> None:
    assert list(movement.reshape_groups(shape, new)) == expected


def _spec(array: np.ndarray, dim: int, offsets: tuple[int, ...]) -> Spec:
    return Spec.of(TensorMeta.of(array.shape, dg.float64), Shard(dim, offsets))


def _exchange(op: Any, arrays: list[np.ndarray], numbers: tuple[Any, ...], workers: int, generator: Any,
              dim: int, **attrs: Any) -> np.ndarray:
    """Runs an op's exchanging kernel on blocks cut at random and joins what the workers get."""
    metas = [TensorMeta.of(a.shape, dg.float64) for a in arrays] + [type(n) for n in numbers]
    outs, _ = op.meta(*metas, **attrs)
    through = next(r.through for r in op.rows(metas, outs, attrs) if r.through is not None and r.ins[0] == dim)
    cuts = [(0, *sorted(generator.integers(0, a.shape[dim] + 1, workers - 1).tolist()), a.shape[dim]) for a in arrays]
    ins = tuple(_spec(a, dim, c) for a, c in zip(arrays, cuts)) + tuple(type(n) for n in numbers)
    result = Spec.of(outs[0], Shard(dim, balanced(outs[0].shape[dim], workers)))
    generators = []
    for rank in range(workers):
        context = SimpleNamespace(rank=rank, world_size=workers, ins=ins, outs=(result,))
        blocks = [np.take(a, np.arange(c[rank], c[rank + 1]), dim) for a, c in zip(arrays, cuts)]
        generators.append(through(context, *blocks, *numbers, **attrs))
    parts = run_lockstep(generators)
    assert [p.shape for p in parts] == [result.local_shape(rank) for rank in range(workers)]
    return np.concatenate(parts, dim)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("dim", [0, 1])
def test_exchanging_kernels_equal_the_whole_ones(workers: int, dim: int) -> None:
    generator = np.random.default_rng(workers)
    x = generator.standard_normal((7, 6))
    y, z = (generator.standard_normal((n, 6) if dim == 0 else (7, n)) for n in (3, 0))
    axes = (0, 1)
    calls: list[tuple[Any, list[np.ndarray], tuple[Any, ...], dict[str, Any]]] = [
        (movement.slice, [x], (1,), {"axis": dim, "size": 3, "step": 2}),
        (movement.slice, [x], (2,), {"axis": dim, "size": 0, "step": 1}),
        (movement.embed, [x], (3,), {"shape": (22, 6) if dim == 0 else (7, 22), "axis": dim, "step": 3}),
        (movement.embed, [y], (0,), {"shape": (4, 6) if dim == 0 else (7, 4), "axis": dim, "step": 1}),
        (movement.flip, [x], (), {"axis": axes}),
        (movement.roll, [x], (-2,), {"axis": dim}),
        (movement.concat, [x, y, z, y], (), {"axis": dim}),
    ]
    for op, arrays, numbers, attrs in calls:
        found = _exchange(op, arrays, numbers, workers, generator, dim, **attrs)
        np.testing.assert_array_equal(found, op.kernel(*arrays, *numbers, **attrs), err_msg=op.name)


def test_slices_at_other_places_share_one_plan() -> None:
    x = dg.arange(10.0)
    x.narrow(0, 0, 3)
    before = len(movement.slice.plans)
    for start in range(1, 7):
        assert x.narrow(0, start, 3).tolist() == [start, start + 1, start + 2]
    assert len(movement.slice.plans) == before


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda x: x.reshape(4, 2), RuntimeError, "invalid for input of size 6"),
    (lambda x: x.view(-1, -1), RuntimeError, "only one dimension can be inferred"),
    (lambda x: x.expand(-1, 4), RuntimeError, "expanded size of the tensor"),
    (lambda x: x.permute(0, 0), RuntimeError, "duplicate dims"),
    (lambda x: dg.cat([x, dg.ones(2, 2)]), RuntimeError, "tensor number 1"),
    (lambda x: dg.cat([]), ValueError, "non-empty list"),
    (lambda x: dg.stack([x, dg.ones(2)]), RuntimeError, "equal size"),
    (lambda x: x.narrow(1, 2, 2), RuntimeError, "exceeds dimension size"),
    (lambda x: x.select(1, 3), IndexError, "out of range"),
    (lambda x: x.split([1, 2]), RuntimeError, "sum exactly"),
    (lambda x: x.flip(0, 0), RuntimeError, "multiple times"),
    (lambda x: dg.roll(x, (1, 2)), RuntimeError, "must align"),
    (lambda x: x.diagonal(0, 0, 0), RuntimeError, "identical"),
    (lambda x: x.repeat(2), RuntimeError, "repeat dims"),
    (lambda x: dg.tril(dg.ones(3)), RuntimeError, "at least 2 dimensions"),
    (lambda x: dg.functions.movement.pad(x, (1,)), RuntimeError, "divisible by 2"),
    (lambda x: dg.functions.movement.pad(x, (3, 1), "reflect"), RuntimeError, "less than the corresponding"),
    (lambda x: dg.functions.movement.pad(x, (1, 1), "odd"), NotImplementedError, "Unrecognised padding mode"),
])
def test_wrong_arguments_raise_what_torch_raises(call: Callable[[Any], Any], error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        call(dg.arange(6.0).reshape(2, 3))
