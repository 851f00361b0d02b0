"""Keeps Ctrl-C out of short sections that must not be left half-way."""

from __future__ import annotations

import _signal as signal  # the module below `signal`, whose own functions turn every number into an enum: 15 us a call
import contextlib
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds back SIGINT while entered and delivers it afterwards. Only for sections that end soon by themselves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None or not callable(before):
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            before(*came[0])
