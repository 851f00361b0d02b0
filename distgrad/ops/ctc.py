"""Connectionist temporal classification: the likelihood of a label sequence over all its alignments, and its slope.

Invariant: samples do not depend on each other, so the batch dim stays sharded when the targets are padded rows.
Recursions over time run on whole rows of states, in logarithms. Definition: Graves et al., ICML 2006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.movement import reshape

Lattice = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _lattice(x: np.ndarray, targets: np.ndarray, inputs: np.ndarray, lengths: np.ndarray, blank: int) -> Lattice:
    """Gives each sample's states (labels with blanks around them), which may follow the one two before, the scores
    (T, N, states) of the states, and which states end the sequence; RuntimeError for lengths that do not fit."""
    steps, batch, _ = x.shape
    if batch and (inputs.min() < 0 or inputs.max() > steps):
        raise RuntimeError(f"ctc_loss: Expected input_lengths to have values from 0 to {steps}, got {inputs.tolist()}")
    if batch and lengths.min() < 0:
        raise RuntimeError(f"ctc_loss: Expected target_lengths to be non-negative, got {lengths.tolist()}")
    most = int(lengths.max()) if batch else 0
    labels = np.full((batch, most), blank, np.int64)
    if targets.ndim == 1:
        if lengths.sum() > targets.size:
            raise RuntimeError(
                f"ctc_loss: targets have {targets.size} labels, fewer than the sum {lengths.sum()} of target_lengths"
            )
        starts = np.cumsum(lengths) - lengths
        for n, (start, length) in enumerate(zip(starts, lengths)):
            labels[n, :length] = targets[start : start + length]
    else:
        if most > targets.shape[1]:
            raise RuntimeError(f"ctc_loss: targets have rows of {targets.shape[1]} labels, target_lengths up to {most}")
        labels[:] = np.where(np.arange(most) < lengths[:, None], targets[:, :most], blank)
    if labels.size and (labels.min() < 0 or labels.max() >= x.shape[2]):
        raise RuntimeError(f"ctc_loss: targets must be labels from 0 to {x.shape[2] - 1}")
    states = np.full((batch, 2 * most + 1), blank, np.int64)
    states[:, 1::2] = labels
    skips = np.zeros(states.shape, bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    places = np.arange(states.shape[1])
    ends = (places == 2 * lengths[:, None]) | (places == 2 * lengths[:, None] - 1)
    scores = np.take_along_axis(x, np.broadcast_to(states, (steps, *states.shape)), 2) if x.size else np.zeros(
        (steps, *states.shape), x.dtype)
    return states, skips, scores, ends


def _shifted(row: np.ndarray, count: int) -> np.ndarray:
    """Gives a row of states moved by some places, with log 0 where nothing comes from."""
    out = np.full_like(row, -np.inf)
    if count > 0:
        out[:, count:] = row[:, :-count]
    else:
        out[:, :count] = row[:, -count:]
    return out


def _forward(skips: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Gives the log likelihood (T, N, states) of all ways into each state."""
    alpha = np.full_like(scores, -np.inf)
    for t in range(len(scores)):
        if t == 0:
            alpha[0, :, :2] = scores[0, :, :2]
            continue
        before = alpha[t - 1]
        ways = np.logaddexp(before, _shifted(before, 1))
        ways = np.logaddexp(ways, np.where(skips, _shifted(before, 2), -np.inf))
        alpha[t] = ways + scores[t]
    return alpha


