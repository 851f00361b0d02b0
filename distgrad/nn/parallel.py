"""`nn.parallel` under PyTorch's names: without GPUs `DataParallel` is its module.

Invariant: the wrapped module computes exactly what it computes alone; rows are spread by the session, not by a wrapper.
"""

from __future__ import annotations

from typing import Any

from distgrad.nn.modules.module import Module

__all__ = ["DataParallel", "DistributedDataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls `module`, as PyTorch does where there is no GPU; state dict keys begin with "module.".

    Source: torch.nn.DataParallel.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        self.module = module
        self.dim = dim
        self.device_ids: list[int] = []
        self.output_device = None

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)


class DistributedDataParallel(Module):
    """Raises RuntimeError: there are no process groups. Source: torch.nn.parallel.DistributedDataParallel."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            "DistributedDataParallel: there are no process groups here; leave the wrapper out: with a session the "
            "gradients of sharded data are reduced without it"
        )


def data_parallel(
    module: Module, inputs: Any, device_ids: Any = None, output_device: Any = None, dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Calls `module`, as PyTorch does where there is no GPU. Source: torch.nn.parallel.data_parallel."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*inputs, **(module_kwargs or {}))
