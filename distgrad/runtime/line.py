"""The control line: authenticated sockets on which batches go from the driver to the workers and answers come back.

A batch is a head, the messages, and maybe data, the arrays of its `Put`s. An answer is a count of batches carried out,
one for several where it can wait, and maybe a report: failures and values. Heads and counts may go by way of one worker of
a node (see `relay`); data and reports go straight between the driver and their worker.

Invariant: nobody is heard who has not proved, by HMAC over fresh challenges, that it knows the session's secret; a driver
that waits for room in a worker's socket goes on taking answers, so that two ends never wait for each other; and a
count is given on only after every report it covers.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from distgrad.errors import CollectiveTimeout, WireError
from distgrad.runtime.interrupts import uninterrupted

Buffer = Any
"""Anything with the buffer interface."""

_FRAME = struct.Struct("<QII")  # bytes that follow, kind, a number: whether data follows a head
BATCH, PARTS, DATA, COUNT, REPORT = range(5)
_LONGEST = 1 << 42  # bytes of a frame; what is longer is no frame of ours
_COUNT = struct.Struct("<QqQQQ")
COUNT_BYTES = _COUNT.size
_MAGIC = b"dgL2"
_HELLO = struct.Struct("<4sI32s")  # who calls, and its challenge
_CHALLENGE = 32
_GREETING_SECONDS = 5.0
_ROOM = 1 << 22  # bytes that a socket takes without a reader: many steps' messages
_AT_ONCE = 1 << 16  # bytes asked of a socket at a time

DRIVER = 0
"""Who calls a worker: the driver, or the worker of rank `caller - 1`."""

LATER = 4
QUICK_SECONDS = 1e-3
"""Counts of batches that took no longer than this may wait for the next ones, when these are there, up to `LATER`."""

Broken = Callable[[int, BaseException | None], BaseException]
"""Gives the error to raise when the line to a rank has ended."""

Batch = tuple[bytes, Buffer | None]
"""The head and the data of a batch."""


class Count(NamedTuple):
    """How far workers are since the start: batches, the last run (-1: none), bytes sent, collectives, reports given."""

    batches: int
    last_run: int = -1
    sent: int = 0
    collectives: int = 0
    reports: int = 0

    def pack(self) -> bytes:
        """Gives it as `COUNT_BYTES` bytes."""
        return _COUNT.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | bytearray) -> Count:
        """Undoes `pack`; WireError for another length."""
        if len(data) != _COUNT.size:
            raise WireError(f"a count of {len(data)} bytes was refused; it has {_COUNT.size}: do versions differ?")
        return cls(*_COUNT.unpack(data))




def frame(kind: int, body: bytes, number: int = 0) -> bytes:
    """Gives a frame as bytes."""
    return _FRAME.pack(len(body), kind, number) + body


_PART = struct.Struct("<QI")


def pack_parts(heads: Sequence[tuple[bytes, bool]]) -> bytes:
    """Gives the heads of several workers, each with whether data follows, as the body of one frame."""
    table = b"".join(_PART.pack(len(head), follows) for head, follows in heads)
    return b"".join((table, *(head for head, _ in heads)))


def unpack_parts(body: bytes | bytearray, count: int) -> list[tuple[bytes, bool]]:
    """Undoes `pack_parts`; WireError when the bytes are not those of `count` heads."""
    at = count * _PART.size
    lengths = [_PART.unpack_from(body, i * _PART.size) for i in range(count)] if len(body) >= at else []
    if len(body) != at + sum(length for length, _ in lengths):
        raise WireError(f"a frame of {len(body)} bytes was refused: it is not that of {count} heads")
    parts = []
    for length, follows in lengths:
        parts.append((bytes(body[at : at + length]), bool(follows)))
        at += length
    return parts


class Frames:
    """The frames that come on a socket."""

    def __init__(self, endpoint: socket.socket) -> None:
        self.endpoint = endpoint
        self._rest = b""
        self._body, self._done, self._kind = bytearray(), 0, (-1, 0)

    def receive(self) -> Sequence[tuple[int, int, bytes | bytearray]]:
        """Asks the socket once and gives the frames that are complete: kind, number, body.

        ConnectionError when the other end has closed it.
        """
        if self._kind[0] >= 0:
            count = self.endpoint.recv_into(memoryview(self._body)[self._done :])
            self._require(count)
            self._done += count
            return (self._finished(),) if self._done == len(self._body) else ()
        data = self.endpoint.recv(_AT_ONCE)
        self._require(len(data))
        if self._rest:
            data = self._rest + data
        found: list[tuple[int, int, bytes | bytearray]] = []
        at = 0
        while len(data) - at >= _FRAME.size:
            length, kind, number = _FRAME.unpack_from(data, at)
            if length > _LONGEST:
                raise WireError(f"a frame of the control line announces {length} bytes")
            start = at + _FRAME.size
            at = start + length
            if at > len(data):
                self._body, self._done, self._kind = bytearray(length), len(data) - start, (kind, number)
                self._body[: self._done] = memoryview(data)[start:]
                self._rest = b""
                return found
            found.append((kind, number, data[start:at]))
        self._rest = data[at:]
        return found

    @staticmethod
    def _require(count: int) -> None:
        if not count:
            raise ConnectionError("the other end closed the line")

    def _finished(self) -> tuple[int, int, bytearray]:
        (kind, number), body = self._kind, self._body
        self._kind, self._body = (-1, 0), bytearray()
        return kind, number, body


# Greeting


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


def call(address: tuple[str, int], secret: bytes, caller: int, seconds: float = _GREETING_SECONDS) -> socket.socket:
    """Connects to a worker; OSError when it cannot be reached, WireError when it is not one of ours."""
    endpoint = socket.create_connection(address, timeout=seconds)
    try:
        hello = _HELLO.pack(_MAGIC, caller, os.urandom(_CHALLENGE))
        endpoint.sendall(hello)
        answer = _exactly(endpoint, _CHALLENGE + 32)
        challenges = hello + answer[:_CHALLENGE]
        if not hmac.compare_digest(answer[_CHALLENGE:], _proof(secret, b"called", challenges)):
            raise WireError(f"what answers at {address[0]}:{address[1]} does not know the secret of this session")
        endpoint.sendall(_proof(secret, b"caller", challenges))
        endpoint.settimeout(None)
        _prepare(endpoint)
    except BaseException:
        endpoint.close()
        raise
    return endpoint


class Listener:
    """Where a worker is called."""

    def __init__(self, secret: bytes, host: str) -> None:
        self._secret = secret
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.address: tuple[str, int] = (host, self._listener.getsockname()[1])

    def accept(self, callers: set[int], seconds: float) -> dict[int, socket.socket]:
        """Waits until each of `callers` has called; CollectiveTimeout when one has not after `seconds`."""
        deadline = time.monotonic() + seconds
        found: dict[int, socket.socket] = {}
        with self._listener as listener:
            try:
                while callers - found.keys():
                    left = deadline - time.monotonic()
                    if left <= 0:
                        missing = sorted(callers - found.keys())
                        names = "the driver" if missing[0] == DRIVER else f"workers {[rank - 1 for rank in missing]}"
                        raise CollectiveTimeout(f"{names} did not call within {seconds:g} s", seconds=seconds)
                    listener.settimeout(left)
                    with suppress(TimeoutError):
                        self._greet(listener.accept()[0], callers, found)
            except BaseException:
                for endpoint in found.values():
                    endpoint.close()
                raise
        return found

    def _greet(self, endpoint: socket.socket, callers: set[int], found: dict[int, socket.socket]) -> None:
        endpoint.settimeout(_GREETING_SECONDS)
        kept = False
        try:
            hello = _exactly(endpoint, _HELLO.size)
            ours = os.urandom(_CHALLENGE)
            endpoint.sendall(ours + _proof(self._secret, b"called", hello + ours))
            proof = _exactly(endpoint, 32)
            magic, caller, _ = _HELLO.unpack(hello)
            known = hmac.compare_digest(proof, _proof(self._secret, b"caller", hello + ours))
            if magic == _MAGIC and known and caller in callers and caller not in found:
                endpoint.settimeout(None)
                _prepare(endpoint)
                found[caller], kept = endpoint, True
        except OSError:  # a stranger; the callers may still call
            pass
        finally:
            if not kept:
                endpoint.close()

    def close(self) -> None:
        """Is not called any more."""
        self._listener.close()


# A worker's end


class WorkerEnd:
    """A worker's end: receives batches and answers them. Heads come from the driver or from the worker that leads here."""

    def __init__(self, driver: socket.socket, leader: socket.socket | None = None) -> None:
        self._driver, self._leader = Frames(driver), None if leader is None else Frames(leader)
        self._heads: deque[tuple[bytes | bytearray, bool]] = deque()
        self._data: deque[bytes | bytearray] = deque()
        self._batches, self._last_run, self._reports, self._counted = 0, -1, 0, 0
        self._began = 0.0

    def receive(self) -> Batch | None:
        """Gives the next batch, waiting for it as long as the driver lives; None when the driver has closed the line."""
        try:
            while not self._heads:
                self._listen(self._leader or self._driver)
            head, follows = self._heads.popleft()
            while follows and not self._data:
                self._listen(self._driver)
        except OSError:
            return None
        self._began = time.monotonic()
        return bytes(head), self._data.popleft() if follows else None

    def _listen(self, source: Frames) -> None:
        try:
            for kind, number, body in source.receive():
                self._sort(kind, number, body)
        except OSError:
            if source is self._leader:  # the driver learns it too, and decides what becomes of this one
                while True:
                    self._driver.receive()
            raise

    def _sort(self, kind: int, number: int, body: bytes | bytearray) -> None:
        if kind == BATCH:
            self._heads.append((body, bool(number)))
        elif kind == DATA:
            self._data.append(body)
        else:
            raise WireError(f"the control line brought a frame of kind {kind}: do versions differ?")

    def answer(self, last_run: int | None, sent: int, collectives: int, report: bytes | None = None) -> None:
        """Answers a batch; a driver that is gone does not hear it, which is no error of the worker's."""
        self._batches += 1
        if last_run is not None:
            self._last_run = last_run
        reported = b""
        if report is not None:
            self._reports += 1
            reported = frame(REPORT, report)
        self._count(sent, collectives, reported)

    def _count(self, sent: int, collectives: int, report: bytes) -> None:
        """Tells how far this worker is, unless the next answer comes soon and will do for this one too.

        A framed report goes first, and where both go to the driver, both go at once: it is woken for one thing, not for two.
        """
        if not report and self._may_wait():
            return
        self._counted = self._batches
        count = frame(COUNT, Count(self._batches, self._last_run, sent, collectives, self._reports).pack())
        with suppress(OSError):
            if self._leader is None and len(report) <= _AT_ONCE:
                self._driver.endpoint.sendall(report + count)
                return
            if report:
                self._driver.endpoint.sendall(report)
            (self._leader or self._driver).endpoint.sendall(count)

    def _may_wait(self) -> bool:
        """Whether the next answer will do for this one too, because it comes soon."""
        return (
            self._batches - self._counted < LATER
            and time.monotonic() - self._began < QUICK_SECONDS
            and (bool(self._heads) or readable((self._leader or self._driver).endpoint))
        )

    def close(self) -> None:
        """Closes the line: a driver that waits learns it at once."""
        self._driver.endpoint.close()
        if self._leader is not None:
            self._leader.endpoint.close()


