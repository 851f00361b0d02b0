"""Builders of op families: a family supplies metadata, broadcasting and placement rows, the op its numpy kernel.

An elementwise op is one or two lines with these. Invariant: rows are derived from shapes alone, never from values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.dtypes import dtype
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import Entry, MetaResult, Op, Row


def is_number(value: Any) -> bool:
    """Says whether a meta rule's input is a Python number's type rather than a tensor's meta."""
    return isinstance(value, type)


def shape_of(value: Any) -> tuple[int, ...]:
    """Gives the shape of a meta rule's input; a number's is ()."""
    return () if isinstance(value, type) else value.shape


# Elementwise ------------------------------------------------------------------------------------------------


def elementwise_rows(linear: Sequence[str]) -> Callable[..., Iterable[Row]]:
    """Gives the rows rule of an elementwise op: any dim of the output may be sharded.

    `linear` holds one letter per input: "P" for inputs that may be Partial("sum") together, "." for whole ones.
    """

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        out = outs[0]
        for dim in range(out.ndim):
            entries: list[Entry] = []
            for value in ins:
                shape = shape_of(value)
                own = dim - (out.ndim - len(shape))
                entries.append(own if own >= 0 and shape[own] == out.shape[dim] else None)
            yield Row(tuple(entries), (dim,) * len(outs))
        for pattern in linear:
            if all(letter == "." or not isinstance(value, type) for letter, value in zip(pattern, ins)):
                yield Row(tuple("sum" if letter == "P" else None for letter in pattern), ("sum",) * len(outs))

    return rows


def elementwise(
    name: str,
    kernel: Callable[..., Any],
    inputs: str,
    *,
    vjps: Sequence[Callable[..., Any] | None] = (),
    result: str = "promote",
    linear: Sequence[str] = (),
    condition: bool = False,
    real_output: bool = False,
    outputs: str = "y",
    check: Callable[..., None] | None = None,
) -> Op:
    """Makes an elementwise op of any arity.

    `result`: "promote" (PyTorch's promotion), "float" (integers become the default float first), "bool" (promoted
    inputs, bool output), "test" (inputs as they are, bool output). `condition`: the first input is a mask that takes
    no part in promotion. `real_output`: complex inputs give real outputs. `check(kind, attrs)` may raise TypeError
    or RuntimeError for a promoted dtype the op does not take.
    """
    skip = 1 if condition else 0

    def meta(*ins: Any, **attrs: Any) -> MetaResult:
        shape = broadcast_shapes(name, *(shape_of(value) for value in ins))
        kind = dtypes.result_type(list(ins[skip:]))
        if result == "float" and kind.category < 2:
            kind = dtypes.default()
        if check is not None:
            check(kind, attrs)
        out = dtypes.bool_ if result in ("bool", "test") else kind
        if real_output and out.is_complex:
            out = out.to_real()
        casts: tuple[dtype | None, ...] | None = None
        if result != "test":
            casts = tuple(
                None if i < skip or (not is_number(v) and v.dtype is kind) else kind for i, v in enumerate(ins)
            )
            if not any(casts):
                casts = None
        return (TensorMeta.of(shape, out),) * len(outputs.split()), casts

    return Op(name, kernel, meta=meta, inputs=inputs, rows=elementwise_rows(linear), vjps=vjps, outputs=outputs)


def unary(name: str, kernel: Callable[..., Any], vjp: Callable[..., Any] | None = None, *, result: str = "float",
          linear: bool = False, **options: Any) -> Op:
    """Makes an elementwise op of one input `x`."""
    return elementwise(name, kernel, "x", vjps=() if vjp is None else (vjp,), result=result,
                       linear=("P",) if linear else (), **options)


def binary(name: str, kernel: Callable[..., Any], vjps: Sequence[Callable[..., Any] | None] = (), *,
           result: str = "promote", linear: Sequence[str] = (), **options: Any) -> Op:
    """Makes a broadcasting elementwise op of two inputs `a` and `b`."""
    return elementwise(name, kernel, "a b", vjps=vjps, result=result, linear=linear, **options)


# Reductions -------------------------------------------------------------------------------------------------


