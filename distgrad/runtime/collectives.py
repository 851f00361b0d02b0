"""Collectives as generators of exchange rounds: the same code on simulated ranks and on real workers.

A collective yields `Exchange` rounds (what this rank sends to and expects from every other rank), gets the received bytes
back, and returns its result. Who carries the rounds is not its business: `run_lockstep` advances all ranks inside one
process, `transport.Group.run` does it between workers. An all-reduce offers the whole `Reduction` first, because ranks
that share memory can do it with fewer passes than any frames allow.

Invariant: every rank yields the same number of rounds, what one sends is exactly what the other expects, and every
reduction is done in rank order 0..W-1, so all ranks hold the same bits whichever transport and form was used.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from distgrad.errors import WireError

Payload = np.ndarray | tuple[np.ndarray, ...]
"""What one rank sends to another: an array, or several of one dtype to be laid end to end; C order, any strides."""

Received = list[np.ndarray | None]
Offsets = Sequence[int]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One round of all-to-all: what this rank sends to each rank, and how many bytes it expects from each.

    `send[d]` is for rank d (None: nothing), `expect[s]` the exact number of bytes from rank s (0: nothing); both are empty
    at the own rank. `dtype`, if given, is what all frames of the round contain, and is checked on arrival. Arrays that were
    sent may not be written before the next round. What `yield Exchange(...)` gives back are flat uint8 read-only views,
    one per rank (None: nothing expected), valid until the next round.
    """

    send: list[Payload | None]
    expect: list[int]
    dtype: np.dtype | None = None


