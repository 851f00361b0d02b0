"""Tensors a module owns: ``Parameter`` (trained) and ``Buffer`` (state that is not trained).

Invariant: both are leaves. They have the values of the tensor they were made from and never its history.
"""

from typing import Any, Self

import distgrad as dg
from distgrad.tensor import Tensor


def _rebuild_parameter(data: Tensor, requires_grad: bool) -> "Parameter":
    """Makes the parameter a pickle describes."""
    return Parameter(data, requires_grad)


def _rebuild_buffer(data: Tensor, persistent: bool) -> "Buffer":
    """Makes the buffer a pickle describes."""
    return Buffer(data, persistent=persistent)


class Parameter(Tensor):
    """A tensor that a module registers as trainable when it is assigned to an attribute.

    ``data`` is a tensor with the values (an empty one when it is None); ``requires_grad`` needs a floating point or complex
    dtype. Source: torch.nn.Parameter.

    >>> import distgrad as dg
    >>> dg.nn.Parameter(dg.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Self:
        if data is None:
            data = dg.empty(0)
        data = data.detach()
        if requires_grad and not (data.is_floating_point() or data.is_complex()):
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
        return Tensor._make_subclass(cls, data, requires_grad)

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        """Does nothing: ``__new__`` has made the tensor, which must not be initialised a second time."""

    def __deepcopy__(self, memo: dict) -> "Parameter":
        if id(self) in memo:
            return memo[id(self)]
        result = type(self)(self.data.clone(), self.requires_grad)
        memo[id(self)] = result
        return result

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return (_rebuild_parameter, (self.data, self.requires_grad))


class UninitializedParameter(Parameter):
    """A parameter whose shape is not known yet; a lazy layer makes it an ordinary one at its first call.

    Source: torch.nn.parameter.UninitializedParameter.
    """

    def __new__(cls, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> Self:
        return Tensor._make_subclass(cls, dg.empty(0, dtype=dtype), requires_grad)

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None) -> None:
        """Does nothing: ``__new__`` has made the tensor."""

    def materialize_as(self, other: Parameter) -> None:
        """Becomes an ordinary parameter with the values of another."""
        self.__class__ = Parameter  # type: ignore[assignment]  # its own base
        self._node = other._node
        self._version += 1

    def __deepcopy__(self, memo: dict) -> "UninitializedParameter":
        return memo.setdefault(id(self), type(self)(self.requires_grad, dtype=self.dtype))

    def __repr__(self) -> str:
        return f"<UninitializedParameter, dtype={self.dtype}>"

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return (UninitializedParameter, (self.requires_grad, None, self.dtype))


def is_lazy(param: Any) -> bool:
    """Says whether a parameter's shape is not known yet."""
    return isinstance(param, UninitializedParameter)


class Buffer(Tensor):
    """A tensor that a module registers as a buffer when it is assigned to an attribute.

    ``persistent`` decides whether ``state_dict`` contains it. Source: torch.nn.Buffer.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Self:
        if data is None:
            data = dg.empty(0)
        result = Tensor._make_subclass(cls, data.detach(), data.requires_grad)
        result.persistent = persistent
        return result

    def __init__(self, data: Any = None, *, persistent: bool = True) -> None:
        """Does nothing: ``__new__`` has made the tensor, which must not be initialised a second time."""

    def __deepcopy__(self, memo: dict) -> "Buffer":
        if id(self) in memo:
            return memo[id(self)]
        result = type(self)(self.data.clone(), persistent=self.persistent)
        memo[id(self)] = result
        return result

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return (_rebuild_buffer, (self.data, self.persistent))


__all__ = ["Buffer", "Parameter", "UninitializedParameter", "is_lazy"]
