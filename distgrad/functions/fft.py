"""Fourier transforms with torch.fft's signatures.

Invariant: lengths are settled here, by cutting or zero-padding, and dims that are not transformed stay as they are
sharded. Definitions: the PyTorch page "torch.fft".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distgrad import dtypes
from distgrad.functions.creation import arange, finish
from distgrad.functions.movement import narrow, roll
from distgrad.meta import normalize_dim
from distgrad.ops import fft as ops
from distgrad.ops.elementwise import cast, conj
from distgrad.ops.movement import pad
from distgrad.ops.reduction import torch_name

Tensor = Any
Dims = int | Sequence[int] | None

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "hfft2", "hfftn", "ifft", "ifft2", "ifftn", "ifftshift",
    "ihfft", "ihfft2", "ihfftn", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

_SWAPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


# Arguments --------------------------------------------------------------------------------------------------


def _mode(norm: str | None) -> str:
    if norm is None:
        return "backward"
    if norm not in _SWAPPED:
        raise RuntimeError(f'Invalid normalization mode: "{norm}"; allowed: "backward", "ortho", "forward"')
    return norm


def _real(name: str, input: Tensor) -> Tensor:
    if input.dtype.is_complex:
        raise RuntimeError(f"{name} expects a real input tensor, but got {torch_name(input.dtype)}")
    if input.dtype.category < 2:
        return cast(input, dtype=dtypes.default().name)
    if input.dtype.itemsize == 2:
        raise RuntimeError(f"Unsupported dtype {input.dtype.name}; {name} takes float32, float64 and complex tensors")
    return input


def _complex(name: str, input: Tensor) -> Tensor:
    if input.dtype.is_complex:
        return input
    real = _real(name, input)
    return cast(real, dtype=real.dtype.to_complex().name)


def _resized(input: Tensor, dim: int, n: int) -> Tensor:
    """Cuts a dim to n rows, or pads it with zeros."""
    rows = input.shape[dim]
    if rows > n:
        return narrow(input, dim, 0, n)
    if rows < n:
        return pad(input, 0, widths=tuple((0, n - rows if d == dim else 0) for d in range(input.ndim)))
    return input


def _one_dim(name: str, input: Tensor, dim: int, n: int | None, default: int | None = None) -> tuple[int, int]:
    """Gives the dim and the length of its transform; RuntimeError for a length below 1."""
    axis = normalize_dim(name, dim, input.ndim)
    if not input.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    length = (input.shape[axis] if default is None else default) if n is None else n
    if length < 1:
        raise RuntimeError(f"Invalid number of data points ({length}) specified")
    return axis, length


def _axes(name: str, input: Tensor, s: Any, dim: Dims) -> tuple[list[int], list[int | None]]:
    """Gives the dims of a transform over several and the length asked for in each (None: as it is)."""
    if s is not None:
        s = [s] if isinstance(s, int) else list(s)
    if dim is None:
        if s is not None and len(s) > input.ndim:
            raise RuntimeError(f"Got shape with {len(s)} values but input tensor only has {input.ndim} dimensions.")
        axes = list(range(input.ndim)) if s is None else list(range(input.ndim - len(s), input.ndim))
    else:
        given = [dim] if isinstance(dim, int) else list(dim)
        axes = [normalize_dim(name, d, input.ndim) for d in given]
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"FFT dims must be unique, got {given}")
        if s is not None and len(s) != len(axes):
            raise RuntimeError(f"When given, dim and shape arguments must have the same length, got {given} and {s}")
    sizes: list[int | None] = [None] * len(axes) if s is None else [None if n == -1 else n for n in s]
    for axis, n in zip(axes, sizes):
        length = input.shape[axis] if n is None else n
        if length < 1:
            raise RuntimeError(f"Invalid number of data points ({length}) specified")
    return axes, sizes


def _all_resized(input: Tensor, axes: Sequence[int], sizes: Sequence[int | None]) -> Tensor:
    for axis, n in zip(axes, sizes):
        if n is not None:
            input = _resized(input, axis, n)
    return input


# One dim ----------------------------------------------------------------------------------------------------


def _transform(name: str, input: Tensor, n: int | None, dim: int, norm: str | None, inverse: bool) -> Tensor:
    x = _complex(name, input)
    axis, length = _one_dim(name, x, dim, n)
    return ops.complex_to_complex(_resized(x, axis, length), axis=(axis,), norm=_mode(norm), inverse=inverse)


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the discrete Fourier transform along a dim, cut or zero-padded to n terms (complex).

    `norm`: "backward" (no factor), "ortho" (1 / sqrt(n)), "forward" (1 / n). RuntimeError for another, or n below 1.
    """
    return _transform("fft", input, n, dim, norm, False)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the inverse of `fft` with the same `norm`."""
    return _transform("ifft", input, n, dim, norm, True)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the first n // 2 + 1 terms of `fft` of a real tensor; the others are their conjugates.

    RuntimeError for a complex tensor.
    """
    x = _real("rfft", input)
    axis, length = _one_dim("rfft", x, dim, n)
    return ops.real_to_complex(_resized(x, axis, length), axis=axis, norm=_mode(norm))


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the inverse of `rfft`: n real values, by default 2 * (terms - 1)."""
    return _half("irfft", _complex("irfft", input), n, dim, _mode(norm))


def _half(name: str, x: Tensor, n: int | None, dim: int, norm: str) -> Tensor:
    rows = x.shape[normalize_dim(name, dim, x.ndim)] if x.ndim else 1
    axis, length = _one_dim(name, x, dim, n, 2 * (rows - 1))
    return ops.half_to_real(_resized(x, axis, length // 2 + 1), axis=axis, norm=norm, n=length)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the real `fft` of a signal of which the first half is given and the rest is its conjugate."""
    return _half("hfft", conj(_complex("hfft", input)), n, dim, _SWAPPED[_mode(norm)])


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """Gives the inverse of `hfft`: the first n // 2 + 1 values. RuntimeError for a complex tensor."""
    return conj(rfft(_real("ihfft", input), n, dim, _SWAPPED[_mode(norm)]))


