"""Row blocks: finds the parts of a program that can be run a few rows at a time, through forward and backward.

Instructions that work on each row by itself form a segment. Run block by block, what a block needs and makes stays in
the cache (or within a limit of memory), and parts of sums add up from block to block.

Invariant: exchanges keep their order, whatever the rows of a rank: every rank carries out the same ones. A block is to
the kernels what a rank's rows are, so whatever is right on any number of workers is right in any number of blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distgrad.engine import needs
from distgrad.engine.needs import bytes_of, is_sharded
from distgrad.placement import Partial, Replicate, Shard, Spec
from distgrad.program import Instruction, Program, with_frees

CACHE_BYTES = 2 << 20  # what a block may take: it is read again from a near cache, and starting its instructions costs little
LEAST_BYTES = 8 << 20  # a segment that touches less is done sooner than cut
LEAST_ROWS = 256  # fewer make matrix products slow
LEAST_BLOCK = 1 << 20  # bytes of a block's values where nothing smaller would keep a limit either
_USER = ("map_call", "map_results")  # a user's function sees all rows of its worker


@dataclass(frozen=True, slots=True)
class Segment:
    """Instructions [start, stop) of a program, to be run on `offsets` of `rows` rows one after the other.

    `crossing` are registers made inside and read outside; `inputs` sharded registers from outside with their dims.
    """

    start: int
    stop: int
    rows: int
    offsets: tuple[int, ...]
    inputs: tuple[tuple[int, int, int], ...]
    crossing: tuple[tuple[int, Spec], ...]


class _Rows:
    """Whether instructions work row by row, for one rank whose base tensor has `rows` rows from `first` on."""

    def __init__(self, rank: int, first: int, rows: int) -> None:
        self.rank, self.first, self.rows = rank, first, rows

    def scale(self, spec: Spec) -> int:
        """Gives how many of a tensor's rows belong to one base row; 0 when they do not match."""
        placement = spec.placement
        assert isinstance(placement, Shard)
        start, stop = placement.block(self.rank)
        scale, rest = divmod(stop - start, self.rows)
        return scale if not rest and start == self.first * scale else 0

    def local(self, instruction: Instruction) -> bool:
        """Says whether an instruction can run on a part of the rows."""
        op = instruction.op
        if instruction.exchanges or instruction.through is not None or op.name in _USER:
            return False
        specs = [s for s in (*instruction.in_specs, *instruction.out_specs) if not isinstance(s, type)]
        if not any(map(is_sharded, specs)) or any(is_sharded(s) and not self.scale(s) for s in specs):
            return False
        if any(isinstance(s.placement, Partial) for s in instruction.in_specs if not isinstance(s, type)):
            return False
        if any(isinstance(s.placement, Replicate) for s in instruction.out_specs):
            return False
        if op.name == "redistribute":
            return is_sharded(instruction.out_specs[0]) and isinstance(instruction.in_specs[0].placement, Replicate)
        return not op.collective and not op.reuses


def excess(
    program: Program, segments: Sequence[Segment], rank: int, memory: int, ending: Collection[int]
) -> tuple[int, int] | None:
    """Gives where most bytes are needed, and how many, when that is more than `memory`."""
    before, during = needs.timeline(program, rank, ending)
    for segment in segments:
        inside = program.instructions[segment.start : segment.stop]
        need = needs.segment_needs(inside, {r for r, _ in segment.crossing}, rank)
        longest = max(b - a for a, b in zip(segment.offsets, segment.offsets[1:]))
        most = before[segment.start] + need.fixed + need.rows * longest // segment.rows
        during[segment.start : segment.stop] = [most] + [0] * (len(inside) - 1)
    position = max(range(len(during)), key=during.__getitem__, default=0)
    return (position, during[position]) if during and during[position] > memory else None


def plan(
    program: Program, rank: int, memory: int | None = None, ending: Collection[int] = ()
) -> tuple[Program, list[Segment]]:
    """Gives the program in an order in which segments stand together, and the segments worth running in blocks.

    `memory`: bytes that what a run makes may take at a time, beside its inputs; `ending`: inputs that end with the run.
    """
    base = _base(program, rank)
    if base is None:
        return program, []
    rows = _Rows(rank, *base)
    local = [rows.local(instruction) for instruction in program.instructions]
    levels = _levels(program, local)
    if levels is None:
        return program, []
    order = _ordered(program, local, levels)
    if order is None:
        return program, []
    arranged = with_frees(replace(program, instructions=tuple(program.instructions[i] for i in order)))
    before = needs.timeline(arranged, rank, ending)[0] if memory is not None else ()
    segments = []
    position = 0
    while position < len(order):
        if not local[order[position]]:
            position += 1
            continue
        level, stop = levels[order[position]], position
        while stop < len(order) and local[order[stop]] and levels[order[stop]] == level:
            stop += 1
        left = None if memory is None else memory - before[position]
        segment = _segment(arranged, rows, position, stop, left)
        if segment is not None:
            segments.append(segment)
        position = stop
    return (arranged, segments) if segments else (program, [])


