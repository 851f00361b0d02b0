"""Rows of the running sums, products and extremes."""

from __future__ import annotations

import numpy as np
from op_db import booleans, constant, distinct, integers, normal, row

NAN, INF = float("nan"), float("inf")
EMPTY = normal(0, 3)
HALF = constant(np.linspace(-3, 3, 12).reshape(4, 3), "float16")
COMPLEX = constant([[1 + 2j, -0.5j], [3.0, -1 - 1j], [0.5 + 0.1j, 2j]], "complex128", differentiable=True)
ZEROS = constant([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [1.0, -1.0, 2.5], [0.0, 4.0, 0.5]], differentiable=True)
MISSING = constant([[1.0, NAN, 3.0], [1.0, 5.0, NAN], [4.0, NAN, 0.5]])

ROWS = [
    row("cumsum", lambda T, x, dim: T.cumsum(x, dim), [normal(4, 3), 0], [normal(4, 3), -1], [normal(4, 3, 2), 1],
        [integers(-5, 5, 4, 3), 0], [booleans(4), 0], [EMPTY, 0], [EMPTY, 1], [normal(), 0], [COMPLEX, 0]),
    row("cumsum_dtype", lambda T, x: (T.cumsum(x, 0, dtype=T.float64), T.cumsum(x, 0, dtype=T.int32)),
        [integers(0, 9, 4)],
        [HALF], grad=False),
    row("cumprod", lambda T, x, dim: T.cumprod(x, dim), [normal(4, 3), 0], [normal(4, 3), -1], [ZEROS, 0], [ZEROS, 1],
        [integers(-3, 3, 4, 3), 0], [EMPTY, 0], [normal(), 0], [normal(1), 0],
        [COMPLEX, 0]),
    row("cummax", lambda T, x, dim: T.cummax(x, dim), [distinct(5, 3), 0], [distinct(4, 5), 1], [EMPTY, 0],
        [normal(), 0]),
    row("cummin", lambda T, x, dim: T.cummin(x, dim), [distinct(5, 3), 0], [distinct(4, 5), 1], [EMPTY, 0],
        [normal(), 0]),
    row("cummax_special", lambda T, x: (T.cummax(x, 0), T.cummin(x, 1)), [MISSING], [integers(0, 3, 6, 4)], grad=False),
    row("logcumsumexp", lambda T, x, dim: T.logcumsumexp(x, dim), [normal(5, 3), 0], [normal(4, 5), 1], [EMPTY, 0],
        [normal(), 0],
        [constant([800.0, -900.0, 801.0, 2.0], differentiable=True), 0]),
    row("logcumsumexp_infinite", lambda T, x: T.logcumsumexp(x, 0), [constant([-INF, -INF, 1.0, 2.0])], grad=False),
    row("diff", lambda T, x, n, dim: T.diff(x, n, dim), [normal(5, 3), 1, 0], [normal(4, 5), 2, -1],
        [normal(4, 3), 0, 0],
        [booleans(5), 1, 0], [integers(0, 9, 5), 1, 0], [normal(4, 2), 3, 1]),
    row("diff_ends", lambda T, x, a, b: T.diff(x, prepend=a, append=b), [normal(4, 3), normal(4, 1), normal(4, 2)]),
]
