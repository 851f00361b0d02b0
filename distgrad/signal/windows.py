"""Window functions of M points, under torch.signal.windows' names.

Invariant: `sym=False` gives the first M points of the symmetric window of M + 1 (one period, for spectra). All
windows take `dtype` (floating, the default dtype unless given), `device`, `layout` and `requires_grad`; ValueError
for a negative M or another dtype. Definitions: the PyTorch page "torch.signal.windows" and Harris, "On the use of
windows" (1978).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distgrad import dtypes
from distgrad.functions.creation import finish, linspace, ones
from distgrad.ops.elementwise import abs, clamp_min, cos, exp, sin, sqrt, square
from distgrad.ops.special import i0
from distgrad.settings import strided

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
    "kaiser", "nuttall",
]  # fmt: skip

Tensor = Any


def _checked(name: str, M: int, dtype: Any, options: dict[str, Any]) -> dtypes.dtype:
    if M < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={M}")
    if options.get("layout", strided) is not strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {options['layout']}")
    kind = dtypes.default() if dtype is None else dtypes.as_dtype(dtype)
    if kind not in (dtypes.float32, dtypes.float64):
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {kind!r}")
    return kind


def _line(M: int, start: float, step: float, kind: dtypes.dtype) -> Tensor:
    return linspace(start, start + (M - 1) * step, M, dtype=kind)


def _intervals(M: int, sym: bool) -> int:
    """Gives how many steps lie between the first point and the last of the symmetric window."""
    return M - 1 if sym or M < 2 else M


def general_cosine(M: int, *, a: Sequence[float], sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives a[0] - a[1] cos(t) + a[2] cos(2 t) - ... for t from 0 to 2 pi.

    TypeError unless `a` is a list or tuple, ValueError when it is empty.
    """
    kind = _checked("general_cosine", M, dtype, options)
    if not isinstance(a, (list, tuple)):
        raise TypeError(f"general_cosine: Coefficients must be a list/tuple, got {type(a).__name__}")
    if not a:
        raise ValueError("general_cosine: Coefficients cannot be empty")
    if M < 2:
        return finish("general_cosine", ones(M, dtype=kind), options)
    t = _line(M, 0.0, 2 * math.pi / _intervals(M, sym), kind)
    window = t * 0.0 + a[0]
    for order, factor in enumerate(a[1:], 1):
        window = window + cos(t * order) * (-factor if order % 2 else factor)
    return finish("general_cosine", window, options)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives alpha - (1 - alpha) cos(t)."""
    return general_cosine(M, a=[alpha, 1.0 - alpha], sym=sym, dtype=dtype, **options)


def hamming(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the Hamming window 0.54 - 0.46 cos(t)."""
    return general_hamming(M, sym=sym, dtype=dtype, **options)


def hann(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the Hann window, half a raised cosine."""
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, **options)


def blackman(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the Blackman window of three terms."""
    return general_cosine(M, a=[0.42, 0.5, 0.08], sym=sym, dtype=dtype, **options)


def nuttall(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the minimum four-term Blackman-Harris window of Nuttall."""
    return general_cosine(M, a=[0.3635819, 0.4891775, 0.1365995, 0.0106411], sym=sym, dtype=dtype, **options)


def bartlett(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives the triangle from 0 over 1 back to 0."""
    kind = _checked("bartlett", M, dtype, options)
    if M < 2:
        return finish("bartlett", ones(M, dtype=kind), options)
    return finish("bartlett", 1.0 - abs(_line(M, -1.0, 2 / _intervals(M, sym), kind)), options)


def cosine(M: int, *, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives half a period of the sine, sin(pi (n + 1/2) / M)."""
    kind = _checked("cosine", M, dtype, options)
    if M < 2:
        return finish("cosine", ones(M, dtype=kind), options)
    step = math.pi / (_intervals(M, sym) + 1)
    return finish("cosine", sin(_line(M, 0.5 * step, step, kind)), options)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: Any = None,
                **options: Any) -> Tensor:
    """Gives exp(-|n - center| / tau); the center is the window's middle unless `sym` is False and one is given.

    ValueError for a tau that is not positive, or a center with `sym`.
    """
    kind = _checked("exponential", M, dtype, options)
    if tau <= 0:
        raise ValueError(f"exponential: Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("exponential: Center must be None for symmetric windows")
    if M < 2:
        return finish("exponential", ones(M, dtype=kind), options)
    middle = _intervals(M, sym) / 2 if center is None else center
    return finish("exponential", exp(-abs(_line(M, -middle / tau, 1 / tau, kind))), options)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives exp(-n ** 2 / (2 std ** 2)), n from the window's middle. ValueError for a std that is not positive."""
    kind = _checked("gaussian", M, dtype, options)
    if std <= 0:
        raise ValueError(f"gaussian: Standard deviation must be positive, got: {std} instead.")
    if M < 2:
        return finish("gaussian", ones(M, dtype=kind), options)
    scale = 1 / (std * math.sqrt(2))
    return finish("gaussian", exp(-square(_line(M, -_intervals(M, sym) / 2 * scale, scale, kind))), options)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None, **options: Any) -> Tensor:
    """Gives i0(beta sqrt(1 - t ** 2)) / i0(beta) for t from -1 to 1. ValueError for a negative beta."""
    kind = _checked("kaiser", M, dtype, options)
    if beta < 0:
        raise ValueError(f"kaiser: beta must be non-negative, got: {beta} instead.")
    if M < 2:
        return finish("kaiser", ones(M, dtype=kind), options)
    t = _line(M, -beta, 2 * beta / _intervals(M, sym), kind)
    peak = i0(ones((), dtype=kind) * beta)
    return finish("kaiser", i0(sqrt(clamp_min(beta * beta - square(t), 0.0))) / peak, options)
