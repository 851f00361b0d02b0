"""Starting and ending sessions: address forms, tokens, defaults, errors, output, and what is left after the end."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from ray_session import descendants, driver, gone, line_of, rest, run_driver, shared_files

import distgrad as dg
from distgrad.errors import ClusterError, SessionError
from distgrad.runtime import guard, threads
from distgrad.runtime.ray_cluster import cpu_share


def total() -> float:
    return dg.shard(np.arange(6.0)).sum().item()


# Arguments


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"address": 7}, TypeError, "address must be a string or None, got int"),
        ({"num_workers": 0}, ValueError, "num_workers must be 1 or more, got 0"),
        ({"num_workers": 2.0}, TypeError, "num_workers must be an int, got float"),
        ({"num_workers": True}, TypeError, "num_workers must be an int, got bool"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0 seconds, got 0"),
        ({"shard_threshold": -1}, ValueError, "shard_threshold must be a number, zero or more, got -1"),
        ({"local_mode": True, "address": "auto"}, ValueError, "address='auto' cannot be given with it"),
        ({"address": "nowhere"}, ClusterError, 'give "host:port"'),
        ({"address": "host:port"}, ClusterError, 'give "host:port"'),
    ],
)
def test_arguments_of_no_use(arguments, kind, text):
    import ray

    ray.shutdown()
    with pytest.raises(kind, match=text):
        dg.init(**arguments)
    assert not dg.is_initialized()


def test_settings_of_the_environment(monkeypatch):
    monkeypatch.setenv("DISTGRAD_SHARD_THRESHOLD", "0")
    with dg.init(local_mode=True):
        assert dg.tensor([1.0, 2.0, 3.0]).placement == dg.Shard(0)
    monkeypatch.setenv("DISTGRAD_TIMEOUT", "soon")
    with pytest.raises(ValueError, match="DISTGRAD_TIMEOUT must be a number, got 'soon'"):
        dg.init(local_mode=True)


def test_one_session_at_a_time():
    with dg.init(local_mode=True, num_workers=3) as session:
        assert repr(session) == "<distgrad session: 3 workers on this process, in-process>"
        with pytest.raises(SessionError, match=r"3 workers.* is running; call shutdown\(\) before another init"):
            dg.init(local_mode=True)
        x = dg.shard(np.ones(4))
    assert not dg.is_initialized()
    assert "ended" in repr(session)
    session.shutdown()
    dg.shutdown()
    with pytest.raises(SessionError, match="belongs to a session that has ended"):
        (x + 1).sum().item()
    with pytest.raises(SessionError, match=r"stats: no session is running; call init\(\) first"):
        dg.stats()
    with dg.init(local_mode=True), pytest.raises(SessionError, match="belongs to a session that has ended"):
        x.sum()


# Addresses


def test_attaching_to_an_initialised_ray(connected):
    with dg.init() as session:
        assert session.num_workers == 4
        assert session.nodes == 2
        assert repr(session) == (
            "<distgrad session: 4 workers on 2 nodes, 1 thread each, shared memory + network>"
        )
        assert total() == 15
        niceness = {os.getpriority(os.PRIO_PROCESS, pid) for pid in session.pids}
    assert niceness == {0}
    with dg.init("auto", num_workers=1):
        assert total() == 15
    with pytest.raises(ClusterError, match="Ray is already initialised in this process"):
        dg.init(connected.address)


def test_more_workers_than_cpus(connected, caplog):
    with dg.init(num_workers=7) as session:
        assert session.num_workers == 7
        assert total() == 15
    assert "7 workers on a cluster of 4 CPUs" in caplog.text


@pytest.mark.parametrize(
    ("cpus", "workers", "share"),
    [
        ((2.0,), 2, 1.0), ((2.0, 2.0), 3, 1.0), ((1.0, 1.0), 3, 0.5), ((2.0,), 3, 0.666), ((4.0, 1.0), 6, 0.8),
        ((0.0,), 2, 0.001),
    ],
)
def test_shares_of_cpus_fit_the_nodes(cpus, workers, share):
    assert cpu_share(cpus, workers) == pytest.approx(share)


ADDRESSED = """
import sys
import numpy as np
import distgrad as dg
with dg.init(*sys.argv[1:], num_workers=2) as session:
    import ray
    print("sum", dg.shard(np.arange(6.0)).sum().item(), session.nodes, len(ray.nodes()))
