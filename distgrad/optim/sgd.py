"""Gradient descent: ``SGD`` with momentum, and ``ASGD`` that averages.

Invariant: the learning rate enters as the scale of one in-place update, never as a tensor.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.ops.optimizers import momentum_steps, sgd_steps
from distgrad.optim.optimizer import (
    GradientOptimizer,
    check_implementation,
    check_learning_rate,
    check_range,
    compiled_step,
    steps_together,
)
from distgrad.tensor import Tensor


class SGD(GradientOptimizer):
    """Stochastic gradient descent: ``v = momentum*v + (1-dampening)*g``, ``p -= lr*v``.

    ``weight_decay*p`` is added to the gradient; ``nesterov`` uses ``g + momentum*v``. ``foreach`` and ``fused`` are
    accepted and change nothing. Source: torch.optim.SGD.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        lr = check_learning_rate(lr)
        check_range("momentum value", momentum, momentum >= 0.0)
        check_range("weight_decay value", weight_decay, weight_decay >= 0.0)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        check_implementation(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _update_group(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        momentum = float(group["momentum"])
        if not compiled_step(group, pairs):
            super()._update_group(pairs, group)
        elif momentum == 0:
            steps_together(sgd_steps, self, group, pairs, (), lambda _: (float(group["weight_decay"]), -float(group["lr"])))
        else:
            members = []
            for parameter, gradient in pairs:
                velocity = self.state[parameter].get("momentum_buffer")
                if velocity is None:
                    self._update(parameter, gradient, group)
                else:
                    members.append((parameter, gradient, velocity))
            steps_together(momentum_steps, self, group, members, ("momentum_buffer",), lambda _: (
                float(group["weight_decay"]), float(group["momentum"]), 1 - float(group["dampening"]), -float(group["lr"])
            ), nesterov=bool(group["nesterov"]))

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        momentum = group["momentum"]
        if momentum != 0:
            state = self.state[parameter]
            velocity = state.get("momentum_buffer")
            if velocity is None:
                # A copy: the gradient itself may be zeroed in place later.
                velocity = state["momentum_buffer"] = gradient.detach().clone()
            else:
                velocity.mul_(momentum).add_(gradient, alpha=1 - group["dampening"])
            gradient = gradient.add(velocity, alpha=momentum) if group["nesterov"] else velocity
        parameter.add_(gradient, alpha=-group["lr"])


class ASGD(GradientOptimizer):
    """Averaged stochastic gradient descent; the average is in the state as "ax".

    Source: torch.optim.ASGD; Polyak, Juditsky 1992.
    """

    _number_state = ("step", "eta", "mu")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        check_range("weight_decay value", weight_decay, weight_decay >= 0.0)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, eta=group["lr"], mu=1.0, ax=dg.zeros_like(parameter))
        state["step"] += 1
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        lambd, lr, step = group["lambd"], group["lr"], state["step"]
        parameter.mul_(1 - lambd * state["eta"]).add_(gradient, alpha=-state["eta"])
        if state["mu"] == 1:
            state["ax"].copy_(parameter)
        else:
            state["ax"].add_(parameter.sub(state["ax"]), alpha=state["mu"])
        state["eta"] = lr / (1 + lambd * lr * step) ** group["alpha"]
        state["mu"] = 1 / max(1.0, step - group["t0"])
