"""How kernels are compiled, where the results are kept, and compiling them ahead of their first use.

Invariant: no flag lets the compiler assume that values are finite: NaN and infinities come out as numpy gives them.
`reassoc` reorders sums, which makes them vectors; a helper that needs its order of operations is a `scalar`, a kernel
that does is `exact`.

Numba keeps compiled code beside the source file, or in the user's cache directory where that cannot be written, and
compiles again when that file changes, not when one it imports does: so a kernel calls no helper of another module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from numba import njit, types

from distgrad.kernels import blas

MODULES = ("activations", "bends", "channel_norms", "elementwise", "gemm", "norms", "patches", "pooling", "rows", "slopes",
           "sums", "tiles")

KINDS = (types.float32, types.float64)

_kernels: list[tuple[Any, tuple[str, ...], tuple[Any, ...]]] = []
_FIXED = {"int": types.int64, "float": types.float64, "bool": types.boolean, "i1": types.int64[::1],
          "i2": types.int64[:, ::1], "i3": types.int64[:, :, ::1], "b1": types.boolean[::1], "d1": types.float64[::1]}


def kernel(arguments: str, kinds: tuple[Any, ...] = KINDS, *, exact: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function of arrays, lazily, per dtype, cached on disk.

    `arguments` has a word for each parameter: "1", "2", ... for contiguous arrays with so many dims of the dtype the
    kernel is compiled for; "i1", "i2", "i3", "b1" for int64 and bool arrays, "d1" for double precision; "int", "float"
    and "bool" for numbers. `kinds` are the dtypes that `warm_up` compiles it for. `exact`: no operation is reordered or
    joined with another.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        options: Any = {"nogil": True, "error_model": "numpy", "boundscheck": False,
                        "fastmath": False if exact else {"contract", "reassoc", "nsz"}}
        try:
            dispatcher = njit(cache=True, **options)(function)
        except RuntimeError:  # no directory can be written to: every process compiles for itself
            dispatcher = njit(**options)(function)
        _kernels.append((dispatcher, tuple(arguments.split()), kinds))
        return dispatcher

    return compiled


def scalar(function: Callable[..., Any]) -> Any:
    """Compiles a function that kernels of its module call, into them; it keeps its order of operations."""
    return njit(error_model="numpy", fastmath={"contract"}, forceinline=True)(function)


def _signature(words: tuple[str, ...], kind: Any) -> tuple[Any, ...]:
    return tuple(_FIXED[w] if w in _FIXED else types.Array(kind, int(w), "C") for w in words)


def warm_up() -> None:
    """Compiles every kernel for float32, the usual dtype, or loads it from disk; stops when the process ends.

    The second library of products is loaded before.

    Compiled code takes memory, about 1 MB a kernel: what is for float64 comes with its first use.
    """
    blas.single_precision()
    for name in MODULES:
        import_module(f"distgrad.kernels.{name}")
    kind = types.float32
    for dispatcher, words, kinds in _kernels:
        if not threading.main_thread().is_alive():
            return
        if kind in kinds:
            dispatcher.compile(_signature(words, kind))