print("ray", ray.is_initialized())
"""


@pytest.mark.parametrize("form", ["host:port", "RAY_ADDRESS", "no mode"])
def test_addresses_of_a_cluster_with_tokens(cluster, form):
    """The mode need not be set in the environment: a token that is there is used."""
    environment = dict(cluster.environment)
    arguments = []
    if form == "host:port":
        arguments = [environment.pop("RAY_ADDRESS")]
    if form != "RAY_ADDRESS":
        environment.pop("RAY_AUTH_MODE")
    done = run_driver(ADDRESSED, *arguments, **environment)
    assert done.stdout.splitlines() == ["sum 15.0 1 2", "ray False"], done.stderr
    assert done.stderr == ""


def test_auto_finds_the_cluster_of_its_directory(cluster):
    done = run_driver(ADDRESSED, "auto", RAY_TMPDIR=os.environ["RAY_TMPDIR"])
    assert done.stdout.splitlines() == ["sum 15.0 1 2", "ray False"], done.stderr


FAILING = """
import sys, time
import distgrad as dg
started = time.monotonic()
for _ in range(2):
    try:
        dg.init(sys.argv[1])
    except dg.errors.ClusterError as error:
        import ray
        print(type(error).__name__, ray.is_initialized(), str(error).replace("\\n", " "))
print(time.monotonic() - started)
"""


@pytest.mark.parametrize(
    ("environment", "text"),
    [({"RAY_AUTH_MODE": "disabled"}, "RAY_AUTH_MODE is disabled; if the cluster asks for a token"),
     ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, "holds this cluster's token")],
)
def test_a_cluster_that_asks_for_another_token(cluster, environment, text):
    """Ray tries for 20 s unless told how often, and then says nothing of tokens."""
    script = FAILING.replace("range(2)", "range(1)")
    done = run_driver(script, cluster.address, RAY_NUM_REDIS_GET_RETRIES="1", **environment)
    failed = f"ClusterError False init: connecting to the Ray cluster at '{cluster.address}' failed"
    assert failed in done.stdout, done.stderr
    assert text in done.stdout


@pytest.mark.ray
def test_nobody_at_an_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    done = run_driver(FAILING, free)
    first, second, seconds = done.stdout.splitlines()
    assert first == second
    assert first.startswith(f"ClusterError False init: no Ray cluster answers at '{free}'")
    assert float(seconds) < 10


def test_no_cluster_on_this_machine(monkeypatch):
    import ray

    def fails(**options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    ray.shutdown()
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ClusterError, match=r"no running Ray cluster was found .*: Could not .*; start one"):
        dg.init("auto")


CLIENT = """
import os, signal, sys
import numpy as np
import distgrad as dg

def attempt(kind, compute):
    try:
        compute()
    except kind as error:
        print(kind.__name__, str(error).splitlines()[0])

with dg.init(sys.argv[1], num_workers=2) as session:
    x = dg.shard(np.arange(12, dtype=np.float32).reshape(6, 2))
    print("sum", x.sum().item())
    big = np.arange(400_000.0)
    print("same", np.array_equal((dg.from_numpy(big) + 1).numpy(), big + 1))
    attempt(dg.errors.RemoteOpError, dg.gather(x, 1, dg.shard(np.full((6, 1), 9))).numpy)
    os.kill(session.pids[1], signal.SIGKILL)
    attempt(dg.errors.WorkerLostError, x.sum().item)
with dg.init(sys.argv[1], num_workers=2, timeout=2) as session:
    x = dg.shard(np.arange(6.0))
    print("sum", x.sum().item())
    os.kill(session.pids[1], signal.SIGSTOP)
    attempt(dg.errors.CollectiveTimeout, x.sum().item)
"""


def test_a_client_of_a_cluster(client_address):
    """Over ray:// everything works as on the cluster, after a warning."""
    done = run_driver(CLIENT, client_address)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["sum 66.0", "same True"], done.stderr
    assert lines[2].startswith("RemoteOpError take_along failed on worker")
    assert lines[3].startswith("WorkerLostError worker 1 of 2 (process")
    assert lines[4] == "sum 15.0"
    assert lines[5].startswith("CollectiveTimeout worker 1 of 2 (process")
    assert len(lines) == 6
    assert "a ray:// connection moves data about 100 times slower" in done.stderr
    assert len(done.stderr.splitlines()) == 2, done.stderr


# What init started, shutdown ends

LOCAL = """
import os, sys
import numpy as np
import distgrad as dg

def loud(rows):
    print("rows", rows.shape[0])
    return rows * 2

how, address = sys.argv[1:]
session = dg.init(address)
print("pids", *session.pids, flush=True)
print("session", session)
print("nice", {os.getpriority(os.PRIO_PROCESS, pid) for pid in session.pids})
print(f"sum {dg.map_shards(loud, dg.shard(np.arange(6.0))).sum().item()}", flush=True)  # in one piece, see below
if how == "shutdown":
    import ray
    dg.shutdown()
    print("ray", ray.is_initialized())
elif how == "ray.shutdown":
    import ray
    ray.shutdown()
    try:
        dg.shard(np.arange(6.0)).sum().item()
    except dg.errors.ClusterError as error:
        print("error", error)
else:
    x = dg.gather(dg.shard(np.ones((6, 2))), 1, dg.shard(np.full((6, 1), 7)))
    dg.synchronize()
    sys.exit(3) if how == "exit" else 1 / 0
"""


