"""Ops of the losses: picking one class per element, binary cross entropy, checked variances.

Invariant: of the class losses only the class dim must be whole. Every other dim may be sharded, so a loss over sharded
rows moves nothing but its final sum. `nll` and `nll_spread` are adjoint to each other, so all derivatives exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from distgrad.families import binary, elementwise
from distgrad.kernels import compiled
from distgrad.meta import TensorMeta
from distgrad.op import Entry, MetaResult, Op, Row
from distgrad.ops.elementwise import clamp_min, log, log1p, neg, sigmoid, takes, widened


def _classes(target: np.ndarray, count: int, ignore_index: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Gives the classes, 0 where ignored, and where they are not ignored (None: nowhere ignored).

    IndexError for a class that does not exist.
    """
    classes = target.astype(np.int64, copy=False)
    if not classes.size or (classes.min() >= 0 and classes.max() < count and not 0 <= ignore_index < count):
        return classes, None
    valid = classes != ignore_index
    outside = valid & ((classes < 0) | (classes >= count))
    if outside.any():
        raise IndexError(f"nll_loss: Target {classes[outside].flat[0]} is out of bounds; allowed: 0 to {count - 1}")
    return np.where(valid, classes, 0), valid


def _nll(x: np.ndarray, target: np.ndarray, *, axis: int, ignore_index: int) -> np.ndarray:
    classes, valid = _classes(target, x.shape[axis], ignore_index)
    if not classes.size or not x.shape[axis]:
        return np.zeros(target.shape, x.dtype)
    picked = -np.take_along_axis(x, np.expand_dims(classes, axis), axis).reshape(target.shape)
    return picked if valid is None else np.where(valid, picked, x.dtype.type(0))


def _nll_spread(g: np.ndarray, target: np.ndarray, *, axis: int, count: int, ignore_index: int) -> np.ndarray:
    classes, valid = _classes(target, count, ignore_index)
    spread = np.zeros((*target.shape[:axis], count, *target.shape[axis:]), g.dtype)
    if spread.size:
        values = -g if valid is None else np.where(valid, -g, g.dtype.type(0))
        np.put_along_axis(spread, np.expand_dims(classes, axis), np.expand_dims(values, axis), axis)
    return spread


def _nll_meta(x: TensorMeta, target: TensorMeta, *, axis: int, ignore_index: int) -> MetaResult:
    _check_target(target)
    if x.dtype.category != 2:
        raise NotImplementedError(f"nll_loss: not implemented for dtype {x.dtype.name}; allowed: floating-point dtypes")
    return (TensorMeta.of(target.shape, x.dtype),), None


def _check_target(target: TensorMeta) -> None:
    if target.dtype.name not in ("int64", "uint8"):
        raise RuntimeError(f"nll_loss: expected target of dtype int64 or uint8, got {target.dtype.name}; use .long()")


def _spread_meta(g: TensorMeta, target: TensorMeta, *, axis: int, count: int, ignore_index: int) -> MetaResult:
    return (TensorMeta.of((*target.shape[:axis], count, *target.shape[axis:]), g.dtype),), None


def _nll_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim):
        yield Row((dim + (dim >= attrs["axis"]), dim), (dim,))
    yield Row(("sum", None), ("sum",))


def _spread_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[1].ndim):
        yield Row((dim, dim), (dim + (dim >= attrs["axis"]),))
    yield Row(("sum", None), ("sum",))


def _class_weight(weight: np.ndarray, target: np.ndarray, *, ignore_index: int) -> np.ndarray:
    classes, valid = _classes(target, weight.shape[0], ignore_index)
    if not weight.size:
        return np.zeros(target.shape, weight.dtype)
    found = weight[classes]
    return found if valid is None else np.where(valid, found, weight.dtype.type(0))


def _class_weight_meta(weight: TensorMeta, target: TensorMeta, *, ignore_index: int) -> MetaResult:
    _check_target(target)
    return (TensorMeta.of(target.shape, weight.dtype),), None


def _class_weight_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim):
        entries: tuple[Entry, ...] = (None, dim)
        yield Row(entries, (dim,))


# -x[target] along `axis`, 0 where the target is `ignore_index`; `target` has x's shape without `axis`.
nll: Op = Op("nll_loss", _nll, meta=_nll_meta, inputs="x target", rows=_nll_rows,
         vjps=(
             lambda g, target, axis, ignore_index, x_shape: nll_spread(
                 g, target, axis=axis, count=x_shape[axis], ignore_index=ignore_index
             ),
             None,
         ))

nll_spread: Op = Op("nll_spread", _nll_spread, meta=_spread_meta, inputs="v target", rows=_spread_rows,
                vjps=(
                    lambda g, target, axis, ignore_index: nll(g, target, axis=axis, ignore_index=ignore_index),
                    None,
                ))

# weight[target], 0 where the target is `ignore_index`; a loss weight takes no gradient.
class_weight = Op("class_weight", _class_weight, meta=_class_weight_meta, inputs="weight target",
                  rows=_class_weight_rows)


# Binary cross entropy ---------------------------------------------------------------------------------------


def _binary_cross_entropy(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if not np.all((x >= 0) & (x <= 1)):
        raise RuntimeError("binary_cross_entropy: all elements of input should be between 0 and 1")
    log_x, log_rest = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
    return (target - 1) * log_rest - target * log_x


def _logit_loss(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x, target):
        from distgrad.kernels import activations

        return activations.logit_loss(x, target)
    # max(x, 0) - x t + log(1 + exp(-|x|)): no exponential of a positive number.
    return np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))


