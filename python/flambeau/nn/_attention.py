"""Attention as composites."""

from __future__ import annotations

import math
from typing import Any

from .. import _flambeau
from .._flambeau import Tensor
from .._ops import ops


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q Kᵀ · scale + mask) V over [..., heads, length, width]."""
    from . import functional as F

    if enable_gqa:
        repeats = query.size(-3) // key.size(-3)
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    weights = query.matmul(key.transpose(-2, -1)) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
        seen = ops.ones(query.size(-2), key.size(-2), dtype=_flambeau.bool, device=query.device).tril()
        weights = weights.masked_fill(~seen, float("-inf"))
    if attn_mask is not None:
        if attn_mask.dtype == _flambeau.bool:
            weights = weights.masked_fill(~attn_mask, float("-inf"))
        else:
            weights = weights + attn_mask
    weights = ops.softmax(weights, -1)
    if attn_mask is not None and attn_mask.dtype == _flambeau.bool:
        # A query that may see nothing gets zeros rather than not a number.
        weights = weights.masked_fill(~attn_mask.any(-1, keepdim=True), 0)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    return weights.matmul(value)


def _additive(mask: Tensor | None, dtype: Any, name: str) -> Tensor | None:
    """A mask as numbers to be added to the scores: True in a boolean one means hidden."""
    if mask is None:
        return None
    if mask.dtype == _flambeau.bool:
        return ops.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))
    if not mask.is_floating_point():
        raise AssertionError(f"only bool and floating types of {name} are supported")
    return mask


def _project(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The three projections of a packed weight, in as few products as the operands allow."""
    from . import functional as F

    width = query.size(-1)
    if key is value:
        if query is key:
            q, k, v = F.linear(query, weight, bias).chunk(3, -1)
            return q, k, v
        b_q, b_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        k, v = F.linear(key, weight[width:], b_kv).chunk(2, -1)
        return F.linear(query, weight[:width], b_q), k, v
    w_q, w_k, w_v = weight.chunk(3, 0)
    b_q, b_k, b_v = (None, None, None) if bias is None else bias.chunk(3, 0)
    return F.linear(query, w_q, b_q), F.linear(key, w_k, b_k), F.linear(value, w_v, b_v)


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Multi-head attention of [L, N, E] queries (or [L, E]); gives the output and, if asked, the weights."""
    from . import functional as F

    batched = query.dim() == 3
    if query.dim() not in (2, 3):
        raise AssertionError(f"query should be unbatched 2D or batched 3D tensor but received {query.dim()}-D query tensor")
    if key.dim() != query.dim() or value.dim() != query.dim():
        raise AssertionError(
            f"For {'batched (3-D)' if batched else 'unbatched (2-D)'} `query`, expected `key` and `value` to be {query.dim()}-D but "
            f"found {key.dim()}-D and {value.dim()}-D tensors respectively"
        )
    if key_padding_mask is not None and key_padding_mask.dim() != query.dim() - 1:
        raise AssertionError(
            f"expected `key_padding_mask` to be None or {query.dim() - 1}-D but found {key_padding_mask.dim()}-D tensor instead"
        )
    if attn_mask is not None and attn_mask.dim() not in (2, 3):
        raise AssertionError(f"expected `attn_mask` to be None, 2-D or 3-D but found {attn_mask.dim()}-D tensor instead")
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "Need attn_mask if specifying the is_causal hint. You may use the Transformer module method "
            "`generate_square_subsequent_mask` to create this mask."
        )
    if not batched:
        same_kv, same_q = key is value, query is key
        query = query.unsqueeze(1)
        key = query if same_q else key.unsqueeze(1)
        value = key if same_kv else value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    target_len, batch, embed_dim = query.shape
    source_len = key.shape[0]
    if embed_dim != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {embed_dim}")
    head_dim = embed_dim // num_heads
    if head_dim * num_heads != embed_dim:
        raise AssertionError(f"embed_dim {embed_dim} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight:
        if key.shape[:2] != value.shape[:2]:
            raise AssertionError(f"key's sequence and batch dims {key.shape[:2]} do not match value's {value.shape[:2]}")
    elif key.shape != value.shape:
        raise AssertionError(f"key shape {key.shape} does not match value shape {value.shape}")
    if use_separate_proj_weight:
        b_q, b_k, b_v = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3, 0)
        q = F.linear(query, q_proj_weight, b_q)
        k, v = F.linear(key, k_proj_weight, b_k), F.linear(value, v_proj_weight, b_v)
    else:
        q, k, v = _project(query, key, value, in_proj_weight, in_proj_bias)  # type: ignore[arg-type]
    mask = _additive(attn_mask, q.dtype, "attn_mask")
    padding = _additive(key_padding_mask, q.dtype, "key_padding_mask")
    if mask is not None:
        expected = (target_len, source_len) if mask.dim() == 2 else (batch * num_heads, target_len, source_len)
        if tuple(mask.shape) != expected:
            raise RuntimeError(f"The shape of the {mask.dim()}D attn_mask is {tuple(mask.shape)}, but should be {expected}.")
    if padding is not None and tuple(padding.shape) != (batch, source_len):
        raise AssertionError(f"expecting key_padding_mask shape of {(batch, source_len)}, but got {tuple(padding.shape)}")
    if bias_k is not None and bias_v is not None:
        k = ops.cat([k, bias_k.expand(1, batch, embed_dim)], 0)
        v = ops.cat([v, bias_v.expand(1, batch, embed_dim)], 0)
        mask = None if mask is None else F.pad(mask, (0, 1))
        padding = None if padding is None else F.pad(padding, (0, 1))
    heads = lambda t: t.reshape(t.shape[0], batch * num_heads, head_dim).transpose(0, 1)  # noqa: E731
    q = heads(q)
    k = heads(k) if static_k is None else static_k
    v = heads(v) if static_v is None else static_v
    if add_zero_attn:
        zeros = ops.zeros((batch * num_heads, 1, head_dim), dtype=k.dtype, device=k.device)
        k, v = ops.cat([k, zeros], 1), ops.cat([v, zeros], 1)
        mask = None if mask is None else F.pad(mask, (0, 1))
        padding = None if padding is None else F.pad(padding, (0, 1))
    source_len = k.shape[1]
    if mask is not None:
        mask = mask.unsqueeze(0) if mask.dim() == 2 else mask.reshape(batch, num_heads, target_len, source_len)
        mask = mask.unsqueeze(0) if mask.dim() == 3 else mask
    if padding is not None:
        padding = padding.reshape(batch, 1, 1, source_len)
        mask = padding if mask is None else mask + padding
    q = q.reshape(batch, num_heads, target_len, head_dim)
    k = k.reshape(batch, num_heads, source_len, head_dim)
    v = v.reshape(batch, num_heads, source_len, head_dim)
    drop = dropout_p if training else 0.0
    weights = None
    if need_weights:
        scores = (q * math.sqrt(1.0 / head_dim)).matmul(k.transpose(-2, -1))
        weights = ops.softmax(scores if mask is None else scores + mask, -1)
        if drop > 0:
            weights = F.dropout(weights, drop)
        output = weights.matmul(v)
        if average_attn_weights:
            weights = weights.mean(1)
    else:
        output = F.scaled_dot_product_attention(q, k, v, mask, drop)
    output = output.permute(2, 0, 1, 3).reshape(target_len * batch, embed_dim)
    output = F.linear(output, out_proj_weight, out_proj_bias)
    output = output.reshape(target_len, batch, out_proj_weight.shape[0])
    if not batched:
        output = output.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return output, weights
