"""Ops that work across the rows of a sharded dim: the values and gradients of one process on any cut of the rows, and
on large tensors few bytes and no worker that holds the whole of one."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import distgrad as dg
from distgrad.errors import RemoteOpError
from distgrad.placement import Partial, Shard
from distgrad.program import Program
from distgrad.runtime import coordinator

F = dg.nn.functional
NAN, INF = float("nan"), float("inf")
SMALL, LARGE = 61, 100_000


class Case(NamedTuple):
    """`call(*tensors)`; `make(rows)` gives the inputs; `sent` the most that a worker may send on a large input, as a
    part of what gathering the inputs would make it receive; `whole` names ops whose large output may be on all workers."""

    name: str
    call: Callable[..., Any]
    make: Callable[[int], list[np.ndarray]]
    sent: float = 1.0
    whole: tuple[str, ...] = ()


def normal(rows: int, *others: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, *others))


def places(rows: int, count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, rows, count)


def mixed(rows: int) -> np.ndarray:
    return np.random.default_rng(2).permutation(rows)


def line(n: int) -> list[np.ndarray]:
    return [normal(n)]


def table(n: int) -> list[np.ndarray]:
    return [normal(n, 4)]


def factors(n: int) -> list[np.ndarray]:
    return [1 + normal(n) / n]


def indexed(n: int) -> list[np.ndarray]:
    return [normal(n), places(n, n)]


def written(n: int) -> list[np.ndarray]:
    return [normal(n), mixed(n), normal(n, seed=3)]


def square(n: int) -> list[np.ndarray]:
    side = 400 if n == LARGE else n
    return [normal(side, side)]


def two_squares(n: int) -> list[np.ndarray]:
    side = 400 if n == LARGE else n
    return [normal(side, side), normal(side, side, seed=4)]


CASES = [
    Case("cumsum", lambda x: x.cumsum(0), line, 0.01),
    Case("cumsum_table", lambda x: x.cumsum(0), table, 0.01),
    Case("cumprod", lambda x: x.cumprod(0), factors, 0.01),
    Case("logcumsumexp", lambda x: x.logcumsumexp(0), line, 0.01),
    Case("cummax", lambda x: x.cummax(0), line),
    Case("cummin", lambda x: x.cummin(0), table),
    Case("diff", lambda x: x.diff(dim=0), table, 0.1),
    Case("max_dim", lambda x: x.max(0), table, 0.01),
    Case("min_dim", lambda x: x.min(0, keepdim=True), table, 0.01),
    Case("argmax", lambda x: (x.argmax(0), x.argmin(0), x.reshape(-1).argmax()), table, 0.01),
    Case("softmax", lambda x: x.softmax(0), table, 0.01),
    Case("log_softmax", lambda x: x.log_softmax(0), table, 0.01),
    Case("logsumexp", lambda x: (x.logsumexp(0), x.logsumexp((0, 1))), table, 0.01),
    Case("layer_norm", lambda x: F.layer_norm(x, x.shape), table, 0.01),
    Case("layer_norm_affine", lambda x, w, b: F.layer_norm(x.t(), x.shape[:1], w, b),
         lambda n: [normal(n, 4), normal(n), normal(n)], 0.3),
    Case("rms_norm", lambda x: F.rms_norm(x, x.shape), table, 0.01),
    Case("batch_norm", lambda x: F.batch_norm(x, None, None, training=True), table, 0.01),
    Case("topk", lambda x: x.topk(7, 0), line, 0.01),
    Case("topk_smallest", lambda x: x.topk(3, 0, largest=False), table, 0.01),
    Case("kthvalue", lambda x: x.kthvalue(17, 0), table, 0.2),
    Case("median", lambda x: (x.median(0), x.median(), x.nanmedian()), table, 0.2),
    Case("mode", lambda x: (x * 10).round().mode(0), line, 0.1),
    Case("quantile", lambda x: (x.quantile(0.3), x.nanquantile(0.7)), line, 2.0),
    Case("sort", lambda x: x.sort(0), line, 0.9),
    Case("sort_descending", lambda x: x.sort(0, descending=True), table),
    Case("argsort", lambda x: x.argsort(0), line),
    Case("gather", lambda x, i: x.gather(0, i), indexed, 0.9),
    Case("take_along_dim", lambda x, i: dg.take_along_dim(x, i[:, None], 0), lambda n: [normal(n, 2), places(n, n)], 0.9),
    Case("scatter", lambda x, i, s: x.scatter(0, i, s), written, 0.9),
    Case("scatter_add", lambda x, i, s: x.scatter_add(0, i, s), lambda n: [normal(n), places(n, n), normal(n)], 0.9),
    Case("scatter_max", lambda x, i, s: x.scatter_reduce(0, i, s, "amax"), lambda n: [normal(n), places(n, n), normal(n)],
         1.2),
    Case("index_rows", lambda x, i: x[i], lambda n: [normal(n, 4), places(n, n)], 0.9),
    Case("few_rows", lambda x, i: x[i], lambda n: [normal(n, 4), places(n, 50)], 0.01),
    Case("one_row", lambda x: x[17] * 2, table, 0.01),
    Case("embedding", lambda w, i: F.embedding(i, w), lambda n: [normal(n, 4), places(n, n // 2)], 0.5),
    Case("index_add", lambda x, i, s: x.index_add(0, i, s), lambda n: [normal(n, 4), places(n, n), normal(n, 4)], 0.9),
    Case("index_copy", lambda x, i, s: x.index_copy(0, i, s), lambda n: [normal(n, 4), mixed(n), normal(n, 4)], 0.9),
    Case("mask", lambda x: (x[x > 0], x.masked_select(x < -1)), table, 1.2),
    Case("mask_of_rows", lambda x: x[x[:, 0] > 0], table, 0.9),
    Case("nonzero", lambda x: ((x > 0).nonzero(), (x[:, 0] > 0).nonzero(as_tuple=True)), table),
    Case("masked_scatter", lambda x, s: x.masked_scatter(x > 0, s), lambda n: [normal(n), normal(n)], 0.9),
    Case("unique", lambda x: (x * 10).round().unique(return_inverse=True, return_counts=True), line, 1.2),
    Case("unique_consecutive", lambda x: x.round().unique_consecutive(return_inverse=True, return_counts=True), line),
    Case("searchsorted", lambda x, v: dg.searchsorted(x, v), lambda n: [np.sort(normal(n)), normal(n, seed=5)]),
    Case("bucketize", lambda x, v: dg.bucketize(v, x, right=True), lambda n: [np.sort(normal(n)), normal(9)], 0.01),
    Case("isin", lambda x, y: dg.isin(x, y), lambda n: [places(n, n), places(n, n)], 0.9),
    Case("slice", lambda x: x[3 : x.shape[0] - 5 : 3], table),
    Case("flip", lambda x: x.flip(0), table, 2.2),
    Case("roll", lambda x: x.roll(5, 0), table, 0.01),
    Case("pad", lambda x: F.pad(x, (1, 0, 3, 2), value=2.0), table, 0.01),
    Case("cat", lambda x, y: dg.cat([x, y]), lambda n: [normal(n, 4), normal(n // 2, 4)], 0.9),
    Case("slice_write", lambda x, y: x.slice_scatter(y, 0, 2, 2 + y.shape[0]), lambda n: [normal(n), normal(n // 3)], 0.9),
    Case("reshape", lambda x: x.reshape(-1, 5), lambda n: [normal(n - n % 5, 4)], 0.1),
    Case("flatten", lambda x: x.t().reshape(-1), table, 0.9),
    Case("unflatten", lambda x: x.reshape(3, -1), lambda n: [normal(n - n % 3)], 0.9),
    Case("diagonal", lambda x: (x.diagonal(), x.t().diagonal(3), dg.diag_embed(x[:, 0], 1)[:5]), square, 0.5),
    Case("trace", lambda x: (x.trace(), dg.einsum("ii->i", x)), square, 0.01),
    Case("unfold", lambda x: x.unfold(0, 4, 2), line, 0.01),
    Case("matmul", lambda x, y: x @ y, two_squares, 2.1),
    Case("matmul_transposed", lambda x, y: x @ y.t(), two_squares, 2.1),
    Case("linear", lambda x, y: F.linear(x, y), two_squares, 2.1),
    Case("einsum", lambda x, y: dg.einsum("ij,kj->ik", x, y), two_squares, 2.1),
    Case("cdist", lambda x, y: dg.cdist(x, y),
         lambda n: [normal(min(n, 1200), 120), normal(min(n, 1200), 120, seed=6)], 3.0, ("mul", "sub", "redistribute")),
]
NAMED = [pytest.param(case, id=case.name) for case in CASES]


def leaves(result: Any) -> list[Any]:
    return [leaf for part in result for leaf in leaves(part)] if isinstance(result, tuple | list) else [result]


def run(case: Case, inputs: list[np.ndarray], place: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """Gives the results of a call and the gradients of its inputs, all still where they were made."""
    tensors = [place(dg.from_numpy(value.copy())) for value in inputs]
    tensors = [t.requires_grad_() if t.is_floating_point() else t for t in tensors]
    outs = leaves(case.call(*tensors))
    total: Any = None
    for out in outs:
        if out.requires_grad:
            weights = dg.from_numpy(normal(max(out.numel(), 1), seed=7)[: out.numel()].reshape(tuple(out.shape)))
            term = (out * (weights if out.placement is None else weights.redistribute(out.placement))).sum()
            total = term if total is None else total + term
    if total is not None:
        total.backward()
    return outs, [t.grad for t in tensors if t.is_floating_point()]


def arrays(tensors: list[Any]) -> list[Any]:
    return [None if t is None else t.detach().numpy() for t in tensors]


def check(found: tuple[list[Any], list[Any]], expected: tuple[list[Any], list[Any]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(arrays(ours), theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype
                scale = float(np.abs(b).max(initial=1)) if b.dtype.kind == "f" else 1.0  # of the terms that were added
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * scale)


def local(case: Case, inputs: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
    outs, grads = run(case, inputs, lambda t: t)
    return arrays(outs), arrays(grads)


def cuts(case: Case, rows: int, workers: int) -> Iterator[Callable[[Any], Any]]:
    """Gives ways to shard tensors along dim 0: evenly, at random places, and all on the last worker but one row."""
    generator = random.Random(zlib.crc32(f"{case.name}/{workers}".encode()))
    yield lambda t: t.redistribute(dg.Shard(0))

    def uneven(t: Any) -> Any:
        inner = sorted(generator.randint(0, t.shape[0]) for _ in range(workers - 1))
        return t.redistribute(dg.Shard(0, (0, *inner, t.shape[0])))

    yield uneven
    yield lambda t: t.redistribute(dg.Shard(0, (0, *[min(1, t.shape[0])] * (workers - 1), t.shape[0])))


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("case", NAMED)
def test_values_and_gradients_are_those_of_one_process(case: Case, workers: int) -> None:
    inputs = case.make(SMALL)
    expected = local(case, inputs)
    with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
        for place in cuts(case, SMALL, workers):
            check(run(case, inputs, place), expected)


@pytest.mark.parametrize("case", NAMED)
def test_large_tensors_stay_in_parts(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[Program] = []
    lower = coordinator.lower
    monkeypatch.setattr(coordinator, "lower", lambda recorded, **how: programs.append(lower(recorded, **how)) or programs[-1])
    inputs = case.make(LARGE)
    expected = local(case, inputs)
    large = max(value.nbytes for value in inputs)
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        before = dg.stats()
        found = run(case, inputs, dg.shard)
        dg.synchronize()
        after = dg.stats()
        check(found, expected)
    gathered = sum(value.nbytes for value in inputs) * 2 / 3
    assert (after.bytes_sent - before.bytes_sent) / 3 <= case.sent * gathered
    for program in programs:
        for instruction in program.instructions:
            for spec in instruction.out_specs:
                whole = not isinstance(spec.placement, Shard) and spec.meta.nbytes > large / 8
                if not whole or instruction.op.name == "expand":  # which repeats its input without making it
                    continue
                # A product over the sharded rows is a sum of every worker's part.
                product = instruction.op.name in ("matmul", "einsum_pair") and isinstance(spec.placement, Partial)
                assert product or instruction.op.name in case.whole, str(program)


@pytest.mark.parametrize("name", ["mask", "mask_of_rows", "nonzero", "masked_scatter", "unique", "unique_consecutive"])
def test_only_the_number_of_elements_is_read(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        tensors = [dg.shard(dg.from_numpy(value)) for value in case.make(SMALL)]
        before = dg.stats().driver_bytes
        outs = leaves(case.call(*tensors))
        dg.synchronize()
        assert dg.stats().driver_bytes - before <= 8 * len(outs)


def test_small_tensors_are_gathered_or_exchanged_in_one_round() -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        x = dg.shard(dg.from_numpy(normal(10)))
        before = dg.stats().collectives
        total = x.cumsum(0)
        dg.synchronize()
        assert dg.stats().collectives - before == 1
        assert total.shape == (10,)


def test_explain_names_what_works_across_rows() -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        x = dg.shard(dg.from_numpy(normal(LARGE)))
        for make in (lambda: x.cumsum(0), lambda: x.sort()[0], lambda: x.median(), lambda: x.softmax(0)):
            assert "across rows" in dg.explain(make())


# Ties, NaN, infinities and other dtypes ---------------------------------------------------------------------

HARD = {
    "ties": np.array([2, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2, 1.0]),
    "nan": np.array([3, NAN, 1, -INF, NAN, 3, INF, 1, 0.0, -0.0, NAN, -0.0]),
    "infinite": np.array([-INF, -INF, 2, -INF, -INF, 1, -INF, -INF, -INF, 0, -INF, -INF]),
    "all_minus_infinite": np.full(9, -INF),
    "all_nan": np.full(7, NAN),
    "integers": np.array([5, -3, 5, 5, 7, -3, 0, 7, 7, 127, -128], np.int8),
    "large_integers": np.array([1 << 62, -(1 << 62), 3, 1 << 62, -5, 3, -(1 << 63), 3]),
    "bools": np.array([True, False, True, True, False, False, True]),
    "single": np.array([4.0], np.float32),
    "halves": np.array([0.5, 2, -1, 2, 0.25, 2, -1, 65504, 0.5], np.float16),
    "unsigned": np.array([7, 0, 255, 7, 0, 255, 3], np.uint8),
}
ORDER = {
    "sort": lambda x: x.sort(0),
    "sort_descending": lambda x: x.sort(0, descending=True),
    "topk": lambda x: x.topk(min(5, x.shape[0]), 0),
    "topk_smallest": lambda x: x.topk(min(5, x.shape[0]), 0, largest=False),
    "mode": lambda x: x.mode(0),
    "max": lambda x: (x.max(0), x.cummax(0)),
    "min": lambda x: (x.min(0), x.cummin(0)),
    "unique": lambda x: x.unique(return_inverse=not x.isnan().any(), return_counts=True),  # NaN are all distinct
}
NUMBERS = {"kthvalue": lambda x: [x.kthvalue(k, 0) for k in (1, x.shape[0] // 2 + 1, x.shape[0])],
           "argmax": lambda x: (x.argmax(0), x.argmin(0)), "median": lambda x: (x.median(0), x.nanmedian(0), x.median())}
FLOATS = {
    "softmax": lambda x: (x.softmax(0), x.log_softmax(0), x.logsumexp(0), x.logcumsumexp(0)),
    "scans": lambda x: (x.cumsum(0), x.cumprod(0)),
}


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("name", HARD)
def test_order_is_that_of_one_process(name: str, workers: int) -> None:
    value = HARD[name]
    calls = {**ORDER, **(NUMBERS if value.dtype != np.bool_ else {}), **(FLOATS if value.dtype.kind == "f" else {})}
    inputs = [value, np.stack([value, value[::-1]], 1)]
    for call_name, call in calls.items():
        expected = [arrays(leaves(call(dg.from_numpy(x.copy())))) for x in inputs]
        with dg.init(local_mode=True, num_workers=workers, shard_threshold=1 << 30):
            for place in [*cuts(Case(call_name, call, line), len(value), workers)][1:]:
                for x, wanted in zip(inputs, expected):
                    for a, b in zip(arrays(leaves(call(place(dg.from_numpy(x.copy()))))), wanted, strict=True):
                        assert a.dtype == b.dtype
                        np.testing.assert_allclose(a, b, rtol=2e-3 if value.dtype == np.float16 else 1e-12)


@pytest.mark.parametrize(
    "call",
    [lambda x, i: x.gather(0, i), lambda x, i: x[i], lambda x, i: x.scatter(0, i, 1.0), lambda x, i: x.index_add(0, i, x)],
    ids=["gather", "rows", "scatter", "index_add"],
)
def test_an_index_outside_is_an_error_whoever_holds_it(call: Callable[..., Any]) -> None:
    with dg.init(local_mode=True, num_workers=3, shard_threshold=0):
        x = dg.shard(dg.from_numpy(normal(12)))
        index = dg.shard(dg.from_numpy(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12])))
        with pytest.raises(RemoteOpError, match="index 12 is out of bounds for dimension 0 with size 12"):
            call(x, index).numpy()
        assert x.sum().item() == pytest.approx(normal(12).sum())


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("x_dim", [0, 1, None])
@pytest.mark.parametrize("w_dim", [0, 1, None])
def test_linear_with_a_bias_on_every_placement(workers: int, x_dim: int | None, w_dim: int | None) -> None:
    """A product in blocks adds its bias once, whatever is sharded."""
    x, w, b, g = normal(8, 8), normal(8, 8, seed=1), normal(8, seed=2), normal(8, 8, seed=3)
    with dg.init(local_mode=True, num_workers=workers):
        def put(array: np.ndarray, dim: int | None) -> Any:
            tensor = dg.from_numpy(array.copy())
            return (dg.replicate(tensor) if dim is None else dg.shard(tensor, dim)).requires_grad_()

        for b_dim in (0, None):
            leaves = put(x, x_dim), put(w, w_dim), put(b, b_dim)
            out = F.linear(*leaves)
            out.backward(dg.from_numpy(g))
            expected = x @ w.T + b, g @ w, g.T @ x, g.sum(0)
            for found, wanted in zip((out.detach(), *(leaf.grad for leaf in leaves)), expected):
                np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("workers", [2, 3])
def test_gather_from_a_number_with_a_sharded_index(workers: int) -> None:
    with dg.init(local_mode=True, num_workers=workers):
        x = dg.tensor(2.5, dtype=dg.float64, requires_grad=True)
        out = dg.gather(x, 0, dg.shard(dg.zeros(1, dtype=dg.int64)))
        out.sum().backward()
        assert out.tolist() == [2.5]
        assert x.grad.item() == 1.0
