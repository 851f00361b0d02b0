"""A small process that ends what a session started when the driver cannot do it any more.

Ray's own servers end with the process that started them, but their agents, which learn of it later, stay for a minute,
and a stopped worker stays for good. Invariant: the guard only kills processes that it was told of, and only while their
start time says that they are still those. It ends with its driver, in whatever way that one ends.

This file is also the script that the guard runs; as such it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterable

_LOOK_SECONDS = 0.5


def start_time(pid: int) -> int | None:
    """Gives when a process started, in clock ticks since boot, or None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def family(pids: Iterable[int]) -> list[int]:
    """Gives these processes and all that they have started."""
    found = list(pids)
    for pid in found:  # grows while it is walked
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    found.extend(map(int, file.read().split()))
    return found


class Guard:
    """The driver's end: starts the guard and tells it of processes."""

    def __init__(self) -> None:
        # In a session of its own, where a signal to the driver's group or terminal does not reach it.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, pids: Iterable[int]) -> None:
        """Makes the guard end these processes with the driver."""
        assert self._process.stdin is not None
        lines = [f"{pid} {started}\n" for pid in pids if (started := start_time(pid)) is not None]
        with contextlib.suppress(BrokenPipeError):  # somebody has killed the guard: there is nobody to tell
            self._process.stdin.write("".join(lines).encode())
            self._process.stdin.flush()

    def close(self) -> None:
        """Ends what is left of the processes, and the guard."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=5)


def main(driver: int) -> None:
    """Reads lines "pid start" until the driver closes the pipe or ends; then kills those processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    text = b""
    while os.getppid() == driver:
        if select.select([0], [], [], _LOOK_SECONDS)[0]:
            part = os.read(0, 65536)
            if not part:
                break
            text += part
    for line in text.decode().splitlines():
        pid, started = map(int, line.split())
        if start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
