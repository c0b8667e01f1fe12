"""Building OpenAI's `clip.model.CLIP`, whole or its text tower alone, by the `clip` that can be imported."""

import contextlib
import inspect

import clip
import clip.model
import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.architectures import openais_heads
from dspt_atlas.trainers.clip.towers import is_vit

_OPENAI_ARGUMENTS = (
    "self",
    "embed_dim",
    "image_resolution",
    "vision_layers",
    "vision_width",
    "vision_patch_size",
    "context_length",
    "vocab_size",
    "transformer_width",
    "transformer_heads",
    "transformer_layers",
)
# For edited clips of the family (MaPLe's and its descendants'), this means "no prompts inside the model".
_NO_PROMPTS = {"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}


def is_edited():
    """Return whether the `clip` that can be imported has another model than OpenAI's."""
    return tuple(inspect.signature(clip.model.CLIP.__init__).parameters) != _OPENAI_ARGUMENTS


def with_weights(state, shapes, backbone):
    """Return the model of the `clip` that can be imported with these weights, with OpenAI's heads and activation."""
    if is_edited():
        with _refusing(backbone):
            return _build_edited(state, backbone)
    return _filled({**shapes, "transformer_heads": openais_heads(shapes["transformer_width"])}, state, backbone)


def with_image_tower(state, visual, heads, quick_gelu, backbone):
    """Return the CLIP of an `ImageTower` and of OpenAI's text tower.

    state: the text tower's weights in OpenAI's layout, with `logit_scale`. heads: of its attention. quick_gelu: its
    activation. backbone: the name. Raises UserError for weights that do not fit together, and for an edited `clip`.
    """
    if is_edited():
        raise UserError(f"Expected OpenAI's `clip` for the backbone {backbone}, but an edited one is imported instead.")
    shapes = {
        "image_resolution": 32,
        "vision_layers": 1,
        "vision_width": 64,
        "vision_patch_size": 32,
        **text_shapes(state),
        "transformer_heads": heads,
    }
    if shapes["embed_dim"] != visual.output_dim:
        raise UserError(
            f"Expected features of one width from both towers of {backbone}, but text has {shapes['embed_dim']} and "
            f"images have {visual.output_dim}."
        )
    model = _filled(shapes, state, backbone, visual)
    set_activation(model.transformer.resblocks, quick_gelu)
    return model


def _filled(shapes, state, backbone, visual=None):
    """Return OpenAI's model with these weights, which are not copied, and with another image tower if one is given."""
    with _refusing(backbone):
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced immediately
            model = clip.model.CLIP(**shapes)
        if visual is not None:
            del model.visual
        model.load_state_dict(state, assign=True)
    if visual is not None:
        model.visual = visual
    mask = model.build_attention_mask()
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    return model


@contextlib.contextmanager
def _refusing(backbone):
    """Turn torch's errors for weights that do not fit together into a UserError."""
    try:
        yield
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:  # torch asserts that heads divide a width
        lines = [line.strip() for line in str(error).split("\n")]
        problems = "; ".join(lines[1:3] or lines)[:300]
        raise UserError(
            f"Expected a CLIP checkpoint in OpenAI's layout, but the weights in {backbone} do not fit together: "
            f"{problems}"
        ) from error


def set_heads_and_activation(model, architecture):
    """Give a model the heads and the activation of an architecture; its weights do not depend on them."""
    towers = [(block, architecture.transformer_heads) for block in model.transformer.resblocks]
    if is_vit(model):
        towers += [(block, architecture.vision_heads) for block in model.visual.transformer.resblocks]
    else:
        model.visual.attnpool.num_heads = architecture.vision_heads
    for block, heads in towers:
        block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
    set_activation([block for block, _ in towers], architecture.quick_gelu)


def set_activation(blocks, quick_gelu):
    """Give blocks the exact GELU, or leave them their QuickGELU."""
    for block in blocks:
        block.mlp.gelu = block.mlp.gelu if quick_gelu else nn.GELU()


def _build_edited(state, backbone):
    """An edited clip's own `build_model`; it rounds weights to float16, so the exact values are restored.

    Many of them load the weights of a checkpoint and leave other weights random without a word: raises UserError then.
    """
    wants_details = len(inspect.signature(clip.model.build_model).parameters) > 1
    model = clip.model.build_model(dict(state), *([dict(_NO_PROMPTS)] if wants_details else [])).float()
    if missing := sorted({name for name, _ in model.named_parameters()} - state.keys()):
        raise UserError(
            f"Expected all weights of this `clip` in {backbone}, but {len(missing)} are not there and would stay "
            f"random, the first is {missing[0]}: give a checkpoint that has them."
        )
    own = model.state_dict()
    for name in own.keys() & state.keys():
        own[name].copy_(state[name])
    return model


def text_shapes(state):
    """Return the text tower's arguments of `clip.model.CLIP`, but heads, read from shapes in a state dict.

    Raises KeyError and ValueError for weights of something else.
    """
    width, embed_dim = state["text_projection"].shape
    return {
        "embed_dim": embed_dim,
        "context_length": len(state["positional_embedding"]),
        "vocab_size": len(state["token_embedding.weight"]),
        "transformer_width": width,
        "transformer_layers": count_blocks(state, "transformer.resblocks"),
    }


def count_blocks(state, prefix):
    """Return how many parts below a prefix have weights."""
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})
