"""CLIP's frozen image tower: unchanged, or (MaPLe) with learned tokens in its frozen blocks."""

import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.frozen_blocks import attend, finish, layer_norm, query_key_value
from dspt_atlas.trainers.clip.model import is_vit


class ImageEncoder(nn.Module):
    """Image features (B, d), not normalised, of images (B, 3, H, W); without prompts no gradients are recorded."""

    def __init__(self, clip_model):
        super().__init__()
        self.visual = clip_model.visual
        self.vit = is_vit(clip_model)

    def forward(self, images, prompts=()):
        """`prompts`: one (V, w) tensor per layer from the first on; those of layer i > 0 replace layer i - 1's."""
        images = images.to(self.visual.conv1.weight.dtype)
        if len(prompts) == 0:
            with torch.no_grad():
                return self.visual(images)
        return self._prompted(images, prompts)

    def _prompted(self, images, prompts):
        if not self.vit:
            raise UserError(
                "Expected a vision transformer (ViT-B/32, ViT-B/16, ViT-L/14) for prompts in the image tower, "
                "got a ResNet: choose another backbone, or CoOp or CoCoOp."
            )
        visual, blocks = self.visual, self.visual.transformer.resblocks
        patches = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, patches, w)
        start = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([start, patches], dim=1) + visual.positional_embedding.to(patches.dtype)
        tokens = x.shape[1]
        x = torch.cat(
            [layer_norm(visual.ln_pre, x), self._rows(layer_norm(visual.ln_pre, prompts[0].to(x.dtype)), x)], 1
        )
        for layer, block in enumerate(blocks):
            if 1 <= layer < len(prompts):
                x = torch.cat([x[:, :tokens], self._rows(prompts[layer].to(x.dtype), x)], dim=1)
            query, key_value = query_key_value(block, x)
            if layer + 1 == len(blocks):  # only the class token is read
                x, query = x[:, :1], query[:, :1]
            x = finish(block, x, attend(block, query, key_value))
        features = layer_norm(visual.ln_post, x[:, 0])
        return features if visual.proj is None else features @ visual.proj

    @staticmethod
    def _rows(prompts, x):
        return prompts.expand(len(x), -1, -1)