def _base(program: Program, rank: int) -> tuple[int, int] | None:
    """Gives the first row and the number of rows of the largest sharded input, or of what is made where none is.

    What is read by exchanges alone does not count: the states of an optimizer that each worker has its own rows of.
    """
    best: tuple[int, tuple[int, int]] | None = None
    computing = [instruction for instruction in program.instructions if not instruction.exchanges]
    read = {register for instruction in computing for register in instruction.ins}
    given = [spec for register, spec in enumerate(program.inputs) if register in read and is_sharded(spec)]
    for spec in given or [spec for instruction in computing for spec in instruction.out_specs]:
        if isinstance(spec.placement, Shard):
            start, stop = spec.placement.block(rank)
            size = bytes_of(spec, rank)
            if stop - start > 1 and size and (best is None or size > best[0]):
                best = size, (start, stop - start)
    return None if best is None else best[1]


def _levels(program: Program, local: Sequence[bool]) -> list[int] | None:
    """Gives the segment each row-wise instruction belongs to, as late as its readers allow; for others the number of
    segments that must be over before they run. None when nothing works row by row."""
    made = {register: i for i, instruction in enumerate(program.instructions) for register in instruction.outs}
    count = len(program.instructions)
    early = [0] * count
    for i, instruction in enumerate(program.instructions):
        for register in instruction.ins:
            j = made.get(register)
            if j is not None:
                early[i] = max(early[i], early[j] + (1 if local[j] and not local[i] else 0))
    if not any(local):
        return None
    last = max(level for level, is_local in zip(early, local) if is_local)
    late = [last if is_local else last + 1 for is_local in local]
    for i in range(count - 1, -1, -1):
        for register in program.instructions[i].ins:
            j = made.get(register)
            if j is not None:
                late[j] = min(late[j], late[i] - (1 if local[j] and not local[i] else 0))
    levels = list(late)
    for i, instruction in enumerate(program.instructions):  # others as soon as they can
        if not local[i]:
            levels[i] = max(
                (levels[j] + (1 if local[j] else 0) for r in instruction.ins if (j := made.get(r)) is not None), default=0,
            )
    return levels


def _ordered(program: Program, local: Sequence[bool], levels: Sequence[int]) -> list[int] | None:
    """Gives the order of instructions, segments together; None when exchanges would change places."""
    order: list[int] = []
    count = len(program.instructions)
    for level in range(max(levels) + 1):
        order += [i for i in range(count) if not local[i] and levels[i] == level]
        order += [i for i in range(count) if local[i] and levels[i] == level]
    exchanges = [i for i in order if program.instructions[i].exchanges]
    return order if exchanges == sorted(exchanges) else None


def _segment(program: Program, rows: _Rows, start: int, stop: int, memory: int | None) -> Segment | None:
    """Gives a segment with its blocks; None when running it in one piece is as good."""
    inside = program.instructions[start:stop]
    made: dict[int, Spec] = {r: s for i in inside for r, s in zip(i.outs, i.out_specs)}
    inputs: dict[int, tuple[int, int, int]] = {}
    reads: dict[int, int] = {}
    for instruction in inside:
        for register, spec in zip(instruction.ins, instruction.in_specs):
            if is_sharded(spec):
                reads[register] = reads.get(register, 0) + 1
                if register not in made:
                    inputs[register] = (register, spec.placement.dim, rows.scale(spec))
    outside = set(program.outputs) | {r for i in (*program.instructions[:start], *program.instructions[stop:]) for r in i.ins}
    crossing = tuple((register, spec) for register, spec in made.items() if register in outside)
    specs = {r: s for i in inside for r, s in zip((*i.ins, *i.outs), (*i.in_specs, *i.out_specs)) if is_sharded(s)}
    touched = max(sum(bytes_of(s, rows.rank) for s in specs.values()), 1)
    again = any(count > 1 for r, count in reads.items() if r in inputs)
    sums = sum(s.meta.nbytes for s in made.values() if isinstance(s.placement, Partial))
    wanted = rows.rows
    if touched >= LEAST_BYTES and (again or not LEAST_BYTES):
        # A block's part of a sum is added to the sum: no more of that than rows read.
        wanted = max(max(CACHE_BYTES, sums) * rows.rows // touched, LEAST_ROWS)
    if memory is not None:
        need = needs.segment_needs(inside, {register for register, _ in crossing}, rows.rank)
        if need.fixed + need.rows > memory:
            # Where the limit is not kept in any case, blocks as small as a part of the sums waste no time.
            left = max(memory - need.fixed, LEAST_BLOCK, need.part)
            wanted = min(wanted, max(left * rows.rows // max(need.rows, 1), 1))
    if rows.rows < 2 * wanted:
        return None
    count = -(-rows.rows // wanted)
    base, extra = divmod(rows.rows, count)
    offsets = tuple(b * base + min(b, extra) for b in range(count + 1))
    return Segment(start, stop, rows.rows, offsets, tuple(inputs.values()), crossing)


def block_instruction(instruction: Instruction, rank: int, segment: Segment, block: int) -> Instruction:
    """Gives an instruction for one block: to it the block is what rank 1 has of three."""
    def cut(spec: Any) -> Any:
        if not is_sharded(spec):
            return spec
        start, stop = spec.placement.block(rank)
        scale = (stop - start) // segment.rows
        first, end = start + segment.offsets[block] * scale, start + segment.offsets[block + 1] * scale
        return Spec.of(spec.meta, Shard(spec.placement.dim, (0, first, end, spec.meta.shape[spec.placement.dim])))

    outs = tuple(map(cut, instruction.out_specs))
    attrs = instruction.attrs
    if instruction.op.name == "redistribute":
        attrs = {"placement": outs[0].placement}
    return replace(instruction, in_specs=tuple(map(cut, instruction.in_specs)), out_specs=outs, attrs=attrs)