# Several dims -----------------------------------------------------------------------------------------------


def _transform_all(name: str, input: Tensor, s: Any, dim: Dims, norm: str | None, inverse: bool) -> Tensor:
    x = _complex(name, input)
    axes, sizes = _axes(name, x, s, dim)
    if not axes:
        return x
    return ops.complex_to_complex(
        _all_resized(x, axes, sizes), axis=tuple(sorted(axes)), norm=_mode(norm), inverse=inverse
    )


def fftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives the Fourier transform over dims (all by default, or the last len(s)), with lengths s (-1: as it is)."""
    return _transform_all("fftn", input, s, dim, norm, False)


def ifftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives the inverse of `fftn`."""
    return _transform_all("ifftn", input, s, dim, norm, True)


def fft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives the Fourier transform over two dims."""
    return _transform_all("fft2", input, s, dim, norm, False)


def ifft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives the inverse of `fft2`."""
    return _transform_all("ifft2", input, s, dim, norm, True)


def _needs_dims(name: str, axes: Sequence[int]) -> None:
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")


def _real_all(name: str, input: Tensor, s: Any, dim: Dims, norm: str) -> Tensor:
    x = _real(name, input)
    axes, sizes = _axes(name, x, s, dim)
    _needs_dims(name, axes)
    half = ops.real_to_complex(_all_resized(x, axes, sizes), axis=axes[-1], norm=norm)
    rest = tuple(sorted(axes[:-1]))
    return ops.complex_to_complex(half, axis=rest, norm=norm, inverse=False) if rest else half


def rfftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives `fftn` of a real tensor, in the last dim only the first n // 2 + 1 terms."""
    return _real_all("rfftn", input, s, dim, _mode(norm))


def rfft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives `fft2` of a real tensor, in the last dim only the first n // 2 + 1 terms."""
    return _real_all("rfft2", input, s, dim, _mode(norm))


def ihfftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives the inverse of `hfftn`; RuntimeError for a complex tensor."""
    return conj(_real_all("ihfftn", input, s, dim, _SWAPPED[_mode(norm)]))


def ihfft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives the inverse of `hfft2`; RuntimeError for a complex tensor."""
    return conj(_real_all("ihfft2", input, s, dim, _SWAPPED[_mode(norm)]))


def _half_all(name: str, x: Tensor, s: Any, dim: Dims, norm: str) -> Tensor:
    axes, sizes = _axes(name, x, s, dim)
    _needs_dims(name, axes)
    last = axes[-1]
    wanted = sizes[-1]
    length = 2 * (x.shape[last] - 1) if wanted is None else wanted
    if length < 1:
        raise RuntimeError(f"Invalid number of data points ({length}) specified")
    x = _all_resized(x, axes, [*sizes[:-1], length // 2 + 1])
    if len(axes) > 1:
        x = ops.complex_to_complex(x, axis=tuple(sorted(axes[:-1])), norm=norm, inverse=True)
    return ops.half_to_real(x, axis=last, norm=norm, n=length)


def irfftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives the inverse of `rfftn`; the last dim gets s[-1] real values, by default 2 * (terms - 1)."""
    return _half_all("irfftn", _complex("irfftn", input), s, dim, _mode(norm))


def irfft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives the inverse of `rfft2`."""
    return _half_all("irfft2", _complex("irfft2", input), s, dim, _mode(norm))


def hfftn(input: Tensor, s: Any = None, dim: Dims = None, norm: str | None = None) -> Tensor:
    """Gives the real `fftn` of a signal of which half is given (in the last dim) and the rest is its conjugate."""
    return _half_all("hfftn", conj(_complex("hfftn", input)), s, dim, _SWAPPED[_mode(norm)])


def hfft2(input: Tensor, s: Any = None, dim: Dims = (-2, -1), norm: str | None = None) -> Tensor:
    """Gives the real `fft2` of a signal of which half is given and the rest is its conjugate."""
    return _half_all("hfft2", conj(_complex("hfft2", input)), s, dim, _SWAPPED[_mode(norm)])


# Frequencies and shifts -------------------------------------------------------------------------------------


def fftfreq(n: int, d: float = 1.0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the frequencies of the n terms of `fft` for a sample spacing d: 0, 1, ..., -2, -1 over n * d."""
    places = roll(arange(-(n // 2), n - n // 2, dtype=_freq_dtype(dtype)), -(n // 2))
    return finish("fftfreq", places * (1.0 / (n * d)), options)


def rfftfreq(n: int, d: float = 1.0, *, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the frequencies of the n // 2 + 1 terms of `rfft` for a sample spacing d."""
    return finish("rfftfreq", arange(n // 2 + 1, dtype=_freq_dtype(dtype)) * (1.0 / (n * d)), options)


def _freq_dtype(dtype: Any) -> Any:
    return dtypes.default() if dtype is None else dtype


def _shifted(name: str, input: Tensor, dim: Dims, back: bool) -> Tensor:
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [normalize_dim(name, d, input.ndim) for d in dims]
    if not axes:
        return input
    return roll(input, [(input.shape[a] + 1) // 2 if back else input.shape[a] // 2 for a in axes], axes)


def fftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """Moves the zero frequency to the middle of the dims (all by default)."""
    return _shifted("fftshift", input, dim, False)


def ifftshift(input: Tensor, dim: Dims = None) -> Tensor:
    """Undoes `fftshift`."""
    return _shifted("ifftshift", input, dim, True)
