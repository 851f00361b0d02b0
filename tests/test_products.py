"""Large products of matrices: by the loops that suit the processor, as numpy gives them in all else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from distgrad.kernels import blas, compiled, products

SHAPES = [(64, 128, 129), (1, 1200, 1300), (1100, 1, 1000), (1300, 900, 1), (16, 1024, 100), (200, 150, 170)]
needs_copy = pytest.mark.skipif(
    not blas._is_zen4() or bool(os.environ.get("OPENBLAS_CORETYPE")), reason="numpy's own loops are best on this processor"
)


class Asked:
    """Stands for the copy of the library and counts how often it is asked."""

    def __init__(self, threads: int = 1) -> None:
        self.count, self.used = threads, 0

    def __call__(self) -> blas.Product | None:
        found = blas._second() if not blas._found else blas._found[0]
        if found is None:
            return None
        self.used += 1
        return blas.Product(found.address, lambda: self.count)


def matrix(rng: np.random.Generator, rows: int, columns: int, layout: str) -> np.ndarray:
    """Gives a matrix that lies in memory by rows, by columns, with gaps, or backwards."""
    if layout == "columns":
        return rng.standard_normal((columns, rows)).astype(np.float32).T
    if layout == "gaps":
        return rng.standard_normal((rows, 2 * columns)).astype(np.float32)[:, ::2]
    if layout == "backwards":
        return rng.standard_normal((rows, columns)).astype(np.float32)[::-1]
    return rng.standard_normal((rows, columns)).astype(np.float32)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The copy, as in a worker: with one thread."""
    found = Asked()
    monkeypatch.setattr(blas, "single_precision", found)
    monkeypatch.setattr(compiled, "_enabled", [True])
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layouts", ["rows rows", "columns rows", "rows columns", "columns columns", "gaps rows",
                                     "rows backwards"])
def test_products_of_any_layout(asked: Asked, shape: tuple[int, int, int], layouts: str) -> None:
    m, k, n = shape
    rng = np.random.default_rng(7)
    first, second = layouts.split()
    a, b = matrix(rng, m, k, first), matrix(rng, k, n, second)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    close = {"rtol": 1e-5, "atol": 1e-5 * k**0.5}
    np.testing.assert_allclose(products.matmul(a, b), exact, **close)
    out = np.full((m, n), np.nan, np.float32)
    assert products.matmul(a, b, out) is out
    np.testing.assert_allclose(out, exact, **close)
    np.testing.assert_allclose(products.matmul(a, b, np.empty((n, m), np.float32).T), exact, **close)
    wide = products.matmul(a, b, np.empty((m, n)))
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, exact, **close)


@needs_copy
def test_the_copy_is_used_for_large_float32_products_alone(asked: Asked) -> None:
    rng = np.random.default_rng(1)
    a, b = matrix(rng, 100, 100, "rows"), matrix(rng, 100, 101, "rows")
    products.matmul(a, b)
    assert asked.used == 1
    for first, second in ((a, b[:, :100]), (a.astype(np.float64), b), (a[None], b), (a.astype(np.float64),) * 2):
        np.testing.assert_array_equal(products.matmul(first, second), first @ second)
    assert asked.used == 1
    asked.count = 2  # numpy's own library divides the work among threads
    np.testing.assert_array_equal(products.matmul(a, b), a @ b)
    with pytest.raises(ValueError, match="matmul"):
        products.matmul(a, b.T)


def test_switched_off_numpy_multiplies(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_enabled", [False])
    rng = np.random.default_rng(1)
    a, b = matrix(rng, 300, 200, "rows"), matrix(rng, 200, 100, "columns")
    np.testing.assert_array_equal(products.matmul(a, b), a @ b)
    assert asked.used == 0


def test_a_matrix_and_its_transpose_give_a_symmetric_product(asked: Asked) -> None:
    a = matrix(np.random.default_rng(2), 300, 200, "rows")
    for first, second in ((a, a.T), (a.T, a)):
        made = products.matmul(first, second)
        np.testing.assert_array_equal(made, made.T)
        np.testing.assert_array_equal(made, first @ second)


def test_nan_and_infinity_go_through(asked: Asked) -> None:
    a, b = np.ones((128, 128), np.float32), np.ones((128, 128), np.float32)
    a[3, 5], a[7, 1] = np.nan, np.inf
    out = products.matmul(a, b, np.full((128, 128), np.nan, np.float32))  # what was there does not matter
    assert np.isnan(out[3]).all()
    assert np.isinf(out[7]).all()
    assert (np.delete(out, (3, 7), 0) == 128).all()


@needs_copy
def test_the_copy_leaves_nothing_behind_and_numpy_as_it_was() -> None:
    before = dict(os.environ), set(os.listdir(tempfile.gettempdir()))
    copy = blas._second()
    assert copy is not None
    assert dict(os.environ) == before[0]
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - before[1] if "openblas" in name]
    assert [blas._core(library) for library in blas.loaded() if "numpy.libs" in library._name] == [b"SkylakeX"]


def test_where_nothing_is_known_of_the_processor_numpy_multiplies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(blas, "_PROCESSORS", str(tmp_path / "none"))
    assert blas._second() is None
    other = tmp_path / "cpuinfo"
    first = "vendor_id : AuthenticAMD\ncpu family : 26\nflags : fpu avx512f\n"
    other.write_text(f"{first}\n{first.replace('26', '25')}")
    monkeypatch.setattr(blas, "_PROCESSORS", str(other))
    assert blas._second() is None  # a later family, whose loops of 64 bytes are whole


@pytest.mark.parametrize("core", ["Haswell", "SkylakeX"])
def test_who_chose_loops_by_the_environment_keeps_them(core: str) -> None:
    code = "from distgrad.kernels import blas; print(blas.single_precision())"
    made = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OPENBLAS_CORETYPE": core}, text=True,
                          capture_output=True, check=True, timeout=60)
    assert made.stdout.strip() == "None"
