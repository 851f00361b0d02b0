"""Predicts the time of a training step for 16 to 4,096 workers, from costs measured here and links that are given.

    python benchmarks/simulate.py [--json FILE] [--costs FILE] [--latency-us 25] [--gbit 25] [--workers-per-node 16]

Measured (or read from `--costs`, an earlier JSON of this script): seconds of a worker per step and per row (an MLP
784-1024-1024-10, Adam, one thread), the driver's CPU per step and per worker, and latency and time per byte of the shared
memory. Each is fitted to some points and then predicts others, which the fit has not seen; the errors are printed and
kept. With more workers than cores, workers take turns: their work is multiplied by W / cores. How many cores W processes
get on a machine that others use too is measured by W that spin, right before each point.

Communication follows the model of Hockney (Parallel Computing 20, 1994): a message of n bytes takes `alpha + n beta`. The
costs of the collectives are those of Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in
MPICH" (IJHPCA 19, 2005), without their term for the additions, which beta holds as measured:

    ring, or reduce-scatter and all-gather between owners:   2 (W-1) alpha + 2 (W-1)/W n beta
    recursive doubling (small n):                            ceil(log2 W) (alpha + n beta)
    hierarchical: reduce-scatter within each node, all-reduce between nodes (each worker its part, all parts share the
    node's link), all-gather within each node.

    chain: within each node as above; from node to node and back in blocks, `runtime/node_reduce.py`. A round carries a
    block both ways; there are as many as blocks, and two per node.

`chain` is what distgrad does where nodes have several workers, and `owners` where they have one; the others say what another
scheme would give. The driver runs ahead of
the workers, so a step takes the longer of the driver's time and the workers'; of a loop that reads the loss after each
step it takes the sum. One worker per node talks to the driver where a node has `relay.WORKERS` or more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning

SIZES = (784, 1024, 1024, 10)
GRADIENT_BYTES = 4 * sum((before + 1) * after for before, after in zip(SIZES, SIZES[1:]))


@dataclass(frozen=True)
class Link:
    """A link between two workers: seconds of a message and of a byte."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class Costs:
    """What a step costs, in seconds: a worker (its optimizer and all else that every step takes; each row), and the driver.

    The driver's are per step, per worker it talks to, and per worker.
    """

    worker_fixed: float
    worker_row: float
    driver_fixed: float
    driver_message: float
    driver_worker: float


def ring(workers: int, nbytes: float, link: Link) -> float:
    """Gives the seconds of an all-reduce by reduce-scatter and all-gather."""
    return 2 * (workers - 1) * link.alpha + 2 * (workers - 1) / workers * nbytes * link.beta


def recursive_doubling(workers: int, nbytes: float, link: Link) -> float:
    """Gives the seconds of an all-reduce in which each sends everything to a partner, log2 times."""
    return math.ceil(math.log2(workers)) * (link.alpha + nbytes * link.beta)


def hierarchical(nodes: int, per_node: int, nbytes: float, near: Link, far: Link) -> float:
    """Gives the seconds of an all-reduce within nodes, between them, and within them again.

    Each worker of a node reduces its part with those of other nodes; the parts share the node's link, so the bytes of all
    of them pass it, while their messages overlap.
    """
    within = ring(per_node, nbytes, near)  # its first half before, its second half after
    return within + (ring(nodes, nbytes, far) if nodes > 1 else 0.0)


def owners(nodes: int, per_node: int, nbytes: float, near: Link, far: Link) -> float:
    """Gives the seconds of the all-reduce between owners of parts that distgrad does over several nodes of one worker.

    Every worker sends to every other one: those of other nodes share the node's link.
    """
    workers = nodes * per_node
    if nodes == 1:
        return ring(per_node, nbytes, near)
    part = nbytes / workers
    inside = 2 * (per_node - 1) * (near.alpha + part * near.beta)
    outside = 2 * (workers - per_node) * (far.alpha + part * per_node * far.beta)
    return inside + outside


