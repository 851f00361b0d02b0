"""Functions that reduce dims, with PyTorch's signatures and NumPy's names `axis` and `keepdims` as synonyms.

Invariant: means and variances count elements globally, so their values do not depend on how a tensor is sharded.
"""

from __future__ import annotations

import builtins
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache, wraps
from math import inf
from typing import Any

from distgrad import dtypes
from distgrad.functions.labels import shown_as
from distgrad.functions.precision import in_float32
from distgrad.grad_mode import mode
from distgrad.meta import normalize_dim, normalize_dims
from distgrad.op import OPS, is_tensor
from distgrad.ops import elementwise, movement
from distgrad.ops import reduction as ops

__all__ = [
    "all", "amax", "amin", "aminmax", "any", "argmax", "argmin", "count_nonzero", "max", "mean", "median", "min",
    "nanmean", "nanmedian", "nansum", "norm", "prod", "std", "std_mean", "sum", "var", "var_mean",
]

Dims = int | Sequence[int] | None


# Results with names -----------------------------------------------------------------------------------------


@cache
def return_type(name: str, fields: tuple[str, ...]) -> type:
    """Gives the named tuple that an op with several results returns, printed as PyTorch's `return_types` are."""

    class Result(namedtuple(name, fields)):  # type: ignore[misc]  # the fields are known when the op is defined
        __slots__ = ()

        def __repr__(self) -> str:
            values: tuple[Any, ...] = tuple(self)
            inside = ",\n".join(f"{field}={value!r}" for field, value in zip(fields, values))
            return f"torch.return_types.{name}(\n{inside})"

        def __reduce__(self) -> tuple[Any, ...]:
            return (_named_result, (name, fields, tuple(self)))

    Result.__name__ = Result.__qualname__ = name
    return Result


