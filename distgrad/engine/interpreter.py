"""The interpreter: runs a program on one rank's arrays, instruction by instruction.

Invariant: a failed instruction poisons what depends on it and nothing else. A rank whose part of an exchange is missing
takes part with zeros in its place, so one rank's failure never leaves another one waiting; the driver, who is told of
the failure and knows the program, does not let the results be read.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distgrad.engine import blocks
from distgrad.engine.values import convert
from distgrad.ops.collective import block_of
from distgrad.placement import Partial, Shard
from distgrad.program import Instruction, Program
from distgrad.quiet import by_rows, enter_by_rows, leave

_JOIN = {"sum": np.add, "max": np.maximum, "min": np.minimum, "prod": np.multiply}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a value is not there. `call` is the position of the recorded call, `sequence` the run it belonged to."""

    sequence: int
    call: int
    op: str
    rank: int
    error: str
    message: str
    shapes: tuple[tuple[int, ...], ...]
    trace: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a kernel that exchanges rows needs to know."""

    rank: int
    world_size: int
    ins: tuple[Any, ...]
    outs: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """Yielded in an exchange's place: it may go on beside what follows. What is sent back is a ticket for its end."""

    exchange: Any


@dataclass(frozen=True, slots=True)
class End:
    """Yielded for the result of an exchange that was begun."""

    ticket: Any


class _Step:
    """An instruction made ready for one rank: attributes localized, context built.

    `begins`: its exchange goes on beside what follows; `ends` are the steps whose exchanges must be over before this one.
    """

    __slots__ = ("attrs", "begins", "bucket", "casts", "context", "ends", "free", "function", "generator", "ins",
                 "instruction", "into", "outs", "reuses", "single")

    def __init__(self, instruction: Instruction, rank: int, world_size: int) -> None:
        op = instruction.op
        self.instruction = instruction
        self.generator = instruction.exchanges and world_size > 1
        self.function = instruction.through or op.kernel
        self.attrs = instruction.attrs
        if op.localize is not None and instruction.through is None:
            self.attrs = op.localize(instruction.attrs, instruction.in_specs, instruction.out_specs, rank)
        self.casts = None if instruction.casts is None else tuple(
            None if c is None else c.numpy for c in instruction.casts
        )
        self.ins, self.outs, self.free = instruction.ins, instruction.outs, instruction.free
        self.bucket = op.name == "bucket"
        self.begins, self.ends = False, ()
        self.single = len(instruction.outs) == 1 and not self.bucket
        self.reuses = op.reuses if instruction.through is None else getattr(instruction.through, "reuses", False)
        if self.single and instruction.through is None and by_rows(
            op.kernel, instruction.out_specs[0].local_shape(rank), instruction.out_specs[0].meta.dtype.numpy
        ):
            self.function = partial(_by_rows, op.kernel)
        self.into = _overwritable(instruction, rank) if isinstance(op.kernel, np.ufunc) and self.single else ()
        self.context = Context(rank, world_size, instruction.in_specs, instruction.out_specs)
        if (instruction.through is not None or op.collective) and not self.generator:
            self.function = partial(_alone, self.function, self.context)


    def compute(self, values: list[Any]) -> Any:
        """Runs the kernel of an instruction that does not exchange, over memory that nobody needs where it can."""
        if self.into and (into := next((p for p in self.into if _owned(values, p)), None)) is not None:
            return self.function(*values, out=values[into])
        if self.reuses:
            reuse = [r in self.free and _owned(values, p) for p, r in enumerate(self.ins)]
            return self.function(*values, reuse=reuse, **self.attrs)
        return self.function(*values, **self.attrs)

    def run(self, registers: list[Any]) -> None:
        """Runs an instruction that does not exchange; an error is raised."""
        values = [registers[r] for r in self.ins]
        if self.casts is not None:
            values = [v if c is None else convert(v, c) for v, c in zip(values, self.casts)]
        outs = self.compute(values)
        del values
        for register, out in zip(self.outs, (outs,) if self.single else outs):
            registers[register] = out if type(out) is np.ndarray else np.asarray(out)
        del outs
        for register in self.free:
            registers[register] = None


