"""The Tensor's in-place methods, attached to the class one by one.

Invariant: an in-place method is derived from a function by `inplace` (same shape) or `reshaping` (a view of the same
memory), or it is slice assignment to the whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from distgrad import writing
from distgrad.functions import (
    activation,
    complexes,
    contraction,
    creation,
    cumulative,
    elementwise,
    indexing,
    layout,
    movement,
    special,
    subscript,
)
from distgrad.functions.late import late
from distgrad.grad_mode import mode
from distgrad.ops import elementwise as ops
from distgrad.tensor import Tensor

# mypy: disable-error-code="attr-defined,index,method-assign,misc,operator"
# The attributes are not declared in the class body: this module is where they are.

Method = Callable[..., Any]

# Functions that with one other operand are an op: their options do without it.
_PLAIN: dict[Method, Any] = {elementwise.add: ops.add, elementwise.sub: ops.sub, elementwise.div: ops.div}
_NUMBERS = (float, int)


def inplace(function: Method) -> Method:
    """Gives the in-place variant of a function: the result is written into the tensor, which is given back.

    RuntimeError when the result has another shape or a dtype of a higher category, and for a leaf that requires grad.
    """

    kernel = getattr(_PLAIN.get(function, function), "kernel", None)

    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if not options and writing.compute(self, kernel, *args):
            return self
        return self._assign(function(self, *args, **options))

    return method


def _clamp_(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limits each element to [min, max], in place."""
    if type(min) in _NUMBERS and type(max) in _NUMBERS and writing.compute(self, np.clip, min, max):
        return self
    return self._assign(elementwise.clamp(self, min, max))


def reshaping(function: Method) -> Method:
    """Gives the in-place variant of a view function: the tensor becomes that view of its own memory.

    RuntimeError for a leaf that requires grad. Views taken of the tensor before do not see later writes to it.
    """

    def method(self: Tensor, *args: Any, **options: Any) -> Tensor:
        if mode.enabled and self.requires_grad and self.is_leaf:
            raise RuntimeError("a leaf Variable that requires grad is being used in an in-place operation.")
        before = object.__new__(Tensor)
        before.__dict__.update(self.__dict__)
        view = function(before, *args, **options)
        if view is not before:
            self._node, self._view, self._clock, self._shares_numpy = view._now(), view._view, None, False
            self._fn, self._index, self._needs_grad = view._fn, view._index, view._needs_grad
        return self

    return method


def _copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Writes the values of another tensor, broadcast and cast, into this one; gradients flow to it."""
    if not isinstance(src, Tensor):
        raise TypeError(f"copy_(): argument 'other' must be Tensor, not {type(src).__name__}")
    if writing.put(self, Ellipsis, src):
        return self
    return self._assign(subscript.setitem(self, Ellipsis, src))


_filled = inplace(late("filling", "fill"))


def _fill_(self: Tensor, value: Any) -> Tensor:
    """Writes one number (or 0-d tensor) into every element."""
    return self if type(value) in _NUMBERS and writing.put(self, Ellipsis, value) else _filled(self, value)


def _zero_(self: Tensor) -> Tensor:
    """Writes zero into every element."""
    if writing.put(self, Ellipsis, 0):
        return self
    return self._assign(subscript.setitem(self, Ellipsis, 0))


def _resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Gives the tensor another shape: elements keep their order, new ones are zeros.

    RuntimeError for a tensor that requires grad.
    """
    if self.requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    shape = creation.as_size("resize_", sizes)
    count = prod(shape)
    flat = layout.reshape(self, -1)
    if count > flat.shape[0]:
        flat = movement.cat([flat, creation.new_zeros(self, count - flat.shape[0])])
    return self._resize(layout.reshape(movement.narrow(flat, 0, 0, count), shape))


def _resize_as_(self: Tensor, the_template: Tensor, memory_format: Any = None) -> Tensor:
    """Gives the tensor the shape of another one, as `resize_` does."""
    return _resize_(self, *the_template.shape)


Tensor.copy_ = _copy_
Tensor.zero_ = _zero_
Tensor.resize_ = _resize_
Tensor.resize_as_ = _resize_as_

