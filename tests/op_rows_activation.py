"""Rows of the activation functions, softmax and logsumexp."""

from __future__ import annotations

from typing import Any

from op_db import constant, distinct, integers, normal, row

NAN, INF = float("nan"), float("inf")
EDGES = constant([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0, 30.0, -30.0, 100.0, -100.0], differentiable=True)
SPECIAL = constant([NAN, INF, -INF, 0.0])
ROWS_OF_INFINITIES = constant([[0.5, -INF, 2.0], [-INF, -INF, -INF], [1.0, INF, 0.0]])


def _plain(name: str, *extra: Any, edges: bool = True, **options: Any) -> Any:
    samples = [[normal(4, 3)], [normal(0, 3)], [SPECIAL]] + ([[EDGES]] if edges else [])
    return row(name, lambda T, x: getattr(T.nn.functional, name)(x), *samples, *extra, **options)


def _with(name: str, label: str, *arguments: Any, **options: Any) -> Any:
    return row(f"{name}_{label}", lambda T, x: getattr(T.nn.functional, name)(x, *arguments, **options), [normal(4, 3)],
               [EDGES])


ROWS = [
    _plain("relu", [integers(-3, 4, 6)]),
    row("relu_method", lambda T, x: x.relu() + T.relu(x), [normal(4, 3)]),
    row("relu_large", lambda T, x: T.relu(x), [normal(101, 103)]),
    row("relu_inplace", lambda T, x: T.nn.functional.relu(x * 2, inplace=True) + 1, [normal(4, 3)]),
    row("elu_inplace", lambda T, x: T.nn.functional.elu(x * 2, 0.7, True) + 1, [normal(4, 3)]),
    *(_plain(name) for name in ("relu6", "selu", "celu", "elu", "silu", "mish", "softplus", "softsign", "hardtanh",
                                "leaky_relu", "hardswish", "logsigmoid", "tanhshrink", "softshrink",
                                "hardshrink", "gelu")),
    _plain("hardsigmoid", gradgrad=False),
    _with("gelu", "tanh", approximate="tanh"),
    row("gelu_large", lambda T, x: T.nn.functional.gelu(x), [normal(83, 67)]),
    _with("leaky_relu", "slope", 0.3),
    _with("leaky_relu", "steep", 1.5),
    _with("leaky_relu", "negative", -0.2),
    _with("elu", "alpha", 0.5),
    row("elu_negative", lambda T, x: T.nn.functional.elu(x, -0.5), [normal(4, 3)]),
    _with("celu", "alpha", 2.0),
    _with("celu", "negative", -2.0),
    _with("softplus", "beta", 2.0, 5.0),
    _with("hardtanh", "bounds", -0.5, 1.0),
    _with("softshrink", "lambda", 0.25),
    _with("hardshrink", "lambda", 0.25),
    _with("threshold", "value", 0.1, 20.0),
    row("prelu", lambda T, x, w: T.nn.functional.prelu(x, w), [normal(4, 3), normal(3)], [normal(4, 3), normal(1)],
        [normal(4, 3, 5), normal(3)]),
    row("glu", lambda T, x: T.nn.functional.glu(x), [normal(4, 6)]),
    row("glu_dim", lambda T, x: T.nn.functional.glu(x, dim=0), [normal(4, 3)]),
    row("softmax", lambda T, x: T.nn.functional.softmax(x, dim=-1), [normal(4, 3)], [normal(4, 3, 2)], [normal(0, 3)],
        [normal(3, 0)], [constant(1.5, differentiable=True)]),
    row("softmax_rows", lambda T, x: T.softmax(x, 0), [normal(4, 3)], [ROWS_OF_INFINITIES]),
    row("softmax_dtype", lambda T, x: T.softmax(x, 1, T.float64), [normal(4, 3)], [integers(0, 5, 4, 3)]),
    row("log_softmax", lambda T, x: T.nn.functional.log_softmax(x, dim=1), [normal(4, 3)], [normal(2, 3, 4)],
        [ROWS_OF_INFINITIES]),
    row("log_softmax_dtype", lambda T, x: T.log_softmax(x, 0, dtype=T.float64), [normal(4, 3)]),
    row("softmin", lambda T, x: T.nn.functional.softmin(x, dim=1), [normal(4, 3)]),
    row("logsumexp", lambda T, x: T.logsumexp(x, 1), [normal(4, 3)], [distinct(4, 3, 2)], [ROWS_OF_INFINITIES],
        [normal(3, 0)], [integers(0, 5, 4, 3)]),
    row("logsumexp_keepdim", lambda T, x: T.logsumexp(x, (0, 2), keepdim=True), [normal(4, 3, 2)]),
    row("logsumexp_all", lambda T, x: x.logsumexp((0, 1)), [normal(4, 3)]),
]
