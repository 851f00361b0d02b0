"""Ray's side of a session: reach or start a cluster, place the workers, send batches, notice who is lost.

Invariant: what `RayGroup` starts it ends, also when starting fails half-way; nothing here waits without a limit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections import deque
from typing import Any

from distgrad.errors import (
    ClusterError,
    CollectiveTimeout,
    DistgradError,
    GroupAborted,
    InfrastructureError,
    WireError,
    WorkerLostError,
)
from distgrad.runtime.actor import Identity, Settings, WorkerActor, pack_messages, unpack_reply
from distgrad.runtime.messages import Message, Reply

START_SECONDS = 120.0  # for the cluster to give us our workers
STOP_SECONDS = 5.0
_PING_AFTER = 1.0  # a driver that has waited this long asks every worker for a sign of life
_POLL = 0.25
_log = logging.getLogger("distgrad")


def reach_ray(address: str | None, num_workers: int | None) -> bool:
    """Connects to the cluster an address names, or starts a local one; says whether we started it.

    `address`: None (an initialised Ray, else RAY_ADDRESS, else a local Ray), "auto", "local", "host:port", "ray://...".
    ClusterError when it cannot be reached.
    """
    import ray

    if ray.is_initialized():
        if address not in (None, "auto"):
            raise ClusterError(
                f"init: Ray is already initialised in this process, so address={address!r} cannot be used; leave the "
                "address out to attach to it, or call ray.shutdown() first"
            )
        return False
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "configure_logging": False}
    if address == "local":
        cpus = os.cpu_count() or 1
        ray.init(
            address="local", num_cpus=max(cpus, num_workers or 0), include_dashboard=False,
            _system_config={"worker_niceness": 0}, **quiet,
        )
        return True
    if address.startswith("ray://"):
        _log.warning("a ray:// connection moves data about 100 times slower; run the driver on the cluster if you can")
    try:
        ray.init(address=address, **quiet)
    except ConnectionError as error:
        hint = ""
        if os.environ.get("RAY_AUTH_MODE") != "token":
            hint = (
                "; clusters started by Ray 2.59 and later ask for a token: set RAY_AUTH_MODE=token before Python starts, "
                "with the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        raise ClusterError(f"init: no Ray cluster answers at {address!r}: {error or 'connection refused'}{hint}") from error
    return True


class RayGroup:
    """A backend whose workers are Ray actors in one placement group."""

    def __init__(
        self, address: str | None, num_workers: int | None, *, timeout: float, force_network: bool, session: str
    ) -> None:
        import ray

        self._owns_ray = reach_ray(address, num_workers)
        self._group: Any = None
        self._actors: list[Any] = []
        self._identities: list[Identity] = []
        self._refs: list[deque[Any]] = []
        self._pings: dict[Any, tuple[int, float]] = {}
        self._closed = False
        self.timeout = timeout
        try:
            total = int(ray.cluster_resources().get("CPU", 0))
            self.world_size = num_workers or max(total, 1)
            self._start(session, force_network, total)
        except BaseException:
            self.close()
            raise

    def _start(self, session: str, force_network: bool, total: int) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        share = 1.0
        if total < self.world_size:
            share = max(int(1000 * total / self.world_size), 1) / 1000
            _log.warning(
                "%d workers on a cluster of %d CPUs: each gets a share of %.3f; more workers than CPUs is slower",
                self.world_size, total, share,
            )
        self._group = placement_group([{"CPU": share}] * self.world_size, strategy="PACK")
        ready, _ = ray.wait([self._group.ready()], timeout=START_SECONDS)
        if not ready:
            raise ClusterError(
                f"init: the cluster did not give {self.world_size} workers of {share:g} CPU within {START_SECONDS:.0f} s; it "
                f"has {ray.cluster_resources().get('CPU', 0):g} CPUs, {ray.available_resources().get('CPU', 0):g} of them "
                "free: ask for fewer with num_workers, or end what holds them"
            )
        secret = secrets.token_bytes(32)
        remote = ray.remote(
            num_cpus=share, max_restarts=0, max_task_retries=0, concurrency_groups={"ctl": 2}
        )(WorkerActor)
        for rank in range(self.world_size):
            settings = Settings(rank, self.world_size, session, secret, 0, self.timeout, force_network)
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)
            self._actors.append(
                remote.options(scheduling_strategy=strategy, name=f"{session}-{rank}").remote(settings)
            )
            self._refs.append(deque())
        self._identities = self._all([a.identity.remote() for a in self._actors], "start")
        addresses = [identity.address for identity in self._identities]
        self._all([a.connect.remote(addresses) for a in self._actors], "connect to each other")
        for identity in self._identities:
            if identity.niceness > 0:
                _log.info("worker %d runs at niceness %d", identity.rank, identity.niceness)
        near = len({i.node_id for i in self._identities}) == 1
        kinds = {"network"} if force_network else {"shared memory"} if near else {"shared memory", "network"}
        self.transport = " + ".join(sorted(kinds, reverse=True))

    def _all(self, refs: list[Any], what: str) -> list[Any]:
        import ray

        ready, missing = ray.wait(refs, num_returns=len(refs), timeout=START_SECONDS)
        if missing:
            ranks = [i for i, ref in enumerate(refs) if ref in missing]
            raise ClusterError(f"init: workers {ranks} did not {what} within {START_SECONDS:.0f} s", missing=ranks)
        try:
            return ray.get(refs)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"init: a worker could not {what}: {error}") from error

    @property
    def nodes(self) -> int:
        """How many Ray nodes the workers are on."""
        return len({i.node_id for i in self._identities})

    @property
    def threads(self) -> int:
        """BLAS threads per worker."""
        return self._identities[0].threads

    @property
    def pids(self) -> list[int]:
        """The workers' processes, by rank."""
        return [i.pid for i in self._identities]

    # Batches --------------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Batches that the slowest worker has not answered."""
        return max(map(len, self._refs))

    def send(self, batches: list[list[Message]]) -> None:
        """Sends one batch to each worker that has one; does not wait."""
        for actor, batch, refs in zip(self._actors, batches, self._refs):
            if batch:
                refs.append(actor.execute.remote(*pack_messages(batch)))

    def replies(self, *, wait: bool = False) -> list[Reply]:
        """Gives the replies that have come; with `wait`, waits for one at least.

        WorkerLostError when a worker died; CollectiveTimeout when one gives no sign of life, or did not arrive at an
        exchange, for the session's timeout.
        """
        import ray

        started = time.monotonic()
        while True:
            heads = {refs[0]: rank for rank, refs in enumerate(self._refs) if refs}
            if not heads:
                return []
            if not wait and self.outstanding < 4:
                return []
            ready, _ = ray.wait(
                list(heads), num_returns=len(heads) if not wait else 1, timeout=_POLL if wait else 0, fetch_local=True
            )
            found = [self._answer(ref, heads[ref]) for ref in ready]
            if found or not wait:
                self._pings.clear()
                return found
            if time.monotonic() - started > _PING_AFTER:
                self._check_alive()

    def _answer(self, ref: Any, rank: int) -> Reply:
        import ray

        try:
            reply = unpack_reply(*ray.get(ref, timeout=self.timeout))
        except ray.exceptions.RayActorError as error:
            raise self._lost([rank], error) from error
        except ray.exceptions.RayTaskError as error:
            raise self._failed(rank, error) from error
        except ray.exceptions.GetTimeoutError as error:
            raise CollectiveTimeout(
                f"worker {rank} sent an answer that did not arrive within {self.timeout:g} s; the limit is "
                "init(timeout=...) or DISTGRAD_TIMEOUT", missing=[rank], seconds=self.timeout,
            ) from error
        self._refs[rank].popleft()
        return reply

    def _lost(self, ranks: list[int], error: BaseException) -> WorkerLostError:
        self._abort(f"worker {ranks[0]} was lost")
        first = self._identities[ranks[0]]
        reason = str(error).strip().splitlines()
        return WorkerLostError(
            f"worker {ranks[0]} of {self.world_size} (process {first.pid} on {first.hostname}) is lost; its rows are gone. "
            "Call shutdown() and init() again, and load your last save. Ray says: "
            + (" ".join(line.strip() for line in reason[:3]) if reason else type(error).__name__),
            missing=ranks,
        )

    def _failed(self, rank: int, error: Any) -> DistgradError:
        """Gives the reason behind a worker's failed batch: a peer that died tells more than one that gave up."""
        cause = error.cause
        self._abort(f"worker {rank} failed: {cause}")
        dead = self._dead()
        if dead:
            return self._lost(dead, cause)
        if isinstance(cause, InfrastructureError | WireError | GroupAborted):
            return cause
        return InfrastructureError(
            f"worker {rank} of {self.world_size} failed outside of any op, a fault of distgrad: {error}", worker=rank
        )

    def _dead(self) -> list[int]:
        """Gives the ranks whose actor has ended, asking for two seconds at most."""
        import ray

        refs = {actor.ping.options(concurrency_group="ctl").remote(): rank for rank, actor in enumerate(self._actors)}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=2.0)
        dead = []
        for ref in ready:
            try:
                ray.get(ref, timeout=1.0)
            except ray.exceptions.RayActorError:
                dead.append(refs[ref])
            except ray.exceptions.GetTimeoutError:
                continue
        return sorted(dead)

    def _check_alive(self) -> None:
        """Asks every worker for a sign of life; one that gives none for the timeout is named."""
        import ray

        now = time.monotonic()
        if not self._pings:
            for rank, actor in enumerate(self._actors):
                self._pings[actor.ping.options(concurrency_group="ctl").remote()] = (rank, now)
        ready, silent = ray.wait(list(self._pings), num_returns=len(self._pings), timeout=0)
        for ref in ready:
            rank, _ = self._pings.pop(ref)
            try:
                ray.get(ref, timeout=1.0)
            except ray.exceptions.RayActorError as error:
                raise self._lost([rank], error) from error
        overdue = sorted(self._pings[ref][0] for ref in silent if now - self._pings[ref][1] > self.timeout)
        if overdue:
            names = ", ".join(f"{r} (process {self._identities[r].pid} on {self._identities[r].hostname})" for r in overdue)
            self._abort(f"workers {overdue} gave no sign of life")
            raise CollectiveTimeout(
                f"workers that gave no sign of life for {self.timeout:g} s: {names}; they may be stopped or cut off. The limit "
                "is init(timeout=...) or DISTGRAD_TIMEOUT", missing=overdue, seconds=self.timeout,
            )

    def _abort(self, reason: str) -> None:
        for actor in self._actors:
            actor.abort.options(concurrency_group="ctl").remote(reason)

    # The end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the workers, gives back the placement group, and ends Ray when this session started it."""
        if self._closed:
            return
        self._closed = True
        import ray

        if not ray.is_initialized():
            return
        with contextlib.suppress(Exception):  # the cluster may be gone; what follows must still run
            stops = [a.stop.options(concurrency_group="ctl").remote() for a in self._actors]
            ray.wait(stops, num_returns=len(stops), timeout=min(STOP_SECONDS, 1.0) if stops else 0)
        for actor in self._actors:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)
        self._end_processes()
        if self._group is not None:
            with contextlib.suppress(Exception):
                ray.util.remove_placement_group(self._group)
        if self._owns_ray:
            ray.shutdown()

    def _end_processes(self) -> None:
        """Waits for the workers of this machine to end; a stopped one cannot obey Ray and is killed here."""
        from distgrad.runtime.shared_memory import process_start_time

        here = [i for i in self._identities if i.hostname == socket.gethostname() and i.started is not None]
        deadline = time.monotonic() + STOP_SECONDS
        patience = time.monotonic() + 1.0
        while here and time.monotonic() < deadline:
            here = [i for i in here if process_start_time(i.pid) == i.started]
            if here and time.monotonic() > patience:
                for identity in here:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(identity.pid, signal.SIGKILL)
                patience = deadline
            time.sleep(0.01)
