"""Serves `import torch` and its submodules by distgrad, for scripts that run unchanged.

Invariant: nothing of an installed torch is imported while it is served, and leaving puts back what was there. A name
that distgrad does not have raises where it is asked for, with the name and the file and line that asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["API_VERSION", "NOT_SERVED", "found", "is_served", "lacking", "lookup", "serve", "served"]

API_VERSION = "2.13.0"  # the PyTorch whose names and semantics these are

# Packages built on torch's internals. They cannot be served; importing one says so.
NOT_SERVED = ("torchvision", "torchaudio", "torchtext", "torchdata", "torch_geometric", "functorch")

# Modules of torch whose contents stand in a module of another name.
_ELSEWHERE = {
    "_tensor": "tensor",
    "nn.modules.container": "nn.modules.containers",
    "nn.modules.conv": "nn.modules.convolution",
    "nn.modules.instancenorm": "nn.modules.batchnorm",
    "nn.modules.rnn": "nn.modules.recurrent",
    "nn.utils.clip_grad": "nn.utils.clip_grad",
    "optim.adamw": "optim.adam",
    "optim.nadam": "optim.adam",
    "optim.radam": "optim.adam",
    "optim.adamax": "optim.adam",
    "optim.adagrad": "optim.adaptive",
    "optim.adadelta": "optim.adaptive",
    "optim.rmsprop": "optim.adaptive",
    "optim.rprop": "optim.adaptive",
    "optim.asgd": "optim.adaptive",
    "utils.data._utils": "utils.data.collate",
    "utils.data._utils.collate": "utils.data.collate",
}
# Torch's modules directly below it; whatever else stands in our package is no part of torch.
_BELOW_TORCH = frozenset({
    "_tensor", "_utils", "accelerator", "amp", "autograd", "backends", "compiler", "cpu", "cuda", "distributed",
    "distributions", "fft", "func", "hub", "jit", "linalg", "masked", "mps", "multiprocessing", "nn", "optim",
    "profiler", "random", "serialization", "signal", "special", "testing", "types", "utils", "version", "xpu",
})  # fmt: skip
_PACKAGE = str(Path(__file__).parent)


def _own_name(fullname: str) -> str | None:
    """Gives the name of our module that serves a module of torch's, or None."""
    if fullname == "torch":
        return "distgrad"
    below = fullname.removeprefix("torch.")
    if below.partition(".")[0] not in _BELOW_TORCH:
        return None
    name = f"distgrad.{_ELSEWHERE.get(below, below)}"
    if name in sys.modules:
        return name
    try:
        return name if find_spec(name) is not None else None
    except ModuleNotFoundError:  # its parent is no package
        return None


def is_served(fullname: str) -> bool:
    """Says whether a module of torch's, such as "torch.nn.utils", is there to be imported."""
    return _own_name(fullname) is not None


class _Served(ModuleType):
    """A module of torch's: its names are those of ours, and what a script sets is set there too."""

    def __init__(self, name: str, own: ModuleType) -> None:
        super().__init__(name, own.__doc__)
        vars(self).update(_own=own, __file__=own.__file__, __path__=[])
        if name == "torch":
            vars(self).update(__version__=API_VERSION)

    def __getattr__(self, name: str) -> Any:
        value = lookup(self, name)
        if value is _NOTHING:
            asked = f"{self.__name__}.{name}"
            if name.startswith("__"):
                raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
            raise AttributeError(lacking(asked), name=name, obj=self)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _Served) and callable(getattr(self._own, name, None)):
            return  # importing torch.nn.utils.spectral_norm, a module, leaves the function of that name in its place
        vars(self)[name] = value
        if not isinstance(value, _Served) and not name.startswith("__"):
            setattr(self._own, name, value)

    def __delattr__(self, name: str) -> None:
        vars(self).pop(name, None)
        if name in vars(self._own):
            delattr(self._own, name)

    def __dir__(self) -> list[str]:
        names: Iterable[str] = dir(self._own)
        if self.__name__ == "torch":
            from distgrad import namespace

            names = {*namespace.__all__, *_BELOW_TORCH}
        return sorted({*names, *vars(self)} - {"_own"})


_NOTHING = object()


def lookup(module: Any, name: str) -> Any:
    """Gives what a served module has under a name, without caching it; a marker that equals nothing otherwise."""
    own = module._own
    fullname = f"{module.__name__}.{name}"
    if module.__name__ == "torch":
        from distgrad import namespace

        if name not in namespace.__all__ and not name.startswith("__"):
            return import_module(fullname) if is_served(fullname) else _NOTHING
    value = getattr(own, name, _NOTHING)
    if isinstance(value, ModuleType) and value.__name__.startswith("distgrad."):
        return import_module(fullname) if is_served(fullname) else _NOTHING
    if value is _NOTHING and is_served(fullname):
        return import_module(fullname)
    if value is _NOTHING and fullname.startswith("torch.nn.modules."):  # whose files divide the layers differently
        return getattr(import_module("distgrad.nn"), name, _NOTHING)
    return value


def found(value: Any) -> bool:
    """Says whether `lookup` found something."""
    return value is not _NOTHING


def lacking(name: str) -> str:
    """Says that distgrad lacks a name of torch's, and which line asked for it."""
    frame: Any = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith((_PACKAGE, "<frozen importlib")) or "importlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    where = f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""
    return f"distgrad has no {name}{where}: PyTorch may have it; `distgrad check` lists all names a script would miss"


class _Finder(MetaPathFinder, Loader):
    """Finds torch and what is below it before Python looks for files."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root in NOT_SERVED:
            raise ModuleNotFoundError(
                f"No module named '{fullname}': distgrad serves torch to this script, and {root} is built on torch's "
                "internals; load the data with numpy, or guard the import with try/except ImportError", name=fullname,
            )
        if root != "torch":
            return None
        if not is_served(fullname):
            raise ModuleNotFoundError(lacking(fullname), name="torch")
        return ModuleSpec(fullname, self, origin="distgrad", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        own = _own_name(spec.name)
        assert own is not None, spec.name
        return _Served(spec.name, import_module(own))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to do: the module reads ours."""


def _theirs(name: str) -> bool:
    return name.partition(".")[0] in ("torch", *NOT_SERVED)


def serve() -> dict[str, ModuleType]:
    """Serves torch from now on; gives the modules of an installed torch that it set aside."""
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _theirs(name)}
    sys.meta_path.insert(0, _Finder())
    return aside


@contextmanager
def served() -> Iterator[None]:
    """Serves torch until the block ends. Modules of an installed torch are set aside and come back afterwards."""
    before = list(sys.meta_path)
    aside = serve()
    try:
        yield
    finally:
        sys.meta_path[:] = before
        for name in list(sys.modules):
            if _theirs(name):
                del sys.modules[name]
        sys.modules.update(aside)
