"""All-reduce in the memory of one node: a bucket passes in chunks through the rings of its ranks and never leaves the cache.

Each rank writes chunk after chunk into its ring. Two ranks then both add the two rings straight into their results; of
more ranks, each reduces its own segment of the chunk inside its ring, and all copy the segments of the others from there.

Invariant: a turn of the loop publishes one step, and what a step says was done depends on the bucket's size and the
number of ranks alone. So one counter per rank tells its peers both what they may read and what they may overwrite, also
when the next collective comes.
"""

from __future__ import annotations

import numpy as np

from distgrad.runtime.collectives import Reduction, pieces_of, reduce_flat
from distgrad.runtime.shared_memory import CHUNK_BYTES, CHUNKS, Check, SharedMemory

_AHEAD_OF_ONE = 2
_AHEAD = 4
"""Chunks a rank writes before it reads the first of the others: fewer stay closer in cache, more need fewer switches."""


def all_reduce(memory: SharedMemory, first: int, work: Reduction, code: int, check: Check) -> tuple[int, int]:
    """Reduces a bucket over all ranks of the node, from round `first` on; returns (rounds taken, bytes sent to others)."""
    bucket = _PassingBucket(memory, first, work, code, check)
    try:
        with np.errstate(all="ignore"):
            return bucket.pass_through(), bucket.bytes_sent()
    finally:
        bucket.rings.clear()  # an error that is kept must not keep the memory of the group


class _PassingBucket:
    """One bucket on its way through the rings. Views of the rings are held here alone, in no frame that waits."""

    def __init__(self, memory: SharedMemory, first: int, work: Reduction, code: int, check: Check) -> None:
        self.memory, self.first, self.work, self.code, self.check = memory, first, work, code, check
        self.rank, self.world_size = memory.rank, memory.world_size
        self.others = list(memory.peers)
        self.place_size = CHUNK_BYTES // work.dtype.itemsize
        self.chunk = self.place_size // self.world_size * self.world_size  # cut evenly, but for the last one
        self.count = -(-work.total // self.chunk)
        # Turn t writes chunk t, publishes step first + t, reduces chunk t - ahead and gathers chunk t - behind.
        two = self.world_size == 2
        self.ahead = min(_AHEAD_OF_ONE if two else _AHEAD, self.count - 1)
        self.behind = self.ahead if two else 2 * self.ahead + 1
        self.base = memory.chunks
        self.bytes = work.total * work.dtype.itemsize
        self.rings = {self.rank: memory.open_ring(first, self.bytes, code, check).view(work.dtype)}

    def pass_through(self) -> int:
        """Does the whole reduction; returns the number of turns."""
        memory, first, others, check = self.memory, self.first, self.others, self.check
        two = self.world_size == 2
        for turn in range(self.count + self.behind):
            if turn < self.count:
                place = (self.base + turn) % CHUNKS
                memory.wait(others, memory.chunk_free_at[place], check)
                self.write(turn)
                memory.chunk_free_at[place] = first + turn + self.behind + 1
            memory.publish_step(first + turn)
            now = turn - self.ahead
            if 0 <= now < self.count:
                memory.wait(others, first + now, check)
                if not now:
                    for rank in others:
                        self.rings[rank] = memory.peer_ring(rank, first, self.bytes, self.code).view(self.work.dtype)
                self.reduce_whole(now) if two else self.reduce_segment(now)
            now = turn - self.behind
            if not two and now >= 0:
                memory.wait(others, first + now + self.ahead + 1, check)
                self.gather(now)
        memory.chunks += self.count
        return self.count + self.behind

    def _where(self, number: int) -> tuple[int, int, int]:
        """Returns a chunk's first element, its number of elements, and where it begins in the rings."""
        start = number * self.chunk
        return start, min(self.chunk, self.work.total - start), (self.base + number) % CHUNKS * self.place_size

    def write(self, number: int) -> None:
        """Copies a chunk of the bucket into the own ring."""
        start, size, place = self._where(number)
        ring, flats = self.rings[self.rank], self.work.own.flats
        for array, low, high, begin, end in pieces_of(self.work.own.sizes, start, start + size):
            np.copyto(ring[place + begin : place + end], flats[array][low:high])

    def reduce_whole(self, number: int) -> None:
        """Reduces a chunk of two ranks from their rings into the result."""
        start, size, place = self._where(number)
        one, other = (self.rings[rank][place : place + size] for rank in (0, 1))
        flats = self.work.result.flats
        for array, low, high, begin, end in pieces_of(self.work.result.sizes, start, start + size):
            reduce_flat(self.work.ufunc, [one[begin:end], other[begin:end]], flats[array][low:high])

    def _segment(self, owner: int, size: int) -> tuple[int, int]:
        return size * owner // self.world_size, size * (owner + 1) // self.world_size

    def reduce_segment(self, number: int) -> None:
        """Reduces the own segment of a chunk inside the own ring; nobody else reads it before that."""
        _, size, place = self._where(number)
        begin, end = self._segment(self.rank, size)
        sources = [self.rings[rank][place + begin : place + end] for rank in range(self.world_size)]
        reduce_flat(self.work.ufunc, sources, sources[self.rank])

    def gather(self, number: int) -> None:
        """Copies the reduced segments of a chunk from the rings of their owners into the result."""
        start, size, place = self._where(number)
        flats = self.work.result.flats
        for owner in range(self.world_size):
            cut, stop = self._segment(owner, size)
            segment = self.rings[owner][place + cut : place + stop]
            for array, low, high, begin, end in pieces_of(self.work.result.sizes, start + cut, start + stop):
                np.copyto(flats[array][low:high], segment[begin:end])

    def bytes_sent(self) -> int:
        """Returns how many bytes the others read of this rank's ring, each reader's counted."""
        total = self.work.total
        if self.world_size == 2:
            return self.bytes
        own = 0
        for size, times in ((self.chunk, total // self.chunk), (total % self.chunk, 1)):
            begin, end = self._segment(self.rank, size)
            own += (end - begin) * times
        return (total + (self.world_size - 2) * own) * self.work.dtype.itemsize
