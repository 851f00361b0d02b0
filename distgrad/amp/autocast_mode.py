"""`autocast`: a context and decorator that changes no precision.

Invariant: entering and leaving it leaves every result as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

_DEVICES = ("cpu", "cuda", "mps", "xpu", "meta", "hpu", "ipu", "mtia", "xla")


class autocast:
    """A context manager and decorator: inside it operations keep the precision of their operands.

    RuntimeError for a device type nobody knows. PyTorch computes some operations in `dtype` on CPUs when
    `device_type` is "cpu"; here results are those without it. PyTorch: torch.amp.autocast.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if device_type not in _DEVICES:
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        self.device = device_type
        self.fast_dtype = dtype

    def __enter__(self) -> autocast:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        return wrapped


def is_autocast_available(device_type: str) -> bool:
    """Says whether precision can be lowered automatically: False. PyTorch: torch.amp.is_autocast_available."""
    return False


def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str = "cpu", cast_inputs: Any = None) -> Any:
    """Gives the forward of a custom Function as it is, as a decorator with or without arguments."""
    return fwd if fwd is not None else lambda function: function


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cpu") -> Any:
    """Gives the backward of a custom Function as it is, as a decorator with or without arguments."""
    return bwd if bwd is not None else lambda function: function
