"""Peak memory of a training step: a distgrad worker against a torch process with the same model and the same rows.

`python benchmarks/bench_memory.py [--cases gpt cnn] [--workers 1 2] [--scales 1 4] [--limits] [--json FILE]`. A side's peak is
the kernel's high-water mark of its resident memory (VmHWM, set back before the steps that are measured), above what it holds
after its imports and a step of a tiny model; shared-memory pages of the collectives count in every worker that has read them,
and are told apart in `shared`. Ratios are of these peaks; totals, with everything imported, stand beside them. With two
workers torch is a rank of DistributedDataParallel with half of the rows; the largest worker is compared with the largest rank.

`--limits`: the batch is ten times as large, and the session's `memory_per_worker` is 1.2 times the peak of a step at the plain
batch and the bytes by which the batch itself, which is held too, has grown. The step's peak must stay under the limit and the
losses must be those of a run without one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning
from cases import CASES, start_values  # noqa: E402

STEPS = 3  # before the mark is set back, and after
LIMIT = 900  # seconds that a side may take
TOLERANCE = 2e-3  # of the losses, relative
MB = 1e6


def status(pid: int | str, name: str) -> int:
    """Gives an entry of a process's status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"/proc/{pid}/status has no {name}")


def set_back(pid: int | str) -> None:
    """Sets a process's high-water mark back to what is resident now (proc(5): clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def settled(pid: int | str) -> int:
    """Gives a process's resident memory when it has stopped growing: workers load their kernels in the background."""
    before, now, limit = 0, status(pid, "VmRSS"), time.monotonic() + 120
    while abs(now - before) > 1 << 18 and time.monotonic() < limit:
        time.sleep(2)
        before, now = now, status(pid, "VmRSS")
    return now


