"""What the tests of sessions on Ray share: drivers in processes of their own, and what is left after them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def driver_environment(**more: str) -> dict[str, str]:
    """The environment of a driver on its own: ours without what tells of a cluster."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "DISTGRAD_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return plain | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | more


@contextmanager
def driver(script: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a script as a driver in a process group of its own; whatever is left of it at the end is killed."""
    # A shell starts background jobs with SIGINT ignored, and their children inherit that: Ctrl-C must work in the driver.
    interruptible = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", interruptible + textwrap.dedent(script), *arguments],
        env=driver_environment(**environment),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT,
    )
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        if process.poll() is None:
            family = [psutil.Process(process.pid), *descendants(process.pid)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(timeout=10)


def run_driver(
    script: str, *arguments: str, seconds: float = 90, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a driver to its end."""
    with driver(script, *arguments, **environment) as process:
        out, errors = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess([], process.returncode, out, errors)


def line_of(process: subprocess.Popen[str], start: str, seconds: float = 150) -> str:
    """Reads a driver's output up to the line that begins so, and gives the rest of that line.

    A driver that has not written it after `seconds` is killed.
    """
    assert process.stdout is not None
    limit = threading.Timer(seconds, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            if line.startswith(start):
                return line.removeprefix(start).strip()
    finally:
        limit.cancel()
    errors = process.stderr.read() if process.stderr else ""
    raise AssertionError(f"the driver ended without a line {start!r}: {errors}")


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Reads what a driver still writes to its output and its errors, and waits for its end.

    After `line_of` only this may read: `communicate` would miss what Python has read ahead.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    out, errors = process.stdout.read(), process.stderr.read()
    process.wait(timeout=60)
    return out, errors


def descendants(pid: int) -> list[psutil.Process]:
    """The processes a process has started, and theirs."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; psutil tells a process from a later one of the same number by its start time."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def gone(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits for processes to end; gives those that have not."""
    until(lambda: not alive(processes), seconds)
    return alive(processes)


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; says whether it came."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def shared_files() -> set[str]:
    """The files in shared memory."""
    return set(os.listdir("/dev/shm"))


def stop(pid: int) -> None:
    """Stops a process as Ctrl-Z does, and waits until it is."""
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5)
