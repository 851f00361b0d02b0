"""Everything stateless a layer computes, under torch.nn.functional's names and signatures.

Invariant: a name here means what the same name in torch.nn.functional means; this module defines attention and gathers
the rest from the families.
"""

from __future__ import annotations

import math
from typing import Any

from distgrad.functions.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from distgrad.functions.classification_loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    multi_margin_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
)
from distgrad.functions.contraction import bilinear, linear
from distgrad.functions.creation import ones
from distgrad.functions.dropout import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    gumbel_softmax,
    rrelu,
)
from distgrad.functions.indexing import embedding, one_hot
from distgrad.functions.loss import (
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
    triplet_margin_with_distance_loss,
)
from distgrad.functions.movement import pad
from distgrad.functions.normalization import (
    batch_norm,
    cosine_similarity,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    normalize,
    pairwise_distance,
    rms_norm,
)
from distgrad.ops.elementwise import where

__all__ = [
    "alpha_dropout",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "feature_alpha_dropout",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]

Tensor = Any


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:
    """Returns softmax(query @ key^T * scale + mask) @ value for (..., H, L, E), (..., H, S, E), (..., H, S, V).

    `attn_mask` broadcasts to (..., L, S): bool, True where attention is allowed, or numbers to add. `is_causal` lets
    position i attend to positions up to i (RuntimeError together with a mask). A query that may attend to nothing gives
    zeros. `scale` defaults to 1 / sqrt(E); `enable_gqa` repeats key and value heads to as many as the query has;
    `dropout_p` drops attention weights. PyTorch: F.scaled_dot_product_attention.
    """
    if is_causal and attn_mask is not None:
        raise RuntimeError("scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "scaled_dot_product_attention: query, key and value must have at least 2 dims, got "
            f"{query.ndim}, {key.ndim} and {value.ndim}"
        )
    if enable_gqa:
        key, value = _repeat_heads(query, key), _repeat_heads(query, value)
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    scores = (query * scale) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = ones(query.shape[-2], key.shape[-2], dtype=bool).tril()
    blind = None
    if attn_mask is not None:
        allowed = attn_mask if attn_mask.dtype.category == 0 else attn_mask != -math.inf
        if not is_causal:
            # Their scores become finite before the softmax, which would give and pass back nan otherwise.
            blind = allowed.any(-1, keepdim=True).logical_not()
        added = where(attn_mask, 0.0, -math.inf) if attn_mask.dtype.category == 0 else attn_mask
        scores = scores + (added if blind is None else where(blind, 0.0, added)).to(scores.dtype)
    weights = softmax(scores, -1)
    if blind is not None:
        weights = where(blind, 0.0, weights)
    return dropout(weights, dropout_p, dropout_p > 0.0) @ value


def _repeat_heads(query: Tensor, heads: Tensor) -> Tensor:
    wanted, given = query.shape[-3], heads.shape[-3]
    if wanted % given:
        raise RuntimeError(
            "scaled_dot_product_attention: Number of heads in key and value must divide the number of heads in query, "
            f"got {given} and {wanted}"
        )
    return heads if wanted == given else heads.repeat_interleave(wanted // given, -3)
