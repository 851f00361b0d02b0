"""Frames between workers of one node: each rank writes into memory of its own, the others read it in place.

Every rank owns anonymous memory (memfd) that peers open through /proc/<pid>/fd: it has no name in any file system, so the
kernel frees it with the last process, however that one ends. A control page holds the number of rounds published, and the
header of every frame; two data slots, used in turn, hold the frames. A third area, the ring, holds the chunks of a bucket
that is being reduced (see `shared_reduce`), with counters of their own.

Invariant: a rank publishes round n only after writing it, and overwrites the slot of round n only after every reader of
round n has published round n + 1, which a reader does after it is done with what it read. So a round costs one wait.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distgrad.errors import WireError, WorkerLostError
from distgrad.runtime.collectives import Payload, payload_bytes
from distgrad.runtime.guard import start_time as process_start_time
from distgrad.runtime.wire import HEADER, Identity, aligned, view_of, write_array

TICK = 0.05
"""Seconds between looks at what can end a wait: an abort, the timeout, a peer that is gone."""

Check = Callable[[Sequence[int]], None]
"""Called with the ranks still missing, at least once per tick; raises to end the wait."""

# The control page, in 8-byte words: the identity header, then the counters, each group on a cache line of its own.
_PUBLISHED, _STATE, _EVENTS = 8, 9, 10
_PROCESSOR = 14
WRITTEN, REDUCED, GATHERED = 11, 12, 13
"""Counters of chunks, since the group began: which are in the own ring, reduced there, and read from all rings."""

_SLOT_WORDS = (16, 24, 32)  # generation, file descriptor, capacity of each data slot and of the ring
_FRAMES_AT = 320
_OPEN, _CLOSED = 0, 1

_LEAST_SPIN, _MOST_SPIN = 10e-6, 200e-6
"""Seconds a rank spins, while it waits, before it sleeps."""
_BETWEEN_MOVES = 2e-3

_RING = 2
CHUNKS = 8
"""The ring of a rank holds so many chunks of a bucket that is being reduced."""

_SMALLEST_SLOT = 1 << 20
_HUGE_PAGES_FROM = 4 << 20


@dataclass(frozen=True, slots=True)
class SharedMemoryAddress:
    """Where a rank's control page is: a file descriptor of a process, which its start time tells from a later one."""

    pid: int
    start_time: int
    control: int


# Sleeping until a peer publishes

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(platform.machine())
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_EVERYONE = 2**31 - 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_processor = getattr(_libc, "sched_getcpu", lambda: -1)  # -1: not known
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p]
_TICK_TIMESPEC = _Timespec(0, int(TICK * 1e9))
_TICK_ADDRESS = ctypes.addressof(_TICK_TIMESPEC)


def _sleep_while(address: int, value: int) -> None:
    """Sleeps, without the interpreter lock, until the counter at `address` is published anew, for one tick at most.

    The kernel compares the counter's low half with `value` before it sleeps, so no wake-up is missed; every return is only
    a reason to look again.
    """
    if _FUTEX is None:
        time.sleep(1e-3)
    else:
        _syscall(_FUTEX, address, _FUTEX_WAIT, value & 0xFFFFFFFF, _TICK_ADDRESS)


def _wake_readers(address: int) -> None:
    if _FUTEX is not None:
        _syscall(_FUTEX, address, _FUTEX_WAKE, _EVERYONE, None)


_fence_lock = threading.Lock()


def _fence() -> None:
    """Orders memory accesses before it against those after it, on processors that would reorder them.

    A release followed by an acquire of a lock is a full barrier; on x86 stores are never reordered with stores.
    """
    for _ in range(2):
        with _fence_lock:
            pass


# One's own memory


