"""CLIP as a frozen float32 model, whoever trained it; it uses the `clip` that can be imported."""

import contextlib
import functools
import hashlib
from dataclasses import astuple

import clip
import clip.clip
import torch
from torch import nn

from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, file_state, write_atomically
from dspt_atlas.trainers.clip.architectures import openais_heads
from dspt_atlas.trainers.clip.layouts import openai_state
from dspt_atlas.trainers.clip.openai import set_heads_and_activation, with_weights
from dspt_atlas.trainers.clip.sources import find
from dspt_atlas.trainers.clip.towers import (  # noqa: F401 other people's learners import from here
    CONTEXT_LENGTH,
    Family,
    ImageTower,
    is_vit,
    start_and_end_token,
    tokenize,
)

REVISION = 1  # the version of the numbers that a backbone gives by this code; it goes up when they change

INPUT_SIZES = {"RN50x4": 288, "RN50x16": 384, "RN50x64": 448, "ViT-L/14@336px": 336}  # every other name: 224


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
    if isinstance(visual, ImageTower):
        return _with(digest, visual.facts)
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
    others = family.other_files(source) if isinstance(family := source.architecture, Family) else []
    return _weights_digest(source, tuple(others), *map(file_state, (source.path, *others)))


@functools.lru_cache
def _weights_digest(source, other_files, *times):
    """Digest files in the states of these times."""
    key = (
        str(source.path),
        *times,
        *map(str, other_files),
        *([source.layout, source.architecture] if source.architecture else []),
    )
    note = cache_dir() / "weights" / hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).hexdigest()
    with contextlib.suppress(OSError):
        if len(known := note.read_text(encoding="ascii", errors="replace")) == 64:
            return known
    if isinstance(family := source.architecture, Family):
        state, others = family.build(source).state_dict(), (type(family).__name__, *astuple(family))
        others += tuple((path.name, file_digest(path)) for path in other_files)
    else:
        state, others = openai_state(source)[0], family.not_openais() if family else ()
    digest = _with(_state_digest(_in_float32(state)), others)
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


def _build(source):
    if isinstance(source.architecture, Family):
        return source.architecture.build(source)
    state, shapes = openai_state(source)
    state = _in_float32(state)
    if shapes["context_length"] != CONTEXT_LENGTH:
        raise UserError(
            f"Expected a text tower with {CONTEXT_LENGTH} positions, but {source.name} has {shapes['context_length']}."
        )
    model = with_weights(state, shapes, source.name)
    if source.architecture is not None:
        set_heads_and_activation(model, source.architecture)
    return model
