"""Products of two sharded operands: the blocks of one are seen by every worker in turn.

Invariant: besides its own parts a worker holds one block of the other operand at a time, never the whole of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from distgrad.op import Row, exchanging, op_named
from distgrad.ops.across import Rounds, offsets_of, send, send_counted, split_by, to_all
from distgrad.ops.order import sort_keys

_HALVES = ("float16", "bfloat16")


def _turn(context: Any, position: int, block: np.ndarray, root: int) -> Rounds:
    """Gives one rank's block of the input at `position`, and where its rows start and stop."""
    from distgrad.runtime.collectives import broadcast

    spec = context.ins[position]
    shape = spec.local_shape(root)
    own = np.ascontiguousarray(block).reshape(shape) if root == context.rank else None
    if 0 not in shape:
        own = yield from broadcast(context.rank, context.world_size, own, root, shape, block.dtype)
    return (np.zeros(shape, block.dtype) if own is None else own), slice(*spec.placement.block(root))


def _cut(x: np.ndarray, axis: int, window: slice) -> np.ndarray:
    return x[(slice(None),) * axis + (window,)]


def _multiplied(context: Any, factors: tuple[np.ndarray, np.ndarray], turning: int, transposed: bool) -> Rounds:
    """Multiplies (..., m, k) and (..., k, n) (`transposed`: (n, k)), whose factor `turning` is seen in blocks.

    Blocks along k give terms of all elements, blocks along m or n give some of them.
    """
    spec, rank = context.outs[0], context.rank
    name = factors[0].dtype.name
    kind = np.dtype(np.float32) if name in _HALVES else factors[0].dtype
    a, b = (f.astype(kind, copy=False) for f in factors)
    if transposed:
        b = b.T
    inner = context.ins[turning].ndim - (1 if turning == 0 or transposed else 2)
    summed = context.ins[turning].placement.dim == inner
    out = np.zeros(spec.local_shape(rank), kind)
    for root in range(context.world_size):
        block, window = yield from _turn(context, turning, factors[turning], root)
        if not block.size:
            continue
        block = block.astype(kind, copy=False)
        if turning and transposed:
            block = block.T
        if summed:
            out += block @ _cut(b, b.ndim - 2, window) if turning == 0 else _cut(a, a.ndim - 1, window) @ block
        elif turning == 0:
            out[..., window, :] = block @ b
        else:
            out[..., window] = a @ block
    return out.astype(factors[0].dtype, copy=False)


@exchanging(in_turn=0)
def matmul_left(context: Any, a: np.ndarray, b: np.ndarray) -> Rounds:
    """a @ b with a's blocks in turn."""
    return (yield from _multiplied(context, (a, b), 0, False))


@exchanging(in_turn=1)
def matmul_right(context: Any, a: np.ndarray, b: np.ndarray) -> Rounds:
    """a @ b with b's blocks in turn."""
    return (yield from _multiplied(context, (a, b), 1, False))


@exchanging(in_turn=1)
def linear(context: Any, x: np.ndarray, w: np.ndarray) -> Rounds:
    """x @ w^T with w's blocks in turn."""
    return (yield from _multiplied(context, (x, w), 1, True))


