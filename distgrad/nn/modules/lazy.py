"""Lazy layers: their number of input features is read from the first input.

Invariant: after the first call the layer is of the ordinary class, with parameters drawn as that class draws them.
"""

from __future__ import annotations

from typing import Any

from distgrad.nn.modules.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from distgrad.nn.modules.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from distgrad.nn.modules.linear import Linear
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import UninitializedParameter
from distgrad.tensor import Tensor


class _Lazy(Module):
    """What lazy layers share: the arguments kept until the first input, and the layer made from them then."""

    _full: type
    _names: tuple[str, ...] = ("weight", "bias")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        Module.__init__(self)
        self._arguments = args, kwargs
        for name in self._names:
            self.register_parameter(name, UninitializedParameter())

    def _features(self, input: Tensor) -> int:
        return input.shape[1]

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Becomes the ordinary layer for the input's number of features."""
        input = args[0] if args else kwargs["input"]
        self._become(self._features(input))

    def _become(self, features: int) -> None:
        args, kwargs = self._arguments
        made = self._full(features, *args, **kwargs)
        made.training = self.training
        for name, parameter in made._parameters.items():
            lazy = self._parameters.get(name)
            if parameter is not None and lazy is not None:  # the same object: an optimizer may have it already
                lazy.materialize_as(parameter)
                made._parameters[name] = lazy
        kept = {name: value for name, value in self.__dict__.items() if name.endswith("_hooks")}
        self.__class__ = self._full  # type: ignore[assignment]
        self.__dict__.clear()
        self.__dict__.update(made.__dict__)
        self.__dict__.update(kept)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.initialize_parameters(*args, **kwargs)
        return self(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is None or not weight.numel():  # saved before it had seen an input
            super()._load_from_state_dict(state_dict, prefix, *rest)
            return
        self._become(self._features_of_weight(weight))
        self._load_from_state_dict(state_dict, prefix, *rest)

    def _features_of_weight(self, weight: Tensor) -> int:
        return weight.shape[0]

    def has_uninitialized_params(self) -> bool:
        """Says whether no input has been seen yet: True until then."""
        return True


class LazyLinear(_Lazy, Linear):
    """``Linear`` with ``in_features`` read from the first input. Source: torch.nn.LazyLinear."""

    _full = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        _Lazy.__init__(self, out_features, bias, device=device, dtype=dtype)
        self.in_features, self.out_features = 0, out_features

    def _features(self, input: Tensor) -> int:
        return input.shape[-1]

    def _features_of_weight(self, weight: Tensor) -> int:
        return weight.shape[1]


class _LazyConv(_Lazy):
    def __init__(self, out_channels: int, kernel_size: Any, *args: Any, **kwargs: Any) -> None:
        _Lazy.__init__(self, out_channels, kernel_size, *args, **kwargs)
        self.in_channels, self.out_channels = 0, out_channels
        self._groups = int(kwargs.get("groups", 1))

    def _features(self, input: Tensor) -> int:
        return input.shape[-1 - len(self._kernel)]

    @property
    def _kernel(self) -> tuple[int, ...]:
        return (0,) * int(self._full.__name__[-2])

    def _features_of_weight(self, weight: Tensor) -> int:
        return weight.shape[0 if "Transpose" in self._full.__name__ else 1] * (
            1 if "Transpose" in self._full.__name__ else self._groups
        )

    def extra_repr(self) -> str:
        return f"0, {self.out_channels}"


class _LazyNorm(_Lazy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _Lazy.__init__(self, *args, **kwargs)
        self.num_features = 0

    def extra_repr(self) -> str:
        return "0"


class LazyConv1d(_LazyConv, Conv1d):
    """``Conv1d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConv1d."""

    _full = Conv1d


class LazyConv2d(_LazyConv, Conv2d):
    """``Conv2d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConv2d."""

    _full = Conv2d


class LazyConv3d(_LazyConv, Conv3d):
    """``Conv3d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConv3d."""

    _full = Conv3d


class LazyConvTranspose1d(_LazyConv, ConvTranspose1d):
    """``ConvTranspose1d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConvTranspose1d."""

    _full = ConvTranspose1d


class LazyConvTranspose2d(_LazyConv, ConvTranspose2d):
    """``ConvTranspose2d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConvTranspose2d."""

    _full = ConvTranspose2d


class LazyConvTranspose3d(_LazyConv, ConvTranspose3d):
    """``ConvTranspose3d`` with ``in_channels`` read from the first input. Source: torch.nn.LazyConvTranspose3d."""

    _full = ConvTranspose3d


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """``BatchNorm1d`` with ``num_features`` read from the first input. Source: torch.nn.LazyBatchNorm1d."""

    _full = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """``BatchNorm2d`` with ``num_features`` read from the first input. Source: torch.nn.LazyBatchNorm2d."""

    _full = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """``BatchNorm3d`` with ``num_features`` read from the first input. Source: torch.nn.LazyBatchNorm3d."""

    _full = BatchNorm3d


class LazyInstanceNorm1d(_LazyNorm, InstanceNorm1d):
    """``InstanceNorm1d`` with ``num_features`` read from the first input. Source: torch.nn.LazyInstanceNorm1d."""

    _full = InstanceNorm1d


class LazyInstanceNorm2d(_LazyNorm, InstanceNorm2d):
    """``InstanceNorm2d`` with ``num_features`` read from the first input. Source: torch.nn.LazyInstanceNorm2d."""

    _full = InstanceNorm2d


class LazyInstanceNorm3d(_LazyNorm, InstanceNorm3d):
    """``InstanceNorm3d`` with ``num_features`` read from the first input. Source: torch.nn.LazyInstanceNorm3d."""

    _full = InstanceNorm3d
