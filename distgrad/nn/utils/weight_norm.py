"""Weight normalization by hooks: a weight is a direction times a length, both trained.

Invariant: after every forward `module.<name>` equals `g * v / |v|`, norms over all dims but `dim`.
"""

from __future__ import annotations

from typing import Any

from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor

__all__ = ["norm_except_dim", "remove_weight_norm", "weight_norm"]


def norm_except_dim(v: Tensor, dim: int | None = 0) -> Tensor:
    """Gives the norms over all dims but `dim`, which stay as dims of one; the norm of all when `dim` is None."""
    if dim is None or dim == -1:
        return v.norm()
    return v.norm(dim=[axis for axis in range(v.dim()) if axis != dim % v.dim()], keepdim=True)


class WeightNorm:
    """The hook that computes the weight before `forward`."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = -1 if dim is None else dim

    def compute_weight(self, module: Module) -> Any:
        """Gives the weight of the present length and direction."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return v * (g / norm_except_dim(v, self.dim))

    def remove(self, module: Module) -> None:
        """Puts the present weight back as one parameter."""
        weight = self.compute_weight(module).detach()
        delattr(module, self.name)
        del module._parameters[f"{self.name}_g"], module._parameters[f"{self.name}_v"]
        setattr(module, self.name, Parameter(weight))

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.compute_weight(module))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Splits the parameter `name` into `<name>_g`, its norms over all dims but `dim`, and `<name>_v`, its direction.

    RuntimeError when the parameter is normalized already. Source: torch.nn.utils.weight_norm; Salimans and Kingma 2016.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    norm = WeightNorm(name, dim)
    weight = module._parameters.pop(name)
    assert weight is not None, name
    module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight.detach(), norm.dim)))
    module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    setattr(module, name, norm.compute_weight(module))
    module.register_forward_pre_hook(norm)
    return module


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Makes the weight one parameter again; ValueError when it is not normalized.

    Source: torch.nn.utils.remove_weight_norm.
    """
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, WeightNorm) and hook.name == name:
            hook.remove(module)
            del module._forward_pre_hooks[key]
            return module
    raise ValueError(f"weight_norm of '{name}' not found in {module}")
