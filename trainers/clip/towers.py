"""What learners, encoders and the feature cache ask of a CLIP, whoever made its towers.

A CLIP has `visual`, `logit_scale` and `token_embedding`. Its text tower is OpenAI's (`transformer`, `ln_final` and so
on), or it is `text`, a TextTower. Its image tower is OpenAI's or an ImageTower.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import clip.clip
import torch
from torch import nn

from dspt_atlas.datasets.prompts import tokenize
from dspt_atlas.errors import UserError

CONTEXT_LENGTH = 77  # OpenAI's


class Tokenizer(NamedTuple):
    """How a text tower reads texts.

    encode: from a text to its token ids, without start and end. vocabulary: number of ids. pad: the id that fills up.
    context_length: most tokens of a text with start and end. joins_spaces: whether a word after another one has other
    tokens than at the beginning (Gemma's, in SigLIP 2). pads_left: whether pads stand before the start. decode: from
    token ids to their text.
    """

    encode: Callable[[str], list[int]]
    vocabulary: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int = 0
    context_length: int = CONTEXT_LENGTH
    joins_spaces: bool = False
    pads_left: bool = False
    decode: Callable[[list[int]], str] = str

    def following(self, text):
        """Return the tokens of a text that comes after other words."""
        if not self.joins_spaces:
            return self.encode(text)
        return self.encode(f"x {text}")[len(self.encode("x")) :]


class ImageTower(nn.Module):
    """An image tower that is not of OpenAI's `clip`: `module` makes features (B, d) of images (B, 3, H, W).

    name: what it is, for refusals and the cache. input_resolution: H and W; output_dim: d. facts: whatever it computes
    with and its weights do not say; they count in its fingerprint. blocks: the name in `module` of its transformer
    blocks, if learned tokens (V, width) can go through them; entry: the name of what takes all tokens before them.
    """

    def __init__(self, module, name, input_resolution, output_dim, facts=(), blocks="", entry="", width=0):
        super().__init__()
        self.module, self.name, self.facts = module, name, (name, *facts)
        self.input_resolution, self.output_dim, self.width = input_resolution, output_dim, width
        self._blocks, self._entry = blocks, entry

    @property
    def blocks(self) -> Any:
        """The transformer blocks that take learned tokens; () without."""
        return self.module.get_submodule(self._blocks) if self._blocks else ()

    def forward(self, images, prompts=()):
        """Features (B, d); `prompts`: (V, w) per block from the first on, after the image's tokens and never pooled."""
        if not prompts:
            return self.module(images)
        tokens = 0

        def enter(_module, args):
            nonlocal tokens
            tokens = args[0].shape[1]
            return torch.cat([args[0], _rows(prompts[0], args[0])], 1), *args[1:]

        def replace(index):
            return lambda _, args: (torch.cat([args[0][:, :tokens], _rows(prompts[index], args[0])], 1), *args[1:])

        with ExitStack() as hooks:
            entry, blocks = self.module.get_submodule(self._entry), self.blocks
            hooks.callback(entry.register_forward_pre_hook(enter).remove)
            for index in range(1, len(prompts)):
                hooks.callback(blocks[index].register_forward_pre_hook(replace(index)).remove)
            hooks.callback(blocks[-1].register_forward_hook(lambda _module, _args, x: x[:, :tokens]).remove)
            return self.module(images)


def _rows(prompts, x):
    return prompts.to(x.dtype).expand(len(x), -1, -1)


class TextTower(nn.Module):
    """A text tower that is not of OpenAI's kind: `module` makes features (N, d) of token ids (N, L).

    embedding and blocks: the names in `module` of its table of tokens and of its transformer blocks. sees_padding:
    whether features depend on the pads after the end, so that L has to be the tokenizer's context_length.
    """

    def __init__(self, module, name, tokenizer, embedding, blocks="", sees_padding=True):
        super().__init__()
        self.module, self.name, self.tokenizer, self.sees_padding = module, name, tokenizer, sees_padding
        self._embedding, self._blocks = embedding, blocks

    @property
    def token_embedding(self):
        """The table of tokens."""
        return self.module.get_submodule(self._embedding)

    @property
    def blocks(self) -> Any:
        """The transformer blocks; () if they are not known."""
        return self.module.get_submodule(self._blocks) if self._blocks else ()

    def forward(self, ids, replace, replaced=()):
        """Features (N, d) of token ids (N, L). Functions of (N, L', w) give what takes the place of tokens there:

        replace: of token embeddings; replaced: pairs of a block's number and such a function of the block's input.
        """
        with ExitStack() as hooks:
            hook = self.token_embedding.register_forward_hook(lambda _module, _args, x: replace(x))
            hooks.callback(hook.remove)
            for number, function in replaced:
                hook = self.blocks[number].register_forward_pre_hook(
                    lambda _module, args, function=function: (function(args[0]), *args[1:])
                )
                hooks.callback(hook.remove)
            return self.module(ids)


class TwoTowers(nn.Module):
    """A CLIP of an ImageTower and a TextTower. A bias of the logits changes nothing here: all classes have the same."""

    def __init__(self, visual, text, logit_scale):
        super().__init__()
        self.visual, self.text, self.logit_scale = visual, text, nn.Parameter(logit_scale.detach().reshape(()))

    @property
    def token_embedding(self):
        """The text tower's table of tokens."""
        return self.text.token_embedding


@dataclass(frozen=True)
class Family:
    """A kind of backbone that is not wholly OpenAI's `clip.model.CLIP`. Its kinds are frozen dataclasses too.

    Their names and fields are the part of a backbone's identity that its weights do not say. image_resolution: side of
    its images in pixels.
    """

    image_resolution: int

    def build(self, source):
        """Return the model of a `sources.Source`, on the CPU; raises UserError for weights of something else."""
        raise NotImplementedError

    def other_files(self, source):
        """Return the files that the model of a source is made of besides its weights: they count in its digest."""
        return []


def start_and_end_token():
    """Return OpenAI's start and end token."""
    encoder = clip.clip._tokenizer.encoder
    return encoder["<|startoftext|>"], encoder["<|endoftext|>"]


def openais_tokenizer():
    """Return the tokenizer of OpenAI's clip."""
    start, end = start_and_end_token()

    def decode(tokens):  # the tokenizer of a fork's clip may not have it: asked for only when it is needed
        return clip.clip._tokenizer.decode(tokens)

    return Tokenizer(tokenize, end + 1, (start,), (end,), decode=decode)


def tokenizer_of(clip_model) -> Tokenizer:
    """Return the Tokenizer of a CLIP."""
    return clip_model.text.tokenizer if is_encoded_whole(clip_model) else openais_tokenizer()


def is_encoded_whole(clip_model):
    """Return whether each text is encoded whole, because the text tower is not of OpenAI's kind."""
    return isinstance(getattr(clip_model, "text", None), TextTower)


def way_of_encoding(clip_model):
    """Return in words how texts are encoded, for a run's log."""
    if not is_encoded_whole(clip_model):
        return "Text: causal, of OpenAI's kind; what all prompts have in common at the beginning is encoded once"
    text = clip_model.text
    length = f"{text.tokenizer.context_length} positions, pads are seen" if text.sees_padding else "pads are not seen"
    return f"Text: {text.name}, encoded whole by its own library; {length}"


def text_width(clip_model):
    """Return the width w of text tokens."""
    return clip_model.token_embedding.weight.shape[1]


def text_blocks(clip_model):
    """Return the text tower's transformer blocks; raises UserError if they are not known."""
    if not is_encoded_whole(clip_model):
        return clip_model.transformer.resblocks
    if not len(blocks := clip_model.text.blocks):
        raise UserError(
            f"Expected a text tower whose blocks take learned vectors, got {clip_model.text.name}: choose another "
            "backbone, or a learner with vectors in the text's input alone, such as CoOp."
        )
    return blocks


def feature_width(clip_model):
    """Return the width d of the features of both towers."""
    return clip_model.visual.output_dim


def image_dtype(visual):
    """Return the type that an image tower computes in."""
    return next(visual.parameters()).dtype


def is_vit(clip_model):
    """Return whether the image tower is OpenAI's vision transformer."""
    return isinstance(getattr(clip_model.visual, "transformer", None), nn.Module)


def image_blocks(clip_model):
    """Return the image tower's transformer blocks; raises UserError for a tower that takes no prompts."""
    visual = clip_model.visual
    if is_vit(clip_model):
        return visual.transformer.resblocks
    if not len(blocks := getattr(visual, "blocks", ())):
        raise UserError(
            "Expected a vision transformer (ViT-B/32, ViT-B/16, ViT-L/14), because prompts go into the image tower, "
            f"got {getattr(visual, 'name', 'a ResNet')}: choose another backbone, or CoOp or CoCoOp."
        )
    return blocks


def image_width(clip_model):
    """Return the width v of the tokens that go through the image tower's blocks."""
    visual = clip_model.visual
    return visual.width if isinstance(visual, ImageTower) else visual.ln_pre.weight.shape[0]
