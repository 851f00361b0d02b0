"""The Ray actor around a worker: its group of peers, its batches, and a control line that answers while it computes.

Invariant: a batch and its answer travel as flat bytes, so that Ray pickles nothing: our own messages, pickled once for
all workers that get the same, and beside them tensor data as it lies in memory.
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
from distgrad.runtime.line import DRIVER, Batch, Buffer, Count, Listener, WorkerEnd, call
from distgrad.runtime.messages import Message, Put, Reply
from distgrad.runtime.relay import LeaderEnd
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
        host = ray.util.get_node_ip_address()
        self._group = Group(
            settings.rank, settings.world_size, session=settings.session, secret=settings.secret,
            epoch=settings.epoch, node_id=self._node_id, timeout=settings.timeout, force_network=settings.force_network,
            host=host,
        )
        self._worker = Worker(settings.rank, settings.world_size, settings.memory, self._group.bytes_for)
        self._listener = Listener(settings.secret, host)

    def __repr__(self) -> str:
        """Is what Ray puts before the lines a worker prints."""
        return f"distgrad worker {self._settings.rank}"

    def identity(self) -> Identity:
        """Says who this worker is."""
        return Identity(
            self._settings.rank, os.getpid(), start_time(os.getpid()), self._node_id, socket.gethostname(),
            self._threads, os.getpriority(os.PRIO_PROCESS, 0), self._group.address(), self._listener.address,
        )

    def connect(self, addresses: list[Address]) -> None:
        """Opens the channels to the other ranks."""
        self._group.connect(addresses)
        if compiled.enabled():  # the last thing before work comes: the kernels of the first step are wanted soon
            compiled.warm_up_in_background()

    def serve(self, team: tuple[int, ...], leader: tuple[str, int]) -> None:
        """Carries out the batches that come on the control line, until the driver closes it.

        `team`: the ranks that are reached through the first of them, this one among them; `leader`: where that one is called.
        """
        line = self._open_line(team, leader)
        try:
            while (batch := line.receive()) is not None:
                answer = self._carry_out(batch)
                del batch  # it may be large, and the next one is long in coming
                line.answer(*answer)
        finally:
            line.close()

    def _open_line(self, team: tuple[int, ...], leader: tuple[str, int]) -> WorkerEnd:
        settings = self._settings
        first, *others = team
        if settings.rank == first and others:
            callers = self._listener.accept({DRIVER, *(rank + 1 for rank in others)}, settings.timeout)
            return LeaderEnd(callers[DRIVER], [callers[rank + 1] for rank in others])
        above = None if settings.rank == first else call(leader, settings.secret, settings.rank + 1, settings.timeout)
        return WorkerEnd(self._listener.accept({DRIVER}, settings.timeout)[DRIVER], above)

    def execute(self, head: bytes, data: bytes | None) -> bytes:
        """Carries out a batch that came as a call of Ray's, and gives its count and its report, if there is one."""
        last_run, sent, collectives, report = self._carry_out((head, data))
        count = Count(1, -1 if last_run is None else last_run, sent, collectives, report is not None)
        return count.pack() + (report or b"")

    def _carry_out(self, batch: Batch) -> tuple[int | None, int, int, bytes | None]:
        """Gives the batch's last run, the bytes sent and exchanges done so far, and what there is to report.

        Only infrastructure errors are raised; a program's own are reported. After such an error the session is over:
        batches that were on their way are passed over.
        """
        rank, group = self._settings.rank, self._group
        if self._over:
            return None, group.bytes_sent, group.collectives, None
        try:
            reply = drive(self._worker.carry_out(unpack_messages(*batch)), rank, group.carry_out)
        except BaseException:
            self._over = True
            raise
        told = reply.failures or reply.returned or reply.fetched or reply.notices
        report = pack_reply(replace(reply, last_run=None)) if told else None
        return reply.last_run, group.bytes_sent, group.collectives, report

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


def pack_messages(batches: Sequence[list[Message]]) -> tuple[list[bytes | None], dict[int, Buffer]]:
    """Gives each worker's head, None for an empty batch, and the data of those that have some.

    A head that is the same for all workers is pickled once, and is one object.
    """
    heads: list[bytes | None] = []
    data: dict[int, Buffer] = {}
    first: list[Message] = []
    same: bytes | None = None
    simple = False  # the first batch puts nothing: most batches, and worth a short way
    for rank, batch in enumerate(batches):
        if simple and batch == first:
            heads.append(same)
            continue
        arrays = [m.array for m in batch if type(m) is Put and m.array is not None]
        if arrays:
            data[rank] = wire.pack_arrays(arrays)
            places = iter(range(len(arrays)))
            batch = [
                Put(m.slot, Packed(next(places))) if type(m) is Put and m.array is not None else m  # type: ignore[arg-type]
                for m in batch
            ]
        if not batch:
            heads.append(None)
        elif same is not None and batch == first:
            heads.append(same)
        else:
            heads.append(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL))
            if same is None:
                first, same = batch, heads[-1]
                simple = all(type(message) is not Put for message in batch)
    return heads, data


def unpack_messages(head: bytes, data: Buffer | None) -> list[Message]:
    """Puts the arrays back into a batch, as arrays of this process: off the received buffer, into our own memory."""
    messages = pickle.loads(head) if head else []
    if data is None:
        return messages
    arrays = wire.unpack_arrays(memoryview(data))
    large = sum(a.nbytes for a in arrays if a.nbytes >= LARGE) >= IN_PLACE * len(data)
    memory = data if large and isinstance(data, bytearray) else None
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
