"""The command line: scripts run as plain Python runs them, with torch served; lacking names are said beforehand."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from ray_session import ROOT, driver_environment

from distgrad import serving
from distgrad.script_names import lacks_of

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"


def _script(folder: Path, text: str, name: str = "script.py") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return str(path)


def _distgrad(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "distgrad", *arguments], capture_output=True, text=True, timeout=120,
        env=driver_environment(**environment), cwd=ROOT.parent,
    )


def _lacks(folder: Path, text: str) -> list[tuple[int, str, str]]:
    return [(lack.line, lack.name, lack.unless) for lack in lacks_of(_script(folder, text))]


# Serving torch ----------------------------------------------------------------------------------------------


def test_torch_is_served_and_put_back() -> None:
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torch"}
    with serving.served():
        import torch
        import torch.nn.functional as F
        from torch import nn, optim
        from torch.nn.modules.conv import _ConvNd
        from torch.optim.lr_scheduler import _LRScheduler
        from torch.utils.data import DataLoader

        import distgrad as dg

        assert torch.nn is nn and nn.functional is F and torch.__version__ == serving.API_VERSION
        assert torch.Tensor is dg.Tensor and issubclass(nn.Conv2d, _ConvNd)
        assert issubclass(optim.lr_scheduler.StepLR, _LRScheduler) and DataLoader is dg.utils.data.DataLoader
        assert isinstance(torch.ones(1), torch.FloatTensor) and not isinstance(torch.ones(1), torch.LongTensor)
        assert torch.ones(2).type(torch.LongTensor).dtype is dg.int64
        torch.backends.cudnn.benchmark = True
        assert dg.backends.cudnn.benchmark is True
        assert "relu" in dir(torch) and "runtime" not in dir(torch)
    dg.backends.cudnn.benchmark = False
    assert {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "torch"} == before


@pytest.mark.parametrize("code", [
    "import torch.lacking", "from torch.nn import Lacking", "from torch.lacking import x", "torch.lacking",
    "torch.nn.Lacking()", "from torch import runtime", "torch.Tensor.lacking",
])  # fmt: skip
def test_a_lacking_name_raises_with_the_name_and_the_line(code: str, tmp_path: Path) -> None:
    compiled = compile(f"import torch\n\n{code}\n", "train.py", "exec")
    with serving.served(), pytest.raises((AttributeError, ImportError)) as caught:
        exec(compiled, {})
    assert "acking" in str(caught.value) or "runtime" in str(caught.value)
    if "Tensor" not in code:
        assert "(train.py:3)" in str(caught.value)


def test_packages_built_on_torch_are_not_served() -> None:
    with serving.served():
        with pytest.raises(ModuleNotFoundError, match="torchvision is built on torch's internals"):
            import torchvision  # noqa: F401
        import torch

        assert not hasattr(torch, "lacking")


# Names that a script uses -----------------------------------------------------------------------------------


def test_names_are_found_through_aliases_and_scopes(tmp_path: Path) -> None:
    found = _lacks(tmp_path, HEAD + """\
from torch.nn import Lacking1
from torch import optim as o
from torch.lacking2 import something
class Net(nn.Lacking3):
    def forward(self, x):
        return F.lacking4(x) + o.Lacking5() + torch.Tensor.lacking6(x)
getattr(torch, "lacking7")
print([nn.Linear(1, 1) for torch in (1,)], lambda nn: nn.Lacking)
""")
    assert [(line, name) for line, name, _ in found] == [
        (4, "torch.nn.Lacking1"), (6, "torch.lacking2"), (7, "torch.nn.Lacking3"), (9, "torch.Tensor.lacking6"),
        (9, "torch.nn.functional.lacking4"), (9, "torch.optim.Lacking5"), (10, "torch.lacking7"),
    ]  # fmt: skip
    assert {unless for _, _, unless in found} == {""}


def test_names_that_may_never_be_asked_for_are_said_to_be_so(tmp_path: Path) -> None:
    found = _lacks(tmp_path, HEAD + """\
try:
    import torchvision
    torch.lacking1
except ImportError:
    torchvision = None
if hasattr(torch, "lacking2"):
    torch.lacking2()
if torch.cuda.is_available():
    torch.cuda.lacking3()
def unused():
    torch.lacking4()
if len("ab") > 1:
    torch.lacking5()
x = hasattr(nn, "Lacking6") and nn.Lacking6()
def shadowed(torch):
    return torch.anything
