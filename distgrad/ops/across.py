"""What kernels that work across the rows of all workers share: exchanges of whole arrays.

Invariant: every rank knows before a round how much each other rank sends, by the specs or by counts exchanged first,
and what a round gives back is the receiver's own copy, in rank order, its own part included.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from distgrad.placement import Shard

Arrays = tuple[np.ndarray, ...]
Rounds = Generator[Any, Any, Any]


def sharded_dim(tensor: Any) -> int | None:
    """Gives the dim that a tensor is sharded along; None for one that is not."""
    placement = getattr(tensor, "placement", None)
    return placement.dim if isinstance(placement, Shard) else None


def offsets_of(spec: Any) -> tuple[int, ...]:
    """Gives the row offsets of a sharded spec."""
    return spec.placement.offsets


def block_sizes(spec: Any) -> list[int]:
    """Gives how many rows of a sharded spec each rank holds."""
    offsets = offsets_of(spec)
    return [b - a for a, b in zip(offsets, offsets[1:])]


def owners(spec: Any, rows: np.ndarray) -> np.ndarray:
    """Gives the rank that holds each of the rows, whose numbers lie inside the sharded dim."""
    return np.searchsorted(np.asarray(offsets_of(spec)[1:]), rows, side="right")


def _pack(arrays: Arrays) -> Any:
    from distgrad.runtime.collectives import flat_bytes

    parts = tuple(flat_bytes(a) for a in arrays if a.nbytes)
    return parts or None


def _unpack(frame: np.ndarray | None, like: Arrays, count: int) -> Arrays:
    """Gives the arrays of a frame: shaped as those of `like` but for `count` rows along axis 0."""
    found, position = [], 0
    for array in like:
        shape = (count, *array.shape[1:])
        size = int(np.prod(shape)) * array.itemsize
        raw = np.empty(0, np.uint8) if frame is None else np.array(frame[position : position + size])
        found.append(raw.view(array.dtype).reshape(shape))
        position += size
    return tuple(found)


def send_counted(context: Any, parts: Sequence[Arrays], counts: Sequence[int]) -> Rounds:
    """Sends parts[d] to rank d, where `counts` says how many rows come from each rank; gives the parts in rank order.

    All parts have arrays of the same dtypes and trailing shapes; the arrays of one part have equally many rows.
    """
    from distgrad.runtime.collectives import Exchange

    rank, world_size = context.rank, context.world_size
    row_bytes = sum(int(np.prod(a.shape[1:])) * a.itemsize for a in parts[rank])
    received = yield Exchange(
        [None if d == rank else _pack(parts[d]) for d in range(world_size)],
        [0 if s == rank else counts[s] * row_bytes for s in range(world_size)],
    )
    return [parts[rank] if s == rank else _unpack(received[s], parts[rank], counts[s]) for s in range(world_size)]


def to_all(context: Any, *arrays: np.ndarray) -> Rounds:
    """Sends arrays of the same shapes on every rank to all; gives a tuple of them per rank."""
    rows = tuple(np.asarray(a)[None] for a in arrays)
    found = yield from send_counted(context, [rows] * context.world_size, [1] * context.world_size)
    return [tuple(a[0] for a in part) for part in found]


def from_below(context: Any, *arrays: np.ndarray, above: bool = False) -> Rounds:
    """Gives the arrays of every lower (or higher) rank, of the same shapes on every rank."""
    rank, world_size = context.rank, context.world_size
    rows = tuple(np.asarray(a)[None] for a in arrays)
    nothing = tuple(a[:0] for a in rows)

    def gives(giver: int, taker: int) -> bool:
        return giver > taker if above else giver < taker

    parts = [rows if d == rank or gives(rank, d) else nothing for d in range(world_size)]
    found = yield from send_counted(context, parts, [int(s == rank or gives(s, rank)) for s in range(world_size)])
    return [tuple(a[0] for a in part) for part in (found[rank + 1 :] if above else found[:rank])]


def send(context: Any, parts: Sequence[Arrays], error: Exception | None = None) -> Rounds:
    """Sends parts[d] to rank d after telling how many rows it has; gives the parts in rank order.

    With an `error` on any rank, all ranks raise the first rank's: its type and text go along with the counts.
    """
    counts = np.array([*(len(p[0]) for p in parts), -1 if error is None else 0], np.int64)
    told = yield from to_all(context, counts)
    if any(t[0][-1] >= 0 for t in told):
        yield from _raise_first(context, error, [t[0][-1] >= 0 for t in told])
    return (yield from send_counted(context, parts, [int(t[0][context.rank]) for t in told]))


def _raise_first(context: Any, error: Exception | None, failed: Sequence[bool]) -> Rounds:
    text = np.zeros(1024, np.uint8)
    if error is not None:
        raw = f"{type(error).__name__} {error}".encode()[:1024]
        text[: len(raw)] = np.frombuffer(raw, np.uint8)
    told = yield from to_all(context, text)
    name, _, message = bytes(told[list(failed).index(True)][0]).rstrip(b"\0").decode(errors="replace").partition(" ")
    raise {"IndexError": IndexError, "RuntimeError": RuntimeError}.get(name, ValueError)(message)


def split_by(destinations: np.ndarray, arrays: Arrays, world_size: int) -> tuple[list[Arrays], np.ndarray]:
    """Cuts rows by destination rank, each part in the given order; gives the parts and the order they stand in."""
    order = np.argsort(destinations.astype(np.uint16), kind="stable")
    cuts = [0, *accumulate(np.bincount(destinations, minlength=world_size).tolist())]
    moved = [a[order] for a in arrays]
    return [tuple(a[cuts[d] : cuts[d + 1]] for a in moved) for d in range(world_size)], order


def narrow_positions(rows: int) -> np.dtype:
    """Gives the smallest unsigned dtype that numbers so many rows."""
    return np.dtype(np.uint16 if rows <= 1 << 16 else np.uint32 if rows <= 1 << 32 else np.uint64)


def as_lines(x: np.ndarray, axis: int) -> np.ndarray:
    """Gives an array as (rows along the axis, everything else)."""
    moved = np.moveaxis(x, axis, 0)
    return moved.reshape(len(moved), int(np.prod(moved.shape[1:])))


def from_lines(lines: np.ndarray, shape: Sequence[int], axis: int) -> np.ndarray:
    """Undoes `as_lines`: (rows, everything else) as an array of `shape`, whose size along the axis may differ."""
    return np.moveaxis(lines.reshape(len(lines), *shape[:axis], *shape[axis + 1 :]), 0, axis)
