"""The weights of attention: softmax of scaled scores along the last dim, up to each query's own position when causal.

Invariant: weights a query may not give are exactly 0, and take no time. Source of the definition: arXiv:1706.03762.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.activation import softmax, softmax_backward, softmax_backward_rule
from distgrad.ops.elementwise import mul, widened


@widened
def _weights(x: np.ndarray, *, scale: float, causal: bool) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x):
        from distgrad.kernels import activations

        return activations.attention_weights(x, scale, causal)
    scores = x * x.dtype.type(scale)
    if causal:
        scores[..., np.triu(np.ones(x.shape[-2:], np.bool_), 1)] = -np.inf
    return softmax.kernel(scores, axis=x.ndim - 1)


@widened
def _weights_backward(h: np.ndarray, out: np.ndarray, *, scale: float) -> np.ndarray:
    if h.size >= compiled.LEAST and compiled.fits(h, out):
        from distgrad.kernels import activations

        return activations.attention_weights_backward(h, out, scale)
    return softmax_backward.kernel(h, out, axis=h.ndim - 1) * h.dtype.type(scale)


def _meta(x: TensorMeta, *, scale: float, causal: bool) -> MetaResult:
    return (x,), None


def _rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim - (2 if attrs["causal"] else 1)):
        yield Row((dim,), (dim,))


def _backward_meta(h: TensorMeta, out: TensorMeta, *, scale: float) -> MetaResult:
    return (out,), None if h.dtype is out.dtype else (out.dtype, None)


def _backward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim - 1):
        yield Row((dim, dim), (dim,))
    yield Row(("sum", None), ("sum",))


attention_weights: Op = Op(
    "attention_weights", _weights, meta=_meta, inputs="x", rows=_rows,
    vjps=(lambda g, y, scale: attention_weights_backward(g, y, scale=scale),))
"""Scores (..., L, S) give weights of that shape; `causal`: query i weighs positions up to i."""

attention_weights_backward: Op = Op(
    "attention_weights_backward", _weights_backward, meta=_backward_meta, inputs="h out", rows=_backward_rows,
    vjps=(
        lambda g, out, scale: attention_weights_backward(g, out, scale=scale),
        lambda g, h, out, scale: mul(softmax_backward_rule(g, h, out, out.ndim - 1), scale),
    ))