class Bucket:
    """The flat concatenation of several arrays, cut anywhere into views instead of being copied together."""

    __slots__ = ("flats", "sizes")

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.flats = [array.reshape(-1) for array in arrays]
        self.sizes = tuple([flat.size for flat in self.flats])

    def pieces(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Returns views of the elements [start, stop), in order and without empty ones."""
        return tuple([self.flats[i][first:last] for i, first, last, _, _ in pieces_of(self.sizes, start, stop)])


@lru_cache(maxsize=4096)
def pieces_of(sizes: tuple[int, ...], start: int, stop: int) -> tuple[tuple[int, int, int, int, int], ...]:
    """Returns which parts of arrays of such sizes, laid end to end, are the elements [start, stop).

    Each part is (array, first and past-last element there, first and past-last element counted from `start`).
    """
    parts = []
    first = 0
    for number, size in enumerate(sizes):
        low, high = max(start, first), min(stop, first + size)
        if low < high:
            parts.append((number, low - first, high - first, low - start, high - start))
        first += size
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Reduction:
    """The offer to reduce a bucket over all ranks in the transport's own way.

    `own` holds this rank's elements, `result` gets the reduced ones and may be the same memory if `in_place`. What comes
    back is whether the transport did it. If not, rounds of `Exchange` follow. All ranks of a group decide alike.
    """

    own: Bucket
    result: Bucket
    ufunc: np.ufunc
    dtype: np.dtype
    total: int
    in_place: bool

    def to_send(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Returns the own elements [start, stop), copied if the result may be written over them before they are sent."""
        pieces = self.own.pieces(start, stop)
        return (np.concatenate(pieces),) if self.in_place else pieces

    def keep_frame(self, frame: np.ndarray, start: int, stop: int) -> None:
        """Copies the bytes of the reduced elements [start, stop) into the result."""
        values = frame.view(self.dtype)
        for number, low, high, first, last in pieces_of(self.result.sizes, start, stop):
            np.copyto(self.result.flats[number][low:high], values[first:last])

    def reduce_frames(self, received: Received, start: int, stop: int) -> None:
        """Reduces the own elements [start, stop) and the frames of the others, the same elements, into the result."""
        frames = [None if frame is None else frame.view(self.dtype) for frame in received]
        with np.errstate(all="ignore"):
            for number, low, high, first, last in pieces_of(self.own.sizes, start, stop):
                own = self.own.flats[number][low:high]
                sources = [own if frame is None else frame[first:last] for frame in frames]
                reduce_flat(self.ufunc, sources, self.result.flats[number][low:high])


Collective = Generator[Exchange | Reduction, Any, Any]


class Transport(Protocol):
    """Carries one round between this rank and all others, or does a whole reduction where it can."""

    def exchange(self, request: Exchange) -> Received: ...

    def reduce(self, request: Reduction) -> bool: ...


@dataclass(slots=True)
class Counter:
    """Counts of what collectives did: how many ran, their rounds, and the bytes sent to other ranks."""

    collectives: int = 0
    rounds: int = 0
    bytes_sent: int = 0


def payload_bytes(payload: Payload | None) -> int:
    """Returns the number of bytes a payload occupies in its frame."""
    if payload is None:
        return 0
    if isinstance(payload, tuple):
        return sum(part.nbytes for part in payload)
    return payload.nbytes


def flat_bytes(array: np.ndarray) -> np.ndarray:
    """Returns the elements of `array` in C order as flat uint8, a view whenever the array is C-contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


# Drivers


def run(generator: Collective, transport: Transport, answer: Any = None) -> Any:
    """Runs one collective over `transport` and returns its result. `answer`: to what it has yielded already."""
    try:
        while True:
            request = generator.send(answer)
            answer = transport.reduce(request) if isinstance(request, Reduction) else transport.exchange(request)
    except StopIteration as stop:
        return stop.value
    finally:
        answer = None  # an error that is kept must not keep views of the peers' memory
        generator.close()


def run_lockstep(generators: Sequence[Collective], counter: Counter | None = None) -> list[Any]:
    """Runs one collective on all ranks of this process and returns their results in rank order.

    Frames are handed over as read-only views, without copying. Raises WireError when the ranks disagree: another number of
    rounds, another dtype, or a frame that is not exactly what its receiver expects.
    """
    world_size = len(generators)
    received: list[Received | None] = [None] * world_size
    try:
        while True:
            requests: list[Exchange | None] = []
            results: list[Any] = []
            for rank, generator in enumerate(generators):
                try:
                    request = generator.send(received[rank])
                    while isinstance(request, Reduction):  # frames are handed over anyway: there is no shorter way
                        request = generator.send(False)
                    requests.append(request)
                except StopIteration as stop:
                    requests.append(None)
                    results.append(stop.value)
            if len(results) == world_size:
                if counter is not None:
                    counter.collectives += 1
                return results
            if results:
                done = [rank for rank, request in enumerate(requests) if request is None]
                raise WireError(
                    f"lockstep: ranks {done} finished while the other ranks of {world_size} wait for another round; "
                    "all ranks must run the same collective with the same arguments",
                    ranks=done,
                )
            received = _deliver([request for request in requests if request is not None], counter)
    finally:
        for generator in generators:
            generator.close()


def _deliver(requests: list[Exchange], counter: Counter | None) -> list[Received | None]:
    """Turns what every rank sends into what every rank receives."""
    world_size = len(requests)
    received: list[Received | None] = []
    for destination, wanted in enumerate(requests):
        frames: Received = []
        for source, given in enumerate(requests):
            payload = given.send[destination]
            size, expected = payload_bytes(payload), wanted.expect[source]
            if size != expected or (source == destination and size):
                raise WireError(
                    f"lockstep: rank {source} of {world_size} sends {size} bytes to rank {destination}, which expects "
                    f"{expected}; both must run the same collective with the same arguments",
                    ranks=[source, destination],
                )
            if payload is None or not size:
                frames.append(None)
                continue
            if given.dtype is not None and wanted.dtype is not None and given.dtype != wanted.dtype:
                raise WireError(
                    f"lockstep: rank {source} sends {given.dtype} to rank {destination}, which expects {wanted.dtype}",
                    ranks=[source, destination],
                )
            if isinstance(payload, tuple):
                view = flat_bytes(payload[0]) if len(payload) == 1 else np.concatenate([flat_bytes(p) for p in payload])
            else:
                view = flat_bytes(payload)
            view = view[:]
            view.flags.writeable = False
            frames.append(view)
        received.append(frames)
    if counter is not None:
        counter.rounds += 1
        counter.bytes_sent += sum(payload_bytes(payload) for request in requests for payload in request.send)
    return received


# Reductions

DIRECT_BYTES = 1024
"""all_reduce over more than two ranks uses one round, in which everyone sends everything, up to so many bytes received."""

ROUND_BYTES = 32 << 20
"""Bytes of a bucket that are exchanged at a time, which bounds the memory of what is received."""

_BLOCK = 1 << 15
"""Elements reduced at a time over more than two ranks: the running value then stays in cache."""

_UFUNCS: dict[str, np.ufunc] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
_BOOL_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.logical_or,
    "prod": np.logical_and,
    "max": np.logical_or,
    "min": np.logical_and,
}
HALF_DTYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))


def reduction_of(op: str, reduce: str, dtype: np.dtype) -> np.ufunc:
    """Returns the ufunc of a reduction by name, refusing what has no meaning."""
    if reduce not in _UFUNCS:
        raise ValueError(f"{op}: unknown reduction {reduce!r}; use one of {', '.join(map(repr, _UFUNCS))}")
    if dtype == np.bool_:
        return _BOOL_UFUNCS[reduce]
    if dtype.kind == "c" and reduce in ("max", "min"):
        raise TypeError(f"{op}: {reduce!r} of {dtype} is not defined, complex numbers have no order; reduce real parts")
    return _UFUNCS[reduce]


def reduce_flat(ufunc: np.ufunc, sources: list[np.ndarray], out: np.ndarray) -> None:
    """Writes sources[0] o sources[1] o ... into `out`, element by element in that order.

    All are flat and of one size. `out` may be the same memory as one of the sources: a block of it is written only with the
    last operation, after that block of every source was read. float16 and bfloat16 are accumulated in float32 and rounded
    once.
    """
    if len(sources) == 1:
        np.copyto(out, sources[0])
        return
    half = out.dtype in HALF_DTYPES
    # numpy rounds a complex product otherwise when one element is multiplied in place: never do that, so that the bits
    # do not depend on where a bucket is cut.
    product = ufunc is np.multiply and out.dtype.kind == "c"
    if len(sources) == 2 and not half and not product:
        ufunc(sources[0], sources[1], out=out)
        return
    block = min(_BLOCK, out.size)
    scratch = np.empty(block, np.float32 if half else out.dtype)
    second = np.empty_like(scratch) if half or product else scratch
    for start in range(0, out.size, _BLOCK):
        stop = min(start + _BLOCK, out.size)
        running, spare = scratch[: stop - start], second[: stop - start]
        parts = [source[start:stop] for source in sources]
        if half:
            np.copyto(running, parts[0])
            for part in parts[1:]:
                np.copyto(spare, part)
                ufunc(running, spare, out=running)
            np.copyto(out[start:stop], running, casting="unsafe")
        elif product:
            ufunc(parts[0], parts[1], out=running)
            for part in parts[2:]:
                ufunc(running, part, out=spare)
                running, spare = spare, running
            np.copyto(out[start:stop], running)
        else:
            ufunc(parts[0], parts[1], out=running)
            for part in parts[2:-1]:
                ufunc(running, part, out=running)
            ufunc(running, parts[-1], out=out[start:stop])


def all_reduce(
    rank: int,
    world_size: int,
    arrays: Sequence[np.ndarray],
    reduce: str = "sum",
    out: Sequence[np.ndarray] | None = None,
) -> Generator[Exchange | Reduction, Any, list[np.ndarray]]:
    """Reduces one bucket of arrays over all ranks and returns the reduced arrays, the same bits on every rank.

    `arrays`: of one dtype, any shapes, equal on all ranks. `reduce`: "sum", "prod", "max", "min", in rank order; NaN wins in
    max and min; a bool sum or max is logical or, prod or min is logical and; float16 and bfloat16 accumulate in float32.
    Results go to `out` when given (same shapes and dtype; each may be the array it is the result of), else to new arrays.

    A transport that can reduce in memory its ranks share does it so. Otherwise two ranks, and more of them with a tiny
    bucket (see `DIRECT_BYTES`), send each other everything; a larger bucket is reduced in equal chunks by their owners and
    then gathered, so that no rank sends more than 2 (W - 1) / W of it. The bits are the same. Raises ValueError, TypeError
    for arrays or reductions that do not fit.
    """
    if not arrays:
        return []
    dtype = arrays[0].dtype
    for array in arrays:
        if array.dtype != dtype:
            raise TypeError(
                f"all_reduce: a bucket has one dtype, got {dtype} and {array.dtype}; use one bucket per dtype"
            )
    ufunc = reduction_of("all_reduce", reduce, dtype)
    if out is not None and [(a.shape, a.dtype) for a in arrays] != [(a.shape, a.dtype) for a in out]:
        raise ValueError(
            f"all_reduce: out must match the bucket, got {[(a.shape, str(a.dtype)) for a in out]} for "
            f"{[(a.shape, str(a.dtype)) for a in arrays]}"
        )
    contiguous = [array if array.flags.c_contiguous else array.copy(order="C") for array in arrays]
    given = list(out) if out is not None else [np.empty(array.shape, dtype) for array in arrays]
    targets = [array if array.flags.c_contiguous else np.empty(array.shape, dtype) for array in given]
    bucket, result = Bucket(contiguous), Bucket(targets)
    total = sum(bucket.sizes)

    if world_size == 1 or total == 0:
        for array, target in zip(contiguous, targets, strict=True):
            if array is not target:
                np.copyto(target, array)
    else:
        work = Reduction(bucket, result, ufunc, dtype, total, in_place=out is not None and _overlap(contiguous, targets))
        tiny = (world_size - 1) * total * dtype.itemsize <= DIRECT_BYTES
        direct = tiny or world_size == 2
        # More than two ranks reduce a tiny bucket in one round, in shared memory as anywhere.
        if (tiny and world_size > 2) or not (yield work):
            block = max(1, ROUND_BYTES // dtype.itemsize)
            for start in range(0, total, block):
                stop = min(start + block, total)
                if direct:
                    yield from _reduce_directly(rank, world_size, work, start, stop)
                else:
                    yield from _reduce_by_owners(rank, world_size, work, start, stop)

    for array, target in zip(given, targets, strict=True):
        if array is not target:
            np.copyto(array, target)
    return given


def _overlap(arrays: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> bool:
    return any(np.may_share_memory(array, target) for array, target in zip(arrays, targets, strict=True))


def _reduce_directly(
    rank: int, world_size: int, work: Reduction, start: int, stop: int
) -> Generator[Exchange, Received, None]:
    """Reduces the elements [start, stop) of a bucket in one round: everyone sends everything."""
    mine = work.to_send(start, stop)
    size = payload_bytes(mine)
    others = [other != rank for other in range(world_size)]
    received = yield Exchange(
        [mine if other else None for other in others], [size if other else 0 for other in others], work.dtype
    )
    work.reduce_frames(received, start, stop)


def _reduce_by_owners(
    rank: int, world_size: int, work: Reduction, start: int, stop: int
) -> Generator[Exchange, Received, None]:
    """Reduces the elements [start, stop) of a bucket in two rounds: each rank its part, which all others then get."""
    cuts = [start + (stop - start) * part // world_size for part in range(world_size + 1)]
    sizes = [(last - first) * work.dtype.itemsize for first, last in pairwise(cuts)]
    others = [other != rank for other in range(world_size)]
    received = yield Exchange(
        [work.own.pieces(cuts[d], cuts[d + 1]) if other and sizes[d] else None for d, other in enumerate(others)],
        [sizes[rank] if other else 0 for other in others],
        work.dtype,
    )
    work.reduce_frames(received, cuts[rank], cuts[rank + 1])
    reduced = work.result.pieces(cuts[rank], cuts[rank + 1])
    received = yield Exchange(
        [reduced if other and reduced else None for other in others],
        [size if other else 0 for size, other in zip(sizes, others, strict=True)],
        work.dtype,
    )
    for owner, frame in enumerate(received):
        if frame is not None:
            work.keep_frame(frame, cuts[owner], cuts[owner + 1])


def reduce_scatter(
    rank: int, world_size: int, array: np.ndarray, axis: int, offsets: Offsets, reduce: str = "sum"
) -> Generator[Exchange, Received, np.ndarray]:
    """Reduces `array` over all ranks and returns this rank's block, rows [offsets[rank], offsets[rank + 1]) along `axis`.

    The reduction is that of `all_reduce`: rank order, NaN wins in max and min, halves accumulate in float32.
    """
    check_offsets("reduce_scatter", offsets, world_size, array.shape[axis])
    ufunc = reduction_of("reduce_scatter", reduce, array.dtype)
    mine = np.ascontiguousarray(_rows(array, axis, offsets[rank], offsets[rank + 1]))
    send: list[Payload | None] = [
        _rows(array, axis, offsets[d], offsets[d + 1]) if d != rank else None for d in range(world_size)
    ]
    block = np.empty(mine.shape, array.dtype)
    received = yield Exchange(
        [None if payload_bytes(payload) == 0 else payload for payload in send],
        [mine.nbytes if s != rank else 0 for s in range(world_size)],
        array.dtype,
    )
    if mine.size:
        sources = [mine.reshape(-1) if frame is None else frame.view(array.dtype) for frame in received]
        with np.errstate(all="ignore"):
            reduce_flat(ufunc, sources, block.reshape(-1))
    return block


# Movement


def check_offsets(op: str, offsets: Offsets, world_size: int, rows: int) -> None:
    if (
        len(offsets) != world_size + 1
        or offsets[0] != 0
        or offsets[-1] != rows
        or any(a > b for a, b in pairwise(offsets))
    ):
        raise ValueError(
            f"{op}: offsets {tuple(offsets)} do not cut {rows} rows for {world_size} ranks; they must be {world_size + 1} "
            f"numbers that never fall, from 0 to {rows}"
        )


def check_block(op: str, rank: int, block: np.ndarray, shape: Sequence[int]) -> None:
    if block.shape != tuple(shape):
        raise ValueError(f"{op}: rank {rank} holds a block of shape {block.shape}, its offsets say {tuple(shape)}")


def _rows(array: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """Returns the view of rows [start, stop) along `axis`."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(start, stop),)]


def _with_axis(shape: Sequence[int], axis: int, rows: int) -> tuple[int, ...]:
    axis %= len(shape)
    return (*shape[:axis], rows, *shape[axis + 1 :])


def all_gather(
    rank: int, world_size: int, block: np.ndarray, axis: int, offsets: Offsets, shape: Sequence[int]
) -> Generator[Exchange, Received, np.ndarray]:
    """Returns the whole array of `shape` from the blocks of all ranks, cut along `axis` at `offsets`."""
    check_offsets("all_gather", offsets, world_size, shape[axis])
    check_block("all_gather", rank, block, _with_axis(shape, axis, offsets[rank + 1] - offsets[rank]))
    row_bytes = math.prod(_with_axis(shape, axis, 1)) * block.itemsize
    full = np.empty(shape, block.dtype)
    received = yield Exchange(
        [block if d != rank and block.size else None for d in range(world_size)],
        [(offsets[s + 1] - offsets[s]) * row_bytes if s != rank else 0 for s in range(world_size)],
        block.dtype,
    )
    for source, frame in enumerate(received):
        part = _rows(full, axis, offsets[source], offsets[source + 1])
        if source == rank:
            np.copyto(part, block)
        elif frame is not None:
            np.copyto(part, frame.view(block.dtype).reshape(part.shape))
    return full


def redistribute(
    rank: int,
    world_size: int,
    block: np.ndarray,
    shape: Sequence[int],
    axis_from: int,
    offsets_from: Offsets,
    axis_to: int,
    offsets_to: Offsets,
) -> Generator[Exchange, Received, np.ndarray]:
    """Moves an array of `shape` from one sharding to another and returns this rank's new block.

    Each pair of ranks exchanges the intersection of the old block of one and the new block of the other, nothing else;
    the axes may be equal (only the offsets differ).
    """
    check_offsets("redistribute", offsets_from, world_size, shape[axis_from])
    check_offsets("redistribute", offsets_to, world_size, shape[axis_to])
    axis_from, axis_to = axis_from % len(shape), axis_to % len(shape)
    check_block("redistribute", rank, block, _with_axis(shape, axis_from, offsets_from[rank + 1] - offsets_from[rank]))

    def region(source: int, destination: int) -> tuple[list[int], list[int]]:
        """First and past-last index, per axis of the whole array, of what moves from `source` to `destination`."""
        low, high = [0] * len(shape), list(shape)
        for axis, offsets, owner in ((axis_from, offsets_from, source), (axis_to, offsets_to, destination)):
            low[axis] = max(low[axis], offsets[owner])
            high[axis] = min(high[axis], offsets[owner + 1])
        return low, [max(a, b) for a, b in zip(low, high, strict=True)]

    def part_of(array: np.ndarray, axis: int, first: int, low: list[int], high: list[int]) -> np.ndarray:
        """The region as a view of a block whose rows along `axis` start at `first`."""
        shift = [first if a == axis else 0 for a in range(len(shape))]
        return array[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, shift, strict=True))]

    def parts(bounds: tuple[list[int], list[int]]) -> int:
        return math.prod(b - a for a, b in zip(*bounds, strict=True))

    first_from, first_to = offsets_from[rank], offsets_to[rank]
    send: list[Payload | None] = []
    expect: list[int] = []
    for peer in range(world_size):
        outgoing, incoming = region(rank, peer), region(peer, rank)
        moves = peer != rank and parts(outgoing) > 0
        send.append(part_of(block, axis_from, first_from, *outgoing) if moves else None)
        expect.append(parts(incoming) * block.itemsize if peer != rank else 0)
    new = np.empty(_with_axis(shape, axis_to, offsets_to[rank + 1] - first_to), block.dtype)
    received = yield Exchange(send, expect, block.dtype)
    for source, frame in enumerate(received):
        bounds = region(source, rank)
        if not parts(bounds):
            continue
        target = part_of(new, axis_to, first_to, *bounds)
        if source == rank:
            np.copyto(target, part_of(block, axis_from, first_from, *bounds))
        elif frame is not None:
            np.copyto(target, frame.view(block.dtype).reshape(target.shape))
    return new


