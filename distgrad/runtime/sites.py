"""Where in the user's code a call was recorded: kept as code and position, turned into a line only when asked."""

from __future__ import annotations

import os
import sys
from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def user_site() -> tuple[Any, int] | None:
    """Gives the code and position of the innermost frame outside of the package, of the call it was recorded for."""
    frame: Any = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lasti)


def where(site: tuple[Any, int] | None) -> str:
    """Gives "file:line" of a recorded call."""
    if site is None:
        return "an unknown line"
    code, offset = site
    line = next((number for start, end, number in code.co_lines() if start <= offset < end), code.co_firstlineno)
    return f"{code.co_filename}:{line}"
