"""A worker's state and how it carries out messages; the same on a Ray actor and in the local group.

Invariant: a slot holds an array (this rank's own part) or the `Failure` that says why it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from distgrad.engine import blocks, interpreter
from distgrad.engine.interpreter import Failure, Prepared
from distgrad.engine.needs import Notice, largest, most_exchanged
from distgrad.errors import FATAL, WireError
from distgrad.runtime import heap
from distgrad.runtime.messages import Again, Define, Fetch, Forget, Free, Keep, Message, Put, Release, Reply, Run

MARGIN = 0.2  # of a limit: for kernels, exchanges, and what lies between arrays on the heap (measured: a tenth to a sixth)


class Worker:
    """One rank: its slots and its programs.

    `memory`: the limit, in bytes; `exchanged` gives the bytes that an exchange of so many takes beside the arrays.
    """

    def __init__(
        self, rank: int, world_size: int, memory: int | None = None, exchanged: Callable[[int], int] = lambda nbytes: 0
    ) -> None:
        self.rank, self.world_size, self.memory, self._exchanged = rank, world_size, memory, exchanged
        self.slots: dict[int, Any] = {}
        self.programs: dict[int, Prepared] = {}
        self.kept: dict[int, Keep] = {}

    def carry_out(self, messages: Sequence[Message]) -> Generator[Any, Any, Reply]:
        """Carries out a batch; a generator that yields every exchange, as `interpreter.run` does."""
        failures: list[Failure] = []
        returned: list[tuple[int, tuple[Any, ...]]] = []
        fetched: list[tuple[int, Any]] = []
        notices: list[Notice] = []
        last_run: int | None = None
        for message in messages:
            if isinstance(message, Again):
                message = self._repeated(message)
            if isinstance(message, Run):
                prepared = self.programs[message.program]
                if self.memory is not None:
                    prepared = self._within(message, prepared, notices)
                last_run = message.sequence
                inputs = [self.slots[slot] for slot in message.inputs]
                for position in message.last:
                    del self.slots[message.inputs[position]]
                outputs = yield from interpreter.run(
                    prepared, self.rank, message.sequence, inputs, message.numbers, failures
                )
                for slot, value in zip(message.outputs, outputs):
                    self.slots[slot] = value
                if self.rank == 0 and message.returned:
                    returned.append((message.sequence, tuple(outputs[i] for i in message.returned)))
                del outputs
            elif isinstance(message, Free):
                for slot in message.slots:
                    self.slots.pop(slot, None)
            elif isinstance(message, Put):
                self.slots[message.slot] = message.array
            elif isinstance(message, Define):
                self.programs[message.program] = Prepared(message.body, self.rank, self.world_size)
            elif isinstance(message, Fetch):
                value = self.slots[message.slot]
                fetched.append((message.request, value.item().describe() if message.describe and type(value) is not Failure
                                else value))
            elif isinstance(message, Keep):
                self.kept[message.number] = message
            elif isinstance(message, Release):
                for number in message.numbers:
                    self.kept.pop(number, None)
            elif isinstance(message, Forget):
                for program in message.programs:
                    self.programs.pop(program, None)
        return Reply(self.rank, tuple(failures), tuple(returned), tuple(fetched), last_run=last_run,
                     notices=tuple(notices))

    def _repeated(self, again: Again) -> Run:
        """Gives the run that a message repeats, and lets go of what it will write."""
        kept = self.kept[again.number]
        for slot in kept.drop:
            self.slots.pop(slot, None)
        return kept.run.filled(again.sequence, again.numbers, again.given, again.made)

    def _within(self, run: Run, prepared: Prepared, notices: list[Notice]) -> Prepared:
        """Gives a program cut so that what it makes fits beside the values that are here now.

        It is cut when it is first run, and again when there is clearly less room than then.
        """
        assert self.memory is not None
        heap.give_back()
        held = sum(v.nbytes for v in self.slots.values() if type(v) is np.ndarray)
        held += self._exchanged(most_exchanged(prepared.source, self.rank))
        room = max(int(self.memory * (1 - MARGIN)) - held, 0)
        if prepared.memory is not None and room >= prepared.memory - self.memory * MARGIN / 4:
            return prepared
        first = prepared.memory is None
        prepared = Prepared(prepared.source, self.rank, self.world_size, room, run.last)
        self.programs[run.program] = prepared
        program = prepared.program
        found = blocks.excess(program, prepared.segments, self.rank, max(self.memory - held, 0), run.last) if first else None
        if found is not None:
            position, needed = found
            instruction = program.instructions[position]
            names = largest(program, self.rank, position, run.last, prepared.segments)
            notices.append(Notice(run.sequence, instruction.call, (
                f"memory_per_worker: worker {self.rank} needs about {held + needed:,} bytes, more than the {self.memory:,} "
                f"allowed: {held:,} for data and other values that are kept, {needed:,} more at {instruction.op.name}. "
                f"Largest there: {names}. Rows are cut into blocks only between operations that need all of them"
            )))
        return prepared


def drive(steps: Generator[Any, Any, Reply], rank: int, run: Callable[[Any], Any]) -> Reply:
    """Runs a batch to its end; `run` carries out one exchange together with the other ranks."""
    with np.errstate(all="ignore"):
        answer: Any = None
        while True:
            try:
                item = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            try:
                answer = run(item)
            except FATAL:
                raise
            except Exception as error:  # its own code, which fails alike on every rank: an index out of range, say
                answer = interpreter.raised(rank, error)


def drive_lockstep(
    batches: list[Generator[Any, Any, Reply]], run_lockstep: Callable[[list[Any]], list[Any]]
) -> list[Reply]:
    """Runs the batches of all ranks together in this process."""
    answers: list[Any] = [None] * len(batches)
    with np.errstate(all="ignore"):
        while True:
            items: list[Any] = []
            replies: list[Reply] = []
            for steps, answer in zip(batches, answers):
                try:
                    items.append(steps.send(answer))
                except StopIteration as stop:
                    replies.append(stop.value)
            if replies:
                if items:
                    raise WireError("ranks of the local group ran different programs")
                return replies
            try:
                answers = run_lockstep(items)
            except WireError:
                raise
            except Exception as error:  # as in drive
                answers = [interpreter.raised(rank, error) for rank in range(len(batches))]
