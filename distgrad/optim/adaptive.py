"""Optimizers that scale each element by its own history: ``RMSprop``, ``Adagrad``, ``Adadelta``, ``Rprop``.

Invariant: all state has the shape of its parameter, except counters, which are Python numbers.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.optim.optimizer import GradientOptimizer, check_implementation, check_learning_rate, check_range
from distgrad.tensor import Tensor


class RMSprop(GradientOptimizer):
    """Steps of ``lr * g / (sqrt(v) + eps)`` with ``v`` a running average of ``g*g``, of the variance if ``centered``.

    Source: torch.optim.RMSprop; Hinton's lecture notes; Graves 2013 for the centered form.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        check_range("epsilon value", eps, eps >= 0.0)
        check_range("momentum value", momentum, momentum >= 0.0)
        check_range("weight_decay value", weight_decay, weight_decay >= 0.0)
        check_range("alpha value", alpha, alpha >= 0.0)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, square_avg=dg.zeros_like(parameter))
            if group["momentum"] > 0:
                state["momentum_buffer"] = dg.zeros_like(parameter)
            if group["centered"]:
                state["grad_avg"] = dg.zeros_like(parameter)
        state["step"] += 1
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        alpha = group["alpha"]
        square = state["square_avg"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        if group["centered"]:
            mean = state["grad_avg"].mul_(alpha).add_(gradient, alpha=1 - alpha)
            denominator = square.addcmul(mean, mean, value=-1).sqrt_().add_(group["eps"])
        else:
            denominator = square.sqrt().add_(group["eps"])
        if group["momentum"] > 0:
            velocity = state["momentum_buffer"].mul_(group["momentum"]).addcdiv_(gradient, denominator)
            parameter.add_(velocity, alpha=-group["lr"])
        else:
            parameter.addcdiv_(gradient, denominator, value=-group["lr"])


class Adagrad(GradientOptimizer):
    """Steps of ``lr * g / (sqrt(s) + eps)`` with ``s`` the sum of all ``g*g`` so far.

    Source: torch.optim.Adagrad; Duchi, Hazan, Singer 2011.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        lr = check_learning_rate(lr)
        check_range("lr_decay value", lr_decay, lr_decay >= 0.0)
        check_range("weight_decay value", weight_decay, weight_decay >= 0.0)
        check_range("initial_accumulator_value value", initial_accumulator_value, initial_accumulator_value >= 0.0)
        check_range("epsilon value", eps, eps >= 0.0)
        check_implementation(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for parameter in group["params"]:
                total = dg.full_like(parameter, initial_accumulator_value)
                self.state[parameter] = {"step": 0.0, "sum": total}

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:  # a parameter of a group added later
            state.update(step=0.0, sum=dg.full_like(parameter, group["initial_accumulator_value"]))
        state["step"] += 1
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        rate = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        denominator = state["sum"].addcmul_(gradient, gradient, value=1).sqrt().add_(group["eps"])
        parameter.addcdiv_(gradient, denominator, value=-rate)


class Adadelta(GradientOptimizer):
    """Steps whose size is the ratio of running averages of past updates and past gradients.

    Source: torch.optim.Adadelta; Zeiler 2012.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        check_range("rho value", rho, 0.0 <= rho <= 1.0)
        check_range("epsilon value", eps, eps >= 0.0)
        check_range("weight_decay value", weight_decay, weight_decay >= 0.0)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, square_avg=dg.zeros_like(parameter), acc_delta=dg.zeros_like(parameter))
        state["step"] += 1
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        rho, eps = group["rho"], group["eps"]
        square = state["square_avg"].mul_(rho).addcmul_(gradient, gradient, value=1 - rho)
        delta = state["acc_delta"].add(eps).sqrt_().div_(square.add(eps).sqrt_()).mul_(gradient)
        state["acc_delta"].mul_(rho).addcmul_(delta, delta, value=1 - rho)
        parameter.add_(delta, alpha=-group["lr"])


class Rprop(GradientOptimizer):
    """Steps by the sign of the gradient, of a size that grows while the sign stays and shrinks when it changes.

    Source: torch.optim.Rprop; Riedmiller, Braun 1993.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, prev=dg.zeros_like(parameter), step_size=dg.full_like(parameter, group["lr"]))
        state["step"] += 1
        shrink, grow = group["etas"]
        smallest, largest = group["step_sizes"]
        agreement = gradient * state["prev"]
        turned = agreement < 0
        factor = dg.where(turned, shrink, dg.where(agreement > 0, grow, dg.ones_like(agreement)))
        size = state["step_size"].mul_(factor).clamp_(smallest, largest)
        # Where the sign changed the parameter waits one step, and the next step sees no previous sign.
        gradient = dg.where(turned, 0.0, gradient)
        parameter.addcmul_(gradient.sign(), size, value=-1)
        state["prev"].copy_(gradient)
