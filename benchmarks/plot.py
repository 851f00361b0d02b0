"""Pictures of benchmark results: scaling over worker counts, and learning curves.

Invariant: the numbers drawn are the ones given, or follow from them by `efficiency`; nothing is smoothed or left out.

    python benchmarks/plot.py results.json scaling.png

where the JSON file holds `{"strong": [{"workers": 1, "seconds": 0.8}, ...], "weak": [...]}`; other keys are ignored.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

KINDS = ("strong", "weak")


def efficiency(kind: str, workers: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Returns the parallel efficiency of each measurement, relative to the one with the fewest workers `W0`, time `T0`.

    Strong scaling (the whole problem stays the same): `W0 T0 / (W T)`. Weak scaling (the problem per worker stays the
    same): `T0 / T`. 1.0 is ideal in both. Raises ValueError for an unknown kind, no measurement, or a number that is
    not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"efficiency: kind {kind!r} given; allowed are {KINDS}")
    if not workers or len(workers) != len(seconds):
        raise ValueError(
            f"efficiency: {len(workers)} worker counts and {len(seconds)} times given; give one time for each"
        )
    if min(workers) < 1 or min(seconds) <= 0:
        raise ValueError(f"efficiency: worker counts {list(workers)} and times {list(seconds)} must be positive")
    base_workers, base_seconds = min(zip(workers, seconds, strict=True))
    if kind == "weak":
        return [base_seconds / time for time in seconds]
    return [base_workers * base_seconds / (count * time) for count, time in zip(workers, seconds, strict=True)]


def plot_scaling(results: Mapping[str, Sequence[Mapping[str, Any]]], path: str | os.PathLike[str]) -> None:
    """Draws the time per step and the efficiency over the number of workers, for strong and weak scaling, into a file.

    `results` maps `"strong"` and/or `"weak"` to measurements with `workers` and `seconds` (per step); the file's ending
    chooses the format. Raises ValueError when neither kind is there, ModuleNotFoundError without matplotlib.
    """
    kinds = [kind for kind in KINDS if results.get(kind)]
    if not kinds:
        raise ValueError(
            f"plot_scaling: results with the keys {sorted(results)} given; one of {KINDS} must have measurements"
        )
    figure, (times, efficiencies) = _figure(columns=2)
    counts: set[int] = set()
    for kind in kinds:
        points = sorted(results[kind], key=lambda point: point["workers"])
        workers = [int(point["workers"]) for point in points]
        seconds = [float(point["seconds"]) for point in points]
        counts.update(workers)
        (line,) = times.plot(workers, [1e3 * time for time in seconds], marker="o", label=f"{kind} scaling")
        ideal = [1e3 * seconds[0] * (workers[0] / count if kind == "strong" else 1.0) for count in workers]
        times.plot(workers, ideal, linestyle=":", color=line.get_color(), label=f"{kind}, ideal")
        efficiencies.plot(workers, efficiency(kind, workers, seconds), marker="o", label=f"{kind} scaling")
    times.set_ylabel("time per step (ms)")
    times.set_ylim(bottom=0)
    efficiencies.axhline(1.0, linestyle=":", color="grey")
    efficiencies.set_ylabel("parallel efficiency")
    efficiencies.set_ylim(bottom=0)
    for axes in (times, efficiencies):
        axes.set_xlabel("workers")
        axes.set_xticks(sorted(counts))
        axes.legend()
    figure.savefig(path)


def plot_learning_curve(
    losses: Sequence[float], accuracies: Sequence[float], path: str | os.PathLike[str], *, title: str = ""
) -> None:
    """Draws the loss and the held-out accuracy (0 to 1) of each epoch, counted from 1, into a file.

    Raises ValueError when there is no epoch or the two have different lengths, ModuleNotFoundError without matplotlib.
    """
    if not losses or len(losses) != len(accuracies):
        raise ValueError(
            f"plot_learning_curve: {len(losses)} losses and {len(accuracies)} accuracies given; give one each an epoch"
        )
    figure, (left, right) = _figure(columns=2)
    epochs = range(1, len(losses) + 1)
    left.plot(epochs, losses, marker=".")
    left.set_ylabel("training loss")
    # A loss spans decades, but a logarithm needs it positive.
    left.set_yscale("log" if min(losses) > 0 else "linear")
    right.plot(epochs, [100.0 * accuracy for accuracy in accuracies], marker=".", color="tab:green")
    right.set_ylabel("held-out accuracy (%)")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title)
    figure.savefig(path)


def _figure(columns: int) -> tuple[Any, Any]:
    """Returns a figure, which belongs to no window and so needs no display, and its axes side by side."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "plot: matplotlib is not installed, so no picture can be drawn; install it with `pip install matplotlib`",
            name="matplotlib",
        ) from error
    figure = Figure(figsize=(5 * columns, 4), dpi=120, layout="constrained")
    return figure, figure.subplots(1, columns)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the scaling picture of a JSON file of results; returns 1 with a message when matplotlib is missing."""
    parser = argparse.ArgumentParser(description="draw time per step and efficiency over the number of workers")
    parser.add_argument("results", help="JSON file with the keys 'strong' and/or 'weak'")
    parser.add_argument("picture", help="file to write; its ending chooses the format")
    options = parser.parse_args(arguments)
    with open(options.results, encoding="utf-8") as file:
        results = json.load(file)
    try:
        plot_scaling(results, options.picture)
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
