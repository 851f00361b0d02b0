"""Products of matrices: large ones of float32 by the loops that suit the processor, all others by numpy.

Invariant: who multiplies depends on shapes, dtypes, layouts and the number of threads, never on time, so that a program
repeats its own bits.
"""

from __future__ import annotations

import numpy as np

from distgrad.kernels import blas, compiled

LEAST = 1_000_001  # multiplications; for fewer, numpy's library has loops for small matrices
_FLOAT32 = np.dtype(np.float32)


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Multiplies as np.matmul does, into `out` where that is given."""
    if (a.ndim == 2 and b.ndim == 2 and a.shape[0] * b.size >= LEAST and a.dtype == _FLOAT32 and b.dtype == _FLOAT32
            and a.shape[1] == b.shape[0] and compiled.enabled()):
        library = blas.single_precision()
        if library is not None and library.threads() == 1:
            made = np.empty((a.shape[0], b.shape[1]), np.float32) if out is None else out
            if _multiplied(library.address, a, b, made):
                return made
    return np.matmul(a, b) if out is None else np.matmul(a, b, out=out)


def _multiplied(address: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Writes the product into `out`, unless a layout is none that can be handed on as it is."""
    from distgrad.kernels import gemm  # here: a small program never loads the compiler

    turn_a, turn_b = not a.flags.c_contiguous, not b.flags.c_contiguous
    if turn_a:
        a = a.T
    if turn_b:
        b = b.T
    if not (a.flags.carray and b.flags.carray and out.flags.carray and out.dtype == _FLOAT32):
        return False
    return gemm.multiply(address, a, b, out, turn_a, turn_b)
