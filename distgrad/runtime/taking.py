"""Taking rows of a sharded array by a replicated index: a collective of its own, which moves the rows asked for.

Invariant: as in `collectives`: what one rank sends is exactly what the other expects.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np

from distgrad.runtime.collectives import (
    Exchange,
    Offsets,
    Payload,
    Received,
    check_block,
    check_offsets,
    payload_bytes,
)


def take_rows(
    rank: int, world_size: int, block: np.ndarray, offsets: Offsets, index: np.ndarray, out_offsets: Offsets
) -> Generator[Exchange, Received, np.ndarray]:
    """Returns rows index[out_offsets[rank]:out_offsets[rank + 1]] of an array sharded along axis 0 at `offsets`.

    `block`: own rows, (offsets[rank + 1] - offsets[rank], ...). `index`: int64 (N,), the same on all ranks, non-negative.
    Only the rows asked for move, one frame per pair of ranks. Raises IndexError for an index outside the array.
    """
    rows = offsets[-1]
    check_offsets("take_rows", offsets, world_size, rows)
    check_offsets("take_rows", out_offsets, world_size, index.shape[0])
    check_block("take_rows", rank, block, (offsets[rank + 1] - offsets[rank], *block.shape[1:]))
    wrong = (index < 0) | (index >= rows)
    if wrong.any():
        position = int(wrong.argmax())
        raise IndexError(
            f"take_rows: index {int(index[position])} at position {position} is out of range for {rows} rows; "
            f"allowed are 0 to {rows - 1}"
            if rows
            else f"take_rows: index {int(index[position])} at position {position}, but there are no rows to take"
        )
    row_bytes = math.prod(block.shape[1:]) * block.itemsize
    first, last = offsets[rank], offsets[rank + 1]

    def rows_for(destination: int) -> np.ndarray:
        wanted = index[out_offsets[destination] : out_offsets[destination + 1]]
        return block[wanted[(wanted >= first) & (wanted < last)] - first]

    mine = index[out_offsets[rank] : out_offsets[rank + 1]]
    send: list[Payload | None] = [rows_for(d) if d != rank else None for d in range(world_size)]
    holds = [(mine >= offsets[s]) & (mine < offsets[s + 1]) for s in range(world_size)]
    expect = [int(np.count_nonzero(holds[s])) * row_bytes if s != rank else 0 for s in range(world_size)]
    taken = np.empty((mine.shape[0], *block.shape[1:]), block.dtype)
    received = yield Exchange([p if payload_bytes(p) else None for p in send], expect, block.dtype)
    taken[holds[rank]] = block[mine[holds[rank]] - first]
    for source, frame in enumerate(received):
        if frame is not None:
            taken[holds[source]] = frame.view(block.dtype).reshape(-1, *block.shape[1:])
    return taken
