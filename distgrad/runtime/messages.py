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

    def filled(self, sequence: int, numbers: tuple[Any, ...], given: tuple[int, ...], made: tuple[int, ...]) -> Run:
        """Gives this run with slots in the places of -1."""
        inputs, outputs = _filled(self.inputs, given), _filled(self.outputs, made)
        return Run(sequence, self.program, inputs, numbers, outputs, self.returned, self.last)


def _filled(slots: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    if not given:
        return slots
    filled, position = list(slots), -1
    for slot in given:
        position = filled.index(-1, position + 1)
        filled[position] = slot
    return tuple(filled)


@dataclass(frozen=True, slots=True)
class Keep:
    """A run that will be repeated: in its inputs -1 stands for a slot given each time, in its outputs for a new one.

    `drop` are slots that it writes and does not read: their values are let go of before it begins.
    """

    number: int
    run: Run
    drop: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """Repeat a run that was kept, with these numbers; `given` and `made` are the slots in the places of -1."""

    sequence: int
    number: int
    numbers: tuple[Any, ...]
    given: tuple[int, ...]
    made: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """Kept runs that will not be repeated again."""

    numbers: tuple[int, ...]


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


Message = Define | Forget | Run | Keep | Again | Release | Put | Free | Fetch


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker answers, to one batch or to several.

    `failures` began on this worker; `returned` holds per run (sequence) the values that go back with it; `fetched` per
    request the array, the description or the `Failure`. `last_run` is the sequence of the last run that this worker and
    `others` have carried out, None for no news of it; `sent` and `collectives` count the bytes they have sent, all
    together, and the exchanges they took part in so far; `notices` tell of limits that are not kept.
    """

    rank: int
    failures: tuple[Failure, ...] = ()
    returned: tuple[tuple[int, tuple[Any, ...]], ...] = ()
    fetched: tuple[tuple[int, Any], ...] = ()
    sent: int | None = None
    collectives: int = 0
    last_run: int | None = None
    others: tuple[int, ...] = ()
    notices: tuple[Notice, ...] = ()