def readable(endpoint: socket.socket) -> bool:
    """Whether something has come on a socket, or its other end is closed."""
    poll = select.poll()
    poll.register(endpoint, select.POLLIN)
    return bool(poll.poll(0))


# The driver's end


class _Team:
    """The workers that are reached through the first of them, and what is known of their answers."""

    __slots__ = ("held", "ranks", "reports")

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks
        self.reports = 0
        self.held: deque[Count] = deque()


class DriverEnd:
    """The driver's ends of all lines. `broken(rank, error)` gives the error to raise when one has ended.

    `teams`: every rank once; heads for a team go to its first rank, and its counts come from there.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], secret: bytes, broken: Broken, alive: Callable[[], None],
        teams: Sequence[tuple[int, ...]],
    ) -> None:
        self._broken, self._alive = broken, alive
        self._lines: list[Frames] = []
        self._poll = select.poll()
        self._ranks: dict[int, int] = {}
        self._teams = [_Team(ranks) for ranks in teams]
        self._team_of = {rank: number for number, ranks in enumerate(teams) for rank in ranks}
        self._batches = [0] * len(teams)
        self._answers: list[tuple[tuple[int, ...], Count | bytes | bytearray]] = []
        self.awaited = [0] * len(teams)
        try:
            for rank, address in enumerate(addresses):
                endpoint = call(address, secret, DRIVER)
                endpoint.setblocking(False)
                self._lines.append(Frames(endpoint))
                self._ranks[endpoint.fileno()] = rank
                self._poll.register(endpoint, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def send(self, heads: Sequence[bytes | None], data: Mapping[int, Buffer]) -> None:
        """Sends each rank its batch, if it has one; waits while a socket is full, and takes answers meanwhile."""
        known: bytes | None = None
        framed = [b"", b""]
        for number, team in enumerate(self._teams):
            ranks = team.ranks
            own = [heads[rank] for rank in ranks]
            head, first = own[0], ranks[0]
            if len(ranks) == 1 or own.count(head) == len(own):
                if head is None:
                    continue
                follow = sum(rank in data for rank in ranks) if data else 0
                if follow in (0, len(ranks)):
                    if head is not known:
                        known, framed = head, [frame(BATCH, head), frame(BATCH, head, 1)]
                    self._write(first, framed[follow > 0])
                    self._expect(number)
                    continue
            parts = [(head or b"", rank in data) for head, rank in zip(own, ranks)]
            self._write(first, frame(PARTS, pack_parts(parts)))
            self._expect(number)
        for rank, buffer in data.items():
            view = memoryview(buffer).cast("B")
            self._write(rank, _FRAME.pack(view.nbytes, DATA, 0), view)

    def _expect(self, number: int) -> None:
        self._batches[number] += 1
        self.awaited[number] += 1

    def _write(self, rank: int, *parts: Buffer) -> None:
        endpoint = self._lines[rank].endpoint
        left: deque[memoryview] | None = None
        while True:
            try:
                sent = endpoint.send(parts[0]) if left is None and len(parts) == 1 else endpoint.sendmsg(left or parts)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._broken(rank, error) from error
            if left is None:
                left = deque(memoryview(part) for part in parts)
            while left and sent >= left[0].nbytes:
                sent -= left.popleft().nbytes
            if not left:
                return
            left[0] = left[0][sent:]
            self._await_room(endpoint)

    def _await_room(self, endpoint: socket.socket) -> None:
        self._poll.modify(endpoint, select.POLLIN | select.POLLOUT)
        try:
            self.poll(0.25)
            self._alive()
        finally:
            self._poll.modify(endpoint, select.POLLIN)

    def poll(self, seconds: float) -> bool:
        """Receives what has come, and says whether answers are there to be taken; waits for some up to `seconds`."""
        ready = self._poll.poll(0 if self._answers else seconds * 1000)
        if ready:
            with uninterrupted():  # what was received must be counted
                for descriptor, events in ready:
                    if events & ~select.POLLOUT:
                        self._receive(self._ranks[descriptor])
        return bool(self._answers)

    def _receive(self, rank: int) -> None:
        try:
            frames = self._lines[rank].receive()
        except BlockingIOError:
            return
        except OSError as error:
            raise self._broken(rank, None if type(error) is ConnectionError else error) from error
        number = self._team_of[rank]
        team = self._teams[number]
        for kind, _, body in frames:
            if kind == REPORT:
                team.reports += 1
                self._answers.append(((rank,), body))
            elif kind == COUNT:
                team.held.append(Count.unpack(body))
            else:
                raise WireError(f"worker {rank} sent a frame of kind {kind}: do versions differ?", source=rank)
        while team.held and team.held[0].reports <= team.reports:
            count = team.held.popleft()
            self.awaited[number] = self._batches[number] - count.batches
            self._answers.append((team.ranks, count))

    def take(self) -> list[tuple[tuple[int, ...], Count | bytes | bytearray]]:
        """Gives the answers that have arrived: a rank and its report, or the ranks of a team and their count."""
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Closes all lines."""
        for line in self._lines:
            line.endpoint.close()
