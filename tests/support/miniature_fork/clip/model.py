"""The fork's own CLIP: design details for `build_model`, and blocks that take lists, as in MaPLe's descendants."""

from collections import OrderedDict

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Takes and returns [tokens (L, B, w), deep prompts, number of the next of them]."""

    def __init__(self, width, heads, attn_mask):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": QuickGELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.attn_mask = attn_mask

    def forward(self, inputs):
        x, prompts, counter = inputs
        mask = None if self.attn_mask is None else self.attn_mask.to(x)
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return [x + self.mlp(self.ln_2(x)), prompts, counter]


class Transformer(nn.Module):
    def __init__(self, width, layers, heads, attn_mask=None):
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads, attn_mask) for _ in range(layers)))

    def forward(self, x):
        return self.resblocks([x.transpose(0, 1), [], 0])[0].transpose(0, 1)


class VisionTransformer(nn.Module):
    def __init__(self, resolution, patch, width, layers, output_dim, design_details):
        super().__init__()
        if design_details["vision_depth"] != 0:
            raise ValueError("the miniature fork has no visual prompts")
        self.input_resolution, self.output_dim = resolution, output_dim
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((resolution // patch) ** 2 + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, width // 64)
        self.proj = nn.Parameter(torch.zeros(width, output_dim))

    def forward(self, images):
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(len(images), 1, -1)
        x = self.transformer(self.ln_pre(torch.cat([start, patches], dim=1) + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


class CLIP(nn.Module):
    def __init__(
        self, embed_dim, image_resolution, vision_layers, vision_width, vision_patch_size, context_length, vocab_size,
        transformer_width, transformer_heads, transformer_layers, design_details,
    ):  # fmt: skip
        super().__init__()
        self.context_length = context_length
        self.visual = VisionTransformer(
            image_resolution, vision_patch_size, vision_width, vision_layers, embed_dim, design_details
        )
        mask = self.build_attention_mask()
        self.transformer = Transformer(transformer_width, transformer_layers, transformer_heads, mask)
        self.token_embedding = nn.Embedding(vocab_size, transformer_width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, transformer_width))
        self.ln_final = nn.LayerNorm(transformer_width)
        self.text_projection = nn.Parameter(torch.zeros(transformer_width, embed_dim))
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def build_attention_mask(self):
        return torch.full((self.context_length, self.context_length), float("-inf")).triu(1)

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, tokens):
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding)
        return self.ln_final(x)[range(len(x)), tokens.argmax(dim=1)] @ self.text_projection


def build_model(state_dict, design_details):
    """Reads the sizes from the state dict; like OpenAI's, gives back half precision."""
    width, _, _, patch = state_dict["visual.conv1.weight"].shape
    grid = round((len(state_dict["visual.positional_embedding"]) - 1) ** 0.5)
    text_width, embed_dim = state_dict["text_projection"].shape
    layers = [len({name.split(".")[at] for name in state_dict if name.startswith(prefix)})
              for prefix, at in (("visual.transformer.resblocks", 3), ("transformer.resblocks", 2))]  # fmt: skip
    model = CLIP(
        embed_dim, grid * patch, layers[0], width, patch, len(state_dict["positional_embedding"]),
        len(state_dict["token_embedding.weight"]), text_width, text_width // 64, layers[1], design_details,
    ).half()  # fmt: skip
    model.load_state_dict(state_dict)
    return model.eval()
