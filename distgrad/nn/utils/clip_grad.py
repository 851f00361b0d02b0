"""Clipping gradients by their common norm or by value.

Invariant: the factor is computed and clamped as a tensor; no branch looks at a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import distgrad as dg
from distgrad.tensor import Tensor


def _as_list(tensors: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _norm(tensors: list[Tensor], norm_type: float) -> Tensor:
    """Returns the norm of all tensors taken as one vector.

    The sums are added before the root is taken: sums of shards stay partial, and one reduction serves all tensors.
    """
    if norm_type == 0:
        raise ValueError("get_total_norm: norm_type 0 given, which is no norm; allowed is any other number, or inf")
    if norm_type == 2.0:
        return dg.stack([(tensor * tensor).sum() for tensor in tensors]).sum().sqrt()
    sizes = [tensor.abs() for tensor in tensors]
    if math.isinf(norm_type):
        ends = dg.stack([size.max() if norm_type > 0 else size.min() for size in sizes])
        return ends.max() if norm_type > 0 else ends.min()
    if norm_type == 1.0:
        return dg.stack([size.sum() for size in sizes]).sum()
    return dg.stack([(size**norm_type).sum() for size in sizes]).sum() ** (1.0 / norm_type)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Returns the norm of all tensors taken as one vector, as a 0-d tensor.

    Raises RuntimeError for a norm that is not finite when ``error_if_nonfinite``, which reads the value.
    Source: torch.nn.utils.get_total_norm.
    """
    tensors = _as_list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return dg.tensor(0.0)
    with dg.no_grad():
        total = _norm(tensors, norm_type)
    if error_if_nonfinite and not bool(dg.isfinite(total)):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scales gradients by ``max_norm / total_norm`` where that is below 1. Source: torch.nn.utils."""
    gradients = [parameter.grad for parameter in _as_list(parameters) if parameter.grad is not None]
    if not gradients:
        return
    with dg.no_grad():
        factor = dg.clamp(float(max_norm) / (total_norm + 1e-6), max=1.0)
        for gradient in gradients:
            gradient.mul_(factor)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients in place so that their common norm is at most ``max_norm``; returns the norm before.

    Source: torch.nn.utils.clip_grad_norm_.
    """
    parameters = _as_list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    total = get_total_norm(gradients, norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None) -> None:
    """Clips all gradients in place to ``[-clip_value, clip_value]``. Source: torch.nn.utils.clip_grad_value_."""
    clip_value = float(clip_value)
    with dg.no_grad():
        for parameter in _as_list(parameters):
            if parameter.grad is not None:
                parameter.grad.clamp_(min=-clip_value, max=clip_value)


def clip_grad_norm(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Does what ``clip_grad_norm_`` does, under its name before PyTorch 0.4."""
    return clip_grad_norm_(parameters, max_norm, norm_type)
