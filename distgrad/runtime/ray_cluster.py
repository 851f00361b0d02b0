"""Ray's side of a session: place the workers, send batches, take answers, notice who is lost.

Invariant: what `RayGroup` starts it ends, also when starting fails half-way; nothing here waits without a limit, and
every wait looks for signs of life of the workers it waits for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Sequence
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
from distgrad.kernels import compiled
from distgrad.runtime import relay
from distgrad.runtime.actor import CONTROL, Identity, Settings, WorkerActor, pack_messages, unpack_reply
from distgrad.runtime.guard import start_time
from distgrad.runtime.interrupts import uninterrupted
from distgrad.runtime.line import Count, DriverEnd
from distgrad.runtime.messages import Message, Reply
from distgrad.runtime.ray_address import reach_ray
from distgrad.runtime.ray_calls import Calls

START_SECONDS = 120.0  # for the cluster to give us our workers
STOP_SECONDS = 5.0
_LOOKS = 20  # for silent workers, while the driver waits, in the time of the session's timeout
_LOOK_SECONDS = 1.0  # at the least between two of them
_POLL = 0.5
_REASON_SECONDS = 3.0  # for Ray to say why a worker has ended
_log = logging.getLogger("distgrad")


class RayGroup:
    """A backend whose workers are Ray actors in one placement group."""

    in_process = False

    def __init__(
        self, address: str | None, num_workers: int | None, *, timeout: float, force_network: bool, session: str,
        memory: int | None = None,
    ) -> None:
        self._ray = reach_ray(address, num_workers)
        self._group: Any = None
        self._actors: list[Any] = []
        self._identities: list[Identity] = []
        self._lines: DriverEnd | Calls | None = None
        self._serving: list[Any] = []
        self._pings: dict[int, tuple[Any, float]] = {}
        self._heard: set[int] = set()
        self._looked = 0.0
        self._closed = False
        self.timeout = timeout
        self._memory = memory
        try:
            self._start(num_workers, session, force_network)
        except BaseException:
            self.close()
            raise

    def _start(self, num_workers: int | None, session: str, force_network: bool) -> None:
        import ray
        from ray.util.placement_group import placement_group, placement_group_table
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        cpus = [n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]]
        self.world_size = num_workers or max(int(sum(cpus)), 1)
        share = cpu_share(cpus, self.world_size)
        if share < 1:
            _log.warning(
                "init: %d workers on a cluster of %g CPUs: each gets a share of %.3f; more workers than CPUs is "
                "slower, and num_workers=%d gives each one of its own",
                self.world_size, sum(cpus), share, max(int(sum(cpus)), 1),
            )
        self._group = placement_group([{"CPU": share}] * self.world_size, strategy="PACK")
        ready, _ = ray.wait([self._group.ready()], timeout=START_SECONDS)
        if not ready:
            raise ClusterError(
                f"init: the cluster did not give {self.world_size} workers of {share:g} CPU in {START_SECONDS:g} s; "
                f"it has {sum(cpus):g} CPUs, {ray.available_resources().get('CPU', 0):g} of them free: ask for "
                "fewer with num_workers, or end what holds them"
            )
        secret = secrets.token_bytes(32)
        options: dict[str, Any] = {
            "num_cpus": share, "max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {CONTROL: 2},
            "enable_task_events": False,  # one event per message and worker would be kept by the cluster
        }
        remote: Any = ray.remote(**options)(WorkerActor)
        # Ranks of a node follow each other: reductions, which are in rank order, can then go from node to node.
        nodes = placement_group_table(self._group)["bundles_to_node_id"]
        bundles = sorted(range(self.world_size), key=lambda bundle: nodes[bundle])
        for rank, bundle in enumerate(bundles):
            settings = Settings(
                rank, self.world_size, session, secret, 0, self.timeout, force_network, threads=1,
                fused=compiled.enabled(), memory=self._memory,
            )
            strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle)
            self._actors.append(
                remote.options(scheduling_strategy=strategy, name=f"{session}-{rank}").remote(settings)
            )
        self._identities = self._all([a.identity.remote() for a in self._actors], "start", START_SECONDS)
        self._ray.watch(identity.pid for identity in self._identities)
        addresses = [identity.address for identity in self._identities]
        # Connecting has a limit of its own, the session's timeout; a little more lets it say who was missing.
        self._all([a.connect.remote(addresses) for a in self._actors], "connect to the others", self.timeout + 2)
        nice = [identity.rank for identity in self._identities if identity.niceness > 0]
        if nice:
            niceness = self._identities[nice[0]].niceness
            _log.info("workers %s run at niceness %d, as the cluster was set up", nice, niceness)
        self._open_lines(secret)
        near = self.nodes == 1 and not force_network
        far = force_network or len({i.node_id for i in self._identities}) == self.world_size
        self.overlaps = far and self.nodes > 1  # on one machine there is nothing to wait for (measured)
        self.transport = "shared memory" if near else "network" if far else "shared memory + network"

    def _all(self, refs: Sequence[Any], what: str, seconds: float) -> list[Any]:
        """Gives every worker's answer, or raises as soon as one of them cannot give it."""
        import ray

        deadline = time.monotonic() + seconds
        waiting = {ref: rank for rank, ref in enumerate(refs)}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=max(deadline - time.monotonic(), 0))
            if not ready:
                missing = sorted(waiting.values())
                raise CollectiveTimeout(
                    f"init: workers {missing} of {self.world_size} did not {what} within {seconds:g} s",
                    missing=missing, seconds=seconds,
                )
            rank = waiting.pop(ready[0])
            try:
                ray.get(ready[0], timeout=self.timeout)
            except ray.exceptions.RayTaskError as error:
                raise self._failed(rank, error) from error
            except ray.exceptions.RayError as error:
                if getattr(error, "actor_init_failed", False):
                    raise ClusterError(f"init: worker {rank} could not {what}: {error}", missing=[rank]) from error
                raise self._lost([rank], error) from error
        return ray.get(list(refs), timeout=self.timeout)

    @property
    def nodes(self) -> int:
        """How many Ray nodes the workers are on."""
        return len({i.node_id for i in self._identities})

    @property
    def threads(self) -> int:
        """BLAS threads per worker, as the workers' libraries say."""
        return max(i.threads for i in self._identities)

    @property
    def pids(self) -> list[int]:
        """The workers' processes, by rank."""
        return [i.pid for i in self._identities]

    # Batches --------------------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> int:
        """Batches that the slowest worker has not answered."""
        assert self._lines is not None
        return max(self._lines.awaited)

    def send(self, batches: list[list[Message]]) -> None:
        """Sends one batch to each worker that has one; waits only for room in a worker's socket."""
        self._require_ray()
        assert self._lines is not None
        self._lines.send(*pack_messages(batches))

    def wait(self) -> None:
        """Returns when an answer has come, or none is awaited.

        CollectiveTimeout names the workers that give no sign of life for the session's timeout; WorkerLostError one
        that died without having to answer.
        """
        self._require_ray()
        assert self._lines is not None
        while any(self._lines.awaited) and not self._lines.poll(_POLL):
            self._look_now_and_then()

    def replies(self) -> list[Reply]:
        """Gives the replies that have come, without waiting for any; a few may be left for later.

        WorkerLostError when a worker died; CollectiveTimeout when one did not arrive at an exchange.
        """
        assert self._lines is not None
        answers = self._lines.take()  # those that `wait` found: the sockets need not be asked again
        if not answers:
            self._lines.poll(0)
            answers = self._lines.take()
        found: list[Reply] = []
        for ranks, answer in answers:
            self._heard.update(ranks)
            if isinstance(answer, Count):
                last_run = None if answer.last_run < 0 else answer.last_run
                found.append(
                    Reply(ranks[0], sent=answer.sent, collectives=answer.collectives, last_run=last_run, others=ranks[1:])
                )
            else:
                found.append(unpack_reply(answer))
        return found

    def _require_ray(self) -> None:
        import ray

        if not ray.is_initialized():
            raise ClusterError(
                "Ray was shut down while a session was running, so its workers are gone; call distgrad's shutdown() "
                "first, then ray.shutdown()"
            )

    def _open_lines(self, secret: bytes) -> None:
        """Calls every worker; a driver that is not on the cluster's network sends its batches through Ray."""
        import ray

        if ray.util.client.ray.is_connected():
            self._lines = Calls(self._actors, self.timeout, self._broken_call)
            return
        teams = teams_of([i.node_id for i in self._identities])
        serving: list[Any] = [None] * self.world_size
        for team in teams:
            for rank in team:
                serving[rank] = self._actors[rank].serve.remote(team, self._identities[team[0]].line)
        try:
            self._lines = DriverEnd(
                [i.line for i in self._identities], secret, self._broken_line, self._look_now_and_then, teams
            )
        except OSError as error:
            raise ClusterError(
                f"init: the workers' ports cannot be reached from this driver ({error}); open the cluster's network to "
                "it, run it on a node of the cluster, or connect with ray://"
            ) from error
        self._serving = serving

    def _broken_line(self, rank: int, error: BaseException | None) -> BaseException:
        """Gives the reason why a worker's line has ended, which Ray knows."""
        import ray

        try:
            ray.get(self._serving[rank], timeout=_REASON_SECONDS)
        except ray.exceptions.RayError as reason:
            return self._broken_call(rank, reason)
        return self._lost([rank], error or ConnectionError("it closed its control line"))

    def _broken_call(self, rank: int, error: BaseException) -> BaseException:
        import ray

        if isinstance(error, ray.exceptions.RayTaskError):
            return self._failed(rank, error)
        if isinstance(error, ray.exceptions.GetTimeoutError):
            return CollectiveTimeout(
                f"{self._name(rank)} sent an answer that did not arrive within {self.timeout:g} s; the limit is "
                "init(timeout=...) or DISTGRAD_TIMEOUT", missing=[rank], seconds=self.timeout,
            )
        return self._lost([rank], error)

    # Who is lost ----------------------------------------------------------------------------------------------

    def _name(self, rank: int) -> str:
        if not self._identities:
            return f"worker {rank} of {self.world_size}"
        identity = self._identities[rank]
        return f"worker {rank} of {self.world_size} (process {identity.pid} on {identity.hostname})"

    def _lost(self, ranks: list[int], error: BaseException) -> WorkerLostError:
        self._abort(f"worker {ranks[0]} was lost")
        names = ", ".join(map(self._name, ranks))
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[-1:]) or type(error).__name__
        return WorkerLostError(
            f"{names} {'is' if len(ranks) == 1 else 'are'} lost, and the rows with it; call shutdown() and init() "
            f"again, and load your last save. Ray says: {reason}",
            missing=ranks,
        )

    def _failed(self, rank: int, error: Any) -> DistgradError:
        """Gives the reason behind a worker's failed batch: a peer that died tells more than one that gave up."""
        cause = error.cause
        self._abort(f"worker {rank} failed: {cause}")
        dead = self._dead()
        if dead:
            return self._lost(dead, cause)
        if isinstance(cause, CollectiveTimeout):
            missing = cause.details.get("missing", [])
            names = ", ".join(map(self._name, missing))
            return CollectiveTimeout(f"{names} did not arrive. {self._name(rank)} says: {cause}", **cause.details)
        if isinstance(cause, InfrastructureError | WireError | GroupAborted):
            return cause
        return InfrastructureError(
            f"{self._name(rank)} failed outside of any op, a fault of distgrad: {error}", worker=rank
        )

    def _dead(self) -> list[int]:
        """Gives the ranks whose actor has ended, asking for a second at most."""
        import ray

        refs = {actor.ping.remote(): rank for rank, actor in enumerate(self._actors)}
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=1.0)
        return sorted(refs[ref] for ref in ready if _raises(ref))

    def _look_now_and_then(self) -> None:
        if time.monotonic() - self._looked > max(_LOOK_SECONDS, self.timeout / _LOOKS):
            self._look()

    def _look(self) -> None:
        """Asks workers that gave no answer since the last look for a sign of life; one silent for the timeout is named."""
        import ray

        now = self._looked = time.monotonic()
        heard, self._heard = self._heard, set()
        for rank in heard & self._pings.keys():
            del self._pings[rank]
        for rank, (ref, _) in list(self._pings.items()):
            if ray.wait([ref], timeout=0)[0]:
                try:
                    ray.get(ref, timeout=1.0)
                except ray.exceptions.GetTimeoutError:
                    continue
                except ray.exceptions.RayError as error:
                    raise self._lost([rank], error) from error
                del self._pings[rank]
        for rank, actor in enumerate(self._actors):
            if rank not in self._pings and rank not in heard:
                self._pings[rank] = (actor.ping.remote(), now)
        overdue = [rank for rank, (_, asked) in sorted(self._pings.items()) if now - asked > self.timeout]
        if overdue:
            self._abort(f"workers {overdue} gave no sign of life")
            raise CollectiveTimeout(
                f"no sign of life for {self.timeout:g} s from {', '.join(map(self._name, overdue))}; stopped or cut "
                "off? The limit is init(timeout=...) or DISTGRAD_TIMEOUT", missing=overdue, seconds=self.timeout,
            )

    def _abort(self, reason: str) -> None:
        for actor in self._actors:
            actor.abort.remote(reason)

    # The end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the workers, gives back the placement group, and ends Ray when this session started it."""
        if self._closed:
            return
        self._closed = True
        if self._lines is not None:
            self._lines.close()
        import ray

        if not ray.is_initialized():
            return
        with uninterrupted():  # every part ends by itself, within seconds
            for actor in self._actors:
                with contextlib.suppress(Exception):  # the cluster may be gone; what follows must still run
                    ray.kill(actor, no_restart=True)
            self._end_processes()
            self._let_go()
            if self._group is not None:
                with contextlib.suppress(Exception):
                    ray.util.remove_placement_group(self._group)
            self._ray.end()

    def _let_go(self) -> None:
        """Reads the answers nobody waits for any more: Ray reports an error that was never read as unhandled."""
        import ray

        refs = [*self._serving, *(ref for ref, _ in self._pings.values())]
        if isinstance(self._lines, Calls):
            refs += self._lines.refs()
        if not refs:
            return
        for ref in ray.wait(refs, num_returns=len(refs), timeout=1.0)[0]:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(ref, timeout=1.0)

    def _end_processes(self) -> None:
        """Waits for the workers of this machine to end; a stopped one cannot obey Ray and is killed here."""
        here = [i for i in self._identities if i.hostname == socket.gethostname() and i.started is not None]
        deadline = time.monotonic() + STOP_SECONDS
        patience = time.monotonic() + 1.0
        while here and time.monotonic() < deadline:
            here = [i for i in here if start_time(i.pid) == i.started]
            if here and time.monotonic() > patience:
                for identity in here:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(identity.pid, signal.SIGKILL)
                patience = deadline
            time.sleep(0.01)


def teams_of(nodes: Sequence[str], least: int | None = None) -> list[tuple[int, ...]]:
    """Gives the ranks that are reached together: those of a node, from `least` on (`relay.WORKERS`), else each by itself."""
    by_node: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        by_node.setdefault(node, []).append(rank)
    least = relay.WORKERS if least is None else least
    return [team for ranks in by_node.values() for team in ([tuple(ranks)] if len(ranks) >= least else [(r,) for r in ranks])]


def cpu_share(cpus: Sequence[float], workers: int) -> float:
    """Gives the CPUs each worker gets on nodes with so many: 1, or the largest equal share of which all fit."""
    candidates = sorted({min(count / k, 1.0) for count in cpus if count for k in range(1, workers + 1)}, reverse=True)
    for share in candidates:
        share = int(share * 1000) / 1000  # Ray counts in ten-thousandths
        if share and sum(int(count / share) for count in cpus) >= workers:
            return share
    return 0.001


def _raises(ref: Any) -> bool:
    """Whether an answered ping says that its actor has ended."""
    import ray

    try:
        ray.get(ref, timeout=1.0)
    except ray.exceptions.GetTimeoutError:
        return False
    except ray.exceptions.RayError:
        return True
    return False
