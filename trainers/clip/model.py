"""CLIP as a frozen float32 model, from OpenAI's names or a checkpoint file; it uses the `clip` that can be imported."""

import contextlib
import functools
import hashlib
import inspect
import math
from pathlib import Path

import clip
import clip.clip
import clip.model
import torch
from torch import nn

from dspt_atlas.datasets.prompts import tokenize  # noqa: F401 learners, also other people's, import it from here
from dspt_atlas.errors import UserError
from dspt_atlas.paths import cache_dir, file_state, write_atomically
from dspt_atlas.trainers.clip.checkpoints import checkpoint_path, read_state_dict

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
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

    `backbone`: one of OpenAI's names, or the path of a TorchScript archive or state dict in OpenAI's layout. A name is
    downloaded once, with its checksum verified, into `clip_dir`, or into the folder in the environment variable
    DSPT_ATLAS_CLIP_DIR, or into ~/.cache/clip.
    Raises UserError in one sentence for an unknown name, a missing network, or a file that is not such a checkpoint.
    """
    model = _build(read_state_dict(checkpoint_path(backbone, clip_dir)), backbone)
    return model.to(device).float().eval().requires_grad_(False)


def backbone_input_size(backbone):
    """Side in pixels of the square images that a backbone takes, without building the model."""
    if str(backbone) in clip.available_models():
        return INPUT_SIZES.get(str(backbone), 224)
    path = Path(checkpoint_path(backbone, None))
    return _input_size(path, file_state(path), str(backbone))


@functools.lru_cache
def _input_size(path, state, backbone):
    """Read the size from a file in a given state."""
    return _shapes(read_state_dict(path), backbone)["image_resolution"]


def fingerprint(clip_model):
    """sha256 (hex) over names, types, shapes and values of the image tower's weights."""
    return _state_digest(clip_model.visual.state_dict())


def weights_digest(backbone, clip_dir=None):
    """sha256 (hex) over names, shapes and float32 values of all weights of a backbone, in any file.

    The cache folder remembers it for a file with this path, size and times. Raises UserError as `load_clip` does.
    """
    path = Path(checkpoint_path(backbone, clip_dir)).absolute()
    return _weights_digest(path, file_state(path))


@functools.lru_cache
def _weights_digest(path, times):
    """Digest a file in the state of these times."""
    name = hashlib.sha256(repr((str(path), times)).encode("utf-8", "surrogateescape")).hexdigest()
    note = cache_dir() / "weights" / name
    with contextlib.suppress(OSError):
        if len(known := note.read_text(encoding="ascii", errors="replace")) == 64:
            return known
    state = {key: value.float() if value.is_floating_point() else value for key, value in read_state_dict(path).items()}
    digest = _state_digest(state)
    with contextlib.suppress(OSError):  # without a cache it is computed again next time
        write_atomically(note, digest)
    return digest


def _state_digest(state):
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def start_and_end_token():
    encoder = clip.clip._tokenizer.encoder
    return encoder["<|startoftext|>"], encoder["<|endoftext|>"]


def _shapes(state, backbone):
    """The arguments of OpenAI's `clip.model.CLIP`, read from the shapes in a state dict."""
    try:
        if "visual.proj" in state:
            width, _, _, patch = state["visual.conv1.weight"].shape
            grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
            vision = {
                "vision_layers": _count(state, "visual.transformer.resblocks"),
                "vision_width": width,
                "vision_patch_size": patch,
                "image_resolution": grid * patch,
            }
        else:
            grid = math.isqrt(len(state["visual.attnpool.positional_embedding"]) - 1)
            vision = {
                "vision_layers": tuple(_count(state, f"visual.layer{stage}") for stage in range(1, 5)),
                "vision_width": len(state["visual.layer1.0.conv1.weight"]),
                "vision_patch_size": None,
                "image_resolution": 32 * grid,
            }
        text_width, embed_dim = state["text_projection"].shape
        return {
            "embed_dim": embed_dim,
            "context_length": len(state["positional_embedding"]),
            "vocab_size": len(state["token_embedding.weight"]),
            "transformer_width": text_width,
            "transformer_heads": max(1, text_width // 64),
            "transformer_layers": _count(state, "transformer.resblocks"),
            **vision,
        }
    except (KeyError, ValueError) as error:
        raise UserError(
            f"Expected a CLIP checkpoint in OpenAI's layout (RN50, ViT-B/16 and so on), but {backbone} has no "
            f"usable {error}: it has another architecture."
        ) from error


def _count(state, prefix):
    return len({name[len(prefix) + 1 :].split(".")[0] for name in state if name.startswith(prefix + ".")})


def _build(state, backbone):
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    shapes = _shapes(state, backbone)
    if shapes["context_length"] != CONTEXT_LENGTH:
        raise UserError(
            f"Expected a text tower with {CONTEXT_LENGTH} positions, but {backbone} has {shapes['context_length']}."
        )
    try:
        if tuple(inspect.signature(clip.model.CLIP.__init__).parameters) != _OPENAI_ARGUMENTS:
            return _build_edited(state, backbone)
        with torch.device("meta"):  # no time and no random numbers for weights that are replaced immediately
            model = clip.model.CLIP(**shapes)
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).split("\n")[1:3])[:300]
        raise UserError(
            f"Expected a CLIP checkpoint in OpenAI's layout, but the weights in {backbone} do not fit together: "
            f"{problems}"
        ) from error
    mask = model.build_attention_mask()
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    return model


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