Tensor.abs_ = inplace(elementwise.abs)
Tensor.absolute_ = inplace(elementwise.absolute)
Tensor.acos_ = inplace(elementwise.acos)
Tensor.acosh_ = inplace(elementwise.acosh)
Tensor.add_ = inplace(elementwise.add)
Tensor.addcdiv_ = inplace(elementwise.addcdiv)
Tensor.addcmul_ = inplace(elementwise.addcmul)
Tensor.arccos_ = inplace(elementwise.arccos)
Tensor.arccosh_ = inplace(elementwise.arccosh)
Tensor.arcsin_ = inplace(elementwise.arcsin)
Tensor.arcsinh_ = inplace(elementwise.arcsinh)
Tensor.arctan_ = inplace(elementwise.arctan)
Tensor.arctan2_ = inplace(elementwise.arctan2)
Tensor.arctanh_ = inplace(elementwise.arctanh)
Tensor.asin_ = inplace(elementwise.asin)
Tensor.asinh_ = inplace(elementwise.asinh)
Tensor.atan_ = inplace(elementwise.atan)
Tensor.atan2_ = inplace(elementwise.atan2)
Tensor.atanh_ = inplace(elementwise.atanh)
Tensor.bitwise_and_ = inplace(elementwise.bitwise_and)
Tensor.bitwise_left_shift_ = inplace(elementwise.bitwise_left_shift)
Tensor.bitwise_not_ = inplace(elementwise.bitwise_not)
Tensor.bitwise_or_ = inplace(elementwise.bitwise_or)
Tensor.bitwise_right_shift_ = inplace(elementwise.bitwise_right_shift)
Tensor.bitwise_xor_ = inplace(elementwise.bitwise_xor)
Tensor.ceil_ = inplace(elementwise.ceil)
Tensor.clamp_ = _clamp_
Tensor.clamp_max_ = inplace(elementwise.clamp_max)
Tensor.clamp_min_ = inplace(elementwise.clamp_min)
Tensor.clip_ = _clamp_
Tensor.copysign_ = inplace(elementwise.copysign)
Tensor.cos_ = inplace(elementwise.cos)
Tensor.cosh_ = inplace(elementwise.cosh)
Tensor.deg2rad_ = inplace(elementwise.deg2rad)
Tensor.digamma_ = inplace(elementwise.digamma)
Tensor.div_ = inplace(elementwise.div)
Tensor.divide_ = inplace(elementwise.divide)
Tensor.eq_ = inplace(elementwise.eq)
Tensor.erf_ = inplace(elementwise.erf)
Tensor.erfc_ = inplace(elementwise.erfc)
Tensor.erfinv_ = inplace(elementwise.erfinv)
Tensor.exp_ = inplace(elementwise.exp)
Tensor.exp2_ = inplace(elementwise.exp2)
Tensor.expm1_ = inplace(elementwise.expm1)
Tensor.fix_ = inplace(elementwise.fix)
Tensor.float_power_ = inplace(elementwise.float_power)
Tensor.floor_ = inplace(elementwise.floor)
Tensor.floor_divide_ = inplace(elementwise.floor_divide)
Tensor.fmod_ = inplace(elementwise.fmod)
Tensor.frac_ = inplace(elementwise.frac)
Tensor.gcd_ = inplace(elementwise.gcd)
Tensor.ge_ = inplace(elementwise.ge)
Tensor.greater_ = inplace(elementwise.greater)
Tensor.greater_equal_ = inplace(elementwise.greater_equal)
Tensor.gt_ = inplace(elementwise.gt)
Tensor.heaviside_ = inplace(elementwise.heaviside)
Tensor.hypot_ = inplace(elementwise.hypot)
Tensor.lcm_ = inplace(elementwise.lcm)
Tensor.ldexp_ = inplace(elementwise.ldexp)
Tensor.le_ = inplace(elementwise.le)
Tensor.lerp_ = inplace(elementwise.lerp)
Tensor.less_ = inplace(elementwise.less)
Tensor.less_equal_ = inplace(elementwise.less_equal)
Tensor.lgamma_ = inplace(elementwise.lgamma)
Tensor.log_ = inplace(elementwise.log)
Tensor.log10_ = inplace(elementwise.log10)
Tensor.log1p_ = inplace(elementwise.log1p)
Tensor.log2_ = inplace(elementwise.log2)
Tensor.logical_and_ = inplace(elementwise.logical_and)
Tensor.logical_not_ = inplace(elementwise.logical_not)
Tensor.logical_or_ = inplace(elementwise.logical_or)
Tensor.logical_xor_ = inplace(elementwise.logical_xor)
Tensor.logit_ = inplace(elementwise.logit)
Tensor.lt_ = inplace(elementwise.lt)
Tensor.mul_ = inplace(elementwise.mul)
Tensor.multiply_ = inplace(elementwise.multiply)
Tensor.nan_to_num_ = inplace(elementwise.nan_to_num)
Tensor.ne_ = inplace(elementwise.ne)
Tensor.neg_ = inplace(elementwise.neg)
Tensor.negative_ = inplace(elementwise.negative)
Tensor.nextafter_ = inplace(elementwise.nextafter)
Tensor.not_equal_ = inplace(elementwise.not_equal)
Tensor.polygamma_ = inplace(elementwise.polygamma)
Tensor.pow_ = inplace(elementwise.pow)
Tensor.rad2deg_ = inplace(elementwise.rad2deg)
Tensor.reciprocal_ = inplace(elementwise.reciprocal)
Tensor.remainder_ = inplace(elementwise.remainder)
Tensor.round_ = inplace(elementwise.round)
Tensor.rsqrt_ = inplace(elementwise.rsqrt)
Tensor.sgn_ = inplace(elementwise.sgn)
Tensor.sigmoid_ = inplace(elementwise.sigmoid)
Tensor.sign_ = inplace(elementwise.sign)
Tensor.sin_ = inplace(elementwise.sin)
Tensor.sinc_ = inplace(elementwise.sinc)
Tensor.sinh_ = inplace(elementwise.sinh)
Tensor.sqrt_ = inplace(elementwise.sqrt)
Tensor.square_ = inplace(elementwise.square)
Tensor.sub_ = inplace(elementwise.sub)
Tensor.subtract_ = inplace(elementwise.subtract)
Tensor.tan_ = inplace(elementwise.tan)
Tensor.tanh_ = inplace(elementwise.tanh)
Tensor.true_divide_ = inplace(elementwise.true_divide)
Tensor.trunc_ = inplace(elementwise.trunc)
Tensor.xlogy_ = inplace(elementwise.xlogy)
Tensor.relu_ = inplace(activation.relu)
Tensor.cumprod_ = inplace(cumulative.cumprod)
Tensor.cumsum_ = inplace(cumulative.cumsum)
Tensor.addbmm_ = inplace(contraction.addbmm)
Tensor.addmm_ = inplace(contraction.addmm)
Tensor.addmv_ = inplace(contraction.addmv)
Tensor.addr_ = inplace(contraction.addr)
Tensor.baddbmm_ = inplace(contraction.baddbmm)
Tensor.squeeze_ = reshaping(layout.squeeze)
Tensor.swapaxes_ = reshaping(layout.swapaxes)
Tensor.swapdims_ = reshaping(layout.swapdims)
Tensor.t_ = reshaping(layout.t)
Tensor.transpose_ = reshaping(layout.transpose)
Tensor.unsqueeze_ = reshaping(layout.unsqueeze)
Tensor.tril_ = inplace(movement.tril)
Tensor.triu_ = inplace(movement.triu)
Tensor.index_add_ = inplace(indexing.index_add)
Tensor.index_copy_ = inplace(indexing.index_copy)
Tensor.index_fill_ = inplace(indexing.index_fill)
Tensor.index_put_ = inplace(indexing.index_put)
Tensor.index_reduce_ = inplace(indexing.index_reduce)
Tensor.masked_fill_ = inplace(indexing.masked_fill)
Tensor.masked_scatter_ = inplace(indexing.masked_scatter)
Tensor.put_ = inplace(indexing.put)
Tensor.scatter_ = inplace(indexing.scatter)
Tensor.scatter_add_ = inplace(indexing.scatter_add)
Tensor.scatter_reduce_ = inplace(indexing.scatter_reduce)
Tensor.conj_physical_ = inplace(complexes.conj_physical)
Tensor.i0_ = inplace(special.i0)
Tensor.igamma_ = inplace(special.igamma)
Tensor.igammac_ = inplace(special.igammac)
Tensor.mvlgamma_ = inplace(special.mvlgamma)
Tensor.fill_ = _fill_
Tensor.renorm_ = inplace(late("linalg_distance", "renorm"))
Tensor.as_strided_ = inplace(late("strided", "as_strided"))
