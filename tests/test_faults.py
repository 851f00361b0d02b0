"""Workers that die or stop, drivers that are killed or interrupted: what the driver is told, and that nothing is left.

Invariant: every test ends with a session that computes, or with no process and no shared-memory file of ours.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import psutil
import pytest
from ray_session import alive, descendants, driver, gone, line_of, rest, run_driver, shared_files, stop, until

import distgrad as dg
from distgrad import graph
from distgrad.errors import CollectiveTimeout, SessionError, WorkerLostError

SECONDS_TO_TELL = 5.0
SECONDS_TO_END = 10.0


def slow(seconds: float) -> Any:
    """A user's function that takes its time where rows are large."""
    def wait(rows: Any) -> Any:
        import time

        time.sleep(seconds if rows.sum().item() > 5 else 0)
        return rows * 1

    return wait


def stalls(x: Any, rank: int = 1) -> Any:
    """Gives `x` by a call that takes 20 s on one of two workers, and that the driver does not wait for."""
    wait = slow(20)
    dg.map_shards(wait, x * 0)  # tells the results' shapes
    large = np.zeros(6)
    large[5 * rank] = 10
    return dg.map_shards(wait, x * 0 + dg.shard(large))


def kill(session: Any, rank: int) -> None:
    os.kill(session.pids[rank], signal.SIGKILL)


def soon(session: Any, rank: int, delay: float = 0.3) -> threading.Timer:
    """Kills a worker while the driver waits."""
    timer = threading.Timer(delay, kill, (session, rank))
    timer.start()
    return timer


class Waits:
    """What a driver waits in."""

    @staticmethod
    def map_shards(x: Any, session: Any) -> None:
        soon(session, 1)
        dg.map_shards(slow(20), x)

    @staticmethod
    def item(x: Any, session: Any) -> None:
        total = stalls(x).sum()
        soon(session, 1)
        total.item()

    @staticmethod
    def numpy(x: Any, session: Any) -> None:
        rows = stalls(x)
        soon(session, 1)
        rows.numpy()

    @staticmethod
    def flush(x: Any, session: Any) -> None:
        """The driver is many steps ahead."""
        soon(session, 1)
        y = stalls(x)
        for _ in range(40):
            y = y * 1
            graph.flush_hint()

    @staticmethod
    def synchronize(x: Any, session: Any) -> None:
        rows = stalls(x, rank=0)
        soon(session, 0)
        dg.synchronize()
        del rows

    @staticmethod
    def all_reduce(x: Any, session: Any) -> None:
        """Worker 1 dies while worker 0 waits for it in an exchange, over shared memory."""
        total = stalls(x).sum() + 1
        graph.flush_hint()
        soon(session, 1)
        total.item()

    @staticmethod
    def all_reduce_over_the_network(x: Any, session: Any) -> None:
        Waits.all_reduce(x, session)

    @staticmethod
    def idle(x: Any, session: Any) -> None:
        kill(session, 1)
        time.sleep(0.5)
        x.sum().item()

    @staticmethod
    def at_once(x: Any, session: Any) -> None:
        kill(session, 0)
        x.sum().item()


WAITS = [name for name in vars(Waits) if not name.startswith("_")]


def works() -> bool:
    """Whether a new session computes."""
    with dg.init(num_workers=2):
        return dg.shard(np.arange(6.0)).sum().item() == 15


@pytest.mark.parametrize("name", WAITS)
def test_a_killed_worker_is_told_of(connected, name):
    before = shared_files()
    session = dg.init(num_workers=2, force_network=name.endswith("network"))
    processes = [psutil.Process(pid) for pid in session.pids]
    x = dg.shard(np.arange(6.0))
    assert x.sum().item() == 15
    started = time.monotonic()
    with pytest.raises(WorkerLostError, match=r"worker [01] of 2 \(process \d+ on .*\) is lost") as caught:
        getattr(Waits, name)(x, session)
    assert time.monotonic() - started < SECONDS_TO_TELL + 1
    killed = 0 if name in ("synchronize", "at_once") else 1
    assert caught.value.missing == [killed]
    assert str(session.pids[killed]) in str(caught.value)
    with pytest.raises(SessionError, match=r"cannot go on: WorkerLostError.*shutdown\(\) and init\(\)"):
        (x * 2).sum().item()
    started = time.monotonic()
    dg.shutdown()
    assert time.monotonic() - started < SECONDS_TO_END
    assert gone(processes, 1) == []
    assert shared_files() <= before


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_end_of_a_worker_that_is_led_or_leads_is_told_of(connected, monkeypatch, rank, how):
    """Batches for worker 1 go by way of worker 0."""
    monkeypatch.setattr("distgrad.runtime.relay.WORKERS", 2)
    session = dg.init(num_workers=2, timeout=2)
    processes = [psutil.Process(pid) for pid in session.pids]
    x = dg.shard(np.arange(6.0))
    assert x.sum().item() == 15
    assert len(session._coordinator.backend._lines.awaited) == 1, "one team"
    total = x.sum() * 2
    kill(session, rank) if how == "kill" else stop(session.pids[rank])
    started = time.monotonic()
    with pytest.raises(WorkerLostError if how == "kill" else CollectiveTimeout, match=rf"worker {rank} of 2") as caught:
        total.item()
    assert time.monotonic() - started < 9
    assert caught.value.missing == [rank]
    dg.shutdown()
    assert gone(processes, SECONDS_TO_END) == []


