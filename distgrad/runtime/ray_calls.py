"""Batches as calls of Ray's, for drivers that cannot reach the workers themselves (ray://): slower, and needs no port.

It has the face of `line.DriverEnd`; what Ray raises goes to `broken`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distgrad.runtime.line import COUNT_BYTES, Buffer, Count

_TAKE_FROM = 4  # answers are taken together when there are this many, unless somebody waits


class Calls:
    """One queue of Ray's per worker. `broken(rank, error)` gives the error to raise for an answer that is none."""

    def __init__(
        self, actors: Sequence[Any], timeout: float, broken: Callable[[int, BaseException], BaseException]
    ) -> None:
        self._execute = [actor.execute for actor in actors]
        self._timeout, self._broken = timeout, broken
        self._refs: list[deque[Any]] = [deque() for _ in actors]
        self._ready: list[Any] = []

    @property
    def awaited(self) -> list[int]:
        """How many batches each worker has not answered."""
        return [len(refs) for refs in self._refs]

    def send(self, heads: Sequence[bytes | None], data: Mapping[int, Buffer]) -> None:
        """Sends each rank its batch, if it has one; does not wait."""
        for rank, head in enumerate(heads):
            if head is not None:
                beside = data.get(rank)
                own = None if beside is None else bytes(beside)
                self._refs[rank].append(self._execute[rank].remote(head, own))

    def poll(self, seconds: float) -> bool:
        """Waits up to `seconds` for an answer; says whether one is there to be taken."""
        import ray

        if seconds == 0 and max(self.awaited) < _TAKE_FROM:
            return False
        heads = [refs[0] for refs in self._refs if refs]
        self._ready = ray.wait(heads, num_returns=len(heads), timeout=seconds)[0] if heads else []
        return bool(self._ready)

    def take(self) -> list[tuple[tuple[int, ...], Count | bytes]]:
        """Gives the answers that poll has found: a rank and its report, then its count."""
        import ray

        ready, self._ready = self._ready, []
        owners = {refs[0]: rank for rank, refs in enumerate(self._refs) if refs}
        ready = [ref for ref in ready if ref in owners]
        try:
            found = ray.get(ready, timeout=self._timeout)
        except ray.exceptions.RayError:
            found = [self._answer(ref, owners[ref]) for ref in ready]  # raises, and says whose answer it was
        for ref in ready:
            self._refs[owners[ref]].popleft()
        answers: list[tuple[tuple[int, ...], Count | bytes]] = []
        for ref, answer in zip(ready, found):
            ranks = (owners[ref],)
            if len(answer) > COUNT_BYTES:
                answers.append((ranks, answer[COUNT_BYTES :]))
            answers.append((ranks, Count.unpack(answer[: COUNT_BYTES])))
        return answers

    def _answer(self, ref: Any, rank: int) -> bytes:
        import ray

        try:
            return ray.get(ref, timeout=self._timeout)
        except ray.exceptions.RayError as error:
            raise self._broken(rank, error) from error

    def refs(self) -> list[Any]:
        """Gives what nobody has read yet."""
        return [ref for refs in self._refs for ref in refs]

    def close(self) -> None:
        """Nothing of ours is open."""
