"""map_shards against the plain function: values, gradients, errors, and that only the first call waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.errors import PlacementError, RemoteOpError

WORKERS = pytest.mark.parametrize("workers", [1, 2, 3, 5])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def leaf(*shape: int, seed: int = 0) -> Any:
    return dg.tensor(normal(*shape, seed=seed), requires_grad=True)


def close(ours: Any, expected: Any) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-13)


def rowwise(x: Any, w: Any) -> Any:
    return (x @ w).tanh() * x.sum(dim=1, keepdim=True)


def loss_of_rows(x: Any, w: Any) -> tuple[Any, Any]:
    y = (x @ w).exp()
    return y, (y**2).sum()


def both_kinds(x: Any) -> tuple[Any, Any, Any]:
    return x * 2, x.sum(), (x[:, 0] > 0).long()


@WORKERS
@pytest.mark.parametrize("rows", [7, 2, 0])
def test_rowwise_function(workers: int, rows: int) -> None:
    x0, w0 = leaf(rows, 3), leaf(3, 4, seed=1)
    expected = rowwise(x0, w0)
    g = dg.tensor(normal(rows, 4, seed=2))
    expected.backward(g)
    with dg.init(local_mode=True, num_workers=workers):
        x, w = leaf(rows, 3), leaf(3, 4, seed=1)
        y = dg.map_shards(rowwise, dg.shard(x), dg.replicate(w))
        assert y.shape == (rows, 4)
        assert y.requires_grad
        y.backward(g)
        close(y, expected)
        close(x.grad, x0.grad)
        close(w.grad, w0.grad)  # what the workers found for the replicated input is added up


@WORKERS
def test_scalar_results_are_summed(workers: int) -> None:
    x0, w0 = leaf(7, 3), leaf(3, 2, seed=1)
    y0, total0 = loss_of_rows(x0, w0)
    (total0 * 3 + y0.sum()).backward()
    with dg.init(local_mode=True, num_workers=workers):
        x, w = leaf(7, 3), leaf(3, 2, seed=1)
        y, total = dg.map_shards(loss_of_rows, dg.shard(x), w)
        assert total.shape == ()
        (total * 3 + y.sum()).backward()
        close(y, y0)
        close(total, total0)
        close(x.grad, x0.grad)
        close(w.grad, w0.grad)


@WORKERS
def test_only_one_result_is_used(workers: int) -> None:
    x0 = leaf(5, 3)
    both_kinds(x0)[1].backward()
    with dg.init(local_mode=True, num_workers=workers):
        x = leaf(5, 3)
        doubled, total, positive = dg.map_shards(both_kinds, dg.shard(x))
        total.backward()
        close(x.grad, x0.grad)
        close(doubled, x0 * 2)
        assert positive.dtype is dg.int64
        assert not positive.requires_grad
        assert positive.tolist() == (x0[:, 0] > 0).long().tolist()


@WORKERS
def test_uneven_results_are_laid_end_to_end(workers: int) -> None:
    def positive_rows(x: Any) -> Any:
        return x[x[:, 0].detach() > 0] * 2

    x0 = leaf(9, 2)
    expected = positive_rows(x0)
    (expected**2).sum().backward()
    with dg.init(local_mode=True, num_workers=workers):
        x = leaf(9, 2)
        y = dg.map_shards(positive_rows, dg.shard(x))
        assert y.shape == expected.shape
        close((y * 1).cpu(), expected)
        (y**2).sum().backward()
        close(x.grad, x0.grad)


@WORKERS
def test_results_per_worker(workers: int) -> None:
    """A function of replicated inputs alone: its rows come once per worker, whatever sessions came before."""

    with dg.init(local_mode=True, num_workers=workers):
        w = dg.replicate(leaf(1, 3))
        y = dg.map_shards(_tripled, w)
        assert y.shape == (workers, 3)
        np.testing.assert_allclose(y.detach().numpy(), np.repeat(normal(1, 3) * 3, workers, axis=0))


def _tripled(w: Any) -> Any:
    return w * 3


@WORKERS
def test_inputs_keep_their_uneven_blocks(workers: int) -> None:
    def size(x: Any) -> Any:
        return dg.tensor([x.shape[0]])

    offsets = (0, *([1] * (workers - 1)), 6)
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.replicate(dg.ones(6, 2)).redistribute(dg.Shard(0, offsets))
        assert dg.map_shards(size, x).tolist() == list(np.diff(offsets))
        tall = dg.replicate(dg.ones(2, 6)).redistribute(dg.Shard(1, offsets))
        assert dg.map_shards(lambda t: dg.tensor([t.shape[1]]), tall).tolist() == list(np.diff(offsets))


def test_partial_inputs_are_reduced_first() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(leaf(6, 2))
        y = dg.map_shards(lambda total: total.exp(), x.sum(dim=0, keepdim=True))
        np.testing.assert_allclose(y.detach().numpy(), np.repeat(np.exp(normal(6, 2).sum(0, keepdims=True)), 3, 0))


def test_without_a_session_it_is_the_function() -> None:
    x, w = leaf(4, 3), leaf(3, 2, seed=1)
    y = dg.map_shards(rowwise, x, w)
    (g,) = dg.autograd.grad((y**2).sum(), w, create_graph=True)
    assert g.requires_grad
    assert dg.map_shards(lambda: 5) == 5


def test_numpy_inside() -> None:
    def with_numpy(x: Any) -> Any:
        return dg.from_numpy(np.sort(x.numpy(), axis=1))

    with dg.init(local_mode=True, num_workers=3):
        x = dg.shard(dg.from_numpy(normal(7, 4)))
        y = dg.map_shards(with_numpy, x)
        np.testing.assert_array_equal(y.numpy(), np.sort(normal(7, 4), axis=1))


def test_a_training_loop_inside_and_outside() -> None:
    def sgd_step(w: Any, x: Any) -> Any:
        v = w.detach().clone().requires_grad_()
        ((x @ v) ** 2).mean().backward()
        return (w - 0.1 * v.grad)[None]

    with dg.init(local_mode=True, num_workers=2):
        w, x = leaf(3, 1), normal(4, 3, seed=1)
        y = dg.map_shards(sgd_step, w, dg.shard(dg.from_numpy(x)))
        expected = [normal(3, 1) - 0.1 * (2 * part.T @ (part @ normal(3, 1)) / 2) for part in (x[:2], x[2:])]
        np.testing.assert_allclose(y.detach().numpy(), np.stack(expected), rtol=1e-12)
        y.sum().backward()
        np.testing.assert_allclose(w.grad.numpy(), np.full((3, 1), 2.0))


# Waiting ----------------------------------------------------------------------------------------------------


def test_only_the_first_call_waits() -> None:
    with dg.init(local_mode=True, num_workers=3):
        x, w = dg.shard(dg.from_numpy(normal(7, 3))), leaf(3, 2)
        for step in range(5):
            dg.synchronize()
            before = dg.stats()
            y, total = dg.map_shards(loss_of_rows, x, w)
            total.backward()
            sent = dg.stats().control_messages - before.control_messages
            assert (sent > 0) == (step == 0)
            assert y.shape == (7, 2)
            with dg.no_grad():
                w -= 0.01 * w.grad
            w.grad = None
            dg.synchronize()
            if step > 1:
                assert dg.stats().programs_built == before.programs_built


def test_another_shape_asks_again() -> None:
    with dg.init(local_mode=True, num_workers=2):
        for rows in (4, 6, 4):
            x = dg.shard(dg.from_numpy(normal(rows, 2)))
            assert dg.map_shards(_tripled, x).shape == (rows, 2)


def test_another_number_of_workers_asks_again() -> None:
    for workers in (2, 3, 1):
        with dg.init(local_mode=True, num_workers=workers):
            assert dg.map_shards(_tripled, dg.replicate(dg.ones(1, 2))).shape == (workers, 2)


# Errors -----------------------------------------------------------------------------------------------------


def test_arguments_must_be_tensors() -> None:
    with pytest.raises(TypeError, match="map_shards: argument 1 must be a Tensor, got int"):
        dg.map_shards(rowwise, leaf(2, 3), 5)


def test_an_error_in_the_function_names_the_callers_line() -> None:
    def fails_on_the_second(x: Any) -> Any:
        if float(x.sum()) > 1:
            raise KeyError("no such row")
        return x * 2

    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.tensor([[0.0], [0.0], [5.0], [5.0]]))
        with pytest.raises(RemoteOpError, match="no such row") as caught:
            dg.map_shards(fails_on_the_second, x)
        assert caught.value.worker == 1
        assert caught.value.cause == "KeyError"
        assert __file__ in caught.value.where
        assert "fails_on_the_second" in caught.value.worker_traceback
        assert (x * 2).tolist() == [[0.0], [0.0], [10.0], [10.0]]
        assert dg.map_shards(_tripled, x).tolist() == [[0.0], [0.0], [15.0], [15.0]]


def test_an_error_in_a_later_call_comes_with_its_value() -> None:
    def fails_when_large(x: Any) -> Any:
        if float(x.detach().abs().sum()) > 100:
            raise ValueError("too large")
        return x * 2

    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(leaf(4, 1))
        good = dg.map_shards(fails_when_large, x)
        bad = dg.map_shards(fails_when_large, x * 1000)
        bad.sum().backward()
        with pytest.raises(RemoteOpError, match="too large"):
            bad.tolist()
        np.testing.assert_allclose(good.detach().numpy(), 2 * normal(4, 1))


def test_results_must_be_tensors() -> None:
    with dg.init(local_mode=True, num_workers=2), pytest.raises(RemoteOpError, match="must return tensors, got float"):
        dg.map_shards(lambda x: 1.0, dg.shard(dg.ones(4)))


def test_results_must_fit_together() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(dg.arange(3.0))
        with pytest.raises(PlacementError, match="all dims but the first must be equal"):
            dg.map_shards(lambda t: t[None], x)
        with pytest.raises(PlacementError, match="results on different workers"):
            dg.map_shards(lambda t: (t,) * t.shape[0], x)


def test_results_must_depend_on_shapes_alone() -> None:
    def selected(x: Any) -> Any:
        return x[x > 0]

    with dg.init(local_mode=True, num_workers=2):
        assert dg.map_shards(selected, dg.shard(dg.tensor([1.0, -1.0, 1.0, 1.0]))).tolist() == [1.0, 1.0, 1.0]
        y = dg.map_shards(selected, dg.shard(dg.tensor([1.0, 1.0, 1.0, 1.0])))
        with pytest.raises(RemoteOpError, match="shapes and dtypes must depend on the inputs' shapes alone"):
            y.tolist()


def test_gradients_of_gradients_are_refused() -> None:
    with dg.init(local_mode=True, num_workers=2):
        x = dg.shard(leaf(4, 1))
        y = dg.map_shards(_tripled, x * x)
        (g,) = dg.autograd.grad((y * y).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match=r"map_shards: .* once"):
            g.sum().backward()
