"""Resampling along axes: window means, interpolation and their adjoints, all one linear op.

Each spatial axis has a rule, a tuple of numbers that names a sparse matrix of T rows and S columns; `resample` applies
the matrices axis by axis, or their transposes. Invariant: a matrix is kept as taps, each at most one element per row,
so an output element only ever sees the input elements of its own window.

Rules: ("mean", S, T, kernel, stride, padding, with_padding), ("sum", S, T, kernel, stride, padding), ("area", S, T)
with windows from floor(t * S / T) to ceil((t + 1) * S / T), and ("nearest" | "nearest-exact" | "linear" | "cubic" |
"linear-aa" | "cubic-aa", S, T, align_corners, scale), where scale (0: S / T) is input elements per output element.
Source of the definitions: PyTorch, F.interpolate and F.avg_pool2d; Keys, "Cubic convolution interpolation", 1981.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row

Rule = tuple[Any, ...]
Selector = slice | np.ndarray
Taps = tuple[tuple[Selector, Selector, Any], ...]

_CUBIC = -0.75  # Keys' parameter, as PyTorch chooses it; with antialiasing -0.5, as Pillow does
_CUBIC_ANTIALIASED = -0.5


def ends(size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives first and one past the last element of each window that shares `size` elements among `out`."""
    t = np.arange(out)
    return t * size // out, -(-(t + 1) * size // out)


