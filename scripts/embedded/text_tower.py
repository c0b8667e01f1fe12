"""CLIP's text tower on sequences cut at their longest caption, and files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from clip.model import CLIP


def encode_text(model: CLIP, tokens: torch.Tensor, eot: torch.Tensor, fill=None) -> torch.Tensor:
    """CLIP's text tower on sequences cut at the longest caption: tokens (M, L) -> features (M, d)."""
    x = model.token_embedding(tokens)
    if fill is not None:
        x = torch.where(fill[0], fill[1], x)
    x = x + model.positional_embedding[: tokens.shape[1]]
    blocks: Any = model.transformer.resblocks
    for block in blocks:
        x = x + attend(block.attn, block.ln_1(x))
        x = x + block.mlp(block.ln_2(x))
    return model.ln_final(x[torch.arange(len(x)), eot]) @ model.text_projection


def attend(attention: torch.nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
    """Causal attention written out: on a CPU, for short captions, it takes less time than the fused one."""
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    )
    later = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    weights = ((q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5 + later).softmax(-1)
    return attention.out_proj((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


def write(state: dict, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
