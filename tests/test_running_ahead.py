"""How far the driver runs ahead of its workers, and whom it asks for a sign of life while it waits."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from distgrad.errors import CollectiveTimeout
from distgrad.runtime import ray_cluster
from distgrad.runtime.coordinator import Coordinator
from distgrad.runtime.line import Count


class Behind:
    """Stands for a backend that answers one batch each time it is waited for."""

    world_size = nodes = threads = 1
    transport, in_process, overlaps = "none", True, False

    def __init__(self, outstanding: int) -> None:
        self.outstanding = outstanding
        self.waits = 0

    def send(self, batches: list[list[Any]]) -> None:
        self.outstanding += 1

    def wait(self) -> None:
        self.waits += 1
        self.outstanding -= 1

    def replies(self) -> list[Any]:
        return []

    def close(self) -> None:
        pass


def test_a_driver_waits_only_when_it_is_too_far_ahead_and_then_for_most_of_it() -> None:
    backend = Behind(8)
    coordinator = Coordinator(backend, shard_threshold=1)
    coordinator.hold_back()
    assert backend.waits == 0
    backend.outstanding = 9
    coordinator.hold_back()
    assert 0 < backend.outstanding <= 3, "woken again for the next step, or the workers have nothing left to do"


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Actor:
    """Counts its pings; only one that is alive answers them."""

    def __init__(self, rank: int) -> None:
        self.rank, self.pings = rank, 0
        self.ping = self.abort = self

    def remote(self, *_: Any) -> Any:
        self.pings += 1
        return self.rank


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A group of two workers whose second one never answers a ping."""
    clock = Clock()
    made: Any = object.__new__(ray_cluster.RayGroup)
    made._actors = [Actor(0), Actor(1)]
    made._pings, made._heard, made._looked, made.timeout = {}, set(), 0.0, 60.0
    made.clock = clock
    monkeypatch.setattr(ray_cluster, "time", clock)
    monkeypatch.setattr(made, "_name", lambda rank: f"worker {rank}", raising=False)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: ([ref for ref in refs if ref == 0], []))
    monkeypatch.setattr(ray, "get", lambda ref, timeout: None)
    return made


class Line:
    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks

    def poll(self, seconds: float) -> bool:
        return True

    def take(self) -> list[Any]:
        return [(self.ranks, Count(1))]


def test_only_workers_that_gave_no_answer_are_pinged(group: Any) -> None:
    group._look()
    assert [actor.pings for actor in group._actors] == [1, 1]
    group._lines = Line((0, 1))
    for _ in range(5):
        group.clock.now += 10.0
        assert len(group.replies()) == 1
        group._look()
    assert [actor.pings for actor in group._actors] == [1, 1]
    group.clock.now += 10.0
    group._look()
    assert [actor.pings for actor in group._actors] == [2, 2]


def test_a_worker_that_is_silent_while_others_answer_is_named_after_the_timeout(group: Any) -> None:
    group._lines = Line((0,))
    group._look()
    for _ in range(6):
        group.clock.now += 10.0
        group.replies()
        group._look()
    group.clock.now += 10.0
    group.replies()
    with pytest.raises(CollectiveTimeout, match="no sign of life for 60 s from worker 1"):
        group._look()


def test_looks_are_as_many_per_timeout_but_at_least_a_second_apart(group: Any) -> None:
    found = []
    group._look = lambda: found.append(group.clock.now)
    for timeout, apart in ((60.0, 3.0), (2.0, 1.0)):
        group.timeout, group._looked = timeout, group.clock.now
        found.clear()
        group.clock.now += 0.9 * apart
        group._look_now_and_then()
        assert not found
        group.clock.now += 0.2 * apart
        group._look_now_and_then()
        assert found
