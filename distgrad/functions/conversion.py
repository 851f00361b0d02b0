"""Conversions and questions: to another dtype, what a dtype holds, what a tensor is.

Invariant: nothing here reads a tensor's values, except the questions whose answer is a Python bool about them (`equal`,
`allclose`, `is_nonzero`); a conversion to what a tensor is already gives the tensor itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.device import device as Device
from distgrad.dtypes import dtype as Dtype
from distgrad.functions.elementwise import isclose
from distgrad.op import is_tensor
from distgrad.ops.elementwise import cast, eq
from distgrad.ops.movement import clone

__all__ = ["allclose", "can_cast", "element_size", "equal", "finfo", "get_default_dtype", "iinfo", "is_complex",
           "is_floating_point", "is_nonzero", "is_same_size", "is_signed", "numel", "promote_types", "result_type",
           "to", "to_dtype", "type_as", "type_name"]

Tensor = Any

_TYPE_NAMES = {
    "FloatTensor": dtypes.float32, "DoubleTensor": dtypes.float64, "HalfTensor": dtypes.float16,
    "BFloat16Tensor": dtypes.bfloat16, "ByteTensor": dtypes.uint8, "CharTensor": dtypes.int8,
    "ShortTensor": dtypes.int16, "IntTensor": dtypes.int32, "LongTensor": dtypes.int64, "BoolTensor": dtypes.bool_,
    "ComplexFloatTensor": dtypes.complex64, "ComplexDoubleTensor": dtypes.complex128,
}  # fmt: skip


# To another dtype -------------------------------------------------------------------------------------------


def to_dtype(input: Tensor, dtype: Any) -> Tensor:
    """Gives the tensor in another dtype, itself when it has that one; gradients flow."""
    kind = dtypes.as_dtype(dtype)
    return input if input.dtype is kind else cast(input, dtype=kind.name)


def to(input: Tensor, *args: Any, **options: Any) -> Tensor:
    """Gives the tensor with another dtype or device, itself when nothing changes (PyTorch: torch.Tensor.to).

    Called as to(dtype), to(device, dtype) or to(other), with `copy`, `non_blocking` and `memory_format`. RuntimeError
    for a device that is not the CPU, TypeError for anything else.
    """
    keywords = ("dtype", "device", "other", "copy", "non_blocking", "memory_format")
    named = {key: options.pop(key, None) for key in keywords}
    if options:
        raise TypeError(f"to() got an unexpected keyword argument '{next(iter(options))}'; allowed: {', '.join(named)}")
    flags: list[bool] = []
    kind, place = named["dtype"], named["device"]
    for value in (*args, named["other"]):
        if isinstance(value, bool):
            flags.append(value)
        elif isinstance(value, Dtype | type):
            kind = value
        elif is_tensor(value):
            kind = value.dtype
        elif isinstance(value, str | Device):
            place = value
        elif value is not None:
            raise TypeError(
                f"to() received an invalid combination of arguments - got a {type(value).__name__}; give a dtype, "
                "a device "
                "or a tensor"
            )
    if len(flags) > 2:
        raise TypeError("to() takes at most two flags after the dtype: non_blocking and copy")
    if place is not None:
        Device(place)
    result = input if kind is None else to_dtype(input, kind)
    wants_copy = named["copy"] or (len(flags) == 2 and flags[1])
    return clone(input) if wants_copy and result is input else result


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """Gives the tensor in the dtype of another one (PyTorch: torch.Tensor.type_as)."""
    return to_dtype(input, other.dtype)


def type_name(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Gives the name of the tensor's type ("distgrad.FloatTensor"), or the tensor as `dtype` (PyTorch: Tensor.type).

    `dtype` is a dtype, such a name or such a class; ValueError for an unknown name.
    """
    if dtype is None:
        return "distgrad." + next(name for name, kind in _TYPE_NAMES.items() if kind is input.dtype)
    if isinstance(dtype, str):
        kind = _TYPE_NAMES.get(dtype.rpartition(".")[2])
        if kind is None:
            raise ValueError(f"type: invalid type: {dtype!r}; allowed: {', '.join(_TYPE_NAMES)}, or a dtype")
        dtype = kind
    elif isinstance(dtype, type):
        dtype = getattr(dtype, "dtype", dtype)  # a class such as FloatTensor
    return to_dtype(input, dtype)


# What dtypes hold -------------------------------------------------------------------------------------------


def get_default_dtype() -> Dtype:
    """Gives the dtype of new floating-point tensors (PyTorch: torch.get_default_dtype)."""
    return dtypes.default()


def promote_types(type1: Dtype, type2: Dtype) -> Dtype:
    """Gives the smallest dtype that holds both; TypeError for what is no dtype (PyTorch: torch.promote_types)."""
    for kind in (type1, type2):
        if not isinstance(kind, Dtype):
            raise TypeError(f"promote_types(): a dtype is needed, got {type(kind).__name__}")
    return dtypes.promote_types(type1, type2)


def result_type(tensor1: Any, tensor2: Any) -> Dtype:
    """Gives the dtype of an arithmetic result of two tensors or numbers (PyTorch: torch.result_type)."""
    return dtypes.result_type([value if is_tensor(value) else type(value) for value in (tensor1, tensor2)])


def can_cast(from_: Dtype, to: Dtype) -> bool:
    """Says whether values of one dtype may be written into another: never to a lower category.

    PyTorch: torch.can_cast.
    """
    if from_.category > to.category:
        return False
    return from_.category != 1 or to.category != 0


def _numpy_limits(kind: Dtype) -> Any:
    if kind is dtypes.bfloat16:
        import ml_dtypes

        return ml_dtypes.finfo(kind.numpy)
    return np.finfo(kind.to_real().numpy)


class finfo:
    """The limits of a floating-point dtype (the default one when left out). PyTorch: torch.finfo.

    Attributes, Python numbers: `bits`, `eps`, `max`, `min`, `tiny`, `smallest_normal`, `resolution`; `dtype` (name).
    """

    def __init__(self, dtype: Any = None) -> None:
        kind = dtypes.default() if dtype is None else dtypes.as_dtype(dtype)
        if kind.category < 2:
            raise TypeError(f"torch.finfo() requires a floating point input type, got {kind!r}; use iinfo for integers")
        limits = _numpy_limits(kind)
        self.bits = int(limits.bits)
        self.eps, self.max, self.min = float(limits.eps), float(limits.max), float(limits.min)
        self.tiny = self.smallest_normal = float(limits.tiny)
        self.resolution = float(f"1e-{int(limits.precision)}")
        self.dtype = kind.to_real().name

    def __repr__(self) -> str:
        names = ("resolution", "min", "max", "eps", "smallest_normal", "tiny")
        numbers = [f"{name}={getattr(self, name):.6g}" for name in names]
        return f"finfo({', '.join(numbers)}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("finfo", self.dtype))


class iinfo:
    """The limits of an integer dtype. PyTorch: torch.iinfo. Attributes: `bits`, `max`, `min`, `dtype` (name)."""

    def __init__(self, dtype: Any) -> None:
        kind = dtypes.as_dtype(dtype)
        if kind.category != 1:
            raise TypeError(f"torch.iinfo() requires an integer input type, got {kind!r}; use finfo for floating point")
        limits = np.iinfo(kind.numpy)
        self.bits, self.max, self.min, self.dtype = int(limits.bits), int(limits.max), int(limits.min), kind.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("iinfo", self.dtype))


# What a tensor is -------------------------------------------------------------------------------------------


def numel(input: Tensor) -> int:
    """Gives the number of elements (PyTorch: torch.numel)."""
    return input.shape.numel()


def element_size(input: Tensor) -> int:
    """Gives the bytes of one element (PyTorch: torch.Tensor.element_size)."""
    return input.dtype.itemsize


def is_floating_point(input: Tensor) -> bool:
    """Says whether the dtype is floating point (PyTorch: torch.is_floating_point)."""
    return input.dtype.is_floating_point


def is_complex(input: Tensor) -> bool:
    """Says whether the dtype is complex (PyTorch: torch.is_complex)."""
    return input.dtype.is_complex


def is_signed(input: Tensor) -> bool:
    """Says whether the dtype has negative numbers (PyTorch: torch.is_signed)."""
    return input.dtype.is_signed


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Says whether two tensors have the same shape (PyTorch: torch.is_same_size)."""
    return input.shape == other.shape


def is_nonzero(input: Tensor) -> bool:
    """Says whether the only element is not zero; RuntimeError when there is not exactly one (PyTorch:
    torch.is_nonzero).
    """
    return bool(input)


def equal(input: Tensor, other: Tensor) -> bool:
    """Says whether two tensors have the same shape and elements; NaN equals nothing (PyTorch: torch.equal)."""
    if not is_tensor(other):
        raise TypeError(f"equal(): argument 'other' must be Tensor, not {type(other).__name__}")
    return input.shape == other.shape and bool(eq(input, other).all())


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Says whether all elements satisfy |input - other| <= atol + rtol * |other| (PyTorch: torch.allclose).

    RuntimeError for different dtypes.
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).all())
