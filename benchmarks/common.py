"""What every benchmark records: machine, versions, threads; and how it writes results."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pin_threads(count: int = 1) -> None:
    """Pins BLAS threads; must run before numpy is imported."""
    for name in THREADS:
        os.environ[name] = str(count)


def conditions() -> dict[str, Any]:
    """Gives machine, versions and thread settings of this run."""
    versions = {}
    for name in ("distgrad", "numpy", "ray", "pyarrow", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "versions": versions, "threads": {name: os.environ.get(name) for name in THREADS},
        "load_average": os.getloadavg()[0],
    }


def write(path: str | None, results: dict[str, Any]) -> None:
    """Writes results with their conditions as JSON, when a path is given."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"conditions": conditions(), **results}, indent=2) + "\n")
        print(f"written: {path}")


def table(rows: list[dict[str, Any]]) -> None:
    """Prints rows as an aligned table."""
    if not rows:
        return
    names = list(rows[0])
    cells = [[f"{r[n]:.4g}" if isinstance(r[n], float) else str(r[n]) for n in names] for r in rows]
    widths = [max(len(n), *(len(c[i]) for c in cells)) for i, n in enumerate(names)]
    print("  ".join(n.rjust(w) for n, w in zip(names, widths)))
    for line in cells:
        print("  ".join(c.rjust(w) for c, w in zip(line, widths)))
