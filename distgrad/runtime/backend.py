"""The seam below the coordinator, and the counters of a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distgrad.runtime.messages import Message, Reply


class Backend(Protocol):
    """The seam below the coordinator: the local group or Ray actors. Batches are carried out in order.

    `overlaps`: what workers send each other is on its way while they compute. `wait` returns when a reply has come or none
    is awaited; `replies` gives those that have come and never waits.
    """

    world_size: int
    transport: str
    in_process: bool
    overlaps: bool

    @property
    def nodes(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def outstanding(self) -> int: ...

    def send(self, batches: list[list[Message]]) -> None: ...

    def wait(self) -> None: ...

    def replies(self) -> list[Reply]: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Stats:
    """Counters since `init`.

    `control_messages`: batches sent to workers, all workers together. `collectives`: exchanges carried out (counted
    once, not per worker). `bytes_sent`: between workers. `driver_bytes`: tensor data through the driver, both ways,
    values that come back with a run included. `programs_built`, `programs_reused`: runs of a new and of a known program.
    `nodes_recorded`: calls recorded. `passes_repeated`: reverse passes that ran no rules, their structure being known.
    `seconds_waited`: time the driver waited for workers.
    `steps_replayed`, `steps_recorded`: calls of functions given to `compile` that were, and were not, replayed.
    """

    control_messages: int = 0
    collectives: int = 0
    bytes_sent: int = 0
    driver_bytes: int = 0
    programs_built: int = 0
    programs_reused: int = 0
    nodes_recorded: int = 0
    passes_repeated: int = 0
    seconds_waited: float = 0.0
    steps_replayed: int = 0
    steps_recorded: int = 0
