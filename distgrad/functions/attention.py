"""Attention: of queries to keys and values, and in several heads with learned projections.

Invariant: rows of the batch never mix, so a sharded batch needs no communication. Source of the definitions:
torch.nn.functional and arXiv:1706.03762.
"""

from __future__ import annotations

import math
from typing import Any

from distgrad.functions.activation import softmax
from distgrad.functions.contraction import linear
from distgrad.functions.creation import ones, zeros
from distgrad.functions.dropout import dropout
from distgrad.functions.movement import cat
from distgrad.functions.precision import in_float32
from distgrad.ops.attention import attention_weights
from distgrad.ops.elementwise import where
from distgrad.ops.stairs import LEAST_ROWS, stair_product, stair_scores
from distgrad.warn import warn_user

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]

Tensor = Any


@in_float32()
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
    square = query.shape == key.shape and query.shape[:-1] == value.shape[:-1]
    if is_causal and square and query.shape[-2] >= LEAST_ROWS and query.dtype.category == 2:
        weights = attention_weights(stair_scores(query, key), scale=float(scale), causal=True)
        return stair_product(dropout(weights, dropout_p, dropout_p > 0.0), value)
    if attn_mask is None and query.dtype.category == 2:
        weights = attention_weights(query @ key.transpose(-2, -1), scale=float(scale), causal=bool(is_causal))
        return dropout(weights, dropout_p, dropout_p > 0.0) @ value
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


def additive_mask(mask: Tensor | None, name: str, kind: Any, other: Tensor | None = None) -> Tensor | None:
    """Gives a mask as numbers to add: a bool mask is True where attention is forbidden.

    AssertionError for a dtype that is neither bool nor floating; a warning when `other`, the second mask, has another
    dtype.
    """
    if mask is None:
        return None
    if mask.dtype.category not in (0, 2):
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if other is not None and other.dtype is not mask.dtype:
        warn_user(
            f"Support for mismatched {name} and attn_mask is deprecated. Use same type for both instead."
        )
    return mask if mask.dtype.category == 2 else where(mask, -math.inf, 0.0).to(kind)


def _check_dims(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None, mask: Tensor | None,
                heads: int) -> None:
    """Raises AssertionError for inputs and masks with a wrong number of dims."""
    if query.ndim not in (2, 3):
        raise AssertionError(
            f"query should be unbatched 2D or batched 3D tensor but received {query.ndim}-D query tensor"
        )
    dims = query.ndim
    what = "batched (3-D)" if dims == 3 else "unbatched (2-D)"
    if key.ndim != dims or value.ndim != dims:
        raise AssertionError(
            f"For {what} `query`, expected `key` and `value` to be {dims}-D but found {key.ndim}-D and {value.ndim}-D "
            "tensors respectively"
        )
    if padding is not None and padding.ndim != dims - 1:
        raise AssertionError(
            f"For {what} `query`, expected `key_padding_mask` to be `None` or {dims - 1}-D but found {padding.ndim}-D "
            "tensor instead"
        )
    if mask is None:
        return
    if mask.ndim not in (2, 3):
        raise AssertionError(
            f"For {what} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {mask.ndim}-D tensor instead"
        )
    if dims == 2 and mask.ndim == 3 and tuple(mask.shape) != (heads, query.shape[0], key.shape[0]):
        raise AssertionError(
            f"Expected `attn_mask` shape to be {(heads, query.shape[0], key.shape[0])} but got {mask.shape}"
        )


def _projected(query: Tensor, key: Tensor, value: Tensor, weights: tuple[Tensor, ...] | Tensor,
               bias: Tensor | None) -> list[Tensor]:
    """Gives the projections of query, key and value, in one product where they are the same tensor."""
    size = query.shape[-1]
    if isinstance(weights, tuple):
        biases = (None, None, None) if bias is None else bias.chunk(3)
        return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases)]
    if key is value and query is key:
        return list(linear(query, weights, bias).chunk(3, -1))
    if key is value:
        parts, halves = weights.split([size, 2 * size]), (None, None) if bias is None else bias.split([size, 2 * size])
        both = linear(key, parts[1], halves[1])
        return [linear(query, parts[0], halves[0]), *both.chunk(2, -1)]
    return _projected(query, key, value, tuple(weights.chunk(3)), bias)


