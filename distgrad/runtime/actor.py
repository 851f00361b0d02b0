"""The Ray actor around a worker: its group of peers, its batches, and a control line that answers while it computes.

Invariant: a batch and its answer travel as flat bytes, so that Ray pickles nothing: our own messages, pickled once for
all workers that get the same, and after them tensor data as it lies in memory.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from distgrad.kernels import compiled
from distgrad.runtime import threads, wire
from distgrad.runtime.guard import start_time
from distgrad.runtime.line import WorkerEnd
from distgrad.runtime.messages import Message, Put, Reply
from distgrad.runtime.transport import Address, Group
from distgrad.runtime.worker import Worker, drive

CONTROL = "control"  # the concurrency group of what answers while a batch runs
_LENGTH = struct.Struct("<Q")
IN_PLACE = 0.9  # of a batch's bytes that large arrays are, for them to stay where they were received
LARGE = 8 << 20  # bytes; smaller ones are copied, as memory of their own can be written over


@dataclass(frozen=True, slots=True)
class Packed:
    """Stands in a message or reply for an array that travels beside it; `index` is its place there."""

    index: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told at its start. `timeout` in seconds, `memory` in bytes; `secret` is the session's.

    `fused`: with compiled kernels.
    """

    rank: int
    world_size: int
    session: str
    secret: bytes
    epoch: int
    timeout: float
    force_network: bool
    threads: int
    fused: bool
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is: process, when that started (in clock ticks after boot), node, BLAS threads, niceness, addresses."""

    rank: int
    pid: int
    started: int | None
    node_id: str
    hostname: str
    threads: int
    niceness: int
    address: Address
    line: tuple[str, int]


class WorkerActor:
    """Runs on Ray, one per rank. `execute` carries out batches in order; the other methods answer meanwhile."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        compiled.enable(settings.fused)
        self._threads = threads.pin(int(os.environ.get("OMP_NUM_THREADS") or settings.threads))
        self._node_id = ray.get_runtime_context().get_node_id()
        self._over = False
        self._worker = Worker(settings.rank, settings.world_size, settings.memory)
        host = ray.util.get_node_ip_address()
        self._group = Group(
            settings.rank, settings.world_size, session=settings.session, secret=settings.secret,
            epoch=settings.epoch, node_id=self._node_id, timeout=settings.timeout, force_network=settings.force_network,
            host=host,
        )
        self._line = WorkerEnd(settings.secret, host)

    def __repr__(self) -> str:
        """Is what Ray puts before the lines a worker prints."""
        return f"distgrad worker {self._settings.rank}"

    def identity(self) -> Identity:
        """Says who this worker is."""
        return Identity(
            self._settings.rank, os.getpid(), start_time(os.getpid()), self._node_id, socket.gethostname(),
            self._threads, os.getpriority(os.PRIO_PROCESS, 0), self._group.address(), self._line.address,
        )

    def connect(self, addresses: list[Address]) -> None:
        """Opens the channels to the other ranks."""
        self._group.connect(addresses)
        if compiled.enabled():  # the last thing before work comes: the kernels of the first step are wanted soon
            compiled.warm_up_in_background()

    def serve(self) -> None:
        """Carries out the batches that come on the control line, until the driver closes it."""
        try:
            self._line.accept(self._settings.timeout)
            while (packed := self._line.receive()) is not None:
                answer = self.execute(packed)
                del packed  # it may be large, and the next one is long in coming
                self._line.send(answer)
        finally:
            self._line.close()

    def execute(self, packed: bytes | bytearray) -> bytes:
        """Carries out a batch. Only infrastructure errors are raised; a program's own go back in the reply.

        After such an error the session is over: batches that were on their way are passed over.
        """
        rank = self._settings.rank
        if self._over:
            return pack_reply(Reply(rank))
        try:
            reply = drive(self._worker.carry_out(unpack_messages(packed)), rank, self._group.run)
        except BaseException:
            self._over = True
            raise
        return pack_reply(replace(reply, sent=self._group.bytes_sent, collectives=self._group.collectives))

    @ray.method(concurrency_group=CONTROL)
    def ping(self) -> int:
        """Answers while a batch runs."""
        return os.getpid()

    @ray.method(concurrency_group=CONTROL)
    def abort(self, reason: str) -> None:
        """Makes the running batch give up its exchange."""
        self._group.abort(reason)


