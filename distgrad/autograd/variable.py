"""`Variable`, the name tensors that record gradients had in early PyTorch.

Invariant: there are no Variables, only tensors: every tensor is an instance.
"""

from __future__ import annotations

from typing import Any

from distgrad.tensor import Tensor

__all__ = ["Variable"]


class _AnyTensor(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor)


class Variable(metaclass=_AnyTensor):
    """Gives a tensor sharing the values of `data`. PyTorch: torch.autograd.Variable."""

    def __new__(cls, data: Tensor, requires_grad: bool = False, volatile: bool = False) -> Any:
        return data.detach().requires_grad_(requires_grad)
