"""Lowers live calls to a program: shares equal redistributions, buckets reductions, frees dead registers.

Invariant: instruction order is recording order except that a reduction stands where its bucket is full or somebody needs
its result, so the same recording always gives the same program and the same collectives in the same order on every worker.
"""

from __future__ import annotations

from typing import Any

from distgrad.graph import Call, Node
from distgrad.op import OPS
from distgrad.ops.bucket import bucket
from distgrad.placement import REPLICATE, Partial, Shard, Spec
from distgrad.program import Instruction, Program, check, render, with_frees

BUCKET_BYTES = 25 << 20
FIRST_BUCKET_BYTES = 1 << 20  # a small first bucket gets the exchange going early
AHEAD_BYTES = 1 << 20  # of a bucket whose exchange goes on beside what is computed: the last one is waited for
ALONG_BYTES = 1024  # whole values of no more are sent to all workers along with the slices of others


class Recorded:
    """Live calls with numbered registers: the inputs of lowering, and the structural key of the program."""

    __slots__ = ("calls", "inputs", "key", "numbers", "outputs", "wanted")

    def __init__(self, calls: list[Call], wanted: list[list[bool]]) -> None:
        self.calls, self.wanted = calls, wanted
        self.inputs: list[Node] = []
        self.numbers: list[Any] = []
        self.outputs: list[Node] = []
        place: dict[int, int] = {}
        key: list[Any] = []
        count = 0
        for call, flags in zip(calls, wanted):
            key.append(call.plan.uid)
            for value in call.inputs:
                if type(value) is not Node:
                    self.numbers.append(value)
                    key.append(-1)
                    continue
                known = place.get(id(value))
                if known is None:
                    self.inputs.append(value)
                    known = place[id(value)] = -1 - len(self.inputs)
                    key.append(value.spec)
                key.append(known)
            for node, flag in zip(call.outputs, flags):
                place[id(node)] = count
                count += 1
                if flag:
                    self.outputs.append(node)
                    key.append(True)
                else:
                    key.append(False)
        self.key = tuple(key)


def lower(recorded: Recorded, *, buckets: bool = True, ahead: bool = False) -> Program:
    """Gives the program of recorded calls. `ahead`: its reductions go on while later instructions compute."""
    registers: dict[int, int] = {id(node): i for i, node in enumerate(recorded.inputs)}
    number = len(recorded.inputs)
    count = number + len(recorded.numbers)
    instructions: list[Instruction] = []
    moved: dict[tuple[int, Any], int] = {}

    for position, call in enumerate(recorded.calls):
        plan = call.plan
        ins = []
        in_specs: list[Any] = []
        for value, spec, target in zip(call.inputs, plan.ins, plan.targets or (None,) * len(plan.ins)):
            if type(value) is Node:
                ins.append(registers[id(value)])
                in_specs.append(value.spec if target is None else Spec.of(value.spec.meta, target))
            else:
                ins.append(number)
                number += 1
                in_specs.append(spec)
        if plan.op.name == "redistribute":
            if in_specs[0].placement is plan.outs[0].placement:  # it is there already
                registers[id(call.outputs[0])] = ins[0]
                continue
            share = (ins[0], plan.outs[0].placement)
            if share in moved:
                registers[id(call.outputs[0])] = moved[share]
                continue
            moved[share] = count
        outs = tuple(range(count, count + len(call.outputs)))
        count += len(outs)
        for node, register in zip(call.outputs, outs):
            registers[id(node)] = register
        instructions.append(
            Instruction(plan.op, plan.attrs, plan.casts, tuple(ins), outs, tuple(in_specs), plan.outs, plan.through,
                        call=position)
        )

    # No Partial value outlives a program. Its reduction stands right after it, where it can share a bucket.
    made = {register: i for i, instruction in enumerate(instructions) for register in instruction.outs}
    after: dict[int, list[Instruction]] = {}
    outputs: list[int] = []
    for node in recorded.outputs:
        register = registers[id(node)]
        if isinstance(node.spec.placement, Partial):
            if (register, REPLICATE) not in moved:
                moved[(register, REPLICATE)] = count
                producer = made[register]  # an input is never Partial, so one of the instructions made it
                reduction = _reduction(register, count, node.spec, instructions[producer].call)
                after.setdefault(producer, []).append(reduction)
                count += 1
            register = moved[(register, REPLICATE)]
        outputs.append(register)
    early = set()  # what is reduced to slices need not be whole for longer than it takes to fill a bucket
    for instruction in instructions:
        if _reduces(instruction) and (ahead or _sliced(instruction)):
            after.setdefault(made[instruction.ins[0]], []).append(instruction)
            early.add(instruction.outs[0])
    instructions = [
        one for i, instruction in enumerate(instructions)
        for one in (*(() if instruction.outs and instruction.outs[0] in early else (instruction,)), *after.get(i, ()))
    ]
    if buckets:
        instructions = bucketed(instructions, ahead)
    program = Program(
        tuple(n.spec for n in recorded.inputs), len(recorded.numbers), tuple(instructions), tuple(outputs), count, ahead,
    )
    return check(with_frees(program))


