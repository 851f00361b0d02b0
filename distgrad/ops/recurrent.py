"""Recurrent layers as one op each: a whole sequence in one direction through `lstm`, `gru`, `rnn_tanh` or `rnn_relu`.

Invariant: rows of the batch never mix, so a sharded batch needs no communication, and the driver records one op per
layer however long the sequence is. Gates stand in PyTorch's order (torch.nn.LSTM: i, f, g, o; torch.nn.GRU: r, z, n).

Inputs: `x` (T, B, I), or (B, T, I) with `time_axis` 1; `h` (B, P) and, for an LSTM, `c` (B, H), the states to start
from; the weights `w_ih` (gates * H, I), `w_hh` (gates * H, P), `w_hr` (P, H; only with a projection) and biases;
`lengths`, (B,) counts of steps per row, or a number when all rows have all steps. Inputs that are not there are the
number 0.0. Outputs: `y` (T, B, P), zero from each row's length on; `last` (B, P); `cell` (B, H); and `workspace`, what
the backward pass needs again, as bytes because nobody differentiates it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import is_number
from distgrad.grad_mode import mode
from distgrad.kernels import compiled, products
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row

INPUTS = "x h c w_ih w_hh b_ih b_hh w_hr lengths"
Arrays = tuple[np.ndarray, ...]


def _wide(value: Any) -> Any:
    """Gives halves in float32, in which they are summed, and anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.itemsize == 2 and value.dtype.kind not in "iu":
        return value.astype(np.float32)
    return value


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gives a @ b for (T, B, k) and (k, n), as one product of matrices."""
    return products.matmul(a.reshape(a.shape[0] * a.shape[1], a.shape[2]), b).reshape(*a.shape[:2], b.shape[1])


def _weight_gradient(d: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives the sum over steps and rows of the outer products of (T, B, m) and (T, B, n)."""
    steps = d.shape[0] * d.shape[1]
    return products.matmul(d.reshape(steps, d.shape[2]).T, x.reshape(steps, x.shape[2]))