class _Slot:
    """One of the data areas of a rank; replaced by a larger one when a round does not fit."""

    def __init__(self) -> None:
        self.generation = 0
        self.descriptor = -1
        self.capacity = 0
        self.memory: mmap.mmap | None = None
        self.data = np.empty(0, np.uint8)
        self.round = 0
        self.readers: tuple[int, ...] = ()

    def reserve(self, size: int) -> bool:
        """Makes room for `size` bytes; returns whether the memory is new. Untouched pages cost nothing."""
        if size <= self.capacity:
            return False
        self.close()
        self.capacity = max(_SMALLEST_SLOT, 1 << (size - 1).bit_length())
        self.descriptor = os.memfd_create("distgrad-frames")
        os.ftruncate(self.descriptor, self.capacity)
        self.memory = mmap.mmap(self.descriptor, self.capacity)
        _prefer_huge_pages(self.memory, self.capacity)
        self.data = np.frombuffer(self.memory, np.uint8)
        self.generation += 1
        return True

    def close(self) -> None:
        self.data = np.empty(0, np.uint8)
        if self.memory is not None:
            _unmap(self.memory)
            os.close(self.descriptor)
        self.memory, self.descriptor, self.capacity = None, -1, 0


def _prefer_huge_pages(memory: mmap.mmap, size: int) -> None:
    if size >= _HUGE_PAGES_FROM:
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            return  # A kernel without huge pages: the advice is about speed only.


# A peer's memory


class _Peer:
    """Read-only mappings of another rank's control page and data slots."""

    def __init__(self, rank: int, world_size: int, address: SharedMemoryAddress, identity: Identity) -> None:
        self.rank, self.address = rank, address
        self.mappings: list[tuple[int, mmap.mmap, pa.Buffer] | None] = [None, None, None]
        size = _control_size(world_size)
        self.memory = self._map(address.control, size)
        self.control = memoryview(self.memory)
        self.words = self.control.cast("q")
        self.events_at = np.frombuffer(self.memory, np.uint8).__array_interface__["data"][0] + 8 * _EVENTS
        try:
            identity.check(self.control, 0, source=rank, destination=rank, sequence=0, length=world_size)
        except WireError:
            self.close()
            raise

    def _map(self, descriptor: int, size: int) -> mmap.mmap:
        path = f"/proc/{self.address.pid}/fd/{descriptor}"
        if process_start_time(self.address.pid) != self.address.start_time:
            raise WorkerLostError(
                f"rank {self.rank} (process {self.address.pid}) is gone; if it lives in another process namespace, give "
                "force_network=True",
                missing=[self.rank],
            )
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise WireError(
                f"shared memory: opening {path} of rank {self.rank} was refused ({error}); workers of one node must run as "
                "one user in one process namespace: give force_network=True to use the network instead"
            ) from error
        except FileNotFoundError as error:
            raise WorkerLostError(
                f"rank {self.rank} (process {self.address.pid}) has closed its memory", missing=[self.rank]
            ) from error
        try:
            available = os.fstat(file).st_size
            if available < size:
                raise WireError(
                    f"shared memory: {path} of rank {self.rank} has {available} bytes, {size} are announced"
                )
            return mmap.mmap(file, size, prot=mmap.PROT_READ)
        finally:
            os.close(file)

    def data(self, slot: int) -> pa.Buffer:
        """Returns the peer's current data slot as an Arrow buffer over the mapping."""
        first = _SLOT_WORDS[slot]
        generation, descriptor, capacity = self.words[first], self.words[first + 1], self.words[first + 2]
        mapping = self.mappings[slot]
        if mapping is None or mapping[0] != generation:
            if mapping is not None:
                self.mappings[slot] = None
                _unmap(mapping[1])
            memory = self._map(descriptor, capacity)
            _prefer_huge_pages(memory, capacity)
            mapping = (generation, memory, pa.py_buffer(memory))
            self.mappings[slot] = mapping
        return mapping[2]

    def lost(self) -> str | None:
        """Returns why the peer will never publish again, or None if it may."""
        if self.words[_STATE] == _CLOSED:
            return "has closed its group"
        if process_start_time(self.address.pid) != self.address.start_time:
            return "has died"
        return None

    def close(self) -> None:
        for mapping in self.mappings:
            if mapping is not None:
                memory = mapping[1]
                del mapping
                _unmap(memory)
        self.mappings = [None, None, None]
        self.words.release()
        self.control.release()
        _unmap(self.memory)


