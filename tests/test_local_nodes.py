"""Several Ray nodes on one machine: a driver in another process finds them, and nothing is left when they close.

Invariant: every test starts its nodes in a process of its own, so that no other test's Ray is touched.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"
LOCAL_NODES = CLUSTER / "local_nodes.py"

DRIVER = """
import json, os, ray
ray.init(log_to_driver=False)
alive = [node for node in ray.nodes() if node["Alive"]]
cpus = ray.cluster_resources()["CPU"]
print(json.dumps({"nodes": len(alive), "cpus": cpus, "mode": os.environ["RAY_AUTH_MODE"]}), flush=True)
"""

# Opens the nodes, runs the driver on them, closes them, and reports what was there and what is left.
HOST = """
import json, os, subprocess, sys
import psutil
from local_nodes import LocalNodes

with LocalNodes(nodes=2, cpus_per_node=1) as nodes:
    directory = os.environ["RAY_TMPDIR"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.run(
        [sys.executable, sys.argv[1]], env=environment | nodes.environment, capture_output=True, text=True, timeout=60
    )
    running = nodes.processes()
    address = nodes.address
    try:
        LocalNodes().start()
        second = "started"
    except RuntimeError as error:
        second = str(error)
print(json.dumps({
    "address": address,
    "driver": driver.stdout,
    "driver_errors": driver.stderr,
    "running": [process.pid for process in running],
    "alive": [process.pid for process in running if process.is_running()],
    "children": [child.pid for child in psutil.Process().children(recursive=True)],
    "directory_left": os.path.exists(directory),
    "settings_left": [name for name in ("RAY_ADDRESS", "RAY_TMPDIR") if name in os.environ],
    "second": second,
}))
"""


def without_ray_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all these processes end in this time; zombies that wait for their parent count as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.ray
def test_a_driver_sees_both_nodes_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "host.py").write_text(HOST)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "host.py"), str(tmp_path / "driver.py")],
        env=without_ray_settings() | {"PYTHONPATH": str(CLUSTER)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["driver"], report["driver_errors"]
    assert json.loads(report["driver"]) == {"nodes": 2, "cpus": 2.0, "mode": "token"}
    assert len(report["running"]) >= 3, "one control server and one node server for each node, at the least"
    assert report["alive"] == report["children"] == []
    assert not report["directory_left"] and report["settings_left"] == []
    assert "already open" in report["second"]


@pytest.mark.ray
def test_sigterm_ends_the_command_and_the_nodes(tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(
        DRIVER
        + textwrap.dedent("""
        import subprocess, time
        subprocess.Popen(["sleep", "600"])
        time.sleep(600)
    """)
    )
    host = subprocess.Popen(
        [sys.executable, str(LOCAL_NODES), "--nodes", "1", "--cpus", "1", "--", sys.executable, str(driver)],
        env=without_ray_settings(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert host.stdout is not None
        assert json.loads(host.stdout.readline())["nodes"] == 1
        time.sleep(0.5)  # the driver's own child starts after it has printed
        started = [child.pid for child in psutil.Process(host.pid).children(recursive=True)]
        host.send_signal(signal.SIGTERM)
        assert host.wait(60) == 128 + signal.SIGTERM
    finally:
        if host.poll() is None:
            host.kill()
            host.wait()
        host.stdout.close()
    assert len(started) >= 4 and gone(started, seconds=5)


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_nodes_start_ends_them(number: signal.Signals) -> None:
    host = subprocess.Popen(
        [sys.executable, str(LOCAL_NODES), "--nodes", "2", "--", "echo", "driver"],
        env=without_ray_settings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started: list[int] = []
    try:
        deadline = time.monotonic() + 30
        while not started and time.monotonic() < deadline:
            started = [child.pid for child in psutil.Process(host.pid).children(recursive=True)]
            time.sleep(0.02)
        host.send_signal(number)
        output, _ = host.communicate(timeout=60)
    finally:
        if host.poll() is None:
            host.kill()
            host.communicate()
    assert (host.returncode, output) == (128 + number, "")
    assert started and gone(started, seconds=5)


@pytest.mark.ray
def test_the_exit_status_is_that_of_the_command() -> None:
    command = [sys.executable, str(LOCAL_NODES), "--nodes", "1", "--", sys.executable, "-c", "raise SystemExit(7)"]
    assert subprocess.run(command, env=without_ray_settings(), timeout=60).returncode == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "0", "--", "true"], "at least one"),
        (["--"], "no command after --"),
        (["--nodes", "2", "true"], "unrecognized arguments: true"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_starts(arguments: list[str], message: str) -> None:
    result = subprocess.run([sys.executable, str(LOCAL_NODES), *arguments], capture_output=True, text=True, timeout=30)
    assert result.returncode == 2 and message in result.stderr
