"""Functions and methods that older scripts use: element by element in Python, memory addresses, other names.

Invariant: each gives what PyTorch gives on the CPU; what is written into a tensor goes through its in-place methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.functions import indexing
from distgrad.grad_mode import mode

Tensor = Any

__all__ = ["adjoint", "apply_", "as_subclass", "data_ptr", "detach", "embedding", "fill_diagonal_", "frombuffer",
           "get_device", "is_inference_mode_enabled", "map_"]


def detach(input: Tensor) -> Tensor:
    """Gives the same values without history (PyTorch: torch.detach)."""
    return input.detach()


def adjoint(input: Tensor) -> Tensor:
    """Gives the last two dims swapped and conjugated (PyTorch: torch.adjoint)."""
    return input.mH


def get_device(input: Tensor) -> int:
    """Gives -1, the number of the CPU (PyTorch: torch.get_device)."""
    return -1


def is_inference_mode_enabled() -> bool:
    """Says whether operations record nothing, as inside inference_mode and no_grad."""
    return not mode.enabled


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
              sparse: bool = False) -> Tensor:
    """Looks up rows of `weight` (V, D); unlike F.embedding the weight comes first (PyTorch: torch.embedding)."""
    return indexing.embedding(indices, weight, None if padding_idx < 0 else padding_idx, None, 2.0, scale_grad_by_freq)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False) -> Tensor:
    """Makes a 1-d tensor of the bytes of a buffer, copied when it cannot be written to (PyTorch: torch.frombuffer)."""
    from distgrad.functions.data import from_numpy

    array = np.frombuffer(buffer, dtype=dtype.numpy, count=count, offset=offset)
    out = from_numpy(array if array.flags.writeable else array.copy())
    return out.requires_grad_() if requires_grad else out


def fill_diagonal_(input: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Writes a number to the main diagonal in place; `wrap` starts it again below the square of a tall matrix.

    RuntimeError for fewer than two dims, or more than two that are not equal (PyTorch: Tensor.fill_diagonal_).
    """
    if input.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if input.ndim > 2 and len(set(input.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    if input.ndim > 2:
        places = np.arange(input.shape[0])
        input[tuple(places.tolist() for _ in range(input.ndim))] = fill_value
        return input
    rows, columns = input.shape
    if wrap and rows > columns + 1:
        for start in range(0, rows, columns + 1):
            input[start : start + columns].diagonal().fill_(fill_value)
        return input
    input.diagonal().fill_(fill_value)
    return input


def _each(input: Tensor, function: Callable[..., Any], *others: Tensor) -> Tensor:
    flat = [t.detach().numpy().reshape(-1).tolist() for t in (input, *others)]
    made = np.array([function(*values) for values in zip(*flat)], dtype=input.dtype.numpy).reshape(input.shape)
    from distgrad.functions.data import tensor

    return input.copy_(tensor(made))


def apply_(input: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replaces each element by what a Python function gives for it; slow (PyTorch: Tensor.apply_)."""
    return _each(input, callable)


def map_(input: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replaces each element by what a Python function gives for it and the other tensor's (PyTorch: Tensor.map_)."""
    return _each(input, callable, tensor.expand(input.shape))


def data_ptr(input: Tensor) -> int:
    """Gives the address of the first element, fetched if it is on workers; 0 when empty (PyTorch: Tensor.data_ptr)."""
    array = input.detach().numpy()
    return array.ctypes.data if array.size else 0


def as_subclass(input: Tensor, cls: type) -> Tensor:
    """Gives the tensor as an instance of a subclass of Tensor, with the same history (PyTorch: Tensor.as_subclass)."""
    out = input.view_as(input)
    out.__class__ = cls
    return out