def _unmap(memory: mmap.mmap) -> None:
    try:
        memory.close()
    except BufferError:
        return  # A reader still holds a view of the last round; the mapping ends when that view does.


def _control_size(world_size: int) -> int:
    return _FRAMES_AT + 2 * world_size * HEADER.size


def chunk_bytes(world_size: int) -> int:
    """Returns the size of a chunk: 1 MB for two ranks, less for more, so that all rings of a node fit into its cache.

    Smaller chunks cost more than they gain: what a peer has just written is slow to read while it is in that one's cache.
    """
    return max(256 << 10, (2 << 20) // world_size // 4096 * 4096)


class SharedMemory:
    """This rank's memory and its view of the memory of all ranks on the same node."""

    def __init__(self, rank: int, world_size: int, identity: Identity) -> None:
        self.rank, self.world_size, self.identity = rank, world_size, identity
        self.peers: dict[int, _Peer] = {}
        self._slots = (_Slot(), _Slot(), _Slot())
        self.chunks = 0
        self.chunk_bytes = chunk_bytes(world_size)
        size = _control_size(world_size)
        self._descriptor = os.memfd_create("distgrad-control")
        os.ftruncate(self._descriptor, size)
        self._memory = mmap.mmap(self._descriptor, size)
        self._control = memoryview(self._memory)
        self._words = self._control.cast("q")
        self._events_at = np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0] + 8 * _EVENTS
        identity.pack(self._control, 0, source=rank, destination=rank, sequence=0, length=world_size)
        self._spin = 0.0
        self._next_move = 0.0
        self._closed = False

    def address(self) -> SharedMemoryAddress:
        """Returns how a process of this node reaches this rank's memory."""
        start_time = process_start_time(os.getpid())
        if start_time is None:
            raise WireError(
                "shared memory: this process is not in /proc; give force_network=True to use the network instead"
            )
        return SharedMemoryAddress(os.getpid(), start_time, self._descriptor)

    def bytes_for(self, nbytes: int) -> int:
        """Returns about how much memory an exchange of so many bytes takes here: the own ring, and the peers', as read."""
        return (1 + len(self.peers)) * min(nbytes, CHUNKS * self.chunk_bytes) if self.peers else 0

    def connect(self, addresses: Mapping[int, SharedMemoryAddress]) -> None:
        """Maps the control pages of the given ranks; raises WireError if they are not of this session and epoch."""
        for rank, address in addresses.items():
            self.peers[rank] = _Peer(rank, self.world_size, address, self.identity)
        # Spinning pays only where the peers that are waited for can run meanwhile.
        self._spin = _MOST_SPIN if len(self.peers) < len(os.sched_getaffinity(0)) else 0.0

    def publish(self, sequence: int, send: Sequence[Payload | None], code: int, check: Check) -> None:
        """Writes the frames of round `sequence` for the ranks of this node and makes them visible, in one copy."""
        slot_number = sequence % 2
        slot = self._slots[slot_number]
        self.wait(slot.readers, slot.round + 1, check)
        positions: dict[int, int] = {}
        plan: list[tuple[Payload, int, int]] = []
        frames: list[tuple[int, int, int]] = []
        end = 0
        for rank in self.peers:
            payload = send[rank]
            size = payload_bytes(payload)
            if payload is None or not size:
                continue
            # What several ranks get is written once and read by all of them.
            position = positions.get(id(payload))
            if position is None:
                position = positions[id(payload)] = end
                plan.append((payload, position, size))
                end = aligned(end + size)
            frames.append((rank, position, size))
        self._reserve(slot_number, end)
        for payload, position, _ in plan:
            for part in payload if isinstance(payload, tuple) else (payload,):
                write_array(slot.data[position : position + part.nbytes], part)
                position += part.nbytes
        self._write_headers(sequence, frames, code)
        _fence()
        self._words[_PUBLISHED] = sequence
        self._tell()

    def _tell(self) -> None:
        """Wakes the ranks that sleep until a counter of this one changes, and says where this one runs."""
        self._words[_PROCESSOR] = _processor()
        self._words[_EVENTS] += 1
        _wake_readers(self._events_at)

    def _reserve(self, number: int, size: int) -> None:
        slot = self._slots[number]
        if slot.reserve(size):
            first = _SLOT_WORDS[number]
            self._words[first + 1], self._words[first + 2] = slot.descriptor, slot.capacity
            self._words[first] = slot.generation

    def _write_headers(self, sequence: int, frames: Sequence[tuple[int, int, int]], code: int) -> None:
        """Writes the headers of round `sequence`: (reader, position in the data, bytes) of each frame."""
        slot_number = sequence % 2
        for rank, position, size in frames:
            self.identity.pack(
                self._control,
                _FRAMES_AT + (slot_number * self.world_size + rank) * HEADER.size,
                source=self.rank,
                destination=rank,
                sequence=sequence,
                length=size,
                offset=position,
                code=code,
            )
        slot = self._slots[slot_number]
        slot.round, slot.readers = sequence, tuple([rank for rank, _, _ in frames])

    def _check_header(self, rank: int, sequence: int, size: int, code: int) -> int:
        return self.identity.check(
            self.peers[rank].control,
            _FRAMES_AT + ((sequence % 2) * self.world_size + self.rank) * HEADER.size,
            source=rank,
            destination=self.rank,
            sequence=sequence,
            length=size,
            code=code,
        )

    def open_ring(self, sequence: int, size: int, code: int, check: Check) -> np.ndarray:
        """Makes ready to pass a bucket of `size` bytes through the ring as round `sequence`; returns the ring."""
        slot = self._slots[sequence % 2]
        self.wait(slot.readers, slot.round + 1, check)
        self._reserve(_RING, CHUNKS * self.chunk_bytes)
        self._write_headers(sequence, [(rank, 0, size) for rank in self.peers], code)
        return self._slots[_RING].data

    def announce(self, sequence: int, written: int) -> None:
        """Publishes round `sequence`, a bucket, with its first chunk."""
        _fence()
        self._words[WRITTEN] = written
        self._words[_PUBLISHED] = sequence
        self._tell()

    def advance(self, counter: int, number: int) -> None:
        """Makes visible that this rank has written, reduced or gathered `number` chunks, and what it wrote before."""
        _fence()
        self._words[counter] = number
        self._tell()

    def reached(self, counter: int, number: int) -> bool:
        """Returns whether a counter of every other rank has reached `number`."""
        for peer in self.peers.values():
            if peer.words[counter] < number:
                return False
        _fence()
        return True

    def peer_ring(self, rank: int, sequence: int, size: int, code: int) -> np.ndarray:
        """Returns the ring of a rank that has published round `sequence`; raises WireError if it reduces something else."""
        self._check_header(rank, sequence, size, code)
        ring = view_of(self.peers[rank].data(_RING))
        if ring.size < CHUNKS * self.chunk_bytes:
            raise WireError(
                f"ring of rank {rank} refused: it has {ring.size} bytes, must have {CHUNKS * self.chunk_bytes}", source=rank
            )
        return ring

    def collect(
        self, sequence: int, expect: Sequence[int], code: int, received: list[np.ndarray | None], check: Check
    ) -> None:
        """Waits for the frames of round `sequence` and puts read-only views of the peers' memory into `received`."""
        sources = [rank for rank in self.peers if expect[rank]]
        self.wait(sources, sequence, check)
        slot = sequence % 2
        for rank in sources:
            peer, size = self.peers[rank], expect[rank]
            offset = self._check_header(rank, sequence, size, code)
            data = peer.data(slot)
            if offset + size > data.size:
                raise WireError(
                    f"frame from rank {rank} refused: it ends at byte {offset + size} of {data.size}", source=rank
                )
            received[rank] = view_of(data.slice(offset, size))

    def wait(self, ranks: Iterable[int], number: int, check: Check, counter: int = _PUBLISHED) -> None:
        """Returns when a counter of all of `ranks` has reached `number`: by default, when they have published that round."""
        missing = [rank for rank in ranks if self.peers[rank].words[counter] < number]
        if missing:
            self._wait_for(missing, number, check, counter)
        _fence()

    def _wait_for(self, missing: Sequence[int], number: int, check: Check, counter: int) -> None:
        if self._spin:
            # Spinning without giving the processor away: whoever yields it to a busy neighbour gets it back late,
            # whoever sleeps gets it as soon as it is woken. What is in vain is tried for a shorter time next.
            spin_until = time.monotonic() + self._spin
            while time.monotonic() < spin_until:
                missing = [rank for rank in missing if self.peers[rank].words[counter] < number]
                if not missing:
                    self._spin = min(2 * self._spin, _MOST_SPIN)
                    return
            self._spin = max(self._spin / 2, _LEAST_SPIN)
            self._make_room(missing)
        next_look = time.monotonic() + TICK
        while missing:
            peer = self.peers[missing[0]]
            events = peer.words[_EVENTS]
            if peer.words[counter] < number:
                _sleep_while(peer.events_at, events)
            missing = [rank for rank in missing if self.peers[rank].words[counter] < number]
            if missing and time.monotonic() >= next_look:
                self._look(missing, number, check, counter)
                next_look = time.monotonic() + TICK

    def _make_room(self, missing: Sequence[int]) -> None:
        """Moves off the processor of a rank that this one has waited for in vain.

        Ranks that wake each other tend to be put on one processor, where they take turns; on a busy machine they stay
        there. The thread may run anywhere again at once.
        """
        now, here = time.monotonic(), _processor()
        if now < self._next_move or all(self.peers[rank].words[_PROCESSOR] != here for rank in missing):
            return
        self._next_move = now + _BETWEEN_MOVES
        allowed = os.sched_getaffinity(0)
        taken = {peer.words[_PROCESSOR] for peer in self.peers.values()}
        if here in allowed and allowed - taken:
            os.sched_setaffinity(0, allowed - taken)
            os.sched_setaffinity(0, allowed)

    def _look(self, missing: Sequence[int], number: int, check: Check, counter: int) -> None:
        """Raises if the wait for `missing` is over: aborted, timed out, or one of them is gone."""
        check(missing)
        for rank in missing:
            peer = self.peers[rank]
            reason = peer.lost()
            # It may have done its part as the last thing it did.
            if reason is not None and peer.words[counter] < number:
                raise WorkerLostError(
                    f"rank {rank} (process {peer.address.pid}) {reason} while rank {self.rank} waited for it",
                    missing=[rank],
                )

    def check_peers(self) -> None:
        """Raises WorkerLostError when a process of this group on this node has died."""
        for rank, peer in self.peers.items():
            if process_start_time(peer.address.pid) != peer.address.start_time:
                raise WorkerLostError(
                    f"rank {rank} (process {peer.address.pid}) has died while rank {self.rank} waited", missing=[rank]
                )

    def close(self) -> None:
        """Ends this rank's part: waiting peers learn it, and all memory and descriptors are given back."""
        if self._closed:
            return
        self._closed = True
        self._words[_STATE] = _CLOSED
        self._tell()
        for peer in self.peers.values():
            peer.close()
        for slot in self._slots:
            slot.close()
        self._words.release()
        self._control.release()
        self._memory.close()
        os.close(self._descriptor)