def _joined(value: Any, arrays: list[np.ndarray]) -> bytes:
    head = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if not arrays:
        return b"".join((_LENGTH.pack(len(head)), head))
    head += bytes(-(_LENGTH.size + len(head)) % wire.ALIGNMENT)  # after the pickle's end, which is marked
    return b"".join((_LENGTH.pack(len(head)), head, memoryview(wire.pack_arrays(arrays))))


def _split(packed: bytes | bytearray) -> tuple[Any, list[np.ndarray]]:
    """Gives the value and its arrays, which are read-only views of `packed`."""
    (length,) = _LENGTH.unpack_from(packed)
    end = _LENGTH.size + length
    view = memoryview(packed)
    return pickle.loads(view[_LENGTH.size : end]), wire.unpack_arrays(view[end:]) if end < len(packed) else []


def pack_messages(batches: Sequence[list[Message]]) -> list[bytes]:
    """Gives each worker's batch as bytes; a batch without data that is the same for all is pickled once."""
    packed: list[bytes] = []
    same: bytes | None = None
    for batch in batches:
        arrays: list[np.ndarray] = []
        plain: list[Message] = []
        for message in batch:
            if type(message) is Put and message.array is not None:
                plain.append(Put(message.slot, Packed(len(arrays))))  # type: ignore[arg-type]  # see Packed
                arrays.append(message.array)
            else:
                plain.append(message)
        if arrays:
            packed.append(_joined(plain, arrays))
        elif same is not None and _alike(batch, batches[0]):
            packed.append(same)
        else:
            packed.append(_joined(plain, []))
            if batch is batches[0]:
                same = packed[-1]
    return packed


def _alike(batch: list[Message], other: list[Message]) -> bool:
    return len(batch) == len(other) and all(a is b for a, b in zip(batch, other))


def unpack_messages(packed: bytes | bytearray) -> list[Message]:
    """Puts the arrays back into a batch: copied, or where they are when large ones are nearly all of it."""
    messages, arrays = _split(packed)
    if not arrays:
        return messages
    large = sum(a.nbytes for a in arrays if a.nbytes >= LARGE) >= IN_PLACE * len(packed)
    memory = packed if large and isinstance(packed, bytearray) else None
    return [
        Put(m.slot, _taken(arrays[m.array.index], memory)) if type(m) is Put and type(m.array) is Packed else m
        for m in messages
    ]


def _taken(array: np.ndarray, memory: bytearray | None) -> np.ndarray:
    """Gives an array of this process: a copy, or a large one in the memory it was received in."""
    if memory is None or array.nbytes < LARGE:
        return np.array(array)
    start = array.__array_interface__["data"][0] - np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    found = np.ndarray(array.shape, array.dtype, memory, start)
    return found if found.flags.carray else np.array(array)


def pack_reply(reply: Reply) -> bytes:
    """Gives a reply as bytes."""
    arrays: list[np.ndarray] = []

    def packed(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return Packed(len(arrays) - 1)
        return value

    if reply.returned or reply.fetched:
        returned = tuple((sequence, tuple(map(packed, values))) for sequence, values in reply.returned)
        fetched = tuple((request, packed(value)) for request, value in reply.fetched)
        reply = replace(reply, returned=returned, fetched=fetched)
    return _joined(reply, arrays)


def unpack_reply(data: bytes | bytearray) -> Reply:
    """Puts the arrays back into a reply, as arrays of this process."""
    reply, arrays = _split(data)
    if not arrays:
        return reply

    def unpacked(value: Any) -> Any:
        return np.array(arrays[value.index]) if type(value) is Packed else value

    returned = tuple((sequence, tuple(map(unpacked, values))) for sequence, values in reply.returned)
    fetched = tuple((request, unpacked(value)) for request, value in reply.fetched)
    return replace(reply, returned=returned, fetched=fetched)
