"""Shapes and dtypes without values: `TensorMeta`, broadcasting, dimension arguments.

Metas are interned: equal metas are the same object, so that a lookup by meta is a lookup by identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, ClassVar

from distgrad import dtypes


class TensorMeta:
    """Shape and dtype of a tensor; make one with `TensorMeta.of(shape, dtype)`.

    Attributes: `shape` (tuple of int), `dtype`, `ndim`, `size` (elements), `nbytes`.
    """

    __slots__ = ("dtype", "nbytes", "ndim", "shape", "size")
    _interned: ClassVar[dict[tuple[tuple[int, ...], str], TensorMeta]] = {}

    shape: tuple[int, ...]
    dtype: dtypes.dtype
    ndim: int
    size: int
    nbytes: int

    @classmethod
    def of(cls, shape: Sequence[int], kind: dtypes.dtype) -> TensorMeta:
        """Gives the one meta of that shape and dtype."""
        shape = tuple(shape)
        found = cls._interned.get((shape, kind.name))
        if found is None:
            found = object.__new__(cls)
            found.shape, found.dtype, found.ndim = shape, kind, len(shape)
            found.size = prod(shape)
            found.nbytes = found.size * kind.itemsize
            if len(cls._interned) > 200_000:  # a program with ever-changing shapes must not grow without bound
                cls._interned.clear()
            cls._interned[(shape, kind.name)] = found
        return found

    def with_dtype(self, kind: dtypes.dtype) -> TensorMeta:
        """Gives the meta of this shape with another dtype."""
        return self if kind is self.dtype else TensorMeta.of(self.shape, kind)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, TensorMeta) and self.shape == other.shape and self.dtype is other.dtype
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype.name))

    def __repr__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return (TensorMeta.of, (self.shape, self.dtype))


def broadcast_shapes(name: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Gives the broadcast of shapes aligned at the last dimension; RuntimeError names the sizes that differ."""
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return shapes[0]
    ndim = max((len(s) for s in shapes), default=0)
    out = [1] * ndim
    for shape in shapes:
        for position, size in enumerate(shape, ndim - len(shape)):
            if size == out[position] or size == 1:
                continue
            if out[position] != 1:
                raise RuntimeError(
                    f"{name}: shapes {' and '.join(map(str, shapes))} do not broadcast: sizes {out[position]} and "
                    f"{size} at dimension {position}; sizes must be equal or 1"
                )
            out[position] = size
    return tuple(out)


def normalize_dim(name: str, dim: Any, ndim: int) -> int:
    """Gives `dim` as a number in [0, ndim); IndexError outside [-ndim, ndim), TypeError for a non-integer.

    A 0-d tensor accepts -1 and 0, as in PyTorch.
    """
    if not isinstance(dim, int):
        index = getattr(dim, "__index__", None)
        if index is None or isinstance(dim, float):
            raise TypeError(f"{name}: dim must be an int, got {type(dim).__name__}")
        dim = index()
    bound = max(ndim, 1)
    if not -bound <= dim < bound:
        raise IndexError(
            f"{name}: Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], but got {dim})"
        )
    return dim + bound if dim < 0 else dim


_ALL_DIMS = tuple(tuple(range(ndim)) for ndim in range(8))


def normalize_dims(name: str, dims: Any, ndim: int, *, empty_means_all: bool = True) -> tuple[int, ...]:
    """Gives a `dim` argument (None, int or several) as a sorted tuple; RuntimeError for a repeated dim."""
    if dims is None:
        return _ALL_DIMS[ndim] if ndim < len(_ALL_DIMS) else tuple(range(ndim))
    if isinstance(dims, Iterable):
        found = [normalize_dim(name, d, ndim) for d in dims]
        if not found and empty_means_all:
            return tuple(range(ndim))
    else:
        found = [normalize_dim(name, dims, ndim)]
    if len(set(found)) != len(found):
        raise RuntimeError(f"{name}: dim {next(d for d in found if found.count(d) > 1)} appears multiple times in {dims}")
    return tuple(sorted(d for d in found if d < ndim))
