"""How much of PyTorch's operator database is right here: `python benchmarks/op_coverage.py SCOPE [--mode simulated]`.

SCOPE is a file of names as the database spells them (`name.variant`), in sections `## scope`, `## int`, `## random`,
`## uninit`, `## complex`. Every sample of every named OpInfo is computed by torch and by distgrad; a name passes when
all its samples do. Needs torch and expecttest, which nothing else here does.

Modes: `local` (no session), `simulated` (3 workers in this process) and `ray` (2 workers), the last two with every
tensor of one dim or more sharded along dim 0. `--gradgrad` compares second derivatives too; `--errors` runs the error
inputs instead: torch's class of error, raised at the call, with no message sent.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import pin_threads, write

pin_threads()

import torch  # noqa: E402  # after pinning
from op_compare import NO_SECOND, calls, full_name, run_error, run_sample, sharded  # noqa: E402
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import distgrad as dg  # noqa: E402

SECTIONS = ("scope", "int", "random", "uninit", "complex")
KINDS = {"int": (torch.int64, torch.bool), "complex": (torch.float64, torch.complex128)}


def read_scope(path: str) -> dict[str, list[str]]:
    """Gives the names of each section of a scope file."""
    names: dict[str, list[str]] = {section: [] for section in SECTIONS}
    section = ""
    for line in Path(path).read_text().splitlines():
        if line.startswith("## "):
            section = line[3:].split(":")[0]
        elif section and line.strip() and not line.startswith(("#", "[")):
            names[section] += line.split()
    return names


# The survey -------------------------------------------------------------------------------------------------


class TimeLimit(Exception):
    """One operator took longer than its limit."""


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raises TimeLimit inside the block after some seconds."""

    def ring(number: int, frame: Any) -> None:
        raise TimeLimit(f"took longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def spread(items: list[Any], count: int) -> list[Any]:
    """Gives `count` of the items, evenly spread (all of them for 0)."""
    if not count or len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)] if count > 1 else items[:1]


def samples_of(info: Any, section: str, count: int, dtype: str | None) -> Iterator[Any]:
    """Gives the samples of an OpInfo in one dtype, if it has it, or in the dtypes of its section."""
    supported = info.supported_dtypes("cpu")
    if dtype is not None:
        supported &= {getattr(torch, dtype)}
        if not supported:
            return
    kinds = [k for k in KINDS.get(section, (torch.float64,)) if k in supported]
    if section != "complex":
        kinds = kinds[:1]
    for kind in kinds or [sorted(supported, key=str)[0] if supported else torch.float32]:
        smooth = info.supports_autograd and (kind.is_floating_point or kind.is_complex)
        yield from spread(list(info.sample_inputs("cpu", kind, requires_grad=smooth)), count)


def describe(sample: Any) -> str:
    """Gives a sample's arguments in short."""

    def short(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype)[6:]}{list(value.shape)}"
        if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
            return f"({', '.join(short(v) for v in value)})"
        return re.sub(r"\s+", " ", repr(value))[:60]

    parts = [short(v) for v in (sample.input, *sample.args)] + [f"{k}={short(v)}" for k, v in sample.kwargs.items()]
    return ", ".join(parts)[:300]


def survey(info: Any, section: str, options: argparse.Namespace) -> dict[str, Any]:
    """Gives the outcome of one OpInfo: samples run, samples right, the first error."""
    place = (lambda t: t) if options.mode == "local" else sharded
    outcome: dict[str, Any] = {"section": section, "samples": 0, "right": 0, "errors": []}
    began = time.perf_counter()
    sample: Any = None
    try:
        with limit(options.limit):
            found = calls(info, options.call)
            if found is None:
                return {**outcome, "pass": True, "seconds": 0.0}
            reference, function = found
            if options.errors:
                cases = list(info.error_inputs("cpu")) if info.error_inputs_func is not None else []
            else:
                cases = list(samples_of(info, section, options.samples, options.dtype))
            twice = options.gradgrad and info.supports_gradgrad and full_name(info) not in NO_SECOND
            orders = 0 if options.call == "out" else int(info.supports_autograd) * (2 if twice else 1)
            for case in cases:
                sample = case.sample_input if options.errors else case
                outcome["samples"] += 1
                try:
                    if options.errors:
                        counted = run_error(function, info, case, place)
                    else:
                        counted = run_sample(info, reference, function, sample, section, orders, place)
                    outcome["samples"] += counted - 1
                    outcome["right"] += counted
                except TimeLimit:
                    raise
                except Exception as error:
                    text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
                    outcome["errors"].append(f"{text} | {describe(sample)}")
                    if options.traceback:
                        import traceback

                        traceback.print_exc()
    except TimeLimit as error:
        outcome["errors"].append(f"TimeLimit: {error} | {describe(sample) if sample is not None else 'making samples'}")
    outcome["pass"] = not outcome["errors"]
    outcome["seconds"] = round(time.perf_counter() - began, 3)
    return outcome


