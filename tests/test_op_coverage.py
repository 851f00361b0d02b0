"""The survey of PyTorch's operator database runs, and what it is run on here passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("expecttest")

SURVEY = Path(__file__).parent.parent / "benchmarks" / "op_coverage.py"
SCOPE = """## scope: seven
[Tensor]
item add sort linalg.svd nn.functional.embedding_bag nn.functional.ctc_loss where
## int: one
bitwise_and
## random: one
nn.functional.dropout
"""


def test_every_named_operator_passes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(SCOPE)
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, str(SURVEY), str(tmp_path / "names.txt"), "--samples", "3", "--gradgrad", "--mode",
         "simulated", "--out", str(out)],
        capture_output=True, text=True, timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {name: outcome["errors"] for name, outcome in found["names"].items() if not outcome["pass"]} == {}
    assert found["counts"]["scope"]["names"] == 7
    assert found["counts"]["scope"]["samples"] >= 14
