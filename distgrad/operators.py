"""The Tensor's operators, attached to the class one by one.

Invariant: an operator is the op of that name; it answers NotImplemented for what is neither tensor, array nor number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad import writing
from distgrad.dispatch import NUMBERS
from distgrad.functions import contraction, data, elementwise, movement, subscript
from distgrad.ops import elementwise as ops
from distgrad.temporaries import made, spare_operand
from distgrad.tensor import Tensor

# mypy: disable-error-code="attr-defined,index,method-assign,misc,operator"
# The attributes are not declared in the class body: this module is where they are.

Method = Callable[..., Any]


def _operand(value: Any) -> Any:
    """Gives what an operator can take, or NotImplemented."""
    if isinstance(value, Tensor | int | float | complex):
        return value
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "biufc" else NotImplemented
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return data.from_numpy(value)
    return NotImplemented


def _arithmetic(function: Method) -> np.ufunc | None:
    """Gives the kernel of an op that can be computed over the memory of an operand of the result's shape and dtype."""
    kernel = getattr(function, "kernel", None)
    return kernel if kernel in (np.add, np.subtract, np.multiply, np.true_divide) else None


def operator(function: Method) -> Method:
    """Gives `self <operator> other`; NotImplemented for what is neither tensor, array nor number."""

    def method(self: Tensor, other: Any) -> Any:
        if type(other) not in NUMBERS and type(other) is not Tensor:
            other = _operand(other)
            if other is NotImplemented:
                return NotImplemented
        if made and kernel is not None:
            spare = spare_operand(self, other)
            if spare is not None and writing.compute_over(spare, kernel, self, other):
                return spare
        return function(self, other)

    kernel = _arithmetic(function)
    return method


def reflected(function: Method) -> Method:
    """Gives `other <operator> self`, likewise."""

    def method(self: Tensor, other: Any) -> Any:
        if not isinstance(self, Tensor):  # called as a function of the class
            raise TypeError(f"this operator requires a Tensor, not {type(self).__name__}")
        other = _operand(other)
        if other is NotImplemented:
            return NotImplemented
        if made and kernel is not None:
            spare = spare_operand(other, self)
            if spare is not None and writing.compute_over(spare, kernel, other, self):
                return spare
        return function(other, self)

    kernel = _arithmetic(function)
    return method


def between_tensors(function: Method, *, swapped: bool = False) -> Method:
    """Gives an operator that takes no number: `@`."""

    def method(self: Tensor, other: Any) -> Any:
        other = _operand(other)
        if not isinstance(other, Tensor):
            return NotImplemented
        return function(other, self) if swapped else function(self, other)

    return method


def _updating(function: Method) -> Method:
    """Gives `self <operator>= other`."""

    def method(self: Tensor, other: Any) -> Any:
        other = _operand(other)
        if other is NotImplemented:
            return NotImplemented
        return self if writing.compute(self, kernel, other) else self._assign(function(self, other))

    kernel = getattr(function, "kernel", None)
    return method


def _setitem(self: Tensor, key: Any, value: Any) -> None:
    if not writing.put(self, key, value):
        self._assign(subscript.setitem(self, key, value))


def _dlpack(self: Tensor, **options: Any) -> Any:
    """Gives the values to another library, which shares their memory; RuntimeError when gradients are recorded."""
    return self.numpy().__dlpack__(**options)


def _dlpack_device(self: Tensor) -> tuple[int, int]:
    return (1, 0)


def _array_wrap(self: Tensor, array: np.ndarray, context: Any = None, return_scalar: bool = False) -> Tensor:
    """Makes what a numpy function computed from a tensor a tensor again."""
    return data.from_numpy(array)


def _reversed(self: Tensor) -> Tensor:
    return movement.flip(self, tuple(range(self.ndim))) if self.ndim else self


def _inverted(self: Tensor) -> Tensor:
    if self.dtype.category > 1:
        raise TypeError(
            f"~ (operator.invert) is only implemented on integer and Boolean-type tensors, not {self.dtype.name}"
        )
    return elementwise.bitwise_not(self)


Tensor.__getitem__ = subscript.getitem
Tensor.__setitem__ = _setitem  # type: ignore[assignment]  # a Tensor, where the stub says its base
Tensor.__reversed__ = _reversed
Tensor.__dlpack__ = _dlpack
Tensor.__dlpack_device__ = _dlpack_device
Tensor.__array_wrap__ = _array_wrap

Tensor.__neg__ = elementwise.neg
Tensor.__pos__ = elementwise.positive
Tensor.__abs__ = elementwise.abs
Tensor.__invert__ = _inverted  # type: ignore[assignment]  # as above

Tensor.__add__ = operator(ops.add)
Tensor.__sub__ = operator(ops.sub)
Tensor.__mul__ = operator(ops.mul)
Tensor.__truediv__ = operator(ops.div)
Tensor.__floordiv__ = operator(ops.floor_divide)
Tensor.__mod__ = operator(ops.remainder)
Tensor.__pow__ = operator(elementwise.pow)
Tensor.__matmul__ = between_tensors(contraction.matmul)
Tensor.__and__ = operator(ops.bitwise_and)
Tensor.__or__ = operator(ops.bitwise_or)
Tensor.__xor__ = operator(ops.bitwise_xor)
Tensor.__lshift__ = operator(ops.bitwise_left_shift)
Tensor.__rshift__ = operator(ops.bitwise_right_shift)
Tensor.__eq__ = operator(ops.eq)
Tensor.__ne__ = operator(ops.ne)
Tensor.__lt__ = operator(ops.lt)
Tensor.__le__ = operator(ops.le)
Tensor.__gt__ = operator(ops.gt)
Tensor.__ge__ = operator(ops.ge)

Tensor.__radd__ = reflected(ops.add)
Tensor.__rsub__ = reflected(ops.sub)
Tensor.__rmul__ = reflected(ops.mul)
Tensor.__rtruediv__ = Tensor.__rdiv__ = reflected(ops.div)
Tensor.__rfloordiv__ = reflected(ops.floor_divide)
Tensor.__rmod__ = reflected(ops.remainder)
Tensor.__rpow__ = reflected(elementwise.pow)
Tensor.__rmatmul__ = between_tensors(contraction.matmul, swapped=True)
Tensor.__rand__ = reflected(ops.bitwise_and)
Tensor.__ror__ = reflected(ops.bitwise_or)
Tensor.__rxor__ = reflected(ops.bitwise_xor)
Tensor.__rlshift__ = reflected(ops.bitwise_left_shift)
Tensor.__rrshift__ = reflected(ops.bitwise_right_shift)

Tensor.__iadd__ = _updating(ops.add)
Tensor.__isub__ = _updating(ops.sub)
Tensor.__imul__ = _updating(ops.mul)
Tensor.__itruediv__ = Tensor.__idiv__ = _updating(ops.div)
Tensor.__ifloordiv__ = _updating(ops.floor_divide)
Tensor.__imod__ = _updating(ops.remainder)
Tensor.__ipow__ = _updating(elementwise.pow)
Tensor.__iand__ = _updating(ops.bitwise_and)
Tensor.__ior__ = _updating(ops.bitwise_or)
Tensor.__ixor__ = _updating(ops.bitwise_xor)
Tensor.__ilshift__ = _updating(ops.bitwise_left_shift)
Tensor.__irshift__ = _updating(ops.bitwise_right_shift)