def test_a_new_session_after_a_killed_worker(connected):
    session = dg.init(num_workers=2)
    x = dg.shard(np.arange(6.0))
    kill(session, 1)
    with pytest.raises(WorkerLostError):
        x.sum().item()
    dg.shutdown()
    assert works()
    with dg.init(num_workers=2), pytest.raises(SessionError, match="belongs to a session that has ended"):
        x.sum().item()


def test_a_worker_killed_while_starting(connected, monkeypatch):
    """One dies after it has said who it is, while the others connect to it."""
    from distgrad.runtime.ray_cluster import RayGroup

    original = RayGroup._all

    def kill_then_ask(self: Any, refs: Any, what: str, seconds: float) -> Any:
        if what.startswith("connect"):
            os.kill(self._identities[1].pid, signal.SIGKILL)
        return original(self, refs, what, seconds)

    monkeypatch.setattr(RayGroup, "_all", kill_then_ask)
    started = time.monotonic()
    with pytest.raises(WorkerLostError, match="worker 1 of 3"):
        dg.init(num_workers=3, force_network=True)
    assert time.monotonic() - started < SECONDS_TO_TELL + 5
    assert not dg.is_initialized()
    monkeypatch.undo()
    assert works()


@pytest.mark.parametrize("how", ["fetch", "collective", "network", "idle"])
def test_a_stopped_worker_is_named(connected, how):
    session = dg.init(num_workers=2, timeout=2, force_network=how == "network")
    processes = [psutil.Process(pid) for pid in session.pids]
    x = dg.shard(np.arange(6.0))
    assert x.sum().item() == 15
    value = x * 2
    if how != "idle":
        dg.synchronize()
    stop(session.pids[1])
    started = time.monotonic()
    with pytest.raises(CollectiveTimeout, match=rf"worker 1 of 2 \(process {session.pids[1]} on") as caught:
        if how == "fetch":
            value.numpy()
        elif how == "idle":
            dg.synchronize()
        else:
            value.sum().item()
    assert 1.5 < time.monotonic() - started < 9
    assert caught.value.missing == [1]
    assert "DISTGRAD_TIMEOUT" in str(caught.value)
    started = time.monotonic()
    dg.shutdown()
    assert time.monotonic() - started < SECONDS_TO_END
    assert gone(processes, 1) == []
    assert works()


KILLED_DRIVER = """
import numpy as np
import distgrad as dg

with dg.init(num_workers=2) as session:
    x = dg.shard(np.ones((64, 1 << 16)))
    print("pids", *session.pids, flush=True)
    step = x
    while True:
        step = step * 1.0
        step.sum().item()
"""


@pytest.mark.ray
def test_a_killed_driver_leaves_nothing():
    """`kill -9` of a driver that started its own Ray ends all of it."""
    before = shared_files()
    with driver(KILLED_DRIVER) as process:
        pids = [int(pid) for pid in line_of(process, "pids").split()]
        family = descendants(process.pid)
        assert {*pids} <= {member.pid for member in family}
        stop(pids[1])  # a stopped worker does not notice anything by itself
        process.kill()
        process.wait()
        assert gone(family, SECONDS_TO_END) == []
        assert until(lambda: shared_files() <= before, 2)


