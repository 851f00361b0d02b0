"""Ops between real and complex tensors: making complex numbers, seeing them as pairs, their angles.

Invariant: rules are plain derivatives without conjugation (autodiff conjugates around them), so the rule of an op that
gives a real result of a complex input conjugates once itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import elementwise_rows, shape_of, unary
from distgrad.meta import TensorMeta, broadcast_shapes
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.elementwise import conj, eq, keep, logical_not, vanish, where, widened

Attrs = dict[str, Any]


# Pairs ------------------------------------------------------------------------------------------------------


def _leading_rows(count: int) -> Any:
    """Gives the rows rule of an op that acts within the last dim: the first `count(ins)` dims stay sharded."""

    def rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: Attrs) -> Iterable[Row]:
        for dim in range(ins[0].ndim - count):
            yield Row((dim,), (dim,))
        yield Row(("sum",), ("sum",))

    return rows


def _as_real_meta(x: TensorMeta) -> MetaResult:
    if not x.dtype.is_complex:
        raise RuntimeError(f"view_as_real is only supported for complex tensors, got {x.dtype.name}")
    return (TensorMeta.of((*x.shape, 2), x.dtype.to_real()),), None


def _as_complex_meta(x: TensorMeta) -> MetaResult:
    if x.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(
            f"view_as_complex is only supported for floating point tensors (float32, float64), but got a tensor of "
            f"scalar type: {x.dtype.name}"
        )
    if not x.ndim:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if x.shape[-1] != 2:
        raise RuntimeError(f"Tensor must have a last dimension of size 2, got shape {x.shape}")
    return (TensorMeta.of(x.shape[:-1], x.dtype.to_complex()),), None


def _as_real(x: Any) -> Any:
    return np.ascontiguousarray(x).view(x.real.dtype).reshape(*x.shape, 2)


def _as_complex(x: Any) -> Any:
    kind = np.dtype(f"c{2 * x.itemsize}")
    return np.ascontiguousarray(x).view(kind).reshape(x.shape[:-1])


view_as_real: Op = Op(
    "view_as_real", _as_real, meta=_as_real_meta, inputs="x", rows=_leading_rows(0),
    vjps=(lambda g: conj(view_as_complex(g)),), put=lambda base, new: view_as_complex(new),
)
view_as_complex: Op = Op(
    "view_as_complex", _as_complex, meta=_as_complex_meta, inputs="x", rows=_leading_rows(1),
    vjps=(lambda g: view_as_real(conj(g)),), put=lambda base, new: view_as_real(new),
)


# Parts and angles -------------------------------------------------------------------------------------------


def _complex_meta(a: Any, b: Any) -> MetaResult:
    for part in (a, b):
        if isinstance(part, type) or part.dtype not in (dtypes.float32, dtypes.float64):
            given = " and ".join(p.__name__ if isinstance(p, type) else p.dtype.name for p in (a, b))
            raise RuntimeError(f"complex: expected both inputs to be float32 or float64 tensors but got {given}")
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {a.dtype.name} but got scalar type {b.dtype.name} for second argument"
        )
    shape = broadcast_shapes("complex", shape_of(a), shape_of(b))
    return (TensorMeta.of(shape, a.dtype.to_complex()),), None


def _complex(a: Any, b: Any) -> Any:
    out = np.empty(np.broadcast_shapes(a.shape, b.shape), np.dtype(f"c{2 * a.itemsize}"))
    out.real, out.imag = a, b
    return out


@widened
def _angle(x: Any) -> Any:
    if x.dtype.kind == "c":
        return np.angle(x)
    turned = np.where(x < 0, np.asarray(np.pi, x.dtype), np.zeros((), x.dtype))
    return np.where(np.isnan(x), x, turned)


def _angle_vjp(g: Any, x: Any) -> Any:
    if not x.dtype.is_complex:
        return vanish(g)
    zero = eq(x, 0)
    return keep(logical_not(zero), g * (-1j / where(zero, 1.0, x)))


make_complex = Op(
    "complex", _complex, meta=_complex_meta, inputs="a b", rows=elementwise_rows(("PP",)),
    vjps=(lambda g: g, lambda g: g * 1j),
)
"""The complex numbers with real parts a and imaginary parts b; autodiff takes the real part of the rules."""

angle = unary("angle", _angle, _angle_vjp, real_output=True)
"""The angle of complex numbers in radians; of real ones 0, or pi where negative."""
