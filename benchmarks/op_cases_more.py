"""More functions of large operands: order, indexing, counting, in-place writes, integers, random numbers, gradients.

Invariant: as in `op_cases_large`, whose `cases` yields these too: both sides read the same memory and compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import distgrad as dg

Pair = Callable[..., Any]
Make = Callable[..., Any]
Rule = tuple[str, Pair, Pair]


def order(side: int, kind: str) -> Iterator[Rule]:
    """Gives functions of a square matrix about the order of its elements."""
    n = side * side // 2 * 2 - 1  # an odd number, whose median is an element
    yield "sort", lambda x: np.sort(x.ravel()), lambda x: dg.sort(x.ravel())[0]
    yield "argsort stable", lambda x: np.argsort(x.ravel(), kind="stable"), (
        lambda x: dg.argsort(x.ravel(), stable=True))
    yield "msort", lambda x: np.sort(x, 0), dg.msort
    yield "unique", lambda x: np.unique(x.ravel()), lambda x: dg.unique(x.ravel())
    yield "unique of few", lambda x: np.unique(np.round(x * 50)), lambda x: dg.unique(dg.round(x * 50))
    yield "median", lambda x: np.median(x.ravel()[:n]), lambda x: dg.median(x.ravel()[:n])
    yield "nanmedian", lambda x: np.nanmedian(x.ravel()[:n]), lambda x: dg.nanmedian(x.ravel()[:n])
    for q in (0.5, 0.99):
        yield f"quantile {q}", lambda x, q=q: np.quantile(x.ravel()[:n], q).astype(kind), (
            lambda x, q=q: dg.quantile(x.ravel()[:n], q))
    yield "topk 10", lambda x: -np.sort(np.partition(-x.ravel(), 9)[:10]), lambda x: dg.topk(x.ravel(), 10)[0]
    yield "kthvalue", lambda x: np.partition(x.ravel(), n // 3)[n // 3], (
        lambda x: dg.kthvalue(x.ravel(), n // 3 + 1)[0])
    for axis in (0, 1):
        yield f"sort axis={axis}", lambda x, a=axis: np.sort(x, a), lambda x, a=axis: dg.sort(x, a)[0]
        yield (f"argsort stable axis={axis}", lambda x, a=axis: np.argsort(x, a, kind="stable"),
               lambda x, a=axis: dg.argsort(x, a, stable=True))
        yield (f"topk 10 axis={axis}", lambda x, a=axis: -np.sort(np.partition(-x, 9, a).take(range(10), a), a),
               lambda x, a=axis: dg.topk(x, 10, a)[0])
        yield (f"median axis={axis}", lambda x, a=axis: np.median(x[:-1, :-1], a),
               lambda x, a=axis: dg.median(x[:-1, :-1], a)[0])
        yield f"max of dim {axis}", lambda x, a=axis: np.max(x, a), lambda x, a=axis: dg.max(x, a)[0]
        yield f"min of dim {axis}", lambda x, a=axis: np.min(x, a), lambda x, a=axis: dg.min(x, a)[0]
        yield f"cummax axis={axis}", lambda x, a=axis: np.maximum.accumulate(x, a), (
            lambda x, a=axis: dg.cummax(x, a)[0])
    marks = np.linspace(0.1, 0.9, 1000).astype(kind)
    grades = dg.from_numpy(marks)
    yield "searchsorted", lambda x: np.searchsorted(marks, x.ravel()), lambda x: dg.searchsorted(grades, x.ravel())
    yield "bucketize", lambda x: np.digitize(x, marks, right=True), lambda x: dg.bucketize(x, grades)
    yield "histc", lambda x: np.histogram(x, 100, (0, 1))[0].astype(kind), lambda x: dg.histc(x, 100, 0, 1)
    yield "histogram", lambda x: np.histogram(x, 100, (0, 1))[0].astype(kind), (
        lambda x: dg.histogram(x, 100, range=(0, 1))[0])


def reductions(side: int, kind: str) -> Iterator[Rule]:
    """Gives reductions of a square matrix beyond those of `op_cases_large`."""
    for axis in (None, 0, 1):
        for name, theirs, ours in (("nansum", np.nansum, dg.nansum), ("nanmean", np.nanmean, dg.nanmean)):
            yield (f"{name} axis={axis}", lambda x, f=theirs, a=axis: f(x, axis=a),
                   lambda x, f=ours, a=axis: f(x, dim=a))
        yield f"var of n - 1 axis={axis}", lambda x, a=axis: np.var(x, axis=a, ddof=1), (
            lambda x, a=axis: dg.var(x, dim=a))
        yield f"std of n - 1 axis={axis}", lambda x, a=axis: np.std(x, axis=a, ddof=1), (
            lambda x, a=axis: dg.std(x, dim=a))
        yield (f"norm axis={axis}", lambda x, a=axis: np.linalg.norm(x if a is not None else x.ravel(), axis=a),
               lambda x, a=axis: dg.norm(x, dim=a))
        for p in (1, np.inf):
            yield (f"norm {p} axis={axis}",
                   lambda x, a=axis, p=p: np.linalg.norm(x if a is not None else x.ravel(), p, axis=a),
                   lambda x, a=axis, p=p: dg.linalg.vector_norm(x, p, dim=a))
    yield "cumsum flat", lambda x: np.cumsum(x), lambda x: dg.cumsum(x.ravel(), 0)
    yield "cumprod flat", lambda x: np.cumprod(x + np.asarray(0.5, kind), dtype=np.float64).astype(kind), (
        lambda x: dg.cumprod((x + 0.5).ravel(), 0))
    yield "trace", np.trace, dg.trace
    yield "diagonal copied", lambda x: np.diagonal(x).copy(), lambda x: dg.diagonal(x).clone()
    yield "sum of squares", lambda x: (x * x).sum(), lambda x: (x * x).sum()
    yield "sum of squares by pow", lambda x: (x ** 2).sum(), lambda x: (x ** 2).sum()
    yield "mean of abs", lambda x: np.abs(x).mean(), lambda x: dg.abs(x).mean()
    yield "standardized", lambda x: (x - x.mean(0)) / x.std(0), lambda x: (x - x.mean(0)) / x.std(0, correction=0)
    yield "sum of bool", lambda x: (x > 0.5).sum(), lambda x: (x > 0.5).sum()
    yield "mean square error", lambda x: ((x - x[0]) ** 2).mean(), lambda x: ((x - x[0]) ** 2).mean()
    yield "max minus min", lambda x: x.max() - x.min(), lambda x: x.max() - x.min()
    yield "allclose", lambda x: np.allclose(x, x), lambda x: dg.tensor(dg.allclose(x, x))
    yield "isclose", lambda x: np.isclose(x, x[0]), lambda x: dg.isclose(x, x[0])
    yield "array equal", lambda x: np.array_equal(x, x.copy()), lambda x: dg.tensor(dg.equal(x, x.clone()))


def places(side: int, kind: str) -> Iterator[Rule]:
    """Gives what picks and puts elements of a square matrix."""
    random = np.random.default_rng(7)
    index, mask = random.integers(0, side, side), random.random((side, side)) < 0.5
    flat, grid = random.integers(0, side * side, side * side // 2), random.integers(0, side, (side, side))
    t_index, t_mask, t_flat, t_grid = (dg.from_numpy(a) for a in (index, mask, flat, grid))

    def changed(change: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], np.ndarray]:
        def run(x: np.ndarray) -> np.ndarray:
            y = x.copy()
            change(y)
            return y

        return run

    def put(x: np.ndarray, where: Any, value: Any) -> np.ndarray:
        y = x.copy()
        y[where] = value
        return y

    def set_clone(x: Any, where: Any, value: Any) -> Any:
        y = x.clone()
        y[where] = value
        return y

    yield "take", lambda x: np.take(x, flat), lambda x: dg.take(x, t_flat)
    yield "index_select 0", lambda x: np.take(x, index, 0), lambda x: dg.index_select(x, 0, t_index)
    yield "index_select 1", lambda x: np.take(x, index, 1), lambda x: dg.index_select(x, 1, t_index)
    for axis in (0, 1):
        yield f"gather {axis}", lambda x, a=axis: np.take_along_axis(x, grid, a), (
            lambda x, a=axis: dg.gather(x, a, t_grid))
    yield "x[i, j]", lambda x: x[index, index[::-1]], lambda x: x[t_index, dg.flip(t_index, (0,))]
    yield "masked_select", lambda x: x[mask], lambda x: dg.masked_select(x, t_mask)
    yield "masked_fill", lambda x: put(x, mask, 0), lambda x: dg.masked_fill(x, t_mask, 0.0)
    yield "masked_fill by where", lambda x: np.where(mask, np.asarray(0, kind), x), (
        lambda x: dg.masked_fill(x, t_mask, 0.0))
    yield "x[mask] = 0", lambda x: put(x, mask, 0), lambda x: set_clone(x, t_mask, 0)
    yield "x[index] = 0", lambda x: put(x, index, 0), lambda x: set_clone(x, t_index, 0)
    yield ("x[1:-1] = 0", lambda x: put(x, slice(1, -1), 0), lambda x: set_clone(x, slice(1, -1), 0))
    yield "where of two", lambda x: np.where(mask, x, x.T), lambda x: dg.where(t_mask, x, x.T)
    yield "nonzero", lambda x: np.argwhere(mask), lambda x: dg.nonzero(t_mask)
    yield "nonzero of numbers", lambda x: np.argwhere(x > 0.5), lambda x: dg.nonzero(x > 0.5)
    yield ("scatter", changed(lambda y: np.put_along_axis(y, grid, 1.0, 1)), lambda x: dg.scatter(x, 1, t_grid, 1.0))
    yield ("index_add", changed(lambda y: np.add.at(y, index, y)), lambda x: dg.index_add(x, 0, t_index, x))
    yield "bincount", lambda x: np.bincount(grid.ravel()), lambda x: dg.bincount(t_grid.ravel())
    yield ("bincount with weights", lambda x: np.bincount(grid.ravel(), x.ravel()).astype(kind),
           lambda x: dg.bincount(t_grid.ravel(), x.ravel()))
    yield "diag", lambda x: np.diag(x[0]), lambda x: dg.diag(x[0])
    yield "meshgrid", lambda x: tuple(a.copy() for a in np.meshgrid(x[0], x[1], indexing="ij")), (
        lambda x: tuple(a.contiguous() for a in dg.meshgrid(x[0], x[1], indexing="ij")))
    yield "roll flat", lambda x: np.roll(x, 5), lambda x: dg.roll(x, 5)
    yield "roll 0", lambda x: np.roll(x, 5, 0), lambda x: dg.roll(x, 5, 0)
    yield "rot90 copied", lambda x: np.ascontiguousarray(np.rot90(x)), lambda x: dg.rot90(x).contiguous()
    yield "split and added", lambda x: sum(np.split(x, 4, 1)), lambda x: sum(dg.split(x, side // 4, 1))
    yield "concatenate of many", lambda x: np.concatenate(list(x)), lambda x: dg.cat(list(x.unbind(0)))
    yield "stack 1", lambda x: np.stack((x, x), 1), lambda x: dg.stack((x, x), 1)
    yield "stack -1", lambda x: np.stack((x, x), -1), lambda x: dg.stack((x, x), -1)
    yield "hstack", lambda x: np.hstack((x, x)), lambda x: dg.hstack((x, x))
    yield "repeat_interleave", lambda x: np.repeat(x, 3, 0), lambda x: dg.repeat_interleave(x, 3, 0)
    yield "repeat_interleave flat", lambda x: np.repeat(x, 2), lambda x: dg.repeat_interleave(x, 2)
    yield "tile 1", lambda x: np.tile(x, (1, 3)), lambda x: x.repeat(1, 3)
    yield "broadcast copied", lambda x: np.broadcast_to(x[0], x.shape).copy(), (
        lambda x: x[0].expand(side, side).clone())
    yield "permute copied", lambda x: np.ascontiguousarray(x.reshape(8, -1, side).transpose(2, 0, 1)), (
        lambda x: x.reshape(8, -1, side).permute(2, 0, 1).contiguous())
    yield "moveaxis copied", lambda x: np.moveaxis(x.reshape(8, -1, side), 0, 1).copy(), (
        lambda x: dg.moveaxis(x.reshape(8, -1, side), 0, 1).contiguous())
    yield "pad 1", lambda x: np.pad(x, ((0, 0), (1, 1))), lambda x: dg.nn.functional.pad(x, (1, 1))
    yield "slice copied", lambda x: x[1:-1, 1:-1].copy(), lambda x: x[1:-1, 1:-1].clone()
    yield "ravel of slice", lambda x: x[:, 1:].ravel(), lambda x: x[:, 1:].ravel()
    yield "diff flat", lambda x: np.diff(x.ravel()), lambda x: dg.diff(x.ravel())
    yield "isin", lambda x: np.isin(grid, index[:50]), lambda x: dg.isin(t_grid, t_index[:50])


def writes(side: int, kind: str) -> Iterator[Rule]:
    """Gives in-place operations, on memory of each side's own that stays finite however often it is written."""
    count = side * side
    mine, yours = np.full(count, 0.5, kind), dg.full((count,), 0.5, dtype=getattr(dg, kind))
    for name, change, other in (
        ("x += y", lambda a, x: a.__iadd__(x), lambda a, x: a.add_(x)),
        ("x -= y", lambda a, x: a.__isub__(x), lambda a, x: a.sub_(x)),
        ("x *= 1", lambda a, x: a.__imul__(1), lambda a, x: a.mul_(1.0)),
        ("x /= y", lambda a, x: a.__itruediv__(x + 0), lambda a, x: a.div_(x + 0)),
        ("fill", lambda a, x: a.fill(0.5), lambda a, x: a.fill_(0.5)),
        ("zero", lambda a, x: a.fill(0), lambda a, x: a.zero_()),
        ("copy to", lambda a, x: np.copyto(a, x), lambda a, x: a.copy_(x)),
        ("clip in place", lambda a, x: np.clip(a, 0.1, 0.9, out=a), lambda a, x: a.clamp_(0.1, 0.9)),
        ("exp in place", lambda a, x: np.exp(x, out=a), lambda a, x: dg.exp(x, out=a)),
        ("slice written", lambda a, x: a.__setitem__(slice(1, -1), x[1:-1]), lambda a, x: a.__setitem__(slice(1, -1), x[1:-1])),
    ):
        def theirs(x: np.ndarray, f: Pair = change) -> np.ndarray:
            f(mine, x.ravel())
            return mine[:3] * 0

        def ours(x: Any, f: Pair = other) -> Any:
            f(yours, x.ravel())
            return yours[:3] * 0

        yield name, theirs, ours


