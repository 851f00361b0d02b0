"""Optimizer steps as one loop over memory, compiled by Numba when this module is first imported.

Invariant: each loop gives what its numpy version in `distgrad.ops.optimizers` gives, up to rounding. The loops that
write to their inputs stand apart: LLVM vectorises either kind, but not one loop that has to serve both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


def _loop(function: Any) -> Any:
    """Compiles a loop; contracting a product and a sum is its only freedom: all else is rounded as numpy rounds it."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no directory can be written to: every process compiles for itself
        return njit(**options)(function)


@_loop
def adam(p, g, m, v, po, mo, vo, keep, decay, beta1, rest1, beta2, rest2, root, eps, rate):  # type: ignore[no-untyped-def]
    """Writes an Adam step of flat arrays to fresh ones."""
    for i in range(p.size):
        x = p[i] * keep
        y = g[i] + decay * x
        a = beta1 * m[i] + rest1 * y
        b = beta2 * v[i] + rest2 * (y * y)
        mo[i] = a
        vo[i] = b
        po[i] = x + rate * (a / (np.sqrt(b) / root + eps))


@_loop
def adam_in_place(p, g, m, v, keep, decay, beta1, rest1, beta2, rest2, root, eps, rate):  # type: ignore[no-untyped-def]
    """Writes an Adam step over the parameter and its averages."""
    for i in range(p.size):
        x = p[i] * keep
        y = g[i] + decay * x
        a = beta1 * m[i] + rest1 * y
        b = beta2 * v[i] + rest2 * (y * y)
        m[i] = a
        v[i] = b
        p[i] = x + rate * (a / (np.sqrt(b) / root + eps))


@_loop
def sgd(p, g, po, decay, rate):  # type: ignore[no-untyped-def]
    """Writes a plain gradient step of flat arrays to a fresh one."""
    for i in range(p.size):
        po[i] = p[i] + rate * (g[i] + decay * p[i])


@_loop
def sgd_in_place(p, g, decay, rate):  # type: ignore[no-untyped-def]
    """Writes a plain gradient step over the parameter."""
    for i in range(p.size):
        p[i] = p[i] + rate * (g[i] + decay * p[i])


@_loop
def momentum(p, g, b, po, bo, decay, strength, rest, rate, nesterov):  # type: ignore[no-untyped-def]
    """Writes a step with momentum of flat arrays to fresh ones."""
    for i in range(p.size):
        y = g[i] + decay * p[i]
        z = strength * b[i] + rest * y
        bo[i] = z
        po[i] = p[i] + rate * ((y + strength * z) if nesterov else z)


@_loop
def momentum_in_place(p, g, b, decay, strength, rest, rate, nesterov):  # type: ignore[no-untyped-def]
    """Writes a step with momentum over the parameter and its velocity."""
    for i in range(p.size):
        y = g[i] + decay * p[i]
        z = strength * b[i] + rest * y
        b[i] = z
        p[i] = p[i] + rate * ((y + strength * z) if nesterov else z)
