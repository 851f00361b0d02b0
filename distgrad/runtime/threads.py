"""The threads that numpy's linear algebra uses in this process, set in and asked of the library that does it.

Invariant: what is reported is what the library says, never what a variable of the environment promises.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

from distgrad.kernels import blas

_NAMES = [  # (set, get); numpy's wheels carry OpenBLAS with a prefix and a suffix of their own
    (f"{prefix}openblas_set_num_threads{suffix}", f"{prefix}openblas_get_num_threads{suffix}")
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "", "_64"))
] + [("MKL_Set_Num_Threads", "MKL_Get_Max_Threads"), ("bli_thread_set_num_threads", "bli_thread_get_num_threads")]


def _loaded() -> list[tuple[Any, Any]]:
    """Gives the (set, get) functions of the libraries that are loaded."""
    found = []
    for library in blas.loaded():
        pair = next((names for names in _NAMES if hasattr(library, names[0]) and hasattr(library, names[1])), None)
        if pair is not None:
            found.append((getattr(library, pair[0]), getattr(library, pair[1])))
    return found


def pin(count: int) -> int:
    """Makes the linear algebra of this process use `count` threads; gives the number it says it uses.

    Where numpy's library is none that can be asked, OMP_NUM_THREADS is what counts.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    libraries = _loaded()
    for set_threads, _ in libraries:
        set_threads(count)
    return max((int(get_threads()) for _, get_threads in libraries), default=count)


def count() -> int:
    """Gives the number of threads that the linear algebra of this process uses."""
    default = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return max((int(get_threads()) for _, get_threads in _loaded()), default=default)
