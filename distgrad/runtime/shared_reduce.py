"""All-reduce in the memory of one node: a bucket passes in chunks through the rings of its ranks and never leaves the cache.

Each rank writes chunk after chunk into its ring. Two ranks then both add the two rings straight into their results; of
more ranks, each reduces its own segment of the chunk inside its ring, and all copy the segments of the others from there.

Invariant: a rank reads a chunk of a peer only after that one's counter says it is there, and writes over a chunk only
after all counters say it was read. Each rank does the oldest work it can and waits only for what its oldest chunk needs,
so somebody can always go on; how far one is ahead of another is a matter of speed, never of the result.
"""

from __future__ import annotations

import numpy as np

from distgrad.runtime.collectives import Reduction, pieces_of, reduce_flat
from distgrad.runtime.shared_memory import CHUNKS, GATHERED, REDUCED, WRITTEN, Check, SharedMemory


def all_reduce(memory: SharedMemory, sequence: int, work: Reduction, code: int, check: Check) -> int:
    """Reduces a bucket over all ranks of the node, as round `sequence`; returns the bytes that others read of this rank."""
    bucket = _PassingBucket(memory, sequence, work, code, check)
    try:
        with np.errstate(all="ignore"):
            bucket.pass_through()
            return bucket.bytes_sent()
    finally:
        bucket.rings.clear()  # an error that is kept must not keep the memory of the group


class _PassingBucket:
    """One bucket on its way through the rings. Views of the rings are held here alone, in no frame that waits."""

    def __init__(self, memory: SharedMemory, sequence: int, work: Reduction, code: int, check: Check) -> None:
        self.memory, self.sequence, self.work, self.code, self.check = memory, sequence, work, code, check
        self.rank, self.world_size = memory.rank, memory.world_size
        self.place_size = memory.chunk_bytes // work.dtype.itemsize
        self.chunk = self.place_size // self.world_size * self.world_size  # cut evenly, but for the last one
        self.count = -(-work.total // self.chunk)
        self.base = memory.chunks
        self.bytes = work.total * work.dtype.itemsize
        self.rings = {self.rank: memory.open_ring(sequence, self.bytes, code, check).view(work.dtype)}

    def pass_through(self) -> None:
        """Does the whole reduction."""
        memory, base, count, others, check = self.memory, self.base, self.count, self.memory.peers, self.check
        two = self.world_size == 2
        memory.wait(others, base + 1 - CHUNKS, check, GATHERED)
        self.write(0)
        memory.announce(self.sequence, base + 1)
        memory.wait(others, self.sequence, check)
        for rank in others:
            self.rings[rank] = memory.peer_ring(rank, self.sequence, self.bytes, self.code).view(self.work.dtype)
        written, reduced, gathered = 1, 0, 0
        while gathered < count:
            if gathered < reduced and memory.reached(REDUCED, base + gathered + 1):
                self.gather(gathered)
                gathered += 1
                memory.advance(GATHERED, base + gathered)
            elif reduced < written and memory.reached(WRITTEN, base + reduced + 1):
                if two:
                    self.reduce_whole(reduced)
                    reduced = gathered = reduced + 1
                    memory.advance(GATHERED, base + gathered)
                else:
                    self.reduce_segment(reduced)
                    reduced += 1
                    memory.advance(REDUCED, base + reduced)
            elif written < count and memory.reached(GATHERED, base + written + 1 - CHUNKS):
                self.write(written)
                written += 1
                memory.advance(WRITTEN, base + written)
            elif gathered < reduced:
                memory.wait(others, base + gathered + 1, check, REDUCED)
            elif reduced < written:
                memory.wait(others, base + reduced + 1, check, WRITTEN)
            else:
                memory.wait(others, base + written + 1 - CHUNKS, check, GATHERED)
        memory.chunks += count

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