def _overwritable(instruction: Instruction, rank: int) -> tuple[int, ...]:
    """Gives the inputs that die at an instruction and are as large as its output: a ufunc may write there."""
    out = instruction.out_specs[0]
    casts = instruction.casts or (None,) * len(instruction.ins)
    return tuple(
        position
        for position, (register, spec, cast) in enumerate(zip(instruction.ins, instruction.in_specs, casts))
        if register in instruction.free and cast is None and not isinstance(spec, type)
        and spec.meta.dtype is out.meta.dtype and spec.local_shape(rank) == out.local_shape(rank)
    )


def _owned(values: list[Any], position: int) -> bool:
    """Says whether an array that dies at this instruction is referred to by its register and `values` alone.

    `getrefcount` counts these two and its own argument. A view, or an array that has one, has an owner elsewhere.
    """
    value = values[position]
    if type(value) is not np.ndarray or value.base is not None or not value.flags.writeable:
        return False
    del value
    return sys.getrefcount(values[position]) == 3


def _by_rows(kernel: Any, *values: Any, **options: Any) -> Any:
    before = enter_by_rows()
    try:
        return kernel(*values, **options)
    finally:
        leave(before)


def _alone(kernel: Any, context: Context, *values: Any, **attrs: Any) -> Any:
    """Runs a kernel that could exchange rows where nothing has to move: it only cuts or pads this rank's own."""
    steps = kernel(context, *values, **attrs)
    answer: Any = None
    while True:
        try:
            steps.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = [None] * context.world_size


class _Blocks:
    """A segment made ready: its steps for every block, and for the rows in one piece."""

    __slots__ = ("blocks", "crossing", "ends", "free", "inputs", "offsets", "plain", "rank", "sums")

    def __init__(self, program: Program, segment: blocks.Segment, rank: int, world_size: int) -> None:
        inside = program.instructions[segment.start : segment.stop]
        self.plain = [_Step(i, rank, world_size) for i in inside]
        self.ends: tuple[_Step, ...] = ()
        known: dict[tuple[int, int], _Step] = {}
        self.blocks = [
            [_of_block(known, position, i, rank, segment, block) for position, i in enumerate(inside)]
            for block in range(len(segment.offsets) - 1)
        ]
        self.rank, self.offsets, self.inputs = rank, segment.offsets, segment.inputs
        made = {register for i in inside for register in i.outs}
        self.free = [r for i in inside for r in i.free if r not in made]
        self.sums: dict[int, np.ufunc] = {}
        self.crossing: list[tuple[int, int, int, tuple[int, ...], np.dtype]] = []
        for register, spec in segment.crossing:
            if isinstance(spec.placement, Partial):
                self.sums[register] = _JOIN[spec.placement.reduce]
            else:
                assert isinstance(spec.placement, Shard)
                start, stop = spec.placement.block(rank)
                scale = (stop - start) // segment.rows
                self.crossing.append(
                    (register, spec.placement.dim, scale, spec.local_shape(rank), spec.meta.dtype.numpy)
                )

    def run(self, registers: list[Any]) -> bool:
        """Runs the segment; gives False, with the registers as they were, when a kernel fails or a value is missing."""
        if any(type(registers[r]) is Failure for step in self.plain for r in step.ins):
            return False
        whole = {register: np.empty(shape, kind) for register, _, _, shape, kind in self.crossing}
        sums: dict[int, np.ndarray] = {}
        try:
            for block, steps in enumerate(self.blocks):
                first, end = self.offsets[block], self.offsets[block + 1]
                inner = registers.copy()
                for register, dim, scale in self.inputs:
                    inner[register] = block_of(registers[register], dim, first * scale, end * scale)
                for step in steps:
                    step.run(inner)
                    for register in step.outs:  # at once: a block's parts need not all be there at a time
                        join = self.sums.get(register)
                        if join is None:
                            continue
                        part = inner[register]
                        if block:
                            join(sums[register], part, out=sums[register])
                        else:
                            sums[register] = part if _owned(inner, register) else part.copy()
                        inner[register] = part = None
                for register, dim, scale, _, _ in self.crossing:
                    block_of(whole[register], dim, first * scale, end * scale)[...] = inner[register]
        except Exception:  # in one piece it fails again, and then says where
            return False
        for register, value in (*whole.items(), *sums.items()):
            registers[register] = value
        for register in self.free:
            registers[register] = None
        return True


