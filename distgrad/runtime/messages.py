"""The vocabulary between driver and workers, all of it. Messages of a batch are carried out in order.

Tensor data never travels inside a message object: `Put.array` is taken out and sent as flat buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.engine.interpreter import Failure
from distgrad.engine.needs import Notice
from distgrad.program import Program


@dataclass(frozen=True, slots=True)
class Define:
    """A program and the number it is run by from now on."""

    program: int
    body: Program


@dataclass(frozen=True, slots=True)
class Forget:
    """Programs that will not be run again."""

    programs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Run a program: input slots, Python numbers, the slots its outputs go to, and which outputs to send back at once.

    `last` are the positions of inputs that nobody refers to afterwards: their slots end here, and their memory is the run's.
    """

    sequence: int
    program: int
    inputs: tuple[int, ...]
    numbers: tuple[Any, ...]
    outputs: tuple[int, ...]
    returned: tuple[int, ...] = ()
    last: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """A value from the driver for a slot: this worker's own part."""

    slot: int
    array: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Free:
    """Slots nobody refers to any more."""

    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Send back a slot's own part, or what it looks like (`describe`)."""

    request: int
    slot: int
    describe: bool = False


Message = Define | Forget | Run | Put | Free | Fetch


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker answers to one batch.

    `failures` began on this worker; `returned` holds per run (sequence) the values that go back with it; `fetched` per
    request the array, the description or the `Failure`; `sent` and `collectives`
    count the bytes this worker has sent to others and the exchanges it took part in so far; `last_run` is the sequence of
    the batch's last run; `notices` tell of limits that are not kept.
    """

    rank: int
    failures: tuple[Failure, ...] = ()
    returned: tuple[tuple[int, tuple[Any, ...]], ...] = ()
    fetched: tuple[tuple[int, Any], ...] = ()
    sent: int = 0
    collectives: int = 0
    last_run: int | None = None
    notices: tuple[Notice, ...] = ()
