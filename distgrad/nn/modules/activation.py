"""Activation layers: each calls the function of the same name.

Invariant: ``PReLU`` alone has a parameter; all others only remember the function's options.
"""

from __future__ import annotations

from typing import Any

import distgrad as dg
from distgrad.nn import init
from distgrad.nn.modules.module import Module
from distgrad.nn.parameter import Parameter
from distgrad.tensor import Tensor
from distgrad.warn import warn_user


class _InplaceActivation(Module):
    """What activations whose only option is ``inplace`` share."""

    inplace: bool

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def _with_inplace(text: str, inplace: bool) -> str:
    return text + (", inplace=True" if inplace else "")


class ReLU(_InplaceActivation):
    """Computes ``max(x, 0)``. Source: torch.nn.ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.relu(input, inplace=self.inplace)


class Threshold(Module):
    """Keeps ``x`` where it exceeds ``threshold`` and puts ``value`` elsewhere. Source: torch.nn.Threshold."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"threshold={self.threshold}, value={self.value}", self.inplace)


class RReLU(Module):
    """Scales negative ``x`` by a slope drawn from ``[lower, upper)``, in evaluation by its mean.

    Source: torch.nn.RReLU.
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"lower={self.lower}, upper={self.upper}", self.inplace)


class Hardtanh(Module):
    """Clips ``x`` to ``[min_val, max_val]``. Source: torch.nn.Hardtanh."""

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__()
        for old, new, value in (("min_value", "min_val", min_value), ("max_value", "max_val", max_value)):
            if value is not None:
                warn_user(
                    f"keyword argument `{old}` is deprecated and rename to `{new}`", FutureWarning
                )
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if not self.max_val > self.min_val:
            raise AssertionError(f"Hardtanh: min_val {self.min_val} is not below max_val {self.max_val}")

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"min_val={self.min_val}, max_val={self.max_val}", self.inplace)


class ReLU6(Hardtanh):
    """Clips ``x`` to ``[0, 6]``. Source: torch.nn.ReLU6."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class Sigmoid(Module):
    """Computes ``1 / (1 + exp(-x))``. Source: torch.nn.Sigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.sigmoid(input)


class Tanh(Module):
    """Computes the hyperbolic tangent. Source: torch.nn.Tanh."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.tanh(input)


class Hardsigmoid(_InplaceActivation):
    """Computes ``clip(x/6 + 1/2, 0, 1)``. Source: torch.nn.Hardsigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.hardsigmoid(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardswish(_InplaceActivation):
    """Computes ``x * clip(x/6 + 1/2, 0, 1)``. Source: torch.nn.Hardswish."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.hardswish(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return ""


class SiLU(_InplaceActivation):
    """Computes ``x * sigmoid(x)``. Source: torch.nn.SiLU."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.silu(input, inplace=self.inplace)


class Mish(_InplaceActivation):
    """Computes ``x * tanh(softplus(x))``. Source: torch.nn.Mish."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.mish(input, inplace=self.inplace)


class SELU(_InplaceActivation):
    """Computes the self-normalizing ELU of Klambauer et al. 2017. Source: torch.nn.SELU."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.selu(input, inplace=self.inplace)


class ELU(Module):
    """Computes ``x`` where positive, else ``alpha * (exp(x) - 1)``. Source: torch.nn.ELU."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"alpha={self.alpha}", self.inplace)


class CELU(Module):
    """Computes ``x`` where positive, else ``alpha * (exp(x/alpha) - 1)``. Source: torch.nn.CELU."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"alpha={self.alpha}", self.inplace)


class LeakyReLU(Module):
    """Computes ``x`` where positive, else ``negative_slope * x``. Source: torch.nn.LeakyReLU."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return _with_inplace(f"negative_slope={self.negative_slope}", self.inplace)


class GLU(Module):
    """Halves ``x`` along ``dim`` into ``a`` and ``b`` and computes ``a * sigmoid(b)``. Source: torch.nn.GLU."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class GELU(Module):
    """Computes ``x * Phi(x)``, Phi by its tanh approximation when ``approximate="tanh"``. Source: torch.nn.GELU."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Hardshrink(Module):
    """Computes ``x`` where ``abs(x) > lambd``, else 0. Source: torch.nn.Hardshrink."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(Module):
    """Moves ``x`` towards 0 by ``lambd``, at most to 0. Source: torch.nn.Softshrink."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softplus(Module):
    """Computes ``log(1 + exp(beta*x)) / beta``, and ``x`` where ``beta*x > threshold``. Source: torch.nn.Softplus."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class LogSigmoid(Module):
    """Computes ``log(sigmoid(x))``. Source: torch.nn.LogSigmoid."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.logsigmoid(input)


class Softsign(Module):
    """Computes ``x / (1 + abs(x))``. Source: torch.nn.Softsign."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.softsign(input)


class Tanhshrink(Module):
    """Computes ``x - tanh(x)``. Source: torch.nn.Tanhshrink."""

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.tanhshrink(input)


class Softmin(Module):
    """Computes ``softmax(-x)`` along ``dim``. Source: torch.nn.Softmin."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.softmin(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(Module):
    """Computes ``exp(x) / sum(exp(x))`` along ``dim``. Source: torch.nn.Softmax."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """Computes ``log(softmax(x))`` along ``dim``. Source: torch.nn.LogSoftmax."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax2d(Module):
    """Computes softmax over the channels of ``(N, C, H, W)`` or ``(C, H, W)``. Source: torch.nn.Softmax2d."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return dg.nn.functional.softmax(input, -3)


class PReLU(Module):
    """Computes ``x`` where positive, else ``weight * x``; ``weight`` has one slope, or one per channel (dimension 1).

    Source: torch.nn.PReLU.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(dg.empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets all slopes to ``init``."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return dg.nn.functional.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"