def _of_block(
    known: dict[tuple[int, int], _Step], position: int, instruction: Instruction, rank: int, segment: blocks.Segment, block: int
) -> _Step:
    """Gives the step of a block: that of another block as large, unless it depends on where the block is."""
    size = segment.offsets[block + 1] - segment.offsets[block]
    step = known.get((position, size))
    placed = instruction.op.localize is not None or instruction.op.name == "redistribute"
    if step is None or placed:
        made = _Step(blocks.block_instruction(instruction, rank, segment, block), 1, 3)
        if step is not None and step.attrs == made.attrs:
            return step
        step = known[position, size] = made
    return step


class Prepared:
    """A program made ready for one rank.

    `memory`: bytes that what a run makes may take at a time, where rows can be cut; `ending`: inputs that end with it.
    """

    __slots__ = ("memory", "program", "segments", "source", "steps")

    def __init__(
        self, program: Program, rank: int, world_size: int, memory: int | None = None, ending: Collection[int] = ()
    ) -> None:
        self.source, self.memory = program, memory
        program, segments = blocks.plan(program, rank, memory, ending)
        self.program, self.segments = program, segments
        self.steps: list[_Step | _Blocks] = []
        position = 0
        for segment in segments:
            self.steps += [_Step(i, rank, world_size) for i in program.instructions[position : segment.start]]
            self.steps.append(_Blocks(program, segment, rank, world_size))
            position = segment.stop
        self.steps += [_Step(i, rank, world_size) for i in program.instructions[position:]]
        if program.ahead and memory is None:
            _begin_ahead(self.steps)


def _begin_ahead(steps: Sequence[_Step | _Blocks]) -> None:
    """Finds the reductions beside which something can be computed, and who waits for them."""
    for position, step in enumerate(steps):
        if type(step) is not _Step or not step.generator or not _reduces(step.instruction):
            continue
        first = next((p for p in range(position + 1, len(steps)) if _reads(steps[p], step.outs)), len(steps))
        if all(type(other) is _Step and other.generator for other in steps[position + 1 : first]):
            continue
        step.begins = True
        if first < len(steps):
            steps[first].ends += (step,)


def _reduces(instruction: Instruction) -> bool:
    """Says whether an instruction does nothing but add up parts: a bucket, or what would be one of a single value."""
    return instruction.op.name == "bucket" or (
        instruction.op.name == "redistribute" and isinstance(instruction.in_specs[0].placement, Partial)
    )


def _reads(step: _Step | _Blocks, registers: Collection[int]) -> bool:
    return any(r in registers for inner in (step.plain if isinstance(step, _Blocks) else [step]) for r in inner.ins)


@dataclass(frozen=True, slots=True)
class _Begun:
    """An exchange that goes on, and what was missing of its inputs on this rank."""

    ticket: Any
    poisons: list[Failure | None] | None


