"""Placements: where the elements of a global tensor live. `Shard(dim)`, `Replicate()`, `Partial("sum")`.

The words are DTensor's. A resolved `Shard` carries explicit row offsets (one more than there are workers), never
padding: worker r owns rows [offsets[r], offsets[r + 1]) of its dim. Placements and specs are interned.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from distgrad.meta import TensorMeta


class Placement:
    """Base of `Shard`, `Replicate` and `Partial`; instances are interned and compared by identity."""

    __slots__ = ()
    _interned: ClassVar[dict[tuple[Any, ...], Placement]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")


def _intern(cls: type, key: tuple[Any, ...], **fields: Any) -> Any:
    found = Placement._interned.get((cls.__name__, *key))
    if found is None:
        found = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(found, name, value)
        Placement._interned[(cls.__name__, *key)] = found
    return found


class Replicate(Placement):
    """Every worker holds the whole tensor."""

    __slots__ = ()

    def __new__(cls) -> Replicate:
        return _intern(cls, ())

    def __repr__(self) -> str:
        return "Replicate()"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Replicate, ())


class Shard(Placement):
    """Each worker holds a block of rows along `dim`.

    `offsets` (None: balanced blocks, the first ones one row longer) are the W + 1 row offsets.
    """

    __slots__ = ("dim", "offsets")
    dim: int
    offsets: tuple[int, ...] | None

    def __new__(cls, dim: int = 0, offsets: tuple[int, ...] | None = None) -> Shard:
        if not isinstance(dim, int):
            raise TypeError(f"Shard: dim must be an int, got {type(dim).__name__}")
        if offsets is not None:
            offsets = tuple(offsets)
            if len(offsets) < 2 or offsets[0] != 0 or any(a > b for a, b in zip(offsets, offsets[1:])):
                raise ValueError(f"Shard: offsets must start at 0 and never fall, got {offsets}")
        return _intern(cls, (dim, offsets), dim=dim, offsets=offsets)

    def block(self, rank: int) -> tuple[int, int]:
        """Gives the rows [start, stop) of a rank of a resolved placement."""
        assert self.offsets is not None, "a Shard without offsets is not resolved"
        return self.offsets[rank], self.offsets[rank + 1]

    def __repr__(self) -> str:
        if self.offsets is None or self.offsets == balanced(self.offsets[-1], len(self.offsets) - 1):
            return f"Shard({self.dim})"
        return f"Shard({self.dim}, offsets={self.offsets})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Shard, (self.dim, self.offsets))


class Partial(Placement):
    """Every worker holds a whole-shaped part; the tensor is their `reduce` ("sum", "max", "min", "prod")."""

    __slots__ = ("reduce",)
    reduce: str

    def __new__(cls, reduce: str = "sum") -> Partial:
        if reduce not in ("sum", "max", "min", "prod"):
            raise ValueError(f"Partial: reduce must be 'sum', 'max', 'min' or 'prod', got {reduce!r}")
        return _intern(cls, (reduce,), reduce=reduce)

    def __repr__(self) -> str:
        return f"Partial({self.reduce!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Partial, (self.reduce,))


REPLICATE = Replicate()
SUM = Partial("sum")


@lru_cache(maxsize=65536)
def balanced(rows: int, world_size: int) -> tuple[int, ...]:
    """Gives the W + 1 offsets of balanced blocks: the first `rows % W` blocks are one row longer."""
    base, extra = divmod(rows, world_size)
    return tuple(r * base + min(r, extra) for r in range(world_size + 1))


class Spec:
    """What a node is: meta and placement (None: local to this process). Interned; hashed by identity, so that
    looking up a plan by specs costs no Python call."""

    __slots__ = ("meta", "placement")
    _interned: ClassVar[dict[tuple[TensorMeta, Placement | None], Spec]] = {}
    meta: TensorMeta
    placement: Placement | None

    @classmethod
    def of(cls, meta: TensorMeta, placement: Placement | None = None) -> Spec:
        """Gives the one spec of that meta and placement."""
        found = cls._interned.get((meta, placement))
        if found is None:
            found = object.__new__(cls)
            found.meta, found.placement = meta, placement
            if len(cls._interned) > 200_000:
                cls._interned.clear()
            cls._interned[(meta, placement)] = found
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        return self.meta.shape

    @property
    def ndim(self) -> int:
        return self.meta.ndim

    def local_shape(self, rank: int) -> tuple[int, ...]:
        """Gives the shape of a rank's own part."""
        placement = self.placement
        if not isinstance(placement, Shard):
            return self.meta.shape
        start, stop = placement.block(rank)
        return (*self.meta.shape[: placement.dim], stop - start, *self.meta.shape[placement.dim + 1 :])

    def __repr__(self) -> str:
        return repr(self.meta) if self.placement is None else f"{self.meta!r} {self.placement!r}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Spec.of, (self.meta, self.placement))


def resolve(placement: Placement, meta: TensorMeta, world_size: int) -> Placement:
    """Gives a placement with explicit offsets for that tensor; errors name what does not fit."""
    if not isinstance(placement, Placement):
        raise TypeError(f"placement must be Shard, Replicate or Partial, got {type(placement).__name__}")
    if not isinstance(placement, Shard):
        return placement
    if not -meta.ndim <= placement.dim < meta.ndim:
        raise IndexError(f"{placement!r} does not fit shape {meta.shape}: dim must be in [{-meta.ndim}, {meta.ndim - 1}]")
    dim = placement.dim % meta.ndim
    rows = meta.shape[dim]
    offsets = balanced(rows, world_size) if placement.offsets is None else placement.offsets
    if len(offsets) != world_size + 1 or offsets[-1] != rows:
        raise ValueError(
            f"Shard({dim}): offsets {offsets} do not fit {rows} rows on {world_size} workers; give {world_size + 1} "
            f"offsets ending with {rows}"
        )
    return Shard(dim, offsets)


def public(placement: Placement | None) -> Placement | None:
    """Gives a placement as users write it: balanced offsets are left out."""
    if not isinstance(placement, Shard) or placement.offsets is None:
        return placement
    even = placement.offsets == balanced(placement.offsets[-1], len(placement.offsets) - 1)
    return Shard(placement.dim) if even else placement