def chain(nodes: int, per_node: int, nbytes: float, near: Link, far: Link) -> float:
    """Gives the seconds of the all-reduce from node to node that distgrad does over nodes of several workers."""
    from distgrad.runtime import node_reduce

    if nodes == 1 or per_node == 1 or nbytes < node_reduce.LEAST_BYTES:
        return owners(nodes, per_node, nbytes, near, far)
    blocks = math.ceil(nbytes / node_reduce.block_bytes(int(nbytes), nodes))
    rounds = blocks + 2 * nodes - 1
    return ring(per_node, nbytes, near) + rounds * (far.alpha + nbytes / blocks * far.beta)


def messages(nodes: int, per_node: int, relay_from: int) -> int:
    """Gives how many workers the driver talks to."""
    return nodes if per_node >= relay_from else nodes * per_node


def worker_seconds(costs: Costs, workers: int, rows: float, cores: float) -> float:
    """Gives the seconds of computing `rows` rows by each of `workers` workers that share `cores` cores."""
    return (costs.worker_fixed + costs.worker_row * rows) * max(1.0, workers / cores)


def driver_seconds(costs: Costs, talks_to: int, workers: int) -> float:
    """Gives the driver's seconds per step."""
    return costs.driver_fixed + costs.driver_message * talks_to + costs.driver_worker * workers


def step_seconds(compute: float, exchange: float, driver: float, *, reads: bool = False) -> float:
    """Gives the seconds of a step: the driver runs ahead, unless each step's loss is read."""
    return compute + exchange + driver if reads else max(compute + exchange, driver)


