"""`cuda` under PyTorch's names, for scripts that ask: there is never a GPU here.

Invariant: questions are answered with no and none, seeding does nothing, and what needs a GPU raises.
"""

from __future__ import annotations

from typing import Any

from distgrad.cuda import amp

__all__ = [
    "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "Event", "FloatTensor", "HalfTensor", "IntTensor",
    "LongTensor", "OutOfMemoryError", "ShortTensor", "Stream", "amp", "current_device", "current_stream", "device",
    "device_count", "empty_cache", "get_device_capability", "get_device_name", "get_device_properties", "get_rng_state",
    "get_rng_state_all", "init", "ipc_collect", "is_available", "is_bf16_supported", "is_initialized", "manual_seed",
    "manual_seed_all", "max_memory_allocated", "max_memory_cached", "max_memory_reserved", "memory_allocated",
    "memory_cached", "memory_reserved", "memory_summary", "reset_max_memory_allocated", "reset_peak_memory_stats",
    "seed", "seed_all", "set_device", "set_rng_state", "set_rng_state_all", "stream", "synchronize",
]  # fmt: skip


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


def seed() -> None:
    """Does nothing, as in PyTorch without CUDA."""


def seed_all() -> None:
    """Does nothing, as in PyTorch without CUDA."""


def ipc_collect() -> None:
    """Does nothing: there is no memory of a GPU."""


def reset_peak_memory_stats(device: Any = None) -> None:
    """Does nothing: there is no memory of a GPU."""


reset_max_memory_allocated = reset_peak_memory_stats


def memory_allocated(device: Any = None) -> int:
    """Gives the bytes of GPU memory in use: 0."""
    return 0


memory_reserved = memory_cached = memory_allocated
max_memory_allocated = max_memory_reserved = max_memory_cached = memory_allocated


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """Gives the text that there is no GPU memory to report on."""
    return "no GPU is available: distgrad computes on CPUs"


class OutOfMemoryError(RuntimeError):
    """Is raised by PyTorch when a GPU's memory is full; never here."""


def get_rng_state_all() -> list[Any]:
    """Gives the states of the GPUs' generators: none."""
    return []


def set_rng_state_all(new_states: Any) -> None:
    """Sets the states of the GPUs' generators, of which there are none."""


class _NeedsGpu:
    """Something of CUDA's that cannot be had: calling it raises, and nothing is an instance of it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"cuda.{self.__name__}: no GPU is available: distgrad computes on CPUs; use device('cpu')")

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<cuda.{self.__name__}: not available>"


Event, Stream = _NeedsGpu("Event"), _NeedsGpu("Stream")
current_device, current_stream = _NeedsGpu("current_device"), _NeedsGpu("current_stream")
device, set_device, synchronize = _NeedsGpu("device"), _NeedsGpu("set_device"), _NeedsGpu("synchronize")
get_device_capability, get_device_name = _NeedsGpu("get_device_capability"), _NeedsGpu("get_device_name")
get_device_properties, init = _NeedsGpu("get_device_properties"), _NeedsGpu("init")
get_rng_state, set_rng_state = _NeedsGpu("get_rng_state"), _NeedsGpu("set_rng_state")
stream = _NeedsGpu("stream")
BoolTensor, ByteTensor, CharTensor = _NeedsGpu("BoolTensor"), _NeedsGpu("ByteTensor"), _NeedsGpu("CharTensor")
DoubleTensor, FloatTensor, HalfTensor = _NeedsGpu("DoubleTensor"), _NeedsGpu("FloatTensor"), _NeedsGpu("HalfTensor")
IntTensor, LongTensor, ShortTensor = _NeedsGpu("IntTensor"), _NeedsGpu("LongTensor"), _NeedsGpu("ShortTensor")
