"""Local ops: small ones against HIPS autograd, large ones against plain numpy; ratios of one run, sorted.

    python benchmarks/bench_ops.py small          # about 10 elements: forward and backward, ours over HIPS's
    python benchmarks/bench_ops.py large          # 10^6 to 10^7 elements: forward (and a few gradients), ours over numpy's

Small: theirs is `autograd.grad` of the sum of the function, ours is the function, `sum`, `backward` and reading `.grad`
(`--leaf fresh` makes the leaf from its array each time, as their `grad` boxes it each time). Large: the same expression on
arrays. Sides alternate in rounds; the least CPU time of each counts, since only interruptions make a round longer.
Invariant: every case's results are compared before it is timed, so a wrong one cannot win.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import common

common.pin_threads()

import numpy as np  # noqa: E402  # threads are pinned before numpy loads


def alternate(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int, seconds: float) -> tuple[float, float]:
    """Gives the least times per call of both, in seconds, from rounds of `seconds` that alternate."""
    sides = (theirs, ours)
    counts = []
    for side in sides:
        side()
        start = time.thread_time()
        side()
        counts.append(max(1, int(seconds / max(time.thread_time() - start, 1e-6))))
    best = [math.inf, math.inf]
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            for which in ((0, 1) if turn % 2 == 0 else (1, 0)):
                side, count = sides[which], counts[which]
                start = time.thread_time()
                for _ in range(count):
                    side()
                best[which] = min(best[which], (time.thread_time() - start) / count)
            gc.collect()
    finally:
        gc.enable()
    return best[0], best[1]


def small(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures forward and backward of small operands."""
    import autograd
    import autograd.numpy as anp
    import op_cases_small

    import distgrad as dg

    rows = []
    for case in op_cases_small.cases():
        if not any(part in case.name for part in options.only.split("|")):
            continue
        wanted = case.wanted
        gradient = autograd.grad(lambda *a, f=case.theirs: anp.sum(f(*a)), wanted if len(wanted) > 1 else wanted[0])
        arrays = case.operands
        tensors = [dg.tensor(a, requires_grad=i in wanted) for i, a in enumerate(arrays)]
        leaves = [tensors[i] for i in wanted]

        def theirs(gradient: Any = gradient, arrays: Any = arrays) -> Any:
            found = gradient(*arrays)
            return found if isinstance(found, tuple) else (found,)

        def kept(f: Any = case.ours, tensors: Any = tensors, leaves: Any = leaves) -> Any:
            for leaf in leaves:
                leaf.grad = None
            f(*tensors).sum().backward()
            return [leaf.grad for leaf in leaves]

        def fresh(f: Any = case.ours, tensors: Any = tensors, arrays: Any = arrays, wanted: Any = wanted) -> Any:
            made = list(tensors)
            for i in wanted:
                made[i] = dg.tensor(arrays[i], requires_grad=True)
            f(*made).sum().backward()
            return [made[i].grad for i in wanted]

        ours = fresh if options.leaf == "fresh" else kept
        for expected, found in zip(theirs(), (t.numpy() for t in ours())):
            if case.name.startswith("eigh"):  # theirs keeps to the lower triangle, ours is symmetric as torch's is
                expected, found = expected + expected.T, found + found.T
            if not np.allclose(np.asarray(expected), found, rtol=1e-6, atol=1e-8):
                raise SystemExit(f"{case.name}: gradients differ: {expected} and {found}")
        rows.append(measured(case.name, theirs, ours, options))
    return rows


def large(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures large operands against plain numpy."""
    import op_cases_large

    rows = []
    for case in op_cases_large.cases(options.elements, options.kinds):
        if not any(part in case.name for part in options.only.split("|")):
            continue
        theirs, ours = case.make()
        expected, found = theirs(), ours()
        wrong = [
            difference(case, e, f.detach().numpy())
            for e, f in (zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)])
        ]
        del expected, found
        if any(wrong):
            options.failed.append(f"{case.name}: {next(filter(None, wrong))}")
            print(options.failed[-1], file=sys.stderr, flush=True)
            continue
        rows.append(measured(case.name, theirs, ours, options))
    return rows


def difference(case: Any, expected: Any, found: Any) -> str:
    """Says how results differ by more than rounding does; empty when they do not."""
    expected = np.asarray(expected)
    if expected.shape != found.shape:
        return f"shapes differ: {expected.shape} and {found.shape}"
    tolerance = case.tolerance or (2e-4 if found.dtype.itemsize <= 4 or found.dtype == np.complex64 else 1e-8)
    scale = np.max(np.abs(expected[np.isfinite(expected)]), initial=0.0) if expected.dtype.kind in "fc" else 1.0
    if not np.allclose(expected, found, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return f"values differ: {expected.ravel()[:5]} and {found.ravel()[:5]}"
    return ""


def measured(name: str, theirs: Callable[[], Any], ours: Callable[[], Any], options: argparse.Namespace) -> dict[str, Any]:
    """Times a case, once more where the ratio is near the limit, keeping the least of both sides."""
    a, b = alternate(theirs, ours, options.rounds, options.seconds)
    for _ in range(options.again):
        if b / a <= options.limit:
            break
        more = alternate(theirs, ours, options.rounds, options.seconds)
        a, b = min(a, more[0]), min(b, more[1])
    if b / a > options.limit:
        print(f"{name}: {b / a:.3f}", file=sys.stderr, flush=True)  # long runs show what is slow as they go
    return {"case": name, "theirs_us": a * 1e6, "ours_us": b * 1e6, "ratio": b / a}


def main() -> None:
    """Runs one part and prints the table, worst last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("small", "large"))
    parser.add_argument("--only", default="", help="cases whose names contain this, or one of these with | between")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.0, help="about how long a round of one side takes")
    parser.add_argument("--again", type=int, default=2, help="how often a case over the limit is measured again")
    parser.add_argument("--leaf", choices=("kept", "fresh"), default="kept")
    parser.add_argument("--above", type=float, help="ratio from which a case is measured again and named at once")
    parser.add_argument("--elements", type=int, default=4_000_000)
    parser.add_argument("--kinds", nargs="*", default=["float32", "float64"])
    parser.add_argument("--json")
    options = parser.parse_args()
    options.limit = options.above or (1.7 if options.part == "small" else 1.05)
    if not options.seconds:
        options.seconds = 0.003 if options.part == "small" else 0.01
    options.failed = []
    rows = sorted((small if options.part == "small" else large)(options), key=lambda row: row["ratio"])
    common.table(rows)
    if rows:
        mean = math.exp(sum(math.log(row["ratio"]) for row in rows) / len(rows))
        print(f"{len(rows)} cases, geometric mean {mean:.3f}, worst {rows[-1]['ratio']:.3f} ({rows[-1]['case']})")
        common.write(options.json, {"part": options.part, "leaf": options.leaf, "rows": rows, "geometric_mean": mean,
                                    "worst": rows[-1], "failed": options.failed})
    if options.failed:
        raise SystemExit(f"{len(options.failed)} cases with other values, not timed: {options.failed}")


if __name__ == "__main__":
    main()
