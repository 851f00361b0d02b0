"""`autograd.grad_mode`: where PyTorch has the switches of recording.

Invariant: they are the public ones.
"""

from distgrad.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled"]