def session(mode: str) -> Any:
    """Gives the session of a mode as a context manager."""
    if mode == "simulated":
        return dg.init(local_mode=True, num_workers=3, shard_threshold=0)
    if mode == "ray":
        return dg.init(address="local", num_workers=2, shard_threshold=0)
    return contextlib.nullcontext()


def report(outcomes: dict[str, dict[str, Any]], verbose: int) -> dict[str, Any]:
    """Prints failing names with their first errors, then the pass counts per section; gives the counts."""
    counts: dict[str, Any] = {}
    totals = collections.Counter(o["section"] for o in outcomes.values())
    for name, outcome in outcomes.items():
        if not outcome["pass"]:
            print(f"{name}: {outcome['right']}/{outcome['samples']}")
            for error in outcome["errors"][:verbose]:
                print(f"    {error}")
    for section in totals:
        names = [o for o in outcomes.values() if o["section"] == section]
        names = [o for o in names if o["samples"]] or names  # what was called this way, and had an input for it
        passed, right = sum(o["pass"] for o in names), sum(o["right"] for o in names)
        samples = sum(o["samples"] for o in names)
        counts[section] = {"names": len(names), "pass": passed, "samples": samples, "right": right}
        print(f"{section}: {passed} of {len(names)} names ({passed / len(names):.1%}), {right} of {samples} samples")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scope", help="file of names, in sections")
    parser.add_argument("--mode", choices=("local", "simulated", "ray"), default="local")
    parser.add_argument("--gradgrad", action="store_true", help="compare second derivatives too")
    parser.add_argument("--errors", action="store_true", help="run the error inputs instead of the samples")
    parser.add_argument("--call", choices=("function", "method", "inplace", "out"), default="function",
                        help="how the operator is called, where torch has it so")
    parser.add_argument("--dtype", help="this dtype, where the operator has it, instead of the section's")
    parser.add_argument("--only", nargs="+", help="these names (a trailing * matches a prefix)")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--samples", type=int, default=40, help="samples per dtype, evenly spread; 0: all")
    parser.add_argument("--limit", type=int, default=60, help="seconds per name")
    parser.add_argument("--out", help="JSON file of outcomes, written as the survey goes")
    parser.add_argument("--resume", action="store_true", help="skip the names that --out has")
    parser.add_argument("--failed", action="store_true", help="run again the names that failed in --out")
    parser.add_argument("--verbose", type=int, default=1, help="errors to print per failing name")
    parser.add_argument("--traceback", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    outcomes: dict[str, dict[str, Any]] = {}
    if options.out and (options.resume or options.failed) and Path(options.out).exists():
        outcomes = json.loads(Path(options.out).read_text())["names"]
    scope = {n: s for s, names in read_scope(options.scope).items() if s in options.section for n in names}
    infos = {full_name(i): i for i in op_db}
    unknown = sorted(set(scope) - set(infos))
    if unknown:
        sys.exit(f"not in this torch's operator database: {', '.join(unknown)}")
    chosen = [n for n in scope if not options.only or any(
        n == o or (o.endswith("*") and n.startswith(o[:-1])) for o in options.only)]
    if options.failed:
        chosen = [n for n in chosen if not outcomes.get(n, {"pass": False})["pass"]]
    elif options.resume:
        chosen = [n for n in chosen if n not in outcomes]
    running = session(options.mode)
    with contextlib.ExitStack() as stack:
        stack.callback(dg.shutdown)
        for number, name in enumerate(chosen):
            outcome = outcomes[name] = survey(infos[name], scope[name], options)
            if outcome["errors"] and outcome["errors"][-1].startswith("TimeLimit") and running is not None:
                dg.shutdown()  # interrupted in the middle of something
                running = session(options.mode)
            if options.out and number % 20 == 19:
                Path(options.out).write_text(json.dumps({"names": outcomes}))
    outcomes = {n: outcomes[n] for n in scope if n in outcomes}
    counts = report(outcomes if not options.only else {n: outcomes[n] for n in chosen}, options.verbose)
    write(options.out, {"mode": options.mode, "counts": counts, "names": outcomes})


if __name__ == "__main__":
    main()