@exchanging(in_turn=1)
def linear_bias(context: Any, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> Rounds:
    """x @ w^T + b with w's blocks in turn; every worker has the bias."""
    y = yield from _multiplied(context, (x, w), 1, True)
    return np.add(y, b, out=y)


def _pair(context: Any, factors: tuple[np.ndarray, np.ndarray], turning: int, equation: str) -> Rounds:
    terms, output = equation.split("->")
    names = terms.split(",")
    letter = names[turning][context.ins[turning].placement.dim]
    other = names[1 - turning]
    kernel = op_named("einsum_pair").kernel
    kind = np.dtype(np.float32) if factors[0].dtype.name in _HALVES else factors[0].dtype
    own = factors[1 - turning].astype(kind, copy=False)
    out = np.zeros(context.outs[0].local_shape(context.rank), kind)
    for root in range(context.world_size):
        block, window = yield from _turn(context, turning, factors[turning], root)
        if not block.size:
            continue
        part = own if letter not in other else _cut(own, other.index(letter), window)
        pair = (block.astype(kind, copy=False), part)
        product = kernel(*(pair if turning == 0 else pair[::-1]), equation=equation)
        if letter in output:
            _cut(out, output.index(letter), window)[...] = product
        else:
            out += product
    return out.astype(factors[0].dtype, copy=False)


@exchanging(in_turn=0)
def einsum_left(context: Any, a: np.ndarray, b: np.ndarray, *, equation: str) -> Rounds:
    """The product with a's blocks in turn."""
    return (yield from _pair(context, (a, b), 0, equation))


@exchanging(in_turn=1)
def einsum_right(context: Any, a: np.ndarray, b: np.ndarray, *, equation: str) -> Rounds:
    """The product with b's blocks in turn."""
    return (yield from _pair(context, (a, b), 1, equation))


def einsum_rows(equation: str, kind: Any) -> Iterable[Row]:
    """Gives the rows in which one factor's own index is sharded and the other's blocks are seen in turn."""
    terms, output = equation.split("->")
    left, right = terms.split(",")
    if kind.name == "bool":
        return
    for i, letter in enumerate(left):
        if letter in output and letter not in right:
            for j in range(len(right)):
                yield Row((i, j), (output.index(letter),), through=einsum_right)
    for j, letter in enumerate(right):
        if letter in output and letter not in left:
            for i in range(len(left)):
                yield Row((i, j), (output.index(letter),), through=einsum_left)


def _distances(context: Any, points: tuple[np.ndarray, np.ndarray], turning: int, by_product: bool) -> Rounds:
    kernel = op_named("distances").kernel
    out = np.zeros(context.outs[0].local_shape(context.rank), points[0].dtype)
    for root in range(context.world_size):
        block, window = yield from _turn(context, turning, points[turning], root)
        if turning:
            out[..., window] = kernel(points[0], block, by_product=by_product)
        else:
            out[..., window, :] = kernel(block, points[1], by_product=by_product)
    return out


@exchanging(in_turn=0)
def distances_left(context: Any, a: np.ndarray, b: np.ndarray, *, by_product: bool) -> Rounds:
    """Distances from the first points, whose blocks are seen in turn, to a worker's own second ones."""
    return (yield from _distances(context, (a, b), 0, by_product))


@exchanging(in_turn=1)
def distances_right(context: Any, a: np.ndarray, b: np.ndarray, *, by_product: bool) -> Rounds:
    """Distances from a worker's own first points to the second ones, whose blocks are seen in turn."""
    return (yield from _distances(context, (a, b), 1, by_product))


def searchsorted(context: Any, sequence: np.ndarray, values: np.ndarray, *, right: bool, dtype: str) -> Rounds:
    """Places in a sharded sorted sequence: a value is sent to the worker whose rows it falls between."""
    world_size = context.world_size
    last = sequence[-1:] if len(sequence) else np.zeros(1, sequence.dtype)
    told = yield from to_all(context, last)
    held = [r for r in range(world_size) if offsets_of(context.ins[0])[r + 1] > offsets_of(context.ins[0])[r]]
    flat = values.reshape(-1)
    home = np.zeros(flat.size, np.int64)
    if held:
        kind = np.result_type(sequence.dtype, values.dtype) if sequence.dtype.kind != "V" else np.dtype(np.float32)
        ends = sort_keys(np.concatenate([told[r][0] for r in held]).astype(kind))
        # A value goes where it might stand before the last row; past all rows, to the last worker that has any.
        found = np.searchsorted(ends, sort_keys(flat.astype(kind)), "right" if right else "left")
        home = np.asarray(held)[np.minimum(found, len(held) - 1)]
    parts, order = split_by(home, (flat,), world_size)
    came = yield from send(context, parts)
    kernel = op_named("searchsorted").kernel
    first = offsets_of(context.ins[0])[context.rank]
    answers = yield from send_counted(
        context, [(kernel(sequence, part[0], right=right, dtype="int64") + first,) for part in came],
        [len(part[0]) for part in parts],
    )
    out = np.empty(flat.size, dtype)
    out[order] = np.concatenate([part[0] for part in answers])
    return out.reshape(context.outs[0].local_shape(context.rank))