def _window(rule: Rule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kind, size, out, kernel, stride, padding = rule[:6]
    first = np.arange(out) * stride - padding
    index = first[:, None] + np.arange(kernel)
    valid = (index >= 0) & (index < size)
    if kind == "sum":
        return index, np.ones(index.shape), valid
    low, high = first, np.minimum(first + kernel, size + padding)
    if not rule[6]:
        low, high = np.maximum(low, 0), np.minimum(high, size)
    return index, np.broadcast_to((1.0 / np.maximum(high - low, 1))[:, None], index.shape), valid


def _area(size: int, out: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = ends(size, out)
    index = low[:, None] + np.arange(max((high - low).max(initial=0), 1))
    return index, np.broadcast_to((1.0 / (high - low))[:, None], index.shape), index < high[:, None]


def _nearest(kind: str, size: int, out: int, scale: float) -> np.ndarray:
    t = np.arange(out)
    step = np.float32(scale) if scale else np.float32(size) / np.float32(out)  # PyTorch takes it in single precision
    place = (t.astype(np.float32) + np.float32(0.5 if kind == "nearest-exact" else 0.0)) * step
    return np.minimum(np.floor(place).astype(np.int64), size - 1)


def _convolved(x: np.ndarray, a: float) -> np.ndarray:
    """Gives Keys' cubic kernel at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _antialiased(kind: str, size: int, out: int, step: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    reach = (2 if kind == "linear-aa" else 4) * 0.5 * max(float(step), 1.0)
    center = step * (np.arange(out) + step.dtype.type(0.5))
    low = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((center + reach + 0.5).astype(np.int64), size)
    index = low[:, None] + np.arange(max((high - low).max(initial=0), 1))
    valid = index < high[:, None]
    distance = np.abs(index - center[:, None] + 0.5) / max(float(step), 1.0)
    weights = np.maximum(1 - distance, 0) if kind == "linear-aa" else _convolved(distance, _CUBIC_ANTIALIASED)
    weights = np.where(valid, weights, 0)
    return index, weights / weights.sum(1, keepdims=True), valid


def _interpolated(rule: Rule, real: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kind, size, out, align, scale = rule
    if kind.startswith("nearest"):
        index = _nearest(kind, size, out, scale)[:, None]
        return index, np.ones(index.shape), np.ones(index.shape, bool)
    if align:
        step = real.type(size - 1) / real.type(out - 1) if out > 1 else real.type(0)
    else:
        step = real.type(scale) if scale else real.type(size) / real.type(out)
    if kind.endswith("aa"):
        return _antialiased(kind, size, out, step)
    t = np.arange(out).astype(real)
    place = step * t if align else step * (t + real.type(0.5)) - real.type(0.5)
    if kind == "linear":
        place = np.maximum(place, 0)
        low = np.minimum(place.astype(np.int64), size - 1)
        share = np.clip(place - low, 0, 1)
        index = np.stack([low, np.minimum(low + 1, size - 1)], 1)
        return index, np.stack([1 - share, share], 1), np.ones(index.shape, bool)
    low = np.floor(place)
    share = np.clip(place - low, 0, 1)[:, None]
    offsets = np.arange(-1, 3)
    index = np.clip(low.astype(np.int64)[:, None] + offsets, 0, size - 1)
    return index, _convolved(np.abs(share - offsets.astype(real)), _CUBIC), np.ones(index.shape, bool)


def _selector(places: np.ndarray) -> Selector:
    """Gives positions as a slice where they are evenly spaced."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step > 0 and (np.diff(places) == step).all():
        return slice(int(places[0]), int(places[-1]) + 1, step)
    return places


@lru_cache(maxsize=1024)
def _taps(rule: Rule, real: np.dtype, adjoint: bool) -> tuple[Taps, float | None]:
    """Gives the taps (output positions, input positions, weights), and the weight where all have the same."""
    if rule[0] in ("mean", "sum"):
        index, weights, valid = _window(rule)
    else:
        index, weights, valid = _area(*rule[1:]) if rule[0] == "area" else _interpolated(rule, real)
    order = np.broadcast_to(np.arange(index.shape[1]), index.shape)[valid]
    rows = np.broadcast_to(np.arange(index.shape[0])[:, None], index.shape)[valid]
    columns, factors = index[valid], weights[valid]
    if adjoint:
        sorting = np.lexsort((rows, columns))
        rows, columns, factors = columns[sorting], rows[sorting], factors[sorting]
        order = np.arange(len(rows)) - np.searchsorted(rows, rows)
    common = float(factors[0]) if len(factors) and (factors == factors[0]).all() else None
    taps = []
    for k in np.unique(order):  # an element that lies in the padding for every window gives no tap
        chosen = order == k
        by_row = np.argsort(rows[chosen], kind="stable")
        own = factors[chosen][by_row]
        weight = None if common is not None else float(own[0]) if (own == own[0]).all() else own.astype(real)
        taps.append((_selector(rows[chosen][by_row]), _selector(columns[chosen][by_row]), weight))
    return tuple(taps), common


def _along(x: np.ndarray, axis: int, size: int, taps: Taps, common: float | None) -> np.ndarray:
    lead: tuple[Any, ...] = (slice(None),) * axis
    out = np.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    for number, (rows, columns, weight) in enumerate(taps):
        part = x[(*lead, columns)] if isinstance(columns, slice) else x.take(columns, axis)
        if weight is not None:
            part = part * (weight if isinstance(weight, float) else weight.reshape(-1, *(1,) * (x.ndim - axis - 1)))
        if number == 0:
            out[(*lead, rows)] = part
        elif isinstance(rows, slice):
            target = out[(*lead, rows)]
            np.add(target, part, out=target)
        else:
            out[(*lead, rows)] += part
    if common not in (None, 1.0):
        out *= x.dtype.type(common)
    return out


def _resample(x: np.ndarray, *, rules: tuple[Rule, ...], adjoint: bool = False) -> np.ndarray:
    kind = x.dtype
    if kind.kind == "V" or (kind.itemsize == 2 and kind.kind == "f"):
        return _resample(x.astype(np.float32), rules=rules, adjoint=adjoint).astype(kind)
    real = np.dtype(np.float32 if kind in (np.float32, np.complex64) else np.float64)
    lead = x.ndim - len(rules)
    source, target = (2, 1) if adjoint else (1, 2)
    # The axis that shrinks most comes first, so that later ones have less to do.
    for position in sorted(range(len(rules)), key=lambda p: rules[p][target] / max(rules[p][source], 1)):
        rule = rules[position]
        x = _along(x, lead + position, rule[target], *_taps(rule, real, adjoint))
    return x


def _resample_meta(x: TensorMeta, *, rules: tuple[Rule, ...], adjoint: bool = False) -> MetaResult:
    nearest = all(rule[0].startswith(("nearest", "sum")) for rule in rules)
    if x.dtype.category < 2 and not nearest:
        raise NotImplementedError(
            f"interpolate/pool: not implemented for {x.dtype.name}; allowed: floating-point dtypes; convert with "
            ".float()"
        )
    lead = x.ndim - len(rules)
    return (TensorMeta.of((*x.shape[:lead], *(rule[1 if adjoint else 2] for rule in rules)), x.dtype),), None


def _resample_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(ins[0].ndim - len(attrs["rules"])):
        yield Row((dim,), (dim,))
    yield Row(("sum",), ("sum",))


def _resample_vjp(g: Any, rules: tuple[Rule, ...], adjoint: bool = False) -> Any:
    return resample(g, rules=rules, adjoint=not adjoint)


resample: Op = Op("resample", lambda x, *, rules, adjoint: _resample(x, rules=rules, adjoint=adjoint),
                  meta=_resample_meta, inputs="x", rows=_resample_rows,
                  vjps=(lambda g, rules, adjoint: _resample_vjp(g, rules, adjoint),))
"""The last dims of `x` resampled by one rule each; with `adjoint` by the transposed matrices."""
