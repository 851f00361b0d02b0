"""``LRScheduler``: how a schedule counts steps and writes the learning rates of an optimizer.

Invariant: learning rates are Python numbers; a schedule never touches a tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from distgrad import graph
from distgrad.optim.optimizer import Optimizer
from distgrad.warn import warn_user

EPOCH_DEPRECATION = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where possible. Please use "
    "`scheduler.step()` to step the scheduler. If epoch is different from None, the closed form is used instead of the "
    "chainable form, where available."
)
ORDER_WARNING = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite order: "
    "`optimizer.step()` before `lr_scheduler.step()`, or the first value of the learning rate schedule is skipped."
)


class LRScheduler:
    """Base class of schedules: a subclass says in ``get_lr`` what the learning rates become.

    ``get_lr`` computes from the present rates, so that schedules can be chained; ``_get_closed_form_lr``, where a
    subclass has it, computes from ``last_epoch`` alone. Source: torch.optim.lr_scheduler.LRScheduler.
    """

    _get_lr_called_within_step = False
    _is_initial = False
    # Attributes a state dict leaves out.
    _unsaved: tuple[str, ...] = ("optimizer",)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for place, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{place}] when resuming scheduler with "
                    "last_epoch >= 0.\nThis typically happens when:\n1. You're trying to resume training from a "
                    "checkpoint but haven't properly loaded the optimizer state\n2. You're using last_epoch >= 0 for a "
                    "fresh training run (not recommended)"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._start()

    def _start(self) -> None:
        """Makes the first step, which sets the learning rates before training."""
        self._step_count = 0
        self.optimizer._opt_called = False
        with self._as_initial():
            self.step()

    @contextlib.contextmanager
    def _as_initial(self) -> Iterator[None]:
        self._is_initial = True
        try:
            yield
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """Returns everything but the optimizer."""
        return {name: value for name, value in self.__dict__.items() if name not in self._unsaved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what ``state_dict`` returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[float]:
        """Returns the learning rates that the last step set, one for each parameter group."""
        return self._last_lr

    def get_lr(self) -> list[float]:
        """Returns the learning rates of the present epoch; called by ``step``."""
        raise NotImplementedError

    def _warn_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warn_user(
                "To get the last learning rate computed by the scheduler, please use `get_last_lr()`.",
                UserWarning,
            )

    def _present(self) -> list[float]:
        """Returns the learning rates the optimizer has now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self, epoch: int | None = None) -> None:
        """Moves to the next epoch, or to ``epoch``, and sets the learning rates."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warn_user(ORDER_WARNING, UserWarning)
        self._step_count += 1
        if epoch is not None:
            warn_user(EPOCH_DEPRECATION, UserWarning)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self._get_lr_called_within_step = True
        try:
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                values = self._get_closed_form_lr() if hasattr(self, "_get_closed_form_lr") else self.get_lr()
        finally:
            self._get_lr_called_within_step = False
        self._write(values)

    def _write(self, values: list[float]) -> None:
        if graph.recorder[0] is not None:
            graph.recorder[0].refuse("a learning rate schedule takes its step inside")
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            group["lr"] = value
        self._last_lr: list[float] = self._present()
