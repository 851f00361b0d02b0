"""The control line: batches of any size both ways, directly and through one worker, strangers, ends that close."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from distgrad.errors import CollectiveTimeout, WireError
from distgrad.runtime.line import DRIVER, Count, DriverEnd, Frames, Listener, WorkerEnd, call, pack_parts, unpack_parts
from distgrad.runtime.ray_cluster import teams_of
from distgrad.runtime.relay import LeaderEnd

SECRET = b"s" * 32
TEAMS = {"alone": [(0,), (1,), (2,)], "led": [(0, 1, 2)]}


class Ended(Exception):
    """What the driver's end is told to raise."""


class Workers:
    """Three workers that report what they are sent; `hold` keeps one from answering."""

    def __init__(self, teams: list[tuple[int, ...]]) -> None:
        self.teams = teams
        self.listeners = [Listener(SECRET, "127.0.0.1") for _ in range(3)]
        self.lines: dict[int, WorkerEnd] = {}
        self.go = [threading.Event() for _ in range(3)]
        self.seen: list[list[bytes]] = [[], [], []]
        for event in self.go:
            event.set()
        self.threads = [
            threading.Thread(target=self.serve, args=(rank, team), daemon=True) for team in teams for rank in team
        ]
        for thread in self.threads:
            thread.start()

    def serve(self, rank: int, team: tuple[int, ...]) -> None:
        listener, others = self.listeners[rank], team[1:]
        with suppress(OSError, CollectiveTimeout):  # closed before anybody has called
            if rank == team[0] and others:
                callers = listener.accept({DRIVER, *(other + 1 for other in others)}, 5)
                line: WorkerEnd = LeaderEnd(callers[DRIVER], [callers[other + 1] for other in others])
            else:
                leader = None if rank == team[0] else call(self.listeners[team[0]].address, SECRET, rank + 1)
                line = WorkerEnd(listener.accept({DRIVER}, 5)[DRIVER], leader)
            self.lines[rank] = line
            batches = 0
            while (batch := line.receive()) is not None:
                head, data = batch
                self.seen[rank].append(head)
                self.go[rank].wait(5)
                batches += 1
                beside = b"" if data is None else bytes(data)
                line.answer(batches, 10, 3, head + beside if head.startswith(b"report") else None)
            line.close()

    def call(self, secret: bytes = SECRET) -> DriverEnd:
        addresses = [listener.address for listener in self.listeners]
        return DriverEnd(addresses, secret, lambda rank, error: Ended(rank), lambda: None, self.teams)

    def end(self) -> None:
        for listener in self.listeners:
            listener.close()
        for event in self.go:
            event.set()
        for thread in self.threads:
            thread.join(timeout=6)
            assert not thread.is_alive()


@pytest.fixture(params=list(TEAMS))
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    started = Workers(TEAMS[request.param])
    yield started
    started.end()


def answers(driver: DriverEnd) -> tuple[dict[int, list[bytes]], dict[tuple[int, ...], Count]]:
    """Waits until everything sent was answered; gives the reports by rank, and the last count of each team."""
    reports: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    counts: dict[tuple[int, ...], Count] = {}
    deadline = time.monotonic() + 10
    while any(driver.awaited):
        assert time.monotonic() < deadline, driver.awaited
        driver.poll(0.1)
        for ranks, answer in driver.take():
            if isinstance(answer, Count):
                assert answer.reports <= sum(len(reports[rank]) for rank in ranks), "counted before it was reported"
                counts[ranks] = answer
            else:
                reports[ranks[0]].append(bytes(answer))
    return reports, counts


def test_batches_come_in_order_and_counts_cover_all(workers: Workers) -> None:
    driver = workers.call()
    heads = [os.urandom(size) for size in (1, 7, 8, 5000, 300_000)]
    for head in heads:
        driver.send([head] * 3, {})
    assert driver.awaited == [5] * len(workers.teams)
    reports, counts = answers(driver)
    assert workers.seen == [heads] * 3
    assert reports == {0: [], 1: [], 2: []}
    assert {ranks: tuple(count) for ranks, count in counts.items()} == {
        team: (5, 5, 10 * len(team), 3, 0) for team in workers.teams
    }
    driver.close()


