"""Ordinary PyTorch scripts, unmodified: torch's loss curve without a cluster and with every tensor sharded.

The scripts seed their random numbers, which are torch's, so the initial parameters are equal. What is compared is the
loss at each backward() and all that the script prints.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import distgrad as dg
from distgrad import serving
from distgrad.script_names import lacks_of

torch = pytest.importorskip("torch")
SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.py"))
_NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]\d+)?")
_expected: dict[str, tuple[list[float], str]] = {}


def _run(script: Path, tensor: type, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], str]:
    """Runs a script as __main__; gives the losses it went backward from and what it printed."""
    losses: list[float] = []
    backward: Callable[..., Any] = tensor.backward  # type: ignore[attr-defined]

    def recording(self: Any, *args: Any, **kwargs: Any) -> Any:
        losses.append(float(self.detach()))
        return backward(self, *args, **kwargs)

    printed = io.StringIO()
    code = compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    with monkeypatch.context() as patch, contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(tensor, "backward", recording)
        patch.setattr(sys, "argv", [str(script)])
        module = type(sys)("__main__")
        patch.setitem(sys.modules, "__main__", module)
        exec(code, vars(module))
    return losses, printed.getvalue()


def _agree(ours: tuple[list[float], str], theirs: tuple[list[float], str]) -> None:
    assert len(ours[0]) == len(theirs[0]) >= 4
    assert ours[0] == pytest.approx(theirs[0], rel=1e-3, abs=1e-7)
    assert _NUMBER.sub("#", ours[1]) == _NUMBER.sub("#", theirs[1])
    for own, their in zip(_NUMBER.findall(ours[1]), _NUMBER.findall(theirs[1]), strict=True):
        assert float(own) == pytest.approx(float(their), rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_losses_are_torchs(script: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if script.stem not in _expected:
        _expected[script.stem] = _run(script, torch.Tensor, monkeypatch)
    try:
        with serving.served():
            if workers:
                dg.init(local_mode=True, num_workers=workers, shard_threshold=0)
            found = _run(script, dg.Tensor, monkeypatch)
    finally:
        dg.shutdown()
        dg.set_default_dtype(dg.float32)
    _agree(found, _expected[script.stem])


def test_no_script_uses_a_name_that_is_lacking() -> None:
    assert len(SCRIPTS) >= 12
    assert [lack for script in SCRIPTS for lack in lacks_of(script)] == []