def broadcast(
    rank: int,
    world_size: int,
    array: np.ndarray | None,
    root: int,
    shape: Sequence[int],
    dtype: np.dtype | type | str,
) -> Generator[Exchange, Received, np.ndarray]:
    """Returns the array of rank `root` on every rank; the other ranks pass None. The root gets its own array back."""
    shape, dtype = tuple(shape), np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if rank == root:
        if array is None or array.shape != shape or array.dtype != dtype:
            given = "None" if array is None else f"{array.shape} {array.dtype}"
            raise ValueError(f"broadcast: root {root} must give an array of shape {shape} and {dtype}, got {given}")
        yield Exchange([array if d != rank and size else None for d in range(world_size)], [0] * world_size, dtype)
        return array
    received = yield Exchange([None] * world_size, [size if s == root else 0 for s in range(world_size)], dtype)
    copy = np.empty(shape, dtype)
    frame = received[root]
    if frame is not None:
        np.copyto(copy, frame.view(dtype).reshape(shape))
    return copy


def barrier(rank: int, world_size: int) -> Generator[Exchange, Received, None]:
    """Returns when every rank has arrived."""
    token = np.zeros(1, np.uint8)
    yield Exchange(
        [token if d != rank else None for d in range(world_size)],
        [1 if s != rank else 0 for s in range(world_size)],
        token.dtype,
    )
