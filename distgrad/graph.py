"""Nodes, pending calls and plans: the global graph.

Invariant: a node's value never changes. A node is local (its array is here), pending (its call is recorded, not yet
run) or materialized (a slot on the workers). Only values that someone still refers to survive a flush.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from distgrad import temporaries
from distgrad.errors import SessionError
from distgrad.op import Op
from distgrad.placement import Placement, Spec
from distgrad.quiet import by_rows

_plan_ids = itertools.count()


class Plan:
    """How one op runs on inputs of given specs: casts, the placement each input must have, output specs.

    Plans are made once per (op, specs, attributes) and reused; `uid` stands for all of that in structural keys.
    """

    __slots__ = ("attrs", "by_rows", "casts", "ins", "large", "local", "needs_move", "op", "outs", "single", "targets",
                 "through", "uid")

    def __init__(self, op: Op, ins: tuple[Any, ...], outs: tuple[Spec, ...], attrs: dict[str, Any],
                 casts: tuple[Any, ...] | None, targets: tuple[Placement | None, ...] | None = None,
                 through: Any = None) -> None:
        self.op, self.ins, self.outs, self.attrs, self.casts = op, ins, outs, attrs, casts
        self.targets, self.through = targets, through
        self.local = targets is None
        self.needs_move = targets is not None and any(
            not isinstance(i, type) and i.placement is not t for i, t in zip(ins, targets)
        )
        self.single = len(outs) == 1
        self.large = self.local and self.single and op.put is None and outs[0].meta.nbytes >= temporaries.LEAST_BYTES
        self.by_rows = self.large and by_rows(op.kernel, outs[0].meta.shape, outs[0].meta.dtype.numpy)
        self.uid = next(_plan_ids)


LATEST = 1 << 62


class Slot:
    """A value on the workers. When the last node lets go of it, it is queued to be freed; nothing is sent.

    `run` is the sequence of the run that computes it (-1: data, `LATEST`: the latest one), `program` and `output` which
    output of which program.
    """

    __slots__ = ("__weakref__", "id", "output", "program", "run")

    def __init__(self, identity: int, run: int = -1, program: int = -1, output: int = -1) -> None:
        self.id, self.run, self.program, self.output = identity, run, program, output


class _Release(weakref.ref[Slot]):
    """Knows a slot's id when the slot is gone."""

    __slots__ = ("id",)
    id: int


class Slots:
    """The slots of a session: numbers them and learns which ones nobody refers to any more.

    The finalizer is a list's `append`, no function of Python's: an interrupt that came inside one would be dropped.
    """

    def __init__(self) -> None:
        self._count = itertools.count()
        self._live: dict[int, _Release] = {}
        self._gone: list[_Release] = []

    def new(self, run: int = -1, program: int = -1, output: int = -1) -> Slot:
        """Gives a slot with a number of its own."""
        slot = Slot(next(self._count), run, program, output)
        release = _Release(slot, self._gone.append)
        release.id = slot.id
        self._live[slot.id] = release
        return slot

    def take_gone(self) -> tuple[int, ...]:
        """Gives the ids of slots that have gone since the last call."""
        count = len(self._gone)
        ids = tuple(release.id for release in self._gone[:count])
        del self._gone[:count]
        for identity in ids:
            del self._live[identity]
        return ids


class Call:
    """A recorded op: its plan, its inputs (nodes and Python numbers), its outputs and the user's line."""

    __slots__ = ("inputs", "outputs", "plan", "site")

    def __init__(self, plan: Plan, inputs: Sequence[Any], site: tuple[Any, int] | None) -> None:
        self.plan, self.inputs, self.site = plan, inputs, site
        self.outputs: tuple[Node, ...] = ()


class Node:
    """An immutable value of the graph."""

    __slots__ = ("cached", "call", "data", "home", "index", "saved", "slot", "spec", "twin")

    def __init__(self, spec: Spec, data: Any = None) -> None:
        self.spec = spec
        self.data = data  # the array of a local node
        self.call: Call | None = None  # how a pending node is made
        self.index = 0  # which output of the call
        self.slot: Slot | None = None  # where a materialized node is
        self.home: Any = None  # the session of a pending or materialized node
        self.twin: Node | None = None  # a local node's copy on the workers
        self.cached: Any = None  # a materialized node's value, when it came back with its run
        self.saved = False  # a gradient rule holds this value


