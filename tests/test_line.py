"""The control line: frames of any size both ways, strangers, wrong secrets, and ends that close."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from distgrad.errors import CollectiveTimeout, WireError
from distgrad.runtime.line import DriverEnd, WorkerEnd

SECRET = b"s" * 32


class Ended(Exception):
    """What the driver's end is told to raise."""


def echo(worker: WorkerEnd, times: int = 1) -> None:
    with suppress(OSError):  # closed before anybody has called
        worker.accept(5)
    if worker._endpoint is None:
        return
    while (batch := worker.receive()) is not None:
        for _ in range(times):
            worker.send(bytes(batch))
    worker.close()


@pytest.fixture
def workers() -> Iterator[list[WorkerEnd]]:
    ends = [WorkerEnd(SECRET, "127.0.0.1") for _ in range(2)]
    threads = [threading.Thread(target=echo, args=(end,), daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    yield ends
    for end in ends:
        end.close()
    for thread in threads:
        thread.join(timeout=6)
        assert not thread.is_alive()


def call(ends: list[WorkerEnd], secret: bytes = SECRET) -> DriverEnd:
    return DriverEnd([e.address for e in ends], secret, lambda rank, error: Ended(rank), lambda: None)


def answers(driver: DriverEnd, count: int) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + 10
    while len(found) < count:
        assert time.monotonic() < deadline
        driver.poll(0.1)
        found += driver.take()
    return found


def test_frames_come_back_in_order(workers):
    driver = call(workers)
    sent = [os.urandom(size) for size in (1, 7, 8, 5000)]
    for data in sent:
        driver.send(0, data)
        driver.send(1, data[::-1])
    assert driver.awaited == [4, 4]
    found = answers(driver, 8)
    assert [bytes(d) for rank, d in found if rank == 0] == sent
    assert [bytes(d) for rank, d in found if rank == 1] == [d[::-1] for d in sent]
    assert driver.awaited == [0, 0]
    driver.close()


def test_both_ends_full_of_large_frames_go_on(workers):
    """The worker answers while the driver still sends: neither socket takes it all."""
    driver = call(workers)
    large = os.urandom(40 << 20)
    for _ in range(3):
        driver.send(0, large)
    assert all(bytes(data) == large for _, data in answers(driver, 3))
    driver.close()


def test_a_stranger_is_not_heard_and_the_driver_still_is(workers):
    with socket.create_connection(workers[0].address) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n" + bytes(100))
        stranger.settimeout(5)
        stranger.recv(64)  # its greeting
        with suppress(ConnectionResetError):
            assert stranger.recv(64) == b""
    driver = call(workers)
    driver.send(0, b"hello")
    assert [bytes(d) for _, d in answers(driver, 1)] == [b"hello"]
    driver.close()


def test_another_secret_is_refused_by_the_driver(workers):
    with pytest.raises(WireError, match="does not know the secret"):
        call(workers, b"t" * 32)
    call(workers).close()


def test_a_worker_that_closes_ends_the_wait(workers):
    driver = call(workers)
    driver.send(1, b"hello")
    answers(driver, 1)  # it has heard our proof
    assert workers[1]._endpoint is not None
    workers[1]._endpoint.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + 5
    with pytest.raises(Ended) as caught:
        while time.monotonic() < deadline:
            driver.poll(0.1)
    assert caught.value.args == (1,)
    driver.close()


def test_a_driver_that_never_calls_has_a_limit():
    end = WorkerEnd(SECRET, "127.0.0.1")
    started = time.monotonic()
    with pytest.raises(CollectiveTimeout, match="driver did not call"):
        end.accept(0.2)
    assert time.monotonic() - started < 2
