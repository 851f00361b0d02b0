"""One flat vector of all parameters, and back.

Invariant: both directions go through the parameters in the order given.
"""

from __future__ import annotations

from collections.abc import Iterable

import distgrad as dg
from distgrad.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Returns all parameters joined into one vector; gradients flow back. Source: torch.nn.utils."""
    return dg.cat([parameter.reshape(-1) for parameter in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Takes successive slices of ``vec`` as the parameters' data. Source: torch.nn.utils."""
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected distgrad.Tensor, but got: {type(vec).__name__}")
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vec[start:end].view_as(parameter).data
        start = end