def reduced_shape(shape: tuple[int, ...], axis: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Gives the shape after reducing the (sorted, non-negative) axes."""
    if keepdims:
        return tuple(1 if d in axis else n for d, n in enumerate(shape))
    return tuple(n for d, n in enumerate(shape) if d not in axis)


def kept_dim(dim: int, axis: tuple[int, ...], keepdims: bool) -> int:
    """Gives where a dim that is not reduced stands in the output."""
    return dim if keepdims else dim - sum(1 for a in axis if a < dim)


def reduction_rows(partial: str | None, through: Callable[..., Any] | None = None) -> Callable[..., Iterable[Row]]:
    """Gives the rows rule of a reduction over `axis`: kept dims stay sharded, reduced ones give Partial(partial).

    `through`: the kernel that combines what every worker makes of its rows, for a reduction with no `partial`.
    """

    def rows(ins: Sequence[TensorMeta], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        axis, keepdims = attrs["axis"], attrs["keepdims"]
        for dim in range(ins[0].ndim):
            if dim not in axis:
                yield Row((dim,), (kept_dim(dim, axis, keepdims),) * len(outs))
            elif partial is not None:
                yield Row((dim,), (partial,) * len(outs))
            elif through is not None:
                yield Row((dim,), (None,) * len(outs), through=through)
        if partial == "sum":
            yield Row(("sum",), ("sum",))

    return rows


def reduction(name: str, kernel: Callable[..., Any], vjp: Callable[..., Any] | None = None, *,
              partial: str | None = None, result: str = "same", needs_elements: bool = False,
              outputs: str = "y", through: Callable[..., Any] | None = None) -> Op:
    """Makes a reduction over attributes `axis` (sorted tuple of non-negative dims) and `keepdims`.

    `partial`: how the parts of shards combine ("sum", "max", "min", "prod"; None: only whole rows). `result`: "same",
    "bool", "int64", "sum" (bool and integers become int64). `needs_elements`: reducing no element is the user's error.
    The kernel must give the identity of `partial` for an empty shard. `through`: see `reduction_rows`.
    """

    def meta(x: TensorMeta, *, axis: tuple[int, ...], keepdims: bool) -> MetaResult:
        if needs_elements and any(x.shape[d] == 0 for d in axis):
            raise IndexError(
                f"{name}: Expected reduction dim {next(d for d in axis if x.shape[d] == 0)} to have non-zero size, got "
                f"shape {x.shape}"
            )
        kind = {"bool": dtypes.bool_, "int64": dtypes.int64}.get(result, x.dtype)
        if result == "sum" and x.dtype.category < 2:
            kind = dtypes.int64  # the kernel widens block by block, without a copy of all
        return (TensorMeta.of(reduced_shape(x.shape, axis, keepdims), kind),) * len(outputs.split()), None

    return Op(name, kernel, meta=meta, inputs="x", rows=reduction_rows(partial, through), outputs=outputs,
              vjps=() if vjp is None else (vjp,))


# Ops along one axis -----------------------------------------------------------------------------------------


def other_dims_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    """Rows of an op along `axis`: every other dim may be sharded, in all inputs and outputs alike."""
    axis = attrs["axis"]
    axes = axis if isinstance(axis, tuple) else (axis,)
    for dim in range(outs[0].ndim):
        if dim not in axes:
            yield Row((dim,) * len(ins), (dim,) * len(outs))


def along(name: str, kernel: Callable[..., Any], vjp: Callable[..., Any] | None = None, *, result: str = "same",
          outputs: str = "y", second: str | None = None, linear: bool = False,
          through: Callable[..., Any] | None = None) -> Op:
    """Makes an op along attribute `axis` (one non-negative int) whose outputs have the input's shape.

    `result`: "same", "float" or "sum"; `second`: dtype name of a second output such as indices; `through`: the kernel
    for rows that are sharded along the axis itself.
    """

    def meta(x: TensorMeta, **attrs: Any) -> MetaResult:
        kind = x.dtype
        if result == "float" and kind.category < 2:
            kind = dtypes.default()
        if result == "sum" and kind.category < 2:
            kind = dtypes.int64
        metas = [x.with_dtype(kind)]
        if second is not None:
            metas.append(x.with_dtype(dtypes.named(second)))
        return tuple(metas), None if kind is x.dtype else (kind,)

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
        yield from other_dims_rows(ins, outs, attrs)
        if through is not None and ins[0].ndim:
            yield Row((attrs["axis"],), (attrs["axis"],) * len(outs), through=through)
        if linear:
            yield Row(("sum",), ("sum",) * len(outs))

    return Op(name, kernel, meta=meta, inputs="x", rows=rows, outputs=outputs, vjps=() if vjp is None else (vjp,))


# Contractions -----------------------------------------------------------------------------------------------


def contraction_rows(terms: Sequence[str], output: str) -> Iterable[Row]:
    """Gives the rows that follow from an equation's index strings: ("mk", "kn"), "mn"."""
    for letter in dict.fromkeys("".join(terms)):
        entries = tuple(t.index(letter) if t.count(letter) == 1 else None for t in terms)
        if any(t.count(letter) > 1 for t in terms):
            continue
        yield Row(entries, (output.index(letter) if letter in output else "sum",))
    for position in range(len(terms)):
        yield Row(tuple("sum" if i == position else None for i in range(len(terms))), ("sum",))


def identity_of(reduce: str, kind: np.dtype) -> Any:
    """Gives the identity element of "max" or "min" for a numpy dtype."""
    if kind.kind == "b":
        return reduce == "min"
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return info.min if reduce == "max" else info.max
    return np.array(-np.inf if reduce == "max" else np.inf, dtype=kind)[()]
