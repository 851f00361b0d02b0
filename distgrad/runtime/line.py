"""The control line: one authenticated socket from the driver to each worker, on which batches go and answers come back.

A frame is its length and that many bytes. Invariant: nobody is heard who has not proved, by HMAC over fresh challenges,
that it knows the session's secret; and a driver that waits for room in a worker's socket goes on taking answers, so that
two ends never wait for each other.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from distgrad.errors import CollectiveTimeout, WireError
from distgrad.runtime.interrupts import uninterrupted

_LENGTH = struct.Struct("<Q")
_LONGEST = 1 << 42  # bytes of a frame; what is longer is no frame of ours
_MAGIC = b"dgL1"
_CHALLENGE = 32
_GREETING_SECONDS = 5.0
_ROOM = 1 << 22  # bytes that a socket takes without a reader: many steps' messages

Broken = Callable[[int, BaseException | None], BaseException]
"""Gives the error to raise when the line to a rank has ended."""


def _proof(secret: bytes, side: bytes, challenges: bytes) -> bytes:
    return hmac.digest(secret, _MAGIC + side + challenges, "sha256")


def _exactly(endpoint: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = endpoint.recv(size - len(data))
        if not part:
            raise ConnectionError("the other end closed the line")
        data += part
    return bytes(data)


def _prepare(endpoint: socket.socket) -> None:
    endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with suppress(OSError):
            endpoint.setsockopt(socket.SOL_SOCKET, option, _ROOM)


class WorkerEnd:
    """A worker's end: listens for the driver, then receives batches and sends answers."""

    def __init__(self, secret: bytes, host: str) -> None:
        self._secret = secret
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.address: tuple[str, int] = (host, self._listener.getsockname()[1])
        self._endpoint: socket.socket | None = None

    def accept(self, seconds: float) -> None:
        """Waits for the driver; CollectiveTimeout when it has not called after `seconds`."""
        deadline = time.monotonic() + seconds
        with self._listener as listener:
            while self._endpoint is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CollectiveTimeout(f"the driver did not call within {seconds:g} s", seconds=seconds)
                listener.settimeout(left)
                with suppress(TimeoutError):
                    self._greet(listener.accept()[0])

    def _greet(self, endpoint: socket.socket) -> None:
        endpoint.settimeout(_GREETING_SECONDS)
        try:
            theirs = _exactly(endpoint, len(_MAGIC) + _CHALLENGE)
            ours = os.urandom(_CHALLENGE)
            challenges = theirs[len(_MAGIC) :] + ours
            endpoint.sendall(ours + _proof(self._secret, b"worker", challenges))
            given = _exactly(endpoint, 32)
            if theirs[: len(_MAGIC)] == _MAGIC and hmac.compare_digest(given, _proof(self._secret, b"driver", challenges)):
                endpoint.settimeout(None)
                _prepare(endpoint)
                self._endpoint = endpoint
        except OSError:  # a stranger; the driver may still call
            pass
        finally:
            if self._endpoint is not endpoint:
                endpoint.close()

    def receive(self) -> bytearray | None:
        """Gives the next batch, waiting for it as long as the driver lives; None when the driver has closed the line."""
        assert self._endpoint is not None
        size = self._into(bytearray(_LENGTH.size))
        if size is None:
            return None
        (length,) = _LENGTH.unpack(size)
        if length > _LONGEST:
            raise WireError(f"the driver's frame announces {length} bytes")
        return self._into(bytearray(length))

    def _into(self, data: bytearray) -> bytearray | None:
        assert self._endpoint is not None
        view, done = memoryview(data), 0
        while done < len(data):
            try:
                count = self._endpoint.recv_into(view[done:])
            except OSError:
                return None
            if not count:
                return None
            done += count
        view.release()
        return data

    def send(self, answer: bytes) -> None:
        """Sends an answer; a driver that is gone does not hear it, which is no error of the worker's."""
        assert self._endpoint is not None
        with suppress(OSError):
            self._endpoint.sendall(_LENGTH.pack(len(answer)) + answer)

    def close(self) -> None:
        """Closes the line: a driver that waits learns it at once."""
        self._listener.close()
        if self._endpoint is not None:
            self._endpoint.close()


