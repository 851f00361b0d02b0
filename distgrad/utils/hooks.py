"""Handles that take a registered hook out again.

Invariant: a handle refers to its dictionary of hooks weakly, so keeping a handle never keeps a module, tensor or
optimizer alive, and removing twice is harmless.
"""

import itertools
import weakref
from collections import OrderedDict
from typing import Any, Self

_hook_ids = itertools.count()


class RemovableHandle:
    """Removes the hook it was returned for, by ``remove()`` or at the end of a ``with`` block.

    ``hooks_dict`` maps handle ids to hooks; ``extra_dict`` (one dictionary or a list of them) holds options that are
    filed under the same id. Source: torch.utils.hooks.RemovableHandle.
    """

    def __init__(self, hooks_dict: Any, *, extra_dict: Any = None) -> None:
        self.id = next(_hook_ids)
        extra = [] if extra_dict is None else extra_dict if isinstance(extra_dict, list) else [extra_dict]
        self._dicts = tuple(weakref.ref(hooks) for hooks in (hooks_dict, *extra))

    def remove(self) -> None:
        """Removes the hook; does nothing when it, or its owner, is already gone."""
        for reference in self._dicts:
            hooks = reference()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __getstate__(self) -> tuple:
        return (self.id, tuple(reference() for reference in self._dicts))

    def __setstate__(self, state: tuple) -> None:
        self.id, dicts = state
        # A dictionary that was gone when the handle was pickled stays gone: an unreferenced stand-in dies at once.
        self._dicts = tuple(weakref.ref(OrderedDict() if hooks is None else hooks) for hooks in dicts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
