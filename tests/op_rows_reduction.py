"""Rows of the reductions."""

from __future__ import annotations

import numpy as np
from op_db import booleans, constant, distinct, integers, normal, positive, row

NAN, INF = float("nan"), float("inf")
EMPTY = normal(0, 3)
HALF = constant(np.linspace(-3, 3, 12).reshape(4, 3), "float16")
FLOAT32 = constant(np.linspace(-3, 3, 12).reshape(4, 3), "float32")
COMPLEX = constant([[1 + 2j, -0.5j], [3.0, -1 - 1j], [0.5 + 0.1j, 2j]], "complex128", differentiable=True)
MISSING = constant([[1.0, NAN, 3.0], [NAN, NAN, -2.0], [4.0, 5.0, 0.5], [NAN, 1.0, 7.0]], differentiable=True)
TIES = constant([[2.0, 2.0, 1.0], [0.0, 3.0, 3.0], [1.0, 1.0, 1.0], [3.0, -1.0, 3.0]], differentiable=True)
ZEROS = constant([[0.0, 2.0, 1.5], [0.0, 0.0, 3.0], [1.0, -1.0, 2.5], [0.5, 4.0, 0.0]], differentiable=True)
UINT8 = constant([[0, 2, 3], [4, 0, 1]], "uint8")


def _over_dims(name: str, *samples: list[object], **options: bool) -> object:
    """A function of (input, dim, keepdim); dim None stands for all."""
    return row(name, lambda T, x, dim, keep: getattr(T, name)(x, dim=dim, keepdim=keep), *samples, **options)


SUMS = [
    _over_dims("sum", [normal(4, 3), 0, False], [normal(4, 3), 1, True], [normal(4, 3, 2), (0, 2), False],
               [normal(4, 3), None, False], [normal(4, 3), (), True], [integers(-5, 5, 4, 3), 0, False],
               [booleans(4, 3), None, False], [EMPTY, 0, False], [EMPTY, 1, False], [normal(), 0, False],
               [COMPLEX, 0, False], [HALF, 0, False], [normal(5, 4, 3, 2), (1, 2), True]),
    row("sum_dtype", lambda T, x: (T.sum(x, dtype=T.float64), T.sum(x, 0, dtype=T.int32)), [integers(0, 9, 4, 3)],
        [HALF],
        grad=False),
    row("sum_numpy_names", lambda T, x: x.sum(axis=0, keepdims=True) + x.mean(axis=1, keepdims=True), [normal(4, 3)]),
    _over_dims("nansum", [MISSING, 0, False], [MISSING, None, False], [integers(0, 5, 4), 0, False]),
    _over_dims("mean", [normal(4, 3), 0, False], [normal(4, 3), 1, True], [normal(4, 3, 2), (0, 2), False],
               [normal(4, 3), None, False], [EMPTY, 0, False], [normal(), None, False], [COMPLEX, 0, False],
               [HALF, None, False]),
    row("mean_dtype", lambda T, x: T.mean(x, dtype=T.float64), [integers(0, 9, 4, 3)], [FLOAT32]),
    _over_dims("nanmean", [MISSING, 0, False], [MISSING, None, False], [MISSING, 1, True]),
    row("prod", lambda T, x, dim: T.prod(x) if dim is None else T.prod(x, dim), [positive(4, 3), None],
        [positive(4, 3), 0],
        [ZEROS, 0], [ZEROS, 1], [ZEROS, None], [integers(-3, 4, 4, 3), 1], [booleans(4), None], [EMPTY, 0],
        [normal(), None],
        [normal(1), 0], [COMPLEX, 0]),
    row("count_nonzero", lambda T, x, dim: T.count_nonzero(x, dim=dim), [ZEROS, 0], [ZEROS, None],
        [booleans(4, 3), (0, 1)],
        [EMPTY, 0], grad=False),
]

TRUTH = [
    row("all", lambda T, x, dim: T.all(x) if dim is None else T.all(x, dim=dim), [booleans(4, 3), 0], [ZEROS, 1],
        [ZEROS, None],
        [EMPTY, 0], [UINT8, None], [booleans(4, 3), (0, 1)], [ZEROS, ()], grad=False),
    row("any", lambda T, x, dim: T.any(x) if dim is None else T.any(x, dim=dim), [booleans(4, 3), 0], [ZEROS, 1],
        [ZEROS, None],
        [EMPTY, 0], [UINT8, 1], [booleans(4, 3), (0, 1)], [ZEROS, ()], grad=False),
]


def _extreme(name: str) -> object:
    return row(name, lambda T, x, dim, keep: getattr(T, name)(x, dim=dim, keepdim=keep), [distinct(4, 3), 0, False],
               [distinct(4, 3), 1, True], [distinct(4, 3, 2), (0, 2), False], [TIES, 1, False], [TIES, (), False],
               [integers(-5, 5, 4, 3), 0, False], [booleans(4, 3), 1, False], [EMPTY, 1, False],
               [distinct(80, 5), 1, False],
               [HALF, 0, False])


