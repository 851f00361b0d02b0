"""Makes docs/names.md: every public name, whether it is differentiable, what its workers exchange, and what differs.

`python docs/make_names.py` writes the file; `--check` only says whether it is up to date. What is exchanged is found by
tracing: the calls of the test rows (tests/op_db.py) are recorded with tensors sharded along dim 0 over three
workers, as for data so large that starting an exchange costs little, and the program is looked at. Names of PyTorch
that are not here are listed when PyTorch is installed, which `--check` needs too.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402

import distgrad as dg  # noqa: E402
from distgrad import graph, propagate  # noqa: E402
from distgrad.placement import Partial, Replicate  # noqa: E402

FILE = ROOT / "docs" / "names.md"
SPACES = ("", "nn.functional", "linalg", "fft", "special", "masked", "signal.windows")
CLASSES = ("nn", "optim", "optim.lr_scheduler", "distributions", "utils.data")
LEVELS = ("nothing", "sums", "some rows", "rows")
DIFFERENCES = {
    "multinomial": "draws have torch's numbers; categories are checked when the value is read",
    "poisson": "the law is torch's, the numbers are not", "binomial": "the law is torch's, the numbers are not",
    "rrelu": "slopes in training are other numbers than torch's",
    "nn.functional.rrelu": "slopes in training are other numbers than torch's",
    "compile": "gives the function as it is: programs are cached without being asked for",
    "jit.script": "gives the function as it is", "set_num_threads": "sets the threads of numpy's linear algebra",
    "empty": "memory is zeroed", "Tensor.numpy": "gives a copy or a view that does not follow later in-place changes",
    "save": "writes safetensors; no code is pickled", "load": "reads safetensors; weights_only is always so",
}


class Names:
    """Stands for the namespace in a row's call, and notes the dotted names that are called."""

    def __init__(self, target: Any, path: str, called: list[str]) -> None:
        self._target, self._path, self._called = target, path, called

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        path = f"{self._path}.{name}" if self._path else name
        if isinstance(value, ModuleType):
            return Names(value, path, self._called)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            self._called.append(path)
            return value(*args, **kwargs)

        return call


def exchanged(outputs: list[Any]) -> int:
    """Gives the level of what must be exchanged for outputs that are recorded and not yet computed."""
    level = 0
    for out in outputs:
        node = out._now()
        stack, seen = [node.call], set()
        while stack:
            call = stack.pop()
            if call is None or id(call) in seen:
                continue
            seen.add(id(call))
            if call.plan.through is not None:
                level = max(level, 2)
            elif call.plan.op.name == "redistribute":
                source = next(v.spec for v in call.inputs if isinstance(v, graph.Node))
                target = call.plan.outs[0].placement
                if source.placement is not target and not isinstance(source.placement, Replicate):
                    level = max(level, 1 if isinstance(source.placement, Partial) else 3)
            stack.extend(v.call for v in call.inputs if isinstance(v, graph.Node))
        if isinstance(node.spec.placement, Partial):
            level = max(level, 1)
    return level


