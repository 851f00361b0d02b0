"""What recording costs the driver per op: `python benchmarks/bench_record.py [--json FILE]`.

Records an MLP's forward and backward on a local group (no Ray, so nothing else runs in between), drops the pending
calls, and gives the median of the microseconds per recorded op. The peer of the same run is a plain numpy call of the
same ops on 8 x 4 arrays: what the op costs anyhow.
"""

from __future__ import annotations

import argparse
import statistics
import time

from common import pin_threads, table, write

pin_threads()

import numpy as np  # noqa: E402  # after pinning

import distgrad as dg  # noqa: E402


def record(rounds: int) -> dict[str, float]:
    """Gives microseconds per op: forward ops one by one (median), whole forward and backward per node."""
    from distgrad import graph

    session = graph.session()
    assert session is not None
    x = dg.shard(dg.from_numpy(np.random.default_rng(0).standard_normal((8, 4))))
    w = dg.tensor(np.random.default_rng(1).standard_normal((4, 4)), requires_grad=True)
    single: list[float] = []
    forward: list[float] = []
    backward: list[float] = []
    for _ in range(rounds):
        y = x
        begin = time.perf_counter()
        for _ in range(50):
            for op in (lambda t: t @ w, lambda t: t * 0.5, lambda t: t + x, lambda t: t.relu()):
                started = time.perf_counter()
                y = op(y)
                single.append(time.perf_counter() - started)
        middle = time.perf_counter()
        nodes = len(session.pending)
        loss = y.sum()
        loss.backward()
        end = time.perf_counter()
        forward.append((middle - begin) / 200)
        backward.append((end - middle) / (len(session.pending) - nodes))
        w.grad = None
        del y, loss
        session.flush()
    half = len(single) // 2  # the first half warms caches up
    return {
        "op_us": 1e6 * statistics.median(single[half:]),
        "op_p95_us": 1e6 * statistics.quantiles(single[half:], n=20)[-1],
        "forward_us": 1e6 * statistics.median(forward),
        "backward_us": 1e6 * statistics.median(backward),
    }


def numpy_ops(rounds: int) -> float:
    """Gives microseconds per op of the same forward in plain numpy."""
    x, w = np.random.default_rng(0).standard_normal((8, 4)), np.random.default_rng(1).standard_normal((4, 4))
    times = []
    for _ in range(rounds):
        y = x
        started = time.perf_counter()
        with np.errstate(all="ignore"):
            for _ in range(50):
                y = np.maximum((y @ w) * 0.5 + x, 0)
        times.append((time.perf_counter() - started) / 200)
    return 1e6 * statistics.median(times)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json")
    given = parser.parse_args()
    with dg.init(local_mode=True, num_workers=2):
        found = record(given.rounds)
    found["numpy_us"] = numpy_ops(given.rounds)
    table([found])
    write(given.json, {"record": found})


if __name__ == "__main__":
    main()
