"""Reads a script, without running it, for the names of torch that it uses and distgrad lacks.

Invariant: a name is called lacking only when asking for it would raise. What may never be asked for (behind hasattr, in
try/except, under a condition, in a function nobody calls) is said to be so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgrad import serving

__all__ = ["Lack", "lacks_of"]

_ROOTS = ("torch", *serving.NOT_SERVED)
_CATCHING = {"ImportError", "ModuleNotFoundError", "AttributeError", "NameError", "Exception", "BaseException"}
_SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
_NAMING = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar
_COMPREHENSIONS = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True, order=True)
class Lack:
    """A name that is used and lacking; `unless` says why it may never be asked for, and is empty otherwise."""

    path: str
    line: int
    name: str
    unless: str = ""

    @property
    def harmless(self) -> bool:
        """Whether the script sees to it itself that the name need not be there."""
        return self.unless.startswith(("inside try", "in an except", "behind", "for type checkers"))

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}" + (f"  ({self.unless})" if self.unless else "")


def lacks_of(script: str | Path) -> list[Lack]:
    """Gives what a script, and the modules it imports from its own folder, use of torch and distgrad lacks.

    Files that do not parse are left out: Python says what is wrong with them when they are run. OSError when the
    script cannot be read.
    """
    script = Path(script)
    folder = script.parent
    trees: dict[Path, ast.Module] = {}
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in trees:
            continue
        try:
            trees[path] = tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError):
            continue
        waiting += [near for near in _files_imported(tree, folder, path.parent) if near not in trees]
    mentioned = {name for tree in trees.values() for name in _mentions(tree)}
    with serving.served():
        found = {lack for path, tree in trees.items() for lack in _File(str(path), tree, mentioned).lacks}
    return sorted(_most_certain(found))


def _most_certain(found: Iterable[Lack]) -> Iterator[Lack]:
    """Leaves out uses of a name that may not happen on a line where one is certain."""
    certain = {(lack.path, lack.line, lack.name) for lack in found if not lack.unless}
    return (lack for lack in found if not lack.unless or (lack.path, lack.line, lack.name) not in certain)


def _files_imported(tree: ast.Module, folder: Path, own: Path) -> Iterator[Path]:
    """Gives the files below the script's folder that a module imports."""
    for node in ast.walk(tree):
        names: list[str] = []
        base = folder
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            stem = node.module or ""
            if node.level:
                base = own
                for _ in range(node.level - 1):
                    base = base.parent
            names = [*([stem] if stem else []), *(f"{stem}.{alias.name}".lstrip(".") for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                stem_path = base.joinpath(*parts[:length])
                for path in (stem_path.with_suffix(".py"), stem_path / "__init__.py"):
                    if path.is_file():
                        yield path


def _mentions(tree: ast.Module) -> Iterator[str]:
    """Gives every name that is read, as a variable, an attribute, an import or a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


class _File(ast.NodeVisitor):
    """Walks one file with the scopes of its names; `lacks` is what it found."""

    def __init__(self, path: str, tree: ast.Module, mentioned: set[str]) -> None:
        self.lacks: set[Lack] = set()
        self._path = path
        self._mentioned = mentioned
        self._unless: list[str] = []
        self._scopes: list[dict[str, set[str | None]]] = [_bindings(tree.body)]
        self._in_class = False
        self._visit_all(tree.body)

    # Uses ---------------------------------------------------------------------------------------------------

    def _use(self, name: str, line: int) -> None:
        """Notes a dotted name of torch's, or its first part that is lacking."""
        lacking = _first_lacking(name)
        if lacking is not None:
            self.lacks.add(Lack(self._path, line, lacking, self._unless[-1] if self._unless else ""))

    def _meaning(self, node: ast.expr) -> str | None:
        """Gives the dotted name of torch's that an expression stands for, or None."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        for depth, scope in enumerate(reversed(self._scopes)):
            bound = scope.get(node.id)
            if bound is None or (depth and "class scope" in scope):
                continue
            if len(bound) != 1:
                return None
            (root,) = bound
            return None if root is None else ".".join([root, *reversed(parts)])
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._meaning(node)
        if name is None:
            self.visit(node.value)
        elif isinstance(node.ctx, ast.Load):
            self._use(name, node.lineno)
        else:  # what is set need not be there before, what it is set on must
            self._use(name.rpartition(".")[0], node.lineno)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.partition(".")[0] in _ROOTS:
                self._use(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level and node.module and node.module.partition(".")[0] in _ROOTS:
            for alias in node.names:
                self._use(node.module if alias.name == "*" else f"{node.module}.{alias.name}", node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) == 2:
            owner, name = self._meaning(node.args[0]), node.args[1]
            if owner is not None and isinstance(name, ast.Constant) and isinstance(name.value, str):
                self._use(f"{owner}.{name.value}", node.lineno)
        self.generic_visit(node)

    # What may not happen ------------------------------------------------------------------------------------

    def _visit_all(self, nodes: Iterable[ast.AST], unless: str = "") -> None:
        if unless:
            self._unless.append(unless)
        for node in nodes:
            self.visit(node)
        if unless:
            self._unless.pop()

    def visit_Try(self, node: ast.Try) -> None:
        catches = any(_catches(handler) for handler in node.handlers)
        self._visit_all(node.body, "inside try" if catches else "")
        self._visit_all(node.handlers, "in an except block")
        self._visit_all(node.orelse)
        self._visit_all(node.finalbody)

    def visit_If(self, node: ast.If) -> None:
        asks = _asks_first(node.test)
        self._visit_all([node.test], asks)
        always = _is_main(node.test)
        because = "" if always else asks or "under a condition"
        self._visit_all(node.body, because)
        self._visit_all(node.orelse, because or "under a condition")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        asks = _asks_first(node.test)
        self._visit_all([node.test], asks)
        self._visit_all([node.body, node.orelse], asks or "under a condition")

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._visit_all(node.values[:1])
        self._visit_all(node.values[1:], _asks_first(node) or "under a condition")

    def visit_Match(self, node: ast.Match) -> None:
        self._visit_all([node.subject])
        self._visit_all(node.cases, "under a condition")

    # Scopes -------------------------------------------------------------------------------------------------

    def _visit_scope(self, node: Any, bound: dict[str, set[str | None]], body: Iterable[ast.AST], unless: str) -> None:
        self._scopes.append(bound)
        self._visit_all(body, unless)
        self._scopes.pop()

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._visit_all(node.decorator_list)
        self._visit_all([node.args, *([node.returns] if node.returns else [])])
        special = node.name.startswith("__") or node.decorator_list
        unless = "" if special or node.name in self._mentioned or self._in_class else "in a function nobody calls"
        bound = _bindings(node.body, node.args)
        inside, self._in_class = self._in_class, False
        self._visit_scope(node, bound, node.body, unless)
        self._in_class = inside

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_function(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all([node.args])
        self._visit_scope(node, _bindings([], node.args), [node.body], "")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])
        inside, self._in_class = self._in_class, True
        self._visit_scope(node, _bindings(node.body) | {"class scope": set()}, node.body, "")
        self._in_class = inside

    def _visit_comprehension(self, node: Any) -> None:
        bound: dict[str, set[str | None]] = {}
        for generator in node.generators:
            for part in ast.walk(generator.target):
                if isinstance(part, ast.Name):
                    bound[part.id] = {None}
        self._visit_scope(node, bound, ast.iter_child_nodes(node), "")

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension


def _catches(handler: ast.ExceptHandler) -> bool:
    names = {part.id for part in ast.walk(handler.type) if isinstance(part, ast.Name)} if handler.type else _CATCHING
    return bool(names & _CATCHING)


def _is_main(test: ast.expr) -> bool:
    return isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"


def _asks_first(test: ast.expr) -> str:
    """Says what a condition asks when it is whether something is there."""
    for part in ast.walk(test):
        if isinstance(part, ast.Name) and part.id == "hasattr":
            return "behind hasattr"
        if isinstance(part, ast.Name) and part.id == "TYPE_CHECKING":
            return "for type checkers"
        if isinstance(part, ast.Attribute) and part.attr in ("is_available", "device_count", "__version__"):
            return f"behind {part.attr}"
    return ""


def _bindings(body: Iterable[ast.AST], arguments: ast.arguments | None = None) -> dict[str, set[str | None]]:
    """Gives what each name of a scope is bound to: names of torch's, and None for anything else."""
    bound: dict[str, set[str | None]] = {}

    def bind(name: str, meaning: str | None) -> None:
        bound.setdefault(name, set()).add(meaning)

    if arguments is not None:
        for argument in ast.walk(arguments):
            if isinstance(argument, ast.arg):
                bind(argument.arg, None)

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                meaning = (alias.name if alias.asname else root) if root in _ROOTS else None
                bind(alias.asname or root, meaning)
        elif isinstance(node, ast.ImportFrom):
            torchs = not node.level and (node.module or "").partition(".")[0] in _ROOTS
            for alias in node.names:
                bind(alias.asname or alias.name, f"{node.module}.{alias.name}" if torchs else None)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bind(node.id, None)
        elif isinstance(node, _NAMING) and node.name:
            bind(node.name, None)
        if not isinstance(node, _SCOPES | _COMPREHENSIONS):
            for child in ast.iter_child_nodes(node):
                walk(child)

    for node in body:
        walk(node)
    return bound


def _first_lacking(name: str) -> str | None:
    """Gives the first part of a dotted name of torch's that is not there, or None when all is."""
    root, *rest = name.split(".")
    if root != "torch":
        return root
    from importlib import import_module

    here: Any = import_module("torch")
    for number, part in enumerate(rest):
        asked = ".".join([root, *rest[: number + 1]])
        if serving.is_served(getattr(here, "__name__", "")) and hasattr(here, "_own"):
            value = serving.lookup(here, part)
            if not serving.found(value):
                return asked
            here = value
        elif isinstance(here, type) and here.__name__ == "Tensor":
            return None if hasattr(here, part) else asked
        else:
            return None
    return None