class _Incoming:
    """A frame being received: first its length, then its bytes."""

    __slots__ = ("body", "data", "done")

    def __init__(self) -> None:
        self.body, self.done, self.data = False, 0, bytearray(_LENGTH.size)


class DriverEnd:
    """The driver's ends of all lines. `broken(rank, error)` gives the error to raise when one has ended."""

    def __init__(
        self, addresses: Sequence[tuple[str, int]], secret: bytes, broken: Broken, alive: Callable[[], None]
    ) -> None:
        self._broken, self._alive = broken, alive
        self._sockets: list[socket.socket] = []
        self._incoming = [_Incoming() for _ in addresses]
        self._poll = select.poll()
        self._ranks: dict[int, int] = {}
        self._arrived: list[tuple[int, bytearray]] = []
        self.awaited = [0] * len(addresses)
        try:
            for rank, address in enumerate(addresses):
                endpoint = self._call(address, secret)
                self._sockets.append(endpoint)
                self._ranks[endpoint.fileno()] = rank
                self._poll.register(endpoint, select.POLLIN)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _call(address: tuple[str, int], secret: bytes) -> socket.socket:
        """Connects to a worker; OSError when it cannot be reached, WireError when it is not one of ours."""
        endpoint = socket.create_connection(address, timeout=_GREETING_SECONDS)
        try:
            ours = os.urandom(_CHALLENGE)
            endpoint.sendall(_MAGIC + ours)
            answer = _exactly(endpoint, _CHALLENGE + 32)
            challenges = ours + answer[:_CHALLENGE]
            if not hmac.compare_digest(answer[_CHALLENGE:], _proof(secret, b"worker", challenges)):
                raise WireError(f"what answers at {address[0]}:{address[1]} does not know the secret of this session")
            endpoint.sendall(_proof(secret, b"driver", challenges))
            endpoint.setblocking(False)
            _prepare(endpoint)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def send(self, rank: int, packed: bytes) -> None:
        """Sends a batch; waits while the worker's socket is full, and takes answers meanwhile."""
        parts = deque((memoryview(_LENGTH.pack(len(packed))), memoryview(packed)))
        self.awaited[rank] += 1
        endpoint = self._sockets[rank]
        while True:
            try:
                sent = endpoint.sendmsg(parts)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._broken(rank, error) from error
            while parts and sent >= parts[0].nbytes:
                sent -= parts.popleft().nbytes
            if not parts:
                return
            parts[0] = parts[0][sent:]
            self._await_room(endpoint)

    def _await_room(self, endpoint: socket.socket) -> None:
        self._poll.modify(endpoint, select.POLLIN | select.POLLOUT)
        try:
            self.poll(0.25)
            self._alive()
        finally:
            self._poll.modify(endpoint, select.POLLIN)

    def poll(self, seconds: float) -> bool:
        """Receives what has come, waiting up to `seconds` for something; says whether answers are there to be taken."""
        ready = self._poll.poll(seconds * 1000)
        if ready:
            with uninterrupted():  # what was received must be counted
                for descriptor, events in ready:
                    if events & ~select.POLLOUT:
                        self._receive(self._ranks[descriptor])
        return bool(self._arrived)

    def _receive(self, rank: int) -> None:
        endpoint = self._sockets[rank]
        while True:
            state = self._incoming[rank]
            try:
                count = endpoint.recv_into(memoryview(state.data)[state.done :])
            except BlockingIOError:
                return
            except OSError as error:
                raise self._broken(rank, error) from error
            if not count:
                raise self._broken(rank, None)
            state.done += count
            if state.done < len(state.data):
                continue
            if state.body:
                self._arrived.append((rank, state.data))
                self.awaited[rank] -= 1
                self._incoming[rank] = _Incoming()
                if not self.awaited[rank]:
                    return
            else:
                (length,) = _LENGTH.unpack(state.data)
                if length > _LONGEST:
                    raise WireError(f"the answer of worker {rank} announces {length} bytes", source=rank)
                state.body, state.done, state.data = True, 0, bytearray(length)

    def take(self) -> list[tuple[int, bytearray]]:
        """Gives the answers that have arrived, with their ranks."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def close(self) -> None:
        """Closes all lines."""
        for endpoint in self._sockets:
            endpoint.close()
