"""Parametrizations: a tensor of a module that is computed from others whenever it is read.

Invariant: what is trained and stored are the originals, at `parametrizations.<name>.original`; reading the tensor runs
the parametrizations on them in the order they were registered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import distgrad as dg
from distgrad.nn.modules.containers import ModuleDict, ModuleList
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization", "remove_parametrizations"]

_cache: dict[tuple[int, str], Any] | None = None


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Computes each parametrized tensor once inside the block. Source: torch.nn.utils.parametrize.cached."""
    global _cache
    outer, _cache = _cache, {} if _cache is None else _cache
    try:
        yield
    finally:
        _cache = outer


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor, and its originals. Source: torch.nn.utils.parametrize.ParametrizationList."""

    def __init__(self, modules: Any, original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        value: Any = original
        with dg.no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    value = module.right_inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        self.ntensors = 1 if self.is_tensor else len(value)
        values = [value] if self.is_tensor else list(value)
        for number, own in enumerate(values):
            name = "original" if self.is_tensor else f"original{number}"
            if isinstance(original, Parameter):
                self.register_parameter(name, Parameter(own.detach(), requires_grad=original.requires_grad))
            else:
                self.register_buffer(name, own)

    def originals(self) -> list[Tensor]:
        """Gives the tensors the parametrized one is computed from."""
        return [self.original] if self.is_tensor else [getattr(self, f"original{n}") for n in range(self.ntensors)]

    def right_inverse(self, value: Tensor) -> None:
        """Sets the originals so that the parametrized tensor becomes `value`."""
        with dg.no_grad():
            given: Any = value
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(f"parametrization {type(module).__name__} does not implement right_inverse.")
                given = module.right_inverse(given)
            for own, new in zip(self.originals(), [given] if self.is_tensor else given, strict=True):
                own.copy_(new)

    def forward(self) -> Tensor:
        first, *others = list(self)
        value = first(*self.originals())
        for module in others:
            value = module(value)
        return value


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Makes `module.<tensor_name>` be computed by `parametrization` from what it was.

    Its `right_inverse`, where it has one, gives the original for the present value. ValueError for a name the module
    has no parameter or buffer of. Source: torch.nn.utils.parametrize.register_parametrization.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain = module.parametrizations[tensor_name]
        value = getattr(module, tensor_name).detach()
        chain.append(parametrization)
        if hasattr(parametrization, "right_inverse"):
            chain.right_inverse(value)
        return module
    own: Tensor | None = module._parameters.get(tensor_name)
    if own is None:
        own = module._buffers.get(tensor_name)
    if own is None:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element with name '{tensor_name}'"
        )
    chain = ParametrizationList([parametrization], own, unsafe=unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        cls = type(module)
        module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), {"__deepcopy__": None, "__module__": cls.__module__})
        del module.__class__.__deepcopy__  # type: ignore[attr-defined]  # copied as any module is
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = chain
    setattr(type(module), tensor_name, property(_reader(tensor_name), _writer(tensor_name)))
    return module


def _reader(name: str) -> Any:
    def read(self: Module) -> Any:
        chain = self.parametrizations[name]
        if _cache is None:
            return chain()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = chain()
        return _cache[key]

    return read


def _writer(name: str) -> Any:
    def write(self: Module, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return write


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Says whether a module has parametrized tensors, or a certain one. Source: torch.nn.utils.parametrize."""
    found = module._modules.get("parametrizations")
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Makes `module.<tensor_name>` a tensor of its own again: its present value, or the original.

    Source: torch.nn.utils.parametrize.remove_parametrizations.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    chain = module.parametrizations[tensor_name]
    first = chain.originals()[0]
    if leave_parametrized:
        with dg.no_grad():
            value = getattr(module, tensor_name).detach().clone()
    elif chain.is_tensor:
        value = chain.original.detach()
    else:
        raise ValueError("Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in "
                         "terms of a sequence of tensors.")  # fmt: skip
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, Parameter(value, requires_grad=first.requires_grad))
    else:
        module.register_buffer(tensor_name, value)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
    return module
