"""What the generic op tests do not see of linear algebra: errors, singular and degenerate matrices, complex gradients,
derivatives beyond the second, low-rank approximations, and that a sharded batch is worked on where it lies."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from oracle import assert_same, evaluate

import distgrad as dg
from distgrad import linalg
from distgrad.errors import RemoteOpError
from distgrad.functions import linalg_distance as distance
from distgrad.functions import linalg_matrix as matrix
from distgrad.linalg import LinAlgError

torch = pytest.importorskip("torch")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(values: Any, grad: bool = False) -> Any:
    return dg.from_numpy(np.array(values, dtype=np.float64)).requires_grad_(grad)


def slope(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central differences of a function of an array."""
    out = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[place] = step
        out[place] = (function(at + moved) - function(at - moved)) / (2 * step)
    return out


# Errors -----------------------------------------------------------------------------------------------------


def test_singular_matrices_raise_at_the_call() -> None:
    zeros = dg.zeros(3, 3)
    with pytest.raises(LinAlgError, match=r"linalg\.inv: The diagonal element 1 is zero"):
        linalg.inv(zeros)
    batch = np.stack([np.eye(2), np.zeros((2, 2))])
    with pytest.raises(LinAlgError, match=r"solve: \(Batch element 1\): The solver failed because .* is singular"):
        linalg.solve(tensor(batch), tensor(np.ones((2, 2, 1))))
    with pytest.raises(LinAlgError, match="leading minor of order 2 is not positive-definite"):
        linalg.cholesky(tensor(np.diag([1.0, -1.0])))
    with pytest.raises(LinAlgError, match=r"U\[1,1\] is zero"):
        linalg.lu_factor(zeros)
    with pytest.raises(LinAlgError, match="failed to converge"):
        linalg.svd(dg.full((2, 2), float("nan")))
    with pytest.raises(RuntimeError, match="should not contain infs or NaNs"):
        linalg.eig(dg.full((2, 2), float("nan")))
    assert issubclass(LinAlgError, RuntimeError)
    assert isinstance(pickle.loads(pickle.dumps(LinAlgError("x"))), LinAlgError)


def test_info_says_what_failed() -> None:
    batch = tensor(np.stack([np.eye(2), np.diag([1.0, -1.0]), np.zeros((2, 2))]))
    assert linalg.cholesky_ex(batch).info.tolist() == [0, 2, 1]
    assert linalg.inv_ex(batch).info.tolist() == [0, 0, 1]
    assert linalg.lu_factor_ex(batch).info.tolist() == [0, 0, 1]
    assert linalg.solve_ex(batch, batch).info.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(linalg.inv_ex(batch).inverse.numpy()[1], np.diag([1.0, -1.0]))
    with pytest.raises(LinAlgError):
        linalg.inv_ex(batch, check_errors=True)


def test_wrong_arguments_are_found_before_anything_runs() -> None:
    for call, text in [
        (lambda: linalg.inv(dg.ones(2, 3)), "must be batches of square matrices, but they are 2 by 3"),
        (lambda: linalg.inv(dg.ones(3)), "must have at least 2 dimensions"),
        (lambda: linalg.inv(dg.ones(3, 3).half()), "Low precision dtypes not supported"),
        (lambda: linalg.det(dg.ones(3, 3).long()), "Expected a floating point or complex tensor as input. Got Long"),
        (lambda: linalg.solve(dg.ones(3, 3), dg.ones(2, 1)), "Incompatible shapes of A and B"),
        (lambda: linalg.solve(dg.ones(3, 3), dg.ones(3, 1).double()), "same dtype, got "),
        (lambda: linalg.qr(dg.ones(3, 3), mode="full"), "unrecognized mode 'full'"),
        (lambda: linalg.lu(dg.ones(3, 3), pivot=False), "without pivoting"),
        (lambda: linalg.eigh(dg.ones(3, 3), UPLO="X"), "'L' or 'U', but got X"),
        (lambda: linalg.lstsq(dg.ones(3, 2), dg.ones(3, 1), driver="best"), "gelsd, gelss"),
        (lambda: linalg.matrix_norm(dg.ones(3, 3), ord=3), "Order 3 not supported"),
        (lambda: linalg.matrix_norm(dg.ones(3, 3), dim=(0, 0)), "must be different"),
        (lambda: linalg.norm(dg.ones(3, 3, 3), ord=2), "must be 1D or 2D"),
        (lambda: linalg.cross(dg.ones(3, 2), dg.ones(3, 2)), "must have length 3"),
        (lambda: linalg.tensorinv(dg.ones(4, 4), ind=0), "strictly positive"),
        (lambda: linalg.householder_product(dg.ones(2, 3), dg.ones(2)), "m >= n >= k"),
        (lambda: distance.cdist(dg.ones(3, 2), dg.ones(3, 3)), "same number of columns"),
        (lambda: distance.renorm(dg.ones(3), 2, 0, 1.0), "at least 2 dimensions"),
        (lambda: distance.cov(dg.ones(2, 2, 2)), "two or fewer dimensions"),
    ]:
        with pytest.raises(RuntimeError, match=text):
            call()