def test_a_killed_driver_leaves_the_cluster_it_attached_to(cluster):
    """Its workers end; the nodes stay and give their CPUs to the next one."""
    with driver(KILLED_DRIVER, **cluster.environment) as process:
        workers = [psutil.Process(int(pid)) for pid in line_of(process, "pids").split()]
        process.kill()
        process.wait()
        assert gone(workers, SECONDS_TO_END) == []
    after = run_driver(
        "import distgrad as dg\nwith dg.init(num_workers=4): print('sum', dg.shard(range(9)).sum().item())",
        **cluster.environment,
    )
    assert after.stdout.split() == ["sum", "36"], after.stderr


INTERRUPTED = """
import json, os, random, signal, sys, threading, time
import numpy as np
import distgrad as dg
from distgrad import graph

seed, rounds, group = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "group"
chance = random.Random(seed)
session = dg.init(num_workers=2, timeout=20)
data = np.random.default_rng(seed).standard_normal((40, 5)).astype(np.float32)
x = dg.shard(data)
w = dg.nn.Parameter(dg.tensor(data[:5]))
expected = float(np.tanh(data @ data[:5]).sum())
armed, felt = threading.Event(), threading.Event()

def interrupt():
    while True:
        armed.wait()
        armed.clear()
        time.sleep(chance.choice([0, 0.002, 0.01, 0.03]) * chance.random())
        while not felt.is_set():  # Python drops an interrupt that comes inside a finalizer: a user presses again
            os.killpg(0, signal.SIGINT) if group else os.kill(os.getpid(), signal.SIGINT)
            felt.wait(5)

def wait(rows):
    import time
    time.sleep(0.02)
    return rows * 1

def work(kind):
    while True:
        loss = (dg.tanh(x @ w) ** 2).mean()
        loss.backward()
        with dg.no_grad():
            w.sub_(w.grad * 1e-3)
        w.grad = None
        if kind == "fetch":
            x.numpy()
            loss.item()
        elif kind == "flush":
            graph.flush_hint()
        elif kind == "put":
            dg.shard(data).sum().item()
        else:
            dg.map_shards(wait, x).sum().item()

threading.Thread(target=interrupt, daemon=True).start()
caught, wrong, longest = 0, [], 0.0
for number in range(rounds):
    w.data.copy_(dg.tensor(data[:5]))
    try:
        felt.clear()
        armed.set()
        work(chance.choice(["fetch", "flush", "put", "long"]))
    except KeyboardInterrupt:
        felt.set()
        caught += 1
    started = time.monotonic()
    w.data.copy_(dg.tensor(data[:5]))
    value = dg.tanh(x @ w.detach()).sum().item()
    longest = max(longest, time.monotonic() - started)
    w.grad = None
    if abs(value - expected) > 1e-4 * abs(expected) or not np.array_equal(x.numpy(), data):
        wrong.append((number, value))
dg.synchronize()
held = len(session._coordinator.lost.runs), len(session._coordinator._fetched)
dg.shutdown()
print("result", json.dumps([caught, wrong, longest, held]), flush=True)
"""


@pytest.mark.parametrize(("seed", "to"), [(1, "driver"), (2, "driver"), (3, "group")])
def test_interrupts_at_any_moment_leave_a_usable_session(cluster, seed, to):
    """SIGINT at random moments of recording, sending, fetching and waiting; also to the workers, as a terminal does."""
    rounds = 60
    local = {} if to == "group" else cluster.environment
    with driver(INTERRUPTED, str(seed), str(rounds), to, **local) as process:
        caught, wrong, longest, held = json.loads(line_of(process, "result"))
        rest(process)
    assert caught == rounds
    assert wrong == []
    assert longest < 20  # the session's own timeout
    assert held == [0, 0]


def test_an_interrupt_of_a_wait_comes_at_once(cluster):
    script = """
    import os, signal, threading, time
    import numpy as np
    import distgrad as dg
    with dg.init(num_workers=2):
        x = dg.shard(np.arange(6.0))
        def wait(rows):
            import time
            time.sleep(2)
            return rows * 1
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.monotonic()
        try:
            dg.map_shards(wait, x).sum().item()
        except KeyboardInterrupt:
            print("after", time.monotonic() - started)
        print("then", x.sum().item(), flush=True)
    """
    done = run_driver(script, **cluster.environment)
    lines = dict(line.split() for line in done.stdout.splitlines())
    assert 0.4 < float(lines["after"]) < 1.5
    assert float(lines["then"]) == 15
    assert done.returncode == 0, done.stderr


def test_nothing_of_ours_is_left_running():
    """Runs last: this process has no workers."""
    dg.shutdown()
    mine = [p for p in alive(descendants(os.getpid())) if "distgrad" in " ".join(p.cmdline())]
    assert mine == []