class _Steps:
    """The order of the steps and which rows take part in each."""

    def __init__(self, count: int, reverse: bool, lengths: Any) -> None:
        self.count, self.reverse = count, reverse
        self.lengths = lengths if isinstance(lengths, np.ndarray) else None
        self.shortest = count if self.lengths is None else int(self.lengths.min(initial=count))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count - 1, -1, -1) if self.reverse else range(self.count))

    def backward(self) -> Iterator[int]:
        """Gives the steps from the last computed to the first."""
        return iter(range(self.count) if self.reverse else range(self.count - 1, -1, -1))

    def live(self, step: int) -> np.ndarray | None:
        """Gives a (B, 1) mask of the rows that have this step; None when all have it."""
        if step < self.shortest:
            return None
        assert self.lengths is not None
        return (step < self.lengths)[:, None]

    def before(self, sequence: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Gives, per step, the state the step started from, out of the states the steps ended with."""
        found = np.empty_like(sequence)
        if not self.reverse:
            found[1:], found[0] = sequence[:-1], first
            return found
        found[:-1], found[-1] = sequence[1:], first
        if self.lengths is not None:
            for row in np.flatnonzero(self.lengths < self.count):
                found[self.lengths[row] - 1, row] = first[row]
        return found


def _keep(live: np.ndarray | None, new: np.ndarray, old: Any) -> np.ndarray:
    return new if live is None else np.where(live, new, old)


# One direction of each kind: forward gives (states per step, last, cell, workspace); backward the gradients ---------


def _rnn_forward(pre: np.ndarray, h: np.ndarray, activate: Callable[..., np.ndarray], w_hh: np.ndarray,
                 steps: _Steps) -> Arrays:
    y = np.zeros((*pre.shape[:2], w_hh.shape[1]), pre.dtype)
    recurrent = w_hh.T
    for t in steps:
        new = products.matmul(h, recurrent)
        new += pre[t]
        new = activate(new)
        live = steps.live(t)
        h = _keep(live, new, h)
        y[t] = _keep(live, new, 0)
    return y, h, np.zeros(0, pre.dtype), np.zeros((*pre.shape[:2], 0), pre.dtype)


def _rnn_backward(gy: np.ndarray, gh: np.ndarray, slope: np.ndarray, w_hh: np.ndarray,
                  steps: _Steps) -> tuple[np.ndarray, np.ndarray]:
    d = np.empty_like(slope)
    for t in steps.backward():
        live = steps.live(t)
        now = (gy[t] + gh) * slope[t]
        d[t] = _keep(live, now, 0)
        gh = _keep(live, products.matmul(now, w_hh), gh)
    return d, gh


def _fits_cells(rows: int, w_hh: np.ndarray, w_hr: Any, steps: _Steps) -> bool:
    """Says whether a compiled loop makes the steps: all rows have all of them, which are long enough together."""
    if steps.shortest < steps.count or isinstance(w_hr, np.ndarray):
        return False
    return compiled.takes_elements(steps.count * rows * w_hh.shape[0], w_hh.dtype)


def _halves(w_hh: np.ndarray) -> np.ndarray:
    """Gives 1/2 for the rows of the gates i, f and o, and 1 for those of g.

    sigmoid(x) = (1 + tanh(x / 2)) / 2: with these factors one tanh serves all four gates.
    """
    size = w_hh.shape[0] // 4
    scale = np.full(4 * size, 0.5, w_hh.dtype)
    scale[2 * size : 3 * size] = 1.0
    return scale


def _lstm_forward(pre: np.ndarray, h: np.ndarray, c: np.ndarray, w_hh: np.ndarray, w_hr: Any, steps: _Steps) -> Arrays:
    """Goes through the steps; `pre` and `w_hh` are multiplied by `_halves` already."""
    size = c.shape[1]
    y = np.zeros((*pre.shape[:2], h.shape[1]), pre.dtype)
    workspace = np.empty((*pre.shape[:2], 5 * size), pre.dtype)
    scale = _halves(w_hh)
    offset = np.where(scale == 1, 0, scale).astype(pre.dtype)
    recurrent = np.ascontiguousarray(w_hh.T)
    project = None if not isinstance(w_hr, np.ndarray) else w_hr.T
    for t in steps:
        gates = workspace[t, :, : 4 * size]
        np.add(pre[t], products.matmul(h, recurrent), out=gates)
        np.tanh(gates, out=gates)
        np.multiply(gates, scale, out=gates)
        np.add(gates, offset, out=gates)
        new_c = gates[:, size : 2 * size] * c
        new_c += gates[:, :size] * gates[:, 2 * size : 3 * size]
        new = gates[:, 3 * size :] * np.tanh(new_c)
        if project is not None:
            new = new @ project
        live = steps.live(t)
        c, h = _keep(live, new_c, c), _keep(live, new, h)
        workspace[t, :, 4 * size :] = c
        y[t] = _keep(live, new, 0)
    return y, h, c, workspace


def _lstm_forward_together(x: np.ndarray, h: np.ndarray, c: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, bias: Any,
                           steps: _Steps) -> Arrays:
    """Goes through the steps of rows that all have them, with one product each: of state, input and 1 with all weights.

    Weights and biases are multiplied by `_halves` already.
    """
    from distgrad.kernels.recurrent import lstm_cell

    width, features = h.shape[1], x.shape[2]
    given = np.empty((*x.shape[:2], width + features + 1), x.dtype)
    given[..., width:-1], given[..., -1] = x, 1
    weights = np.empty((given.shape[2], w_hh.shape[0]), x.dtype)
    weights[:width], weights[width:-1], weights[-1] = w_hh.T, w_ih.T, bias
    y = np.empty((*x.shape[:2], width), x.dtype)
    workspace = np.empty((*x.shape[:2], 5 * width), x.dtype)
    arrived = np.empty((x.shape[1], 4 * width), x.dtype)
    c, new_c, squashed = np.array(c, x.dtype), np.empty(c.shape, x.dtype), np.empty(c.shape, x.dtype)
    for t in steps:
        given[t, :, :width] = h
        products.matmul(given[t], weights, arrived)
        np.tanh(arrived, out=arrived)
        lstm_cell(arrived, c, workspace[t], new_c)
        c, new_c = new_c, c
        np.tanh(c, out=squashed)
        h = np.multiply(workspace[t, :, 3 * width : 4 * width], squashed, out=y[t])
    return y, h.copy(), c, workspace


def _lstm_backward(gy: np.ndarray, gh: np.ndarray, gc: np.ndarray, c: np.ndarray, w_hh: np.ndarray, w_hr: Any,
                   workspace: np.ndarray, steps: _Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Any]:
    size = c.shape[1]
    gates, cells = workspace[..., : 4 * size], workspace[..., 4 * size :]
    previous = steps.before(cells, c)
    squashed = np.tanh(cells)
    if _fits_cells(c.shape[0], w_hh, w_hr, steps):
        from distgrad.kernels.recurrent import lstm_cell_backward

        made = np.empty(gates.shape, gates.dtype)
        above, gh, gc = (np.array(v, gates.dtype, order="C") for v in (gy, gh, gc))  # to be written to, and of one kind
        workspace = workspace if workspace.flags.carray else workspace.copy()
        for t in steps.backward():
            lstm_cell_backward(workspace[t], previous[t], squashed[t], above[t], gh, gc, made[t])
            products.matmul(made[t], w_hh, gh)
        return made, made, gh, gc, 0.0
    slope = gates * (1 - gates)
    candidate, out = gates[..., 2 * size : 3 * size], gates[..., 3 * size :]
    slope[..., 2 * size : 3 * size] = 1 - candidate * candidate
    to_cell = out * (1 - squashed * squashed)
    d = np.empty_like(slope)
    projected = isinstance(w_hr, np.ndarray)
    arrived = np.zeros_like(gy) if projected else None
    for t in steps.backward():
        live = steps.live(t)
        now = gy[t] + gh
        if arrived is not None:
            arrived[t] = _keep(live, now, 0)
            now = now @ w_hr
        to_c = gc + now * to_cell[t]
        dt = d[t]
        dt[:, :size] = to_c * candidate[t]
        dt[:, size : 2 * size] = to_c * previous[t]
        dt[:, 2 * size : 3 * size] = to_c * gates[t, :, :size]
        dt[:, 3 * size :] = now * squashed[t]
        dt *= slope[t]
        if live is not None:
            dt *= live
        gc = _keep(live, to_c * gates[t, :, size : 2 * size], gc)
        gh = _keep(live, products.matmul(dt, w_hh), gh)
    grad_projection = 0.0 if arrived is None else _weight_gradient(arrived, out * squashed)
    return d, d, gh, gc, grad_projection


def _gru_forward(pre: np.ndarray, h: np.ndarray, w_hh: np.ndarray, b_hh: Any, steps: _Steps) -> Arrays:
    size = w_hh.shape[1]
    y = np.zeros((*pre.shape[:2], size), pre.dtype)
    workspace = np.empty((*pre.shape[:2], 4 * size), pre.dtype)
    recurrent = w_hh.T
    for t in steps:
        again = products.matmul(h, recurrent)
        again += b_hh
        both = workspace[t, :, : 2 * size]
        np.add(pre[t, :, : 2 * size], again[:, : 2 * size], out=both)
        both *= 0.5
        np.tanh(both, out=both)
        both += 1.0
        both *= 0.5
        candidate = np.tanh(pre[t, :, 2 * size :] + both[:, :size] * again[:, 2 * size :])
        workspace[t, :, 2 * size : 3 * size] = candidate
        workspace[t, :, 3 * size :] = again[:, 2 * size :]
        new = candidate + both[:, size:] * (h - candidate)
        live = steps.live(t)
        h = _keep(live, new, h)
        y[t] = _keep(live, new, 0)
    return y, h, np.zeros(0, pre.dtype), workspace


def _gru_backward(gy: np.ndarray, gh: np.ndarray, before: np.ndarray, w_hh: np.ndarray, workspace: np.ndarray,
                  steps: _Steps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = w_hh.shape[1]
    reset, update, candidate, again = (workspace[..., k * size : (k + 1) * size] for k in range(4))
    to_candidate = (1 - update) * (1 - candidate * candidate)
    to_update = (before - candidate) * update * (1 - update)
    to_reset = again * reset * (1 - reset)
    d_in = np.empty((*workspace.shape[:2], 3 * size), workspace.dtype)
    d_again = np.empty_like(d_in)
    for t in steps.backward():
        live = steps.live(t)
        now = gy[t] + gh
        through = now * to_candidate[t]
        dt = d_again[t]
        dt[:, :size] = through * to_reset[t]
        dt[:, size : 2 * size] = now * to_update[t]
        dt[:, 2 * size :] = through * reset[t]
        d_in[t, :, 2 * size :] = through
        if live is not None:
            dt *= live
            d_in[t, :, 2 * size :] *= live
        gh = _keep(live, now * update[t] + products.matmul(dt, w_hh), gh)
    d_in[..., : 2 * size] = d_again[..., : 2 * size]
    return d_in, d_again, gh


# The ops ----------------------------------------------------------------------------------------------------


def _tanh_slope(y: np.ndarray) -> np.ndarray:
    return 1 - y * y


def _relu_slope(y: np.ndarray) -> np.ndarray:
    return (y > 0).astype(y.dtype)


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0, out=x)


def _tanh(x: np.ndarray) -> np.ndarray:
    return np.tanh(x, out=x)


_ACTIVATIONS = {"rnn_tanh": (_tanh, _tanh_slope), "rnn_relu": (_relu, _relu_slope)}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_WORKSPACE = {"lstm": 5, "gru": 4, "rnn_tanh": 0, "rnn_relu": 0}


def _time_first(x: np.ndarray, time_axis: int) -> np.ndarray:
    return x if time_axis == 0 else np.ascontiguousarray(x.swapaxes(0, 1))


def _forward(kind: str) -> Callable[..., Arrays]:
    def kernel(x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any, lengths: Any, *,
               time_axis: int, reverse: bool) -> Arrays:
        given = x.dtype
        x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr = map(_wide, (x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr))
        x = _time_first(x, time_axis)
        steps = _Steps(x.shape[0], reverse, lengths)
        bias = b_ih if kind == "gru" else b_ih + b_hh
        if kind == "lstm":  # powers of two: the same bits as if what arrives was multiplied
            scale = _halves(w_hh)
            w_ih, w_hh, bias = w_ih * scale[:, None], w_hh * scale[:, None], bias * scale
        together = kind == "lstm" and _fits_cells(x.shape[1], w_hh, w_hr, steps)
        pre = x if together else _product(x, w_ih.T)
        if isinstance(bias, np.ndarray) and not together:
            pre += bias
        if together:
            y, last, cell, workspace = _lstm_forward_together(x, h, c, w_ih, w_hh, bias, steps)
        elif kind == "lstm":
            y, last, cell, workspace = _lstm_forward(pre, h, c, w_hh, w_hr, steps)
        elif kind == "gru":
            y, last, cell, workspace = _gru_forward(pre, h, w_hh, b_hh, steps)
        else:
            y, last, cell, workspace = _rnn_forward(pre, h, _ACTIVATIONS[kind][0], w_hh, steps)
        y = y if time_axis == 0 else y.swapaxes(0, 1)
        return (*(v.astype(given, copy=False) for v in (y, last, cell)), _as_bytes(workspace))

    return kernel


def _as_bytes(workspace: np.ndarray) -> np.ndarray:
    width = workspace.shape[2] * workspace.itemsize
    return np.ascontiguousarray(workspace).reshape(-1).view(np.uint8).reshape(*workspace.shape[:2], width)


def _from_bytes(data: np.ndarray, kind: np.dtype) -> np.ndarray:
    width = data.shape[2] // kind.itemsize
    return np.ascontiguousarray(data).reshape(-1).view(kind).reshape(*data.shape[:2], width)


def _backward(kind: str) -> Callable[..., Arrays]:
    def kernel(gy: Any, gh: Any, gc: Any, y: Any, workspace: Any, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any,
               b_ih: Any, b_hh: Any, w_hr: Any, lengths: Any, *, time_axis: int, reverse: bool,
               input_gradient: bool) -> Arrays:
        given = x.dtype
        gy, gh, gc, y, x, h, c, w_ih, w_hh, w_hr = map(_wide, (gy, gh, gc, y, x, h, c, w_ih, w_hh, w_hr))
        gy, y, x = (_time_first(v, time_axis) for v in (gy, y, x))
        steps = _Steps(x.shape[0], reverse, lengths)
        before = steps.before(y, h)
        grad_c: Any = np.zeros(np.shape(c), x.dtype)
        grad_projection: Any = 0.0
        if kind == "lstm":
            d_in, d_again, grad_h, grad_c, grad_projection = _lstm_backward(
                gy, gh, gc, c, w_hh, w_hr, _from_bytes(workspace, x.dtype), steps)
        elif kind == "gru":
            d_in, d_again, grad_h = _gru_backward(gy, gh, before, w_hh, _from_bytes(workspace, x.dtype), steps)
        else:
            d_in, grad_h = _rnn_backward(gy, gh, _ACTIVATIONS[kind][1](y), w_hh, steps)
            d_again = d_in
        bias_in = d_in.sum((0, 1))
        bias_again = bias_in if d_again is d_in else d_again.sum((0, 1))
        grad_x = _product(d_in, w_ih) if input_gradient else np.zeros(x.shape, x.dtype)
        grads = (
            grad_x if time_axis == 0 else grad_x.swapaxes(0, 1), grad_h, grad_c, _weight_gradient(d_in, x),
            _weight_gradient(d_again, before), bias_in, bias_again, grad_projection,
        )
        return tuple(np.asarray(v).astype(given, copy=False) for v in grads)

    return kernel


def _size_of(value: Any) -> tuple[int, ...]:
    return () if is_number(value) else value.shape


def _check(name: str, ins: Sequence[Any]) -> None:
    kind = ins[0].dtype
    if not kind.is_floating_point:
        raise RuntimeError(f"{name}: input must have a floating-point dtype, got {kind.name}")
    for label, value in zip(INPUTS.split(), ins):
        if label != "lengths" and not is_number(value) and value.dtype is not kind:
            raise RuntimeError(
                f"{name}: input and parameter tensors are not the same dtype, found input tensor with {kind.name} and "
                f"{label} with {value.dtype.name}"
            )


def _forward_meta(kind: str) -> Callable[..., MetaResult]:
    def meta(x: TensorMeta, h: TensorMeta, c: Any, w_ih: TensorMeta, w_hh: TensorMeta, b_ih: Any, b_hh: Any, w_hr: Any,
             lengths: Any, *, time_axis: int, reverse: bool) -> MetaResult:
        _check(kind, (x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, lengths))
        steps, rows = x.shape[time_axis], x.shape[1 - time_axis]
        size = w_hh.shape[0] // GATES[kind]
        if w_ih.shape[1] != x.shape[2]:
            raise RuntimeError(f"{kind}: input has {x.shape[2]} features, weights {w_ih.shape} take {w_ih.shape[1]}")
        itemsize = max(x.dtype.itemsize, 4)
        width = h.shape[1]
        y_shape = (steps, rows, width) if time_axis == 0 else (rows, steps, width)
        metas = (
            TensorMeta.of(y_shape, x.dtype), TensorMeta.of((rows, width), x.dtype),
            TensorMeta.of((rows, size) if kind == "lstm" else (0,), x.dtype),
            TensorMeta.of((steps, rows, _WORKSPACE[kind] * size * itemsize), dtypes.uint8),
        )
        return metas, None

    return meta


def _input_entries(ins: Sequence[Any], time_axis: int) -> tuple[int | None, ...]:
    """Gives the batch dim of each of the op's inputs, None for weights and numbers."""
    c, lengths = ins[2], ins[-1]
    return (1 - time_axis, 0, None if is_number(c) else 0, *(None,) * 5, None if is_number(lengths) else 0)


def _forward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    axis = attrs["time_axis"]
    yield Row(_input_entries(ins, axis), (1 - axis, 0, None if outs[2].shape == (0,) else 0, 1))


def _backward_meta(gy: Any, gh: Any, gc: Any, y: Any, workspace: Any, *ins: Any, **attrs: Any) -> MetaResult:
    kind = ins[0].dtype
    shapes = [_size_of(v) for v in ins[:8]]
    # Both biases' gradients are sums that cost nothing; they have a shape also where the layer has no bias.
    shapes[5] = shapes[6] = (ins[4].shape[0],)
    return tuple(TensorMeta.of(s, kind) for s in shapes), None


def _backward_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    axis = attrs["time_axis"]
    own = _input_entries(ins[5:], axis)
    yield Row((1 - axis, 0, own[2], 1 - axis, 1, *own),
              (1 - axis, 0, own[2], "sum", "sum", "sum", "sum", "sum" if not is_number(ins[12]) else None))


def _rule(kind: str, backward: Op) -> Callable[..., list[Any]]:
    def rule(g: Any, y: Any, workspace: Any, inputs: tuple[Any, ...], needs: tuple[bool, ...], time_axis: int,
             reverse: bool) -> list[Any]:
        if mode.enabled:
            # Someone may differentiate again: step by step, with ops that have rules of their own.
            from distgrad.functions.recurrent import stepwise_gradients

            return stepwise_gradients(kind, inputs, g[:3], needs, time_axis, reverse)
        gy, gh, gc = g[:3]
        found = backward(gy, gh, gc if kind == "lstm" else 0.0, y, workspace, *inputs, time_axis=time_axis,
                         reverse=reverse, input_gradient=needs[0])
        return [v if needed else None for v, needed in zip((*found, None), needs)]

    return rule


_BACKWARD_INPUTS = "gy gh gc y workspace " + INPUTS
_BACKWARD_OUTPUTS = "grad_x grad_h grad_c grad_w_ih grad_w_hh grad_b_ih grad_b_hh grad_w_hr"


def _recurrent(kind: str) -> Op:
    backward = Op(f"{kind}_backward", _backward(kind), meta=_backward_meta, inputs=_BACKWARD_INPUTS,
                  outputs=_BACKWARD_OUTPUTS, rows=_backward_rows)
    return Op(kind, _forward(kind), meta=_forward_meta(kind), inputs=INPUTS, outputs="y last cell workspace",
              rows=_forward_rows, joint_vjp=_rule(kind, backward))


lstm = _recurrent("lstm")
gru = _recurrent("gru")
rnn_tanh = _recurrent("rnn_tanh")
rnn_relu = _recurrent("rnn_relu")