def integers(side: int, kind: str) -> Iterator[Rule]:
    """Gives functions of integers of the float's width, and of bools."""
    whole = "int32" if kind == "float32" else "int64"
    a = np.random.default_rng(3).integers(1, 100, (side, side)).astype(whole)
    b = np.random.default_rng(4).integers(1, 7, (side, side)).astype(whole)
    p, q = a > 50, b > 3
    ta, tb, tp, tq = (dg.from_numpy(v) for v in (a, b, p, q))
    for name, f in (
        ("add", lambda n, x, y: x + y), ("multiply", lambda n, x, y: x * y), ("floor_divide", lambda n, x, y: x // y),
        ("remainder", lambda n, x, y: x % y), ("and", lambda n, x, y: x & y), ("shift", lambda n, x, y: x << y),
        ("equal", lambda n, x, y: x == y), ("maximum", lambda n, x, y: n.maximum(x, y)), ("abs", lambda n, x, y: n.abs(x)),
        ("sum", lambda n, x, y: x.sum()), ("sum 0", lambda n, x, y: x.sum(0)), ("sum 1", lambda n, x, y: x.sum(1)),
        ("max", lambda n, x, y: x.max()), ("prod 1", lambda n, x, y: y.prod(1)), ("argmax", lambda n, x, y: x.argmax()),
        ("cumsum", lambda n, x, y: n.cumsum(x, 1)), ("clip", lambda n, x, y: n.clip(x, 10, 60)),
        ("where", lambda n, x, y: n.where(x > y, x, y)),
    ):
        yield f"{whole} {name}", lambda x, f=f: f(np, a, b), lambda x, f=f: f(dg, ta, tb)
    yield f"{whole} sort", lambda x: np.sort(a, 1), lambda x: dg.sort(ta, 1)[0]
    yield f"{whole} to {kind}", lambda x: a.astype(kind), lambda x: ta.to(getattr(dg, kind))
    for name, f in (
        ("and", lambda n, x, y: x & y), ("not", lambda n, x, y: ~x), ("any", lambda n, x, y: x.any()),
        ("all 0", lambda n, x, y: x.all(0)), ("sum", lambda n, x, y: x.sum()), ("any 1", lambda n, x, y: x.any(1)),
    ):
        yield f"bool {name} (of {kind}'s)", lambda x, f=f: f(np, p, q), lambda x, f=f: f(dg, tp, tq)


def made(side: int, kind: str) -> Iterator[Rule]:
    """Gives new tensors, random ones with equal values of 0."""
    count, own = side * side, getattr(dg, kind)
    generator = np.random.default_rng(0)
    dtype: Any = np.dtype(kind)
    yield "linspace", lambda x: np.linspace(0, 1, count, dtype=dtype), lambda x: dg.linspace(0, 1, count, dtype=own)
    yield "logspace", lambda x: np.logspace(0, 1, count, dtype=dtype), lambda x: dg.logspace(0, 1, count, dtype=own)
    yield "eye", lambda x: np.eye(side, dtype=dtype), lambda x: dg.eye(side, dtype=own)
    yield "arange of integers", lambda x: np.arange(count), lambda x: dg.arange(count)
    yield "full_like", lambda x: np.full_like(x, 2), lambda x: dg.full_like(x, 2)
    yield "ones_like", np.ones_like, dg.ones_like
    yield "tensor of array", lambda x: np.array(x), lambda x: dg.tensor(x.numpy())
    yield "tri", lambda x: np.tril(np.ones((side, side), dtype)), lambda x: dg.tril(dg.ones(side, side, dtype=own))
    yield "rand", lambda x: generator.random(count, dtype)[:1] * 0, lambda x: dg.rand(count, dtype=own)[:1] * 0
    yield "randn", lambda x: generator.standard_normal(count, dtype)[:1] * 0, (
        lambda x: dg.randn(count, dtype=own)[:1] * 0)
    yield "randint", lambda x: generator.integers(0, 10, count)[:1] * 0, lambda x: dg.randint(0, 10, (count,))[:1] * 0
    yield "randperm", lambda x: generator.permutation(count)[:1] * 0, lambda x: dg.randperm(count)[:1] * 0


def composed(side: int, kind: str) -> Iterator[Rule]:
    """Gives expressions of several operations and formulas that have a name here."""
    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.asarray(1e-5, kind))

    def log_softmax(x: np.ndarray) -> np.ndarray:
        y = x - x.max(-1, keepdims=True)
        return y - np.log(np.exp(y).sum(-1, keepdims=True))

    f: Any = dg.nn.functional
    one, tenth = np.asarray(1, kind), np.asarray(0.1, kind)
    yield "softmax 1", lambda x: (lambda e: e / e.sum(1, keepdims=True))(np.exp(x - x.max(1, keepdims=True))), (
        lambda x: dg.softmax(x, 1))
    yield "softmax 0", lambda x: (lambda e: e / e.sum(0, keepdims=True))(np.exp(x - x.max(0, keepdims=True))), (
        lambda x: dg.softmax(x, 0))
    yield "log_softmax 1", log_softmax, lambda x: dg.log_softmax(x, 1)
    yield "logsumexp of all", lambda x: np.log(np.exp(x - x.max()).sum()) + x.max(), lambda x: dg.logsumexp(x, (0, 1))
    yield "layer_norm", norm, lambda x: f.layer_norm(x, (side,))
    yield "leaky_relu", lambda x: np.where(x > 0, x, x * tenth), lambda x: f.leaky_relu(x, 0.1)
    yield "softplus", lambda x: np.log1p(np.exp(x)), f.softplus
    yield "silu", lambda x: x / (1 + np.exp(-x)), f.silu
    yield "elu", lambda x: np.where(x > 0, x, np.exp(x) - one), f.elu
    yield "gelu tanh", (
        lambda x: x * (one / 2) * (1 + np.tanh(np.asarray(0.7978845608, kind) * (x + np.asarray(0.044715, kind) * x**3)))), (
        lambda x: f.gelu(x, approximate="tanh"))
    yield "mse_loss", lambda x: ((x - x[0]) ** 2).mean(), lambda x: f.mse_loss(x, x[0].expand(side, side))
    yield "normalize", lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), one * 1e-12), (
        lambda x: f.normalize(x, dim=1))
    yield "lerp", lambda x: x + tenth * (x.T - x), lambda x: dg.lerp(x, x.T, 0.1)
    yield "addcmul", lambda x: x + tenth * x * x, lambda x: dg.addcmul(x, x, x, value=0.1)
    yield "a * x + y", lambda x: tenth * x + x, lambda x: 0.1 * x + x
    yield "polynomial", lambda x: ((x * tenth + one) * x + one) * x + tenth, (
        lambda x: ((x * 0.1 + 1) * x + 1) * x + 0.1)
    yield "sqrt(x*x + y*y)", lambda x: np.sqrt(x * x + x.T * x.T), lambda x: dg.sqrt(x * x + x.T * x.T)
    yield "exp(-x*x)", lambda x: np.exp(-x * x), lambda x: dg.exp(-x * x)
    yield "x - x.mean()", lambda x: x - x.mean(), lambda x: x - x.mean()
    yield "x / x.sum(1)", lambda x: x / x.sum(1, keepdims=True), lambda x: x / x.sum(1, keepdim=True)
    yield "(x - y).abs().max()", lambda x: np.abs(x - x[0]).max(), lambda x: (x - x[0]).abs().max()
    third = side // 3
    yield "cross", lambda x: np.cross(x[:, :3 * third].reshape(-1, 3), x[:, -3 * third:].reshape(-1, 3)), (
        lambda x: dg.cross(x[:, :3 * third].reshape(-1, 3), x[:, -3 * third:].reshape(-1, 3), dim=-1))
    yield "cdist", lambda x: np.sqrt(((x[:600, None, :64] - x[None, :600, :64]) ** 2).sum(-1)), (
        lambda x: dg.cdist(x[:600, :64], x[:600, :64], compute_mode="donot_use_mm_for_euclid_dist"))
    yield "bmm", lambda x: x.reshape(8, -1, side) @ x.reshape(8, -1, side).transpose(0, 2, 1), (
        lambda x: dg.bmm(x.reshape(8, -1, side), x.reshape(8, -1, side).transpose(1, 2)))
    yield "einsum bij,bjk->bik", (
        lambda x: np.einsum("bij,bkj->bik", x.reshape(8, -1, side), x.reshape(8, -1, side), optimize=True)), (
        lambda x: dg.einsum("bij,bkj->bik", x.reshape(8, -1, side), x.reshape(8, -1, side)))
    yield "einsum ij,jk->ik", lambda x: np.einsum("ij,jk->ik", x[:, :256], x[:256], optimize=True), (
        lambda x: dg.einsum("ij,jk->ik", x[:, :256], x[:256]))
    yield "addmm", lambda x: x[0] + x[:, :256] @ x[:256], lambda x: dg.addmm(x[0], x[:, :256], x[:256])
    yield "linear", lambda x: x[:, :256] @ x[:, :256].T + x[0], lambda x: f.linear(x[:, :256], x[:, :256], x[0])
    yield "outer of halves", lambda x: np.multiply.outer(x[0], x[1]), lambda x: dg.outer(x[0], x[1])


