"""Whether operations record gradients: `no_grad`, `enable_grad`, `inference_mode`, `set_grad_enabled`.

Each is a context manager and a decorator, per thread, as PyTorch's page "torch.autograd.grad_mode" defines.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

_GENERATOR = 0x20  # inspect.CO_GENERATOR, without importing inspect


class _Mode(threading.local):
    enabled = True
    track_views = True
    quiet = False  # numpy's warnings are off already: switching them costs as much as a small kernel


mode = _Mode()


def is_grad_enabled() -> bool:
    """Says whether operations record gradients in this thread."""
    return mode.enabled


class _GradMode:
    """Sets the mode while entered; entering again nests. As a decorator it wraps functions and generators."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(mode.enabled)
        mode.enabled = self._enabled

    def __exit__(self, *exc: object) -> None:
        mode.enabled = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        enabled = self._enabled
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _GENERATOR:

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                inner = function(*args, **kwargs)
                value = None
                while True:
                    with _GradMode(enabled):
                        try:
                            item = inner.send(value)
                        except StopIteration as stop:
                            return stop.value
                    value = yield item

            return generator

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(enabled):
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Records no gradients while entered."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        instance = super().__new__(cls)
        if function is None:
            return instance
        instance.__init__()  # type: ignore[misc]  # `@no_grad` without parentheses decorates at once
        return instance(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Records gradients while entered, also inside `no_grad`."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        instance = super().__new__(cls)
        if function is None:
            return instance
        instance.__init__()  # type: ignore[misc]  # as in no_grad
        return instance(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """Sets the mode at once and, as a context manager, restores it on exit."""

    def __init__(self, mode_enabled: bool) -> None:
        super().__init__(bool(mode_enabled))
        self._previous = mode.enabled
        mode.enabled = bool(mode_enabled)

    def __enter__(self) -> None:
        self._before.append(self._previous)
        mode.enabled = self._enabled


class inference_mode(_GradMode):
    """Records no gradients while entered; `inference_mode(False)` changes nothing."""

    def __init__(self, enabled: bool = True) -> None:
        super().__init__(not enabled and mode.enabled)
