"""A training step of distgrad against PyTorch's DistributedDataParallel over Gloo: same model, batch, optimizer, processes.

`python benchmarks/bench_versus_ddp.py [--cases mlp gpt] [--rounds 7] [--json FILE]`. Four sides take turns in every round:
torch in one process, distgrad with one worker, DDP with N processes, distgrad with N workers; one thread each, Adam,
float32. A round is several steps and ends when the last has been carried out. Medians of the rounds; all sides start
from the same parameters and their losses are compared, so that a wrong step cannot win.

More models (`more_cases.py`) are measured when `--cases` names them. `--weak` adds steps of N times the batch: efficiency is
one worker's (torch's) time at the plain batch over that of N. What N torch processes reach that have nothing to do with each
other is the machine's own part in it. `--compile`: distgrad's steps are compiled.

`--gbit 1`: every worker on a node of its own (`cluster/local_nodes.py`) with links of so many Gbit/s: all exchanges use
sockets, and the kernel sends no faster on any of them (SO_MAX_PACING_RATE).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning
from cases import CASES, start_values  # noqa: E402
from more_cases import MORE_CASES  # noqa: E402

ALL_CASES = {**CASES, **MORE_CASES}
LIMIT = 600  # seconds that a side may take to answer
TOLERANCE = 2e-3  # of the losses, relative: float32, summed in another order, over the steps compared
COMPARED = 5  # steps


def pace(gbit: float) -> None:
    """Limits what each TCP socket of this process sends in a second."""
    import os
    import socket
    import struct

    pacing = 47  # SO_MAX_PACING_RATE, which Python's socket module does not name
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
                    found.setsockopt(socket.SOL_SOCKET, pacing, struct.pack("Q", int(gbit * 1e9 / 8)))
        except OSError:  # closed meanwhile
            continue


def _torch_side(case: str, rank: int, world_size: int, port: int, scale: int, gbit: float) -> Any:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    chosen = ALL_CASES[case]
    model = chosen.model(torch)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in start_values(model).items()})
    batch = chosen.batch(np.random.default_rng(1), scale)
    rows = len(batch[0]) // world_size
    x, y = (torch.from_numpy(np.ascontiguousarray(b[rank * rows : (rank + 1) * rows])) for b in batch)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=chosen.lr)

    def steps(count: int) -> tuple[float, list[float]]:
        if gbit and world_size > 1:
            pace(gbit)
        losses = []
        started = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            loss = chosen.loss(torch, model, x, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        if world_size > 1:
            dist.barrier()
        seconds = time.perf_counter() - started
        values = torch.stack(losses)
        if world_size > 1:
            dist.all_reduce(values)
        return seconds, (values / world_size).tolist()

    return steps


def _distgrad_side(case: str, workers: int, scale: int, compiled: bool, gbit: float, address: str) -> Any:
    import distgrad as dg

    dg.init(address, num_workers=workers)
    if gbit and workers > 1:
        def paced(rows: Any) -> Any:
            pace(gbit)
            return rows

        dg.map_shards(paced, dg.shard(dg.zeros(workers))).numpy()
    chosen = ALL_CASES[case]
    model = chosen.model(dg)
    model.load_state_dict({k: dg.from_numpy(v) for k, v in start_values(model).items()})
    x, y = (dg.shard(dg.from_numpy(b)) for b in chosen.batch(np.random.default_rng(1), scale))
    optimizer = dg.optim.Adam(model.parameters(), lr=chosen.lr)

    def step() -> Any:
        optimizer.zero_grad()
        loss = chosen.loss(dg, model, x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    chosen_step = dg.compile(step) if compiled else step

    def steps(count: int) -> tuple[float, list[float]]:
        started = time.perf_counter()
        losses = [chosen_step() for _ in range(count)]
        dg.synchronize()
        return time.perf_counter() - started, [loss.item() for loss in losses]

    return steps


def serve(
    side: str, case: str, rank: int, world_size: int, port: int, scale: int, gbit: float, address: tuple[str, int]
) -> None:
    """Answers "run so many steps" until told to stop; every process of a side runs this."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(Client(address, authkey=b"bench"))
        if side in ("torch", "apart"):
            steps = _torch_side(case, *((rank, world_size) if side == "torch" else (0, 1)), port, scale, gbit)
        else:
            ray_address = "local"
            if gbit and world_size > 1:
                sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "cluster"))
                from local_nodes import LocalNodes

                ray_address = stack.enter_context(LocalNodes(nodes=world_size, cpus_per_node=1)).address
            import distgrad as dg

            stack.callback(dg.shutdown)
            steps = _distgrad_side(case, world_size, scale, side == "compiled", gbit, ray_address)
        connection.send(rank)
        while (count := connection.recv()) is not None:
            connection.send(steps(count))