def _logit_slope(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x, target):
        from distgrad.kernels import activations

        return activations.logit_slope(x, target)
    return sigmoid.kernel(x) - target


def _mean_meta(x: TensorMeta, target: TensorMeta) -> MetaResult:
    assert x.shape == target.shape and x.dtype is target.dtype and x.dtype.category == 2  # `functions` ask
    return (TensorMeta.of((), x.dtype),), None


def _mean_rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[0].ndim):
        yield Row((dim, dim), ("sum",))


def _mean(name: str, total: Callable[..., np.ndarray], by_x: Callable[..., Any], by_target: Callable[..., Any]) -> Op:
    """Makes the op of a loss's mean over two tensors of one shape and dtype, whose elementwise losses are never stored.

    `total` adds them up; the rules give the slopes times a 0-d tensor.
    """

    def kernel(x: np.ndarray, target: np.ndarray, *, count: int | None = None) -> np.ndarray:
        return total(x, target) / x.dtype.type(x.size if count is None else count)

    return Op(
        name, kernel, meta=_mean_meta, inputs="x target", rows=_mean_rows,
        vjps=(lambda g, x, target: by_x(x, target, g / max(prod(x.shape), 1)),
              lambda g, x, target: by_target(x, target, g / max(prod(x.shape), 1))),
        localize=lambda attrs, ins, outs, rank: {**attrs, "count": prod(ins[0].shape)},
    )


def _logit_total(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x, target):
        from distgrad.kernels import activations

        return activations.logit_loss_sum(x, target)
    return np.asarray(_logit_loss(x, target).sum())


def _square_total(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    if x.size >= compiled.LEAST and compiled.fits(x, target):
        from distgrad.kernels import sums

        return sums.square_distance(x, target)
    lead = next((d for d, step in enumerate(target.strides) if step), target.ndim)
    if lead and x.size >= compiled.LEAST and x.dtype == target.dtype and compiled.fits(x):  # what a broadcast repeats
        from distgrad.kernels import sums

        row = np.array(target[(0,) * lead], order="C")  # its own, as a view of a broadcast may not be written to
        return np.asarray(sums.squares(x.reshape(1, -1, row.size), row.reshape(1, -1)).sum(dtype=np.float64).astype(x.dtype))
    return np.asarray(np.square(x - target).sum())


def _scaled_difference(a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    if a.size >= compiled.LEAST and s.size == 1 and s.dtype == a.dtype and compiled.fits(a, b):
        from distgrad.kernels import elementwise

        return elementwise.scaled_difference(a, b, s)
    return (a - b) * s


def _logit_gradient(x: np.ndarray, target: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if x.size >= compiled.LEAST and scale.size == 1 and scale.dtype == x.dtype and compiled.fits(x, target):
        from distgrad.kernels import activations

        return activations.logit_gradient(x, target, scale)
    return _logit_slope(x, target) * scale


def _variance(x: np.ndarray, eps: float) -> np.ndarray:
    if np.any(x < 0):
        raise ValueError("gaussian_nll_loss: var has negative entry/entries")
    return np.maximum(x, x.dtype.type(eps))


# Logarithms are kept above -100 and the gradient's denominator above 1e-12, as in PyTorch.
binary_cross_entropy = binary(
    "binary_cross_entropy", _binary_cross_entropy,
    (
        lambda g, a, b: g * ((a - b) / clamp_min(a * (1.0 - a), 1e-12)),
        lambda g, a: g * (log1p(neg(a)) - log(a)),
    ),
    check=takes("binary_cross_entropy", 2),
)

binary_cross_entropy_with_logits = binary(
    "binary_cross_entropy_with_logits", widened(_logit_loss),
    (lambda g, a, b: g * logit_slope(a, b), lambda g, a: neg(g * a)),
    check=takes("binary_cross_entropy_with_logits", 2),
)
# sigmoid(a) - b.
logit_slope: Op = binary("logit_slope", widened(_logit_slope), (lambda g, a: g * _logistic_slope(a), lambda g: neg(g)))


mean_logit_loss = _mean(
    "mean_logit_loss", _logit_total, lambda x, target, s: logit_gradient(x, target, s), lambda x, target, s: neg(x * s)
)
# logit_slope times what a mean hands on.
logit_gradient: Op = elementwise(
    "logit_gradient", widened(_logit_gradient), "a b s",
    vjps=(lambda g, a, s: g * (s * _logistic_slope(a)), lambda g, s: neg(g * s), lambda g, a, b: g * logit_slope(a, b)),
)


mean_square_distance = _mean(
    "mean_square_distance", _square_total, lambda x, target, s: scaled_difference(x, target, s * 2.0),
    lambda x, target, s: scaled_difference(target, x, s * 2.0),
)
scaled_difference: Op = elementwise(
    "scaled_difference", _scaled_difference, "a b s",
    vjps=(lambda g, s: g * s, lambda g, s: neg(g * s), lambda g, a, b: g * (a - b)),
)


def _logistic_slope(a: Any) -> Any:
    s = sigmoid(a)
    return s - s * s


# The variance kept above eps; its gradient passes as if it had not been, as in PyTorch.
floored_variance = elementwise("floored_variance", _variance, "x eps", vjps=(lambda g: g, None))
