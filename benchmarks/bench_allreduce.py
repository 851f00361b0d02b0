"""All-reduce of W processes on one node: ours over shared memory and the network, against Gloo when torch is there.

`python benchmarks/bench_allreduce.py [--ranks 2] [--network] [--json FILE]`. Rounds of the two alternate in one run, one
thread per process; medians of the slowest rank.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import statistics
import time
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning

SIZES = (4_000, 100_000, 1_000_000, 16_000_000, 64_000_000)


def _rounds(nbytes: int) -> int:
    return 200 if nbytes <= 100_000 else 40 if nbytes <= 1_000_000 else 12


def _rank(rank: int, ranks: int, secret: bytes, network: bool, port: int, pipe: Any) -> None:
    pin_threads()
    from distgrad.runtime import collectives
    from distgrad.runtime.transport import Group

    group = Group(rank, ranks, session="bench", secret=secret, epoch=0, node_id="here", timeout=60.0, force_network=network)
    pipe.send(group.address())
    group.connect(pipe.recv())
    try:
        import torch
        import torch.distributed as gloo
    except ImportError:
        gloo = None
    else:
        torch.set_num_threads(1)
        gloo.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    times: dict[tuple[int, str], list[float]] = {}
    for nbytes in SIZES:
        array = np.full(nbytes // 4, rank + 1, np.float32)
        expected = ranks * (ranks + 1) / 2
        other = torch.from_numpy(array.copy()) if gloo is not None else None
        for turn in range(_rounds(nbytes)):
            group.run(collectives.barrier(rank, ranks))
            started = time.perf_counter()
            result = group.run(collectives.all_reduce(rank, ranks, [array]))
            times.setdefault((nbytes, "distgrad"), []).append(time.perf_counter() - started)
            if turn == 0 and not np.all(result[0] == expected):
                raise AssertionError("all-reduce gave a wrong sum")
            if gloo is not None:
                gloo.barrier()
                started = time.perf_counter()
                gloo.all_reduce(other)
                times.setdefault((nbytes, "gloo"), []).append(time.perf_counter() - started)
    group.run(collectives.barrier(rank, ranks))
    pipe.send({key: statistics.median(values[len(values) // 4 :]) for key, values in times.items()})
    pipe.recv()
    group.close()
    if gloo is not None:
        gloo.destroy_process_group()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(ranks: int, network: bool) -> list[dict[str, Any]]:
    """Gives one row per size."""
    context = multiprocessing.get_context("spawn")
    secret, port = secrets.token_bytes(32), _free_port()
    pipes, processes = [], []
    for rank in range(ranks):
        mine, theirs = context.Pipe()
        process = context.Process(target=_rank, args=(rank, ranks, secret, network, port, theirs), daemon=True)
        process.start()
        pipes.append(mine)
        processes.append(process)
    addresses = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send(addresses)
    medians = [pipe.recv() for pipe in pipes]
    for pipe in pipes:
        pipe.send(None)
    for process in processes:
        process.join(30)
    rows = []
    for nbytes in SIZES:
        ours = max(m[(nbytes, "distgrad")] for m in medians)
        row: dict[str, Any] = {"bytes": nbytes, "distgrad_ms": 1e3 * ours, "distgrad_GB/s": nbytes / ours / 1e9}
        if (nbytes, "gloo") in medians[0]:
            peer = max(m[(nbytes, "gloo")] for m in medians)
            row |= {"gloo_ms": 1e3 * peer, "gloo/distgrad": peer / ours}
        rows.append(row)
    return rows


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--network", action="store_true", help="force the network transport")
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = measure(given.ranks, given.network)
    table(rows)
    write(given.json, {"allreduce": rows, "ranks": given.ranks, "network": given.network})


if __name__ == "__main__":
    main()
