"""All-reduce of two ranks over the network: blocks that are under way in both directions at once.

Of a small bucket both send all. Of a larger one each sends the other's half, reduces its own as it arrives, and sends that
back, which the other receives straight into its result.

Invariant: the bytes of a block are written over only after the other rank has answered it, and a rank reads whatever has
come before it waits to send, so neither can block the other.
"""

from __future__ import annotations

import numpy as np

from distgrad.runtime.collectives import Payload, Reduction, flat_bytes
from distgrad.runtime.tcp import Check, Expected, Network

BLOCK_BYTES = 2 << 20
"""Bytes of a bucket that travel as one frame. A bucket of no more takes one trip instead of two."""


def all_reduce(network: Network, sequence: int, work: Reduction, code: int, check: Check) -> int:
    """Reduces a bucket together with the one other rank, from round `sequence` on; returns the rounds taken."""
    (other,) = network.peers
    rank, total, itemsize = network.rank, work.total, work.dtype.itemsize
    received: list[np.ndarray | None] = [None, None]

    if total * itemsize <= BLOCK_BYTES:

        def use_all(_: int, frame: np.ndarray) -> None:
            received[other] = frame
            work.reduce_frames(received, 0, total)

        mine = work.to_send(0, total)
        network.converse(other, [(sequence, mine)], [Expected(sequence, total * itemsize, code)], code, use_all, check)
        return 1

    middle = total // 2
    halves = ((0, middle), (middle, total))
    block = BLOCK_BYTES // itemsize
    count = -(-(total - middle) // block)

    def part(owner: int, number: int) -> tuple[int, int]:
        first, last = halves[owner]
        return min(first + number * block, last), min(first + (number + 1) * block, last)

    def length(owner: int, number: int) -> int:
        start, stop = part(owner, number)
        return (stop - start) * itemsize

    gathered: list[tuple[int, int, np.ndarray | None]] = []
    for number in range(count):
        start, stop = part(other, number)
        if start < stop:
            pieces = work.result.pieces(start, stop)
            gathered.append((number, length(other, number), flat_bytes(pieces[0]) if len(pieces) == 1 else None))

    def use(round_number: int, frame: np.ndarray) -> tuple[int, Payload] | None:
        number = round_number - sequence
        if number < count:  # the other's block of the own half: reduce it and send it back
            start, stop = part(rank, number)
            received[other] = frame
            work.reduce_frames(received, start, stop)
            return sequence + count + number, work.result.pieces(start, stop)
        if gathered[number - count][2] is None:  # not received in place, because it belongs to several arrays
            work.keep_frame(frame, *part(other, number - count))
        return None

    network.converse(
        other,
        [(sequence + n, work.own.pieces(*part(other, n))) for n in range(count) if length(other, n)],
        [
            *(Expected(sequence + n, length(rank, n), code) for n in range(count) if length(rank, n)),
            *(Expected(sequence + count + n, size, code, into) for n, size, into in gathered),
        ],
        code,
        use,
        check,
    )
    return 2 * count