def test_what_has_no_gradient_says_so() -> None:
    x = tensor(random(4, 2), grad=True)
    with pytest.raises(RuntimeError, match="not differentiable when mode='complete' and nrows > ncols"):
        linalg.qr(x, mode="complete").Q.sum().backward()
    with pytest.raises(RuntimeError, match="depends on Q, which is not computed when mode='r'"):
        linalg.qr(x, mode="r").R.sum().backward()


# Singular and degenerate matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 3, 2, 1, 0])
def test_determinant_of_any_rank_has_three_derivatives(rank: int) -> None:
    """The determinant is a polynomial: its derivatives exist everywhere, which differences confirm."""
    values = random(4, rank) @ random(rank, 4, seed=1)
    h, k = random(4, 4, seed=2), random(4, 4, seed=3)

    def first(at: np.ndarray) -> np.ndarray:
        x = tensor(at, grad=True)
        return dg.autograd.grad(linalg.det(x), x)[0].numpy()

    def second(at: np.ndarray) -> Any:
        x = tensor(at, grad=True)
        (g,) = dg.autograd.grad(linalg.det(x), x, create_graph=True)
        return x, dg.autograd.grad((g * tensor(h)).sum(), x, create_graph=True)[0]

    np.testing.assert_allclose(first(values), slope(np.linalg.det, values), atol=1e-7)
    expected = slope(lambda at: float((first(at) * h).sum()), values)
    x, found = second(values)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6)
    if rank == 4:
        third = dg.autograd.grad((found * tensor(k)).sum(), x)[0].numpy()
        expected = slope(lambda at: float((second(at)[1].detach().numpy() * k).sum()), values)
        np.testing.assert_allclose(third, expected, atol=1e-5)


def test_repeated_eigenvalues_and_singular_values_have_gradients() -> None:
    """Sums of all of them do not depend on the choice of vectors among equal ones."""
    for count in (2, 4):
        x = tensor(np.diag([2.0, 2.0, 2.0, 5.0][:count]), grad=True)
        linalg.eigvalsh(x).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), np.eye(count), atol=1e-12)
        x = tensor(np.diag([2.0, 2.0, 2.0, 5.0][:count]), grad=True)
        linalg.matrix_norm(x, "nuc").backward()
        np.testing.assert_allclose(x.grad.numpy(), np.eye(count), atol=1e-12)
        values, vectors = linalg.eigh(tensor(np.eye(count), grad=True))
        assert np.isfinite(dg.autograd.grad(values.sum(), [vectors], allow_unused=True)[0] is None)