class Side:
    """The processes of one side, ready and waiting."""

    def __init__(self, side: str, case: str, world_size: int, scale: int, gbit: float, listener: Listener) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        count = world_size if side in ("torch", "apart") else 1
        self.processes = [
            subprocess.Popen([sys.executable, os.path.abspath(__file__), "--serve", side, case, str(rank),
                              str(world_size), str(port), str(scale), str(gbit), str(listener.address[1])])
            for rank in range(count)
        ]
        ready: dict[int, Connection] = {}
        for connection in [listener.accept() for _ in range(count)]:
            ready[connection.recv()] = connection
        self.connections = [ready[rank] for rank in range(count)]

    def run(self, count: int) -> tuple[float, list[float]]:
        """Runs that many steps; gives the seconds of the slowest process and the losses."""
        for connection in self.connections:
            connection.send(count)
        answers = []
        for connection in self.connections:
            if not connection.poll(LIMIT):
                raise TimeoutError(f"a side did not answer within {LIMIT} s")
            answers.append(connection.recv())
        return max(seconds for seconds, _ in answers), answers[0][1]

    def close(self) -> None:
        """Ends the processes."""
        for connection in self.connections:
            connection.send(None)
        for process in self.processes:
            process.wait(timeout=60)


def compare(
    case: str, workers: int, rounds: int, weak: bool, compiled: bool, gbit: float, listener: Listener
) -> dict[str, Any]:
    """Gives medians and ratios of one case."""
    ours = "compiled" if compiled else "distgrad"
    names = {
        "torch_1": ("torch", 1, 1), "distgrad_1": (ours, 1, 1),
        f"ddp_{workers}": ("torch", workers, 1), f"distgrad_{workers}": (ours, workers, 1),
    }
    if weak:
        names[f"distgrad_{workers}_weak"] = (ours, workers, workers)
        names[f"ddp_{workers}_weak"] = ("torch", workers, workers)
        names[f"apart_{workers}_weak"] = ("apart", workers, 1)
    sides = {}
    try:
        for name, (side, size, scale) in names.items():
            sides[name] = Side(side, case, size, scale, gbit, listener)
        losses = {name: side.run(COMPARED)[1] for name, side in sides.items()}
        reference = np.array(losses["torch_1"])
        for name, values in losses.items():
            if not name.endswith("_weak") and not np.allclose(values, reference, rtol=TOLERANCE, atol=0):
                raise AssertionError(f"{case}: the losses of {name}, {values}, are not torch's, {reference.tolist()}")
        seconds, _ = sides["torch_1"].run(COMPARED)
        count = max(3, min(300, int(0.5 * COMPARED / seconds)))  # about half a second for each turn
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                times[name].append(side.run(count)[0] / count)
    finally:
        for side in sides.values():
            side.close()
    median = {name: statistics.median(values) for name, values in times.items()}
    row: dict[str, Any] = {"case": case, **{f"{name}_ms": 1e3 * value for name, value in median.items()}}
    row["one_ratio"] = median["distgrad_1"] / median["torch_1"]
    row["ratio"] = statistics.median(a / b for a, b in zip(times[f"distgrad_{workers}"], times[f"ddp_{workers}"]))
    if weak:
        row["weak_efficiency"] = median["distgrad_1"] / median[f"distgrad_{workers}_weak"]
        row["ddp_weak_efficiency"] = median["torch_1"] / median[f"ddp_{workers}_weak"]
        row["apart_weak_efficiency"] = median["torch_1"] / median[f"apart_{workers}_weak"]
    return row


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(ALL_CASES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--weak", action="store_true", help="also the batch grown with the workers")
    parser.add_argument("--compile", action="store_true", help="distgrad's steps are compiled")
    parser.add_argument("--gbit", type=float, default=0.0, help="the speed of links between processes")
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = []
    with Listener(("127.0.0.1", 0), authkey=b"bench") as listener:
        for case in given.cases:
            rows.append(compare(case, given.workers, given.rounds, given.weak, given.compile, given.gbit, listener))
            table(rows[-1:])
    write(given.json, {"gbit": given.gbit, "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        side, case, rank, world_size, port, scale, gbit, parent = sys.argv[2:10]
        serve(side, case, int(rank), int(world_size), int(port), int(scale), float(gbit), ("127.0.0.1", int(parent)))
    else:
        main()
