"""A module imports only downwards, and importing distgrad imports numpy and nothing heavier.

The order stands in distgrad's docstring, and here with every name. Imports inside functions may look upwards, but only
the pairs named here do. Ray and pyarrow come in with the first session or the first file that is read.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "distgrad"

# From the bottom up; modules of one line do not import each other.
LAYERS = [
    "quiet changes temporaries",
    "errors dtypes device grad_mode grad_names handles kernels printing serialization_format warn jit amp "
    "backends datasets size accelerator distributed hub mps multiprocessing version xpu",
    "mersenne",
    "meta settings draws cuda",
    "placement",
    "op",
    "families graph",
    "ops",
    "autodiff leaves propagate program views writing",
    "lower engine tapes",
    "reverse",
    "dispatch",
    "tensor random",
    "types",
    "distgrad",
    "functions",
    "operators inplace methods",
    "in_place_functions",
    "runtime",
    "compiler",
    "serialization",
    "namespace",
    "autograd testing data fft linalg masked signal special",
    "utils distributions func",
    "nn",
    "optim",
    "demo serving",
    "script_names",
    "cli",
    "__main__",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}

# Imports inside functions that look upwards, and why.
LATE = {
    ("op", "ops"): "an op that is unpickled is looked up by name",
    ("ops", "runtime"): "exchange kernels use the collectives of the worker they run on",
    ("ops", "functions"): "what a user's function gets on a worker is a tensor",
    ("ops", "tensor"): "the same",
    ("ops", "namespace"): "and it has all its methods",
    ("tensor", "namespace"): "so has one that is unpickled",
    ("random", "tensor"): "a generator's state is a tensor",
    ("functions", "tensor"): "functions that make tensors from data",
    ("functions", "signal"): "windows are made by their public functions",
    ("tensor", "functions"): "Tensor(...) from data, and the text of a tensor",
    ("settings", "runtime"): "threads are those of the loaded libraries",
    ("serialization", "nn"): "a parameter is loaded as one",
}

# Third-party modules that may be imported at the top of a module, by layer; elsewhere only inside functions.
AT_THE_TOP = {"runtime": {"ray", "pyarrow", "ml_dtypes"}, "kernels": {"numba", "llvmlite"}}
HEAVY = {"numba", "llvmlite", "ray", "pyarrow", "scipy", "ml_dtypes", "safetensors", "torch", "matplotlib", "tqdm"}


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(nodes: list[ast.stmt], late: bool = False) -> Iterator[tuple[str, bool]]:
    """Gives every imported module and whether the import stands inside a function."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in MODULES else str(node.module)), late
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        else:
            inside = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for block in ("body", "orelse", "finalbody", "handlers"):
                yield from _imports(getattr(node, block, None) or [], inside)


IMPORTS = {name: list(_imports(ast.parse(path.read_text()).body)) for name, path in MODULES.items()}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_module_has_its_layer() -> None:
    parts = {_part(name) for name in MODULES}
    assert parts <= set(LEVEL), f"give these a layer in {Path(__file__).name}: {sorted(parts - set(LEVEL))}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards(module: str) -> None:
    own = _part(module)
    for target, late in IMPORTS[module]:
        if target.split(".")[0] != "distgrad" or _part(target) == own:
            continue
        other = _part(target)
        if late and (own, other) in LATE:
            continue
        assert LEVEL[other] < LEVEL[own], f"{module} imports {target}, which is not below it"


def test_no_late_import_is_listed_in_vain() -> None:
    used = {(_part(m), _part(t)) for m, found in IMPORTS.items() for t, late in found if late}
    assert set(LATE) <= used, f"nobody imports these any more: {sorted(set(LATE) - used)}"
    assert all(LEVEL[other] > LEVEL[own] or other == "tensor" for own, other in LATE)


def test_modules_of_one_package_form_no_cycle() -> None:
    edges = {
        module: {t for t, late in found if not late and t in MODULES and t != module and not module.startswith(f"{t}.")}
        for module, found in IMPORTS.items()
    }
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, f"imports in a circle: {' -> '.join([*path[path.index(module):], module])}"
        if module in done:
            return
        path.append(module)
        for target in sorted(edges[module]):
            # A package's own __init__ is run before its modules; importing a sibling is no import of the package.
            visit(target)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", MODULES)
def test_heavy_modules_are_imported_when_used(module: str) -> None:
    allowed = AT_THE_TOP.get(_part(module), set())
    top = {target.split(".")[0] for target, late in IMPORTS[module] if not late}
    assert not (top & HEAVY) - allowed
    everywhere = {target.split(".")[0] for target, _ in IMPORTS[module]}
    assert "torch" not in everywhere
    if "ray" in everywhere:
        assert _part(module) == "runtime" or module == "distgrad.ops.mapping"


def _loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})\nprint(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent, timeout=60
    )
    return set(found.stdout.split())


def test_importing_distgrad_imports_numpy_only() -> None:
    loaded = _loaded_after("import distgrad")
    assert "numpy" in loaded
    assert not HEAVY & loaded
    parts = ("nn", "optim", "utils", "autograd", "testing", "runtime.coordinator", "serialization_format")
    assert not {f"distgrad.{name}" for name in parts} & loaded


def test_local_work_needs_neither_ray_nor_pyarrow() -> None:
    loaded = _loaded_after(
        "import distgrad as dg\n"
        "model = dg.nn.Sequential(dg.nn.Linear(2, 3), dg.nn.ReLU(), dg.nn.Linear(3, 1))\n"
        "optimizer = dg.optim.SGD(model.parameters(), lr=0.1)\n"
        "dg.nn.functional.mse_loss(model(dg.ones(4, 2)), dg.zeros(4, 1)).backward()\n"
        "optimizer.step()\n"
        "repr(model.state_dict())"
    )
    assert "distgrad.nn" in loaded
    assert not {"ray", "pyarrow", "torch", "numba"} & loaded
