"""Recurrent layers: ``RNN``, ``LSTM``, ``GRU`` and their cells.

Invariant: each layer and direction is one op over the whole sequence (see ``distgrad.ops.recurrent``), and rows of the
batch never mix, so a batch sharded by rows is computed without communication.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import distgrad as dg
from distgrad.functions.dropout import dropout_in_order
from distgrad.nn import init
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.nn.utils.rnn import PackedSequence, packed_positions, packed_rows, sequence_lengths
from distgrad.ops import recurrent as ops
from distgrad.tensor import Tensor
from distgrad.warn import warn_user

_OPS = {"LSTM": ops.lstm, "GRU": ops.gru, "RNN_TANH": ops.rnn_tanh, "RNN_RELU": ops.rnn_relu}
_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _or_zero(value: Tensor | None) -> Any:
    return 0.0 if value is None else value


class RNNBase(Module):
    """What ``RNN``, ``LSTM`` and ``GRU`` share: sizes, weights and the walk over layers and directions.

    Source: torch.nn.RNNBase. Weights start uniform in ``+-1/sqrt(hidden_size)``.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if mode not in _OPS:
            raise ValueError("Unrecognized RNN mode: " + mode)
        _check_options(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        directions = 2 if bidirectional else 1
        state = proj_size if proj_size > 0 else hidden_size
        rows = _GATES[mode] * hidden_size
        self._names: list[list[str]] = []
        for layer in range(num_layers):
            columns = input_size if layer == 0 else state * directions
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, columns), "weight_hh": (rows, state)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            if proj_size > 0:
                shapes["weight_hr"] = (proj_size, hidden_size)
            for suffix in ("", "_reverse")[:directions]:
                names = {kind: f"{kind}_l{layer}{suffix}" for kind in shapes}
                for kind, shape in shapes.items():
                    setattr(self, names[kind], Parameter(dg.empty(shape, device=device, dtype=dtype)))
                self._names.append(list(names.values()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all weights and biases anew."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def flatten_parameters(self) -> None:
        """Does nothing: it arranges memory for a GPU library."""

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The weights of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if self.proj_size:
            parts.append(f"proj_size={self.proj_size}")
        if self.num_layers != 1:
            parts.append(f"num_layers={self.num_layers}")
        if self.bias is not True:
            parts.append(f"bias={self.bias}")
        if self.batch_first is not False:
            parts.append(f"batch_first={self.batch_first}")
        if self.dropout:
            parts.append(f"dropout={self.dropout}")
        if self.bidirectional is not False:
            parts.append(f"bidirectional={self.bidirectional}")
        return ", ".join(parts)

    # -- checks ------------------------------------------------------------------------------------------------

    def _check_input(self, input: Tensor, dims: int) -> None:
        weight = self.weight_ih_l0
        if input.dtype is not weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )
        if input.ndim != dims:
            raise RuntimeError(f"input must have {dims} dimensions, got {input.ndim}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )

    def _check_state(self, state: Tensor, rows: int, width: int, label: str) -> None:
        expected = (self.num_layers * (2 if self.bidirectional else 1), rows, width)
        if tuple(state.shape) != expected:
            raise RuntimeError(f"Expected {label} size {expected}, got {list(state.shape)}")

    def _check_batched(self, input: Tensor, states: tuple[Tensor, ...]) -> None:
        name, is_lstm = self._get_name(), self.mode == "LSTM"
        if input.ndim not in (2, 3):
            what = f"{input.ndim}D instead" if is_lstm else f"{input.ndim}D tensor instead"
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {what}")
        if all(state.ndim == input.ndim for state in states):
            return
        batched = "batched 3-D" if input.ndim == 3 else "unbatched 2-D"
        if is_lstm:
            got = ", ".join(f"{state.ndim}-D" for state in states)
            raise RuntimeError(
                f"For {batched} input, hx and cx should also be {input.ndim}-D but got ({got}) tensors"
            )
        raise RuntimeError(
            f"For {batched} input, hx should also be {input.ndim}-D but got {states[0].ndim}-D tensor"
        )

    # -- forward -----------------------------------------------------------------------------------------------

    def _run(self, input: Any, states: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...]]:
        """Gives the output and the last states (h, or h and c)."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, states)
        self._check_batched(input, states)
        batched = input.ndim == 3
        if not batched:
            input = input.unsqueeze(1)
            states = tuple(state.unsqueeze(1) for state in states)
        self._check_input(input, 3)
        time_axis = 1 if self.batch_first and batched else 0
        if input.shape[time_axis] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")

        def drop(x: Tensor) -> Tensor:
            return dropout_in_order(x, self.dropout, self.training, (time_axis, 1 - time_axis, 2))

        output, found = self._layers(input, states, time_axis, 0.0, drop)
        if batched:
            return output, found
        return output.squeeze(1), tuple(state.squeeze(1) for state in found)

    def _run_packed(self, input: PackedSequence, states: tuple[Tensor, ...]) -> tuple[Any, tuple[Tensor, ...]]:
        data, sizes, order, back = input
        self._check_input(data, 2)
        if order is not None:
            states = tuple(state.index_select(1, order) for state in states)
        rows = dg.from_numpy(packed_rows(sizes))
        step, row = (dg.from_numpy(places) for places in packed_positions(sizes))

        def drop(x: Tensor) -> Tensor:
            return dg.nn.functional.dropout(x[step, row], self.dropout, self.training)[rows]

        output, found = self._layers(data[rows], states, 0, dg.from_numpy(sequence_lengths(sizes)), drop)
        output = output[step, row]
        if back is not None:
            found = tuple(state.index_select(1, back) for state in found)
        return PackedSequence(output, sizes, order, back), found

    def _layers(self, x: Tensor, states: tuple[Tensor, ...], time_axis: int, lengths: Any,
                drop: Callable[[Tensor], Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Runs all layers, with `drop` between them, where torch draws masks step by step or over packed rows."""
        rows = x.shape[1 - time_axis]
        is_lstm = self.mode == "LSTM"
        width = self.proj_size or self.hidden_size
        count = self.num_layers * (2 if self.bidirectional else 1)
        if not states:
            h = dg.zeros(rows, width, dtype=x.dtype)
            c = dg.zeros(rows, self.hidden_size, dtype=x.dtype) if is_lstm and width != self.hidden_size else h
            starts = [(h, c)] * count
        else:
            self._check_state(states[0], rows, width, "hidden[0]" if is_lstm else "hidden")
            if is_lstm:
                self._check_state(states[1], rows, self.hidden_size, "hidden[1]")
            starts = list(zip(states[0].unbind(0), states[-1].unbind(0)))
        last: list[Tensor] = []
        cells: list[Tensor] = []
        for layer in range(self.num_layers):
            outputs = []
            for reverse in (False, True)[: 2 if self.bidirectional else 1]:
                at = len(last)
                names = self._names[at]
                w_ih, w_hh = getattr(self, names[0]), getattr(self, names[1])
                b_ih, b_hh = (getattr(self, n) for n in names[2:4]) if self.bias else (None, None)
                w_hr = getattr(self, names[-1]) if self.proj_size else None
                h, c = starts[at]
                y, h, c, _ = _OPS[self.mode](
                    x, h, c if is_lstm else 0.0, w_ih, w_hh, _or_zero(b_ih), _or_zero(b_hh), _or_zero(w_hr), lengths,
                    time_axis=time_axis, reverse=reverse,
                )
                outputs.append(y)
                last.append(h)
                cells.append(c)
            x = outputs[0] if len(outputs) == 1 else dg.cat(outputs, 2)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = drop(x)
        found = (dg.stack(last, 0),) if not is_lstm else (dg.stack(last, 0), dg.stack(cells, 0))
        return x, found


def _check_options(input_size: Any, hidden_size: Any, num_layers: int, bias: Any, batch_first: Any, dropout: Any,
                   proj_size: int) -> None:
    if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )
    if dropout > 0 and num_layers == 1:
        warn_user(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers "
            f"greater than 1, but got dropout={dropout} and num_layers={num_layers}",
        )
    for name, value in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(size, int):
            raise TypeError(f"{name} should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


def _refuse_projection(options: dict[str, Any]) -> None:
    if "proj_size" in options:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")


class RNN(RNNBase):
    """Plain recurrent layers: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``, or relu by ``nonlinearity``.

    Input ``(T, B, input_size)``, ``(B, T, input_size)`` when ``batch_first``, ``(T, input_size)`` or a PackedSequence;
    returns the output ``(T, B, directions * hidden_size)`` and the last states ``(layers * directions, B,
    hidden_size)``. Source: torch.nn.RNN.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", *args: Any,
        **kwargs: Any,
    ) -> None:
        _refuse_projection(kwargs)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, *args, **kwargs)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, states = self._run(input, () if hx is None else (hx,))
        return output, states[0]


class LSTM(RNNBase):
    """Long short-term memory layers with gates i, f, g, o, and a projection of the output when ``proj_size`` > 0.

    Input as for ``RNN``; returns the output and the last ``(h, c)``. Source: torch.nn.LSTM.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        output, states = self._run(input, () if hx is None else tuple(hx))
        return output, (states[0], states[1])


class GRU(RNNBase):
    """Gated recurrent layers with gates r, z, n.

    Input as for ``RNN``; returns the output and the last states. Source: torch.nn.GRU.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse_projection(kwargs)
        super().__init__("GRU", *args, **kwargs)

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        output, states = self._run(input, () if hx is None else (hx,))
        return output, states[0]


# Cells: one step --------------------------------------------------------------------------------------------


class RNNCellBase(Module):
    """What the cells share: sizes, weights and one step for ``(B, input_size)`` or ``(input_size,)``."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(dg.empty((rows, input_size), device=device, dtype=dtype))
        self.weight_hh = Parameter(dg.empty((rows, hidden_size), device=device, dtype=dtype))
        if bias:
            self.bias_ih = Parameter(dg.empty(rows, device=device, dtype=dtype))
            self.bias_hh = Parameter(dg.empty(rows, device=device, dtype=dtype))
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        return text if nonlinearity == "tanh" else f"{text}, nonlinearity={nonlinearity}"

    def reset_parameters(self) -> None:
        """Draws weights and biases anew, uniform in ``+-1/sqrt(hidden_size)``."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(self, mode: str, input: Tensor, states: tuple[Tensor, ...] | None, labels: tuple[str, ...]) -> tuple:
        name = self._get_name()
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        batched = input.ndim == 2
        x = input if batched else input.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}")
        if states is None:
            states = (dg.zeros(x.shape[0], self.hidden_size, dtype=x.dtype),) * len(labels)
        else:
            for label, state in zip(labels, states):
                if state.ndim not in (1, 2):
                    raise ValueError(f"{name}: Expected {label} to be 1D or 2D, got {state.ndim}D instead")
            states = tuple(s if s.ndim == 2 else s.unsqueeze(0) for s in states)
            for label, state in zip(("hidden0", "hidden1"), states):
                if state.shape[0] != x.shape[0]:
                    raise RuntimeError(
                        f"Input batch size {x.shape[0]} doesn't match {label} batch size {state.shape[0]}"
                    )
                if state.shape[1] != self.hidden_size:
                    raise RuntimeError(
                        f"{label} has inconsistent hidden_size: got {state.shape[1]}, expected {self.hidden_size}"
                    )
        _, h, c, _ = _OPS[mode](
            x.unsqueeze(0), states[0], states[1] if mode == "LSTM" else 0.0, self.weight_ih, self.weight_hh,
            _or_zero(self.bias_ih), _or_zero(self.bias_hh), 0.0, 0.0, time_axis=0, reverse=False,
        )
        found = (h, c) if mode == "LSTM" else (h,)
        return found if batched else tuple(s.squeeze(0) for s in found)


class RNNCell(RNNCellBase):
    """One step of a plain recurrent layer: ``h' = tanh(W_ih x + b_ih + W_hh h + b_hh)``. Source: torch.nn.RNNCell."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        mode = f"RNN_{self.nonlinearity.upper()}"
        return self._step(mode, input, None if hx is None else (hx,), ("hidden",))[0]


class LSTMCell(RNNCellBase):
    """One step of an LSTM layer; takes and returns ``(h, c)``. Source: torch.nn.LSTMCell."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        found = self._step("LSTM", input, None if hx is None else tuple(hx), ("hx[0]", "hx[1]"))
        return found[0], found[1]


class GRUCell(RNNCellBase):
    """One step of a GRU layer. Source: torch.nn.GRUCell."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step("GRU", input, None if hx is None else (hx,), ("hidden",))[0]