def test_vectors_of_equal_eigenvalues_have_infinite_gradients() -> None:
    x = tensor(np.eye(2), grad=True)
    (linalg.eigh(x).eigenvectors * tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert not np.isfinite(x.grad.numpy()).all()


def test_householder_product_takes_zero_factors() -> None:
    packed, tau = np.tril(random(4, 3)), np.array([1.3, 0.0, 0.7])
    expected = np.eye(4)
    for i in range(3):
        v = np.concatenate([np.zeros(i), [1.0], packed[i + 1 :, i]])
        expected = expected @ (np.eye(4) - tau[i] * np.outer(v, v))
    found = linalg.householder_product(tensor(packed), tensor(tau)).numpy()
    np.testing.assert_allclose(found, expected[:, :3], atol=1e-12)
    for left in (True, False):
        product = matrix.ormqr(tensor(packed), tensor(tau), tensor(np.eye(4)), left=left).numpy()
        np.testing.assert_allclose(product, expected, atol=1e-12)


def test_geqrf_gives_the_factors_of_qr() -> None:
    x = tensor(random(5, 3))
    packed, tau = matrix.geqrf(x)
    q, r = linalg.qr(x)
    np.testing.assert_allclose(linalg.householder_product(packed, tau).numpy(), q.numpy(), atol=1e-12)
    np.testing.assert_allclose(np.triu(packed.numpy()[:3]), r.numpy(), atol=1e-12)


# Complex matrices -------------------------------------------------------------------------------------------


def _positive(T: Any, x: Any) -> Any:
    return x @ x.mH + 2 * T.eye(3, dtype=x.dtype)


COMPLEX: dict[str, Callable[[Any, Any], Any]] = {
    "cholesky": lambda T, x: T.linalg.cholesky(_positive(T, x)),
    "cholesky_upper": lambda T, x: T.linalg.cholesky(_positive(T, x), upper=True),
    "lu": lambda T, x: T.linalg.lu(x)[1:],
    "qr": lambda T, x: T.linalg.qr(x),
    "qr_wide": lambda T, x: T.linalg.qr(x[:, :2]),
    "eigh": lambda T, x: T.linalg.eigh(x + x.mH)[1].abs(),
    "eigvals": lambda T, x: T.linalg.eigvals(x).abs().sort()[0],
    "svd": lambda T, x: [part.abs() for part in T.linalg.svd(x[:, :, :2], full_matrices=False)],
    "inv": lambda T, x: T.linalg.inv(x),
    "solve": lambda T, x: T.linalg.solve(x, x.mH),
    "det": lambda T, x: T.linalg.det(x),
    "slogdet": lambda T, x: T.linalg.slogdet(x),
    "pinv": lambda T, x: T.linalg.pinv(x[:, :2]),
    "matrix_exp": lambda T, x: T.linalg.matrix_exp(x * 0.3),
    "lstsq": lambda T, x: T.linalg.lstsq(x[:, :, :2], x)[0],
    "vecdot": lambda T, x: T.linalg.vecdot(x, x * 2j),
    "nuc": lambda T, x: T.linalg.matrix_norm(x, "nuc"),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_matrices_equal_torch(name: str) -> None:
    values = random(2, 3, 3) + 1j * random(2, 3, 3, seed=1)
    ours = evaluate(dg, COMPLEX[name], [values], [True])
    theirs = evaluate(torch, COMPLEX[name], [values], [True])
    assert_same(ours, theirs, rtol=1e-7, atol=1e-8)


# Composites -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", ["fro", "nuc", 1, -1, float("inf"), -float("inf"), 2, -2, None])
def test_condition_numbers_and_their_gradients(p: Any) -> None:
    values = random(3, 3) + 3 * np.eye(3)
    x = tensor(values, grad=True)
    found = linalg.cond(x, p)
    assert found.item() == pytest.approx(np.linalg.cond(values, p), rel=1e-10)
    found.backward()
    expected = slope(lambda at: float(np.linalg.cond(at, p)), values)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5, atol=1e-6)
    if p in (None, "fro", 1, float("inf"), 2):
        assert linalg.cond(tensor(np.diag([1.0, 0.0])), p).item() == float("inf")


def test_low_rank_approximations_find_low_rank() -> None:
    values = random(9, 2) @ random(2, 7, seed=1)
    for given in (values, values.T, np.stack([values, 2 * values])):
        u, s, v = matrix.svd_lowrank(tensor(given), q=3)
        np.testing.assert_allclose((u * s.unsqueeze(-2)) @ v.mT, given, atol=1e-10)
        np.testing.assert_allclose(s[..., :2].numpy(), np.linalg.svd(given)[1][..., :2], atol=1e-10)
    centered = values - values.mean(0)
    u, s, v = matrix.pca_lowrank(tensor(values), q=2)
    np.testing.assert_allclose((u * s) @ v.mT, centered, atol=1e-10)
    with pytest.raises(ValueError, match="not greater than"):
        matrix.pca_lowrank(tensor(values), q=8)


def test_lstsq_drivers_agree() -> None:
    a, b = random(6, 3), random(6, 2, seed=1)
    expected = np.linalg.lstsq(a, b, rcond=None)
    for driver in ("gels", "gelsy", "gelsd", "gelss"):
        found = linalg.lstsq(tensor(a), tensor(b), driver=driver)
        theirs = torch.linalg.lstsq(torch.from_numpy(a), torch.from_numpy(b), driver=driver)
        np.testing.assert_allclose(found.solution.numpy(), expected[0], atol=1e-10)
        for mine, other in zip(found, theirs):
            assert tuple(mine.shape) == tuple(other.shape)
            np.testing.assert_allclose(mine.numpy(), other.numpy(), atol=1e-10)
    low = random(6, 2) @ random(2, 3, seed=2)
    assert linalg.lstsq(tensor(low), tensor(b), driver="gelsd").residuals.shape == (0,)
    with pytest.raises(LinAlgError, match="full rank"):
        linalg.lstsq(tensor(np.diag([1.0, 0.0, 0.0, 0.0])[:, :2]), tensor(np.ones((4, 1))), driver="gels")


def test_distances_by_product_equal_the_differences() -> None:
    a, b = tensor(random(30, 4)), tensor(random(28, 4, seed=1))
    exact = distance.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    np.testing.assert_allclose(exact, np.linalg.norm(a.numpy()[:, None] - b.numpy()[None], axis=-1), rtol=1e-12)
    np.testing.assert_allclose(distance.cdist(a, b).numpy(), exact, rtol=1e-7)
    x = tensor(np.ones((2, 3)), grad=True)
    distance.cdist(x, x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros((2, 3)))
    assert distance.cdist(dg.ones(3, 0), dg.ones(2, 0), p=1.0).tolist() == [[0.0, 0.0]] * 3
    assert distance.pdist(dg.ones(1, 3)).shape == (0,)


def test_statistics_of_few_observations() -> None:
    x = random(3, 8)
    np.testing.assert_allclose(distance.corrcoef(tensor(x)).numpy(), np.corrcoef(x), atol=1e-12)
    np.testing.assert_allclose(distance.cov(tensor(x[0])).item(), np.cov(x[0]), atol=1e-12)
    counts, weights = np.arange(1, 9), np.linspace(0.1, 1.0, 8)
    expected = np.cov(x, ddof=1, fweights=counts, aweights=weights)
    found = distance.cov(tensor(x), fweights=dg.from_numpy(counts), aweights=dg.from_numpy(weights))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    with pytest.raises(RuntimeError, match="same numel"):
        distance.cov(tensor(x), fweights=dg.ones(3).long())


def test_tolerances_per_matrix() -> None:
    values = np.stack([np.diag([1.0, 1e-3]), np.diag([1.0, 1e-3])])
    assert linalg.matrix_rank(tensor(values), atol=tensor([1e-2, 1e-4])).tolist() == [1, 2]
    assert linalg.matrix_rank(tensor(values), tol=2.0).tolist() == [0, 0]
    found = linalg.pinv(tensor(values), rtol=tensor([1e-2, 1e-4])).numpy()
    np.testing.assert_allclose(found[:, 1, 1], [0.0, 1e3], atol=1e-9)


@pytest.mark.parametrize("kind", ["float64", "complex128"])
def test_many_small_matrices_equal_one_at_a_time(kind: str) -> None:
    """A large batch is factored row by row; a batch of one by LAPACK."""
    values = random(40, 4, 4).astype(kind) + (1j * random(40, 4, 4, seed=1) if kind == "complex128" else 0)
    values[7, 1] = values[7, 0]
    right = random(40, 4, 2, seed=2).astype(kind)
    x, b = dg.from_numpy(values), dg.from_numpy(right)
    for call in (
        lambda x, b: tuple(linalg.lu_factor_ex(x)),
        lambda x, b: tuple(linalg.lu_factor_ex(x[:, :, :3])),
        lambda x, b: tuple(linalg.lu(x[:, :3])),
        lambda x, b: (linalg.solve_triangular(x, b, upper=False),),
        lambda x, b: (linalg.solve_triangular(x, b, upper=True, unitriangular=True),),
        lambda x, b: tuple(linalg.solve_ex(x[8:] if len(x) > 1 else x, b[8:] if len(b) > 1 else b)),
    ):
        found = call(x, b)
        count = len(found[0])
        for i in range(40 - count, 40):
            if i == 7 and len(found) == 3:
                continue  # its last pivot is rounding
            for one, all_of_them in zip(call(x[i : i + 1], b[i : i + 1]), found):
                np.testing.assert_allclose(one[0].numpy(), all_of_them[i - 40 + count].numpy(), rtol=1e-9, atol=1e-10)
    zero = dg.zeros(30, 2, 2)
    assert linalg.lu_factor_ex(zero).info.tolist() == [1] * 30


def test_solves_of_many_small_matrices_have_gradients() -> None:
    values, right = random(20, 3, 3) + 3 * np.eye(3), random(20, 3, 2, seed=1)
    for call in (
        lambda T, a, b: T.linalg.solve(a, b),
        lambda T, a, b: T.linalg.lu(a)[1:],
        lambda T, a, b: T.linalg.cholesky(a @ a.mT),
    ):
        ours = evaluate(dg, call, [values, right], [True, True])
        theirs = evaluate(torch, call, [values, right], [True, True])
        assert_same(ours, theirs, rtol=1e-8, atol=1e-9)


# Sharded batches --------------------------------------------------------------------------------------------

BATCHED: dict[str, Callable[[Any], Any]] = {
    "inv": linalg.inv,
    "cholesky": lambda x: linalg.cholesky(x @ x.mT + 2 * dg.eye(3, dtype=x.dtype)),
    "solve": lambda x: linalg.solve(x, x),
    "qr": lambda x: linalg.qr(x).Q,
    "eigvalsh": lambda x: linalg.eigvalsh(x + x.mT),
    "svdvals": linalg.svdvals,
    "pinv": linalg.pinv,
    "det": linalg.det,
    "slogdet": lambda x: linalg.slogdet(x).logabsdet,
    "lu": lambda x: linalg.lu(x).L,
    "matrix_exp": linalg.matrix_exp,
    "matrix_norm": lambda x: linalg.matrix_norm(x, 2),
    "lstsq": lambda x: linalg.lstsq(x, x)[0],
    "cdist": lambda x: distance.cdist(x, x),
    "householder_product": lambda x: linalg.householder_product(x, x[:, 0]),
}


@pytest.mark.parametrize("name", BATCHED)
def test_a_sharded_batch_does_not_communicate(name: str) -> None:
    values = random(7, 3, 3)
    local = tensor(values, grad=True)
    expected = BATCHED[name](local)
    expected.backward(dg.ones(*expected.shape, dtype=dg.float64))
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1 << 30):
        x = dg.shard(values).requires_grad_()
        y = BATCHED[name](x)
        y.backward(dg.ones(*y.shape, dtype=dg.float64))
        assert y.placement == x.grad.placement == dg.Shard(0)
        dg.synchronize()
        assert dg.stats().collectives == 0
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(x.grad.numpy(), local.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_columns_of_a_system_and_rows_of_points_stay_where_they_are() -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1 << 30):
        a = dg.replicate(random(3, 3))
        b = dg.shard(random(3, 8), dim=1)
        points, centers = dg.shard(random(9, 3)), dg.replicate(random(4, 3))
        results = [linalg.solve(a, b), linalg.solve_triangular(a, b, upper=True), distance.cdist(points, centers)]
        dg.synchronize()
        assert [r.placement for r in results] == [dg.Shard(1), dg.Shard(1), dg.Shard(0)]
        assert dg.stats().collectives == 0


def test_a_singular_matrix_on_a_worker_is_reported_and_the_session_goes_on() -> None:
    values = np.stack([np.eye(2)] * 4 + [np.zeros((2, 2))])
    with dg.init(local_mode=True, num_workers=2, shard_threshold=1 << 30):
        x = dg.shard(values)
        broken = linalg.inv(x)
        with pytest.raises(RemoteOpError, match="singular") as caught:
            broken.numpy()
        assert caught.value.cause == "LinAlgError"
        assert linalg.inv_ex(x).info.tolist() == [0, 0, 0, 0, 1]
