"""The naive reference: prompt learning as in the family, with 77 tokens per class through CLIP's own modules.

It is written for tests and benchmarks. It is simple, not fast, and shares no code with the encoders that it tests.
"""

import clip
import torch
from clip.model import CLIP
from torch import nn


def random_clip(image_size=32, vision_layers=3, vision_width=128, patch=8, text_width=128, text_layers=3, embed_dim=64):
    """A random, frozen `clip.model.CLIP` in float32; a tuple of `vision_layers` makes a ModifiedResNet (patch unused).

    The defaults are tiny; ViT-B/16 is `random_clip(224, 12, 768, 16, 512, 12, 512)`. Draws from the global generator.
    """
    model = CLIP(
        embed_dim, image_size, vision_layers, vision_width, patch, 77, 49408, text_width, text_width // 64, text_layers
    )
    for name, parameter in model.named_parameters():
        # OpenAI starts these at 0, at 1 or so small that code which uses them would not be tested.
        if name.endswith(("bias", "positional_embedding")):
            nn.init.normal_(parameter, std=0.05)
        elif ".ln_" in name or name.startswith("ln_") or name.endswith("bn3.weight"):
            nn.init.normal_(parameter, mean=1.0, std=0.3)
    return model.float().eval().requires_grad_(False)


def full_prompts(clip_model, context, classnames, position="end", prefix="", ending="."):
    """Embedded prompts (C, 77, w) and tokens (C, 77), as the family builds them.

    The context (n, w) or (C, n, w) overwrites positions 1 to n of `prefix name ending`; "" stands for n words.
    """
    names = [name.replace("_", " ") for name in classnames]
    n_ctx = context.shape[-2]
    tokens = torch.cat([clip.tokenize((prefix or " ".join(["X"] * n_ctx)) + " " + name + ending) for name in names])
    embedding = clip_model.token_embedding(tokens)
    context = context if context.dim() == 3 else context.expand(len(names), -1, -1)
    rows = []
    for name, row, ctx in zip(names, embedding, context, strict=True):
        length = len(clip.clip._tokenizer.encode(name))
        start, word, rest = row[:1], row[1 + n_ctx : 1 + n_ctx + length], row[1 + n_ctx + length :]
        half = n_ctx // 2
        rows.append(
            torch.cat(
                {
                    "end": [start, ctx, word, rest],
                    "middle": [start, ctx[:half], word, ctx[half:], rest],
                    "front": [start, word, ctx, rest],
                }[position]
            )
        )
    return torch.stack(rows), tokens


def encode_prompts(clip_model, prompts, tokens, deep=(), vectors=None, layer_of_vectors=0):
    """Text features (C, d); `deep` (n, w) replaces positions 1 to n at the input of layers 1, 2, ...

    `vectors` (C, n, w), those of each class, replace them at the input of layer `layer_of_vectors`.
    """
    x = (prompts + clip_model.positional_embedding).permute(1, 0, 2)
    for layer, block in enumerate(clip_model.transformer.resblocks):
        if 1 <= layer <= len(deep):
            replacement = deep[layer - 1][:, None].expand(-1, x.shape[1], -1)
            x = torch.cat([x[:1], replacement, x[1 + len(replacement) :]])
        if vectors is not None and layer == layer_of_vectors:
            x = torch.cat([x[:1], vectors.transpose(0, 1), x[1 + vectors.shape[1] :]])
        x = block(x)
    x = clip_model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ clip_model.text_projection


def encode_prompted_images(clip_model, images, prompts):
    """Image features (B, d) of a ViT with prompt tokens at the end of the sequence in the first layers."""
    visual = clip_model.visual
    x = visual.conv1(images).flatten(2).permute(0, 2, 1)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    x = visual.ln_pre(x).permute(1, 0, 2)
    for layer, block in enumerate(visual.transformer.resblocks):
        if 1 <= layer < len(prompts):
            x = torch.cat([x[: -len(prompts[layer])], prompts[layer][:, None].expand(-1, x.shape[1], -1)])
        x = block(x)
    return visual.ln_post(x.permute(1, 0, 2)[:, 0]) @ visual.proj


def logits(clip_model, image_features, text_features):
    """exp(logit_scale) times cosine similarities; text features (C, d), or (B, C, d) for each image."""
    image_features = image_features / image_features.norm(dim=-1, keepdim=True)
    text_features = text_features / text_features.norm(dim=-1, keepdim=True)
    if text_features.dim() == 3:
        return clip_model.logit_scale.exp() * torch.einsum("bd,bcd->bc", image_features, text_features)
    return clip_model.logit_scale.exp() * image_features @ text_features.t()


def gradients(learner):
    """The gradients of all of a learner's parameters, one after the other."""
    return torch.cat([parameter.grad.flatten() for parameter in learner.parameters()])


class NaiveTextEncoder(nn.Module):
    """Text features (B, C, d) from 77 positions per class and image; called like SharedPrefixTextEncoder."""

    tokens: torch.Tensor
    vectors: torch.Tensor
    is_context: torch.Tensor
    words: torch.Tensor

    def __init__(self, clip_model, sequences, class_chunk=0):
        super().__init__()
        rows = [list(sequence) + [0] * (77 - len(sequence)) for sequence in sequences]
        entries = torch.tensor(rows, device=clip_model.positional_embedding.device)
        self.clip_model = clip_model
        self.register_buffer("tokens", entries.clamp(min=0), persistent=False)  # (C, 77)
        self.register_buffer("vectors", (-1 - entries).clamp(min=0), persistent=False)
        self.register_buffer("is_context", entries[..., None] < 0, persistent=False)
        self.register_buffer("words", clip_model.token_embedding(self.tokens).detach(), persistent=False)

    def forward(self, context=None, deep=(), **vectors):
        contexts = [self.words.new_zeros(1, self.words.shape[-1])] if context is None else context
        prompts = [torch.where(self.is_context, vectors[self.vectors], self.words) for vectors in contexts]
        return torch.stack([encode_prompts(self.clip_model, one, self.tokens, deep, **vectors) for one in prompts])
