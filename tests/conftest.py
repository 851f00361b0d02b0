"""Shared test settings: one thread per process, and one Ray cluster of two nodes for all tests that need Ray.

Invariant: a test that uses the cluster carries the marker `ray`; whatever it does to its session, the
next test finds no session and the same cluster.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

_ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that use the cluster."""
    for item in items:
        if {"cluster", "connected", "client_address"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two Ray nodes of two CPUs each on this machine, started once; gives the open `LocalNodes`."""
    pytest.importorskip("ray")
    sys.path.insert(0, str(_ROOT / "cluster"))
    try:
        from local_nodes import LocalNodes
    finally:
        sys.path.remove(str(_ROOT / "cluster"))
    with LocalNodes(nodes=2, cpus_per_node=2) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def client_address(cluster: Any) -> Iterator[str]:
    """The ray:// address of the cluster: a server of Ray's for drivers outside of it.

    It serves drivers in its own process: the one that forks a server for each driver hangs now and then.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.util.client.server", "--address", cluster.address, "--host", "127.0.0.1", "--port",
         str(port), "--mode", "legacy"],
        env=os.environ | cluster.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield f"ray://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)


@pytest.fixture
def connected(cluster: Any) -> Iterator[Any]:
    """The cluster, with this process connected to it as a user of Ray connects; sessions attach by `init()`."""
    import ray

    import distgrad as dg

    if not ray.is_initialized():
        ray.init(address=cluster.address, configure_logging=False, log_to_driver=False)
    yield cluster
    dg.shutdown()
    assert ray.is_initialized(), "a session that attached to Ray has shut it down"
