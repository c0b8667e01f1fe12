"""CLIP as a frozen float32 model, whoever trained it; it uses the `clip` that can be imported."""

import contextlib
import functools
import hashlib
import inspect

import clip
import clip.clip
import clip.model
import torch
from torch import nn

from dspt_atlas.datasets.prompts import tokenize  # noqa: F401 learners, also other people's, import it from here
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, file_state, write_atomically
from dspt_atlas.trainers.clip.architectures import openais_heads
from dspt_atlas.trainers.clip.layouts import openai_state
from dspt_atlas.trainers.clip.sources import find

CONTEXT_LENGTH = 77
REVISION = 1  # the version of the numbers that a backbone gives by this code; it goes up when they change

INPUT_SIZES = {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336px": 336}  # every other name: 224
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


def load_clip(backbone, device: str | torch.device = "cpu", clip_dir=None):
    """Load CLIP as a float32 model in eval mode with every parameter frozen.

    `backbone`: one of OpenAI's names, the path of a TorchScript archive or state dict in OpenAI's layout, or a name of
    `sources.find` for weights of open_clip and transformers. One of OpenAI's names is downloaded once, with its
    checksum verified, into `clip_dir`, or into the folder in the environment variable DSPT_ATLAS_CLIP_DIR, or into
    ~/.cache/clip.
    Raises UserError in one sentence for an unknown name, a missing network, or a file that is not such a checkpoint.
    """
    model = _build(find(backbone, clip_dir))
    return model.to(device).float().eval().requires_grad_(False)


def backbone_input_size(backbone):
    """Side in pixels of the square images that a backbone takes, without building the model."""
    if str(backbone) in clip.available_models():
        return INPUT_SIZES.get(str(backbone), 224)
    source = find(backbone)
    return source.architecture.image_resolution if source.architecture else _input_size(source, file_state(source.path))


@functools.lru_cache
def _input_size(source, state):
    """Read the size from a file in a given state."""
    return openai_state(source)[1]["image_resolution"]


def fingerprint(clip_model):
    """sha256 (hex) over names, types, shapes and values of the image tower's weights, and what else it computes with.

    The weights alone if its heads and its activation are those of OpenAI's models.
    """
    visual, digest = clip_model.visual, _state_digest(clip_model.visual.state_dict())
    block = visual.transformer.resblocks[0] if is_vit(clip_model) else None
    attention = block.attn if block else visual.attnpool
    width = len(visual.ln_pre.weight) if block else attention.positional_embedding.shape[1]
    quick = block is None or not isinstance(block.mlp.gelu, nn.GELU)
    others = () if quick and attention.num_heads == openais_heads(width) else (quick, attention.num_heads)
    return _with(digest, others)


def weights_digest(backbone, clip_dir=None):
    """sha256 (hex) over names, shapes and float32 values of all weights of a backbone in OpenAI's layout, in any file.

    Heads and activation count too where they are not those of OpenAI's models. The cache folder remembers the digest
    for a file with this path, size and times. Raises UserError as `load_clip` does.
    """
    source = find(backbone, clip_dir)
    source = source._replace(path=source.path.absolute())
    return _weights_digest(source, file_state(source.path))


@functools.lru_cache
def _weights_digest(source, times):
    """Digest a file in the state of these times."""
    key = (str(source.path), times, *([source.layout, source.architecture] if source.architecture else []))
    note = cache_dir() / "weights" / hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).hexdigest()
    with contextlib.suppress(OSError):
        if len(known := note.read_text(encoding="ascii", errors="replace")) == 64:
            return known
    state = _in_float32(openai_state(source)[0])
    digest = _with(_state_digest(state), source.architecture.not_openais() if source.architecture else ())
    with contextlib.suppress(OSError):  # without a cache it is computed again next time
        write_atomically(note, digest)
    return digest


def _in_float32(state):
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _with(digest, others):
    """Return a digest of a digest and other facts, or the digest itself without any."""
    return hashlib.sha256(repr((digest, *others)).encode()).hexdigest() if others else digest


def _state_digest(state):
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def start_and_end_token():
    encoder = clip.clip._tokenizer.encoder
    return encoder["<|startoftext|>"], encoder["<|endoftext|>"]


def _build(source):
    state, shapes = openai_state(source)
    state = _in_float32(state)
    if shapes["context_length"] != CONTEXT_LENGTH:
        raise UserError(
            f"Expected a text tower with {CONTEXT_LENGTH} positions, but {source.name} has {shapes['context_length']}."
        )
    model = _with_weights(state, shapes, source.name)
    if source.architecture is not None:
        _set_heads_and_activation(model, source.architecture)
    return model


def _with_weights(state, shapes, backbone):
    """Return the model of the `clip` that can be imported with these weights, with OpenAI's heads and activation."""
    try:
        if tuple(inspect.signature(clip.model.CLIP.__init__).parameters) != _OPENAI_ARGUMENTS:
            return _build_edited(state, backbone)
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced immediately
            model = clip.model.CLIP(**shapes, transformer_heads=openais_heads(shapes["transformer_width"]))
        model.load_state_dict(state, assign=True)
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:  # torch asserts that heads divide a width
        lines = [line.strip() for line in str(error).split("\n")]
        problems = "; ".join(lines[1:3] or lines)[:300]
        raise UserError(
            f"Expected a CLIP checkpoint in OpenAI's layout, but the weights in {backbone} do not fit together: "
            f"{problems}"
        ) from error
    mask = model.build_attention_mask()
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    return model


def _set_heads_and_activation(model, architecture):
    """Give a model the heads and the activation of an architecture; its weights do not depend on them."""
    towers = [(block, architecture.transformer_heads) for block in model.transformer.resblocks]
    if is_vit(model):
        towers += [(block, architecture.vision_heads) for block in model.visual.transformer.resblocks]
    else:
        model.visual.attnpool.num_heads = architecture.vision_heads
    for block, heads in towers:
        block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
        if not architecture.quick_gelu:
            block.mlp.gelu = nn.GELU()


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


def text_width(clip_model):
    return clip_model.ln_final.weight.shape[0]


def is_vit(clip_model):
    return isinstance(getattr(clip_model.visual, "transformer", None), nn.Module)


def require_vit(clip_model):
    """Raise UserError for an image tower that takes no prompts."""
    if not is_vit(clip_model):
        raise UserError(
            "Expected a vision transformer (ViT-B/32, ViT-B/16, ViT-L/14), because prompts go into the image tower, "
            "got a ResNet: choose another backbone, or CoOp or CoCoOp."
        )
