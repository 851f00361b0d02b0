"""The Ray actor around a worker: its group of peers, its batches, and a control line that answers while it computes."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


from distgrad.runtime import wire
from distgrad.runtime.messages import Message, Put, Reply
from distgrad.runtime.transport import Address, Group
from distgrad.runtime.worker import Worker, drive


@dataclass(frozen=True, slots=True)
class Packed:
    """Stands in a message or reply for an array that travels beside it; `index` is its place there."""

    index: int


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told at its start. `timeout` in seconds; `secret` is shared by the session's processes."""

    rank: int
    world_size: int
    session: str
    secret: bytes
    epoch: int
    timeout: float
    force_network: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is: process, when that started (in clock ticks after boot), node, thread count, niceness."""

    rank: int
    pid: int
    started: int | None
    node_id: str
    hostname: str
    threads: int
    niceness: int
    address: Address


class WorkerActor:
    """Runs on Ray, one per rank. `execute` carries out batches in order; `ctl` methods answer meanwhile."""

    def __init__(self, settings: Settings) -> None:
        import ray

        self._settings = settings
        node_id = ray.get_runtime_context().get_node_id()
        self._node_id = node_id
        self._worker = Worker(settings.rank, settings.world_size)
        self._group = Group(
            settings.rank, settings.world_size, session=settings.session, secret=settings.secret,
            epoch=settings.epoch, node_id=node_id, timeout=settings.timeout, force_network=settings.force_network,
            host=ray.util.get_node_ip_address(),
        )
        self._busy = threading.Lock()

    def identity(self) -> Identity:
        """Says who this worker is."""
        import socket

        from distgrad.runtime.shared_memory import process_start_time

        return Identity(
            self._settings.rank, os.getpid(), process_start_time(os.getpid()), self._node_id, socket.gethostname(),
            int(os.environ.get("OMP_NUM_THREADS", "0")), os.getpriority(os.PRIO_PROCESS, 0), self._group.address(),
        )

    def connect(self, addresses: list[Address]) -> None:
        """Opens the channels to the other ranks."""
        self._group.connect(addresses)

    def execute(self, messages: list[Message], payload: bytes | None) -> tuple[Reply, bytes | None]:
        """Carries out a batch. Only infrastructure errors are raised; a program's own go back in the reply."""
        with self._busy:
            if payload is not None:
                arrays = wire.unpack_arrays(payload)
                messages = [_unpacked(m, arrays) for m in messages]
            reply = drive(self._worker.carry_out(messages), self._settings.rank, self._group.run)
            reply = replace(reply, sent=self._group.bytes_sent, collectives=self._group.collectives)
            return pack_reply(reply)

    def ping(self) -> int:
        """Answers while a batch runs."""
        return os.getpid()

    def abort(self, reason: str) -> None:
        """Makes the running batch give up its exchange."""
        self._group.abort(reason)

    def stop(self) -> None:
        """Gives back memory and sockets and ends the process."""
        import ray

        self._group.abort("the session was shut down")
        with self._busy:
            self._group.close()
        ray.actor.exit_actor()


def _unpacked(message: Message, arrays: list[np.ndarray]) -> Message:
    if isinstance(message, Put) and isinstance(message.array, Packed):
        return Put(message.slot, np.array(arrays[message.array.index]))  # off the driver's buffer, into our own memory
    return message


def pack_messages(messages: list[Message]) -> tuple[list[Message], bytes | None]:
    """Takes the arrays out of a batch and gives them as one flat buffer (None: there are none)."""
    arrays: list[np.ndarray] = []
    plain: list[Message] = []
    for message in messages:
        if isinstance(message, Put) and message.array is not None:
            plain.append(Put(message.slot, Packed(len(arrays))))  # type: ignore[arg-type]  # see Packed
            arrays.append(message.array)
        else:
            plain.append(message)
    return plain, bytes(memoryview(wire.pack_arrays(arrays))) if arrays else None


def pack_reply(reply: Reply) -> tuple[Reply, bytes | None]:
    """Takes the arrays out of a reply, as `pack_messages` does."""
    if not reply.returned and not reply.fetched:
        return reply, None
    arrays: list[np.ndarray] = []

    def packed(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return Packed(len(arrays) - 1)
        return value

    returned = tuple((sequence, tuple(map(packed, values))) for sequence, values in reply.returned)
    fetched = tuple((request, packed(value)) for request, value in reply.fetched)
    return replace(reply, returned=returned, fetched=fetched), bytes(memoryview(wire.pack_arrays(arrays)))


def unpack_reply(reply: Reply, payload: bytes | None) -> Reply:
    """Puts the arrays back into a reply, as arrays of this process."""
    if payload is None:
        return reply
    arrays = wire.unpack_arrays(payload)

    def unpacked(value: Any) -> Any:
        return np.array(arrays[value.index]) if isinstance(value, Packed) else value

    returned = tuple((sequence, tuple(map(unpacked, values))) for sequence, values in reply.returned)
    fetched = tuple((request, unpacked(value)) for request, value in reply.fetched)
    return replace(reply, returned=returned, fetched=fetched)