EXTREMES = [
    _extreme("amax"), _extreme("amin"),
    row("max", lambda T, x: T.max(x), [distinct(4, 3)], [TIES], [integers(-5, 5, 4, 3)], [normal()]),
    row("min", lambda T, x: T.min(x), [distinct(4, 3)], [TIES], [integers(-5, 5, 4, 3)], [normal()]),
    row("max_dim", lambda T, x, dim, keep: T.max(x, dim, keep), [distinct(4, 3), 0, False], [distinct(4, 3), -1, True],
        [TIES, 0, False], [booleans(4, 3), 1, False], [EMPTY, 1, False], [MISSING, 1, False], [normal(), 0, True]),
    row("min_dim", lambda T, x, dim, keep: T.min(x, dim, keep), [distinct(4, 3), 0, False], [distinct(4, 3), -1, True],
        [TIES, 0, False], [integers(-5, 5, 4, 3), 1, False], [EMPTY, 1, False], [MISSING, 1, False],
        [normal(), 0, True]),
    row("max_of_two", lambda T, a, b: T.max(a, b) + T.min(a, other=b), [distinct(4, 3), normal(3)]),
    row("aminmax", lambda T, x, dim: T.aminmax(x, dim=dim), [distinct(4, 3), 0], [distinct(4, 3), 1]),
    row("aminmax_all", lambda T, x: T.aminmax(x), [distinct(4, 3)]),
    row("argmax", lambda T, x, dim, keep: T.argmax(x, dim, keep), [distinct(4, 3), 0, False], [TIES, 1, True],
        [distinct(4, 3), None, False], [distinct(4, 3), None, True], [MISSING, 0, False], [EMPTY, 1, False],
        grad=False),
    row("argmin", lambda T, x, dim, keep: T.argmin(x, dim, keep), [distinct(4, 3), 0, False], [TIES, 1, True],
        [distinct(4, 3), None, False], [distinct(4, 3), None, True], [MISSING, 0, False], [EMPTY, 1, False],
        grad=False),
    row("median_of_all", lambda T, x: T.median(x), [distinct(4, 3)], [distinct(5)], [MISSING], [TIES],
        [integers(0, 99, 4)]),
    row("median_along_dim", lambda T, x, dim, keep: T.median(x, dim, keep), [distinct(4, 3), 0, False],
        [distinct(4, 5), 1, True],
        [MISSING, 1, False]),
    row("nanmedian_of_all", lambda T, x: T.nanmedian(x), [MISSING], [distinct(4, 3)]),
    row("nanmedian_along_dim", lambda T, x: T.nanmedian(x, 1), [MISSING], [distinct(4, 3)]),
]

SPREADS = [
    *(row(name, lambda T, x, dim, c, keep, name=name: getattr(T, name)(x, dim, correction=c, keepdim=keep),
          [normal(4, 3), 0, 1, False], [normal(4, 3), 1, 0, True], [normal(4, 3, 2), (0, 2), 2, False],
          [normal(4, 3), None, 1, False]) for name in ("var", "std", "var_mean", "std_mean")),
    row("var_unbiased", lambda T, x: (T.var(x, False), T.std(x, 0, True), T.var(x, 1, False, True)), [normal(4, 3)]),
    row("std_of_equal", lambda T, x: T.std(x, 0), [constant([[1.0, 2.0], [1.0, 3.0]], differentiable=True)],
        gradgrad=False),
    row("var_complex", lambda T, x: (T.var(x, 0), T.std(x)), [COMPLEX]),
]

NORMS = [
    *(row(f"norm_{p}", lambda T, x, dim, p=p: T.norm(x, p, dim), [positive(4, 3), 0], [positive(4, 3), None],
          [distinct(4, 3), 1], grad=p != 0, gradgrad=p in (0.5, 1.5, 2, 3)) for p in (0, 0.5, 1, 1.5, 2, 3, INF, -INF)),
    row("norm", lambda T, x: T.norm(x) + T.norm(x, dim=(0, 1)) + x.norm(p="fro"), [normal(4, 3)]),
    row("norm_of_zeros", lambda T, x, p: T.norm(x, p, 0), [constant([[0.0, 1.0], [0.0, 2.0]], differentiable=True), 2],
        [constant([[0.0, 1.0], [0.0, 0.0]], differentiable=True), 0.5], gradgrad=False),
    row("norm_dtype", lambda T, x: T.norm(x, 2, 0, True, dtype=T.float64), [FLOAT32]),
    row("norm_complex", lambda T, x: T.norm(x), [COMPLEX]),
]

ROWS = [*SUMS, *TRUTH, *EXTREMES, *SPREADS, *NORMS]
