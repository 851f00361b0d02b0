"""A tensor's shape as users see it. Invariant: it is a tuple, equal to and hashed as one."""

from __future__ import annotations

from typing import Any


class Size(tuple[int, ...]):
    """A tensor's shape; a tuple that prints as PyTorch's does."""

    __slots__ = ()

    def numel(self) -> int:
        """Gives the number of elements."""
        count = 1
        for n in self:
            count *= n
        return count

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __getitem__(self, key: Any) -> Any:
        found = tuple.__getitem__(self, key)
        return Size(found) if isinstance(key, slice) else found

    def __add__(self, other: Any) -> Size:  # type: ignore[override]  # as PyTorch: a Size plus a tuple is a Size
        return Size(tuple.__add__(self, tuple(other)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Size, (tuple(self),))