def _heads(x: Tensor, heads: int) -> Tensor:
    """Gives (N, H, T, E / H) for (T, N, E)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).permute(1, 2, 0, 3)


def _given_heads(name: str, given: Tensor, rows: int, heads: int, size: int) -> Tensor:
    """Gives (N, H, S, E / H) for a static key or value (N * H, S, E / H)."""
    if given.shape[0] != rows * heads:
        raise AssertionError(f"expecting {name}.size(0) of {rows * heads}, but got {given.shape[0]}")
    if given.shape[2] != size:
        raise AssertionError(f"expecting {name}.size(2) of {size}, but got {given.shape[2]}")
    return given.reshape(rows, heads, *given.shape[1:])


def _mask_of(attn_mask: Tensor | None, steps: int, source: int, rows: int, heads: int) -> Tensor | None:
    """Gives the attention mask as (L, S) or (N, H, L, S); RuntimeError for another shape."""
    if attn_mask is None:
        return None
    expected = (steps, source) if attn_mask.ndim == 2 else (rows * heads, steps, source)
    if tuple(attn_mask.shape) != expected:
        raise RuntimeError(
            f"The shape of the {attn_mask.ndim}D attn_mask is {attn_mask.shape}, but should be {expected}."
        )
    return attn_mask if attn_mask.ndim == 2 else attn_mask.reshape(rows, heads, steps, source)


def _widened(mask: Tensor | None) -> Tensor | None:
    """Gives a mask with one more source position, to which attention is allowed."""
    return None if mask is None else cat([mask, zeros(*mask.shape[:-1], 1, dtype=mask.dtype)], -1)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Tensor, out_proj_bias: Tensor | None, training: bool = True,
    key_padding_mask: Tensor | None = None, need_weights: bool = True, attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None, static_k: Tensor | None = None, static_v: Tensor | None = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Returns the output (L, N, E) of attention in several heads, and its weights when `need_weights`.

    query (L, N, E), key (S, N, Ek), value (S, N, Ev), or each without N. Masks are bool (True: no attention) or numbers
    to add: `key_padding_mask` (N, S), `attn_mask` (L, S) or (N * heads, L, S). `is_causal` is a hint that `attn_mask`
    is the causal one; the mask is applied either way. Weights are (N, L, S), the average over heads, or (N, heads, L,
    S). AssertionError and RuntimeError for shapes that do not fit. PyTorch: F.multi_head_attention_forward.
    """
    _check_dims(query, key, value, key_padding_mask, attn_mask, num_heads)
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    batched = query.ndim == 3
    if not batched:
        # The same tensor stays the same one: it is projected once.
        same_key, same_value = key is query, value is key
        query = query.unsqueeze(1)
        key = query if same_key else key.unsqueeze(1)
        value = key if same_value else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    steps, rows, size = query.shape
    if size != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {size}")
    if size % num_heads:
        raise AssertionError(f"embed_dim {size} not divisible by num_heads {num_heads}")
    _check_sources(key, value, use_separate_proj_weight)
    padding = additive_mask(key_padding_mask, "key_padding_mask", query.dtype, attn_mask)
    mask = _mask_of(additive_mask(attn_mask, "attn_mask", query.dtype), steps, key.shape[0], rows, num_heads)

    weights = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight
    if weights is None or (isinstance(weights, tuple) and any(w is None for w in weights)):
        missing = "q_proj_weight, k_proj_weight or v_proj_weight" if use_separate_proj_weight else "in_proj_weight"
        raise AssertionError(f"use_separate_proj_weight is {use_separate_proj_weight} but {missing} is None")
    q, k, v = _projected(query, key, value, weights, in_proj_bias)
    if (bias_k is None) != (bias_v is None):
        raise AssertionError("bias_k and bias_v are given together or not at all")
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            raise AssertionError("bias cannot be added to static key or value.")
        k = cat([k, bias_k.expand(1, rows, size)])
        v = cat([v, bias_v.expand(1, rows, size)])
        mask, padding = _widened(mask), _widened(padding)
    q = _heads(q, num_heads)
    width = size // num_heads
    k = _heads(k, num_heads) if static_k is None else _given_heads("static_k", static_k, rows, num_heads, width)
    v = _heads(v, num_heads) if static_v is None else _given_heads("static_v", static_v, rows, num_heads, width)
    if add_zero_attn:
        nothing = zeros(rows, num_heads, 1, width, dtype=k.dtype)
        k, v = cat([k, nothing], 2), cat([v, nothing], 2)
        mask, padding = _widened(mask), _widened(padding)
    if padding is not None:
        if tuple(padding.shape) != (rows, k.shape[2]):
            place = 0 if padding.shape[0] != rows else 1
            raise AssertionError(
                f"Expected key_padded_mask.shape[{place}] to be {(rows, k.shape[2])[place]}, but got "
                f"{padding.shape[place]}"
            )
        padding = padding.reshape(rows, 1, 1, k.shape[2])
        mask = padding if mask is None else mask + padding

    chance = dropout_p if training else 0.0
    if not need_weights:
        found = scaled_dot_product_attention(q, k, v, mask, chance)
        attention = None
    else:
        scores = (q * math.sqrt(1.0 / width)) @ k.transpose(-2, -1)
        attention = dropout(softmax(scores if mask is None else scores + mask, -1), chance, training)
        found = attention @ v
        if average_attn_weights:
            attention = attention.mean(1)
    output = linear(found.permute(2, 0, 1, 3).reshape(steps, rows, size), out_proj_weight, out_proj_bias)
    if not batched:
        output = output.squeeze(1)
        attention = None if attention is None else attention.squeeze(0)
    return output, attention


def _check_sources(key: Tensor, value: Tensor, separate: bool) -> None:
    if separate and key.shape[:2] != value.shape[:2]:
        raise AssertionError(
            f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}"
        )
    if not separate and key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