def test_own_heads_and_data_reach_their_workers(workers: Workers) -> None:
    driver = workers.call()
    driver.send([b"report 0", b"report 1", b"report 2"], {1: b"data of 1", 2: b"data of 2"})
    driver.send([b"report all"] * 3, {rank: bytes([rank]) for rank in range(3)})
    driver.send([b"report one", None, None], {})
    reports, _ = answers(driver)
    assert reports[0] == [b"report 0", b"report all\0", b"report one"]
    assert reports[1] == [b"report 1data of 1", b"report all\1"]
    assert reports[2] == [b"report 2data of 2", b"report all\2"]
    driver.close()


def test_a_lone_worker_sends_report_and_count_at_once() -> None:
    workers = Workers(TEAMS["alone"])
    driver = workers.call()
    driver.send([b"report", None, None], {})
    assert driver.poll(5)
    started = time.monotonic()
    assert driver.poll(5) and time.monotonic() - started < 2, "it waits for more, though answers are there to be taken"
    report, count = driver.take()
    assert report == ((0,), b"report")
    assert count == ((0,), Count(1, 1, 10, 3, 1))
    driver.close()
    workers.end()


def test_a_team_is_as_far_as_its_slowest(workers: Workers) -> None:
    workers.go[2].clear()
    driver = workers.call()
    driver.send([b"report"] * 3, {})
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        driver.poll(0.1)
    assert driver.awaited[-1] == 1
    workers.go[2].set()
    assert len(answers(driver)[0][2]) == 1
    driver.close()


def test_both_ends_full_of_large_frames_go_on(workers: Workers) -> None:
    """The workers report while the driver still sends: neither socket takes it all."""
    driver = workers.call()
    large = b"report" + os.urandom(9 << 20)
    for _ in range(2):
        driver.send([large] * 3, {})
    reports, _ = answers(driver)
    assert all(found == [large, large] for found in reports.values())
    driver.close()


def test_parts_are_taken_apart_or_refused() -> None:
    heads = [(b"", False), (b"abc", True), (os.urandom(1000), False)]
    packed = pack_parts(heads)
    assert unpack_parts(packed, 3) == heads
    for wrong, count in ((packed, 2), (packed[:-1], 3), (b"", 3), (packed + b"x", 3)):
        with pytest.raises(WireError, match="not that of"):
            unpack_parts(wrong, count)


def test_workers_of_a_node_are_led_when_they_are_several() -> None:
    nodes = ["a", "b", "a", "a", "b", "a", "c"]
    assert teams_of(nodes, 2) == [(0, 2, 3, 5), (1, 4), (6,)]
    assert teams_of(nodes, 4) == [(0, 2, 3, 5), (1,), (4,), (6,)]
    assert teams_of(nodes, 9) == [(0,), (2,), (3,), (5,), (1,), (4,), (6,)]


def test_a_stranger_is_not_heard_and_the_driver_still_is(workers: Workers) -> None:
    with socket.create_connection(workers.listeners[0].address) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n" + bytes(100))
        stranger.settimeout(5)
        stranger.recv(64)  # its greeting
        with suppress(ConnectionResetError):
            assert stranger.recv(64) == b""
    driver = workers.call()
    driver.send([b"report"] * 3, {})
    assert answers(driver)[0][0] == [b"report"]
    driver.close()


def test_another_secret_is_refused_by_the_driver(workers: Workers) -> None:
    with pytest.raises(WireError, match="does not know the secret"):
        workers.call(b"t" * 32)
    workers.call().close()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_closes_ends_the_wait_and_is_named(workers: Workers, rank: int) -> None:
    """Also when it leads others: these do not close their lines, which would hide who has ended."""
    driver = workers.call()
    driver.send([b"hello"] * 3, {})
    answers(driver)  # it has heard our proof
    workers.lines[rank]._driver.endpoint.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + 5
    with pytest.raises(Ended) as caught:
        while time.monotonic() < deadline:
            driver.poll(0.1)
    assert caught.value.args == (rank,)
    driver.close()


def test_a_driver_that_never_calls_has_a_limit() -> None:
    started = time.monotonic()
    with pytest.raises(CollectiveTimeout, match="driver did not call"):
        Listener(SECRET, "127.0.0.1").accept({DRIVER}, 0.2)
    with pytest.raises(CollectiveTimeout, match=r"workers \[4\] did not call"):
        Listener(SECRET, "127.0.0.1").accept({5}, 0.2)
    assert time.monotonic() - started < 2


def test_a_frame_that_announces_too_much_is_refused() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall((1 << 50).to_bytes(8, "little") + bytes(8))
        with pytest.raises(WireError, match="announces"):
            Frames(one).receive()
