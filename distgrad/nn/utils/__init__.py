"""Helpers on the parameters of a model: clipping gradients, one vector of all, normalized weights.

Invariant: no value is read unless ``error_if_nonfinite`` asks for it, so clipping stays inside the recorded step.
"""

from distgrad.nn.utils import parametrizations, parametrize, rnn, stateless
from distgrad.nn.utils.clip_grad import (
    clip_grad_norm,
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from distgrad.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters
from distgrad.nn.utils.spectral_norm import remove_spectral_norm, spectral_norm
from distgrad.nn.utils.weight_norm import remove_weight_norm, weight_norm

__all__ = [
    "clip_grad_norm",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "parameters_to_vector",
    "parametrizations",
    "parametrize",
    "remove_spectral_norm",
    "remove_weight_norm",
    "rnn",
    "spectral_norm",
    "stateless",
    "vector_to_parameters",
    "weight_norm",
]
