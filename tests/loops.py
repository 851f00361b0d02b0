"""What the tests of compiled loops share: running an operation's kernel with and without them, and comparing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.kernels import compiled
from distgrad.op import op_named

SIZE = compiled.LEAST
KINDS = pytest.mark.parametrize("kind", [np.float32, np.float64], ids=["float32", "float64"])
Arrays = tuple[np.ndarray, ...]


@pytest.fixture(autouse=True)
def both_settings() -> Iterator[None]:
    before = dg.are_fused_kernels_enabled()
    dg.set_fused_kernels(True)
    yield
    dg.set_fused_kernels(before)


def normal(kind: Any, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def everything(kind: Any) -> np.ndarray:
    """Gives numbers of all sizes and signs, denormal ones, infinities, NaN: more than enough to be fused."""
    info = np.finfo(kind)
    wide = np.geomspace(info.smallest_subnormal, info.max, SIZE)
    near = np.linspace(-120, 120, SIZE + 3)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, info.tiny, -info.tiny, info.max, -info.max]
    with np.errstate(all="ignore"):
        return np.concatenate([wide, -wide, near, special]).astype(kind)


def kernel(name: str, *arrays: Any, on: bool, **attrs: Any) -> Arrays:
    dg.set_fused_kernels(on)
    with np.errstate(all="ignore"):
        result = op_named(name).kernel(*arrays, **attrs)
    return result if isinstance(result, tuple) else (result,)


def agree(name: str, *arrays: Any, parts: float = 8, size_of_terms: float = 0.0, **attrs: Any) -> Arrays:
    """Compares the compiled kernel with the other, within `parts` roundings of results or of terms of a size."""
    ours, theirs = kernel(name, *arrays, on=True, **attrs), kernel(name, *arrays, on=False, **attrs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            rounding = np.finfo(a.dtype).eps
            np.testing.assert_allclose(a, b, rtol=parts * rounding, atol=max(parts * size_of_terms * rounding, 1e-37))
        else:
            np.testing.assert_array_equal(a, b)
    return ours


def in_units(found: np.ndarray, exact: np.ndarray, kind: Any) -> float:
    """Gives the greatest error in units of the last place; both must be infinite and NaN alike."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(kind)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(rounded))
    finite = np.isfinite(rounded)
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(found[finite] - exact[finite]) / np.spacing(np.abs(rounded[finite]))))
