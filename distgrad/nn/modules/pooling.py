"""Pooling layers: maxima, means, p-norms, adaptive and fractional windows, and unpooling.

Invariant: a layer holds options only; all work is that of the function of the same name in ``functional``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import distgrad as dg
from distgrad.nn.modules.convolution import repeated
from distgrad.nn.modules.module import Module
from distgrad.tensor import Tensor

Ints = int | Sequence[int]


class _MaxPoolNd(Module):
    """What the layers of maxima share; ``_dims`` is the number of spatial dimensions."""

    _dims = 0

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, dilation: Ints = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        pool = getattr(dg.nn.functional, f"max_pool{self._dims}d")
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation, ceil_mode=self.ceil_mode,
                    return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}, "
            f"ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPoolNd):
    """Takes the maximum of each window of ``(N, C, L)``. Source: torch.nn.MaxPool1d."""

    _dims = 1


class MaxPool2d(_MaxPoolNd):
    """Takes the maximum of each window of ``(N, C, H, W)``. Source: torch.nn.MaxPool2d."""

    _dims = 2


class MaxPool3d(_MaxPoolNd):
    """Takes the maximum of each window of ``(N, C, D, H, W)``. Source: torch.nn.MaxPool3d."""

    _dims = 3


class _MaxUnpoolNd(Module):
    """What the unpooling layers share."""

    _dims = 0

    def __init__(self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0) -> None:
        super().__init__()
        self.kernel_size = repeated(kernel_size, self._dims)
        self.stride = repeated(stride if stride is not None else kernel_size, self._dims)
        self.padding = repeated(padding, self._dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        unpool = getattr(dg.nn.functional, f"max_unpool{self._dims}d")
        return unpool(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpoolNd):
    """Puts ``(N, C, L)`` back where ``MaxPool1d`` found it, zeros elsewhere. Source: torch.nn.MaxUnpool1d."""

    _dims = 1


class MaxUnpool2d(_MaxUnpoolNd):
    """Puts ``(N, C, H, W)`` back where ``MaxPool2d`` found it, zeros elsewhere. Source: torch.nn.MaxUnpool2d."""

    _dims = 2


class MaxUnpool3d(_MaxUnpoolNd):
    """Puts ``(N, C, D, H, W)`` back where ``MaxPool3d`` found it, zeros elsewhere. Source: torch.nn.MaxUnpool3d."""

    _dims = 3


class _AvgPoolNd(Module):
    """How the layers of means print."""

    kernel_size: Any
    stride: Any
    padding: Any

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    """Takes the mean of each window of ``(N, C, L)``. Source: torch.nn.AvgPool1d."""

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size = repeated(kernel_size, 1)
        self.stride = repeated(stride if stride is not None else kernel_size, 1)
        self.padding = repeated(padding, 1)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool2d(_AvgPoolNd):
    """Takes the mean of each window of ``(N, C, H, W)``. Source: torch.nn.AvgPool2d."""

    _dims = 2

    def __init__(
        self, kernel_size: Ints, stride: Ints | None = None, padding: Ints = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(dg.nn.functional, f"avg_pool{self._dims}d")
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                    self.divisor_override)


class AvgPool3d(AvgPool2d):
    """Takes the mean of each window of ``(N, C, D, H, W)``. Source: torch.nn.AvgPool3d."""

    _dims = 3


class _LPPoolNd(Module):
    """What the layers of p-norms share."""

    _dims = 0

    def __init__(
        self, norm_type: float, kernel_size: Ints, stride: Ints | None = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        pool = getattr(dg.nn.functional, f"lp_pool{self._dims}d")
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPoolNd):
    """Takes the p-norm of each window of ``(N, C, L)``. Source: torch.nn.LPPool1d."""

    _dims = 1


class LPPool2d(_LPPoolNd):
    """Takes the p-norm of each window of ``(N, C, H, W)``. Source: torch.nn.LPPool2d."""

    _dims = 2


class LPPool3d(_LPPoolNd):
    """Takes the p-norm of each window of ``(N, C, D, H, W)``. Source: torch.nn.LPPool3d."""

    _dims = 3


class _FractionalMaxPoolNd(Module):
    """What the layers of maxima at pseudo-random steps share."""

    _dims = 0

    def __init__(
        self, kernel_size: Ints, output_size: Ints | None = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = repeated(kernel_size, self._dims)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else repeated(output_size, self._dims)
        self.output_ratio = None if output_ratio is None else repeated(output_ratio, self._dims)
        if output_size is None and output_ratio is None:
            raise ValueError(f"{type(self).__name__} requires specifying either an output size, or a pooling ratio")
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        if self.output_ratio is not None and not all(0 < ratio < 1 for ratio in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        pool = getattr(dg.nn.functional, f"fractional_max_pool{self._dims}d")
        return pool(input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
                    _random_samples=self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPoolNd):
    """Takes maxima at pseudo-random steps over ``(N, C, H, W)``. Source: torch.nn.FractionalMaxPool2d."""

    _dims = 2


class FractionalMaxPool3d(_FractionalMaxPoolNd):
    """Takes maxima at pseudo-random steps over ``(N, C, D, H, W)``. Source: torch.nn.FractionalMaxPool3d."""

    _dims = 3


class _AdaptiveMaxPoolNd(Module):
    """What the layers of maxima over windows that cover the input share."""

    _dims = 0

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        pool = getattr(dg.nn.functional, f"adaptive_max_pool{self._dims}d")
        return pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Takes the maxima of ``output_size`` windows of ``(N, C, L)``. Source: torch.nn.AdaptiveMaxPool1d."""

    _dims = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Takes the maxima of ``output_size`` windows of ``(N, C, H, W)``. Source: torch.nn.AdaptiveMaxPool2d."""

    _dims = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Takes the maxima of ``output_size`` windows of ``(N, C, D, H, W)``. Source: torch.nn.AdaptiveMaxPool3d."""

    _dims = 3


class _AdaptiveAvgPoolNd(Module):
    """What the layers of means over windows that cover the input share."""

    _dims = 0

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return getattr(dg.nn.functional, f"adaptive_avg_pool{self._dims}d")(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPoolNd):
    """Takes the means of ``output_size`` windows of ``(N, C, L)``. Source: torch.nn.AdaptiveAvgPool1d."""

    _dims = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPoolNd):
    """Takes the means of ``output_size`` windows of ``(N, C, H, W)``. Source: torch.nn.AdaptiveAvgPool2d."""

    _dims = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPoolNd):
    """Takes the means of ``output_size`` windows of ``(N, C, D, H, W)``. Source: torch.nn.AdaptiveAvgPool3d."""

    _dims = 3