class Session(Protocol):
    """What recording needs of a session; the runtime provides it."""

    world_size: int
    shard_optimizer: bool | None
    pending: list[Call]
    tapes: Any
    flushes: int
    remade: list[Call]

    @property
    def by_nodes(self) -> bool: ...

    def site(self) -> Any: ...

    def record(self, plan: Plan, inputs: list[Any]) -> tuple[Node, ...]: ...

    def record_again(self, calls: Any, table: list[Any]) -> bool: ...

    def fetch(self, node: Node) -> np.ndarray: ...

    def flush(self) -> None: ...

    def step_done(self) -> None: ...

    def creation_placement(self, shape: tuple[int, ...], nbytes: int) -> Placement: ...


held_site: list[Any] = [None]
"""The user's line that a reverse pass was begun at, while rules of ours run in it: not looked for again for each call."""

_session: list[Session | None] = [None]
recorder: list[Any] = [None]  # what watches the recording of a compiled function, see runtime.compiled


def session() -> Session | None:
    """Gives the running session, or None when everything is local."""
    return _session[0]


def set_session(value: Session | None) -> None:
    """Makes a session the running one. Plans depend on the number of workers, so all are forgotten."""
    from distgrad.op import OPS

    _session[0] = value
    for op in OPS.values():
        op.plans.clear()


@contextlib.contextmanager
def local_only() -> Iterator[None]:
    """Runs everything in this process while entered: what a worker does inside a user's function."""
    from distgrad.op import OPS

    before = _session[0]
    if before is None:
        yield
        return
    plans = [(op, op.plans) for op in OPS.values()]  # the session's, which go on being used afterwards
    for op, _ in plans:
        op.plans = {}
    _session[0] = None
    try:
        yield
    finally:
        _session[0] = before
        for op, own in plans:
            op.plans = own


def flush_hint() -> None:
    """Says that now is a good moment to send what is pending (an optimizer has finished its step)."""
    current = _session[0]
    if current is not None and recorder[0] is None:
        current.step_done()


def require_home(node: Node) -> Session:
    """Gives the session a node lives in; SessionError if that one has ended."""
    if node.home is not _session[0] or node.home is None:
        raise session_ended(node.spec)
    return node.home


def session_ended(spec: Spec) -> SessionError:
    """Gives the error of using a tensor whose session is not there any more."""
    return SessionError(
        f"a tensor of shape {spec.shape} belongs to a session that has ended; copy tensors that must outlive a "
        "session with .cpu() or .numpy() before shutdown()"
    )


class _Probe:
    """Stands for a call with one output, to measure what `sys.getrefcount` gives for a node nobody else holds."""

    __slots__ = ("outputs",)

    def __init__(self) -> None:
        self.outputs = (Node.__new__(Node),)


def _unreferenced(call: Any) -> int:
    for node in call.outputs:
        return sys.getrefcount(node)
    return 0


# What getrefcount gives for a node held only by its call, in a loop like the one in `prune`.
_BASE = _unreferenced(_Probe())


def prune(pending: list[Call]) -> tuple[list[Call], list[list[bool]]]:
    """Drops calls whose outputs nobody can ever read; gives the live calls and which outputs are still referred to.

    A node is referred to from outside the graph when its reference count is higher than what its own call and the
    live calls that take it account for. Counting more than there is (a debugger, a frame) only keeps a value longer.
    `pending` is emptied.
    """
    inner: dict[int, int] = {}
    live: list[Call] = []
    wanted: list[list[bool]] = []
    while pending:
        call = pending.pop()
        flags = []
        used = False
        for node in call.outputs:
            inside = inner.get(id(node), 0)
            outside = sys.getrefcount(node) > _BASE + inside
            flags.append(outside)
            used = used or outside or inside > 0
        if not used:
            for node in call.outputs:
                node.call = None
            node = None  # type: ignore[assignment]  # as below
            call.outputs = call.inputs = ()
            continue
        for value in call.inputs:
            if type(value) is Node and value.call is not None:
                inner[id(value)] = inner.get(id(value), 0) + 1
        value = None  # a name that still holds a node would count as a reader of it
        live.append(call)
        wanted.append(flags)
    live.reverse()
    wanted.reverse()
    return live, wanted
