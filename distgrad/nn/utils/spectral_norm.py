"""Spectral normalization by hooks: a weight divided by its largest singular value, found by power iteration.

Invariant: gradients flow through the weight, never through the vectors of the iteration.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.nn.modules.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor

__all__ = ["remove_spectral_norm", "spectral_norm"]


class SpectralNorm:
    """The hook that divides the weight by its largest singular value before `forward`."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.name, self.dim = name, dim
        self.n_power_iterations, self.eps = n_power_iterations, eps

    def matrix(self, weight: Tensor) -> Tensor:
        """Gives the weight as a matrix whose rows are along `dim`."""
        return as_matrix(weight, self.dim)

    def compute_weight(self, module: Module, iterate: bool) -> Any:
        """Gives the normalized weight, after iterating the vectors when told to."""
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = self.matrix(weight)
        if iterate:
            with dg.no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(unit(dg.mv(matrix.t(), u), self.eps))
                    u.copy_(unit(dg.mv(matrix, v), self.eps))
            u, v = u.clone(), v.clone()  # the next forward writes to the buffers
        return weight / dg.dot(u, dg.mv(matrix, v))

    def remove(self, module: Module) -> None:
        """Puts the present weight back as one parameter."""
        with dg.no_grad():
            weight = self.compute_weight(module, iterate=False)
        delattr(module, self.name)
        delattr(module, f"{self.name}_u")
        delattr(module, f"{self.name}_v")
        delattr(module, f"{self.name}_orig")
        module.register_parameter(self.name, Parameter(weight.detach()))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module, iterate=module.training))


def unit(vector: Tensor, eps: float) -> Tensor:
    """Gives a vector divided by its norm, which is taken to be at least `eps`."""
    return dg.nn.functional.normalize(vector, dim=0, eps=eps)


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """Gives a weight as a matrix `(weight.shape[dim], all others)`."""
    if dim != 0:
        weight = weight.permute(dim, *(axis for axis in range(weight.dim()) if axis != dim))
    return weight.reshape(weight.shape[0], -1)


def default_dim(module: Module) -> int:
    """Gives the dim of a module's outputs in its weight: 1 for transposed convolutions, otherwise 0."""
    return int(isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d))


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divides the parameter `name` by its largest singular value in every forward.

    The parameter becomes `<name>_orig`; `<name>_u` and `<name>_v` are the buffers of the power iteration, which goes on
    in training mode. RuntimeError when it is normalized already. Source: torch.nn.utils.spectral_norm; Miyato 2018.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    norm = SpectralNorm(name, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    weight = module._parameters.pop(name)
    if weight is None:
        raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    with dg.no_grad():
        height, width = norm.matrix(weight).shape
        u = unit(dg.empty(height, dtype=weight.dtype).normal_(0, 1), eps)
        v = unit(dg.empty(width, dtype=weight.dtype).normal_(0, 1), eps)
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.detach())
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(norm)
    return module


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight one parameter again; ValueError when it is not normalized.

    Source: torch.nn.utils.remove_spectral_norm.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, SpectralNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"spectral_norm of '{name}' not found in {module}")