def flat(value: Any) -> Iterator[Any]:
    """Gives the tensors in a result."""
    if isinstance(value, dg.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from flat(part)


def traced() -> dict[str, tuple[bool, int, int]]:
    """Gives for each name that a row calls: whether it is differentiable, and the least and most of its exchange."""
    import op_db

    found: dict[str, tuple[bool, int, int]] = {}
    propagate.COLLECTIVE_BYTES = 32.0
    with dg.init(local_mode=True, num_workers=3, shard_threshold=1 << 40):
        for row in op_db.all_rows():
            for index in range(len(row.samples)):
                called: list[str] = []
                values = [dg.from_numpy(v) if isinstance(v, np.ndarray) else v for v in row.inputs(index)]
                first = next((v.shape[0] for v in values if isinstance(v, dg.Tensor) and v.ndim), None)
                values = [
                    dg.shard(v) if isinstance(v, dg.Tensor) and v.ndim and v.shape[0] == first else v for v in values
                ]
                floats = [v for v in values if isinstance(v, dg.Tensor) and v.is_floating_point()]
                for value in floats if row.grad else ():
                    value.requires_grad_()
                outputs: list[Any] = []
                with suppress(RuntimeError, ValueError, IndexError, NotImplementedError, TypeError):
                    outputs = list(flat(row.call(Names(dg, "", called), *values)))
                if not outputs or not called:
                    continue
                name = called[-1]
                level = exchanged(outputs)
                grad = row.grad and any(o.requires_grad for o in outputs)
                known, least, most = found.get(name, (False, level, level))
                found[name] = (grad or known, min(level, least), max(level, most))
    return found


def public(space: str, root: Any) -> dict[str, Any]:
    """Gives the public functions of a namespace."""
    for part in filter(None, space.split(".")):
        root = getattr(root, part)
    names = getattr(root, "__all__", None) or dir(root)
    prefix = f"{space}." if space else ""
    found = {}
    for name in sorted(names):
        value = getattr(root, name, None)
        if not name.startswith("_") and callable(value) and not isinstance(value, ModuleType):
            found[prefix + name] = value
    return found


def classes(space: str, root: Any) -> list[str]:
    """Gives the public classes of a namespace."""
    return [name for name, value in public(space, root).items() if inspect.isclass(value)]


def lacking(space: str, ours: set[str]) -> list[str]:
    """Gives PyTorch's public functions of a namespace that are not here."""
    import torch

    documented = []
    for name, value in public(space, torch).items():
        module = getattr(value, "__module__", None) or ""
        if inspect.isclass(value) or name.startswith(("sym_", "cudnn", "miopen", "mkldnn", "fbgemm", "quantize")):
            continue
        own = not module or (module.startswith("torch") and not module.startswith(("torch.overrides", "torch._jit_internal")))
        if getattr(value, "__doc__", None) and own and name not in ours:
            documented.append(name)
    return documented


def text() -> str:
    """Gives the file's text."""
    found = traced()
    known: dict[int, str] = {}
    for space in SPACES:
        known |= {id(v): n for n, v in public(space, dg).items() if n in found}
    lines = [
        "# Names", "",
        "Made by `python docs/make_names.py` from the op records; a test keeps it up to date. *Exchange* is what workers "
        "send each other when the tensors that share their first dim are sharded along it, over the samples of its test "
        "row: the least (it works on each row by itself, say) and the most (along the sharded dim, say). `nothing`; `sums` "
        "(parts of a reduction); `some rows` (a distributed algorithm: only what is asked for moves); `rows` (a tensor "
        "changes its sharding, or is gathered). A dash: no row traces the name by itself.", "",
    ]
    for space in SPACES:
        ours = {k: v for k, v in public(space, dg).items() if not inspect.isclass(v)}
        lines += [f"## distgrad{'.' + space if space else ''}", "",
                  "| name | differentiable | least exchange | most | differs from torch |", "|---|---|---|---|---|"]
        for name, value in ours.items():
            # An in-place form, an alias, and a namespace's second name for a function do what that does.
            same = next((n for n in (name, name.removesuffix("_"), known.get(id(value), "")) if n in found), name)
            grad, least, most = found.get(same, (None, None, None))
            lines.append(
                f"| `{name}` | {'-' if grad is None else 'yes' if grad else 'no'} | "
                f"{'-' if least is None else LEVELS[least]} | {'-' if most is None else LEVELS[most]} | "
                f"{DIFFERENCES.get(name, '')} |"
            )
        missing = lacking(space, set(ours))
        if missing:
            lines += ["", "Not here: " + ", ".join(f"`{name}`" for name in missing) + "."]
        lines.append("")
    tensor = [n for n in sorted(dir(dg.Tensor)) if not n.startswith("_")]
    lines += ["## distgrad.Tensor", "", "Methods and attributes: " + ", ".join(f"`{n}`" for n in tensor) + ".", ""]
    for space in CLASSES:
        names = ", ".join(f"`{n.rpartition('.')[2]}`" for n in classes(space, dg))
        lines += [f"## distgrad.{space}", "", f"Classes: {names}.", ""]
    return "\n".join(lines)


def main() -> int:
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    new = text()
    if given.check:
        same = FILE.exists() and FILE.read_text() == new
        print("docs/names.md is up to date" if same else "docs/names.md is not what docs/make_names.py makes: run it")
        return 0 if same else 1
    FILE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
