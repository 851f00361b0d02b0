"""The command line: `distgrad run` runs an unmodified PyTorch script, `distgrad check` lists what it would miss.

Invariant: the script sees what plain Python gives it (its own argv, sys.path[0], __main__, exit code, tracebacks that
begin in its file), with torch served by distgrad; nothing of it has run when a name it is sure to use is lacking.
"""

from __future__ import annotations

import argparse
import atexit
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType

from distgrad import serving
from distgrad.runtime.session import init
from distgrad.script_names import lacks_of

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments ask for and gives the exit code; what a script raises comes through."""
    given = _parser().parse_args(argv)
    if given.command == "check":
        return _check(given.script)
    return _run(given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="distgrad", description="PyTorch scripts, unchanged, on numpy and Ray.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="run an unmodified PyTorch script",
        usage="distgrad run [--workers N] [--address A] [options] script.py [arguments of the script]",
        description="Runs a PyTorch script with every `import torch` served by distgrad. Without --workers and "
        "--address it computes in this process. With them its data is sharded over Ray workers.",
    )  # fmt: skip
    run.add_argument("--workers", type=_positive, metavar="N", help="Ray workers; starts a local Ray without --address")
    run.add_argument("--address", metavar="A", help="a Ray cluster: auto, local, host:port or ray://host:port")
    run.add_argument(
        "--shard-threshold", type=_bytes, metavar="BYTES",
        help="data smaller than this is held whole by every worker (default: $DISTGRAD_SHARD_THRESHOLD, else 0: the "
        "rows of all data are spread)",
    )
    run.add_argument("--simulate", action="store_true", help="the workers are simulated in this process, without Ray")
    run.add_argument("--no-check", action="store_true", help="do not look for lacking names before running")
    run.add_argument("script", help="the script; what follows are its arguments")
    run.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    check = commands.add_parser(
        "check", help="list the torch names that a script uses and distgrad lacks",
        description="Reads a script, and the modules it imports from its own folder, without running them. The exit "
        "code is 1 when a name is lacking that is not behind try, hasattr or the like.",
    )  # fmt: skip
    check.add_argument("script")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _bytes(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {number}")
    return number


# check ------------------------------------------------------------------------------------------------------


def _check(script: str) -> int:
    try:
        lacks = lacks_of(script)
    except OSError as error:
        print(f"distgrad: can't open file {script!r}: {error}", file=sys.stderr)
        return 2
    for lack in lacks:
        print(lack)
    missing = [lack for lack in lacks if not lack.harmless]
    if not lacks:
        print(f"{script}: distgrad has every name of torch that it uses")
    return 1 if missing else 0


# run --------------------------------------------------------------------------------------------------------


def _run(given: argparse.Namespace) -> int:
    name = os.path.abspath(given.script)  # as Python calls a script in tracebacks and in __file__
    try:
        source = Path(name).read_bytes()
    except OSError as error:
        print(f"distgrad: can't open file {name!r}: {error}", file=sys.stderr)
        return 2
    if not given.no_check and _refused(given.script):
        return 1
    _look_like_python()
    code = compile(source, name, "exec", dont_inherit=True)
    serving.serve()  # to the end of the process: threads and exit handlers of the script may import too
    if given.workers is not None or given.address is not None or given.simulate:
        _start(given)
    module = ModuleType("__main__")
    vars(module).update(__file__=name, __builtins__=__builtins__, __cached__=None)
    sys.argv = [given.script, *given.arguments]
    sys.path[0] = os.path.dirname(name)
    sys.modules["__main__"] = module
    exec(code, vars(module))
    return 0


def _refused(script: str) -> bool:
    """Says what the script lacks, all at once; True when it is sure to fail."""
    lacks = lacks_of(script)
    sure = [lack for lack in lacks if not lack.unless]
    told = sure or [lack for lack in lacks if not lack.harmless]
    if told:
        names = len({lack.name for lack in told})
        how = "uses" if sure else "may use"
        print(f"distgrad: {script} {how} {names} name{'s' * (names > 1)} of torch that distgrad does not have:",
              *told, sep="\n  ", file=sys.stderr)  # fmt: skip
    if sure:
        print("Nothing of it was run; --no-check runs it up to the first of them.", file=sys.stderr)
    return bool(sure)


def _start(given: argparse.Namespace) -> None:
    """Starts the session; at interpreter exit it is shut down, after the script's own exit handlers."""
    threshold = given.shard_threshold
    if threshold is None and "DISTGRAD_SHARD_THRESHOLD" not in os.environ:
        threshold = 0
    address = given.address or (None if given.simulate else "local")
    init(address, num_workers=given.workers, local_mode=given.simulate, shard_threshold=threshold)


def _look_like_python() -> None:
    """Makes the traceback of an uncaught error begin in the script; it has none when the script did not start.

    An uncaught Ctrl-C ends the process by its signal also where Ray would give exit code 1.
    """
    previous = sys.excepthook
    interrupted = []

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            interrupted.append(True)
        last = trace
        while last is not None and last.tb_frame.f_code is not _run.__code__:
            last = last.tb_next
        if last is not None and (last.tb_next is not None or isinstance(error, SyntaxError)):
            trace = last.tb_next
        previous(kind, error.with_traceback(trace), trace)

    def end() -> None:
        if interrupted:
            sys.stdout.flush()
            sys.stderr.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)

    atexit.register(end)  # the first that is registered runs last: after the session and Ray have ended
    sys.excepthook = hook
