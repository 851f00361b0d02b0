"""What distributions share: broadcasting of parameters, probabilities and logits, attributes computed when first read.

Invariant: nothing here reads a value. Source: torch.distributions.utils.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import distgrad as dg
from distgrad.tensor import Tensor

__all__ = [
    "broadcast_all", "clamp_probs", "lazy_property", "logits_to_probs", "probs_to_logits", "sum_rightmost",
    "tril_matrix_to_vec", "vec_to_tril_matrix",
]


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Gives numbers and tensors as tensors of one shape; numbers take the dtype of the tensors or the default one.

    ValueError for anything else.
    """
    if not all(isinstance(v, (Tensor, int, float)) for v in values):
        raise ValueError("Input arguments must all be instances of Number, torch.Tensor or objects implementing "
                         "__torch_function__.")
    given = [v for v in values if isinstance(v, Tensor)]
    kind = dg.get_default_dtype()
    for tensor in given:
        if tensor.dtype.is_floating_point:
            kind = tensor.dtype
            break
    made = [v if isinstance(v, Tensor) else dg.full((), float(v), dtype=kind) for v in values]
    if len(made) == 1 or all(t.shape == made[0].shape for t in made):
        return tuple(made)
    return tuple(dg.broadcast_tensors(*made))


def sum_rightmost(value: Tensor, dim: int) -> Tensor:
    """Sums over the last `dim` dims."""
    return value if dim == 0 else value.sum(tuple(range(-dim, 0)))


def clamp_probs(probs: Tensor) -> Tensor:
    """Gives probabilities within [eps, 1 - eps] of their dtype."""
    eps = dg.finfo(probs.dtype).eps
    return probs.clamp(eps, 1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Gives sigmoid(logits) for binary ones, softmax over the last dim otherwise."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Gives the logits whose sigmoid or softmax the probabilities are; they are clamped away from 0 and 1."""
    safe = clamp_probs(probs)
    return safe.log() - (-safe).log1p() if is_binary else safe.log()


class lazy_property:
    """An attribute that is computed by a method when first read, with gradients, and kept."""

    def __init__(self, method: Callable[[Any], Any]) -> None:
        self.method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        with dg.enable_grad():
            value = self.method(instance)
        setattr(instance, self.method.__name__, value)
        return value


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """Gives the elements of (..., n, n) on and below diagonal `diag`, row by row."""
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    rows, columns = dg.tril_indices(n, n, diag).unbind(0)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """Gives the matrix (..., n, n) whose elements on and below diagonal `diag` are the vector, row by row."""
    count = vec.shape[-1]
    n = round((-(1 + 2 * diag) + ((1 + 2 * diag) ** 2 + 8 * count + 4 * abs(diag) * (diag + 1)) ** 0.5) / 2)
    rows, columns = dg.tril_indices(n, n, diag).unbind(0)
    if rows.shape[0] != count:
        raise ValueError(
            f"The size of last dimension is {count} which cannot be expressed as the lower triangular part of a square "
            "D x D matrix."
        )
    flat = vec.new_zeros(*vec.shape[:-1], n * n)
    place = (rows * n + columns).expand(vec.shape)
    return flat.scatter(-1, place, vec).reshape(*vec.shape[:-1], n, n)
