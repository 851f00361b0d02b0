"""Programs: what a worker runs, as data. A program is checked after every pass and prints itself.

Registers are numbered: inputs first, then the run's Python numbers, then results. Invariant: a register is written
once and read only before it is freed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from distgrad.op import Op, exchange_bytes
from distgrad.placement import Partial, Replicate, Shard, Spec


@dataclass(frozen=True, slots=True)
class Instruction:
    """One op on registers.

    `ins` and `outs` are registers; `in_specs` holds a Spec per input, or the type of a Python number; `free` are
    registers that nobody reads afterwards; `call` is the position of the recorded call it came from.
    """

    op: Op
    attrs: dict[str, Any]
    casts: tuple[Any, ...] | None
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    in_specs: tuple[Any, ...]
    out_specs: tuple[Spec, ...]
    through: Any = None
    free: tuple[int, ...] = ()
    call: int = -1

    @property
    def exchanges(self) -> bool:
        """Whether workers exchange rows or parts here."""
        if self.through is not None or self.op.name == "bucket":
            return True
        if self.op.name == "redistribute":
            source, target = self.in_specs[0].placement, self.out_specs[0].placement
            if source is target:
                return False
            return isinstance(source, Partial) or (isinstance(source, Shard) and not isinstance(target, Partial))
        return self.op.collective


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions with their inputs and outputs.

    `inputs` are the specs of the first registers, `numbers` how many Python numbers follow, `outputs` the registers
    to keep, `registers` how many there are in all. `ahead`: reductions go on while later instructions compute.
    """

    inputs: tuple[Spec, ...]
    numbers: int
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]
    registers: int = 0
    ahead: bool = False

    def __str__(self) -> str:
        return render(self)


def check(program: Program) -> Program:
    """Gives the program back when it is well formed; ValueError names the instruction and register otherwise."""
    known = set(range(len(program.inputs) + program.numbers))
    for position, instruction in enumerate(program.instructions):
        for register in instruction.ins:
            if register not in known:
                name = instruction.op.name
                raise ValueError(f"instruction {position} ({name}) reads %{register}, which is not there")
        if len(instruction.in_specs) != len(instruction.ins) or len(instruction.out_specs) != len(instruction.outs):
            raise ValueError(f"instruction {position} ({instruction.op.name}) has not one spec per register")
        for register in instruction.outs:
            if register in known or register >= program.registers:
                raise ValueError(f"instruction {position} ({instruction.op.name}) cannot write %{register}")
            known.add(register)
        for register in instruction.free:
            if register not in known or register in program.outputs:
                raise ValueError(f"instruction {position} ({instruction.op.name}) cannot free %{register}")
            known.discard(register)
    for register in program.outputs:
        if register not in known:
            raise ValueError(f"output %{register} is not there at the end")
    return program


def with_frees(program: Program) -> Program:
    """Gives the program with each register freed right after its last use."""
    kept = set(program.outputs)
    seen: set[int] = set()
    reversed_instructions = []
    for instruction in reversed(program.instructions):
        dying = []
        for register in dict.fromkeys((*instruction.ins, *instruction.outs)):
            if register not in seen and register not in kept:
                dying.append(register)
            seen.add(register)
        reversed_instructions.append(replace(instruction, free=tuple(dying)))
    return replace(program, instructions=tuple(reversed(reversed_instructions)))


def bytes_moved(instruction: Instruction, world_size: int) -> int:
    """Gives the bytes one worker sends in an instruction (the busiest one, rows balanced)."""
    if not instruction.exchanges or world_size == 1:
        return 0
    if instruction.through is not None:
        ins, outs = (
            [(s.meta, s.placement.dim if isinstance(s.placement, Shard) else None) for s in specs if isinstance(s, Spec)]
            for specs in (instruction.in_specs, instruction.out_specs)
        )
        return int(exchange_bytes(instruction.through, ins, outs, world_size))
    total = 0
    for before, after in zip(instruction.in_specs, instruction.out_specs):
        source, target, nbytes = before.placement, after.placement, before.meta.nbytes
        share = nbytes * (world_size - 1) // world_size
        if isinstance(source, Partial):
            total += share if isinstance(target, Shard) else 2 * share
        elif isinstance(source, Shard):
            total += share if isinstance(target, Replicate) else share // world_size
    return total


def render(program: Program, world_size: int | None = None) -> str:
    """Gives the program as text, one instruction a line; with `world_size` also the bytes each moves."""
    lines = [f"inputs  {', '.join(f'%{i}: {spec!r}' for i, spec in enumerate(program.inputs)) or 'none'}"]
    first = len(program.inputs)
    if program.numbers:
        lines.append(f"numbers {', '.join(f'%{i}' for i in range(first, first + program.numbers))}")
    for instruction in program.instructions:
        attrs = "".join(f" {k}={v!r}" for k, v in instruction.attrs.items())
        outs = ", ".join(f"%{r}: {s!r}" for r, s in zip(instruction.outs, instruction.out_specs))
        name = instruction.op.name + (" across rows" if instruction.through is not None else "")
        moved = ""
        if world_size is not None and instruction.exchanges:
            moved = f"  # moves {bytes_moved(instruction, world_size):,} bytes per worker"
        lines.append(f"{outs} = {name}({', '.join(f'%{r}' for r in instruction.ins)}){attrs}{moved}")
    lines.append(f"outputs {', '.join(f'%{r}' for r in program.outputs) or 'none'}")
    return "\n".join(lines)
