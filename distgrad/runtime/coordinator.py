"""The coordinator: records calls into the global graph, lowers them to programs and keeps workers fed.

Invariant: recording sends nothing. A flush sends one batch per worker; the driver waits only for values, and for
workers that are too many batches behind.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distgrad import graph
from distgrad.engine.interpreter import Failure
from distgrad.errors import DistgradError, GroupAborted, InfrastructureError, SessionError, WireError
from distgrad.graph import LATEST, Call, Node, Plan, Slot, Slots
from distgrad.lower import Recorded, final_spec, lower
from distgrad.op import OPS
from distgrad.ops.collective import block_of
from distgrad.placement import REPLICATE, Placement, Shard, Spec, balanced
from distgrad.program import Program
from distgrad.propagate import plan_sharded, recreated
from distgrad.runtime.backend import Backend, Stats
from distgrad.runtime.interrupts import uninterrupted
from distgrad.runtime.lost import Lost, Returned, Sent
from distgrad.runtime.messages import Again, Define, Fetch, Forget, Free, Message, Put, Release, Reply, Run
from distgrad.runtime.sites import user_site, where
from distgrad.tapes import Tapes
from distgrad.warn import warn_user

_TOGETHER = 8  # repetitions of a step that one batch may carry
_UNDER_WAY = 2  # unanswered batches that keep the workers busy meanwhile
PENDING_LIMIT = 5_000  # recorded calls before a flush happens by itself
PROGRAM_LIMIT = 512  # programs kept on the workers
PUT_BYTES = 8 << 20  # data waiting for the next batch before it is sent at once


class Coordinator:
    """The running session's graph and its way to the workers."""

    def __init__(
        self, backend: Backend, *, shard_threshold: int, shard_optimizer: bool | None = None, steps_ahead: int = 8
    ) -> None:
        self.backend = backend
        self.world_size = backend.world_size
        self.shard_threshold = shard_threshold
        self.shard_optimizer = shard_optimizer
        self.steps_ahead = steps_ahead
        self.stats = Stats()
        self.pending: list[Call] = []
        self.tapes = Tapes()
        self.flushes = 0
        self.remade: list[Call] = []  # pending ones whose numbers were taken to make their value elsewhere
        self.broken: DistgradError | None = None
        self._slots = Slots()
        self._requests = itertools.count()
        self._programs: OrderedDict[Any, tuple[int, Program]] = OrderedDict()
        self._keys: dict[int, Any] = {}  # of the programs the workers have
        self._kept_back = 0  # repetitions that wait in the outbox
        self.ended: list[int] = []  # kept runs whose owner is gone
        self._program_ids = itertools.count()
        self._sequence = itertools.count()
        self._latest = -1  # the sequence of the run that was sent last
        self._outbox: list[list[Message]] = [[] for _ in range(self.world_size)]
        self._outbox_bytes = 0
        self._read: dict[int, dict[int, None]] = {}  # outputs of one element that were read, by program
        self.lost = Lost(backend.world_size)
        self._fetched: dict[int, dict[int, Any]] = {}
        self._notices: list[str] = []  # warnings from workers
        self._finished = [-1] * self.world_size  # the last run each worker has answered
        self._read_early = False  # a value was read since the last optimizer step
        self._early_steps = 0  # optimizer steps in a row before which that was so
        self._sent = [0] * self.world_size

    @property
    def by_nodes(self) -> bool:
        """Whether there are several nodes, and several workers on one: what they send each other costs most."""
        return 1 < self.backend.nodes < self.world_size

    def site(self) -> Any:
        """Gives where the user's code is now."""
        return user_site()

    # Recording ------------------------------------------------------------------------------------------------

    def record(self, plan: Plan, values: list[Any]) -> tuple[Node, ...]:
        """Adds a call; inputs are moved to the placements the plan asks for. Nothing is sent."""
        if self.broken is not None:
            raise self._broken_error()
        assert plan.targets is not None
        site = graph.held_site[0] or user_site()
        if plan.op.name == "redistribute":
            plan, values = self._shortened(plan, values)
        assert plan.targets is not None
        for position, value in enumerate(values):
            if type(value) is not Node:
                continue
            if value.data is not None:
                value = values[position] = self._promoted(value, plan.targets[position])
            elif value.home is not self:
                graph.require_home(value)
            target = plan.targets[position]
            if value.spec.placement is not target and target is not None:
                values[position] = self._moved(value, target, site)
        outputs = self._add(plan, values, site)
        if len(self.pending) >= PENDING_LIMIT:  # not earlier: a flush reduces Partial values, which the plan may rely on
            held = [*outputs, *values]  # more than the call refers to them: the caller saves them for gradients
            self.flush()
            del held
        return outputs

    def _add(self, plan: Plan, values: Sequence[Any], site: Any) -> tuple[Node, ...]:
        call = Call(plan, values, site)
        outputs = []
        for index, spec in enumerate(plan.outs):
            node = Node(spec)
            node.call, node.index, node.home = call, index, self
            outputs.append(node)
        call.outputs = tuple(outputs)
        self.pending.append(call)
        self.stats.nodes_recorded += 1
        return call.outputs

    def record_again(self, calls: Sequence[tuple[Plan, tuple[int, ...]]], table: list[Any]) -> bool:
        """Adds calls whose inputs are given by their places in `table`, and their outputs to it.

        False, and nothing is done, when a flush would come among them.
        """
        if self.broken is not None:
            raise self._broken_error()
        if len(self.pending) + len(calls) >= PENDING_LIMIT:
            return False
        site = user_site()
        for plan, places in calls:
            table += self._add(plan, [table[place] for place in places], site)
        self.stats.passes_repeated += 1
        return True

    def _moved(self, node: Node, target: Placement, site: Any) -> Node:
        plan, values = self._shortened(self._move_plan(node.spec, target), [node])
        return self._add(plan, values, site)[0]

    def _move_plan(self, spec: Spec, target: Placement) -> Plan:
        op = OPS["redistribute"]
        key = (spec, ("placement", target))
        plan = op.plans.get(key)
        if plan is None:
            plan = op.plans[key] = plan_sharded(op, (spec,), (spec.meta,), None, {"placement": target}, self)
        return plan

    def _shortened(self, plan: Plan, values: list[Any]) -> tuple[Plan, list[Any]]:
        """Gives a call that does the same as a redistribution and moves less.

        Values made from numbers are made again where they are needed; data that is still here goes to its owners only.
        """
        node, target = values[0], plan.outs[0].placement
        assert target is not None
        if node.call is not None and target is not node.spec.placement:
            made = recreated(node.call.plan, target)
            if made is not None:
                self.remade.append(node.call)
                return made, list(node.call.inputs)
        elif node.data is not None and (node.twin is None or node.twin.home is not self) and isinstance(target, Shard):
            node.twin = self.put(node.data, node.spec, target)
            return self._move_plan(node.twin.spec, target), [node.twin]
        return plan, values

    def _promoted(self, node: Node, target: Placement | None) -> Node:
        twin = node.twin
        if twin is None or twin.home is not self:
            placement = target if isinstance(target, Shard) else REPLICATE
            twin = node.twin = self.put(node.data, node.spec, placement)
        return twin

    def put(self, array: np.ndarray, spec: Spec, placement: Placement) -> Node:
        """Gives a node with the array's rows on their owners; they travel with the next batch."""
        node = Node(Spec.of(spec.meta, placement))
        node.slot, node.home = self._slots.new(), self
        for rank in range(self.world_size):
            part = array
            if isinstance(placement, Shard):
                part = block_of(array, placement.dim, *placement.block(rank))
            if part.nbytes < PUT_BYTES:
                part = np.array(part)  # the user may change the array before the batch is sent
            self._outbox[rank].append(Put(node.slot.id, part))
            self.stats.driver_bytes += part.nbytes
            self._outbox_bytes += part.nbytes
        if self._outbox_bytes >= PUT_BYTES:
            with uninterrupted():
                self._send()
            self.hold_back()
        return node

    # Where new tensors go -------------------------------------------------------------------------------------

    def creation_placement(self, shape: tuple[int, ...], nbytes: int) -> Placement:
        """Gives where data of that size goes: sharded on dim 0 when large enough and one row per worker, at least.

        A threshold of 0 shards everything that has a first dim.
        """
        if shape and (self.shard_threshold == 0 or (nbytes >= self.shard_threshold and shape[0] >= self.world_size)):
            return Shard(0, balanced(shape[0], self.world_size))
        return REPLICATE

    def place_data(self, array: np.ndarray, spec: Spec, *, whole: bool = False) -> Node:
        """Gives a node for data: sharded when large and not `whole`, otherwise replicated.

        Replicated data is sent when an operation first needs it, and kept here too, where reading it costs nothing.
        Single numbers stay local.
        """
        placement = REPLICATE if whole else self.creation_placement(spec.meta.shape, spec.meta.nbytes)
        if not isinstance(placement, Shard):
            return Node(Spec.of(spec.meta, REPLICATE) if spec.meta.ndim else spec, array)
        if self.broken is not None:
            raise self._broken_error()
        return self.put(array, spec, placement)

    # Flushing -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends every pending call whose value can still be read, as one program; does not wait for it."""
        if not self.pending:
            return
        if self.broken is not None:
            raise self._broken_error()
        with uninterrupted():
            self._launch()
        self.hold_back()

    def step_done(self) -> None:
        """Sends the step an optimizer has finished, unless the next value read will send it.

        A loop that reads a value before each step, `loss.item()` after `backward()`, sends its work with that read. What
        is recorded afterwards goes with the next one, so that such a loop costs one message per step too. Nothing waits
        for longer than a step: when no value was read, both steps are sent.
        """
        self._early_steps = self._early_steps + 1 if self._read_early else 0
        self._read_early = False
        if self._early_steps < 2:  # once may be a look at a validation loss
            self.flush()

    def _launch(self) -> None:
        self.flushes += 1
        self.remade.clear()
        calls, wanted = graph.prune(self.pending)
        if not calls:
            return
        recorded = Recorded(calls, wanted)
        program_id, program = self._program(recorded)
        sites = [call.site for call in calls]
        if graph.recorder[0] is not None:
            graph.recorder[0].launched(program_id, program, recorded, sites)

        def forget() -> None:
            for call in calls:
                for node in call.outputs:
                    node.call = None
                node = None  # type: ignore[assignment]  # a name that still holds a node would keep its slot
                call.outputs = call.inputs = ()
            recorded.inputs, recorded.calls = [], []
            calls.clear()

        self.start(program_id, program, recorded.inputs, recorded.numbers, recorded.outputs, sites, forget)

    def start(
        self, program_id: int, program: Program, inputs: list[Node], numbers: Sequence[Any], outputs: list[Node],
        sites: list[Any], forget: Any,
    ) -> None:
        """Sends a run of a program; `forget` lets go of nodes that only the recording refers to."""
        sequence = self._latest = next(self._sequence)
        slots = tuple(node.slot.id for node in inputs)  # type: ignore[union-attr]  # inputs are materialized
        del inputs
        positions = tuple(self._read.get(program_id, ()))
        returned = [Returned() for _ in positions]
        for position, value in zip(positions, returned):
            outputs[position].cached = value
        made = []
        for position, node in enumerate(outputs):
            node.slot = self._slots.new(sequence, program_id, position)
            node.spec = final_spec(node.spec)
            made.append(node.slot.id)
        self._queue_frees()
        run = Run(sequence, program_id, slots, tuple(numbers), tuple(made), positions)
        sent = self.lost.runs[sequence] = Sent(sites, returned, program, run)
        if self.lost.poisoned:
            self.lost.spoil(sent, {})
        forget()
        last = self._queue_frees(slots)
        if last:
            run = sent.run = replace(run, last=last)
        for box in self._outbox:
            box.append(run)
        self._send()

    # Replays --------------------------------------------------------------------------------------------------

    def still_has(self, program_id: int, used: bool) -> bool:
        """Says whether the workers have a program; `used` makes it the most recent one."""
        key = self._keys.get(program_id)
        if key is not None and used:
            self._programs.move_to_end(key)
        return key is not None

    def read_positions(self, program_id: int) -> tuple[int, ...]:
        """Gives the outputs of a program that come back with each run, since they were read before."""
        return tuple(self._read.get(program_id, ()))

    def sent(self, node: Node, spec: Spec) -> Node | None:
        """Gives the node of a value on the workers; None when it has not the spec, or is no materialized one."""
        if node.data is not None:
            node = self._promoted(node, spec.placement)
        return node if node.home is self and node.slot is not None and node.spec is spec else None

    def post(self, message: Message) -> None:
        """Adds a message to the next batch of every worker."""
        for box in self._outbox:
            box.append(message)

    def begin_again(
        self, kept: Any, given: list[Node], numbers: tuple[Any, ...], outputs: list[Node]
    ) -> tuple[int, tuple[int, ...]]:
        """Books a repetition of a kept run (`runtime.steady`); gives its sequence and the slots of its new outputs."""
        sequence, run = next(self._sequence), kept.run
        self._latest = sequence
        slots = []
        for position, _ in kept.fresh:
            slot = outputs[position].slot = self._slots.new(sequence, run.program, position)
            slots.append(slot.id)
        returned = [Returned() for _ in run.returned]
        for position, value in zip(run.returned, returned):
            outputs[position].cached = value
        made = tuple(slots)
        run = run.filled(sequence, numbers, tuple(n.slot.id for n in given), made)  # type: ignore[union-attr]
        self.lost.runs[sequence] = Sent(kept.sites, returned, kept.program, run)
        self.stats.steps_replayed += 1
        self.stats.programs_reused += 1
        return sequence, made

    def send_again(self, message: Again) -> None:
        """Sends a repetition; what was let go of is freed before it runs.

        While the workers have batches to go on with, repetitions are collected and sent as one.
        """
        self._queue_frees()
        self.post(message)
        self._kept_back += 1
        if self._kept_back < _TOGETHER and not self._outbox_bytes and self.backend.outstanding >= _UNDER_WAY:
            return
        self._send()

    def _send_kept_back(self) -> None:
        if self._kept_back:
            with uninterrupted():
                self._send()

    def hold_back(self) -> None:
        """Waits when the workers are too many batches behind, and takes the answers that have come.

        It waits until they have nearly caught up: several steps recorded in a row find the processor's caches warm.
        """
        if self._kept_back:
            return  # nothing was sent
        self._collect()
        if self.backend.outstanding > self.steps_ahead:
            enough = min(self.steps_ahead, _UNDER_WAY)
            self._wait(lambda: self.backend.outstanding <= enough)

    def _collect(self) -> None:
        """Takes the replies that have come; a reply is taken whole, whatever interrupts us."""
        try:
            with uninterrupted():
                self._take(self.backend.replies())
        except DistgradError as error:
            self._break(error)
            raise
        while self._notices:  # what was taken is whole by now: a filter may turn warnings into errors
            warn_user(self._notices.pop(), RuntimeWarning)

    def _program(self, recorded: Recorded) -> tuple[int, Program]:
        known = self._programs.get(recorded.key)
        if known is not None:
            self._programs.move_to_end(recorded.key)
            self.stats.programs_reused += 1
            return known
        program = lower(recorded, ahead=self.backend.overlaps)
        identity = next(self._program_ids)
        self._programs[recorded.key] = (identity, program)
        self._keys[identity] = recorded.key
        self.stats.programs_built += 1
        for box in self._outbox:
            box.append(Define(identity, program))
        if len(self._programs) > PROGRAM_LIMIT:
            _, (oldest, _) = self._programs.popitem(last=False)
            self._read.pop(oldest, None)
            del self._keys[oldest]
            for box in self._outbox:
                box.append(Forget((oldest,)))
        return identity, program

    def _queue_frees(self, inputs: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Adds the slots nobody refers to; a pending call refers to its inputs, so none it needs is among them.

        Those among `inputs`, of the run that comes next, are not added: it gives their positions, and the run ends them.
        """
        if self.ended:
            ended, self.ended[:] = tuple(self.ended), []
            self.post(Release(ended))
        gone = self._slots.take_gone()
        if not gone:
            return ()
        for slot in gone if self.lost.poisoned else ():
            self.lost.poisoned.pop(slot, None)
        if self.lost.runs:  # a failure we are not told of yet may have been theirs
            self.lost.runs[next(reversed(self.lost.runs))].freed.extend(gone)
        known = set(gone).intersection(inputs)
        others = tuple(slot for slot in gone if slot not in known)
        if others:
            freed = Free(others)
            for box in self._outbox:
                box.append(freed)
        return tuple(position for position, slot in enumerate(inputs) if slot in known)

    def _send(self) -> None:
        if self.broken is not None:
            raise self._broken_error()
        self._queue_frees()
        self._kept_back = 0
        batches, self._outbox = self._outbox, [[] for _ in range(self.world_size)]
        self._outbox_bytes = 0
        self.stats.control_messages += sum(1 for batch in batches if batch)
        try:
            self.backend.send(batches)
        except DistgradError as error:
            self._break(error)
            raise

    # Values ---------------------------------------------------------------------------------------------------

    def fetch(self, node: Node) -> np.ndarray:
        """Gives a node's value, waiting for it; RemoteOpError when it could not be computed."""
        if self.broken is not None:
            raise self._broken_error()
        if node.call is not None:
            self._read_early = True
            self.flush()
        slot, cached = node.slot, node.cached
        assert slot is not None
        if cached is not None:
            # A worker whose part failed tells of it in its own answer: a value may be read when all have answered.
            run = self._run_of(slot)
            self._wait(lambda: cached.value is not None and min(self._finished) >= run)
            return self.lost.checked(slot, cached.value).copy()
        whole = not isinstance(node.spec.placement, Shard)
        if whole and node.spec.meta.size == 1 and slot.run >= 0:  # next time it comes back with its run, from worker 0
            self._read.setdefault(slot.program, {})[slot.output] = None
        ranks = range(1 if whole else self.world_size)
        parts = self._request(slot, ranks, describe=False)
        self.stats.driver_bytes += sum(p.nbytes for p in parts.values())
        spec = node.spec
        if not isinstance(spec.placement, Shard):
            value = parts[0].reshape(spec.meta.shape)
            # The user may write to it; in this process it is worker 0's own.
            return value.copy() if self.backend.in_process or not value.flags.writeable else value
        blocks = [parts[r].reshape(spec.local_shape(r)) for r in range(self.world_size)]
        return np.concatenate(blocks, axis=spec.placement.dim)

    def _run_of(self, slot: Slot) -> int:
        """Gives the run after which a slot's value is there."""
        return self._latest if slot.run == LATEST else slot.run

    def describe(self, node: Node) -> list[Any]:
        """Gives what each worker says about an opaque value."""
        if node.call is not None:
            self.flush()
        assert node.slot is not None
        parts = self._request(node.slot, range(self.world_size), describe=True)
        return [parts[r] for r in range(self.world_size)]

    def _request(self, slot: Slot, ranks: range, *, describe: bool) -> dict[int, Any]:
        request = next(self._requests)
        for rank in ranks:
            self._outbox[rank].append(Fetch(request, slot.id, describe))
        parts: dict[int, Any] = {}
        try:
            self._fetched[request] = parts
            with uninterrupted():
                self._send()
            run = self._run_of(slot)
            self._wait(lambda: len(parts) == len(ranks) and min(self._finished) >= run)
        finally:
            self._fetched.pop(request, None)
        for part in parts.values():
            self.lost.checked(slot, part)
        return parts

    def _wait(self, done: Any) -> None:
        started = time.perf_counter()
        try:
            self._send_kept_back()
            while not done():
                awaited = self.backend.outstanding
                self.backend.wait()
                self._collect()
                if not awaited and not done():
                    raise InfrastructureError(
                        "no worker has an answer left to give to what is waited for: a fault of distgrad"
                    )
        except DistgradError as error:
            self._break(error)
            raise
        finally:
            self.stats.seconds_waited += time.perf_counter() - started

    def _take(self, replies: list[Reply]) -> None:
        for reply in replies:
            self.stats.collectives = max(self.stats.collectives, reply.collectives)
            if reply.sent is not None:
                self._sent[reply.rank] = reply.sent
            for failure in reply.failures:
                self.lost.note(failure)
            for notice in reply.notices:
                sent = self.lost.runs.get(notice.sequence)
                line = "" if sent is None else f"; recorded at {where(sent.sites[notice.call])}"
                self._notices.append(notice.message + line)
            for sequence, values in reply.returned:
                for holder, value in zip(self.lost.runs[sequence].returned, values):
                    holder.value = value
                    if type(value) is not Failure:
                        self.stats.driver_bytes += value.nbytes
            for request, value in reply.fetched:
                parts = self._fetched.get(request)
                if parts is not None:  # nobody waits any more after an interrupt
                    parts[reply.rank] = value
            if reply.last_run is not None:
                self._finished[reply.rank] = reply.last_run
                for rank in reply.others:
                    self._finished[rank] = reply.last_run
        done = min(self._finished)
        while self.lost.runs and next(iter(self.lost.runs)) <= done:
            self.lost.runs.popitem(last=False)
        self.stats.bytes_sent = sum(self._sent)

    # The end --------------------------------------------------------------------------------------------------

    def synchronize(self) -> None:
        """Waits until the workers have carried out everything sent."""
        self.flush()
        self._wait(lambda: self.backend.outstanding == 0)

    def settle(self) -> None:
        """Takes the answers that are there, without waiting for more than a moment, so that failures are known."""
        if self.broken is None:
            try:
                self._send_kept_back()
                deadline = time.monotonic() + 0.5
                while self.backend.outstanding and time.monotonic() < deadline:
                    self.backend.wait()
                    self._collect()
            except DistgradError as error:
                self._break(error)

    def snapshot(self) -> Stats:
        """Gives a copy of the counters."""
        return replace(self.stats)

    def close(self) -> None:
        """Ends recording and lets go of the workers."""
        self.pending.clear()
        if self.broken is None:
            self.broken = SessionError("the session has ended")
        self.backend.close()

    def _break(self, error: DistgradError) -> None:
        if isinstance(error, InfrastructureError | WireError | GroupAborted) and self.broken is None:
            self.broken = error

    def _broken_error(self) -> DistgradError:
        assert self.broken is not None
        if isinstance(self.broken, SessionError):
            return self.broken
        return SessionError(
            f"the session cannot go on: {type(self.broken).__name__}: {self.broken}; call shutdown() and init() again"
        )