def gradients(side: int, kind: str) -> Iterator[Rule]:
    """Gives functions whose sum is differentiated; numpy computes the value and the gradient by hand."""
    one: Any = np.ones((), kind).item()

    def ours(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            leaf = x.detach().requires_grad_()
            f(leaf).sum().backward()
            return leaf.grad

        return run

    def theirs(f: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
        def run(x: np.ndarray) -> np.ndarray:
            y, gradient = f(x)
            y.sum()
            return gradient

        return run

    def sigmoid(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = 1 / (1 + np.exp(-x))
        return y, y * (1 - y)

    def softmax(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e = np.exp(x - x.max(1, keepdims=True))
        y = e / e.sum(1, keepdims=True)
        return y * y, 2 * y * (y - (y * y).sum(1, keepdims=True))

    def most(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = x.max(1)
        gradient = np.zeros_like(x)
        gradient[np.arange(len(x)), x.argmax(1)] = 1
        return y, gradient

    def variance(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x.var(0), 2 / len(x) * (x - x.mean(0))

    def norm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.linalg.norm(x, axis=1)
        return y, x / y[:, None]

    def scan(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = np.cumsum(x, 1)
        return y, np.cumsum(np.ones_like(y)[:, ::-1], 1)[:, ::-1]

    def shifted(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient = np.zeros_like(x)
        gradient[1:] += 1
        gradient[:-1] -= 1
        return x[1:] - x[:-1], gradient

    def gram(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a = x[:, :256]
        y = a.T @ a
        gradient = np.zeros_like(x)
        g = np.ones_like(y)
        gradient[:, :256] = a @ g.T + a @ g
        return y, gradient

    for name, hand, f in (
        ("x ** 2", lambda x: (x**2, 2 * x), lambda x: x**2), ("x ** 3", lambda x: (x**3, 3 * x**2), lambda x: x**3),
        ("log", lambda x: (np.log(x), 1 / x), dg.log), ("sqrt", lambda x: (lambda y: (y, 0.5 / y))(np.sqrt(x)), dg.sqrt),
        ("sin", lambda x: (np.sin(x), np.cos(x)), dg.sin), ("sigmoid", sigmoid, dg.sigmoid),
        ("relu", lambda x: (np.maximum(x, 0), (x > 0).astype(kind)), dg.relu),
        ("abs", lambda x: (np.abs(x), np.sign(x)), dg.abs),
        ("1 / x", lambda x: (lambda y: (y, -y * y))(1 / x), lambda x: 1 / x),
        ("clip", lambda x: (np.clip(x, 0.2, 0.8), ((x >= 0.2) & (x <= 0.8)).astype(kind)), lambda x: dg.clip(x, 0.2, 0.8)),
        ("where", lambda x: (np.where(x > 0.5, x, -x), np.where(x > 0.5, one, -one).astype(kind)),
         lambda x: dg.where(x > 0.5, x, -x)),
        ("sum 0", lambda x: (x.sum(0), np.ones_like(x)), lambda x: x.sum(0)),
        ("mean 1", lambda x: (x.mean(1), np.full_like(x, 1 / side)), lambda x: x.mean(1)),
        ("squared softmax", softmax, lambda x: dg.softmax(x, 1) ** 2), ("amax 1", most, lambda x: x.max(1)[0]),
        ("var 0", variance, lambda x: x.var(0, correction=0)), ("norm 1", norm, lambda x: x.norm(dim=1)),
        ("cumsum", scan, lambda x: x.cumsum(1)), ("shifted difference", shifted, lambda x: x[1:] - x[:-1]),
        ("transposed", lambda x: (x.T * x, x.T + x.T), lambda x: x.T * x), ("gram", gram, lambda x: x[:, :256].T @ x[:, :256]),
        ("x * exp(-x)", lambda x: (lambda e: (x * e, e - x * e))(np.exp(-x)), lambda x: x * dg.exp(-x)),
        ("tanh of half", lambda x: (lambda y: (y, (1 - y * y) * (one / 2)))(np.tanh(x / 2)), lambda x: dg.tanh(x / 2)),
    ):
        yield f"gradient of {name}", theirs(hand), ours(f)


SECTIONS = (order, reductions, places, writes, integers, made, composed, gradients)


def rules(side: int, kind: str) -> Iterator[Rule]:
    """Gives (name, numpy's function, ours) of all sections, each of a square matrix."""
    for section in SECTIONS:
        yield from section(side, kind)
