"""`backends` under PyTorch's names, for scripts that set or ask: numpy computes here, and none of them is in use.

Invariant: questions are answered with no; settings can be written and read and change nothing, for results are
deterministic already.
"""

from __future__ import annotations

from distgrad.backends import cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