def _named_result(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return return_type(name, fields)(*values)


# Arguments --------------------------------------------------------------------------------------------------

_LARGE = 4096  # elements from which reading twice costs less than a new array
_SYNONYMS = {"axis": "dim", "keepdims": "keepdim"}


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a function be called with `axis` for `dim` and `keepdims` for `keepdim`, as PyTorch does."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for given, wanted in _SYNONYMS.items():
                if given in kwargs:
                    if wanted in kwargs:
                        raise TypeError(f"{function.__name__}(): {given} and {wanted} mean the same; give one of them")
                    kwargs[wanted] = kwargs.pop(given)
        return function(*args, **kwargs)

    return call


def cast_to(input: Any, kind: Any) -> Any:
    """Gives the tensor in a dtype; itself when it has it, or when `kind` is None."""
    if kind is None:
        return input
    wanted = dtypes.as_dtype(kind)
    return input if input.dtype is wanted else OPS["cast"](input, dtype=wanted.name)


def _reduce(op: Any, input: Any, dim: Dims, keepdim: bool) -> Any:
    return op(input, axis=normalize_dims(op.name, dim, input.ndim), keepdims=bool(keepdim))


def is_plain(tensor: Any) -> bool:
    """Says whether a tensor is in this process and what is made of it needs no gradient."""
    return tensor._now().spec.placement is None and not (tensor._needs_grad and mode.enabled)


def _is_whole(dim: Dims) -> bool:
    return dim is None or (not isinstance(dim, int) and not is_tensor(dim) and len(dim) == 0)


def _one_dim(input: Any, name: str, dim: int) -> tuple[Any, int, bool]:
    """Gives the tensor with at least one dim, the axis, and whether the tensor was 0-d."""
    axis = normalize_dim(name, dim, input.ndim)
    if input.ndim:
        return input, axis, False
    return movement.reshape(input, shape=(1,)), 0, True


def _size(input: Any) -> int:
    return input._node.spec.meta.size


def _refuse_complex(name: str, input: Any) -> None:
    if input.dtype.is_complex:
        raise NotImplementedError(
            f'"{name}" not implemented for \'{ops.torch_name(input.dtype)}\': complex numbers have no order'
        )


# Sums, products, means --------------------------------------------------------------------------------------


@numpy_names
def sum(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Adds up elements over dims; bools and integers give int64 unless `dtype` says otherwise."""
    if dtype is None:
        return ops.sum(input, axis=normalize_dims("sum", dim, input.ndim), keepdims=bool(keepdim))
    return _whole_type(_reduce(ops.sum, cast_to(input, dtype), dim, keepdim), dtype)


def _whole_type(result: Any, kind: Any) -> Any:
    """Integer sums are made in int64 and cut to the dtype asked for."""
    return result if kind is None else cast_to(result, kind)


@numpy_names
def nansum(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Adds up the elements over dims that are not NaN."""
    input = cast_to(input, dtype)
    if input.dtype.category >= 2:
        input = elementwise.without_nan(input)
    return _whole_type(_reduce(ops.sum, input, dim, keepdim), dtype)


@numpy_names
def mean(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Gives the mean over dims. RuntimeError for bools and integers, unless `dtype` is floating or complex."""
    return _reduce(ops.mean, cast_to(input, dtype), dim, keepdim)


@numpy_names
def nanmean(input: Any, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Gives the mean over dims of the elements that are not NaN. RuntimeError for bools and integers."""
    if input.dtype.category < 2:
        raise RuntimeError(
            "nanmean(): expected input to have floating point or complex dtype but got "
            f"{ops.torch_name(input.dtype)}"
        )
    count = _reduce(ops.sum, elementwise.eq(input, input), dim, keepdim)
    return nansum(input, dim, keepdim, dtype=dtype) / count


@numpy_names
def prod(input: Any, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Multiplies all elements, or those along one dim; bools and integers give int64."""
    if dim is not None and not hasattr(dim, "__index__"):
        raise TypeError(f"prod(): dim must be an int, got {type(dim).__name__}")
    return _whole_type(_reduce(ops.prod, cast_to(input, dtype), dim, keepdim), dtype)


@numpy_names
def count_nonzero(input: Any, dim: Dims = None) -> Any:
    """Counts the elements over dims that are not zero, in int64."""
    return _reduce(ops.count_nonzero, input, dim, False)


# Truth ------------------------------------------------------------------------------------------------------


def _truth(op: Any, input: Any, dim: Dims, keepdim: bool) -> Any:
    whole = dim is not None and _is_whole(dim)  # PyTorch reduces nothing for an empty tuple here
    result = elementwise.ne(input, 0) if whole else _reduce(op, input, dim, keepdim)
    return cast_to(result, dtypes.uint8) if input.dtype is dtypes.uint8 else result


@numpy_names
def all(input: Any, dim: Dims = None, keepdim: bool = False) -> Any:
    """Says whether all elements over dims are non-zero; bool (uint8 for uint8)."""
    return _truth(ops.all, input, dim, keepdim)


@numpy_names
def any(input: Any, dim: Dims = None, keepdim: bool = False) -> Any:
    """Says whether any element over dims is non-zero; bool (uint8 for uint8)."""
    return _truth(ops.any, input, dim, keepdim)


# Extremes ---------------------------------------------------------------------------------------------------


def _extreme(name: str, op: Any, input: Any, dim: Dims, keepdim: bool) -> Any:
    _refuse_complex(name, input)
    if _is_whole(dim) and _size(input) == 0:
        raise RuntimeError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with "
            "the 'dim' argument."
        )
    return _reduce(op, input, dim, keepdim)


@numpy_names
def amax(input: Any, dim: Dims = (), keepdim: bool = False) -> Any:
    """Gives the maximum over dims; equal maxima share the gradient. IndexError or RuntimeError for no elements."""
    return _extreme("amax", ops.amax, input, dim, keepdim)


@numpy_names
def amin(input: Any, dim: Dims = (), keepdim: bool = False) -> Any:
    """Gives the minimum over dims; equal minima share the gradient. IndexError or RuntimeError for no elements."""
    return _extreme("amin", ops.amin, input, dim, keepdim)


@numpy_names
def aminmax(input: Any, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """Gives minimum and maximum of all elements or along one dim, as a named tuple (min, max)."""
    if dim is None and _size(input) == 0:
        raise RuntimeError(
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity."
        )
    least, most = (_extreme("aminmax", op, input, dim, keepdim) for op in (ops.amin, ops.amax))
    return return_type("aminmax", ("min", "max"))(least, most)


def _choose(name: str, op: Any, input: Any, dim: int, keepdim: bool) -> Any:
    _refuse_complex(name, input)
    x, axis, scalar = _one_dim(input, name, dim)
    values, indices = op(x, axis=axis, keepdims=bool(keepdim) and not scalar)
    return return_type(name, ("values", "indices"))(values, indices)


@numpy_names
def max(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Gives the maximum of all elements; along a dim (values, indices); with a tensor, the elementwise maximum."""
    other = dim if is_tensor(dim) else other
    if is_tensor(other):
        return elementwise.maximum(input, other)
    if dim is None:
        return _extreme("max", ops.amax, input, None, False)
    return _choose("max", ops.max_along, input, dim, keepdim)


@numpy_names
def min(input: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Gives the minimum of all elements; along a dim (values, indices); with a tensor, the elementwise minimum."""
    other = dim if is_tensor(dim) else other
    if is_tensor(other):
        return elementwise.minimum(input, other)
    if dim is None:
        return _extreme("min", ops.amin, input, None, False)
    return _choose("min", ops.min_along, input, dim, keepdim)


def _position(name: str, op: Any, input: Any, dim: int | None, keepdim: bool) -> Any:
    _refuse_complex(name, input)
    if input.dtype is dtypes.bool_:
        raise RuntimeError(f"{name}(): does not support bool input")
    if dim is None:
        if _size(input) == 0:
            raise IndexError(f"{name}(): Expected reduction dim to be specified for input.numel() == 0.")
        found = op(movement.reshape(input, shape=(_size(input),)), axis=(0,), keepdims=False)
        return movement.reshape(found, shape=(1,) * input.ndim) if keepdim else found
    x, axis, scalar = _one_dim(input, name, dim)
    return op(x, axis=(axis,), keepdims=bool(keepdim) and not scalar)


@numpy_names
def argmax(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Gives the position of the first maximum along a dim, or in the flattened tensor, in int64."""
    return _position("argmax", ops.argmax, input, dim, keepdim)


@numpy_names
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Gives the position of the first minimum along a dim, or in the flattened tensor, in int64."""
    return _position("argmin", ops.argmin, input, dim, keepdim)


def _median(name: str, whole: Any, along: Any, input: Any, dim: int | None, keepdim: bool) -> Any:
    if input.dtype is dtypes.bool_:
        raise NotImplementedError(f'"{name}_cpu" not implemented for \'Bool\'')
    return _reduce(whole, input, None, False) if dim is None else _choose(name, along, input, dim, keepdim)


@numpy_names
def median(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Gives the lower median of all elements, or along a dim with its position; NaN if there is one."""
    return _median("median", ops.median_of_all, ops.median_along, input, dim, keepdim)


@numpy_names
def nanmedian(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Gives the lower median of the elements that are not NaN, of all or along a dim with its position."""
    return _median("nanmedian", ops.nanmedian_of_all, ops.nanmedian_along, input, dim, keepdim)


# Variances --------------------------------------------------------------------------------------------------


def _variance(input: Any, dim: Any, unbiased: bool | None, keepdim: bool, correction: float | None,
              averages: bool = False) -> tuple[Any, Any]:
    """Gives (variance, mean) by two passes: the mean first, then the mean of squared distances from it.

    Without `averages` the mean keeps its reduced dims.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError("var(): unbiased and correction mean the same; give one of them")
    if input.dtype.category < 2:
        raise RuntimeError("std and var only support floating point and complex dtypes")
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    shape = tuple(input.shape)
    axis = normalize_dims("var", dim, len(shape))
    if not averages and not input.dtype.is_complex and input._now().spec.placement is None:
        freedom = float(builtins.max(ops.reduced_count(shape, axis) - correction, 0))
        return ops.variance_here(input, freedom, axis=axis, keepdims=bool(keepdim)), None
    center = ops.mean(input, axis=axis, keepdims=True)
    if input.dtype.is_complex:
        squares = elementwise.square(elementwise.abs(input - center))
    else:
        squares = elementwise.square_distance(input, center)
    freedom = builtins.max(ops.reduced_count(shape, axis) - correction, 0)
    total = ops.sum(squares, axis=axis, keepdims=bool(keepdim))
    average = center if keepdim or not averages else movement.reshape(center, shape=tuple(total.shape))
    return total / float(freedom), average


@numpy_names
@shown_as("VarBackward0")
@in_float32()
def var(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Any:
    """Gives the variance over dims, divided by n - correction (1 by default). RuntimeError for integers."""
    return _variance(input, dim, unbiased, keepdim, correction)[0]


@numpy_names
@shown_as("StdBackward0")
@in_float32()
def std(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Any:
    """Gives the square root of `var`; where it is 0 its gradient is 0."""
    return ops.root(_variance(input, dim, unbiased, keepdim, correction)[0], degree=2.0)


@numpy_names
@in_float32()
def var_mean(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Any, Any]:
    """Gives (var, mean) over dims."""
    return _variance(input, dim, unbiased, keepdim, correction, averages=True)


@numpy_names
@in_float32()
def std_mean(input: Any, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Any, Any]:
    """Gives (std, mean) over dims."""
    variance, average = _variance(input, dim, unbiased, keepdim, correction, averages=True)
    return ops.root(variance, degree=2.0), average


# Norms ------------------------------------------------------------------------------------------------------


def vector_norm(input: Any, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Gives the `ord`-norm over dims (torch.linalg.vector_norm); ord may be any number, inf, -inf or 0.

    Where the norm is 0 its gradient is 0. RuntimeError for integers, and for inf norms of no elements.
    """
    x = cast_to(input, dtype)
    if x.dtype.category < 2:
        raise RuntimeError(
            f"linalg.vector_norm: Expected a floating point or complex tensor as input. Got {ops.torch_name(x.dtype)}"
        )
    axis = normalize_dims("linalg.vector_norm", dim, x.ndim)
    keep = bool(keepdim)
    if ord == 0:
        count = cast_to(ops.sum(elementwise.ne(x, 0), axis=axis, keepdims=keep), x.dtype.to_real())
        # As in PyTorch, the count belongs to the graph, with a gradient of zero.
        return count + ops.sum(elementwise.vanish(elementwise.abs(x)), axis=axis, keepdims=keep) if x.requires_grad else count
    if ord in (inf, -inf):
        if ops.reduced_count(tuple(x.shape), axis) == 0:
            raise RuntimeError(
                f"linalg.vector_norm cannot compute the {ord} norm on an empty tensor because the operation does not "
                "have an identity"
            )
        local = x._now().spec
        if ord > 0 and local.placement is None and local.meta.size >= _LARGE and not x.dtype.is_complex and not (
            x._needs_grad and mode.enabled
        ):  # two passes that read, instead of one that writes sizes and one that reads them
            most, least = (f(x, axis=axis, keepdims=keep) for f in (ops.amax, ops.amin))
            return elementwise.abs(elementwise.maximum(most, elementwise.neg(least)))
        return (ops.amax if ord > 0 else ops.amin)(elementwise.abs(x), axis=axis, keepdims=keep)
    if ord == 2:
        if x._now().spec.placement is None and not x.dtype.is_complex:
            return ops.norm_here(x, axis=axis, keepdims=keep)
        squares = elementwise.square(elementwise.abs(x) if x.dtype.is_complex else x)
        return ops.root(ops.sum(squares, axis=axis, keepdims=keep), degree=2.0)
    if ord > 2 and not x.dtype.is_complex:
        powers = elementwise.abs_power(x, float(ord))
        return ops.root(ops.sum(powers, axis=axis, keepdims=keep), degree=float(ord))
    sizes = elementwise.abs(x)
    if ord == 1:
        return ops.sum(sizes, axis=axis, keepdims=keep)
    if 0 < ord < 1:  # the slope at 0 is infinite: zeros take no part, as in PyTorch
        nonzero = elementwise.ne(sizes, 0)
        powers = elementwise.keep(nonzero, elementwise.where(nonzero, sizes, 1.0) ** float(ord))
    elif ord < 0:  # an element of 0 makes the norm 0, whose gradient is 0
        nonzero = elementwise.ne(sizes, 0)
        powers = elementwise.where(nonzero, elementwise.where(nonzero, sizes, 1.0) ** float(ord), inf)
    else:
        powers = sizes ** float(ord)
    return ops.root(ops.sum(powers, axis=axis, keepdims=keep), degree=float(ord))


@numpy_names
def norm(input: Any, p: Any = "fro", dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Gives the p-norm over dims, "fro" being 2 and "nuc" the sum of singular values (PyTorch: torch.norm)."""
    if p is None or p == "fro":
        p = 2.0
    if p == "nuc":
        from distgrad.functions.linalg_matrix import nuclear_norm

        return nuclear_norm(cast_to(input, dtype), dim, keepdim)
    if isinstance(p, str):
        raise RuntimeError(f"norm: p must be a number, 'fro' or 'nuc', got {p!r}")
    return vector_norm(input, p, dim, keepdim, dtype=dtype)
