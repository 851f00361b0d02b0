"""Every Python block of the README runs and prints the text block that follows it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```\n\s*```text\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_python_block_has_its_output() -> None:
    assert len(BLOCKS) >= 2
    assert README.read_text().count("```python") == len(BLOCKS)


@pytest.mark.ray
@pytest.mark.parametrize(("code", "expected"), BLOCKS, ids=lambda v: None)
def test_block(code: str, expected: str, connected: object) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue().strip() == expected.strip()


def test_the_test_command_is_what_ci_runs() -> None:
    text = README.read_text()
    assert "<!-- test command -->" in text
    assert "README.md" in (README.parent / ".ci" / "run").read_text()
