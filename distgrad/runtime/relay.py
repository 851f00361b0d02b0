"""One worker of a node passes batches on to the others there, and gathers their answers into one.

So the driver sends one message per node and step, however many workers a node has. The leader is a worker like the
others: it passes on all that has come before it turns to its own part, and looks for answers between its batches.

Invariant: the leader begins a batch only after it has passed it on, so nobody waits in an exchange for a worker that has
not been told; and it waits for room in no other worker's socket while it could do something for the driver.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from distgrad.errors import WireError
from distgrad.runtime.line import (
    BATCH,
    COUNT,
    LATER,
    PARTS,
    QUICK_SECONDS,
    Batch,
    Count,
    Frames,
    WorkerEnd,
    frame,
    unpack_parts,
)

WORKERS = 4
"""From so many workers on, those of a node are reached through the first of them."""


class _Member:
    """A worker the leader passes batches on to: what is still to be sent, and how far it is."""

    __slots__ = ("count", "frames", "passed", "unsent")

    def __init__(self, endpoint: socket.socket) -> None:
        self.frames = Frames(endpoint)
        self.passed = 0  # frames it has been sent
        self.unsent: deque[memoryview] = deque()
        self.count = Count(0)

    def push(self) -> bool:
        """Sends what the socket takes now; returns whether that was all. What a dead one does not take is dropped."""
        while self.unsent:
            try:
                sent = self.frames.endpoint.send(self.unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:  # the driver learns of its end by its own line
                self.unsent.clear()
                break
            if sent == len(self.unsent[0]):
                self.unsent.popleft()
                self.passed += 1
            else:
                self.unsent[0] = self.unsent[0][sent:]
        return True


class LeaderEnd(WorkerEnd):
    """The control line of a worker that passes batches on to `members`, whose heads come in this order after its own."""

    def __init__(self, driver: socket.socket, members: Sequence[socket.socket]) -> None:
        super().__init__(driver)
        self._members = [_Member(endpoint) for endpoint in members]
        self._living = {member.frames.endpoint.fileno(): member for member in self._members}
        self._quick = False
        self._poll = select.poll()
        for descriptor in (driver.fileno(), *self._living):
            self._poll.register(descriptor, select.POLLIN)
        self._own: deque[Count] = deque()  # of own batches that the driver has not been told of
        self._told = Count(0)

    def receive(self) -> Batch | None:
        """Gives the next batch, as `WorkerEnd.receive` does, after it was passed on to all others."""
        try:
            self._turn(0)
            while not self._ready():
                self._turn(None)
        except OSError:
            return None
        self._began = time.monotonic()
        head, follows = self._heads.popleft()
        return bytes(head), self._data.popleft() if follows else None

    def _ready(self) -> bool:
        if not self._heads or (self._heads[0][1] and not self._data):
            return False
        return all(member.passed > self._batches for member in self._living.values())

    def _turn(self, seconds: float | None) -> None:
        """Receives and passes on what can be, waiting for something up to `seconds`; tells the driver of counts."""
        driver = self._driver.endpoint.fileno()
        for descriptor, events in self._poll.poll(seconds):
            if descriptor == driver:
                self._listen(self._driver)
                continue
            member = self._living[descriptor]
            if events & select.POLLOUT and member.push():
                self._poll.modify(descriptor, select.POLLIN)
            if events & ~select.POLLOUT:
                self._hear(descriptor, member)
        self._tell()

    def _sort(self, kind: int, number: int, body: bytes | bytearray) -> None:
        if kind == BATCH:
            passed = frame(BATCH, bytes(body), number)
            for descriptor in self._living:
                self._pass_on(descriptor, passed)
        elif kind == PARTS:
            parts = unpack_parts(body, len(self._members) + 1)
            for member, (head, follows) in zip(self._members, parts[1:]):
                if member.frames.endpoint.fileno() in self._living:
                    self._pass_on(member.frames.endpoint.fileno(), frame(BATCH, head, follows))
            kind, (body, number) = BATCH, parts[0]
        super()._sort(kind, number, body)

    def _pass_on(self, descriptor: int, passed: bytes) -> None:
        member = self._living[descriptor]
        member.unsent.append(memoryview(passed))
        if len(member.unsent) == 1 and not member.push():
            self._poll.modify(descriptor, select.POLLIN | select.POLLOUT)

    def _hear(self, descriptor: int, member: _Member) -> None:
        try:
            for kind, _, body in member.frames.receive():
                if kind != COUNT:
                    raise WireError(f"a worker sent the one that leads it a frame of kind {kind}: do versions differ?")
                member.count = Count.unpack(body)
        except OSError:  # its last count stands; the driver learns of its end by its own line
            self._poll.unregister(descriptor)
            del self._living[descriptor]

    def _count(self, sent: int, collectives: int, report: bytes) -> None:
        """Sends a report, and keeps the own count until the others are as far."""
        if report:
            with suppress(OSError):
                self._driver.endpoint.sendall(report)
        self._own.append(Count(self._batches, self._last_run, sent, collectives, self._reports))
        self._quick = time.monotonic() - self._began < QUICK_SECONDS

    def _tell(self) -> None:
        """Tells the driver how far all workers of the node are, if that is news."""
        if not self._own:
            return
        counts = [member.count for member in self._members]
        reached = min(count.batches for count in counts)
        if reached < self._own[0].batches:
            return
        reports = sum(count.reports for count in counts) + self._own[-1].reports
        news = reports > self._told.reports or reached - self._told.batches >= LATER
        if self._heads and self._quick and not news:  # the next one will do for this one too
            return
        own = self._own[0]
        while self._own and self._own[0].batches <= reached:
            own = self._own.popleft()
        counts.append(own)
        self._told = Count(
            own.batches, own.last_run, sum(count.sent for count in counts), max(c.collectives for c in counts),
            sum(count.reports for count in counts),
        )
        with suppress(OSError):
            self._driver.endpoint.sendall(frame(COUNT, self._told.pack()))

    def close(self) -> None:
        """Closes the line and those to the others."""
        super().close()
        for member in self._members:
            member.frames.endpoint.close()