torch.backends.cudnn.something_set = 3
shadowed(x)
""")
    assert [(name, unless) for _, name, unless in found] == [
        ("torchvision", "inside try"), ("torch.lacking1", "inside try"), ("torch.lacking2", "behind hasattr"),
        ("torch.cuda.lacking3", "behind is_available"), ("torch.lacking4", "in a function nobody calls"),
        ("torch.lacking5", "under a condition"), ("torch.nn.Lacking6", "behind hasattr"),
    ]  # fmt: skip


def test_modules_of_the_scripts_folder_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    _script(tmp_path / "models", "from .net import Net\n", "__init__.py")
    _script(tmp_path / "models", "import torch\nNet = torch.nn.Lacking\n", "net.py")
    found = lacks_of(_script(tmp_path, "import models\nfrom json import dumps\n"))
    assert [(Path(lack.path).name, lack.line, lack.name) for lack in found] == [("net.py", 2, "torch.nn.Lacking")]


# Running ----------------------------------------------------------------------------------------------------


def test_a_script_runs_as_main_with_its_own_arguments(tmp_path: Path) -> None:
    _script(tmp_path, "import torch\nVALUE = torch.ones(2).sum().item()\n", "helper.py")
    path = _script(tmp_path, """
        import atexit, pickle, sys
        import torch
        from helper import VALUE
        try:
            import torchvision
        except ImportError as error:
            print(error)

        class Net(torch.nn.Linear):
            pass

        if __name__ == "__main__":
            atexit.register(lambda: print("at exit", torch.relu(torch.tensor(-1.0)).item()))
            print(sys.argv[1:], VALUE, __file__ == sys.argv[0], sys.modules["__main__"].Net is Net)
            torch.save(Net(2, 1), sys.argv[2])
            print(type(torch.load(sys.argv[2], weights_only=False)).__name__)
            print(hasattr(torch, "lacking"), type(pickle.loads(pickle.dumps(Net(2, 1)))).__name__)
            sys.exit(7)
    """)
    done = _distgrad("run", path, "--workers", str(tmp_path / "saved.pt"))
    assert done.returncode == 7, done.stderr
    assert "torchvision is built on" in done.stdout
    assert f"['--workers', '{tmp_path}/saved.pt'] 2.0 True True\nNet\nFalse Net\nat exit 0.0\n" in done.stdout
    assert done.stderr == ""


def test_errors_and_interrupts_look_as_with_plain_python(tmp_path: Path) -> None:
    path = _script(tmp_path, """
        import os, signal, sys, time

        def fail():
            if sys.argv[1] == "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            raise ValueError("as it is")

        fail()
    """)
    for how in ("error", "interrupt"):
        plain = subprocess.run([sys.executable, path, how], capture_output=True, text=True, timeout=60, check=False)
        ours = _distgrad("run", path, how)
        assert (ours.returncode, ours.stderr) == (plain.returncode, plain.stderr)
    broken = _script(tmp_path, "import torch\nx = (1,\n", "broken.py")
    plain = subprocess.run([sys.executable, broken], capture_output=True, text=True, timeout=60, check=False)
    ours = _distgrad("run", broken)
    assert (ours.returncode, ours.stderr) == (1, plain.stderr)
    assert plain.returncode == 1


def test_lacking_names_are_said_at_once_and_nothing_runs(tmp_path: Path) -> None:
    path = _script(tmp_path, "import torch\nprint('ran')\ntorch.lacking1()\ndef f():\n    torch.lacking2()\nf()\n")
    refused = _distgrad("run", path)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert f"{path}:3: torch.lacking1" in refused.stderr and f"{path}:5: torch.lacking2" in refused.stderr
    checked = _distgrad("check", path)
    assert (checked.returncode, checked.stdout) == (1, f"{path}:3: torch.lacking1\n{path}:5: torch.lacking2\n")
    anyway = _distgrad("run", "--no-check", path)
    assert anyway.stdout == "ran\n"
    assert f"distgrad has no torch.lacking1 ({path}:3)" in anyway.stderr
    fine = _distgrad("check", _script(tmp_path, HEAD, "fine.py"))
    assert (fine.returncode, fine.stderr) == (0, "")
    absent = _distgrad("run", str(tmp_path / "absent.py"))
    assert absent.returncode == 2 and "can't open file" in absent.stderr


PLACED = """
    import torch
    x = torch.arange(6.0)
    print(x.placement, torch.nn.Linear(2, 1).weight.placement, (x * x).sum().item())
"""


def test_simulated_workers_share_the_rows(tmp_path: Path) -> None:
    path = _script(tmp_path, PLACED)
    assert _distgrad("run", "--simulate", "--workers", "3", path).stdout == "Shard(0) Replicate() 55.0\n"
    small = _distgrad("run", "--simulate", "--shard-threshold", "1000", path)
    assert small.stdout == "Replicate() Replicate() 55.0\n"
    assert _distgrad("run", path).stdout == "None None 55.0\n"


def test_a_script_runs_on_a_cluster(tmp_path: Path, cluster: Any) -> None:
    path = _script(tmp_path, PLACED)
    done = _distgrad("run", "--workers", "2", "--address", cluster.address, path, **cluster.environment)
    assert done.stdout == "Shard(0) Replicate() 55.0\n", done.stderr
    assert done.returncode == 0
