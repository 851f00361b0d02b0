"""A training step for 1..W workers, strong and weak: what does not depend on cores, counted; and the time.

`python benchmarks/bench_scaling.py [--workers 1 2 4 8 16] [--small] [--json FILE] [--plot FILE]`. Strong: the batch is the
same for any number of workers; weak: it grows with them. An MLP 784-1024-1024-10 (or --small: 64-128-10) with Adam in
float32 on a local Ray, one thread per worker.

Counted per step: messages to each worker, bytes each sends to others and the least that needs, 2 (W-1)/W of the gradients;
CPU microseconds of the driver's thread, recorded and compiled (`driver_us`, `compiled_us`); CPU seconds of all workers per
sample; memory of the largest worker that it shares with no other process, after the steps. Only `ms` depends on cores: more
workers than cores take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning
import psutil  # noqa: E402

import distgrad as dg  # noqa: E402
from distgrad import nn  # noqa: E402
from distgrad.nn import functional as F  # noqa: E402

WARM = 4


def _cpu_seconds(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _driver(step: Callable[[], Any], steps: int) -> float:
    """Gives the microseconds of CPU that a step takes of this thread, the median over rounds of steps sent ahead."""
    for _ in range(WARM):
        step()
    dg.synchronize()
    found = []
    for _ in range(5):
        started = time.thread_time()
        for _ in range(steps):
            step()
        dg.synchronize()
        found.append((time.thread_time() - started) / steps)
    return 1e6 * statistics.median(found)


def step_costs(session: Any, batch: int, sizes: list[int], steps: int) -> dict[str, Any]:
    """Gives medians and counts per training step in that session."""
    workers = session.num_workers
    rng = np.random.default_rng(0)
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

    for _ in range(WARM):
        step().item()
    dg.synchronize()
    first = dg.stats()
    cpu = _cpu_seconds(session.pids)
    times = []
    for _ in range(steps):
        started = time.perf_counter()
        step()
        dg.synchronize()
        times.append(time.perf_counter() - started)
    last = dg.stats()
    cpu = (_cpu_seconds(session.pids) - cpu) / steps
    memory = max(psutil.Process(pid).memory_full_info().uss for pid in session.pids)
    driver = _driver(step, steps)
    compiled = _driver(dg.compile(step), steps)
    if not np.isfinite(step().item()):
        raise AssertionError("the loss is not finite")
    gradients = sum(parameter.numel() * 4 for parameter in model.parameters())
    return {
        "workers": workers, "batch": batch, "seconds": statistics.median(times), "driver_us": driver,
        "compiled_us": compiled, "cpu_us_per_sample": 1e6 * cpu / batch,
        "messages_per_worker": (last.control_messages - first.control_messages) / (steps * workers),
        "bytes_per_worker": (last.bytes_sent - first.bytes_sent) // (steps * workers),
        "least_bytes": 2 * (workers - 1) * gradients // workers,
        "collectives": (last.collectives - first.collectives) / steps, "memory_mb": memory / 1e6,
        "programs_built": last.programs_built - first.programs_built, "load": os.getloadavg()[0],
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--small", action="store_true", help="an MLP 64-128-10 instead of 784-1024-1024-10")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    given = parser.parse_args()
    sizes = [64, 128, 10] if given.small else [784, 1024, 1024, 10]
    results: dict[str, list[dict[str, Any]]] = {"strong": [], "weak": []}
    for workers in given.workers:
        for kind, batch in (("strong", given.batch), ("weak", given.batch * workers)):
            with dg.init("local", num_workers=workers) as session:
                results[kind].append(step_costs(session, batch, sizes, given.steps))
    first = given.workers[0]
    for kind, rows in results.items():
        for row in rows:
            ideal = rows[0]["seconds"] * (first / row["workers"] if kind == "strong" else 1)
            row["efficiency"] = ideal / row["seconds"]
        print(f"{kind} scaling")
        table([{"ms" if name == "seconds" else name: 1e3 * value if name == "seconds" else value
                for name, value in row.items()} for row in rows])
    write(given.json, {**results, "sizes": sizes})
    if given.plot:
        from plot import plot_scaling

        plot_scaling(results, given.plot)
        print(f"written: {given.plot}")


if __name__ == "__main__":
    main()