def _step(T: Any, case: str, x: Any, y: Any, wrap: Any = None) -> Any:
    chosen = CASES[case]
    model = chosen.model(T)
    model.load_state_dict({k: T.from_numpy(v) for k, v in start_values(model).items()})
    model = model if wrap is None else wrap(model)
    optimizer = T.optim.Adam(model.parameters(), lr=chosen.lr)

    def step() -> Any:
        optimizer.zero_grad()
        loss = chosen.loss(T, model, x, y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_side(case: str, scale: int, rank: int, world_size: int, port: int) -> dict[str, Any]:
    """Runs steps in this process; gives its peaks and losses."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    wrap = None
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
        wrap = torch.nn.parallel.DistributedDataParallel
    x, y = (torch.from_numpy(b) for b in CASES["small"].batch(np.random.default_rng(0), 1))
    _step(torch, "small", x, y, wrap)()
    base = settled("self")
    batch = CASES[case].batch(np.random.default_rng(1), scale)
    rows = len(batch[0]) // world_size
    x, y = (torch.from_numpy(b[rank * rows : (rank + 1) * rows].copy()) for b in batch)
    del batch
    step = _step(torch, case, x, y, wrap)
    losses = [step() for _ in range(STEPS)]
    set_back("self")
    losses += [step() for _ in range(STEPS)]
    peak = status("self", "VmHWM")
    values = torch.stack(losses)
    if world_size > 1:
        dist.all_reduce(values)
        dist.barrier()
        dist.destroy_process_group()
    return {"base": [base], "peak": [peak], "losses": (values / world_size).tolist()}


def distgrad_side(case: str, scale: int, workers: int, limit: int | None) -> dict[str, Any]:
    """Runs steps on workers; gives their peaks and the losses."""
    import distgrad as dg

    with dg.init("local", num_workers=workers, memory_per_worker=limit) as session:
        x, y = (dg.shard(dg.from_numpy(b)) for b in CASES["small"].batch(np.random.default_rng(0), 1))
        _step(dg, "small", x, y)()
        dg.synchronize()
        del x, y
        base = [settled(pid) for pid in session.pids]
        for pid in session.pids:
            set_back(pid)
        batch = CASES[case].batch(np.random.default_rng(1), scale)
        data = sum(b.nbytes for b in batch) / workers
        x, y = (dg.shard(dg.from_numpy(b)) for b in batch)
        del batch
        step = _step(dg, case, x, y)
        losses = [step() for _ in range(STEPS)]
        dg.synchronize()
        life = [status(pid, "VmHWM") for pid in session.pids]
        for pid in session.pids:
            set_back(pid)
        held = [status(pid, "VmRSS") for pid in session.pids]
        losses += [step() for _ in range(STEPS)]
        dg.synchronize()
        peak = [status(pid, "VmHWM") for pid in session.pids]
        shared = [status(pid, "RssShmem") for pid in session.pids]
        return {"base": base, "peak": peak, "life": life, "held": held, "shared": shared, "data": data,
                "losses": [loss.item() for loss in losses]}


def run(side: str, case: str, scale: int, workers: int, limit: int | None = None) -> dict[str, Any]:
    """Runs a side in processes of its own; gives the answers of its ranks as one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ranks = workers if side == "torch" else 1
    processes = [
        subprocess.Popen([sys.executable, os.path.abspath(__file__), "--serve", side, case, str(scale), str(rank),
                          str(workers), str(port), str(limit or 0)], stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    answers = []
    for process in processes:
        out, _ = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise RuntimeError(f"{side} of {case} ended with code {process.returncode}")
        answers.append(json.loads(next(line for line in out.splitlines() if line.startswith("{"))))
    joined = dict(answers[0])
    for other in answers[1:]:
        joined["base"] += other["base"]
        joined["peak"] += other["peak"]
    return joined


def above(answer: dict[str, Any], name: str = "peak") -> int:
    """Gives the largest of the ranks' marks above what they hold when they have nothing to do."""
    return max(a - b for a, b in zip(answer[name], answer["base"]))


def same_losses(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    """Raises AssertionError when the losses of two sides differ by more than rounding."""
    if not np.allclose(found["losses"], expected["losses"], rtol=TOLERANCE, atol=0):
        raise AssertionError(f"{what}: losses {found['losses']}, expected {expected['losses']}")


def compare(case: str, scale: int, workers: int) -> dict[str, Any]:
    """Gives the peaks of both sides, in MB, and their ratio."""
    theirs, ours = run("torch", case, scale, workers), run("distgrad", case, scale, workers)
    same_losses(ours, theirs, f"{case} x{scale} on {workers}")
    return {
        "case": case, "batch": f"x{scale}", "workers": workers, "torch_MB": above(theirs) / MB,
        "distgrad_MB": above(ours) / MB, "ratio": above(ours) / above(theirs), "shared_MB": max(ours["shared"]) / MB,
        "held_MB": above(ours, "held") / MB, "first_MB": above(ours, "life") / MB, "torch_total_MB": max(theirs["peak"]) / MB,
        "distgrad_total_MB": max(ours["peak"]) / MB,
    }


def limited(case: str, workers: int, factor: int = 10) -> dict[str, Any]:
    """Gives the peak with a limit at a batch so many times as large, in MB."""
    plain = run("distgrad", case, 1, workers)
    free = run("distgrad", case, factor, workers)
    limit = int(1.2 * above(plain) + free["data"] - plain["data"])
    ours = run("distgrad", case, factor, workers, limit)
    same_losses(ours, free, f"{case} x{factor} on {workers} within {limit / MB:.0f} MB")
    return {
        "case": case, "workers": workers, "x1_MB": above(plain) / MB, "x10_MB": above(free) / MB, "data_MB": free["data"] / MB,
        "limit_MB": limit / MB, "limited_MB": above(ours) / MB, "of_limit": above(ours) / limit,
        "first_MB": above(ours, "life") / MB,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--scales", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--limits", action="store_true", help="ten times the batch within a limit, instead of against torch")
    parser.add_argument("--json")
    given = parser.parse_args()
    rows = []
    for case in given.cases:
        for workers in given.workers:
            for scale in [10] if given.limits else given.scales:
                rows.append(limited(case, workers, scale) if given.limits else compare(case, scale, workers))
                table(rows[-1:])
    print()
    table(rows)
    write(given.json, {"limits" if given.limits else "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        side, case, *numbers = sys.argv[2:]
        scale, rank, workers, port, limit = map(int, numbers)
        found = (torch_side(case, scale, rank, workers, port) if side == "torch"
                 else distgrad_side(case, scale, workers, limit or None))
        print(json.dumps(found))
    else:
        main()
