"""Distances between points, and the statistics and scalings built on products and norms of rows.

Invariant: composites only, but for Euclidean distances of all pairs, whose op avoids the array of all differences.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from distgrad import dtypes
from distgrad.functions.data import from_numpy
from distgrad.functions.reduction import cast_to, vector_norm
from distgrad.meta import broadcast_shapes, normalize_dim
from distgrad.ops.contraction import matmul
from distgrad.ops.creation import full
from distgrad.ops.elementwise import cast, clamp, clamp_min, gt, imag, real, sqrt, where
from distgrad.ops.indexing import take_rows
from distgrad.ops.linalg_common import column, diagonal_of, line, mh
from distgrad.ops.linalg_distance import distances
from distgrad.ops.movement import expand, reshape
from distgrad.ops.reduction import sum as sum_of
from distgrad.ops.reduction import torch_name

__all__ = ["cdist", "corrcoef", "cov", "dist", "pdist", "renorm"]

Tensor = Any
_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist")
_PRODUCT_FROM = 25  # points from which PyTorch takes Euclidean distances from a matrix product


# Distances --------------------------------------------------------------------------------------------------


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = _MODES[0]) -> Tensor:
    """Gives the p-norm distances (..., P, R) between points x1 (..., P, M) and x2 (..., R, M) (PyTorch: torch.cdist).

    Batch dims broadcast. RuntimeError for dtypes that are not floating or differ and for negative p.
    """
    for position, x in ((1, x1), (2, x2)):
        if x.dtype.category != 2:
            raise RuntimeError(f"cdist only supports floating-point dtypes, X{position} got: {torch_name(x.dtype)}")
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, X{position} got: {x.ndim}D")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}")
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, got {p}")
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode; allowed: {', '.join(_MODES)}")
    batch = broadcast_shapes("cdist", tuple(x1.shape[:-2]), tuple(x2.shape[:-2]))
    kind = dtypes.promote_types(x1.dtype, x2.dtype)
    a, b = (expand(cast_to(x, kind), shape=(*batch, *x.shape[-2:])) for x in (x1, x2))
    if p == 2:
        many = max(x1.shape[-2], x2.shape[-2]) > _PRODUCT_FROM
        return distances(a, b, by_product=compute_mode == _MODES[1] or (compute_mode == _MODES[0] and many))
    shape = (*batch, x1.shape[-2], x2.shape[-2], x1.shape[-1])
    a = reshape(a, shape=(*batch, x1.shape[-2], 1, x1.shape[-1]))
    b = reshape(b, shape=(*batch, 1, x2.shape[-2], x1.shape[-1]))
    return _length(a - b, float(p), shape)


def _length(difference: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """Gives p-norms along the last dim; 0 where it is empty."""
    if shape[-1] == 0:
        return full(0.0, shape=shape[:-1], dtype=difference.dtype.name)
    return vector_norm(difference, p, -1)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Gives the p-norm distances between all pairs i < j of rows of (N, M), in order (nn.functional.pdist)."""
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if input.dtype.category != 2:
        raise RuntimeError("pdist only supports floating-point dtypes")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    first, second = (from_numpy(index) for index in np.triu_indices(int(input.shape[0]), 1))
    difference = take_rows(input, first, axis=0) - take_rows(input, second, axis=0)
    return _length(difference, float(p), tuple(difference.shape))


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """Gives the p-norm of input - other, broadcasting (PyTorch: torch.dist)."""
    difference = input - other
    if not difference.shape.numel() and p in (inf, -inf):
        return full(0.0, shape=(), dtype=difference.dtype.name)
    return vector_norm(difference, float(p))


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Scales down each slice along `dim` whose p-norm is above `maxnorm` to have that norm (PyTorch: torch.renorm)."""
    if input.dtype.category < 2:
        raise RuntimeError(f"renorm: expected a floating point or complex tensor, got {torch_name(input.dtype)}")
    if not p > 0:
        raise RuntimeError(f"renorm: non-positive norm not supported, got p={p}")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} dimensions")
    axis = normalize_dim("renorm", dim, input.ndim)
    norms = vector_norm(input, float(p), tuple(d for d in range(input.ndim) if d != axis), True)
    # The 1e-7 is PyTorch's: it keeps the scaled norm from ending above maxnorm by rounding.
    return input * where(gt(norms, float(maxnorm)), float(maxnorm) / (norms + 1e-7), 1.0)


# Covariance -------------------------------------------------------------------------------------------------


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """Gives the covariances (V, V) of variables in rows (V, N), or the variance () of one (N,) (PyTorch: torch.cov).

    `fweights`: how often each observation counts (integers); `aweights`: its importance (floats).
    """
    if input.ndim > 2:
        raise RuntimeError(f"cov(): expected input to have two or fewer dimensions but got {input.ndim}")
    if input.dtype is dtypes.bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = reshape(input, shape=(1, input.shape.numel())) if input.ndim < 2 else input
    count = int(x.shape[1])
    weights = _weights(count, fweights, aweights)
    if weights is None:
        total: Any = count
        center = sum_of(x, axis=(1,), keepdims=True) / float(total)
        factor: Any = float(max(count - correction, 0))
    else:
        total = sum_of(weights, axis=(0,), keepdims=False)
        center = sum_of(x * weights, axis=(1,), keepdims=True) / total
        if aweights is not None and correction:
            factor = total - sum_of(weights * aweights, axis=(0,), keepdims=False) / total * correction
        else:
            factor = total - correction
        factor = clamp_min(factor, 0)
    centered = x - center
    weighted = centered if weights is None else centered * cast(weights, dtype=centered.dtype.to_real().name)
    result = matmul(weighted, mh(centered)) / factor
    return reshape(result, shape=()) if x.shape[0] == 1 else result


def _weights(count: int, fweights: Tensor | None, aweights: Tensor | None) -> Tensor | None:
    for name, values, allowed, kind in (
        ("fweights", fweights, 1, "integral"), ("aweights", aweights, 2, "floating point"),
    ):
        if values is None:
            continue
        if values.ndim > 1:
            raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions but got {values.ndim}")
        if values.dtype.category != allowed:
            raise RuntimeError(f"cov(): expected {name} to have {kind} dtype but got {values.dtype.name}")
        if values.shape.numel() != count:
            raise RuntimeError(
                f"cov(): expected {name} to have the same numel as there are observations in the input but got "
                f"{values.shape.numel()} != {count}"
            )
        if bool((values.detach().numpy() < 0).any()):
            raise RuntimeError(f"cov(): {name} cannot be negative")
    if fweights is None or aweights is None:
        return fweights if aweights is None else aweights
    return fweights * aweights


def corrcoef(input: Tensor) -> Tensor:
    """Gives Pearson's correlation coefficients (V, V) of variables in rows (V, N) (PyTorch: torch.corrcoef)."""
    if input.ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} dims"
        )
    c = cov(input)
    if c.ndim == 0:
        return c / c
    variance = diagonal_of(c)
    deviation = sqrt(real(variance) if variance.dtype.is_complex else variance)
    result = c / column(deviation) / line(deviation)
    if result.dtype.is_complex:
        return clamp(real(result), -1.0, 1.0) + clamp(imag(result), -1.0, 1.0) * 1j
    return clamp(result, -1.0, 1.0)
