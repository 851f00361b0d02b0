"""Batches of sequences of different lengths: padded, packed, and the way between.

Invariant: lengths and orders are known to the driver (packing reads the lengths once), so packing a tensor moves rows
but never waits for values. Source of all definitions: torch.nn.utils.rnn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import distgrad as dg
from distgrad.tensor import Tensor

__all__ = [
    "PackedSequence", "invert_permutation", "pack_padded_sequence", "pack_sequence", "pad_packed_sequence",
    "pad_sequence", "unpack_sequence", "unpad_sequence",
]


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """The steps of several sequences one after the other: all first steps, all second steps, and so on.

    `data` is (total steps, *), `batch_sizes` (longest length,) int64 says how many sequences have each step;
    `sorted_indices` (B,) is the order by falling length the sequences were put in (None: they came that way). Made by
    `pack_padded_sequence` and `pack_sequence`, not by hand. Source: torch.nn.utils.rnn.PackedSequence.
    """

    __slots__ = ()

    def __new__(cls, data: Any, batch_sizes: Any = None, sorted_indices: Any = None,
                unsorted_indices: Any = None) -> PackedSequence:
        if batch_sizes is None:
            if not isinstance(data, (list, tuple)) or len(data) != 2:
                raise AssertionError("Expected data to be a list or tuple of length 2")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """Gives the sequence with its data converted as `Tensor.to` does; itself when nothing changes."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self._replace_data(data)

    def _replace_data(self, data: Tensor) -> PackedSequence:
        return type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    def cpu(self) -> PackedSequence:
        """Gives the sequence itself: distgrad computes on CPUs only."""
        return self

    def double(self) -> PackedSequence:
        """Gives the data in float64."""
        return self.to(dg.float64)

    def float(self) -> PackedSequence:
        """Gives the data in float32."""
        return self.to(dg.float32)

    def half(self) -> PackedSequence:
        """Gives the data in float16."""
        return self.to(dg.float16)

    def long(self) -> PackedSequence:
        """Gives the data in int64."""
        return self.to(dg.int64)

    def int(self) -> PackedSequence:
        """Gives the data in int32."""
        return self.to(dg.int32)

    @property
    def is_cuda(self) -> bool:
        """Always False."""
        return False

    def is_pinned(self) -> bool:
        """Gives False: there is no other device to pin memory for."""
        return False


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Gives the inverse of a permutation (n,) of int64; None for None."""
    if permutation is None:
        return None
    return dg.from_numpy(np.argsort(permutation.numpy(), kind="stable").astype(np.int64))


def sequence_lengths(batch_sizes: Tensor) -> np.ndarray:
    """Gives the length of each sequence, in packed order, from the number of sequences at each step."""
    sizes = batch_sizes.numpy()
    count = int(sizes[0]) if sizes.size else 0
    return (sizes[:, None] > np.arange(count)).sum(0).astype(np.int64)


def packed_positions(batch_sizes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Gives the step and the sequence of each row of packed data."""
    sizes = batch_sizes.numpy()
    return np.repeat(np.arange(sizes.size), sizes), np.concatenate([np.arange(n) for n in sizes])


def packed_rows(batch_sizes: Tensor) -> np.ndarray:
    """Gives, for (step, sequence), the row of packed data; row 0 where a sequence has no such step."""
    sizes = batch_sizes.numpy()
    starts = np.cumsum(sizes) - sizes
    columns = np.arange(int(sizes[0]))
    return np.where(columns < sizes[:, None], starts[:, None] + columns, 0)


def _lengths(lengths: Any) -> np.ndarray:
    if isinstance(lengths, Tensor):
        return lengths.detach().numpy().astype(np.int64)
    return np.asarray([int(n) for n in lengths], np.int64)


def pack_padded_sequence(input: Tensor, lengths: Any, batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Packs padded sequences (T, B, *), or (B, T, *) when `batch_first`, of the given lengths (B,).

    Lengths must fall unless `enforce_sorted` is False; RuntimeError for lengths that do not fit or are not positive.
    """
    counts = _lengths(lengths)
    steps, rows = (input.shape[1], input.shape[0]) if batch_first else (input.shape[0], input.shape[1])
    if counts.shape != (rows,):
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {counts.size} (batch_size={rows})"
        )
    if counts.size and counts.min() <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    order = None
    if not enforce_sorted:
        order = np.argsort(-counts, kind="stable")
        counts = counts[order]
    elif np.any(np.diff(counts) > 0):
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    if counts.size and counts[0] > steps:
        raise RuntimeError(f"Expected lengths of at most {steps}, the padded length of the input, but got {counts[0]}")
    longest = int(counts[0]) if counts.size else 0
    sizes = dg.from_numpy((counts[None, :] > np.arange(longest)[:, None]).sum(1).astype(np.int64))
    step, row = packed_positions(sizes)
    if order is not None:
        row = order[row]
    places = (dg.from_numpy(row), dg.from_numpy(step)) if batch_first else (dg.from_numpy(step), dg.from_numpy(row))
    return PackedSequence(input[places], sizes, None if order is None else dg.from_numpy(order))


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """Gives (T, B, *) sequences filled with `padding_value` and their lengths (B,), in the order before packing.

    ValueError when `total_length`, the T wanted, is less than the longest length.
    """
    longest = sequence.batch_sizes.shape[0]
    steps = longest
    if total_length is not None:
        if total_length < longest:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, but got "
                f"total_length={total_length} and max sequence length being {longest}"
            )
        steps = total_length
    counts = sequence_lengths(sequence.batch_sizes)
    rows = packed_rows(sequence.batch_sizes)
    rows = np.concatenate([rows, np.zeros((steps - longest, rows.shape[1]), rows.dtype)])
    if sequence.unsorted_indices is not None:
        order = sequence.unsorted_indices.numpy()
        counts, rows = counts[order], rows[:, order]
    live = np.arange(steps)[:, None] < counts
    if batch_first:
        rows, live = np.ascontiguousarray(rows.T), np.ascontiguousarray(live.T)
    padded = sequence.data[dg.from_numpy(rows)]
    mask = dg.from_numpy(live.reshape(*live.shape, *(1,) * (padded.ndim - 2)))
    return padded.masked_fill(mask.logical_not(), padding_value), dg.from_numpy(counts)


def pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Stacks sequences (T_i, *) into (T, B, *), or (B, T, *) when `batch_first`, T the longest length.

    `padding_side` "left" puts the padding first. RuntimeError when `sequences` is not iterable or is empty.
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    if padding_side not in ("left", "right"):
        raise RuntimeError(f'pad_sequence: Expected padding_side to be one of left or right, but got "{padding_side}".')
    given = list(sequences.unbind(0)) if isinstance(sequences, Tensor) else list(sequences)
    if not given:
        raise RuntimeError("pad_sequence: received an empty list of sequences")
    steps = max(s.shape[0] for s in given)
    padded = []
    for sequence in given:
        missing = steps - sequence.shape[0]
        widths = [0, 0] * (sequence.ndim - 1) + ([missing, 0] if padding_side == "left" else [0, missing])
        padded.append(dg.nn.functional.pad(sequence, widths, value=padding_value) if missing else sequence)
    return dg.stack(padded, 0 if batch_first else 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """Gives the sequences of a padded batch (T, B, *), or (B, T, *) when `batch_first`, each of its own length."""
    parts = padded_sequences.unbind(0 if batch_first else 1)
    return [part[: int(n)] for part, n in zip(parts, _lengths(lengths))]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Packs sequences (T_i, *), of falling length unless `enforce_sorted` is False."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Gives the sequences that were packed, in their order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
