"""Reaching a Ray cluster: address forms, token authentication, and keeping Ray's start-up chatter quiet.

Invariant: whoever connects here is told whether the connection is theirs to end; a failed try leaves Ray unconnected.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from distgrad.errors import ClusterError
from distgrad.runtime.interrupts import uninterrupted

_log = logging.getLogger("distgrad")
_ANSWER_SECONDS = 5.0


def reach_ray(address: str | None, num_workers: int | None) -> bool:
    """Connects to the cluster an address names, or starts a local one; says whether the connection is ours to end.

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
            "init: a ray:// connection moves data about 100 times slower than a driver on the cluster, and every message "
            "takes longer; run the driver on a node of the cluster if you can"
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
        except (ConnectionError, TimeoutError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            ray.shutdown()
            raise ClusterError(_unreached(address, error)) from error
    return True


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


def _use_token() -> None:
    """Uses the token that is there, unless RAY_AUTH_MODE says what to do; a cluster without tokens ignores it.

    Ray does this for "auto" only; for any other address it stays without, and the connection fails.
    """
    from ray._private.authentication import authentication_token_setup

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _answers(address: str) -> None:
    """Raises ClusterError when nothing listens at an address: Ray itself would try for 20 s and not say so."""
    host, _, port = address.removeprefix("ray://").partition("/")[0].rpartition(":")
    host, number = (host, port) if host else (port, "10001")
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise ClusterError(
            f'init: address={address!r} is none; give "host:port", "ray://host:port", "auto" or "local", or leave it out'
        )
    try:
        socket.create_connection((host.strip("[]"), int(number)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"init: no Ray cluster answers at {address!r}: {error}; see that it runs and that the port is the one it was "
            "started with (6379 unless given, 10001 for ray://)"
        ) from error


def _unreached(address: str, error: BaseException) -> str:
    if address == "local":
        return f"init: a local Ray did not start: {error}"
    if address == "auto":
        return f"init: no running Ray cluster was found on this machine: {error}; start one, give its address, or leave it out"
    mode = os.environ.get("RAY_AUTH_MODE", "unset")
    hint = (
        f"RAY_AUTH_MODE is {mode}; if the cluster asks for a token (Ray 2.59 and later do), set RAY_AUTH_MODE=token before "
        "Python starts and give its token in RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
    )
    if mode == "token":
        hint = (
            "RAY_AUTH_MODE is token; see that RAY_AUTH_TOKEN, the file named by RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token "
            "holds this cluster's token"
        )
    reasons = [str(one).strip().splitlines()[0] for one in (error, error.__cause__) if one is not None and str(one).strip()]
    return f"init: connecting to the Ray cluster at {address!r} failed: {': '.join(reasons) or type(error).__name__}; {hint}"
