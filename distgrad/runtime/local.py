"""The local group: W ranks in this process, in lockstep, deterministic, without Ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distgrad.runtime import collectives
from distgrad.runtime.messages import Message, Put, Reply
from distgrad.runtime.worker import Worker, drive_lockstep


class LocalGroup:
    """A backend whose workers are objects of this process; every message is carried out at once."""

    transport = "in-process"
    in_process = True
    overlaps = False

    def __init__(self, world_size: int, memory: int | None = None) -> None:
        self.world_size = world_size
        self.workers = [Worker(rank, world_size, memory) for rank in range(world_size)]
        self.nodes = 1
        self.threads = 0
        self._replies: list[Reply] = []
        self.bytes_sent = 0
        self.collectives = 0

    def send(self, batches: list[list[Message]]) -> None:
        """Carries out one batch per rank."""
        own = [[Put(m.slot, _own(m.array)) if isinstance(m, Put) else m for m in batch] for batch in batches]
        answers = drive_lockstep([w.carry_out(b) for w, b in zip(self.workers, own)], self._lockstep)
        self._replies.extend(
            replace(r, sent=self.bytes_sent if r.rank == 0 else 0, collectives=self.collectives) for r in answers
        )

    def _lockstep(self, generators: list[Any]) -> list[Any]:
        counter = collectives.Counter()
        results = collectives.run_lockstep(generators, counter)
        self.bytes_sent += counter.bytes_sent
        self.collectives += 1
        return results

    def wait(self) -> None:
        """Returns at once: every batch was carried out when it was sent."""

    def replies(self) -> list[Reply]:
        """Gives the replies that have come."""
        found, self._replies = self._replies, []
        return found

    @property
    def outstanding(self) -> int:
        """Batches not answered yet: none, ever."""
        return 0

    def close(self) -> None:
        """Lets go of the workers' values."""
        self.workers = []


def _own(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else np.array(array)
