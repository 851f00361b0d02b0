"""Frames between workers of different nodes: one authenticated socket per pair of ranks, Arrow IPC messages on it.

A frame is the fixed header followed by one Arrow record-batch message of a flat uint8 column. Invariant: a peer is heard only
after it has proved, by HMAC over fresh challenges, that it knows the session secret; memory is allocated for a frame only
when its header announces exactly the bytes that are expected. One thread drives all sockets, so two ranks that send to
each other at once cannot block each other.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distgrad.errors import WireError, WorkerLostError
from distgrad.runtime.collectives import Payload, flat_bytes, payload_bytes
from distgrad.runtime.wire import HEADER, MAX_PREFIX, Identity, message_envelope, open_message

TICK = 0.05
"""Seconds between looks at what can end a wait."""

Check = Callable[[Sequence[int]], None]
"""Called with the ranks still missing, at least once per tick; raises to end the wait."""

_MAX_PARTS = 256
"""Pieces of memory given to one send: below the least IOV_MAX of the systems we run on."""

# The greeting: who calls whom, in which epoch, and a challenge; then each side's proof.
_HELLO = struct.Struct("<4sHHIIQ16s32s")
_REPLY = struct.Struct("<B32s32s")
_MAGIC = b"dgHi"
_VERSION = 1
_ACCEPTED, _WRONG_SESSION, _WRONG_EPOCH, _WRONG_RANK = range(4)
_REFUSALS = {
    _WRONG_SESSION: "it belongs to another session or holds another secret",
    _WRONG_EPOCH: "it is in another epoch",
    _WRONG_RANK: "it is not the rank or not of the format that was called",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """A frame to come: its round, its length in bytes, the code of its dtype, and the memory for its bytes if they are not
    only to be looked at."""

    sequence: int
    length: int
    code: int
    into: np.ndarray | None = None


_HEADER, _PREFIX, _BODY, _MESSAGE = range(4)


class _Incoming:
    """What is being received from one rank, frame after frame: a header, then an Arrow message, in one or two parts."""

    __slots__ = ("frames", "memory", "message", "part", "position", "total")

    def __init__(self, frames: Sequence[Expected]) -> None:
        self.frames = deque(frames)
        self.message = np.empty(0, np.uint8)
        self.begin(_HEADER, np.empty(HEADER.size, np.uint8))

    def begin(self, part: int, message: np.ndarray) -> None:
        """Makes ready to receive a part of the current frame."""
        self.part, self.message, self.memory = part, message, message.data
        self.position, self.total = 0, message.size


class _Connection:
    """The socket to one rank, and the memory its frames are received into, reused from round to round."""

    def __init__(self, rank: int, endpoint: socket.socket) -> None:
        self.rank, self.socket = rank, endpoint
        self.descriptor = endpoint.fileno()
        self.buffer = np.empty(0, np.uint8)
        endpoint.setblocking(False)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send(self, parts: list[memoryview]) -> None:
        """Sends as much of `parts` as the socket takes now, and removes it from the list."""
        while parts:
            try:
                sent = self.socket.sendmsg(parts[:_MAX_PARTS])
            except BlockingIOError:
                return
            except OSError as error:
                raise self._lost(error) from error
            done = 0
            while done < len(parts) and sent >= parts[done].nbytes:
                sent -= parts[done].nbytes
                done += 1
            del parts[:done]
            if sent:
                parts[0] = parts[0][sent:]

    def receive(self, incoming: _Incoming) -> bool:
        """Receives what is there; returns whether the current part is complete."""
        while incoming.position < incoming.total:
            try:
                count = self.socket.recv_into(incoming.memory[incoming.position :])
            except BlockingIOError:
                return False
            except OSError as error:
                raise self._lost(error) from error
            if count == 0:
                raise self._lost(None)
            incoming.position += count
        return True

    def reserve(self, size: int) -> np.ndarray:
        """Returns `size` bytes of the receive buffer."""
        if self.buffer.size < size:
            self.buffer = np.empty(size, np.uint8)
        return self.buffer[:size]

    def check(self) -> None:
        """Raises WorkerLostError when the other end is closed and all that it has sent was received."""
        try:
            if self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                raise self._lost(None)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError | None) -> WorkerLostError:
        reason = "closed its connection" if error is None else f"cannot be reached ({error})"
        return WorkerLostError(f"rank {self.rank} {reason}: its worker has died or was shut down", missing=[self.rank])


class Network:
    """This rank's listening socket and its connections to ranks of other nodes."""

    def __init__(self, rank: int, world_size: int, identity: Identity, secret: bytes, host: str) -> None:
        self.rank, self.world_size, self.identity, self.secret = rank, world_size, identity, secret
        self.peers: dict[int, _Connection] = {}
        self._unsent: dict[int, list[memoryview]] = {}  # of rounds that were begun
        self._coming: dict[int, _Incoming] = {}
        self._arrived: dict[int, list[np.ndarray | None]] = {}  # by round
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener: socket.socket | None = socket.create_server(
            (host, 0), family=family, backlog=max(world_size, 8)
        )
        self.port: int = self._listener.getsockname()[1]

    # Connecting

    def connect(self, addresses: Mapping[int, tuple[str, int]], check: Check) -> None:
        """Connects to the given ranks: calls the lower ones, is called by the higher ones. Called once."""
        assert self._listener is not None
        try:
            callers = {rank for rank in addresses if rank > self.rank}
            acceptor = _Acceptor(self, self._listener, callers)
            try:
                for rank in sorted(addresses):
                    if rank < self.rank:
                        self.peers[rank] = _Connection(rank, self._call(rank, addresses[rank], check))
                acceptor.wait(check)
            finally:
                for rank, endpoint in acceptor.stop().items():
                    self.peers[rank] = _Connection(rank, endpoint)
        finally:
            self._close_listener()

    def _call(self, rank: int, address: tuple[str, int], check: Check) -> socket.socket:
        """Connects to a lower rank and proves to each other that both know the secret."""
        while True:
            check([rank])
            try:
                endpoint = socket.create_connection(address, timeout=1.0)
                break
            except TimeoutError:
                continue
            except OSError as error:
                raise WorkerLostError(
                    f"rank {rank} at {address[0]}:{address[1]} cannot be reached from rank {self.rank} ({error})",
                    missing=[rank],
                ) from error
        try:
            challenge = os.urandom(32)
            endpoint.settimeout(TICK)
            hello = _HELLO.pack(
                _MAGIC, _VERSION, 0, self.rank, rank, self.identity.epoch, self.identity.token, challenge
            )
            endpoint.sendall(hello)
            status, answer, proof = _REPLY.unpack(_receive_exactly(endpoint, _REPLY.size, rank, check))
            if status != _ACCEPTED:
                reason = _REFUSALS.get(status, f"unknown reply {status}")
                raise WireError(
                    f"rank {rank} at {address[0]}:{address[1]} refused rank {self.rank}: {reason}", source=rank
                )
            if not hmac.compare_digest(proof, self._proof(b"listener", hello, answer)):
                raise WireError(
                    f"rank {rank} at {address[0]}:{address[1]} does not know the secret of this session", source=rank
                )
            endpoint.sendall(self._proof(b"caller", hello, answer))
            _receive_exactly(endpoint, 1, rank, check)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def _answer(self, endpoint: socket.socket, callers: set[int], check: Check) -> int | None:
        """Answers one caller; returns its rank, or None if it is not one of this group's."""
        endpoint.settimeout(TICK)
        hello = _receive_exactly(endpoint, _HELLO.size, -1, check)
        magic, version, _, caller, called, epoch, token, _ = _HELLO.unpack(hello)
        status = _ACCEPTED
        if magic != _MAGIC or version != _VERSION or called != self.rank or caller not in callers:
            status = _WRONG_RANK
        elif not hmac.compare_digest(token, self.identity.token):
            status = _WRONG_SESSION
        elif epoch != self.identity.epoch:
            status = _WRONG_EPOCH
        answer = os.urandom(32)
        proof = self._proof(b"listener", hello, answer) if status == _ACCEPTED else bytes(32)
        endpoint.sendall(_REPLY.pack(status, answer, proof))
        if status != _ACCEPTED:
            return None
        given = _receive_exactly(endpoint, 32, caller, check)
        if not hmac.compare_digest(given, self._proof(b"caller", hello, answer)):
            return None
        endpoint.sendall(b"\1")
        return caller

    def _proof(self, side: bytes, hello: bytes, answer: bytes) -> bytes:
        return hmac.digest(self.secret, side + hello + answer, "sha256")

    # Exchanging

    def exchange(
        self,
        sequence: int,
        send: Sequence[Payload | None],
        expect: Sequence[int],
        code: int,
        received: list[np.ndarray | None],
        check: Check,
    ) -> None:
        """Sends and receives the frames of one round; puts read-only views of what arrived into `received`."""
        if self._arrived:  # frames of rounds that were begun are on the way before these
            self.begin(sequence, send, expect, code)
            received[:] = self.finish(sequence, check)
            return
        outgoing: dict[int, list[memoryview]] = {}
        incoming: dict[int, _Incoming] = {}
        for rank in self.peers:
            payload = send[rank]
            size = payload_bytes(payload)
            if payload is not None and size:
                outgoing[rank] = self._frame(rank, sequence, payload, size, code)
            if expect[rank]:
                incoming[rank] = _Incoming([Expected(sequence, expect[rank], code)])

        def keep(rank: int, _: int, frame: np.ndarray) -> None:
            received[rank] = frame

        self._transfer(outgoing, incoming, keep, check)

    def begin(self, sequence: int, send: Sequence[Payload | None], expect: Sequence[int], code: int) -> None:
        """Sends as much of a round's frames as the sockets take now; `finish` does the rest.

        What is to be sent may not be written before the round is finished.
        """
        self._arrived[sequence] = [None] * self.world_size
        for rank in self.peers:
            payload = send[rank]
            size = payload_bytes(payload)
            if payload is not None and size:
                self._unsent.setdefault(rank, []).extend(self._frame(rank, sequence, payload, size, code))
            if expect[rank]:
                frame = Expected(sequence, expect[rank], code, np.empty(expect[rank], np.uint8))
                if rank in self._coming:
                    self._coming[rank].frames.append(frame)
                else:
                    self._coming[rank] = _Incoming([frame])
        for rank in list(self._unsent):
            self._push(rank, self._unsent)

    def finish(self, sequence: int, check: Check) -> list[np.ndarray | None]:
        """Returns what every rank sent in a round that was begun, when it and all that this rank sends is through."""

        def keep(rank: int, number: int, frame: np.ndarray) -> None:
            self._arrived[number][rank] = frame

        self._transfer(self._unsent, self._coming, keep, check, until=sequence)
        return self._arrived.pop(sequence)

    def converse(
        self,
        rank: int,
        first: Sequence[tuple[int, Payload]],
        frames: Sequence[Expected],
        code: int,
        use: Callable[[int, np.ndarray], tuple[int, Payload] | None],
        check: Check,
    ) -> None:
        """Sends and receives frames of many rounds to and from one rank; no round waits for another.

        `first` are the (round, payload) to send at once. `use` is called with the round and the bytes of every frame of
        `frames` that has arrived, in order; the bytes are valid until it returns, and what it returns is sent next.
        What is to be sent may not be written before it was.
        """
        for begun in list(self._arrived):  # their frames are on the way before these
            self._arrived[begun] = self.finish(begun, check)

        def parts(sequence: int, payload: Payload) -> list[memoryview]:
            return self._frame(rank, sequence, payload, payload_bytes(payload), code)

        outgoing: dict[int, list[memoryview]] = {}
        sending = [part for sequence, payload in first for part in parts(sequence, payload)]
        if sending:
            outgoing[rank] = sending

        def deliver(_: int, sequence: int, frame: np.ndarray) -> None:
            answer = use(sequence, frame)
            if answer is not None:
                outgoing.setdefault(rank, []).extend(parts(*answer))

        self._transfer(outgoing, {rank: _Incoming(frames)}, deliver, check)

    def _transfer(
        self,
        outgoing: dict[int, list[memoryview]],
        incoming: dict[int, _Incoming],
        deliver: Callable[[int, int, np.ndarray], None],
        check: Check,
        until: int | None = None,
    ) -> None:
        """Sends and receives until both are empty; `deliver` gets rank, sequence number and bytes of every frame.

        With `until`, frames of later rounds than that one are not waited for.
        """
        for rank in list(outgoing):
            self._push(rank, outgoing)
        poll = select.poll()
        by_descriptor = {}
        for rank in {*outgoing, *incoming}:
            connection = self.peers[rank]
            by_descriptor[connection.descriptor] = rank
            poll.register(connection.descriptor, self._events(rank, outgoing, incoming))
        next_look = time.monotonic() + TICK
        while outgoing or (incoming if until is None else _awaited(incoming, until)):
            for descriptor, events in poll.poll(TICK * 1000):
                rank = by_descriptor[descriptor]
                failed = events & (select.POLLERR | select.POLLHUP)
                if rank in incoming and (events & select.POLLIN or failed):
                    self._pull(rank, incoming, outgoing, deliver)
                if rank in outgoing and (events & select.POLLOUT or failed):
                    self._push(rank, outgoing)
                wanted = self._events(rank, outgoing, incoming)
                if wanted:
                    poll.modify(descriptor, wanted)
                else:
                    poll.unregister(descriptor)
            if time.monotonic() >= next_look and (outgoing or incoming):
                check(sorted({*outgoing, *incoming}))
                next_look = time.monotonic() + TICK

    @staticmethod
    def _events(rank: int, outgoing: Mapping[int, object], incoming: Mapping[int, object]) -> int:
        return (select.POLLIN if rank in incoming else 0) | (select.POLLOUT if rank in outgoing else 0)

    def _frame(self, rank: int, sequence: int, payload: Payload, size: int, code: int) -> list[memoryview]:
        """Returns a frame as the pieces of memory to send, the payload's own memory among them."""
        before, after = message_envelope(size)
        header = bytearray(HEADER.size)
        self.identity.pack(
            header,
            0,
            source=self.rank,
            destination=rank,
            sequence=sequence,
            length=size,
            offset=len(before),
            code=code,
        )
        parts = payload if isinstance(payload, tuple) else (payload,)
        data = [flat_bytes(part).data for part in parts if part.nbytes]
        return [memoryview(bytes(header) + before), *data, *([memoryview(after)] if after else [])]

    def _push(self, rank: int, outgoing: dict[int, list[memoryview]]) -> None:
        self.peers[rank].send(outgoing[rank])
        if not outgoing[rank]:
            del outgoing[rank]

    def _pull(
        self,
        rank: int,
        incoming: dict[int, _Incoming],
        outgoing: dict[int, list[memoryview]],
        deliver: Callable[[int, int, np.ndarray], None],
    ) -> None:
        """Receives what has come from a rank, and keeps on sending to it between frames."""
        connection, state = self.peers[rank], incoming[rank]
        while connection.receive(state):
            frame = state.frames[0]
            length = frame.length
            if state.part == _HEADER:
                prefix = self.identity.check(
                    state.memory,
                    0,
                    source=rank,
                    destination=self.rank,
                    sequence=frame.sequence,
                    length=length,
                    code=frame.code,
                )
                if prefix > MAX_PREFIX:
                    raise WireError(f"frame from rank {rank} refused: its Arrow header has {prefix} bytes", source=rank)
                if frame.into is None or length % 8:
                    # Arrow pads the body of a message to 8 bytes.
                    state.begin(_MESSAGE, connection.reserve(prefix + -(-length // 8) * 8))
                else:
                    state.begin(_PREFIX, np.empty(prefix, np.uint8))
                continue
            if state.part == _PREFIX:
                assert frame.into is not None
                if bytes(state.memory) != message_envelope(length)[0]:
                    raise WireError(
                        f"frame from rank {rank} refused: not an Arrow record batch of one uint8 column of {length} bytes",
                        source=rank,
                    )
                state.begin(_BODY, frame.into)
                continue
            if state.part == _MESSAGE:
                data = open_message(pa.py_buffer(state.message), length)
                if frame.into is not None:
                    np.copyto(frame.into, data)
                    data = frame.into
            else:
                data = state.message
            state.frames.popleft()
            deliver(rank, frame.sequence, data)
            if rank in outgoing:
                self._push(rank, outgoing)
            if not state.frames:
                del incoming[rank]
                return
            state.begin(_HEADER, np.empty(HEADER.size, np.uint8))

    # Ending

    def check_peers(self) -> None:
        """Raises WorkerLostError when a process of this group on another node is gone."""
        for connection in self.peers.values():
            connection.check()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def close(self) -> None:
        """Closes all sockets; peers that wait for this rank learn it at once."""
        self._close_listener()
        for connection in self.peers.values():
            connection.socket.close()
            connection.buffer = np.empty(0, np.uint8)


def _awaited(incoming: Mapping[int, _Incoming], until: int) -> bool:
    """Says whether a frame of a round, or of an earlier one, has not arrived."""
    return any(state.frames[0].sequence <= until for state in incoming.values())


class _Acceptor:
    """Accepts the calls of higher ranks in the background, a thread per caller, so that no stranger can hold others up."""

    def __init__(self, network: Network, listener: socket.socket, callers: set[int]) -> None:
        self._network, self._listener, self._callers = network, listener, callers
        self._accepted: dict[int, socket.socket] = {}
        self._refused = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._complete = threading.Event()
        self._threads: list[threading.Thread] = []
        if callers:
            listener.settimeout(TICK)
            self._start(self._accept)
        else:
            self._complete.set()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="distgrad-connect", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                endpoint, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._start(self._greet, endpoint)

    def _greet(self, endpoint: socket.socket) -> None:
        try:
            rank = self._network._answer(endpoint, self._callers, self._check_ended)
        except (OSError, WorkerLostError, _Ended):
            rank = None
        with self._lock:
            if rank is None or rank in self._accepted or self._ended.is_set():
                self._refused += 1
                endpoint.close()
            else:
                self._accepted[rank] = endpoint
                if self._accepted.keys() == self._callers:
                    self._complete.set()

    def _check_ended(self, _: Sequence[int]) -> None:
        if self._ended.is_set():
            raise _Ended

    def wait(self, check: Check) -> None:
        """Returns when all callers are connected; `check` may end the wait."""
        while not self._complete.wait(TICK):
            with self._lock:
                missing = sorted(self._callers - self._accepted.keys())
            check(missing)

    def stop(self) -> dict[int, socket.socket]:
        """Ends all threads and returns the connections made."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        return self._accepted


class _Ended(Exception):
    """The acceptor was stopped while a caller was still being greeted."""


def _receive_exactly(endpoint: socket.socket, size: int, rank: int, check: Check) -> bytes:
    """Receives `size` bytes during the greeting from a socket whose timeout is one tick."""
    data = bytearray()
    while len(data) < size:
        try:
            part = endpoint.recv(size - len(data))
        except TimeoutError:
            check([rank])
            continue
        except ConnectionError as error:
            raise WorkerLostError(f"rank {rank} broke off the greeting ({error})", missing=[rank]) from error
        if not part:
            raise WorkerLostError(f"rank {rank} broke off the greeting", missing=[rank])
        data += part
    return bytes(data)
