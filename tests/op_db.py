"""One row per op: how to call it on torch or distgrad, and sample inputs. Generic tests read `ALL_ROWS`.

Invariant: a row's `call(T, *tensors)` is valid for both libraries, so torch is the oracle for values, dtypes and gradients.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Array:
    """A sample input: `make(generator)` gives the numpy array; `differentiable` floats get gradients."""

    make: Callable[[np.random.Generator], np.ndarray]
    differentiable: bool = False


def normal(*shape: int) -> Array:
    """Standard normal float64."""
    return Array(lambda r: r.standard_normal(shape), True)


def positive(*shape: int) -> Array:
    """Uniform in [0.5, 2)."""
    return Array(lambda r: r.uniform(0.5, 2.0, shape), True)


def uniform(low: float, high: float, *shape: int) -> Array:
    """Uniform in [low, high)."""
    return Array(lambda r: r.uniform(low, high, shape), True)


def distinct(*shape: int) -> Array:
    """Distinct, well separated float64 in random order (sorting, maxima)."""
    return Array(lambda r: (r.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2) * 0.37 + 0.11, True)


def integers(low: int, high: int, *shape: int) -> Array:
    """Uniform int64 in [low, high)."""
    return Array(lambda r: r.integers(low, high, shape))


def booleans(*shape: int) -> Array:
    """Random bool."""
    return Array(lambda r: r.random(shape) < 0.5)


def constant(value: Any, dtype: str = "float64", differentiable: bool = False) -> Array:
    """The given array."""
    return Array(lambda r: np.array(value, dtype=dtype), differentiable)


@dataclass(frozen=True)
class OpRow:
    """One op: its name, its call and its samples (lists of `Array` or plain Python values)."""

    name: str
    call: Callable[..., Any]
    samples: tuple[list[Any], ...]
    grad: bool
    gradgrad: bool
    float32: bool

    def inputs(self, index: int) -> list[Any]:
        """Gives a sample's numpy arrays and Python values, the same at every call."""
        generator = np.random.default_rng(zlib.crc32(f"{self.name}/{index}".encode()))
        return [a.make(generator) if isinstance(a, Array) else a for a in self.samples[index]]


def row(name: str, call: Callable[..., Any], *samples: list[Any], grad: bool = True, gradgrad: bool = True,
        float32: bool = True) -> OpRow:
    """Makes a row. `grad=False`: not differentiable; `gradgrad=False`: torch has no second derivative;
    `float32=False`: do not repeat the check in float32."""
    return OpRow(name, call, samples, grad, grad and gradgrad, float32)


def all_rows() -> list[OpRow]:
    """Gives the rows of every tests/op_rows_*.py; a name stands once."""
    rows: list[OpRow] = []
    for path in sorted(Path(__file__).parent.glob("op_rows_*.py")):
        rows.extend(importlib.import_module(path.stem).ROWS)
    names = [r.name for r in rows]
    repeated = {n for n in names if names.count(n) > 1}
    assert not repeated, f"rows given twice: {sorted(repeated)}"
    return rows