def explain(node: Node, pending: list[Call], world_size: int) -> str:
    """Gives the program that would compute a node now, with placements and bytes moved."""
    if node.call is None:
        return f"computed already: {node.spec!r}; nothing to run"
    needed: dict[int, Call] = {}
    stack = [node.call]
    while stack:
        call = stack.pop()
        if id(call) not in needed:
            needed[id(call)] = call
            stack.extend(v.call for v in call.inputs if type(v) is Node and v.call is not None)
    calls = [call for call in pending if id(call) in needed]
    wanted = [[out is node for out in call.outputs] for call in calls]
    return render(lower(Recorded(calls, wanted)), world_size)


def final_spec(spec: Spec) -> Spec:
    """Gives the spec a value has after its program: a Partial one was reduced."""
    return Spec.of(spec.meta, REPLICATE) if isinstance(spec.placement, Partial) else spec


def _reduction(register: int, out: int, spec: Spec, call: int) -> Instruction:
    return Instruction(OPS["redistribute"], {"placement": REPLICATE}, None, (register,), (out,), (spec,),
                       (final_spec(spec),), call=call)


def _reduces(instruction: Instruction) -> bool:
    """Says whether an instruction is a reduction that may share a bucket: to whole values, or to rows of the first dim."""
    if instruction.op.name != "redistribute" or not isinstance(instruction.in_specs[0].placement, Partial):
        return False
    return instruction.out_specs[0].placement is REPLICATE or _sliced(instruction)


def _sliced(instruction: Instruction) -> bool:
    target = instruction.out_specs[0].placement
    return isinstance(target, Shard) and target.dim == 0 and instruction.in_specs[0].placement.reduce == "sum"


def bucketed(instructions: list[Instruction], ahead: bool = False) -> list[Instruction]:
    """Joins reductions of one dtype into buckets; each goes where its last part or first reader is."""
    result: list[Instruction] = []
    waiting: list[Instruction] = []
    size = 0
    limit, next_limit = FIRST_BUCKET_BYTES, AHEAD_BYTES if ahead else BUCKET_BYTES

    def close() -> None:
        nonlocal waiting, size
        slices = [i for i in waiting if _sliced(i)]
        wholes = [i for i in waiting if not _sliced(i)]
        if slices:
            others = len(slices[0].out_specs[0].placement.offsets) - 2  # type: ignore[union-attr]  # a Shard
            if others * sum(i.in_specs[0].meta.nbytes for i in wholes) <= ALONG_BYTES:
                slices, wholes = waiting, []
        for group in (wholes, slices):
            if group:
                result.append(_joined(group))
        waiting, size = [], 0

    for instruction in instructions:
        if any(w.outs[0] in instruction.ins for w in waiting):
            close()
        if _reduces(instruction):
            spec = instruction.in_specs[0]
            if waiting and (spec.meta.dtype is not waiting[0].in_specs[0].meta.dtype
                            or spec.placement is not waiting[0].in_specs[0].placement):
                close()
            waiting.append(instruction)
            size += spec.meta.nbytes
            if size >= (next_limit if any(map(_sliced, waiting)) else limit):
                close()
                limit = next_limit
            continue
        result.append(instruction)
    close()
    return result


def _joined(group: list[Instruction]) -> Instruction:
    """Gives the bucket of reductions; a single one stays what it is."""
    if len(group) == 1:
        return group[0]
    return Instruction(
        bucket,
        {"reduce": group[0].in_specs[0].placement.reduce},
        None,
        tuple(i.ins[0] for i in group),
        tuple(i.outs[0] for i in group),
        tuple(i.in_specs[0] for i in group),
        tuple(i.out_specs[0] for i in group),
        call=group[0].call,
    )
