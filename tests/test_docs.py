"""docs/names.md is what the records say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_table_of_names_is_up_to_date() -> None:
    pytest.importorskip("torch")  # what is not here is listed, too
    script = ROOT / "docs" / "make_names.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
