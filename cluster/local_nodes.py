"""Several Ray nodes on one machine, for tests and demos of what happens between nodes.

Invariant: when a `LocalNodes` is closed, by its block's end, an exception, Ctrl-C or SIGTERM, no process that it
started and no file that it wrote is left. (After `kill -9` of the process that opened it, its processes end with it on
Linux, and only its temporary directory stays.)

    python cluster/local_nodes.py --nodes 2 --cpus 1 -- python driver.py

or, in a test:

    with LocalNodes(nodes=2, cpus_per_node=1) as nodes:
        subprocess.run([sys.executable, "driver.py"], env=os.environ | nodes.environment, check=True)

What a driver needs to connect. Every Ray cluster runs whatever code a connected client sends, so these nodes use Ray's
token authentication, as `ray.init()` does for the clusters it starts since Ray 2.59. A driver needs three things:

- the address: `RAY_ADDRESS=host:port`, or `init(address=nodes.address)`;
- the mode: `RAY_AUTH_MODE=token` in its environment BEFORE `import ray`. With an explicit address (argument or
  `RAY_ADDRESS`) Ray never switches it on by itself, and connecting without it fails after about 20 s with a bare
  ConnectionError;
- the token: `RAY_AUTH_TOKEN`, else the file named by `RAY_AUTH_TOKEN_PATH`, else `~/.ray/auth_token`, which Ray writes
  when none exists. A driver of the same user on the same machine finds that file without further settings.

The command line sets the first two for the command it runs; `nodes.environment` holds them for a subprocess. The mode
stays set in the process that opened the nodes (`ray.init()` does the same), so a driver in that process needs only the
address. Whoever sets `RAY_AUTH_MODE=disabled` beforehand gets nodes without a token.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

SECONDS_TO_STOP = 5.0
"""How long a process may take to end after SIGTERM before it is killed."""

_TEMPORARY_DIRECTORY = "RAY_TMPDIR"
_TOKEN_SETTINGS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class LocalNodes:
    """Several Ray nodes on this machine, started by `start` or on entering the context and ended by `close`.

    The first node is the head. The nodes live in a temporary directory of their own, so a plain `ray.init()` elsewhere
    on the machine does not attach to them by accident. At most one is open per process. Needs Ray 2.59 or later.

    Open it in the main thread, or in one that outlives it: on Linux the nodes die with the thread that started them,
    which is what ends them when this process is killed outright.

    Raises ValueError for fewer than one node or CPU; on starting, RuntimeError when one is already open, and
    TimeoutError or another error of Ray's when a node does not join.
    """

    _open: LocalNodes | None = None

    def __init__(self, nodes: int = 2, cpus_per_node: int = 1, *, object_store_bytes: int = 150 * 2**20) -> None:
        if nodes < 1 or cpus_per_node < 1:
            raise ValueError(f"LocalNodes: {nodes} nodes with {cpus_per_node} CPUs given; give at least one of each")
        self._nodes = nodes
        self._settings: dict[str, Any] = {"num_cpus": cpus_per_node, "object_store_memory": object_store_bytes}
        self._address = ""
        self._directory = ""
        self._previous_directory: str | None = None
        self._cluster: Any = None

    @property
    def address(self) -> str:
        """The address `host:port` that a driver connects to; RuntimeError when the nodes are not running."""
        if not self._address:
            raise RuntimeError(
                "LocalNodes: the nodes are not running; use `with LocalNodes(...) as nodes:` or call start()"
            )
        return self._address

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that a driver in another process needs, besides those it inherits from this one."""
        settings = {name: os.environ[name] for name in _TOKEN_SETTINGS if name in os.environ}
        return {"RAY_ADDRESS": self.address, **settings}

    def start(self) -> LocalNodes:
        """Starts the nodes and returns when all have joined; ends those that run already when one of them fails."""
        if LocalNodes._open is not None:
            raise RuntimeError("LocalNodes: nodes are already open in this process; close them first")
        from ray._private.authentication.authentication_token_setup import (
            enable_token_auth_by_default,
            ensure_token_if_auth_enabled,
        )
        from ray.cluster_utils import Cluster

        LocalNodes._open = self
        try:
            enable_token_auth_by_default()
            ensure_token_if_auth_enabled(create_token_if_missing=True)
            self._directory = tempfile.mkdtemp(prefix="nodes-")
            self._previous_directory = os.environ.get(_TEMPORARY_DIRECTORY)
            os.environ[_TEMPORARY_DIRECTORY] = self._directory
            with _no_handler_of_rays():
                self._cluster = cluster = Cluster()
                # Ray runs its workers at nice 15: a busy neighbour would then double the time of every step measured.
                cluster.add_node(include_dashboard=False, _system_config={"worker_niceness": 0}, **self._settings)
                for _ in range(self._nodes - 1):
                    cluster.add_node(**self._settings)
                cluster.wait_for_nodes()
            self._address = cluster.address
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Ends the nodes and all their processes and deletes their files; does nothing when they are not running.

        A driver in this process that is still connected to them is disconnected first. Raises RuntimeError when a
        process cannot be ended.
        """
        if LocalNodes._open is not self:
            return
        import ray

        processes = self.processes()
        try:
            if ray.is_initialized() and self._address and ray.get_runtime_context().gcs_address == self._address:
                ray.shutdown()
            if self._cluster is not None:
                self._cluster.shutdown()
        finally:
            self._cluster, self._address = None, ""
            try:
                _end(processes)
            finally:
                self._restore()

    def processes(self) -> list[psutil.Process]:
        """The processes that belong to these nodes: Ray's servers and agents, and their workers."""
        import psutil

        found: dict[int, psutil.Process] = {}
        if self._directory:
            for child in psutil.Process().children():
                # Ray names its session directory, which lies in ours, on the command line of all it starts.
                with contextlib.suppress(psutil.NoSuchProcess):
                    if any(self._directory in argument for argument in child.cmdline()):
                        found[child.pid] = child
                        found.update((worker.pid, worker) for worker in child.children(recursive=True))
        return list(found.values())

    def _restore(self) -> None:
        LocalNodes._open = None
        if not self._directory:
            return
        if self._previous_directory is None:
            os.environ.pop(_TEMPORARY_DIRECTORY, None)
        else:
            os.environ[_TEMPORARY_DIRECTORY] = self._previous_directory
        directory, self._directory = self._directory, ""
        shutil.rmtree(directory)

    def __enter__(self) -> LocalNodes:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _no_handler_of_rays() -> Iterator[None]:
    """Keeps Ray from installing its SIGTERM handler while nodes start.

    It would replace this process's own, kill the node servers before `close` can see which processes they started, and
    exit with status 1.
    """
    import ray._private.utils as utils

    install = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = install


