"""A training step for 1..W workers, strong and weak: time, CPU seconds, bytes and messages per step.

`python benchmarks/bench_scaling.py [--workers 1 2 4] [--json FILE] [--plot FILE]`. Strong: the batch is the same for any
number of workers; weak: it grows with them. An MLP 784-1024-1024-10 (or --small: 64-128-10) with Adam in float32 on a
local Ray, one thread per worker. Counts do not depend on the machine; times do: more workers than cores share cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning
import psutil  # noqa: E402

import distgrad as dg  # noqa: E402
from distgrad import nn  # noqa: E402
from distgrad.nn import functional as F  # noqa: E402

STEPS = 12


def _cpu_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


def step_costs(workers: int, batch: int, sizes: list[int]) -> dict[str, Any]:
    """Gives medians and counts per training step on that many workers."""
    rng = np.random.default_rng(0)
    with dg.init("local", num_workers=workers) as session:
        dg.manual_seed(0)
        x = dg.shard(dg.from_numpy(rng.standard_normal((batch, sizes[0]), dtype=np.float32)))
        y = dg.shard(dg.from_numpy(rng.integers(0, sizes[-1], batch)))
        layers: list[Any] = []
        for before, after in zip(sizes, sizes[1:]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)

        def step() -> Any:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(3):
            last = step().item()
        dg.synchronize()
        before = dg.stats()
        cpu = _cpu_seconds(session.pids)
        times, driver = [], []
        for _ in range(STEPS):
            started = time.perf_counter()
            step()
            driver.append(time.perf_counter() - started)
            dg.synchronize()
            times.append(time.perf_counter() - started)
        after = dg.stats()
        cpu = (_cpu_seconds(session.pids) - cpu) / STEPS
        last = step().item()
    if not np.isfinite(last):
        raise AssertionError("the loss is not finite")
    return {
        "workers": workers, "batch": batch, "seconds": statistics.median(times),
        "driver_ms": 1e3 * statistics.median(driver), "cpu_s": cpu,
        "bytes_per_worker": (after.bytes_sent - before.bytes_sent) // (STEPS * workers),
        "messages_per_worker": (after.control_messages - before.control_messages) / (STEPS * workers),
        "collectives": (after.collectives - before.collectives) / STEPS,
        "programs_built": after.programs_built - before.programs_built,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--small", action="store_true", help="an MLP 64-128-10 instead of 784-1024-1024-10")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    given = parser.parse_args()
    sizes = [64, 128, 10] if given.small else [784, 1024, 1024, 10]
    results: dict[str, list[dict[str, Any]]] = {"strong": [], "weak": []}
    for workers in given.workers:
        results["strong"].append(step_costs(workers, given.batch, sizes))
        results["weak"].append(step_costs(workers, given.batch * workers, sizes))
    first = given.workers[0]
    for kind, rows in results.items():
        for row in rows:
            ideal = rows[0]["seconds"] * (first / row["workers"] if kind == "strong" else 1)
            row["efficiency"] = ideal / row["seconds"]
        print(f"{kind} scaling")
        table(rows)
    write(given.json, results)
    if given.plot:
        from plot import plot_scaling

        plot_scaling(results, given.plot)
        print(f"written: {given.plot}")


if __name__ == "__main__":
    main()
