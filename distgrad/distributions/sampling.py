"""Draws that distributions make from the default generator.

Invariant: every draw takes its words of the generator on the driver; the numbers are made where the elements live.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.functions.random import next_doubles
from distgrad.ops import random as random_ops
from distgrad.ops import sampling as ops
from distgrad.tensor import Tensor

__all__: list[str] = []


def normals(shape: Any, kind: Any) -> Tensor:
    """Draws standard normal numbers."""
    return dg.randn(tuple(shape), dtype=kind)


def uniforms(shape: Any, kind: Any) -> Tensor:
    """Draws numbers uniform on (0, 1): neither end, so that logarithms are finite."""
    info = dg.finfo(kind)
    return dg.rand(tuple(shape), dtype=kind).clamp(info.tiny, 1 - info.eps / 2)


def uniforms_between(shape: Any, kind: Any, low: float, high: float) -> Tensor:
    """Draws numbers uniform on [low, high)."""
    return dg.empty(tuple(shape), dtype=kind).uniform_(low, high)


def cauchys(shape: Any, kind: Any) -> Tensor:
    """Draws standard Cauchy distributed numbers."""
    return dg.empty(tuple(shape), dtype=kind).cauchy_()


def exponentials(shape: Any, kind: Any) -> Tensor:
    """Draws exponentially distributed numbers of rate 1."""
    shape = tuple(shape)
    return random_ops.exponential(1.0, *next_doubles(None, shape), shape=shape, dtype=kind.name)


def standard_gamma(concentration: Tensor, logarithm: bool = False) -> Tensor:
    """Draws gamma distributed numbers of rate 1, or their logarithms, with gradients to the concentrations."""
    shape = tuple(concentration.shape)
    return ops.standard_gamma(concentration, *next_doubles(None, shape), shape=shape, logarithm=logarithm)


def binomial(count: Tensor, probs: Tensor) -> Tensor:
    """Draws binomial counts for trials and probabilities of one shape."""
    shape = tuple(count.shape)
    return ops.binomial(count, probs, *next_doubles(None, shape), shape=shape)
