"""Chooses where an op runs: the row that moves the fewest bytes, and the placements its inputs must be given.

Invariant: every choice gives the same values; only the bytes moved differ.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from distgrad.graph import Plan, Session
from distgrad.meta import TensorMeta
from distgrad.op import Entry, Op, Row, exchange_bytes
from distgrad.placement import REPLICATE, Partial, Placement, Replicate, Shard, Spec, balanced

# What starting a collective is worth, in bytes moved: some tens of microseconds at about 1 GB/s.
COLLECTIVE_BYTES = 50_000.0
LARGE_BYTES = 1 << 20
# Rows that every worker computes although they could be shared: what an operation costs, in bytes moved, when a worker
# does about 40 of them in the time one byte takes.
_OPERATIONS_PER_BYTE = 40.0
_KEEP = 1.0  # preferring a choice that changes fewer placements


def move_cost(nbytes: int, source: Placement | None, target: Placement, world_size: int) -> float:
    """Gives the bytes a worker receives when a tensor changes placement, with a constant per collective."""
    if source is target:
        return 0.0
    if isinstance(target, Partial) and target.reduce != "sum":
        return float("inf")  # only sums have parts that add nothing in every dtype
    share = max(world_size - 1, 1) / max(world_size, 2)
    if source is None:  # small local tensors go to everybody, where they serve any later use
        if nbytes < LARGE_BYTES:
            return 0.0 if isinstance(target, Replicate) else _KEEP
        return nbytes * (world_size if isinstance(target, Replicate) else 1.0) + _KEEP
    if isinstance(source, Replicate):
        return _KEEP
    if isinstance(source, Shard) and isinstance(target, Partial):
        return nbytes + COLLECTIVE_BYTES  # nothing moves yet, but every worker writes, and later adds, a whole tensor
    if isinstance(source, Partial):
        # What is small and cut now has to be put together again, at the price of another collective.
        return nbytes * share + 2 * COLLECTIVE_BYTES if isinstance(target, Shard) else 2 * nbytes * share + COLLECTIVE_BYTES
    if isinstance(target, Replicate):  # a large tensor might not fit: rather not whole on every worker
        return nbytes * share * (1.5 if nbytes > LARGE_BYTES else 1.0) + COLLECTIVE_BYTES
    # Rows cut along another dim than those they will meet again have to be moved once more, sooner or later.
    return nbytes * share * _largest_share(target, world_size) + 1.5 * COLLECTIVE_BYTES


def _largest_share(target: Placement, world_size: int) -> float:
    """Gives the part of a tensor that the busiest worker gets: few rows are not cut evenly."""
    offsets = target.offsets if isinstance(target, Shard) else None
    if not offsets or not offsets[-1]:
        return 1 / world_size
    return max(b - a for a, b in pairwise(offsets)) / offsets[-1]


def plan_sharded(
    op: Op, specs: tuple[Any, ...], outs: tuple[TensorMeta, ...], casts: tuple[Any, ...] | None, attrs: dict[str, Any],
    session: Session,
) -> Plan:
    """Gives the plan of a call with at least one input on the workers, or none at all (a creation)."""
    world_size = session.world_size
    metas = [s if isinstance(s, type) else s.meta for s in specs]
    if op.name == "redistribute":
        placement = attrs["placement"]
        first = REPLICATE if isinstance(placement, Partial) else placement
        return Plan(op, specs, (Spec.of(outs[0], placement),), attrs, casts, (specs[0].placement or first,))
    rows = list(op.rows(metas, outs, attrs))
    if all(isinstance(s, type) for s in specs):
        wanted = session.creation_placement(outs[0].shape, outs[0].nbytes)
        rows = [r for r in rows if isinstance(wanted, Shard) and r.outs[0] == wanted.dim]
    best: tuple[float, Row | None, tuple[Any, ...], tuple[Any, ...]] | None = None
    if not rows or not all(isinstance(s, type) for s in specs):
        targets = tuple(None if isinstance(s, type) else REPLICATE for s in specs)
        cost = _inputs_cost(specs, targets, world_size)
        if any(not isinstance(s, type) and isinstance(s.placement, Shard | Partial) for s in specs):
            cost += _operations(metas, outs) * (1 - 1 / world_size) / _OPERATIONS_PER_BYTE
        if attrs.get("sharded") is not None:
            cost += outs[0].nbytes
        if attrs.get("sliced"):  # an optimizer says that each worker is to have a slice
            cost = float("inf")
        best = (cost, None, targets, (REPLICATE,) * len(outs))
    for row in rows:
        placed = place_row(row, specs, outs, world_size)
        if placed is None or not _casts_allow(row, metas, casts):
            continue
        ins, out_placements = placed
        cost = _inputs_cost(specs, ins, world_size)
        reduction = _reduction_cost(specs, ins, outs, out_placements, world_size)
        # A reduction waits and shares its exchange with others, and often only its first half is needed. Moving rows
        # holds up everything behind it, and what it saves is often gathered later: rows stay where they are unless that
        # costs many times as much.
        cost += reduction / (12 if cost < COLLECTIVE_BYTES else 1)
        if attrs.get("sharded") is not None:
            out = out_placements[0]
            cost += 0 if isinstance(out, Shard) and out.dim == attrs["sharded"] else outs[0].nbytes
        if row.through is not None:
            cost += _exchange_cost(row, specs, ins, outs, out_placements, world_size)
        if cost < (float("inf") if best is None else best[0]):
            best = (cost, row, ins, out_placements)
    assert best is not None
    _, row_chosen, targets, placements = best
    return Plan(op, specs, tuple(Spec.of(m, p) for m, p in zip(outs, placements)), attrs, casts, targets,
                None if row_chosen is None else row_chosen.through)


def recreated(plan: Plan, placement: Placement) -> Plan | None:
    """Gives the plan that makes a created value with another placement; None for a value that is not made from numbers
    alone, or not by blocks of that dim."""
    if len(plan.outs) != 1 or not all(isinstance(spec, type) for spec in plan.ins) or isinstance(placement, Partial):
        return None
    key = (plan.uid, placement)
    known = plan.op.plans.get(key)
    if known is None:
        meta = plan.outs[0].meta
        if isinstance(placement, Shard) and all(
            row.outs != (placement.dim,) for row in plan.op.rows(plan.ins, (meta,), plan.attrs)
        ):
            return None
        known = Plan(plan.op, plan.ins, (Spec.of(meta, placement),), plan.attrs, plan.casts, plan.targets)
        plan.op.plans[key] = known
    return known


def _inputs_cost(specs: tuple[Any, ...], targets: tuple[Any, ...], world_size: int) -> float:
    return sum(
        move_cost(s.meta.nbytes, s.placement, t, world_size)
        for s, t in zip(specs, targets)
        if not isinstance(s, type)
    )


def _reduction_cost(
    specs: tuple[Any, ...], ins: tuple[Any, ...], outs: tuple[TensorMeta, ...], placements: tuple[Placement, ...],
    world_size: int,
) -> float:
    """Gives what reducing Partial outputs later costs, less what is saved by not reducing Partial inputs now."""
    later = sum(
        move_cost(m.nbytes, p, REPLICATE, world_size) for m, p in zip(outs, placements) if isinstance(p, Partial)
    )
    saved = sum(
        move_cost(s.meta.nbytes, p, REPLICATE, world_size)
        for s, p in zip(specs, ins) if isinstance(p, Partial) and s.placement is p
    )
    return max(later - saved, 0.0)


def _exchange_cost(
    row: Row, specs: tuple[Any, ...], ins: tuple[Any, ...], outs: tuple[TensorMeta, ...],
    placements: tuple[Placement, ...], world_size: int,
) -> float:
    """Gives what the exchange of a row costs."""
    given = [(s.meta, _dim(p)) for s, p in zip(specs, ins) if not isinstance(s, type)]
    moved = exchange_bytes(row.through, given, [(m, _dim(p)) for m, p in zip(outs, placements)], world_size)
    return moved + (1 if getattr(row.through, "in_turn", None) is None else world_size) * COLLECTIVE_BYTES


def _dim(placement: Placement | None) -> int | None:
    return placement.dim if isinstance(placement, Shard) else None


def _operations(metas: list[Any], outs: tuple[TensorMeta, ...]) -> float:
    """Gives about how many multiplications an op does: for a product of two matrices, just as many."""
    sizes = [m.size for m in (*metas, *outs) if not isinstance(m, type)]
    return math.sqrt(math.prod(sizes)) if len(sizes) == 3 else float(sum(sizes))


def _casts_allow(row: Row, metas: list[Any], casts: tuple[Any, ...] | None) -> bool:
    """A Partial input may only be converted between floating dtypes: rounding to integers is not linear."""
    if casts is None:
        return True
    return all(
        entry != "sum" or cast is None or (meta.dtype.category >= 2 and cast.category >= meta.dtype.category)
        for entry, meta, cast in zip(row.ins, metas, casts)
    )


def place_row(
    row: Row, specs: tuple[Any, ...], outs: tuple[TensorMeta, ...], world_size: int
) -> tuple[tuple[Placement | None, ...], tuple[Placement, ...]] | None:
    """Gives a row's placements with offsets; None if it cannot be had.

    Offsets follow the largest input that is already sharded as the row wants; otherwise blocks are balanced.
    """
    if row.through is not None:
        return _place_exchange(row, specs, outs, world_size)
    count = len(specs)
    scales = row.scales or (1,) * (count + len(outs))
    blocks = base = None
    largest = -1
    for entry, spec, scale in zip(row.ins, specs, scales):
        if not isinstance(entry, int):
            continue
        rows = spec.meta.shape[entry]
        if rows % scale:
            return None
        if blocks is None:
            blocks = rows // scale
        elif blocks != rows // scale:
            return None
        current = spec.placement
        if isinstance(current, Shard) and current.dim == entry and spec.meta.nbytes > largest:
            offsets = current.offsets
            assert offsets is not None
            if all(o % scale == 0 for o in offsets):
                base, largest = tuple(o // scale for o in offsets), spec.meta.nbytes
    for entry, meta, scale in zip(row.outs, outs, scales[count:]):
        if isinstance(entry, int):
            if blocks is None:
                blocks = meta.shape[entry] // scale
            if meta.shape[entry] != blocks * scale:
                return None
    if blocks is not None and base is None:
        base = balanced(blocks, world_size)

    def placement(entry: Entry, scale: int) -> Placement:
        if entry is None:
            return REPLICATE
        if isinstance(entry, str):
            return Partial(entry)
        assert base is not None
        return Shard(entry, tuple(o * scale for o in base) if scale != 1 else base)

    ins = tuple(
        None if isinstance(s, type) else placement(e, scale) for e, s, scale in zip(row.ins, specs, scales)
    )
    return ins, tuple(placement(e, scale) for e, scale in zip(row.outs, scales[count:]))


def _place_exchange(
    row: Row, specs: tuple[Any, ...], outs: tuple[TensorMeta, ...], world_size: int
) -> tuple[tuple[Placement | None, ...], tuple[Placement, ...]]:
    """Gives the placements of a row whose kernel exchanges: offsets are shared by what has equally many rows."""
    found: dict[int, tuple[int, ...]] = {}
    largest: dict[int, int] = {}
    for entry, spec in zip(row.ins, specs):
        if isinstance(entry, int):
            rows, current = spec.meta.shape[entry], spec.placement
            if isinstance(current, Shard) and current.dim == entry and spec.meta.nbytes > largest.get(rows, -1):
                assert current.offsets is not None
                found[rows], largest[rows] = current.offsets, spec.meta.nbytes

    def placement(entry: Entry, meta: TensorMeta) -> Placement:
        if isinstance(entry, int):
            rows = meta.shape[entry]
            return Shard(entry, found.get(rows) or balanced(rows, world_size))
        return REPLICATE if entry is None else Partial(entry)

    ins = tuple(None if isinstance(s, type) else placement(e, s.meta) for e, s in zip(row.ins, specs))
    return ins, tuple(placement(e, m) for e, m in zip(row.outs, outs))
