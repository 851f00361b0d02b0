"""``Adafactor``: adaptive rates from row and column averages of squared gradients.

Invariant: the norms that scale a step stay tensors, so that a step reads no value. Sources: torch.optim.Adafactor and
arXiv:1804.04235.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.optim.optimizer import GradientOptimizer
from distgrad.tensor import Tensor


class Adafactor(GradientOptimizer):
    """Scales gradients by a factored estimate of their second moment, with steps relative to the parameters' size.

    ``beta2_decay`` is the exponent of the moment's decay, ``eps`` regularizes the estimate (None: the dtype's epsilon)
    and the smallest parameter size, ``d`` bounds the root mean square of an update. ``foreach`` is accepted and changes
    nothing. Source: torch.optim.Adafactor.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        if isinstance(lr, Tensor):
            if lr.numel() != 1:
                raise ValueError("Tensor lr must be 1-element")
            lr = lr.item()
        if not lr >= 0.0:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not beta2_decay <= 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not eps[0] >= 0.0:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not eps[1] >= 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not d >= 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not weight_decay >= 0.0:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.is_complex():
            raise RuntimeError("Adafactor does not support complex parameters")
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            if gradient.ndim > 1:
                state["row_var"] = gradient.new_zeros((*gradient.shape[:-1], 1))
                state["col_var"] = gradient.new_zeros((*gradient.shape[:-2], 1, gradient.shape[-1]))
            else:
                state["variance"] = dg.zeros_like(gradient)
        state["step"] += 1
        step, lr = state["step"], group["lr"]
        tiny, smallest = group["eps"]
        if tiny is None:
            tiny = dg.finfo(parameter.dtype).eps
        newest = step ** group["beta2_decay"]
        count = parameter.numel() ** 0.5
        size = (parameter.norm(2) / count).clamp(min=smallest) * min(lr, 1 / step**0.5)
        if group["weight_decay"] != 0:
            parameter.mul_(1 - lr * group["weight_decay"])
        square = gradient * gradient
        if gradient.ndim > 1:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(square.mean(-1, keepdim=True), newest)
            columns.lerp_(square.mean(-2, keepdim=True), newest)
            estimate = rows @ columns / rows.mean(-2, keepdim=True).clamp(min=tiny)
        else:
            state["variance"].lerp_(square, newest)
            estimate = state["variance"]
        update = estimate.clamp(min=tiny * tiny).rsqrt() * gradient
        excess = (update.norm(2) / (count * group["d"])).clamp(min=1.0)
        parameter.sub_(update * (size / excess))
