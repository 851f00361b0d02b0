"""`autograd`: gradients on demand, functions with a user-written backward, and derivatives of whole functions.

Invariant: everything here goes through the one reverse pass of `distgrad.autodiff`.
"""

from __future__ import annotations

from distgrad.autograd import anomaly, function, functional
from distgrad.autograd.anomaly import detect_anomaly, set_detect_anomaly
from distgrad.autograd.function import Function
from distgrad.autograd.gradcheck import GradcheckError, gradcheck, gradgradcheck
from distgrad.autograd.variable import Variable
from distgrad.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from distgrad.tensor import backward, grad

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "anomaly",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
