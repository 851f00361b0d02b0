"""Adam and its relatives: ``Adam``, ``AdamW``, ``Adamax``, ``NAdam``, ``RAdam``.

Invariant: the bias corrections are Python numbers of the step count and enter as scales of in-place updates.
"""

from __future__ import annotations

import math
from typing import Any

import distgrad as dg
from distgrad.ops.optimizers import adam_steps
from distgrad.optim.optimizer import (
    GradientOptimizer,
    check_betas,
    check_implementation,
    check_learning_rate,
    check_range,
    compiled_step,
    steps_together,
)
from distgrad.tensor import Tensor


def _check_moments(betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    check_range("epsilon value", eps, eps >= 0.0)
    check_betas(betas)
    check_range("weight_decay value", weight_decay, weight_decay >= 0.0)


def _decayed(parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Applies the weight decay to the parameter itself (decoupled) or to the gradient, which it returns."""
    decay = group["weight_decay"]
    if decay == 0:
        return gradient
    if group["decoupled_weight_decay"]:
        parameter.mul_(1 - group["lr"] * decay)
        return gradient
    return gradient.add(parameter, alpha=decay)


def _update_moments(gradient: Tensor, group: dict[str, Any], state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Moves both running averages towards the gradient and its square, and returns them."""
    beta1, beta2 = group["betas"]
    mean = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
    square = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    return mean, square


class Adam(GradientOptimizer):
    """Adam: steps of ``lr * m / (sqrt(v) + eps)`` with bias-corrected running averages of ``g`` and ``g*g``.

    ``amsgrad`` divides by the largest ``v`` so far. ``weight_decay*p`` is added to the gradient, or taken from the
    parameter when ``decoupled_weight_decay``. ``foreach``, ``fused`` and ``capturable`` are accepted and change
    nothing. Source: torch.optim.Adam; Kingma, Ba 2014.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        _check_moments(betas, eps, weight_decay)
        check_implementation(foreach, fused, differentiable)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _moved_on(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """Gives a parameter's state with this step counted."""
        state = self._begun(parameter, group)
        state["step"] += 1
        return state

    def _begun(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """Gives a parameter's state, made at the first step."""
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, exp_avg=dg.zeros_like(parameter), exp_avg_sq=dg.zeros_like(parameter))
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = dg.zeros_like(parameter)
        return state

    def _update_group(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        if group["amsgrad"] or not compiled_step(group, pairs):
            super()._update_group(pairs, group)
            return

        def numbers(step: float) -> tuple[float, ...]:
            beta1, beta2 = group["betas"]
            lr, decay = group["lr"], group["weight_decay"]
            keep, decay = (1 - lr * decay, 0.0) if group["decoupled_weight_decay"] else (1.0, decay)
            root, rate = math.sqrt(1 - beta2**step), -lr / (1 - beta1**step)
            return tuple(map(float, (keep, decay, beta1, 1 - beta1, beta2, 1 - beta2, root, group["eps"], rate)))

        states = [self._begun(parameter, group) for parameter, _ in pairs]
        members = [(*pair, state["exp_avg"], state["exp_avg_sq"]) for pair, state in zip(pairs, states)]
        steps_together(adam_steps, self, group, members, ("exp_avg", "exp_avg_sq"), numbers, counted=True)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self._moved_on(parameter, group)
        beta1, beta2 = group["betas"]
        gradient = _decayed(parameter, gradient, group)
        mean, square = _update_moments(gradient, group, state)
        if group["amsgrad"]:
            square = state["max_exp_avg_sq"].copy_(dg.maximum(state["max_exp_avg_sq"], square))
        correction1 = 1 - beta1 ** state["step"]
        correction2 = 1 - beta2 ** state["step"]
        denominator = square.sqrt().div_(math.sqrt(correction2)).add_(group["eps"])
        parameter.addcdiv_(mean, denominator, value=-group["lr"] / correction1)


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly: ``p *= 1 - lr*weight_decay`` before each update.

    Source: torch.optim.AdamW; Loshchilov, Hutter 2017.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )


class Adamax(GradientOptimizer):
    """Adam with the running maximum of ``|g|`` in place of the root of its mean square.

    Source: torch.optim.Adamax; Kingma, Ba 2014, section 7.1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        _check_moments(betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
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
            state.update(step=0.0, exp_avg=dg.zeros_like(parameter), exp_inf=dg.zeros_like(parameter))
        state["step"] += 1
        if group["weight_decay"] != 0:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        mean = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1 - beta1)
        largest = state["exp_inf"]
        largest.copy_(dg.maximum(largest.mul(beta2), gradient.abs().add_(group["eps"])))
        parameter.addcdiv_(mean, largest, value=-group["lr"] / (1 - beta1 ** state["step"]))


class NAdam(GradientOptimizer):
    """Adam with Nesterov momentum, whose strength is scheduled by ``momentum_decay``.

    Source: torch.optim.NAdam; Dozat 2016.
    """

    _number_state = ("step", "mu_product")

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        _check_moments(betas, eps, weight_decay)
        check_range("momentum_decay value", momentum_decay, momentum_decay >= 0.0)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            zeros = {"exp_avg": dg.zeros_like(parameter), "exp_avg_sq": dg.zeros_like(parameter)}
            state.update(step=0.0, mu_product=1.0, **zeros)
        state["step"] += 1
        step, lr, decay = state["step"], group["lr"], group["momentum_decay"]
        beta1, beta2 = group["betas"]
        momentum = beta1 * (1 - 0.5 * 0.96 ** (step * decay))
        next_momentum = beta1 * (1 - 0.5 * 0.96 ** ((step + 1) * decay))
        state["mu_product"] *= momentum
        gradient = _decayed(parameter, gradient, group)
        mean, square = _update_moments(gradient, group, state)
        denominator = square.div(1 - beta2**step).sqrt_().add_(group["eps"])
        parameter.addcdiv_(gradient, denominator, value=-lr * (1 - momentum) / (1 - state["mu_product"]))
        parameter.addcdiv_(mean, denominator, value=-lr * next_momentum / (1 - state["mu_product"] * next_momentum))


class RAdam(GradientOptimizer):
    """Adam whose adaptive rate is rectified while its variance is still uncertain.

    Source: torch.optim.RAdam; Liu et al. 2019.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        lr = check_learning_rate(lr)
        _check_moments(betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0.0, exp_avg=dg.zeros_like(parameter), exp_avg_sq=dg.zeros_like(parameter))
        state["step"] += 1
        step, lr = state["step"], group["lr"]
        beta1, beta2 = group["betas"]
        gradient = _decayed(parameter, gradient, group)
        mean, square = _update_moments(gradient, group, state)
        rate = -lr / (1 - beta1**step)
        correction2 = 1 - beta2**step
        # The length of the approximated simple moving average, now and in the limit (equations 4 and 5 of the paper).
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * beta2**step / correction2
        if length > 5.0:
            rectification = math.sqrt((length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length))
            denominator = square.sqrt().add_(group["eps"])
            parameter.addcdiv_(mean, denominator, value=rate * rectification * math.sqrt(correction2))
        else:
            parameter.add_(mean, alpha=rate)
