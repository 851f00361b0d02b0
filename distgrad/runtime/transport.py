"""A group of workers that exchange frames: shared memory between ranks of one node, the network between nodes.

Invariant: every wait ends, by arrival, by the death of a peer, by an abort or by the timeout, and says which ranks were
missing. A group that failed stays failed: its ranks may disagree about the round, so only a new group with a new epoch
may go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distgrad.engine.interpreter import Begin, End
from distgrad.errors import FATAL, CollectiveTimeout, GroupAborted
from distgrad.runtime import heap, network_reduce, node_reduce, shared_reduce
from distgrad.runtime.collectives import Collective, Exchange, Reduction, payload_bytes, run
from distgrad.runtime.shared_memory import SharedMemory, SharedMemoryAddress
from distgrad.runtime.tcp import Network
from distgrad.runtime.wire import Identity, dtype_code


@dataclass(frozen=True, slots=True)
class Address:
    """How peers reach one rank of a group; pickles, and holds no secret."""

    rank: int
    node_id: str
    host: str
    port: int
    memory: SharedMemoryAddress


class Ticket:
    """An exchange that was begun: its first round is on the way. Or what came of it, where that was known at once."""

    __slots__ = ("error", "exchange", "result", "sequence")

    def __init__(self) -> None:
        self.exchange: Collective | None = None
        self.sequence = 0
        self.result: Any = None
        self.error: Exception | None = None


class Group:
    """One rank of a group of workers, which runs collectives together with the others.

    Make it on every worker, collect every `address()`, and give the full list to `connect` on every worker. `timeout`:
    seconds any wait may last. `host`: the address of this node that other nodes reach. `force_network`: use the network
    also between ranks of one node.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        *,
        session: str,
        secret: bytes,
        epoch: int,
        node_id: str,
        timeout: float,
        force_network: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"Group: rank {rank} is not in a world of {world_size}")
        self.rank, self.world_size, self.node_id, self.timeout = rank, world_size, node_id, timeout
        self.force_network = force_network
        self.bytes_sent = 0
        self.network_bytes = 0  # of these, over the network
        self.collectives = 0
        self._host = host
        self._sequence = 0
        self._failure: str | None = None
        self._aborted: str | None = None
        self._close_lock = threading.Lock()
        self._closed = False
        self._nodes: tuple[tuple[int, ...], ...] | None = None  # the ranks of each, where it pays to go by nodes
        self._apart = False  # all ranks reach each other by the network
        heap.keep_freed_memory()
        identity = Identity.of(session, secret, epoch)
        self._memory = SharedMemory(rank, world_size, identity)
        try:
            self._network = Network(rank, world_size, identity, secret, host)
        except BaseException:
            self._memory.close()
            raise

    def address(self) -> Address:
        """Returns how peers reach this rank."""
        return Address(self.rank, self.node_id, self._host, self._network.port, self._memory.address())

    def connect(self, addresses: Sequence[Address]) -> None:
        """Opens the channels to all other ranks; `addresses` holds one entry per rank, in rank order.

        Raises WireError for a peer of another session, secret or epoch, CollectiveTimeout for one that does not call,
        WorkerLostError for one that is gone.
        """
        self._check_usable()
        if [address.rank for address in addresses] != list(range(self.world_size)):
            raise ValueError(
                f"Group.connect: needs the addresses of ranks 0 to {self.world_size - 1} in order, got "
                f"{[address.rank for address in addresses]}"
            )
        others = [address for address in addresses if address.rank != self.rank]
        near = {a.rank for a in others if a.node_id == self.node_id and not self.force_network}
        self._nodes = None if self.force_network else node_reduce.nodes_of([address.node_id for address in addresses])
        self._apart = self.force_network or len({address.node_id for address in addresses}) == self.world_size
        wait = _Wait(self, "connect")
        try:
            self._memory.connect({a.rank: a.memory for a in others if a.rank in near})
            self._network.connect({a.rank: (a.host, a.port) for a in others if a.rank not in near}, wait.check)
        except BaseException as error:
            self._fail(error)
            raise

    def bytes_for(self, nbytes: int) -> int:
        """Returns about how much memory of this process the reduction of so many bytes takes, beside arrays."""
        return self._memory.bytes_for(nbytes)

    def exchange(self, request: Exchange) -> list[np.ndarray | None]:
        """Carries one round: sends, waits for what is expected, and returns it as read-only views.

        Raises CollectiveTimeout, WorkerLostError, GroupAborted or WireError; the group is unusable afterwards.
        """
        self._check_usable()
        received: list[np.ndarray | None] = [None] * self.world_size
        self._check_request(request)
        code = 0 if request.dtype is None else dtype_code(request.dtype)
        self._sequence += 1
        wait = _Wait(self, f"round {self._sequence}")
        try:
            # Shared memory is published first: nobody's network part then waits for anything but network parts.
            if self._memory.peers:
                self._memory.publish(self._sequence, request.send, code, wait.check)
            if self._network.peers:
                self._network.exchange(self._sequence, request.send, request.expect, code, received, wait.check)
            if self._memory.peers:
                self._memory.collect(self._sequence, request.expect, code, received, wait.check)
        except BaseException as error:
            received.clear()  # views of the peers' memory, which an error that is kept must not keep
            self._fail(error)
            raise
        self._count(request)
        return received

    def _check_request(self, request: Exchange) -> None:
        if len(request.send) != self.world_size or len(request.expect) != self.world_size:
            raise ValueError(
                f"exchange: needs one entry per rank, got {len(request.send)} and {len(request.expect)} for {self.world_size}"
            )
        if payload_bytes(request.send[self.rank]) or request.expect[self.rank]:
            raise ValueError(f"exchange: rank {self.rank} cannot send to itself; leave its own entry empty")

    def _count(self, request: Exchange) -> None:
        self.bytes_sent += sum(map(payload_bytes, request.send))
        self.network_bytes += sum([payload_bytes(request.send[rank]) for rank in self._network.peers])

    def reduce(self, request: Reduction) -> bool:
        """Reduces a bucket of ranks on one node, of two ranks on two, or by nodes; returns whether it was such a case.

        Raises as `exchange` does.
        """
        near, far = len(self._memory.peers), len(self._network.peers)
        if self._nodes is not None and node_reduce.suits(request):
            run(node_reduce.all_reduce(self.rank, self._nodes, request), self)
            return True
        if (far and (near or far > 1)) or not near + far:
            return False
        self._check_usable()
        wait = _Wait(self, f"round {self._sequence + 1}")
        try:
            code = dtype_code(request.dtype)
            if near:
                self._sequence += 1
                self.bytes_sent += shared_reduce.all_reduce(self._memory, self._sequence, request, code, wait.check)
            else:
                self._sequence += network_reduce.all_reduce(
                    self._network, self._sequence + 1, request, code, wait.check
                )
                self.bytes_sent += request.total * request.dtype.itemsize
                self.network_bytes += request.total * request.dtype.itemsize
        except BaseException as error:
            self._fail(error)
            raise
        return True

    def carry_out(self, item: Any) -> Any:
        """Carries out what a program yields: a collective, or the beginning or the end of one."""
        if type(item) is Begin:
            return self.begin(item.exchange)
        return self.end(item.ticket) if type(item) is End else self.run(item)

    def run(self, generator: Collective) -> Any:
        """Runs a collective together with the other ranks and returns its result on this one."""
        result = run(generator, self)
        self.collectives += 1
        return result

    def begin(self, generator: Collective) -> Ticket:
        """Sends what a collective's first round sends, as far as that can be done without waiting; returns a ticket.

        Arrays of the collective may not be written before its end. Where ranks share memory nothing is gained, and all of
        it is done. Raises as `exchange` does; what the collective itself raises is raised at its end.
        """
        ticket = Ticket()
        try:
            if not self._apart:
                ticket.result = self.run(generator)
                return ticket
            request = generator.send(None)
            while isinstance(request, Reduction):  # that takes all its rounds at once
                request = generator.send(False)
        except StopIteration as stop:
            ticket.result = stop.value
            return ticket
        except FATAL:
            raise
        except Exception as error:
            ticket.error = error
            return ticket
        self._check_usable()
        self._check_request(request)
        self._sequence += 1
        code = 0 if request.dtype is None else dtype_code(request.dtype)
        try:
            self._network.begin(self._sequence, request.send, request.expect, code)
        except BaseException as error:
            self._fail(error)
            raise
        self._count(request)
        ticket.exchange, ticket.sequence = generator, self._sequence
        return ticket

    def end(self, ticket: Ticket) -> Any:
        """Waits for the rest of a collective that was begun and returns its result on this rank."""
        if ticket.error is not None:
            raise ticket.error
        if ticket.exchange is None:
            return ticket.result
        self._check_usable()
        wait = _Wait(self, f"round {ticket.sequence}")
        try:
            received = self._network.finish(ticket.sequence, wait.check)
        except BaseException as error:
            self._fail(error)
            raise
        result = run(ticket.exchange, self, received)
        self.collectives += 1
        return result

    def abort(self, reason: str) -> None:
        """Makes the current wait and everything after it raise GroupAborted; may be called from any thread."""
        self._aborted = reason

    def close(self) -> None:
        """Gives back all memory, sockets and descriptors; waiting peers learn it. May be called more than once.

        Not while a collective of this rank is running in another thread: abort it first. And not before every rank has
        finished its last collective, because peers read this rank's memory in place.
        """
        with self._close_lock:
            if self._closed:
                return
            self._closed = True
        self._memory.close()
        self._network.close()

    def _check_usable(self) -> None:
        if self._aborted is not None:
            raise GroupAborted(f"the group was aborted on rank {self.rank}: {self._aborted}", rank=self.rank)
        if self._closed:
            raise GroupAborted(f"the group is closed on rank {self.rank}", rank=self.rank)
        if self._failure is not None:
            raise GroupAborted(
                f"the group failed earlier on rank {self.rank} ({self._failure}); make a new group with a new epoch",
                rank=self.rank,
            )

    def _fail(self, error: BaseException) -> None:
        self._failure = f"{type(error).__name__}: {error}"


class _Wait:
    """What may end one wait of a group: the limit in time, or an abort."""

    def __init__(self, group: Group, what: str) -> None:
        self._group, self._what = group, what
        self._started = time.monotonic()

    def check(self, missing: Sequence[int]) -> None:
        """Raises if the group was aborted or the wait has lasted too long; `missing` are the ranks waited for."""
        group = self._group
        if group._aborted is not None:
            raise GroupAborted(
                f"{self._what} was aborted on rank {group.rank} while waiting for ranks {list(missing)}: {group._aborted}",
                rank=group.rank,
                missing=list(missing),
            )
        # Not only those waited for: one of them may have given up because another rank is gone.
        group._memory.check_peers()
        group._network.check_peers()
        waited = time.monotonic() - self._started
        if waited >= group.timeout:
            raise CollectiveTimeout(
                f"{self._what}: ranks {list(missing)} of {group.world_size} did not arrive at rank {group.rank} within "
                f"{waited:.1f} s; see what they do, or allow more with init(timeout=...) or DISTGRAD_TIMEOUT "
                f"(now {group.timeout:g} s)",
                missing=list(missing),
                seconds=waited,
            )