def run(
    prepared: Prepared, rank: int, sequence: int, inputs: list[Any], numbers: tuple[Any, ...], failures: list[Failure]
) -> Generator[Any, Any, list[Any]]:
    """Runs a program; gives the outputs, each an array or a `Failure`. `inputs` is emptied.

    A generator: it yields the generator of every exchange and is sent back the exchange's result, or a Failure when its
    own code raised; or it yields `Begin` and `End`, all of them within the run. Failures that begin on this rank are
    appended. The caller sets numpy's error state: a generator must not change it between its steps.
    """
    program = prepared.program
    registers: list[Any] = [None] * program.registers
    count = len(inputs)
    registers[:count] = inputs
    registers[count : count + len(numbers)] = numbers
    inputs.clear()  # an array whose slot has ended is the registers' alone
    steps, position = prepared.steps, 0
    begun: dict[_Step, _Begun] = {}
    while position < len(steps):
        step = steps[position]
        position += 1
        for earlier in step.ends:
            yield from _ended(earlier, begun, registers, rank, sequence, failures)
        if type(step) is _Blocks:
            if not step.run(registers):
                steps, position = [*step.plain, *steps[position:]], 0
            continue
        assert type(step) is _Step
        values = [registers[r] for r in step.ins]
        poison: Failure | None = None
        for register in step.ins:
            if type(registers[register]) is Failure:
                poison = registers[register]
                break
        outs: Any = poison
        if poison is None or step.generator:
            try:
                poisons = [value if type(value) is Failure else None for value in values] if poison is not None else None
                if poisons is not None:
                    values = _stand_ins(step, values)
                if step.casts is not None:
                    values = [v if c is None else convert(v, c) for v, c in zip(values, step.casts)]
                if step.generator:
                    attrs = step.attrs
                    if step.reuses:
                        attrs = {**attrs, "reuse": [r in step.free and _owned(values, p) for p, r in enumerate(step.ins)]}
                    exchange = step.function(step.context, *values, **attrs)
                    if step.begins:
                        begun[step] = _Begun((yield Begin(exchange)), poisons)
                    else:
                        outs = yield exchange
                        outs = _received(step, outs, poisons, rank, sequence, failures)
                    del exchange
                else:
                    outs = step.compute(values)
            except Exception as error:  # any error of a kernel is the program's, and goes to the driver
                outs = _failure(step, rank, sequence, [getattr(v, "shape", ()) for v in values], error)
                failures.append(outs)
        if step not in begun:
            _keep(step, outs, registers)
        del values, outs
        for register in step.free:
            registers[register] = None
    for step in list(begun):
        yield from _ended(step, begun, registers, rank, sequence, failures)
    return [registers[r] for r in program.outputs]


def _keep(step: _Step, outs: Any, registers: list[Any]) -> None:
    """Puts what an instruction gives into its registers."""
    if type(outs) is Failure:
        for register in step.outs:
            registers[register] = outs
    elif step.single:
        registers[step.outs[0]] = outs if type(outs) is np.ndarray else np.asarray(outs)
    else:
        for register, out in zip(step.outs, outs):
            registers[register] = out if type(out) is np.ndarray or type(out) is Failure else np.asarray(out)


def _received(
    step: _Step, outs: Any, poisons: list[Failure | None] | None, rank: int, sequence: int, failures: list[Failure]
) -> Any:
    """Gives what an exchange gave, or the failure in its place. `poisons`: what was missing of its inputs on this rank."""
    if type(outs) is Failure and poisons is None:
        shapes = [spec.local_shape(rank) for spec in step.context.ins if not isinstance(spec, type)]
        outs = _failure(step, rank, sequence, shapes, outs)
        failures.append(outs)
    if poisons is None:
        return outs
    # A bucket's values are independent of each other; anything else is lost as a whole.
    if type(outs) is Failure or not step.bucket:
        return next(poison for poison in poisons if poison is not None)
    return [out if poison is None else poison for poison, out in zip(poisons, outs)]


def _ended(
    step: _Step, begun: dict[_Step, _Begun], registers: list[Any], rank: int, sequence: int, failures: list[Failure]
) -> Generator[Any, Any, None]:
    """Waits for the exchange of a step, if it was begun and is not over, and keeps what it gives."""
    waiting = begun.pop(step, None)
    if waiting is None:
        return
    outs = yield End(waiting.ticket)
    _keep(step, _received(step, outs, waiting.poisons, rank, sequence, failures), registers)


def _stand_ins(step: _Step, values: list[Any]) -> list[Any]:
    """Gives zeros for the values that are missing, so that this rank can take part in an exchange."""
    return [
        np.zeros(spec.local_shape(step.context.rank), spec.meta.dtype.numpy) if type(value) is Failure else value
        for value, spec in zip(values, step.instruction.in_specs)
    ]


def raised(rank: int, error: BaseException) -> Failure:
    """Gives the failure of a collective's own code on this rank; `run` fills in the instruction."""
    return Failure(-1, -1, "", rank, type(error).__name__, str(error), (), _trace(error))


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _failure(step: _Step, rank: int, sequence: int, given: Sequence[Any], error: Any) -> Failure:
    """Gives the failure of an instruction whose inputs have the shapes `given` on this rank."""
    shapes = tuple(map(tuple, given))
    call, op = step.instruction.call, step.instruction.op.name
    if isinstance(error, Failure):
        return Failure(sequence, call, op, rank, error.error, error.message, shapes, error.trace)
    return Failure(sequence, call, op, rank, type(error).__name__, str(error), shapes, _trace(error))
