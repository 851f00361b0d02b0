"""Shared test settings: one thread per process, and one Ray cluster of two nodes for all tests that need Ray.

Invariant: a test that uses the cluster carries the marker `ray`; whatever it does to its session, the
next test finds no session and the same cluster.
"""

from __future__ import annotations

import os
import sys
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
        if {"cluster", "connected", "unconnected"} & set(getattr(item, "fixturenames", ())):
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


@pytest.fixture
def unconnected(cluster: Any) -> Iterator[Any]:
    """The cluster, without a connection to it before or after the test."""
    import ray

    import distgrad as dg

    ray.shutdown()
    yield cluster
    dg.shutdown()
    ray.shutdown()
