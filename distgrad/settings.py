"""Process-wide settings under PyTorch's names: threads, determinism, compilation, memory layout.

Invariant: a setting that cannot be had raises; one that always holds here is accepted and changes nothing.
"""

from __future__ import annotations

from typing import Any

from distgrad import fused
from distgrad.device import CPU, device

__all__ = ["are_deterministic_algorithms_enabled", "are_fused_kernels_enabled", "compile", "contiguous_format",
           "get_default_device", "get_float32_matmul_precision", "get_num_threads", "layout", "memory_format",
           "preserve_format", "set_default_device", "set_float32_matmul_precision", "set_fused_kernels",
           "set_num_threads", "strided", "use_deterministic_algorithms"]


class _Name:
    """A constant that prints as its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"distgrad.{self.name}"

    def __reduce__(self) -> str:
        return self.name


class layout(_Name):
    """How elements lie in memory. PyTorch: torch.layout."""

    __slots__ = ()


class memory_format(_Name):
    """In which order dims lie in memory. PyTorch: torch.memory_format."""

    __slots__ = ()


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")


def compile(model: Any = None, **options: Any) -> Any:
    """Gives the function or module as it is: sharded programs are recorded and cached without being asked to.

    A decorator with or without arguments. PyTorch: torch.compile.
    """
    return (lambda function: function) if model is None else model


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepts either; results are always deterministic. PyTorch: torch.use_deterministic_algorithms."""


def are_deterministic_algorithms_enabled() -> bool:
    """Says that results are deterministic: True."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Accepts "highest", "high" or "medium", which allow less precision than float32 has; ValueError for another.

    PyTorch: torch.set_float32_matmul_precision.
    """
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"set_float32_matmul_precision: got {precision!r}; allowed: 'highest', 'high', 'medium'")


def get_float32_matmul_precision() -> str:
    """Gives the precision of float32 products: "highest", always."""
    return "highest"


def set_default_device(value: Any) -> None:
    """Accepts the CPU (or None); RuntimeError for another device. PyTorch: torch.set_default_device."""
    if value is not None:
        device(value)


def get_default_device() -> device:
    """Gives the device of new tensors: the CPU."""
    return CPU


# Compiled kernels -------------------------------------------------------------------------------------------


def set_fused_kernels(enabled: bool) -> None:
    """Switches compiled kernels on or off, here and in workers that start later; without them numpy does their work.

    Results agree within rounding. They are on at first, unless the environment says DISTGRAD_FUSED=0.
    """
    fused.switch.on = bool(enabled)


def are_fused_kernels_enabled() -> bool:
    """Says whether large arrays are given to compiled kernels."""
    return fused.switch.on


# Threads ----------------------------------------------------------------------------------------------------


def get_num_threads() -> int:
    """Gives the number of threads that matrix products use in this process. PyTorch: torch.get_num_threads."""
    from distgrad.runtime import threads  # asks the loaded libraries, which most programs never do

    return threads.count()


def set_num_threads(number: int) -> None:
    """Sets the number of threads that matrix products use in this process; workers have one per CPU they are given.

    RuntimeError when it is not positive, or when numpy's library cannot be told. PyTorch: torch.set_num_threads.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RuntimeError(f"set_num_threads: expected a positive number of threads, got {number!r}")
    from distgrad.runtime import threads

    if threads.pin(number) != number:
        raise RuntimeError(
            "set_num_threads: numpy's library cannot be told; set OMP_NUM_THREADS before numpy is imported"
        )