def _backward(skips: np.ndarray, scores: np.ndarray, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Gives the log likelihood (T, N, states) of all ways from each state to the end, its own score included."""
    beta = np.full_like(scores, -np.inf)
    last = np.where(ends, 0, -np.inf).astype(scores.dtype)
    onward = np.zeros_like(skips)
    onward[:, :-2] = skips[:, 2:]
    after = np.full_like(last, -np.inf)
    for t in range(len(scores) - 1, -1, -1):
        ways = np.logaddexp(after, _shifted(after, -1))
        ways = np.logaddexp(ways, np.where(onward, _shifted(after, -2), -np.inf))
        ways = np.where((inputs == t + 1)[:, None], last, ways)
        after = beta[t] = ways + scores[t]
    return beta


def _likelihood(alpha: np.ndarray, inputs: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Gives the log likelihood (N,); without any input only the empty sequence is possible."""
    if not len(alpha):
        final = np.where(np.arange(ends.shape[1]) == 0, 0, np.full(ends.shape, -np.inf)).astype(alpha.dtype)
    else:
        final = np.take_along_axis(alpha, np.maximum(inputs - 1, 0)[None, :, None], 0)[0]
        none = np.where(np.arange(ends.shape[1]) == 0, 0, -np.inf)
        final = np.where((inputs == 0)[:, None], none, final).astype(alpha.dtype)
    return np.logaddexp.reduce(np.where(ends, final, -np.inf), axis=1) if final.size else np.zeros(
        len(inputs), alpha.dtype)


def _ctc(x: np.ndarray, targets: np.ndarray, inputs: np.ndarray, lengths: np.ndarray, *, blank: int,
         zero_infinity: bool) -> np.ndarray:
    _, skips, scores, ends = _lattice(x, targets, inputs, lengths, blank)
    loss = -_likelihood(_forward(skips, scores), inputs, ends).astype(x.dtype, copy=False)
    return np.where(np.isinf(loss), x.dtype.type(0), loss) if zero_infinity else loss


def _ctc_slope(x: np.ndarray, targets: np.ndarray, inputs: np.ndarray, lengths: np.ndarray, *,
               blank: int, zero_infinity: bool) -> np.ndarray:
    states, skips, scores, ends = _lattice(x, targets, inputs, lengths, blank)
    alpha = _forward(skips, scores)
    whole = _likelihood(alpha, inputs, ends)
    through = alpha + _backward(skips, scores, inputs, ends) - scores - whole[:, None]
    shares = np.zeros_like(x)
    samples = np.arange(x.shape[1])[:, None]
    for t in range(len(x)):
        np.add.at(shares[t], (samples, states), np.exp(through[t]))
    within = np.arange(len(x))[:, None, None] < inputs[:, None]
    if zero_infinity:
        within = within & ~np.isinf(whole)[:, None]
    return np.where(within, np.exp(x) - shares, 0).astype(x.dtype, copy=False)


def _check(x: TensorMeta, targets: TensorMeta, inputs: TensorMeta, lengths: TensorMeta, blank: int) -> None:
    if x.dtype.name not in ("float32", "float64"):
        raise NotImplementedError(f"ctc_loss: not implemented for dtype {x.dtype.name}; allowed: float32, float64")
    for name, meta in (("targets", targets), ("input_lengths", inputs), ("target_lengths", lengths)):
        if meta.dtype.category != 1:
            raise RuntimeError(f"ctc_loss: {name} must be integral, got {meta.dtype.name}")
    if not 0 <= blank < x.shape[2]:
        raise RuntimeError(f"ctc_loss: blank must be in label range, 0 to {x.shape[2] - 1}, got {blank}")
    for name, meta in (("input_lengths", inputs), ("target_lengths", lengths)):
        if meta.shape != (x.shape[1],):
            raise RuntimeError(f"ctc_loss: {name} must be of size batch_size {x.shape[1]}, got {list(meta.shape)}")
    if targets.ndim not in (1, 2) or (targets.ndim == 2 and targets.shape[0] != x.shape[1]):
        raise RuntimeError(
            f"ctc_loss: targets must be 1-d (one after the other) or (batch_size {x.shape[1]}, longest), got shape "
            f"{list(targets.shape)}"
        )


def _ctc_meta(x: TensorMeta, targets: TensorMeta, inputs: TensorMeta, lengths: TensorMeta, *, blank: int,
              zero_infinity: bool) -> MetaResult:
    _check(x, targets, inputs, lengths, blank)
    return (TensorMeta.of(x.shape[1:2], x.dtype),), None


def _slope_meta(x: TensorMeta, targets: TensorMeta, inputs: TensorMeta, lengths: TensorMeta, *,
                blank: int, zero_infinity: bool) -> MetaResult:
    return (x,), None


def _rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    if ins[1].ndim == 2:
        yield Row((1, 0, 0, 0), (0 if outs[0].ndim == 1 else 1,))


def _no_second(g: Any) -> Any:
    raise RuntimeError("ctc_loss: the derivative of its gradient is not implemented, as in PyTorch")


def _ctc_rule(g: Any, x: Any, x_shape: Any, targets: Any, frames: Any, lengths: Any, blank: int, zero_infinity: bool) -> Any:
    slope = ctc_slope(x, targets, frames, lengths, blank=blank, zero_infinity=zero_infinity)
    return reshape(g, shape=(1, x_shape[1], 1)) * slope


ctc_slope: Op = Op("ctc_slope", _ctc_slope, meta=_slope_meta, inputs="x targets frames lengths", rows=_rows,
                   vjps=(_no_second, None, None, None))
"""exp(x) less the share of alignments through each label at each time: (T, N, C), 0 after a sample's end."""

ctc: Op = Op("ctc", _ctc, meta=_ctc_meta, inputs="x targets frames lengths", rows=_rows,
             vjps=(_ctc_rule, None, None, None))
"""Negative log likelihoods (N,) of label sequences under log probabilities (T, N, C), over all alignments.

The gradient is PyTorch's: that of the logits whose log_softmax the input is.
"""
