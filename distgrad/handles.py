"""The handle by which a tensor's hook, or a gradient function's, is taken back.

Invariant: it refers to the dictionary of hooks only, so it keeps no tensor alive, and removing twice is harmless.
"""

from __future__ import annotations

import itertools
from typing import Any

from distgrad.changes import structure

_hook_ids = itertools.count()


class RemovableHandle:
    """Takes back a registered hook with `remove()`."""

    def __init__(self, hooks: dict[int, Any]) -> None:
        self._hooks, self.id = hooks, next(_hook_ids)
        structure[0] += 1

    def remove(self) -> None:
        """Removes the hook; again does nothing."""
        self._hooks.pop(self.id, None)
        structure[0] += 1

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
