"""Averages of a model's weights over training: `AveragedModel`, `SWALR`, `update_bn`.

Invariant: averaging never touches the model that is trained, and is part of no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, Literal

import distgrad as dg
from distgrad.nn import Module
from distgrad.nn.modules.batchnorm import _BatchNorm
from distgrad.optim.lr_scheduler import LRScheduler
from distgrad.optim.optimizer import Optimizer
from distgrad.tensor import Tensor

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
           "get_swa_multi_avg_fn", "update_bn"]


def get_ema_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], Any]:
    """Gives the function that moves an average by a share `1 - decay`; ValueError when `decay` is not in [0, 1]."""
    _check_decay(decay)

    def average(ema: Any, current: Any, number: Any) -> Any:
        return decay * ema + (1 - decay) * current

    return average


def get_swa_avg_fn() -> Callable[[Any, Any, Any], Any]:
    """Gives the function that keeps the mean of all values so far."""

    def average(averaged: Any, current: Any, number: Any) -> Any:
        return averaged + (current - averaged) / (number + 1)

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Any, Any, Any], None]:
    """Gives the function that moves lists of averages in place by a share `1 - decay`."""
    _check_decay(decay)

    def average(averages: Any, currents: Any, number: Any) -> None:
        with dg.no_grad():
            for ema, current in zip(averages, currents, strict=True):
                if ema.is_floating_point() or ema.is_complex():
                    ema.lerp_(current, 1 - decay)
                else:
                    ema.copy_(ema * decay + current * (1 - decay))

    return average


def get_swa_multi_avg_fn() -> Callable[[Any, Any, Any], None]:
    """Gives the function that keeps the means of lists of values in place."""

    def average(averages: Any, currents: Any, number: Any) -> None:
        with dg.no_grad():
            for averaged, current in zip(averages, currents, strict=True):
                averaged.add_((current - averaged) / (number + 1))

    return average


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


class AveragedModel(Module):
    """A copy of a model whose parameters are averages of those the model had at each `update_parameters`.

    `avg_fn(average, current, number)` gives one tensor's average, `multi_avg_fn` changes lists in place; by default it
    is the mean. `use_buffers` averages floating point buffers too, which are copied otherwise.
    Source: torch.optim.swa_utils.AveragedModel.
    """

    n_averaged: Tensor

    def __init__(
        self, model: Module, device: Any = None, avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., None] | None = None, use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", dg.tensor(0, dtype=dg.long))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _pairs(self, model: Module) -> list[tuple[Tensor, Tensor]]:
        pairs: list[tuple[Tensor, Tensor]] = [*zip(self.module.parameters(), model.parameters(), strict=True)]
        if self.use_buffers:
            pairs += zip(self.module.buffers(), model.buffers(), strict=True)
        return pairs

    def update_parameters(self, model: Module) -> None:
        """Takes the model's present parameters into the averages."""
        number = self.n_averaged
        with dg.no_grad():
            pairs = self._pairs(model)
            if int(number) == 0:
                for averaged, current in pairs:
                    averaged.copy_(current.detach())
            elif self.multi_avg_fn is not None or self.avg_fn is None:
                averages, currents = [a.detach() for a, _ in pairs], [c.detach() for _, c in pairs]
                (self.multi_avg_fn or get_swa_multi_avg_fn())(averages, currents, number)
            else:
                for averaged, current in pairs:
                    averaged.copy_(self.avg_fn(averaged.detach(), current.detach(), number))
            if not self.use_buffers:
                for averaged, current in zip(self.module.buffers(), model.buffers(), strict=True):
                    averaged.copy_(current.detach())
            self.n_averaged += 1


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Sets the running statistics of a model's batch norms to those of a loader's data (its first item is the input).

    Source: torch.optim.swa_utils.update_bn.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
    model.train()
    with dg.no_grad():
        for batch in loader:
            data = batch[0] if isinstance(batch, list | tuple) else batch
            model(data if device is None else data.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """Anneals each group's learning rate to `swa_lr` over `anneal_epochs`, by a cosine or a line, and keeps it.

    Source: torch.optim.swa_utils.SWALR.
    """

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | list[float], anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos", last_epoch: int = -1,
    ) -> None:
        rates = list(swa_lr) if isinstance(swa_lr, list | tuple) else [swa_lr] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise ValueError(f"swa_lr must have length {len(optimizer.param_groups)}, got {len(rates)}")
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy must by one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self.anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def _share(self, t: float) -> float:
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """Returns the learning rates of the present epoch; called by ``step``."""
        self._warn_outside_step()
        step = self._step_count - 1
        epochs = max(1, self.anneal_epochs)
        before = self._share(max(0.0, min(1.0, (step - 1) / epochs)))
        now = self._share(max(0.0, min(1.0, step / epochs)))
        if self.anneal_epochs == 0:
            step = max(1, step)
        rates = []
        for group in self.optimizer.param_groups:
            start = group["lr"] if before == 1 else (group["lr"] - before * group["swa_lr"]) / (1 - before)
            rates.append(group["swa_lr"] * now + start * (1 - now))
        return rates
