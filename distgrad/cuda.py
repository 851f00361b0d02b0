"""`cuda` under PyTorch's names, for scripts that ask: there is never a GPU here.

Invariant: questions are answered with no and none, seeding does nothing, and what needs a GPU raises.
"""

from __future__ import annotations

from typing import Any

__all__ = ["current_device", "device_count", "empty_cache", "is_available", "is_bf16_supported", "is_initialized",
           "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """Says that there is no GPU: False."""
    return False


def is_initialized() -> bool:
    """Says that CUDA is not in use: False."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Says that there is no GPU that could: False."""
    return False


def device_count() -> int:
    """Gives the number of GPUs: 0."""
    return 0


def empty_cache() -> None:
    """Does nothing, as in PyTorch without CUDA."""


def manual_seed(seed: int) -> None:
    """Does nothing, as in PyTorch without CUDA; `distgrad.manual_seed` seeds."""


def manual_seed_all(seed: int) -> None:
    """Does nothing, as in PyTorch without CUDA; `distgrad.manual_seed` seeds."""


def current_device() -> Any:
    """Raises RuntimeError: there is no GPU."""
    raise RuntimeError("cuda.current_device: no GPU is available: distgrad computes on CPUs; use device('cpu')")
