"""Convolutions and their two gradients against torch, one thread: `python benchmarks/bench_convolution.py [--json FILE]`.

Sides alternate in rounds and the least CPU time of each counts, as in bench_ops. Sizes are images, channels in and out,
rows and columns, kernel, stride, groups; padding is half the kernel.
Invariant: results are compared before they are timed, so a wrong one cannot win.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import bench_ops  # pins the threads
import numpy as np
import torch
from common import table, write

import distgrad  # noqa: F401  # defines the ops
from distgrad.op import op_named

CASES = [
    (64, 1, 32, 28, 3, 1, 1), (64, 32, 64, 28, 3, 1, 1), (64, 3, 16, 32, 3, 1, 1), (64, 16, 16, 32, 3, 1, 1),
    (64, 16, 32, 32, 3, 2, 1), (64, 16, 32, 32, 1, 2, 1), (64, 32, 32, 16, 3, 1, 1), (64, 64, 64, 16, 3, 1, 1),
    (64, 64, 64, 8, 3, 1, 1), (64, 6, 16, 14, 5, 1, 1), (16, 64, 64, 56, 3, 1, 1), (16, 256, 256, 14, 3, 1, 1),
    (8, 3, 64, 112, 7, 2, 1), (64, 32, 32, 28, 3, 1, 4), (32, 64, 64, 16, 3, 1, 64), (32, 128, 128, 8, 3, 1, 128),
    (16, 32, 32, 56, 3, 1, 32), (16, 32, 32, 56, 3, 2, 32), (32, 64, 64, 28, 5, 1, 64),
]


def measure(case: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Gives milliseconds and ratios of one size."""
    images, channels, made, side, kernel, stride, groups = case
    padding = kernel // 2
    out = (side + 2 * padding - kernel) // stride + 1
    numbers = np.random.default_rng(0)
    x, w, g = (
        numbers.standard_normal(shape, np.float32)
        for shape in ((images, channels, side, side), (made, channels // groups, kernel, kernel), (images, made, out, out))
    )
    attrs = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1), "groups": groups}
    tx, tw, tg = (torch.from_numpy(v) for v in (x, w, g))
    rules = {"stride": stride, "padding": padding, "groups": groups}
    sides = {
        "forward": (lambda: torch.nn.functional.conv2d(tx, tw, **rules),
                    lambda: op_named("conv").kernel(x, w, size=(out, out), **attrs)),
        "by_input": (lambda: torch.nn.grad.conv2d_input(tx.shape, tw, tg, **rules),
                     lambda: op_named("conv_input").kernel(g, w, size=(side, side), **attrs)),
        "by_weight": (lambda: torch.nn.grad.conv2d_weight(tx, tw.shape, tg, **rules),
                      lambda: op_named("conv_weight").kernel(x, g, size=(kernel, kernel), **attrs)),
    }
    row: dict[str, Any] = {"case": " ".join(map(str, case))}
    sums = [0.0, 0.0]
    for name, (theirs, ours) in sides.items():
        expected = theirs().numpy()
        np.testing.assert_allclose(ours(), expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))
        seconds = bench_ops.alternate(theirs, ours, rounds, 0.05)
        row[f"{name}_ms"], row[f"{name}_ratio"] = 1e3 * seconds[1], seconds[1] / seconds[0]
        sums = [a + b for a, b in zip(sums, seconds)]
    row["all_ratio"] = sums[1] / sums[0]
    return row


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case, given.rounds) for case in CASES]
    table(rows)
    ratios = [row["all_ratio"] for row in rows]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"ours over torch's, geometric mean of all three together: {mean:.2f}, worst {max(ratios):.2f}")
    write(given.json, {"rows": rows, "geometric_mean": mean})


if __name__ == "__main__":
    main()