def fit(columns: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Gives coefficients, none negative, with the least squared relative error of their sum over the columns."""
    from scipy.optimize import nnls

    target = np.asarray(seconds, float)
    matrix = np.asarray(columns, float).T / target[:, None]
    scale = matrix.max(axis=0)
    return [float(c) for c in nnls(matrix / scale, np.ones_like(target))[0] / scale]


# Measuring


_SPIN = """
import time
started, cpu = time.perf_counter(), time.process_time()
while time.perf_counter() < started + 0.5:
    pass
print((time.process_time() - cpu) / (time.perf_counter() - started))
"""


def cores_for(processes: int) -> float:
    """Gives how many cores so many busy processes get of this machine just now."""
    spinning = [
        subprocess.Popen([sys.executable, "-S", "-E", "-c", _SPIN], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate(timeout=60)[0]) for process in spinning)


def measure_steps(points: Sequence[tuple[int, int]], steps: int = 8, rounds: int = 5) -> list[dict[str, float]]:
    """Gives the seconds of a step and the driver's CPU seconds for each (workers, batch), and the cores they got."""
    import distgrad as dg
    from distgrad import nn
    from distgrad.nn import functional as F

    found = []
    for workers in sorted({workers for workers, _ in points}):
        with dg.init("local", num_workers=workers):
            for _, batch in [point for point in points if point[0] == workers]:
                rng = np.random.default_rng(0)
                x = dg.shard(dg.from_numpy(rng.standard_normal((batch, SIZES[0]), dtype=np.float32)))
                y = dg.shard(dg.from_numpy(rng.integers(0, SIZES[-1], batch)))
                model = nn.Sequential(
                    nn.Linear(*SIZES[:2]), nn.ReLU(), nn.Linear(*SIZES[1:3]), nn.ReLU(), nn.Linear(*SIZES[2:])
                )
                optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)

                def step(model: Any = model, optimizer: Any = optimizer, x: Any = x, y: Any = y) -> None:
                    loss = F.cross_entropy(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

                replayed = dg.compile(step)
                for _ in range(6):
                    replayed()
                dg.synchronize()
                times, driver, cores = [], [], cores_for(workers)
                for _ in range(rounds):
                    started, cpu = time.perf_counter(), time.thread_time()
                    for _ in range(steps):
                        replayed()
                    dg.synchronize()
                    times.append((time.perf_counter() - started) / steps)
                    driver.append((time.thread_time() - cpu) / steps)
                found.append({
                    "workers": workers, "batch": batch, "seconds": statistics.median(times), "driver": min(driver),
                    "cores": (cores + cores_for(workers)) / 2,
                })
    return found


def measure_link(ranks: Sequence[int], sizes: Sequence[int], network: bool) -> list[dict[str, float]]:
    """Gives the seconds of all-reduces on this machine."""
    from bench_allreduce import measure

    return [
        {"workers": count, "bytes": row["bytes"], "seconds": row["distgrad_best_ms"] / 1e3}
        for count in ranks
        for row in measure(count, network, sizes, against_gloo=False)
    ]


def held_out(
    what: str, points: Sequence[dict[str, float]], predict: Callable[[dict[str, float]], float]
) -> list[dict[str, Any]]:
    """Gives predicted and measured seconds of points that a fit has not seen."""
    return [
        {"what": what, **{k: int(p[k]) for k in ("workers", "batch", "bytes") if k in p}, "measured_ms": 1e3 * p["seconds"],
         "predicted_ms": 1e3 * predict(p), "error_%": 100 * (predict(p) / p["seconds"] - 1)}
        for p in points
    ]


def measured_costs(cores: int) -> dict[str, Any]:
    """Measures here, fits, and compares the fits with points they have not seen."""
    from distgrad.runtime import relay

    near_points = measure_link((2, 4, 8), (4_000, 100_000, 1_000_000, 7_459_880, 16_000_000, 64_000_000), network=False)

    def ring_columns(points: Sequence[dict[str, float]]) -> list[list[float]]:
        turns = [max(1.0, p["workers"] / cores) for p in points]
        return [
            [t * ring(int(p["workers"]), p["bytes"], Link(1, 0)) for t, p in zip(turns, points)],
            [t * ring(int(p["workers"]), p["bytes"], Link(0, 1)) for t, p in zip(turns, points)],
        ]

    seen = [p for p in near_points if (p["workers"], p["bytes"]) in ((2, 4_000), (4, 4_000), (4, 1_000_000), (4, 64_000_000))]
    near = Link(*fit(ring_columns(seen), [p["seconds"] for p in seen]))
    rest = [p for p in near_points if p not in seen]
    checks = held_out(
        "all-reduce", rest, lambda p: ring(int(p["workers"]), p["bytes"], near) * max(1.0, p["workers"] / cores)
    )

    def talks(p: dict[str, float]) -> int:
        return messages(1, int(p["workers"]), relay.WORKERS)

    steps = measure_steps([
        (1, 128), (1, 256), (1, 512), (1, 1024), (2, 256), (2, 512), (2, 1024), (4, 512), (4, 1024), (8, 512), (8, 1024),
    ])
    alone = [p for p in steps if p["workers"] == 1 and p["batch"] in (128, 1024)]
    fixed, row = fit([[1.0] * len(alone), [p["batch"] for p in alone]], [p["seconds"] * min(p["cores"], 1) for p in alone])
    ends = [p for p in steps if p["batch"] == 512 and p["workers"] in (1, 2, 8)]
    driver = fit(
        [[1.0] * len(ends), [talks(p) for p in ends], [p["workers"] for p in ends]], [p["driver"] for p in ends]
    )
    costs = Costs(fixed, row, *driver)

    def predict(p: dict[str, float]) -> float:
        workers = int(p["workers"])
        compute = worker_seconds(costs, workers, p["batch"] / workers, p["cores"])
        exchange = ring(workers, GRADIENT_BYTES, near) * max(1.0, workers / p["cores"])
        return step_seconds(compute, exchange, driver_seconds(costs, talks(p), workers))

    checks += held_out("step", [p for p in steps if p not in alone], predict)
    checks += held_out(
        "driver", [p | {"seconds": p["driver"]} for p in steps if p not in ends],
        lambda p: driver_seconds(costs, talks(p), int(p["workers"])),
    )
    return {"near": asdict(near), "costs": asdict(costs), "checks": checks, "steps": steps, "all_reduces": near_points}


def predictions(
    costs: Costs, near: Link, far: Link, per_node: int, batch: int, rows: int, relay_from: int
) -> list[dict[str, Any]]:
    """Gives a row per number of workers: step times, strong (the batch is `batch`) and weak (`rows` rows each)."""
    found = []
    for workers in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        nodes = -(-workers // per_node)
        on_node = min(per_node, workers)
        driver = driver_seconds(costs, messages(nodes, on_node, relay_from), workers)
        line: dict[str, Any] = {"workers": workers, "nodes": nodes, "driver_ms": 1e3 * driver}
        exchanges = {
            "chain": chain(nodes, on_node, GRADIENT_BYTES, near, far),
            "owners": owners(nodes, on_node, GRADIENT_BYTES, near, far),
            "ring": ring(workers, GRADIENT_BYTES, near if nodes == 1 else far),
            "doubling": recursive_doubling(workers, GRADIENT_BYTES, near if nodes == 1 else far),
            "hierarchical": hierarchical(nodes, on_node, GRADIENT_BYTES, near, far),
        }
        line |= {f"{name}_ms": 1e3 * value for name, value in exchanges.items()}
        alone = {kind: worker_seconds(costs, 1, count, 1) for kind, count in (("strong", batch), ("weak", rows))}
        for kind, count in (("strong", batch / workers), ("weak", rows)):
            compute = worker_seconds(costs, 1, count, 1)  # each has a core of its own
            for name in ("chain", "hierarchical"):
                seconds = step_seconds(compute, exchanges[name], driver)
                ideal = alone[kind] / (workers if kind == "strong" else 1)
                line |= {f"{kind}_{name}_ms": 1e3 * seconds, f"{kind}_{name}_eff": ideal / seconds}
        found.append(line)
    return found


def main() -> None:
    """Runs the simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--costs", help="JSON of an earlier run, instead of measuring")
    parser.add_argument("--latency-us", type=float, default=25.0, help="of a message between nodes")
    parser.add_argument("--gbit", type=float, default=25.0, help="of a node's link, each way")
    parser.add_argument("--workers-per-node", type=int, default=16)
    parser.add_argument("--batch", type=int, default=65_536, help="rows of a step, strong scaling")
    parser.add_argument("--rows", type=int, default=512, help="rows of each worker, weak scaling")
    parser.add_argument("--json")
    given = parser.parse_args()
    from distgrad.runtime import relay

    cores = len(os.sched_getaffinity(0))
    if given.costs:
        with open(given.costs, encoding="utf-8") as file:
            measured = json.load(file)["measured"]
    else:
        measured = measured_costs(cores)
    near, costs = Link(**measured["near"]), Costs(**measured["costs"])
    print(f"measured, {cores} cores, load {os.getloadavg()[0]:.1f}: {near}, {costs}")
    for what in ("all-reduce", "step", "driver"):
        rows = [check for check in measured["checks"] if check["what"] == what]
        print(f"\npoints that the fit has not seen: {what}")
        table(rows)
        print(f"median error {statistics.median(abs(r['error_%']) for r in rows):.0f} %")
    far = Link(given.latency_us / 1e6, 8 / (given.gbit * 1e9))
    predicted = predictions(costs, near, far, given.workers_per_node, given.batch, given.rows, relay.WORKERS)
    print(f"\npredicted: {given.workers_per_node} workers a node, {given.latency_us:g} us, {given.gbit:g} Gbit/s, "
          f"batch {given.batch} (strong), {given.rows} rows a worker (weak)")
    table(predicted)
    write(given.json, {"measured": measured, "predicted": predicted, "link": asdict(far), "cores": cores})


if __name__ == "__main__":
    main()
