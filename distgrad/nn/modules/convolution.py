"""Convolution layers and their transposes over one to three spatial dimensions.

Invariant: weights are ``(out, in / groups, *kernel)``, of the transposes ``(in, out / groups, *kernel)``, and start
uniform in ``+-1/sqrt(fan_in)``, as biases do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import distgrad as dg
from distgrad.nn import init
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor

Ints = int | Sequence[int]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def repeated(value: Any, count: int) -> tuple[Any, ...]:
    """Returns one value per spatial dimension: those of a sequence, or ``count`` times the same."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * count


class _ConvNd(Module):
    """What convolutions share: their sizes, ``weight`` and ``bias``; ``_dims`` is the number of spatial dimensions."""

    _dims = 0
    transposed = False

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints, padding: Ints | str, dilation: Ints,
        output_padding: Ints, groups: int, bias: bool, padding_mode: str, device: Any, dtype: Any,
    ) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups != 0:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups != 0:
            raise ValueError("out_channels must be divisible by groups")
        if padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode must be one of {_PADDING_MODES}, but got padding_mode='{padding_mode}'")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = repeated(kernel_size, self._dims)
        self.stride = repeated(stride, self._dims)
        self.padding = padding if isinstance(padding, str) else repeated(padding, self._dims)
        self.dilation = repeated(dilation, self._dims)
        self.output_padding = repeated(output_padding, self._dims)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {self.padding!r}, should be one of {{'same', 'valid'}}"
                )
            if self.padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(dg.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(dg.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        # Kaiming with a=sqrt(5) has the bound 1/sqrt(fan_in), the one of the bias.
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0,) * self._dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._dims:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self._dims:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Convolution(_ConvNd):
    """A convolution layer: the padding of its input and the call."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints | str = 0,
        dilation: Ints = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups, bias,
                         padding_mode, device, dtype)

    def _edges(self) -> list[int]:
        """Returns the widths that ``pad`` takes, last dimension first."""
        if self.padding == "valid":
            return [0] * (2 * self._dims)
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            sides = [(total // 2, total - total // 2) for total in totals]
        else:
            sides = [(side, side) for side in self.padding]
        return [width for pair in reversed(sides) for width in pair]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = dg.nn.functional.pad(input, self._edges(), mode=self.padding_mode)
            padding = 0
        convolve = getattr(dg.nn.functional, f"conv{self._dims}d")
        return convolve(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


class Conv1d(_Convolution):
    """Convolves ``(N, in, L)`` or ``(in, L)``: ``weight`` is ``(out, in / groups, K)``, ``bias`` is ``(out,)``.

    Raises ValueError for channels that the groups do not divide or an unknown padding. Source: torch.nn.Conv1d.
    """

    _dims = 1


class Conv2d(_Convolution):
    """Convolves ``(N, in, H, W)`` or ``(in, H, W)``: ``weight`` is ``(out, in / groups, Kh, Kw)``, ``bias`` ``(out,)``.

    Raises ValueError for channels that the groups do not divide or an unknown padding. Source: torch.nn.Conv2d.

    >>> import distgrad as dg
    >>> dg.nn.Conv2d(3, 8, 3, padding=1)(dg.zeros(2, 3, 5, 5)).shape
    torch.Size([2, 8, 5, 5])
    """

    _dims = 2


class Conv3d(_Convolution):
    """Convolves ``(N, in, D, H, W)`` or ``(in, D, H, W)``: ``weight`` is ``(out, in / groups, Kd, Kh, Kw)``.

    Raises ValueError for channels that the groups do not divide or an unknown padding. Source: torch.nn.Conv3d.
    """

    _dims = 3


class _ConvTransposeNd(_ConvNd):
    """A transposed convolution layer: the choice of its output's size and the call."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Ints,
        stride: Ints = 1,
        padding: Ints = 0,
        output_padding: Ints = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Ints = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding, groups,
                         bias, padding_mode, device, dtype)

    def _output_padding(self, input: Tensor, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """Returns how much is added behind so that the output has the wanted size."""
        if output_size is None:
            return self.output_padding
        count = self._dims
        extra = input.ndim - count
        wanted = tuple(output_size)
        if len(wanted) == count + extra:
            wanted = wanted[extra:]
        if len(wanted) != count:
            raise ValueError(
                f"ConvTranspose{count}D: for {input.ndim}D input, output_size must have {count} or {count + extra} "
                f"elements (got {len(wanted)})"
            )
        least = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(input.shape[extra:], self.stride, self.padding, self.dilation, self.kernel_size)
        )
        most = tuple(low + s - 1 for low, s in zip(least, self.stride))
        if not all(low <= size <= high for low, size, high in zip(least, wanted, most)):
            raise ValueError(
                f"requested an output size of {wanted}, but valid sizes range from {least} to {most} (for an input of "
                f"{tuple(input.shape[2:])})"
            )
        return tuple(size - low for size, low in zip(wanted, least))

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        convolve = getattr(dg.nn.functional, f"conv_transpose{self._dims}d")
        return convolve(input, self.weight, self.bias, self.stride, self.padding,
                        self._output_padding(input, output_size), self.groups, self.dilation)


class ConvTranspose1d(_ConvTransposeNd):
    """Applies the transpose of ``Conv1d`` to ``(N, in, L)``: ``weight`` is ``(in, out / groups, K)``.

    A call may name the ``output_size``. Source: torch.nn.ConvTranspose1d.
    """

    _dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """Applies the transpose of ``Conv2d`` to ``(N, in, H, W)``: ``weight`` is ``(in, out / groups, Kh, Kw)``.

    A call may name the ``output_size``. Source: torch.nn.ConvTranspose2d.
    """

    _dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """Applies the transpose of ``Conv3d`` to ``(N, in, D, H, W)``: ``weight`` is ``(in, out / groups, Kd, Kh, Kw)``.

    A call may name the ``output_size``. Source: torch.nn.ConvTranspose3d.
    """

    _dims = 3
