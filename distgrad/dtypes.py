"""Dtypes and PyTorch's type promotion; every dtype is one object, compared by identity.

Promotion is defined by the PyTorch page "Tensor Attributes", section torch.dtype: operands form three
classes (tensors with dimensions, 0-d tensors, Python numbers) and a lower class decides the result only
when its category (bool < integer < floating < complex) is higher.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_CATEGORY = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3, "V": 2}


class dtype:
    """A tensor's element type, named as PyTorch names it.

    Attributes: `name` ("float32"), `numpy` (the numpy dtype), `itemsize` (bytes), `category`
    (0 bool, 1 integer, 2 floating, 3 complex), `is_floating_point`, `is_complex`, `is_signed`.
    """

    __slots__ = ("category", "is_complex", "is_floating_point", "is_signed", "itemsize", "name", "numpy")

    def __init__(self, name: str, numpy_dtype: np.dtype) -> None:
        self.name = name
        self.numpy = numpy_dtype
        self.itemsize = numpy_dtype.itemsize
        self.category = 2 if name == "bfloat16" else _CATEGORY[numpy_dtype.kind]
        self.is_floating_point = self.category == 2
        self.is_complex = self.category == 3
        self.is_signed = numpy_dtype.kind not in "bu"

    def __repr__(self) -> str:
        return f"distgrad.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (named, (self.name,))

    def to_complex(self) -> dtype:
        """Gives the complex dtype of this precision."""
        return complex128 if self is float64 or self is complex128 else complex64

    def to_real(self) -> dtype:
        """Gives the real dtype of this precision."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)


def _bfloat16_numpy() -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


# numpy's type codes of the dtypes that are summed in float32: float16 and bfloat16. Asking for a dtype's name is slow.
HALVES = "eE"


class _LazyBfloat16(dtype):
    """bfloat16, whose numpy dtype comes from ml_dtypes when it is first asked for."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self.name = "bfloat16"
        self.itemsize = 2
        self.category = 2
        self.is_floating_point, self.is_complex, self.is_signed = True, False, True
        self._found: np.dtype | None = None

    @property
    def numpy(self) -> np.dtype:  # type: ignore[override]  # the slot of the base class, made lazy
        if self._found is None:
            self._found = _bfloat16_numpy()
        return self._found


bool_ = dtype("bool", np.dtype(np.bool_))
uint8 = dtype("uint8", np.dtype(np.uint8))
uint16 = dtype("uint16", np.dtype(np.uint16))
uint32 = dtype("uint32", np.dtype(np.uint32))
uint64 = dtype("uint64", np.dtype(np.uint64))
int8 = dtype("int8", np.dtype(np.int8))
int16 = dtype("int16", np.dtype(np.int16))
int32 = dtype("int32", np.dtype(np.int32))
int64 = dtype("int64", np.dtype(np.int64))
float16 = dtype("float16", np.dtype(np.float16))
bfloat16 = _LazyBfloat16()
float32 = dtype("float32", np.dtype(np.float32))
float64 = dtype("float64", np.dtype(np.float64))
complex64 = dtype("complex64", np.dtype(np.complex64))
complex128 = dtype("complex128", np.dtype(np.complex128))

ALL = (bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64,
       complex64, complex128)
_BY_NAME = {d.name: d for d in ALL}
_BY_NUMPY = {d.numpy: d for d in ALL if d is not bfloat16}

_default = [float32]


def named(name: str) -> dtype:
    """Gives the dtype of that name; KeyError names what is known."""
    return _BY_NAME[name]


def default() -> dtype:
    """Gives the default floating dtype (float32 unless `set_default_dtype` changed it)."""
    return _default[0]


def set_default(value: dtype) -> None:
    """Sets the default floating dtype; TypeError for a dtype that is not floating."""
    if not isinstance(value, dtype) or not value.is_floating_point:
        raise TypeError(f"set_default_dtype: only floating-point types are allowed, got {value!r}")
    _default[0] = value


def from_numpy(numpy_dtype: np.dtype | type) -> dtype:
    """Gives the dtype of a numpy dtype; TypeError for one without counterpart (object, str, big-endian)."""
    found = _BY_NUMPY.get(numpy_dtype)  # type: ignore[arg-type]  # np.dtype hashes as its own kind only
    if found is not None:
        return found
    given = np.dtype(numpy_dtype)
    found = _BY_NUMPY.get(given)
    if found is not None and given.isnative:
        return found
    if given.name == "bfloat16":
        return bfloat16
    raise TypeError(
        f"numpy dtype {given} has no tensor dtype; allowed: {', '.join(d.name for d in ALL)} in native byte order"
    )


def as_dtype(value: Any) -> dtype:
    """Gives a dtype from ours, Python's (`float`, `int`, `bool`, `complex`) or numpy's."""
    if isinstance(value, dtype):
        return value
    if value is float:
        return float64
    if value is int:
        return int64
    if value is bool:
        return bool_
    if value is complex:
        return complex128
    return from_numpy(value)


def of_number(kind: type) -> dtype:
    """Gives the dtype a Python number of that type has as a tensor."""
    if kind is bool:
        return bool_
    if kind is int:
        return int64
    if kind is float:
        return default()
    return default().to_complex()


@cache
def promote_types(a: dtype, b: dtype) -> dtype:
    """Gives the smallest dtype that holds both, by PyTorch's table."""
    if a is b:
        return a
    if a.category < b.category:
        a, b = b, a
    if a.category > b.category:
        if a.category == 3 and b.category == 2:
            return complex128 if a is complex128 or b is float64 else complex64
        return a
    if a.category == 2 and {a, b} == {float16, bfloat16}:
        return float32
    if a.category == 2:
        return a if (a.itemsize, a is not bfloat16) > (b.itemsize, b is not bfloat16) else b
    return from_numpy(np.promote_types(a.numpy, b.numpy)) if uint64 not in (a, b) else uint64


def _combine(higher: dtype | None, lower: dtype | None) -> dtype | None:
    if higher is None or lower is None:
        return higher if lower is None else lower
    if higher.category == 3:
        return higher
    if higher.category == 2:
        return higher.to_complex() if lower.category == 3 else higher
    if higher is bool_ or lower.category >= 2:
        return promote_types(higher, lower)
    return higher


def result_type(operands: list[Any]) -> dtype:
    """Gives the dtype of an arithmetic result.

    `operands` are objects with `.dtype` and `.ndim` (metas) or Python number *types*.
    """
    with_dims = zero_dim = number = None
    for operand in operands:
        if isinstance(operand, type):
            found = of_number(operand)
            number = found if number is None else promote_types(number, found)
        elif operand.ndim:
            with_dims = operand.dtype if with_dims is None else promote_types(with_dims, operand.dtype)
        else:
            zero_dim = operand.dtype if zero_dim is None else promote_types(zero_dim, operand.dtype)
    found_type = _combine(_combine(with_dims, zero_dim), number)
    assert found_type is not None, "result_type needs at least one operand"
    return found_type
