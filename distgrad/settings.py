"""Process-wide settings under PyTorch's names: threads, determinism, compilation, memory layout.

Invariant: a setting that cannot be had raises; one that always holds here is accepted and changes nothing.
"""

from __future__ import annotations

from typing import Any

from distgrad.device import CPU, device
from distgrad.kernels import compiled

__all__ = [
    "are_deterministic_algorithms_enabled", "are_fused_kernels_enabled", "channels_last", "channels_last_3d",
    "contiguous_format", "get_default_device", "get_float32_matmul_precision", "get_num_interop_threads",
    "get_num_threads", "is_autocast_enabled", "layout", "memory_format", "preserve_format", "set_default_device",
    "set_float32_matmul_precision", "set_flush_denormal", "set_fused_kernels", "set_num_interop_threads",
    "set_num_threads", "set_warn_always", "sparse_coo", "strided", "typename", "use_deterministic_algorithms",
]  # fmt: skip


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
sparse_coo = layout("sparse_coo")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
# Memory is row-major whatever is asked for: these have no effect but on `is_contiguous`.
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepts either; results are always deterministic. PyTorch: torch.use_deterministic_algorithms."""


def are_deterministic_algorithms_enabled() -> bool:
    """Says that results are deterministic: True."""
    return True


def set_num_interop_threads(number: int) -> None:
    """Accepts any positive number: operations of one process do not run beside each other; RuntimeError otherwise.

    PyTorch: torch.set_num_interop_threads.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RuntimeError(f"set_num_interop_threads: expected a positive number of threads, got {number!r}")


def get_num_interop_threads() -> int:
    """Gives how many operations run beside each other: 1. PyTorch: torch.get_num_interop_threads."""
    return 1


def set_flush_denormal(mode: bool) -> bool:
    """Says that denormal numbers cannot be flushed to zero: False. PyTorch: torch.set_flush_denormal."""
    return False


def set_warn_always(b: bool) -> None:
    """Accepts either; which warnings repeat is for Python's `warnings` to say. PyTorch: torch.set_warn_always."""


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Says that no precision is lowered: False. PyTorch: torch.is_autocast_enabled."""
    return False


def typename(obj: Any) -> str:
    """Gives a tensor's type as `type` does, otherwise the full name of the object's class. PyTorch: torch.typename."""
    if hasattr(obj, "_node"):
        return str(obj.type())
    kind = obj if isinstance(obj, type) else type(obj)
    return f"{kind.__module__}.{kind.__qualname__}"


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
    """Switches compiled kernels on or off, here and in sessions that begin later; without them numpy does their work.

    Results agree within rounding. They are on at first, unless the environment says DISTGRAD_FUSED=0.
    """
    compiled.enable(bool(enabled))


def are_fused_kernels_enabled() -> bool:
    """Says whether large arrays are given to compiled kernels."""
    return compiled.enabled()


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
