"""Discrete Fourier transforms along given dims.

Invariant: attributes are `axis`, numpy's `norm` ("backward", "ortho", "forward") and the direction; lengths are the
tensors' own (functions cut or pad first). All three ops are linear, independent along every other dim, and their rules
are transforms again. Definitions: the PyTorch page "torch.fft".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.families import other_dims_rows
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.elementwise import conj
from distgrad.ops.movement import pad

Attrs = dict[str, Any]


def _rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: Attrs) -> Iterable[Row]:
    yield from other_dims_rows(ins, outs, attrs)
    yield Row(("sum",), ("sum",))


def _complex_only(x: TensorMeta) -> None:
    if not x.dtype.is_complex:
        raise RuntimeError(f"fft: a complex tensor is needed here, got {x.dtype.name}")


def _complex_meta(x: TensorMeta, **attrs: Any) -> MetaResult:
    _complex_only(x)
    return (x,), None


def _complex_to_complex(x: Any, *, axis: tuple[int, ...], norm: str, inverse: bool) -> Any:
    if not x.size:
        return x.copy()
    run: Any = np.fft.ifft if inverse else np.fft.fft
    for a in axis:
        x = run(x, axis=a, norm=norm)
    return x


complex_to_complex: Op = Op(
    "fft_complex", _complex_to_complex, meta=_complex_meta, inputs="x", rows=_rows,
    vjps=(lambda g, axis, norm, inverse: complex_to_complex(g, axis=axis, norm=norm, inverse=inverse),),
)
"""The transform of complex numbers over a tuple of dims; its matrix is symmetric, so it is its own rule."""


def _real_meta(x: TensorMeta, *, axis: int, norm: str) -> MetaResult:
    if x.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(f"Unsupported dtype {x.dtype.name}; fft takes float32, float64 and complex tensors")
    shape = (*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :])
    return (TensorMeta.of(shape, x.dtype.to_complex()),), None


def _real_to_complex(x: Any, *, axis: int, norm: str) -> Any:
    if not x.size:
        return np.zeros((*x.shape[:axis], x.shape[axis] // 2 + 1, *x.shape[axis + 1 :]), np.dtype(f"c{2 * x.itemsize}"))
    run: Any = np.fft.rfft  # numpy's stubs take only literal norms
    return run(x, axis=axis, norm=norm)


def _real_to_complex_vjp(g: Any, x_shape: tuple[int, ...], axis: int, norm: str) -> Any:
    widths = tuple((0, x_shape[d] - n if d == axis else 0) for d, n in enumerate(g.shape))
    return complex_to_complex(pad(g, 0, widths=widths), axis=(axis,), norm=norm, inverse=False)


real_to_complex: Op = Op("fft_real", _real_to_complex, meta=_real_meta, inputs="x", rows=_rows,
                         vjps=(_real_to_complex_vjp,))
"""The first n // 2 + 1 terms of the forward transform of real numbers along one dim; the rest are their conjugates."""


def _half_meta(x: TensorMeta, *, axis: int, norm: str, n: int) -> MetaResult:
    _complex_only(x)
    return (TensorMeta.of((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.dtype.to_real()),), None


def _half_to_real(x: Any, *, axis: int, norm: str, n: int) -> Any:
    if not x.size:
        return np.zeros((*x.shape[:axis], n, *x.shape[axis + 1 :]), x.real.dtype)
    run: Any = np.fft.irfft
    return run(x, n, axis=axis, norm=norm)


_OTHER_WAY = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _half_to_real_vjp(g: Any, axis: int, norm: str, n: int) -> Any:
    """Terms that stand for themselves and their conjugate count twice: all but the first and, for even n, the last."""
    terms = real_to_complex(g, axis=axis, norm=_OTHER_WAY[norm])
    return conj(twice(terms, axis=axis, n=n))


half_to_real: Op = Op("fft_half", _half_to_real, meta=_half_meta, inputs="x", rows=_rows, vjps=(_half_to_real_vjp,))
"""The inverse transform, of length n, whose first n // 2 + 1 terms are given and the others are their conjugates."""


def _twice(x: Any, *, axis: int, n: int) -> Any:
    factor = np.full(x.shape[axis], 2, x.real.dtype)
    factor[0] = 1
    if n % 2 == 0:
        factor[-1] = 1
    return x * factor.reshape((-1,) + (1,) * (x.ndim - 1 - axis))


twice: Op = Op("fft_twice", _twice, meta=_complex_meta, inputs="x", rows=_rows,
               vjps=(lambda g, axis, n: twice(g, axis=axis, n=n),))
"""Half a spectrum of n terms with those doubled that stand for their conjugates too."""