def _end(processes: list[psutil.Process]) -> None:
    """Ends these processes, by SIGKILL where SIGTERM does not do; raises RuntimeError when that fails too."""
    import psutil

    alive = processes
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in alive:
            # psutil compares the start time as well, so a process number in new hands is never hit.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(alive, timeout=SECONDS_TO_STOP)
    if alive:
        raise RuntimeError(
            f"LocalNodes: processes {[process.pid for process in alive]} are still there {SECONDS_TO_STOP:g} s after "
            "SIGKILL; look at their state with `ps` (D means they wait for the kernel)"
        )


class _Signalled(BaseException):
    """A signal asks the command line to stop. Not an Exception: Ray's start-up logs those of its parts and goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _raise_signalled(number: int, frame: FrameType | None) -> None:
    # Further signals would break into the clean-up, which is bounded by SECONDS_TO_STOP anyway.
    _handle_stop_signals(signal.SIG_IGN)
    raise _Signalled(number)


def _handle_stop_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in _STOP_SIGNALS:
        signal.signal(number, handler)


def _start_driver(command: list[str], environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Starts the driver; returns it and the signals that came meanwhile, which must not interrupt its creation."""
    received: list[int] = []
    _handle_stop_signals(lambda number, frame: received.append(number))
    try:
        return subprocess.Popen(command, env=environment), received
    finally:
        _handle_stop_signals(_raise_signalled)


def _stop_driver(driver: subprocess.Popen[bytes], number: int) -> None:
    """Ends the driver and what it started after the signal `number` reached this process."""
    import psutil

    try:
        started = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    # A terminal sends Ctrl-C to the driver as well; a second one would break into its own shutdown.
    if number != signal.SIGINT or not _ended(driver):
        driver.terminate()
        if not _ended(driver):
            driver.kill()
            driver.wait()
    _end(started)


def _ended(driver: subprocess.Popen[bytes]) -> bool:
    try:
        driver.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        return False
    return True


def _arguments(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description="Start several Ray nodes on this machine, run a command on them, end them.",
        usage="local_nodes.py [--nodes N] [--cpus N] [-- command ...]",
        epilog="Without a command the nodes stay until Ctrl-C, and the settings a driver needs are printed.",
    )
    parser.add_argument("--nodes", type=int, default=2, help="number of nodes (default 2)")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs that each node offers (default 1)")
    arguments = list(arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = parser.parse_args(arguments[:split]), arguments[split + 1 :]
    if options.nodes < 1 or options.cpus < 1:
        parser.error(f"--nodes {options.nodes} --cpus {options.cpus} given; give at least one of each")
    if split < len(arguments) and not command:
        parser.error("no command after --; give one, or leave -- out to keep the nodes until Ctrl-C")
    return options, command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command on freshly started nodes; returns its exit status, or 128 plus the signal that ended it or us."""
    options, command = _arguments(sys.argv[1:] if arguments is None else arguments)
    _handle_stop_signals(_raise_signalled)
    driver: subprocess.Popen[bytes] | None = None
    nodes = LocalNodes(options.nodes, options.cpus)
    try:
        nodes.start()
        if not command:
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in _settings_to_print(nodes).items()))
            print(f"# {options.nodes} nodes are running; Ctrl-C ends them", flush=True)
            signal.pause()
        try:
            driver, received = _start_driver(command, os.environ | nodes.environment)
        except OSError as error:
            print(f"local_nodes: cannot run {shlex.join(command)}: {error}", file=sys.stderr)
            return 127
        if received:
            _raise_signalled(received[0], None)
        status = driver.wait()
        return status if status >= 0 else 128 - status
    except _Signalled as signalled:
        if driver is not None:
            _stop_driver(driver, signalled.number)
        return 128 + signalled.number
    finally:
        _handle_stop_signals(signal.SIG_IGN)
        nodes.close()


def _settings_to_print(nodes: LocalNodes) -> dict[str, str]:
    """The settings of a driver in another terminal, without the token itself."""
    return {name: value for name, value in nodes.environment.items() if name != "RAY_AUTH_TOKEN"}


if __name__ == "__main__":
    sys.exit(main())
