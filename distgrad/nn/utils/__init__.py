"""Helpers on the parameters of a model: clipping gradients, and one vector of all parameters.

Invariant: no value is read unless ``error_if_nonfinite`` asks for it, so clipping stays inside the recorded step.
"""

from distgrad.nn.utils import rnn
from distgrad.nn.utils.clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from distgrad.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "rnn",
    "vector_to_parameters",
]
