"""One residual attention block of CLIP, computed from the frozen module's weights with fused operations."""

import torch.nn.functional as F

_GELU_SCALE = 1.702


def layer_norm(ln, x, scale=1.0):
    """`scale * ln(x)`, in the dtype of `x`."""
    weight, bias = (ln.weight, ln.bias) if scale == 1.0 else (ln.weight * scale, ln.bias * scale)
    return F.layer_norm(x.to(weight.dtype), ln.normalized_shape, weight, bias, ln.eps).to(x.dtype)


def query_key_value(block, x):
    """Queries (..., w) and joined keys and values (..., 2w) of tokens x (..., w)."""
    qkv = F.linear(layer_norm(block.ln_1, x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    return qkv.split([x.shape[-1], 2 * x.shape[-1]], dim=-1)


def attend(block, query, key_value, mask=None, causal=False):
    """Attention of (N, L, w) queries over (N, S, 2w) keys and values, before the output projection: (N, L, w)."""
    count, length, width = query.shape
    heads = block.attn.num_heads
    query = query.view(count, length, heads, -1).transpose(1, 2)
    key, value = key_value.view(count, key_value.shape[1], 2, heads, -1).transpose(1, 3).unbind(2)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).reshape(count, length, width)


def finish(block, x, attended):
    """The rest of the block: x + projected attention, then the MLP with QuickGELU; shapes (..., w)."""
    x = x + F.linear(attended, block.attn.out_proj.weight, block.attn.out_proj.bias)
    # x·sigmoid(1.702x) = silu(1.702x)/1.702; scaling the small vectors makes it one pass over the wide activations
    expand, contract = block.mlp.c_fc, block.mlp.c_proj
    hidden = F.linear(layer_norm(block.ln_2, x, _GELU_SCALE), expand.weight, expand.bias * _GELU_SCALE)
    out = F.linear(F.silu(hidden), contract.weight, contract.bias * _GELU_SCALE)
    return x.add(out, alpha=1 / _GELU_SCALE)
