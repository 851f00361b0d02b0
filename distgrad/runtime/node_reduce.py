"""All-reduce of ranks on several nodes: what the ranks of a node share stays on it, and each node sends a bucket once.

A bucket passes in blocks from node to node. The ranks of a node cut a block among themselves; each adds the ranks of its
node, in order, to what has come from the node before, and sends the sum on. The last node has the result, which passes
back in the same way. Both directions are under way at once, for as many blocks as there are nodes.

Invariant: sums are in rank order, as everywhere, because the nodes hold consecutive ranks and a block visits them in order.
Every rank knows from sizes alone what each of `rounds` rounds carries.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import numpy as np

from distgrad.runtime.collectives import HALF_DTYPES, Exchange, Payload, Received, Reduction, pieces_of

LEAST_BYTES = 1 << 20
"""Smaller buckets take fewer trips between the ranks themselves."""

LATENCY_BYTES = 500_000
"""Bytes that a link between nodes carries (at 10 Gbit/s) in the time that a round takes beside its bytes (400 us)."""

_LEAST_BLOCK, _MOST_BLOCK = 64 << 10, 4 << 20


def block_bytes(nbytes: int, nodes: int) -> int:
    """Returns how much of a bucket a node works on at a time.

    n bytes in blocks of b take n / b + 2 N rounds of latency + b / bandwidth each, which is least at this b.
    """
    best = math.sqrt(nbytes * LATENCY_BYTES / (2 * nodes))
    return int(min(max(best, _LEAST_BLOCK), _MOST_BLOCK))



def nodes_of(names: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """Returns the ranks of each node in order, from the node's name of each rank; None where nodes are no gain.

    That is one node, nodes of one rank each, and nodes whose ranks do not follow each other.
    """
    nodes: list[list[int]] = []
    for rank, name in enumerate(names):
        if not rank or name != names[rank - 1]:
            nodes.append([])
        nodes[-1].append(rank)
    if len(nodes) == 1 or len(nodes) == len(names) or len(nodes) > len(set(names)):
        return None
    return tuple(map(tuple, nodes))


def suits(work: Reduction) -> bool:
    """Says whether a bucket is large enough, and its sums may be passed on in its own dtype with the same bits."""
    if work.dtype in HALF_DTYPES or (work.ufunc is np.multiply and work.dtype.kind == "c"):
        return False
    return work.total * work.dtype.itemsize >= LEAST_BYTES


def all_reduce(
    rank: int, nodes: Sequence[Sequence[int]], work: Reduction
) -> Generator[Exchange, Received, None]:
    """Reduces a bucket over the ranks of `nodes`, which hold 0 to W - 1 in order."""
    bucket = _Bucket(rank, nodes, work)
    for turn in range(bucket.rounds):
        bucket.take(turn, (yield bucket.give(turn)))


class _Bucket:
    """One bucket on its way along the nodes, as one rank sees it."""

    def __init__(self, rank: int, nodes: Sequence[Sequence[int]], work: Reduction) -> None:
        self.rank, self.nodes, self.work = rank, nodes, work
        self.node = next(n for n, ranks in enumerate(nodes) if rank in ranks)
        self.world_size = sum(map(len, nodes))
        self.own = list(nodes[self.node])
        self.last = len(nodes) - 1
        nbytes = work.total * work.dtype.itemsize
        self.count = -(-nbytes // block_bytes(nbytes, len(nodes)))
        self.rounds = self.count + 2 * len(nodes) - 1
        # The sum that is sent in one round is not written over in the next.
        longest = -(-work.total // self.count)
        share = -(-longest // len(self.own)) + 1
        self.sums = [np.empty(share, work.dtype), np.empty(share, work.dtype)]

    def segment(self, rank: int, node: int, block: int) -> tuple[int, int]:
        """Returns the elements of a block that a rank of a node adds up."""
        start, stop = (self.work.total * k // self.count for k in (block, block + 1))
        ranks = self.nodes[node]
        place, size = ranks.index(rank), stop - start
        return start + size * place // len(ranks), start + size * (place + 1) // len(ranks)

    def common(self, other: int, node: int, block: int) -> tuple[int, int]:
        """Returns the elements of a block that both this rank and one of another node add up."""
        (low, high), (start, stop) = self.segment(self.rank, self.node, block), self.segment(other, node, block)
        return max(low, start), min(high, stop)

    # Which block each kind of frame of a round belongs to; one outside of range(count) is none.

    def added(self, turn: int) -> int:
        """Returns the block whose parts the ranks of this node give each other."""
        return turn - self.node

    def forward(self, turn: int) -> int:
        """Returns the block whose sum goes on to the next node."""
        return turn - self.node - 1

    def back(self, turn: int) -> int:
        """Returns the block whose result goes to the node before, and to the ranks of this node."""
        return turn - 1 - 2 * self.last + self.node

    def _there(self, block: int) -> bool:
        return 0 <= block < self.count

    def give(self, turn: int) -> Exchange:
        """Returns the frames of a round."""
        work, itemsize = self.work, self.work.dtype.itemsize
        send: list[Payload | None] = [None] * self.world_size
        expect = [0] * self.world_size
        added, forward, back = self.added(turn), self.forward(turn), self.back(turn)
        for peer in self.own:
            if peer == self.rank:
                continue
            parts: tuple[np.ndarray, ...] = ()
            if self._there(added):
                parts += work.own.pieces(*self.segment(peer, self.node, added))
                expect[peer] += _size(self.segment(self.rank, self.node, added)) * itemsize
            if self._there(back):
                parts += work.result.pieces(*self.segment(self.rank, self.node, back))
                expect[peer] += _size(self.segment(peer, self.node, back)) * itemsize
            send[peer] = parts or None
        if self.node < self.last:
            for peer in self.nodes[self.node + 1]:
                if self._there(forward):
                    low, high = self.common(peer, self.node + 1, forward)
                    start, _ = self.segment(self.rank, self.node, forward)
                    if low < high:
                        send[peer] = self.sums[forward % 2][low - start : high - start]
                block = back + 1  # the next node's, a round ahead
                if self._there(block):
                    expect[peer] = _size(self.common(peer, self.node + 1, block)) * itemsize
        if self.node:
            for peer in self.nodes[self.node - 1]:
                if self._there(back):
                    send[peer] = work.result.pieces(*self.common(peer, self.node - 1, back)) or None
                if self._there(added):  # the sum of the node before
                    expect[peer] = _size(self.common(peer, self.node - 1, added)) * itemsize
        return Exchange(send, expect, work.dtype)

    def take(self, turn: int, received: Received) -> None:
        """Uses what a round has brought."""
        added, back = self.added(turn), self.back(turn)
        own = _size(self.segment(self.rank, self.node, added)) if self._there(added) else 0
        if own:
            with np.errstate(all="ignore"):
                self._add(added, received)
        if self._there(back):
            for peer in self.own:
                frame = received[peer] if peer != self.rank else None
                if frame is not None:
                    shared = frame[own * self.work.dtype.itemsize :]
                    self.work.keep_frame(shared, *self.segment(peer, self.node, back))
        if self.node < self.last and self._there(back + 1):
            for peer in self.nodes[self.node + 1]:
                frame = received[peer]
                if frame is not None:
                    self.work.keep_frame(frame, *self.common(peer, self.node + 1, back + 1))

    def _add(self, block: int, received: Received) -> None:
        """Adds the parts of the own segment of a block: from the node before, then of this node's ranks in order."""
        work, node = self.work, self.node
        start, stop = self.segment(self.rank, node, block)
        total = self.sums[block % 2][: stop - start]
        sources = [self._parts(received[peer], 0, stop - start) if peer != self.rank else [
            (first, last, work.own.flats[number][low:high])
            for number, low, high, first, last in pieces_of(work.own.sizes, start, stop)
        ] for peer in self.own]
        if node:
            before = []
            for peer in self.nodes[node - 1]:
                if received[peer] is not None:
                    low, high = self.common(peer, node - 1, block)
                    before += self._parts(received[peer], low - start, high - start)
            sources.insert(0, before)
        running = total
        if len(sources[0]) == 1:  # in one piece: added to what is next where it is
            running = sources[0][0][2]
        else:
            for first, last, values in sources[0]:
                np.copyto(total[first:last], values)
        for parts in sources[1:]:
            for first, last, values in parts:
                work.ufunc(running[first:last], values, out=total[first:last])
            running = total
        if node == self.last:
            for number, low, high, first, last in pieces_of(work.result.sizes, start, stop):
                np.copyto(work.result.flats[number][low:high], running[first:last])
        elif running is not total:  # the only rank of the first node
            np.copyto(total, running)

    def _parts(self, frame: np.ndarray | None, first: int, last: int) -> list[tuple[int, int, np.ndarray]]:
        """Returns elements [first, last) of a segment, which a frame begins with."""
        assert frame is not None  # `exchange` gives what is expected
        return [(first, last, frame[: (last - first) * self.work.dtype.itemsize].view(self.work.dtype))]


def _size(bounds: tuple[int, int]) -> int:
    return max(bounds[1] - bounds[0], 0)
