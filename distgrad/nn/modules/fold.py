"""Layers that cut an image into the patches a convolution reads, and add patches up again.

Invariant: ``Fold`` is the transpose of ``Unfold`` with the same options.
"""

from __future__ import annotations

from collections.abc import Sequence

import distgrad as dg
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor

Ints = int | Sequence[int]


class Unfold(Module):
    """Gives the patches of ``(N, C, H, W)`` as columns ``(N, C * Kh * Kw, positions)``. Source: torch.nn.Unfold."""

    def __init__(self, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


class Fold(Module):
    """Adds columns ``(N, C * Kh * Kw, positions)`` up into ``(N, C, *output_size)``. Source: torch.nn.Fold."""

    def __init__(
        self, output_size: Ints, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )
