"""Functions that make tensors from sizes and numbers, with PyTorch's signatures.

Invariant: what every such function accepts alike (`dtype`, `device`, `requires_grad`, `layout`, ...) is handled in one
place, `finish`; a size is always a tuple of Python ints and a fill value a Python number before an op sees it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.device import device as Device
from distgrad.op import is_tensor
from distgrad.ops import creation as ops
from distgrad.ops.collective import redistribute
from distgrad.placement import REPLICATE, Partial
from distgrad.settings import strided

__all__ = ["arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace", "logspace",
           "new_empty", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "range", "scalar_tensor",
           "tril_indices", "triu_indices", "zeros", "zeros_like"]

Tensor = Any
Number = int | float | bool | complex

_OPTIONS = frozenset(("device", "layout", "requires_grad", "pin_memory", "memory_format", "names"))


# Arguments --------------------------------------------------------------------------------------------------


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raises for unknown keywords (TypeError) and for a device other than the CPU (RuntimeError)."""
    for key, value in options.items():
        if key not in _OPTIONS:
            allowed = ", ".join(sorted(_OPTIONS))
            raise TypeError(f"{name}() got an unexpected keyword argument '{key}'; allowed: {allowed}")
        if key == "device" and value is not None:
            Device(value)
        if key == "layout" and value is not None and value is not strided:
            raise RuntimeError(f"{name}(): layout {value} is not available; all tensors are strided")


def finish(name: str, result: Tensor, options: dict[str, Any], like: Tensor | None = None) -> Tensor:
    """Applies the keywords that all creation functions share to a new tensor.

    In a session it is placed as `like` is; without one, what needs gradients is replicated, as parameters are.
    """
    if options:
        check_options(name, options)
    leaf = bool(options.get("requires_grad"))
    placement = result._now().spec.placement
    if placement is not None and (leaf or like is not None):
        wanted = REPLICATE if like is None else like._now().spec.placement
        if wanted is not None and wanted is not placement:
            result = redistribute(result, placement=REPLICATE if isinstance(wanted, Partial) else wanted)
    return result.requires_grad_() if leaf else result


def as_number(name: str, value: Any) -> Number:
    """Gives a Python number from one, a numpy scalar or a tensor with one element; TypeError otherwise."""
    if type(value) in (int, float, bool, complex):
        return value
    if is_tensor(value) or isinstance(value, (np.generic, np.ndarray)):
        return value.item()
    if isinstance(value, (int, float, complex)):  # a subclass such as IntEnum
        return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else complex(value)
    raise TypeError(f"{name}(): a number is needed, got {type(value).__name__}")


def as_size(name: str, size: tuple[Any, ...]) -> tuple[int, ...]:
    """Gives the shape named by `f(2, 3)` or `f((2, 3))`; TypeError for non-integers, RuntimeError for negative ones."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = tuple(size[0])
    shape = []
    for extent in size:
        index = getattr(extent, "__index__", None)
        if index is None:
            raise TypeError(f"{name}(): argument 'size' must be a tuple of ints, got {type(extent).__name__} in {size}")
        shape.append(index())
    if any(extent < 0 for extent in shape):
        negative = next(extent for extent in shape if extent < 0)
        raise RuntimeError(f"{name}: Trying to create tensor with negative dimension {negative}: {shape}")
    return tuple(shape)


def _size_given(name: str, size: tuple[Any, ...], options: dict[str, Any]) -> tuple[int, ...]:
    if "size" in options:
        if size:
            raise TypeError(f"{name}() got 'size' by position and by keyword; give one")
        size = (options.pop("size"),)
    return as_size(name, size)


def fill_number(name: str, value: Number, kind: dtypes.dtype) -> Number:
    """Gives a number as a dtype stores it; RuntimeError when it is out of the dtype's range."""
    if kind.category == 0:
        return bool(value)
    if kind.category == 3:
        return value
    if isinstance(value, complex):
        if value.imag:
            raise RuntimeError(f"{name}: value {value} cannot be converted to type {kind.name} without overflow")
        value = value.real
    if kind.category == 2:
        value = float(value)
        if math.isfinite(value) and kind.name == "float32" and abs(value) > float(np.finfo(np.float32).max):
            raise RuntimeError(f"{name}: value {value} cannot be converted to type float32 without overflow")
        return value
    limits = np.iinfo(kind.numpy)
    lowest = int(limits.min) if limits.min else -int(limits.max)  # a negative number wraps in an unsigned dtype
    if not math.isfinite(value) or not lowest <= int(value) <= int(limits.max):
        raise RuntimeError(
            f"{name}: value {value} cannot be converted to type {kind.name} without overflow; allowed: "
            f"{limits.min} to {limits.max}"
        )
    value = int(value)
    return value % (int(limits.max) + 1) if not limits.min else value


