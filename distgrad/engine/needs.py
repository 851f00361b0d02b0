"""What a program needs: the bytes its values take while each instruction runs, all rows at once or some at a time.

Invariant: estimates only, made from specs: they decide how a program is cut and what is said about it, never a value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.placement import Partial, Shard, Spec
from distgrad.program import Instruction, Program

NAMED = 3  # values that are told of by name
_LEAN = ("matmul", "linear", "conv", "conv_bias", "conv_weight", "conv_input")  # these make nothing beside their results


@dataclass(frozen=True, slots=True)
class Notice:
    """That a limit cannot be kept. `call` is the position of the recorded call, `sequence` the run it belonged to."""

    sequence: int
    call: int
    message: str


def bytes_of(spec: Spec, rank: int) -> int:
    """Gives the bytes of a rank's part of a tensor."""
    return math.prod(spec.local_shape(rank)) * spec.meta.dtype.itemsize


def is_sharded(spec: Any) -> bool:
    """Says whether an input is a tensor of which each rank has some rows."""
    return not isinstance(spec, type) and isinstance(spec.placement, Shard)


def most_exchanged(program: Program, rank: int) -> int:
    """Gives the bytes of what a rank puts into the largest exchange of a program."""
    return max((
        sum(bytes_of(s, rank) for s in i.in_specs if not isinstance(s, type)) for i in program.instructions if i.exchanges
    ), default=0)


class Ledger:
    """The bytes of the values that are alive, instruction after instruction. What was there before counts as nothing."""

    def __init__(self, rank: int) -> None:
        self.rank, self.live = rank, 0
        self.sizes: dict[int, int] = {}  # by the register that owns the memory
        self._owner: dict[int, int] = {}
        self._readers: dict[int, int] = {}

    def given(self, register: int, size: int) -> None:
        """Counts a value that is there at the beginning and may end."""
        self.sizes[register], self._owner[register], self._readers[register] = size, register, 1
        self.live += size

    def step(self, instruction: Instruction, size_of: Any) -> int:
        """Goes past an instruction; gives the bytes alive while it runs. `size_of(spec)` gives those of its outputs."""
        reused = 0
        op = instruction.op
        taken: set[int] = set()
        in_place = op.reuses or isinstance(op.kernel, np.ufunc)
        for register, spec in zip(instruction.outs, instruction.out_specs):
            if op.put is not None and instruction.ins[0] in self._owner:  # a view
                owner = self._owner[register] = self._owner[instruction.ins[0]]
                self._readers[owner] += 1
                continue
            size = size_of(spec)
            if in_place:
                dying = next((r for r in instruction.ins if r in instruction.free and r not in taken
                              and self.sizes.get(r) == size and self._readers[r] == 1), None)
                if dying is not None:
                    taken.add(dying)
                    reused += size
            self.given(register, size)
        during = self.live - reused
        for register in instruction.free:
            freed = self._owner.pop(register, None)
            if freed is None:
                continue
            self._readers[freed] -= 1
            if not self._readers[freed]:
                self.live -= self.sizes.pop(freed)
        return during


def temporaries(instruction: Instruction, rank: int) -> int:
    """Gives a guess at the bytes a kernel takes beside inputs and outputs."""
    op = instruction.op
    if isinstance(op.kernel, np.ufunc) or op.put is not None or op.name in _LEAN:
        return 0
    return max((bytes_of(s, rank) for s in instruction.out_specs if is_sharded(s)), default=0)


@dataclass(slots=True)
class SegmentNeeds:
    """The bytes of a segment while it runs in blocks: `fixed` whatever the blocks, `rows` those of all rows at once."""

    fixed: int
    rows: int
    part: int


def segment_needs(instructions: Sequence[Instruction], crossing: Collection[int], rank: int) -> SegmentNeeds:
    """Gives what the values made in a segment take."""
    inner = Ledger(rank)
    rows = fixed = part = 0

    def size_of(spec: Spec) -> int:
        return bytes_of(spec, rank) if is_sharded(spec) else 0

    for instruction in instructions:
        rows = max(rows, inner.step(instruction, size_of) + temporaries(instruction, rank))
        for register, spec in zip(instruction.outs, instruction.out_specs):
            if register in crossing or isinstance(spec.placement, Partial):
                fixed += bytes_of(spec, rank)
            if isinstance(spec.placement, Partial):  # a block's part, on its way into the sum
                part = max(part, spec.meta.nbytes)
    return SegmentNeeds(fixed + part, rows, part)


def timeline(program: Program, rank: int, ending: Collection[int]) -> tuple[list[int], list[int]]:
    """Gives the bytes before and during each instruction, beside inputs; those in `ending` end with their last reader."""
    ledger = _begun(program, rank, ending)
    before, during = [], []
    for instruction in program.instructions:
        before.append(ledger.live)
        during.append(ledger.step(instruction, lambda spec: bytes_of(spec, rank)))
    return before, during


def _begun(program: Program, rank: int, ending: Collection[int]) -> Ledger:
    ledger = Ledger(rank)
    for register in ending:
        ledger.given(register, bytes_of(program.inputs[register], rank))
    ledger.live = 0  # they are inputs, which the caller has counted
    return ledger


def largest(program: Program, rank: int, position: int, ending: Collection[int], segments: Sequence[Any]) -> str:
    """Names the largest values that are there while an instruction runs, and who needs them whole."""
    ledger = _begun(program, rank, ending)
    for instruction in program.instructions[:position]:
        ledger.step(instruction, lambda spec: bytes_of(spec, rank))
    at = program.instructions[position]
    found = dict(ledger.sizes)
    found.update((r, bytes_of(s, rank)) for r, s in zip(at.outs, at.out_specs) if at.op.put is None)
    for register in at.ins:
        if register < len(program.inputs):
            found[register] = bytes_of(program.inputs[register], rank)
    made = {r: (i.op.name, s) for i in program.instructions for r, s in zip(i.outs, i.out_specs)}
    cut = {i for segment in segments for i in range(segment.start, segment.stop)}
    lines = []
    for register, size in sorted(found.items(), key=lambda item: -item[1])[:NAMED]:
        name, spec = made.get(register) or ("given", program.inputs[register])
        reader = next((i.op.name for p, i in enumerate(program.instructions)
                       if p >= position and p not in cut and register in i.ins), None)
        why = "given to it" if register not in made else "kept after it" if register in program.outputs else \
            f"needed by {reader}" if reader is not None else "needed later"
        lines.append(f"{name} {spec.local_shape(rank)} {spec.meta.dtype.name}, {size:,} bytes, {why}")
    return "; ".join(lines)
