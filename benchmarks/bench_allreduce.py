"""All-reduce of W processes on one machine: ours over shared memory and the network, against Gloo when torch is there.

`python benchmarks/bench_allreduce.py [--ranks 2] [--network] [--nodes 1] [--sizes BYTES ...] [--json FILE]`. Rounds of the
sides alternate in one run, one thread per process; medians of the slowest rank. The CPU time of all ranks stands beside the
time, because on a machine that others use it says more. With `--nodes` the ranks act as if they were on so many nodes: the
network is between these only, `flat` is the same without regard to nodes, and `network_MB` is what the busiest node sends.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning

SIZES = (4_000, 100_000, 1_000_000, 16_000_000, 64_000_000)


def _rounds(nbytes: int) -> int:
    return 200 if nbytes <= 100_000 else 40 if nbytes <= 1_000_000 else 12


class _Flat:
    """A group that does not reduce in ways of its own: rounds of frames between all ranks."""

    def __init__(self, group: Any) -> None:
        self.exchange = group.exchange

    def reduce(self, request: Any) -> bool:
        """Declines."""
        return False


def _rank(
    rank: int, ranks: int, secret: bytes, network: bool, nodes: int, sizes: Sequence[int], port: int | None, pipe: Any
) -> None:
    pin_threads()
    from distgrad.runtime import collectives
    from distgrad.runtime.transport import Group

    group = Group(
        rank, ranks, session="bench", secret=secret, epoch=0, node_id=f"node {rank * nodes // ranks}", timeout=60.0,
        force_network=network,
    )
    pipe.send(group.address())
    group.connect(pipe.recv())
    try:
        if port is None:
            raise ImportError("no peer wanted")
        import torch
        import torch.distributed as gloo
    except ImportError:
        gloo = None
    else:
        torch.set_num_threads(1)
        gloo.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    times: dict[tuple[int, str], list[tuple[float, float, float]]] = {}

    def timed(key: tuple[int, str], work: Callable[[], Any]) -> Any:
        started, cpu, sent = time.perf_counter(), time.process_time(), group.network_bytes
        result = work()
        ended = time.perf_counter()
        times.setdefault(key, []).append((ended - started, time.process_time() - cpu, group.network_bytes - sent))
        return result

    for nbytes in sizes:
        array = np.full(nbytes // 4, rank + 1, np.float32)
        expected = ranks * (ranks + 1) / 2
        other = torch.from_numpy(array.copy()) if gloo is not None else None
        for turn in range(_rounds(nbytes)):
            group.run(collectives.barrier(rank, ranks))
            result = timed((nbytes, "distgrad"), lambda a=array: group.run(collectives.all_reduce(rank, ranks, [a])))
            if turn == 0 and not np.all(result[0] == expected):
                raise AssertionError("all-reduce gave a wrong sum")
            if nodes > 1:
                group.run(collectives.barrier(rank, ranks))
                flat = timed(
                    (nbytes, "flat"), lambda a=array: collectives.run(collectives.all_reduce(rank, ranks, [a]), _Flat(group))
                )
                if turn == 0 and not np.array_equal(flat[0], result[0]):
                    raise AssertionError("all-reduce by nodes gave another sum")
            if gloo is not None:
                gloo.barrier()
                timed((nbytes, "gloo"), lambda o=other: gloo.all_reduce(o))
    group.run(collectives.barrier(rank, ranks))
    pipe.send({
        key: [*(statistics.median(column) for column in zip(*values[len(values) // 4 :])), min(values)[0]]
        for key, values in times.items()
    })
    pipe.recv()
    group.close()
    if gloo is not None:
        gloo.destroy_process_group()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(
    ranks: int, network: bool, sizes: Sequence[int] = SIZES, *, nodes: int = 1, against_gloo: bool = True
) -> list[dict[str, Any]]:
    """Gives one row per size."""
    context = multiprocessing.get_context("spawn")
    secret, port = secrets.token_bytes(32), _free_port() if against_gloo else None
    pipes, processes = [], []
    for rank in range(ranks):
        mine, theirs = context.Pipe()
        process = context.Process(target=_rank, args=(rank, ranks, secret, network, nodes, sizes, port, theirs), daemon=True)
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
    for nbytes in sizes:
        ours = max(m[(nbytes, "distgrad")][0] for m in medians)
        row: dict[str, Any] = {
            "bytes": nbytes, "distgrad_ms": 1e3 * ours, "distgrad_GB/s": nbytes / ours / 1e9,
            "distgrad_best_ms": 1e3 * max(m[(nbytes, "distgrad")][3] for m in medians),
            "distgrad_cpu_ms": 1e3 * sum(m[(nbytes, "distgrad")][1] for m in medians),
        }
        if nodes > 1:
            sent = [[0.0, 0.0] for _ in range(nodes)]
            for rank, found in enumerate(medians):
                for side, name in enumerate(("distgrad", "flat")):
                    sent[rank * nodes // ranks][side] += found[(nbytes, name)][2] / 1e6
            flat = max(m[(nbytes, "flat")][0] for m in medians)
            row |= {
                "flat_ms": 1e3 * flat, "flat/distgrad": flat / ours,
                "network_MB": max(s[0] for s in sent), "flat_network_MB": max(s[1] for s in sent),
            }
        if (nbytes, "gloo") in medians[0]:
            peer = max(m[(nbytes, "gloo")][0] for m in medians)
            row |= {
                "gloo_ms": 1e3 * peer, "gloo_best_ms": 1e3 * max(m[(nbytes, "gloo")][3] for m in medians),
                "gloo_cpu_ms": 1e3 * sum(m[(nbytes, "gloo")][1] for m in medians), "gloo/distgrad": peer / ours,
            }
        rows.append(row)
    return rows


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--network", action="store_true", help="force the network transport")
    parser.add_argument("--nodes", type=int, default=1, help="as if the ranks were on so many nodes")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="bytes of the buckets")
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = measure(given.ranks, given.network, given.sizes, nodes=given.nodes)
    table(rows)
    write(given.json, {"allreduce": rows, "ranks": given.ranks, "network": given.network, "nodes": given.nodes})


if __name__ == "__main__":
    main()
