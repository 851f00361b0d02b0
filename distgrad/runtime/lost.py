"""Which values are lost: the runs that were not answered yet, the failures that were told, and what depends on them.

Invariant: the workers do not say which outputs a failure spoils; the driver, who has the program, works it out, so that
no rank hands out a value that was computed from another rank's missing part.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from distgrad.engine.interpreter import Failure
from distgrad.errors import RemoteOpError
from distgrad.graph import Slot
from distgrad.program import Program
from distgrad.runtime.messages import Run
from distgrad.runtime.sites import where

_REMEMBERED = 1_000  # failures whose line is known


class Returned:
    """A small value that comes back with its run."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


@dataclass(slots=True)
class Sent:
    """A run that not every worker has answered yet: what is needed to name a failure's line and what it spoils."""

    sites: list[Any]
    returned: list[Returned]
    program: Program
    run: Run
    failed: dict[int, Failure] = field(default_factory=dict)  # by call: what failed by itself
    freed: list[int] = field(default_factory=list)  # slots let go of since, which need not be marked as lost any more


class Lost:
    """The runs in flight and what is lost."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.runs: OrderedDict[int, Sent] = OrderedDict()
        self.poisoned: dict[int, Failure] = {}  # slots whose value is lost
        self.places: OrderedDict[tuple[int, int], str] = OrderedDict()  # the lines of failures
        self.raised: set[tuple[int, int]] = set()

    def note(self, failure: Failure) -> None:
        """Remembers the user's line of a failure, and that what depends on it is lost on every worker.

        The first failure of a call stands for those of other ranks.
        """
        key = (failure.sequence, failure.call)
        sent = self.runs.get(failure.sequence)
        if key in self.places or sent is None:
            return
        self.places[key] = where(sent.sites[failure.call])
        while len(self.places) > _REMEMBERED:
            self.raised.discard(self.places.popitem(last=False)[0])
        sent.failed[failure.call] = failure
        passed: dict[int, Failure] = {}
        self.spoil(sent, passed)
        for later in self.runs.values():
            if later.run.sequence > failure.sequence:
                self.spoil(later, passed)

    def spoil(self, sent: Sent, passed: dict[int, Failure]) -> None:
        """Marks the outputs of a run that depend on lost inputs or on failed calls.

        Slots that were let go of are not marked any more, but runs sent before that may depend on them: `passed`.
        """
        known = passed | self.poisoned
        lost: dict[int, Failure] = {
            register: known[slot] for register, slot in enumerate(sent.run.inputs) if slot in known
        }
        for instruction in sent.program.instructions:
            failure = sent.failed.get(instruction.call)
            if failure is not None and failure.op == instruction.op.name:
                lost.update(dict.fromkeys(instruction.outs, failure))
            elif instruction.op.name == "bucket":
                lost.update({o: lost[i] for i, o in zip(instruction.ins, instruction.outs) if i in lost})
            else:
                source = next((lost[i] for i in instruction.ins if i in lost), None)
                if source is not None:
                    lost.update(dict.fromkeys(instruction.outs, source))
        gone = {slot for other in self.runs.values() for slot in other.freed} if lost else ()
        for register, slot in zip(sent.program.outputs, sent.run.outputs):
            if register in lost:
                (passed if slot in gone else self.poisoned).setdefault(slot, lost[register])
            else:  # a kept slot, which an earlier run had lost, is written anew
                self.poisoned.pop(slot, None)
                passed.pop(slot, None)

    def checked(self, slot: Slot, value: Any) -> Any:
        value = self.poisoned.get(slot.id, value)
        if type(value) is not Failure:
            return value
        place = self.places.get((value.sequence, value.call), "an unknown line")
        self.raised.add((value.sequence, value.call))
        shapes = ", ".join(map(str, value.shapes)) or "none"
        raise RemoteOpError(
            f"{value.op} failed on worker {value.rank} of {self.world_size}: {value.error}: {value.message}\n"
            f"  recorded at {place}\n  shapes of its inputs on that worker: {shapes}\n"
            "  values that depend on it are lost; the session goes on\n"
            f"--- traceback on worker {value.rank} ---\n{value.trace}",
            op=value.op, worker=value.rank, where=place, cause=value.error, worker_traceback=value.trace,
        )

    def unread_failures(self) -> list[str]:
        """Gives the lines whose failure no one has been told of."""
        return [place for key, place in self.places.items() if key not in self.raised]