def _filled(name: str, shape: tuple[int, ...], value: Any, dtype: Any, options: dict[str, Any],
            like: Tensor | None = None) -> Tensor:
    number = as_number(name, value)
    kind = dtypes.of_number(type(number)) if dtype is None else dtypes.as_dtype(dtype)
    return finish(name, ops.full(fill_number(name, number, kind), shape=shape, dtype=kind.name), options, like)


# Constants --------------------------------------------------------------------------------------------------


def zeros(*size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns zeros of shape `size`, float32 (the default dtype) unless `dtype` says otherwise. PyTorch: torch.zeros.

    >>> import distgrad as dg
    >>> dg.zeros(2, 2)
    tensor([[0., 0.],
            [0., 0.]])
    """
    shape = _size_given("zeros", size, options)
    return _filled("zeros", shape, 0, dtypes.default() if dtype is None else dtype, options)


def ones(*size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns ones of shape `size`, in the default dtype unless `dtype` is given. PyTorch: torch.ones."""
    shape = _size_given("ones", size, options)
    return _filled("ones", shape, 1, dtypes.default() if dtype is None else dtype, options)


def empty(*size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of shape `size` for values to be written to; they are zeros here. PyTorch: torch.empty."""
    shape = _size_given("empty", size, options)
    return _filled("empty", shape, 0, dtypes.default() if dtype is None else dtype, options)


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of shape `size` for values to be written to; strides have no meaning for sharded tensors and
    are only checked to be as many as the dims (RuntimeError). PyTorch: torch.empty_strided."""
    shape = as_size("empty_strided", (size,))
    if len(tuple(stride)) != len(shape):
        raise RuntimeError(f"empty_strided: dimensionality of sizes {shape} must match that of strides {stride}")
    return _filled("empty_strided", shape, 0, dtypes.default() if dtype is None else dtype, options)


def full(size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of shape `size` filled with a number, whose type decides the dtype unless one is given.

    RuntimeError when the number does not fit the dtype. PyTorch: torch.full.
    """
    return _filled("full", as_size("full", (size,)), fill_value, dtype, options)


def zeros_like(input: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns zeros of the input's shape and dtype (or `dtype`). PyTorch: torch.zeros_like."""
    return _filled("zeros_like", tuple(input.shape), 0, dtype or input.dtype, options, input)


def ones_like(input: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns ones of the input's shape and dtype (or `dtype`). PyTorch: torch.ones_like."""
    return _filled("ones_like", tuple(input.shape), 1, dtype or input.dtype, options, input)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of the input's shape and dtype (or `dtype`) filled with a number. PyTorch: torch.full_like."""
    return _filled("full_like", tuple(input.shape), fill_value, dtype or input.dtype, options, input)


def empty_like(input: Tensor, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of the input's shape for values to be written to; zeros here. PyTorch: torch.empty_like."""
    return _filled("empty_like", tuple(input.shape), 0, dtype or input.dtype, options, input)


def new_zeros(input: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns zeros of shape `size` in the input's dtype (or `dtype`). PyTorch: torch.Tensor.new_zeros."""
    return _filled("new_zeros", _size_given("new_zeros", size, options), 0, dtype or input.dtype, options)


def new_ones(input: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns ones of shape `size` in the input's dtype (or `dtype`). PyTorch: torch.Tensor.new_ones."""
    return _filled("new_ones", _size_given("new_ones", size, options), 1, dtype or input.dtype, options)


def new_empty(input: Tensor, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of shape `size` in the input's dtype for values to be written to; zeros here.

    PyTorch: torch.Tensor.new_empty.
    """
    return _filled("new_empty", _size_given("new_empty", size, options), 0, dtype or input.dtype, options)


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a tensor of shape `size` in the input's dtype (or `dtype`) filled with a number.

    PyTorch: torch.Tensor.new_full.
    """
    return _filled("new_full", as_size("new_full", (size,)), fill_value, dtype or input.dtype, options)


def scalar_tensor(s: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns a 0-d tensor of a number, in the default dtype unless `dtype` is given. PyTorch: torch.scalar_tensor."""
    return _filled("scalar_tensor", (), s, dtypes.default() if dtype is None else dtype, options)


# Ranges -----------------------------------------------------------------------------------------------------


def _range_kind(dtype: Any, *numbers: Number) -> dtypes.dtype:
    if dtype is not None:
        return dtypes.as_dtype(dtype)
    return dtypes.default() if any(isinstance(n, float) for n in numbers) else dtypes.int64


def as_real(name: str, value: Any) -> int | float:
    """Gives a Python int or float from a number or a tensor with one element; RuntimeError for a complex one."""
    number = as_number(name, value)
    if isinstance(number, complex):
        raise RuntimeError(f"{name}: value {number} cannot be converted to a real number without overflow")
    return int(number) if isinstance(number, bool) else number


def _check_range(name: str, start: float, end: float, step: float) -> None:
    if step == 0:
        raise RuntimeError(f"{name}: step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"{name}: unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise RuntimeError(
            f"{name}: upper bound and lower bound inconsistent with step sign, got start {start}, end {end} and step "
            f"{step}"
        )


def arange(*args: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Returns start, start + step, ... below `end`, shape (ceil((end - start) / step),); int64 for whole numbers.

    Called as arange(end), arange(start, end) or arange(start, end, step). RuntimeError for a step of 0
    or of the wrong sign. PyTorch: torch.arange.

    >>> import distgrad as dg
    >>> dg.arange(1, 2.5, 0.5)
    tensor([1.0000, 1.5000, 2.0000])
    """
    named: dict[str, Any] = {key: options.pop(key) for key in ("start", "end", "step") if key in options}
    if len(args) > 3 or not (args or "end" in named):
        raise TypeError("arange() takes (end), (start, end) or (start, end, step)")
    names = ("end",) if len(args) == 1 and "end" not in named else ("start", "end", "step")
    given: dict[str, Any] = {**dict(zip(names, args)), **named}
    if "end" not in given:
        raise TypeError("arange() missing argument 'end'")
    start, end, step = as_real("arange", given.get("start", 0)), as_real("arange", given["end"]), given.get("step", 1)
    step = as_real("arange", step)
    kind = _range_kind(dtype, start, end, step)
    _check_range("arange", start, end, step)
    if kind.category == 1:
        size = math.ceil((end - start) / step)  # of the numbers as given, which is PyTorch's rule but for int64
        if dtype is not None:
            start, end, step = int(start), int(end), int(step)
            _check_range("arange", start, end, step)
        if kind is dtypes.int64:
            size = -((start - end) // step)
    else:
        size = math.ceil((end - start) / step)
    return finish("arange", ops.arange(start, step, shape=(max(int(size), 0),), dtype=kind.name), options)


def range(start: Any = 0, end: Any = 0, step: Any = 1, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns start, start + step, ... up to and with `end`, in the default dtype. PyTorch: torch.range."""
    first, last, by = (as_real("range", value) for value in (start, end, step))
    _check_range("range", first, last, by)
    kind = dtypes.default() if dtype is None else dtypes.as_dtype(dtype)
    size = math.floor((last - first) / by) + 1
    return finish("range", ops.arange(first, by, shape=(size,), dtype=kind.name), options)


def _spacing(name: str, start: Any, end: Any, steps: Any, dtype: Any) -> tuple[Number, Number, int, dtypes.dtype]:
    first, last = as_number(name, start), as_number(name, end)
    count = as_size(name, (steps,))[0] if not isinstance(steps, int) or steps >= 0 else steps
    if count < 0:
        raise RuntimeError(f"{name}: number of steps must be non-negative, got {steps}")
    kind = dtypes.default() if dtype is None else dtypes.as_dtype(dtype)
    if dtype is None and (isinstance(first, complex) or isinstance(last, complex)):
        kind = kind.to_complex()
    return first, last, count, kind


def linspace(start: Any, end: Any, steps: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns `steps` evenly spaced numbers from `start` to `end`, both included, shape (steps,).

    PyTorch: torch.linspace.
    """
    first, last, count, kind = _spacing("linspace", start, end, steps, dtype)
    return finish("linspace", ops.linspace(first, last, shape=(count,), dtype=kind.name), options)


def logspace(start: Any, end: Any, steps: Any, base: Any = 10.0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns `base` to the powers linspace(start, end, steps), shape (steps,). PyTorch: torch.logspace."""
    first, last, count, kind = _spacing("logspace", start, end, steps, dtype)
    made = ops.logspace(first, last, as_number("logspace", base), shape=(count,), dtype=kind.name)
    return finish("logspace", made, options)


# Matrices ---------------------------------------------------------------------------------------------------


def eye(n: Any, m: Any = None, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns the (n, m) matrix with ones on the diagonal; m is n when left out. PyTorch: torch.eye."""
    shape = as_size("eye", (n, n if m is None else m))
    kind = dtypes.default() if dtype is None else dtypes.as_dtype(dtype)
    return finish("eye", ops.eye(shape=shape, dtype=kind.name), options)


def _indices(name: str, row: int, col: int, offset: int, lower: bool, dtype: Any, options: dict[str, Any]) -> Tensor:
    rows, columns = as_size(name, (row, col))
    below = int(np.clip(np.arange(rows) + (offset + 1 if lower else offset), 0, columns).sum())
    count = below if lower else rows * columns - below
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    made = ops.triangle_indices(int(offset), rows=rows, columns=columns, lower=lower, shape=(2, count), dtype=kind.name)
    return finish(name, made, options)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns row and column indices, int64 (2, count), of the elements of a (row, col) matrix on and below a diagonal.

    PyTorch: torch.tril_indices.
    """
    return _indices("tril_indices", row, col, offset, True, dtype, options)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Returns row and column indices, int64 (2, count), of the elements of a (row, col) matrix on and above a diagonal.

    PyTorch: torch.triu_indices.
    """
    return _indices("triu_indices", row, col, offset, False, dtype, options)
