"""Recurrent layers step by step, written with differentiable functions: what higher derivatives of the ops use.

Invariant: values and first derivatives equal those of `distgrad.ops.recurrent`, which computes a sequence in one op.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad.functions.contraction import linear
from distgrad.functions.movement import stack
from distgrad.op import is_tensor
from distgrad.ops.elementwise import where

Tensor = Any


def _bias(value: Any) -> Any:
    return value if is_tensor(value) else None


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any,
              w_hr: Any) -> tuple[Tensor, Tensor]:
    """Gives the next (h, c) of an LSTM for a step's input (B, I) (PyTorch: torch.nn.LSTM)."""
    gates = linear(x, w_ih, _bias(b_ih)) + linear(h, w_hh, _bias(b_hh))
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (linear(h, w_hr) if is_tensor(w_hr) else h), c


def gru_step(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    """Gives the next h of a GRU for a step's input (B, I) (PyTorch: torch.nn.GRU)."""
    in_r, in_z, in_n = linear(x, w_ih, _bias(b_ih)).chunk(3, 1)
    again_r, again_z, again_n = linear(h, w_hh, _bias(b_hh)).chunk(3, 1)
    candidate = (in_n + (in_r + again_r).sigmoid() * again_n).tanh()
    return candidate + (in_z + again_z).sigmoid() * (h - candidate)


def rnn_step(kind: str, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any, b_hh: Any) -> Tensor:
    """Gives the next h of a plain recurrent layer for a step's input (B, I) (PyTorch: torch.nn.RNN)."""
    total = linear(x, w_ih, _bias(b_ih)) + linear(h, w_hh, _bias(b_hh))
    return total.tanh() if kind == "rnn_tanh" else total.relu()


def stepwise(kind: str, inputs: Sequence[Any], time_axis: int, reverse: bool) -> tuple[Tensor, Tensor, Any]:
    """Gives `y`, `last` and `cell` of the op `kind` (None: no cell) for its inputs."""
    x, h, c, w_ih, w_hh, b_ih, b_hh, w_hr, lengths = inputs
    steps = x.unbind(time_axis)
    found: list[Any] = [None] * len(steps)
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        new_c = c
        if kind == "lstm":
            new, new_c = lstm_step(steps[t], h, c, w_ih, w_hh, b_ih, b_hh, w_hr)
        elif kind == "gru":
            new = gru_step(steps[t], h, w_ih, w_hh, b_ih, b_hh)
        else:
            new = rnn_step(kind, steps[t], h, w_ih, w_hh, b_ih, b_hh)
        if is_tensor(lengths):
            live = (lengths > t).unsqueeze(1)
            found[t] = where(live, new, 0.0)
            new = where(live, new, h)
            new_c = where(live, new_c, c) if kind == "lstm" else c
        else:
            found[t] = new
        h, c = new, new_c
    return stack(found, time_axis), h, c if kind == "lstm" else None


def stepwise_gradients(kind: str, inputs: Sequence[Any], cotangents: Sequence[Any], needs: Sequence[bool],
                       time_axis: int, reverse: bool) -> list[Any]:
    """Gives the cotangents of a recurrent op's inputs (None where none is needed) as differentiable tensors."""
    from distgrad.tensor import grad  # a layer above this one

    # Clones: an input that is computed from another one must not pass its gradient on to it here.
    own = [value.clone() if needed else value for value, needed in zip(inputs, needs)]
    outs = stepwise(kind, own, time_axis, reverse)
    pairs = [(out, g) for out, g in zip(outs, cotangents) if out is not None and out.requires_grad]
    wanted = [value for value, needed in zip(own, needs) if needed]
    found = iter(grad([out for out, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True))
    return [next(found) if needed else None for needed in needs]
