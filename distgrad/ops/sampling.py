"""Ops that draw from distributions with a parameter per element, by inverting the distribution function.

Invariant: an element takes two words of the generator's stream, whatever its parameters, so samples do not depend on how
a tensor is sharded and the place of the next draw is known at once. PyTorch rejects proposals until one fits, which
takes as many words as the values happen to need; so these numbers, and those of later draws, are not PyTorch's. A gamma
sample's gradient is the implicit one: at a fixed probability F(x; a), dx/da = -(dF/da) / (dF/dx) (arXiv:1805.08498).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distgrad import draws, dtypes
from distgrad.families import binary, is_number
from distgrad.meta import TensorMeta
from distgrad.op import MetaResult, Op, Row
from distgrad.ops.creation import Block, with_block
from distgrad.ops.elementwise import exp, neg, vanish

_TINY = 1e-280  # below it a gamma sample is so small that only the first term of its series counts


def _log_gamma_quantile(a: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Gives log(x) with P(a, x) = u, P the regularized lower incomplete gamma function."""
    from scipy.special import gammainccinv, gammaincinv, gammaln

    # Near 1 the upper tail keeps the digits that 1 - u has.
    x = np.where(u < 0.5, gammaincinv(a, u), gammainccinv(a, 1.0 - u))
    small = ~(x > _TINY)
    # P(a, x) = x**a / gamma(a + 1) to first order.
    return np.where(small & (a > 0), (np.log(u) + gammaln(a + 1)) / a, np.log(np.where(small, 1.0, x)))


def _standard_gamma(a: np.ndarray, seed: int, position: int, *, shape: tuple[int, ...], logarithm: bool,
                    block: Block | None = None) -> np.ndarray:
    if not np.all(a >= 0):
        raise RuntimeError("standard_gamma: concentrations must not be negative")
    wide = a.astype(np.float64)
    found = _log_gamma_quantile(wide, draws.standard_uniform(seed, position, shape, block))
    if not logarithm:
        found = np.maximum(np.exp(found), np.finfo(a.dtype if a.dtype.kind == "f" else np.float32).tiny)
    return found.astype(a.dtype)


def _gamma_slope(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Gives dx/da of a gamma sample x of concentration a, by differences of fourth order of the incomplete function."""
    from scipy.special import digamma, gammainc, gammaincc, gammaln

    kind = np.result_type(a, x)
    a, x = a.astype(np.float64), x.astype(np.float64)
    step = 2e-3 * np.where(a < 1, a, np.sqrt(np.maximum(a, 1)))
    upper = gammaincc(a, x) < 0.5
    weights = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
    # The logarithm of the smaller tail is smooth and keeps its digits.
    slope = sum(w * np.log(np.where(upper, gammaincc(a + k * step, x), gammainc(a + k * step, x))) for k, w in weights)
    tail = np.where(upper, -gammaincc(a, x), gammainc(a, x))
    found = -slope / step * tail / np.exp((a - 1) * np.log(x) - x - gammaln(a))
    log_x = np.log(x)
    near_zero = x * (digamma(a + 1) - log_x) / a  # the first term of the series again
    return np.where(np.isfinite(found) & (x > 1e-200), found, near_zero).astype(kind)


gamma_slope = binary("gamma_slope", _gamma_slope, (lambda g: vanish(g), lambda g: vanish(g)), result="float")


def _sampled_meta(name: str) -> Callable[..., MetaResult]:
    def meta(a: TensorMeta, *rest: Any, **attrs: Any) -> MetaResult:
        if not a.dtype.is_floating_point:
            raise NotImplementedError(f"{name}: not implemented for dtype {a.dtype.name}; give a floating-point tensor")
        return (a,), None

    return meta


def _sampled_rows(ins: Sequence[Any], outs: Sequence[TensorMeta], attrs: dict[str, Any]) -> Iterable[Row]:
    for dim in range(outs[0].ndim):
        yield Row(tuple(None if is_number(v) or not v.ndim else dim for v in ins), (dim,))


standard_gamma = Op(
    "standard_gamma", _standard_gamma, meta=_sampled_meta("standard_gamma"), inputs="a seed position", rows=_sampled_rows,
    localize=with_block, vjps=(
        lambda g, y, a, logarithm: g * (gamma_slope(a, exp(y)) * exp(neg(y)) if logarithm else gamma_slope(a, y)),
        None, None,
    ))


def _binomial(count: np.ndarray, p: np.ndarray, seed: int, position: int, *, shape: tuple[int, ...],
              block: Block | None = None) -> np.ndarray:
    if not (np.all(count >= 0) and np.all((p >= 0) & (p <= 1))):
        raise RuntimeError("binomial: counts must not be negative and probabilities must lie in [0, 1]")
    from scipy.special import bdtr, bdtrik

    u = draws.standard_uniform(seed, position, shape, block)
    n, wide = count.astype(np.float64), p.astype(np.float64)
    inner = (wide > 0) & (wide < 1) & (n > 0)
    safe = np.where(inner, wide, 0.5)
    total = np.where(inner, n, 1.0)
    # The smallest count whose cumulative probability reaches u; the inverse rounds, so look one below and one above.
    found = np.clip(np.nan_to_num(np.ceil(bdtrik(u, total, safe))), 0, total)
    below = np.maximum(found - 1, 0)
    whole = total.astype(np.int64)  # scipy wants the number of trials as an integer
    found = np.where(bdtr(below, whole, safe) >= u, below, found)
    found = np.where(bdtr(found, whole, safe) < u, np.minimum(found + 1, total), found)
    return np.where(inner, found, n * (wide > 0)).astype(count.dtype)


def _binomial_meta(count: TensorMeta, p: TensorMeta, *rest: Any, shape: tuple[int, ...],
                   block: Block | None = None) -> MetaResult:
    if count.shape != p.shape or not count.dtype.is_floating_point:
        raise RuntimeError(f"binomial: count and probability must be floating and of one shape, got {count} and {p}")
    return (count,), None


def _poisson(rate: np.ndarray, seed: int, position: int, *, shape: tuple[int, ...], dtype: str,
             block: Block | None = None) -> np.ndarray:
    if not np.all(rate >= 0):
        raise RuntimeError("poisson: invalid Poisson rate, expected rate to be non-negative")
    from scipy.special import pdtr, pdtrik

    # The smallest count whose cumulative probability reaches u; pdtrik inverts it up to rounding, so look one below.
    u = draws.standard_uniform(seed, position, shape, block)
    rate = rate.astype(np.float64)
    count = np.maximum(np.ceil(pdtrik(u, rate)), 0.0)
    below = np.maximum(count - 1, 0.0)
    count = np.where(pdtr(below, rate) >= u, below, count)
    return np.where(rate == 0, 0.0, count).astype(dtypes.named(dtype).numpy)


def _poisson_meta(rate: TensorMeta, *numbers: Any, shape: tuple[int, ...], dtype: str,
                  block: Block | None = None) -> MetaResult:
    return (TensorMeta.of(rate.shape, dtypes.named(dtype)),), None


poisson = Op("poisson", _poisson, meta=_poisson_meta, inputs="rate seed position", rows=_sampled_rows,
             localize=with_block, vjps=(lambda g: vanish(g), None, None))
binomial = Op("binomial", _binomial, meta=_binomial_meta, inputs="count p seed position", rows=_sampled_rows,
              localize=with_block, vjps=(lambda g: vanish(g), lambda g: vanish(g), None, None))
