"""Weights of other libraries in the layout of OpenAI's `clip.model.CLIP`; what is something else is refused by name."""

import math

import torch

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.architectures import published_architecture, published_name
from dspt_atlas.trainers.clip.checkpoints import OPEN_CLIP_CONFIG, is_torchscript, read_state_dict
from dspt_atlas.trainers.clip.openai import count_blocks, text_shapes

MARKS = ("input_resolution", "context_length", "vocab_size")  # OpenAI's archives have them beside the weights
_CLIP_MODEL, _TWO_PARTS = "transformers' CLIPModel", "open_clip's CustomTextCLIP"
_SIGLIP = "transformers' SiglipModel"
_LAYOUTS = {  # the first one counts of whose beginnings a key has one
    "an image tower of timm in open_clip (SigLIP, EVA02, MobileCLIP, ConvNeXt)": ("visual.trunk.",),
    "open_clip's CoCa": ("text_decoder.", "text.cls_emb", "cls_emb"),
    _SIGLIP: ("vision_model.head.",),
    "a model of SigLIP's kind, with a bias of the logits": ("logit_bias",),
    "open_clip's with a text tower of transformers (BiomedCLIP)": ("text.transformer.e", "text.proj."),
    _CLIP_MODEL: ("vision_model.", "text_model."),
    _TWO_PARTS: ("text.",),
}
_NAMES = {  # transformers' to OpenAI's
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    ".self_attn.": ".attn.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}


def openai_state(source):
    """Return a backbone's weights in OpenAI's layout, and the arguments of `clip.model.CLIP` that their shapes give.

    Raises UserError for another layout than the one asked for, for shapes that the configuration does not have, and for
    weights that OpenAI's clip and open_clip share, which do not say whose activation they were trained with.
    """
    state = read_state_dict(source.path)
    found = recognised(state)
    if found == _CLIP_MODEL and source.layout == "hf":
        state = _of_transformers(state)
    elif found == _TWO_PARTS and source.layout == "open_clip":
        state = {key.removeprefix("text."): value for key, value in state.items()}
    elif found or source.layout == "hf":
        expected = _CLIP_MODEL if source.layout == "hf" else "weights in the layout of OpenAI's clip"
        raise UserError(
            f"Expected {expected}, but {source.path} is {found or 'in another layout'}: {_advice(found, source.path)}."
        )
    is_marked = any(key in state for key in MARKS)
    state = {key: value for key, value in state.items() if key not in MARKS}
    shapes = shapes_of(state, source.name)
    if source.architecture is not None:
        _check_shapes(shapes, source)
    elif not is_marked and not is_torchscript(source.path):
        _check_is_openais(shapes, source)
    return state, shapes


def recognised(state):
    """Return in words whose layout the names of weights have, None for OpenAI's and unknown ones."""
    return next((name for name, starts in _LAYOUTS.items() if any(key.startswith(starts) for key in state)), None)


def _advice(found, path):
    return {
        _SIGLIP: f"give the folder of its snapshot, as hf:{path.parent}",
        _CLIP_MODEL: f"give the folder of its snapshot, as hf:{path.parent}, because config.json has its activation",
        _TWO_PARTS: f"name its architecture, as open_clip:ARCH={path}",
        None: "name it as open_clip:ARCH=FILE or openai:FILE, if it is one of these",
    }.get(found, f"name its own architecture, as open_clip:ARCH={path}, or give the folder of its snapshot")


def _of_transformers(state):
    """Return the weights of transformers' CLIPModel under OpenAI's names; the values do not change."""
    ours, parts = {}, {}
    for key, value in state.items():
        name = key
        for old, new in _NAMES.items():
            name = name.replace(old, new)
        block, _, part = name.rpartition(".attn.")
        if key in _TRANSPOSED:
            ours[_TRANSPOSED[key]] = value.t().contiguous()
        elif block and part[1:].startswith("_proj."):  # q_proj.weight, k_proj.bias and so on
            parts.setdefault(f"{block}.attn.in_proj_{part[7:]}", {})[part[0]] = value
        elif not name.endswith(".position_ids"):  # the numbers from 0, which older versions save
            ours[name] = value
    joined = {name: [found[part] for part in "qkv" if part in found] for name, found in parts.items()}
    return {**ours, **{name: torch.cat(found) for name, found in joined.items()}}


def _check_shapes(shapes, source):
    expected = source.architecture.shapes()
    if wrong := [f"{key} {shapes[key]} instead of {size}" for key, size in expected.items() if shapes[key] != size]:
        raise UserError(
            f"Expected the shapes that the configuration of {source.name} says, but the weights in {source.path} have "
            f"{', '.join(wrong)}: name the architecture that they have."
        )


def _check_is_openais(shapes, source):
    """Refuse weights of which OpenAI's clip and open_clip have the same names and shapes, unless a person says whose.

    Files of shapes that were never published by others are one's own, made by OpenAI's class.
    """
    name = published_name(shapes)
    if source.layout == "openai":
        architecture = published_architecture(f"{name}-quickgelu")
        if architecture and (found := architecture.not_openais()):
            raise UserError(
                f"Expected OpenAI's weights, but those in {source.path} have the shapes of open_clip's {name}, whose "
                f"image tower has {found[1]} heads: name them open_clip:{name}={source.path}."
            )
        return
    if name or source.path.suffix == ".safetensors" or (source.path.parent / OPEN_CLIP_CONFIG).is_file():
        arch = name or "ARCH"
        raise UserError(
            f"Expected to know the activation of {source.path}, but weights in the layout that OpenAI's clip and "
            f"open_clip's {arch} share do not say it: name them open_clip:{arch}={source.path} if they were trained "
            f"with GELU, open_clip:{arch}-quickgelu={source.path} with QuickGELU, or openai:{source.path} if they are "
            "OpenAI's."
        )


def shapes_of(state, name):
    """Return the arguments of OpenAI's `clip.model.CLIP`, read from the shapes in a state dict; raises UserError."""
    try:
        if "visual.proj" in state:
            width, _, _, patch = state["visual.conv1.weight"].shape
            grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
            vision = {
                "vision_layers": count_blocks(state, "visual.transformer.resblocks"),
                "vision_width": width,
                "vision_patch_size": patch,
                "image_resolution": grid * patch,
            }
        else:
            grid = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
            vision = {
                "vision_layers": tuple(count_blocks(state, f"visual.layer{stage}") for stage in range(1, 5)),
                "vision_width": len(state["visual.layer1.0.conv1.weight"]),
                "vision_patch_size": None,
                "image_resolution": 32 * grid,
            }
        return {**text_shapes(state), **vision}
    except (KeyError, ValueError) as error:
        raise UserError(
            f"Expected a CLIP checkpoint in OpenAI's layout (RN50, ViT-B/16 and so on), but {name} has no "
            f"usable {error}: it has another architecture."
        ) from error
