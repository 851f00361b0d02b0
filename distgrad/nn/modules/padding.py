"""Layers that widen the spatial dimensions: with a constant, or with the input's own rows.

Invariant: ``padding`` is kept as (before, after) pairs, last dimension first, as ``functional.pad`` takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import distgrad as dg
from distgrad.nn.modules.convolution import repeated
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor


class _PadNd(Module):
    """What padding layers share: ``padding`` and the mode of ``functional.pad``; ``_dims`` spatial dimensions."""

    _dims = 0
    _mode = "constant"
    value: float | None = None

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding = repeated(padding, 2 * self._dims)

    def _check_input_dim(self, input: Tensor) -> None:
        """Raises ValueError for an input of the wrong number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return dg.nn.functional.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    """Widens with one value."""

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPadNd):
    """Widens the last dimension with ``value``. Source: torch.nn.ConstantPad1d."""

    _dims = 1


class ConstantPad2d(_ConstantPadNd):
    """Widens the last two dimensions with ``value``. Source: torch.nn.ConstantPad2d."""

    _dims = 2


class ConstantPad3d(_ConstantPadNd):
    """Widens the last three dimensions with ``value``. Source: torch.nn.ConstantPad3d."""

    _dims = 3


class _ZeroPadNd(_ConstantPadNd):
    """Widens with zeros."""

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad1d(_ZeroPadNd, ConstantPad1d):
    """Widens the last dimension with zeros. Source: torch.nn.ZeroPad1d."""


class ZeroPad2d(_ZeroPadNd, ConstantPad2d):
    """Widens the last two dimensions with zeros. Source: torch.nn.ZeroPad2d."""


class ZeroPad3d(_ZeroPadNd, ConstantPad3d):
    """Widens the last three dimensions with zeros. Source: torch.nn.ZeroPad3d."""


class _ReflectionPadNd(_PadNd):
    """Widens with the rows next to the edge, mirrored."""

    _mode = "reflect"


class ReflectionPad1d(_ReflectionPadNd):
    """Widens the last dimension with its mirror image. Source: torch.nn.ReflectionPad1d."""

    _dims = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Widens the last two dimensions with their mirror images. Source: torch.nn.ReflectionPad2d."""

    _dims = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Widens the last three dimensions with their mirror images. Source: torch.nn.ReflectionPad3d."""

    _dims = 3


class _ReplicationPadNd(_PadNd):
    """Widens with the edge itself."""

    _mode = "replicate"


class ReplicationPad1d(_ReplicationPadNd):
    """Widens the last dimension with copies of its edges. Source: torch.nn.ReplicationPad1d."""

    _dims = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Widens the last two dimensions with copies of their edges. Source: torch.nn.ReplicationPad2d."""

    _dims = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Widens the last three dimensions with copies of their edges. Source: torch.nn.ReplicationPad3d."""

    _dims = 3


class _CircularPadNd(_PadNd):
    """Widens with the rows of the other end; ValueError for an input that is not (N, C, ...) or (C, ...)."""

    _mode = "circular"

    def _check_input_dim(self, input: Any) -> None:
        if input.ndim not in (self._dims + 1, self._dims + 2):
            raise ValueError(f"expected {self._dims + 1}D or {self._dims + 2}D input (got {input.ndim}D input)")


class CircularPad1d(_CircularPadNd):
    """Widens the last dimension with rows of its other end. Source: torch.nn.CircularPad1d."""

    _dims = 1


class CircularPad2d(_CircularPadNd):
    """Widens the last two dimensions with rows of their other ends. Source: torch.nn.CircularPad2d."""

    _dims = 2


class CircularPad3d(_CircularPadNd):
    """Widens the last three dimensions with rows of their other ends. Source: torch.nn.CircularPad3d."""

    _dims = 3
