"""Starting and ending a session: `init`, `shutdown`, and what users ask of a running one.

Invariant: at most one session runs; what init started, shutdown ends, also at interpreter exit.
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any

from distgrad import graph
from distgrad.errors import SessionError
from distgrad.placement import Replicate, Shard

if TYPE_CHECKING:
    from distgrad.runtime.coordinator import Coordinator, Stats

DEFAULT_SHARD_THRESHOLD = 1 << 20
DEFAULT_TIMEOUT = 60.0
_running: list[Session] = []


class Session:
    """A running session: its workers and how to end it. A context manager that shuts down on exit."""

    def __init__(self, coordinator: Coordinator, *, local: bool) -> None:
        self._coordinator = coordinator
        self._local = local
        backend = coordinator.backend
        self.num_workers = backend.world_size
        self.nodes, self.transport, self.threads = backend.nodes, backend.transport, backend.threads

    @property
    def pids(self) -> list[int]:
        """The workers' process ids by rank; this process's for a local group."""
        return list(getattr(self._coordinator.backend, "pids", [os.getpid()] * self.num_workers))

    @property
    def running(self) -> bool:
        """Whether this session is the current one."""
        return bool(_running) and _running[0] is self

    def shutdown(self) -> None:
        """Ends this session; again does nothing."""
        if self.running:
            shutdown()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "" if self.running else ", ended"
        where = "this process" if self._local else f"{self.nodes} node{'s' if self.nodes != 1 else ''}"
        threads = "" if self._local else f", {self.threads} thread{'s' if self.threads != 1 else ''} each"
        return (
            f"<distgrad session: {self.num_workers} worker{'s' if self.num_workers != 1 else ''} on {where}{threads}, "
            f"{self.transport}{state}>"
        )


def _number(name: str, given: Any, variable: str, default: float) -> float:
    if given is None:
        text = os.environ.get(variable)
        if text is None:
            return default
        try:
            given = float(text)
        except ValueError:
            raise ValueError(f"init: {variable} must be a number, got {text!r}") from None
    if isinstance(given, bool) or not isinstance(given, int | float) or given < 0:
        raise ValueError(f"init: {name} must be a number, zero or more, got {given!r}")
    return given


def init(
    address: str | None = None,
    *,
    num_workers: int | None = None,
    local_mode: bool = False,
    shard_threshold: int | None = None,
    timeout: float | None = None,
    force_network: bool | None = None,
    memory_per_worker: int | None = None,
    shard_optimizer: bool | None = None,
) -> Session:
    """Starts the session: from now on large data is sharded over workers and parameters live on each of them.

    Args:
        address: as Ray users know it. None attaches to an initialised Ray, else to RAY_ADDRESS, else starts a local
            Ray; "auto", "local", "host:port" and "ray://host:port" say which. A cluster's token is used when there.
        num_workers: one actor of one CPU each; by default one per CPU of the cluster (2 in local mode).
        local_mode: the workers are simulated in this process, in lockstep, without Ray.
        shard_threshold: bytes from which data is sharded by itself (default 1 MiB; 0 shards everything that has a first
            dim). Environment: DISTGRAD_SHARD_THRESHOLD.
        timeout: seconds that a worker may be silent, or keep others waiting at an exchange (default 60). Environment:
            DISTGRAD_TIMEOUT.
        memory_per_worker: bytes that a worker's tensors may take at a time, in all: data, parameters, gradients, optimizer
            state and what operations make, beside the process itself. Programs that need more run over their rows in
            blocks, forward and backward, where operations work row by row, planned for 0.8 of the limit: kernels and the
            heap take the rest. Data and parameters must fit by themselves, and so must values that operations need of all
            rows at once (the input of batch_norm in training) or that are kept from one program to the next (a loss read
            before `backward()` keeps all activations). A RuntimeWarning names the largest where the limit is exceeded.
        shard_optimizer: whether each worker updates, and keeps the optimizer's state of, its own rows of the parameters
            only; the results are the same. None (default): SGD, Adam and AdamW do so in steps of many parameters where it
            moves no more bytes. True: also of few parameters, and where gradients were read, or clipped, before the
            step, although that moves half as many bytes again. False: never.
        force_network: exchange over sockets also on one node. Environment: DISTGRAD_FORCE_NETWORK=1.

    Raises:
        SessionError: a session is running already.
        ClusterError: the cluster cannot be reached or does not give the workers.
        ValueError, TypeError: an argument is of no use.

    While the session runs, Python's collector of cycles starts at 20,000 objects instead of 700: a step's graph is no garbage.

    Returns the session, a context manager that shuts down on exit.
    """
    if _running:
        raise SessionError(f"init: {_running[0]!r} is running; call shutdown() before another init()")
    if address is not None and not isinstance(address, str):
        raise TypeError(f"init: address must be a string or None, got {type(address).__name__}")
    if num_workers is not None and (isinstance(num_workers, bool) or not isinstance(num_workers, int)):
        raise TypeError(f"init: num_workers must be an int, got {type(num_workers).__name__}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"init: num_workers must be 1 or more, got {num_workers}")
    if local_mode and address is not None:
        raise ValueError(f"init: local_mode=True uses no cluster, so address={address!r} cannot be given with it")
    threshold = int(_number("shard_threshold", shard_threshold, "DISTGRAD_SHARD_THRESHOLD", DEFAULT_SHARD_THRESHOLD))
    seconds = _number("timeout", timeout, "DISTGRAD_TIMEOUT", DEFAULT_TIMEOUT)
    if seconds <= 0:
        raise ValueError(f"init: timeout must be more than 0 seconds, got {seconds:g}")
    if memory_per_worker is not None and (
        isinstance(memory_per_worker, bool) or not isinstance(memory_per_worker, int) or memory_per_worker < 1
    ):
        raise ValueError(f"init: memory_per_worker must be a number of bytes, 1 or more, got {memory_per_worker!r}")
    if shard_optimizer not in (None, True, False):
        raise TypeError(f"init: shard_optimizer must be True, False or None, got {shard_optimizer!r}")
    if force_network is None:
        force_network = os.environ.get("DISTGRAD_FORCE_NETWORK", "0") not in ("", "0")
    backend: Any
    if local_mode:
        from distgrad.runtime.local import LocalGroup

        backend = LocalGroup(num_workers or 2, memory_per_worker)
    else:
        from distgrad.runtime.ray_cluster import RayGroup

        name = f"distgrad-{os.getpid()}-{os.urandom(4).hex()}"
        backend = RayGroup(address, num_workers, timeout=seconds, force_network=force_network, session=name,
                           memory=memory_per_worker)
        # What is registered last runs first: the workers' answers are taken before Ray's own exit handler ends Ray.
        atexit.unregister(shutdown)
        atexit.register(shutdown)
    from distgrad.runtime import collector  # here: importing distgrad stays quick
    from distgrad.runtime.coordinator import Coordinator

    collector.relax()
    coordinator = Coordinator(backend, shard_threshold=threshold, shard_optimizer=shard_optimizer)
    session = Session(coordinator, local=local_mode)
    _running[:] = [session]
    graph.set_session(coordinator)
    return session


def shutdown() -> None:
    """Ends the session: its workers, and the local Ray if init started it. Without a session it does nothing."""
    if not _running:
        return
    session = _running.pop()
    coordinator = session._coordinator
    graph.set_session(None)
    try:
        coordinator.settle()
        unread = coordinator.lost.unread_failures()
        if unread:
            import logging

            logging.getLogger("distgrad").warning(
                "operations that failed and whose results were never read, recorded at: %s", ", ".join(unread)
            )
    finally:
        from distgrad.runtime import collector

        collector.restore()
        coordinator.close()


atexit.register(shutdown)


def is_initialized() -> bool:
    """Says whether a session is running."""
    return bool(_running)


def _current(what: str) -> Coordinator:
    if not _running:
        raise SessionError(f"{what}: no session is running; call init() first")
    return _running[0]._coordinator


def shard(x: Any, dim: int = 0) -> Any:
    """Gives a tensor whose rows along `dim` are spread over the workers; gradients flow back to `x`.

    `x`: a Tensor, or anything `tensor` takes. Without a session it is `x` itself. IndexError when `dim` does not fit.
    """
    return _placed(x, Shard(dim))


def replicate(x: Any) -> Any:
    """Gives a tensor that every worker holds whole; gradients flow back to `x`. Without a session it is `x` itself."""
    return _placed(x, Replicate())


def _placed(x: Any, placement: Any) -> Any:
    from distgrad.functions.data import as_tensor, node_of
    from distgrad.op import is_tensor
    from distgrad.tensor import Tensor

    if not is_tensor(x):
        import numpy as np

        x = Tensor._from_node(node_of(x, data=False)) if isinstance(x, np.ndarray) else as_tensor(x)
    if isinstance(placement, Shard) and not -x.ndim <= placement.dim < x.ndim:
        raise IndexError(f"shard: dim {placement.dim} does not fit a tensor of shape {tuple(x.shape)}")
    out = x.redistribute(placement)
    if out is not x and out.requires_grad:
        out.retain_grad()
    return out


def stats() -> Stats:
    """Gives a copy of the counters since init; SessionError without a session."""
    return _current("stats").snapshot()


def explain(t: Any) -> str:
    """Gives the program that would compute a tensor, one instruction a line, with placements and bytes moved."""
    node = t._now()
    if node.data is not None:
        return f"local: {node.spec!r}; computed in this process when its operation was called"
    from distgrad.lower import explain as program_of

    coordinator = _current("explain")
    return program_of(node, coordinator.pending, coordinator.world_size)


def synchronize() -> None:
    """Sends what is pending and waits until the workers have done everything; SessionError without a session."""
    _current("synchronize").synchronize()


def compile(model: Any = None, **options: Any) -> Any:
    """Gives a function whose steps are replayed: with a session, calls that are alike skip Python and recording.

    For training steps: `step = compile(step)`. A call is recorded until two in a row were alike, then replayed while
    arguments (shapes, dtypes, placements, Python values), the plain values around the function and its modules' training
    flags stay as they were; `stats().steps_replayed` and `.steps_recorded` count. What the function does beside tensors
    and optimizers, printing or counting, happens in recorded calls only. Modules are given back as they are; without
    arguments it is a decorator; options are accepted and change nothing. PyTorch: torch.compile.
    """
    if model is None:
        return compile
    if not hasattr(model, "__code__"):
        return model
    from distgrad.runtime.compiled import Compiled  # here: importing distgrad stays quick

    return Compiled(model)