def ended(how: str, address: str) -> tuple[list[str], str, list[int]]:
    """Runs that driver; gives its output and errors once its workers, and what else it started, have ended."""
    before = shared_files()
    with driver(LOCAL, how, address, RAY_DEDUP_LOGS="0") as process:
        pids = [int(pid) for pid in line_of(process, "pids").split()]
        started = [*descendants(process.pid), *map(psutil.Process, pids)]
        out, errors = rest(process)
        assert gone(started, 3) == []
    assert shared_files() <= before
    lines = out.splitlines()
    # Ray writes what workers print, and the end of that line, one after the other, beside what the driver itself prints:
    # another line, or a piece of one, may come between.
    assert "nice {0}" in out
    assert "sum 30.0" in out
    # What a user's function prints reaches the driver's terminal, with the worker's name before it.
    assert all("(distgrad worker" in line for line in lines if "rows" in line)
    if how != "ray.shutdown":  # what Ray's log monitor has not read when the driver ends is lost: the last line, at times
        assert len(pids) - 1 <= out.count("rows ") <= len(pids), out
    assert process.returncode == {"exception": 1, "exit": 3}.get(how, 0)
    return lines, errors, pids


def unread() -> str:
    line = next(i for i, text in enumerate(LOCAL.splitlines(), 1) if "dg.gather" in text)
    return f"results were never read, recorded at: <string>:{line}"


@pytest.mark.ray
def test_a_local_ray_ends_with_shutdown():
    cpus = os.cpu_count() or 1
    lines, errors, pids = ended("shutdown", "local")
    assert len(pids) == cpus
    workers = f"{cpus} worker{'s' * (cpus > 1)}"
    assert any(f"session <distgrad session: {workers} on 1 node, 1 thread each, shared memory>" in line for line in lines)
    assert any("ray False" in line for line in lines)
    assert errors == ""  # none of Ray's chatter


@pytest.mark.ray
def test_a_local_ray_ends_with_an_exception():
    _, errors, _ = ended("exception", "local")
    assert "ZeroDivisionError: division by zero" in errors
    assert unread() in errors


def test_workers_on_a_cluster_end_with_sys_exit(cluster):
    _, errors, pids = ended("exit", cluster.address)
    assert len(pids) == 4
    assert errors.splitlines() == [f"operations that failed and whose {unread()}"]


def test_a_user_who_shuts_ray_down_first(cluster):
    lines, errors, _ = ended("ray.shutdown", cluster.address)
    assert any("error Ray was shut down while a session was running" in line for line in lines)
    assert errors == ""


@pytest.mark.ray
def test_sigterm_ends_a_local_ray():
    with driver(LOCAL.replace('if how == "shutdown":', "import time; time.sleep(60)\nif 1:"), "", "local") as process:
        line_of(process, "sum")
        family = descendants(process.pid)
        process.terminate()
        rest(process)
        assert gone(family, 3) == []


# The parts


def test_the_guard_ends_what_it_was_told_of():
    told, other = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    try:
        watching = guard.Guard()
        watching.watch(guard.family([told.pid]))
        time.sleep(0.1)
        assert told.poll() is None
        watching.close()
        assert told.wait(5) == -9
        assert other.poll() is None
    finally:
        for process in (told, other):
            process.kill()
            process.wait()


def test_threads_are_what_the_library_says():
    before = threads.pin(1)
    assert before == 1
    libraries = threads._loaded()
    assert [int(get()) for _, get in libraries] == [1] * len(libraries)
    assert threads.pin(2) == 2
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert threads.pin(1) == 1


@pytest.mark.parametrize(("before", "during", "set_meanwhile"), [
    ((700, 10, 10), (20_000, 10, 10), None), ((0, 10, 10), (0, 10, 10), None), ((50_000, 5, 5), (50_000, 5, 5), None),
    ((700, 10, 10), (20_000, 10, 10), (900, 9, 9)),
])
def test_the_collector_starts_later_while_a_session_runs(before, during, set_meanwhile):
    usual = gc.get_threshold()
    try:
        gc.set_threshold(*before)
        with dg.init(local_mode=True):
            assert gc.get_threshold() == during
            if set_meanwhile is not None:
                gc.set_threshold(*set_meanwhile)
        assert gc.get_threshold() == (set_meanwhile or before)
    finally:
        gc.set_threshold(*usual)
