"""Reaching a Ray cluster: address forms, token authentication, and keeping Ray's start-up chatter quiet.

Invariant: whoever connects here is told whether the connection is theirs to end; a failed try leaves Ray unconnected.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

from distgrad.errors import ClusterError
from distgrad.runtime.guard import Guard, family
from distgrad.runtime.interrupts import uninterrupted

_log = logging.getLogger("distgrad")
_ANSWER_SECONDS = 5.0
_PRINT_SECONDS = 0.7


class Connection:
    """A process's connection to Ray. `ours`: it ends with the session; `guard`: ends a local Ray with the driver."""

    def __init__(self, *, ours: bool, guard: Guard | None = None) -> None:
        self.ours, self._guard = ours, guard

    def watch(self, pids: Iterable[int]) -> None:
        """Makes workers of a Ray that we started end with this process, also when they are stopped."""
        if self._guard is not None:
            self._guard.watch(pids)

    def end(self) -> None:
        """Ends the connection, and Ray with it when that was started for it."""
        import ray

        if self.ours:
            _let_prints_through()
            ray.shutdown()
        if self._guard is not None:
            self._guard.close()


def reach_ray(address: str | None, num_workers: int | None) -> Connection:
    """Connects to the cluster an address names, or starts a local one.

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
        return Connection(ours=False)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"configure_logging": False}
    if address == "local":
        # Ray's own choice of niceness, 15, doubles the time of a step when the machine has anything else to do.
        options |= {
            "num_cpus": max(os.cpu_count() or 1, num_workers or 0),
            "include_dashboard": False,
            "_system_config": {"worker_niceness": 0},
        }
    elif address.startswith("ray://"):
        _log.warning(
            "init: a ray:// connection moves data about 100 times slower than a driver on the cluster, and every "
            "message takes longer; run the driver on a node of the cluster if you can"
        )
    with _quiet():
        if address != "local":
            _use_token()
        if address not in ("local", "auto"):
            _answers(address)
        try:
            # Starting a Ray of our own ends by itself, and left half-way it would stay behind.
            with uninterrupted() if address == "local" else contextlib.nullcontext():
                ray.init(address=address, **options)
        except ImportError as error:
            raise ClusterError(f'init: {address!r} needs Ray\'s client: pip install "ray[client]"') from error
        except (ConnectionError, TimeoutError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            ray.shutdown()
            raise ClusterError(_unreached(address, error)) from error
    if address != "local":
        return Connection(ours=True)
    from ray._private import worker

    node: Any = worker._global_node
    started = [info.process.pid for infos in node.all_processes.values() for info in infos]
    guard = Guard()
    guard.watch(family(started))
    return Connection(ours=True, guard=guard)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Ray's remarks on starting and connecting back; its errors still show."""
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _let_prints_through() -> None:
    """Waits until what workers of this machine have printed last can have reached the driver's terminal.

    Ray's log monitor follows the workers' files and is not to be asked whether it is done.
    """
    from ray._private import worker

    node: Any = worker._global_node
    pattern = None if node is None else os.path.join(node.get_session_dir_path(), "logs", "worker-*.out")
    files = glob.glob(pattern) if pattern else []
    written = max((os.path.getmtime(file) for file in files), default=0.0)
    time.sleep(min(max(written + _PRINT_SECONDS - time.time(), 0.0), _PRINT_SECONDS))


def _use_token() -> None:
    """Uses the token that is there, unless RAY_AUTH_MODE says what to do; a cluster without tokens ignores it.

    Ray does this for "auto" only; for any other address it stays without, and the connection fails.
    """
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _answers(address: str) -> None:
    """Raises ClusterError when nothing listens at an address: Ray itself would try for 20 s and not say so."""
    client = address.startswith("ray://")
    host, _, number = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    if client and not host:
        host, number = number, "10001"
    if not host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ClusterError(
            f'init: address={address!r} is none; give "host:port", "ray://host:port", "auto" or "local", or leave it '
            "out"
        )
    try:
        socket.create_connection((host.strip("[]"), int(number)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"init: no Ray cluster answers at {address!r}: {error}; see that it runs and that the port is the one it "
            "was started with (6379 unless given, 10001 for ray://)"
        ) from error


def _unreached(address: str, error: BaseException) -> str:
    if address == "local":
        return f"init: a local Ray did not start: {error}"
    if address == "auto":
        return (
            f"init: no running Ray cluster was found on this machine: {error}; start one, give its address, or leave "
            "the address out"
        )
    mode = os.environ.get("RAY_AUTH_MODE", "unset")
    hint = (
        f"RAY_AUTH_MODE is {mode}; if the cluster asks for a token (Ray 2.59 and later do), set RAY_AUTH_MODE=token "
        "before Python starts and give its token in RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or "
        "~/.ray/auth_token"
    )
    if mode == "token":
        hint = (
            "RAY_AUTH_MODE is token; see that RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or "
            "~/.ray/auth_token holds this cluster's token"
        )
    reasons: list[str] = []
    for one in (error, error.__cause__):
        lines = [line.strip() for line in str(one or "").splitlines() if line.strip()]
        reasons.extend(line for line in (*lines[:1], *lines[-1:]) if line not in reasons)
    reason = ": ".join(reasons) or type(error).__name__
    return f"init: connecting to the Ray cluster at {address!r} failed: {reason}; {hint}"
