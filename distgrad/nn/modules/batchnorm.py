"""Normalization by running or batch statistics (``BatchNorm``, ``InstanceNorm``) and by neighbouring channels.

Invariant: batch statistics are those of the global batch whatever its placement, so every ``BatchNorm`` is a
synchronized one.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.nn import init
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor
from distgrad.warn import warn_user


class _NormBase(Module):
    """What the layers share: ``weight``, ``bias``, running statistics and the number of batches seen."""

    _version = 2
    _dims: tuple[int, ...] = ()

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool,
        device: Any, dtype: Any, bias: bool,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            if wanted:
                setattr(self, name, Parameter(dg.empty(num_features, device=device, dtype=dtype)))
            else:
                self.register_parameter(name, None)
        if track_running_stats:
            self.register_buffer("running_mean", dg.zeros(num_features, device=device, dtype=dtype))
            self.register_buffer("running_var", dg.ones(num_features, device=device, dtype=dtype))
            self.register_buffer("num_batches_tracked", dg.tensor(0, dtype=dg.int64))
        else:
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forgets what was seen: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Resets the running statistics, the weight to ones and the bias to zeros."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self._dims:
            allowed = " or ".join(f"{count}D" for count in self._dims)
            raise ValueError(f"expected {allowed} input (got {input.ndim}D input)")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: list,
        unexpected_keys: list, error_msgs: list,
    ) -> None:
        # State dicts of version 1 have no count of batches.
        version = local_metadata.get("version", None)
        if (version is None or version < 2) and self.track_running_stats:
            key = prefix + "num_batches_tracked"
            if key not in state_dict:
                state_dict[key] = dg.tensor(0, dtype=dg.int64)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


class _BatchNorm(_NormBase):
    """Standardizes each channel over the batch."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches; as a tensor, so that nobody waits for its value
                momentum = 1.0 / self.num_batches_tracked
        by_batch = self.training or (self.running_mean is None and self.running_var is None)
        keep = not self.training or self.track_running_stats
        return dg.nn.functional.batch_norm(
            input, self.running_mean if keep else None, self.running_var if keep else None, self.weight, self.bias,
            by_batch, momentum, self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Standardizes each channel of ``(N, C)`` or ``(N, C, L)`` over the batch, then scales and shifts it.

    In training with the statistics of the global batch, which move the running ones by ``momentum`` (None: their mean
    over all batches); in evaluation with the running ones. Raises ValueError for other inputs. Source:
    torch.nn.BatchNorm1d; Ioffe, Szegedy 2015.
    """

    _dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Standardizes each channel of ``(N, C, H, W)`` over the batch; see ``BatchNorm1d``.

    Source: torch.nn.BatchNorm2d.
    """

    _dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Standardizes each channel of ``(N, C, D, H, W)`` over the batch; see ``BatchNorm1d``.

    Source: torch.nn.BatchNorm3d.
    """

    _dims = (5,)


class SyncBatchNorm(_BatchNorm):
    """Standardizes each channel of ``(N, C, *)`` over the global batch, as every ``BatchNorm`` here does.

    ``process_group`` is kept and not used. Source: torch.nn.SyncBatchNorm.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")

    @classmethod
    def convert_sync_batchnorm(cls, module: Any, process_group: Any = None) -> Any:
        """Returns the module with every ``BatchNorm`` in it replaced by a ``SyncBatchNorm`` of the same state."""
        result = module
        if isinstance(module, _BatchNorm):
            result = cls(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats,
                         process_group, bias=module.bias is not None)
            for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                if getattr(result, name) is not None:
                    setattr(result, name, getattr(module, name))
            result.training = module.training
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


class _InstanceNorm(_NormBase):
    """Standardizes each channel of each sample."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        batched = input.ndim == self._dims[1]
        channels = input.shape[1 if batched else 0]
        if channels != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={1 if batched else 0} to match num_features ({self.num_features}), "
                    f"but got: {channels}."
                )
            warn_user(
                f"input's size at dim={1 if batched else 0} does not match num_features. You can silence this warning "
                "by not passing in num_features, which is not used because affine=False",
            )
        y = dg.nn.functional.instance_norm(
            input if batched else dg.unsqueeze(input, 0), self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, 0.0 if self.momentum is None else self.momentum, self.eps,
        )
        return y if batched else dg.squeeze(y, 0)


class InstanceNorm1d(_InstanceNorm):
    """Standardizes each channel of each sample of ``(N, C, L)`` or ``(C, L)``; ``affine`` scales and shifts it.

    Raises ValueError for other inputs. Source: torch.nn.InstanceNorm1d; Ulyanov et al. 2016.
    """

    _dims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """Standardizes each channel of each sample of ``(N, C, H, W)`` or ``(C, H, W)``.

    Source: torch.nn.InstanceNorm2d.
    """

    _dims = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    """Standardizes each channel of each sample of ``(N, C, D, H, W)`` or ``(C, D, H, W)``.

    Source: torch.nn.InstanceNorm3d.
    """

    _dims = (4, 5)


class LocalResponseNorm(Module):
    """Divides by a power of the mean square over ``size`` neighbouring channels of ``(N, C, *)``.

    Source: torch.nn.LocalResponseNorm; Krizhevsky et al. 2012.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """``LocalResponseNorm`` of images ``(N, C, H, W)``. Source: torch.nn.CrossMapLRN2d."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1) -> None:
        super().__init__(size, alpha, beta, k)
