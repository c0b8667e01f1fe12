"""CLIPs that are not of OpenAI's kind, computed by the modules of open_clip (with timm) and transformers."""

import contextlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip import tokenizers
from dspt_atlas.trainers.clip.architectures import of_open_clip, open_clip_config, published_architecture, side
from dspt_atlas.trainers.clip.checkpoints import optional_package, read_state_dict
from dspt_atlas.trainers.clip.layouts import recognised
from dspt_atlas.trainers.clip.openai import with_image_tower
from dspt_atlas.trainers.clip.towers import CONTEXT_LENGTH, Family, ImageTower, TextTower, TwoTowers

_NOT_COMPUTED = ("transformers_version", "_name_or_path", "architectures", "torch_dtype", "dtype")


def open_clip_architecture(name):
    """Return the Architecture or Family by open_clip's name; raises UserError for an unknown one."""
    return published_architecture(name) or kind_of_open_clip(open_clip_config(name), f"open_clip's {name}")


def kind_of_open_clip(config, source, folder=None):
    """Return the Architecture of an open_clip configuration, or the Family OpenClip if it is not of OpenAI's kind.

    folder: of a snapshot; its config.json describes a text tower of transformers. Raises UserError.
    """
    found = f"Expected a text tower with {CONTEXT_LENGTH} positions, but {source} has others."
    try:
        if (architecture := of_open_clip(config, source)).context_length == CONTEXT_LENGTH:
            return architecture
    except UserError as error:
        found = str(error)
    parts = [config.get(part) for part in ("vision_cfg", "text_cfg")]
    size = side(parts[0].get("image_size", 224)) if all(isinstance(part, dict) for part in parts) else None
    if type(size) is not int:
        raise UserError(found)
    optional_package("open_clip", "open-clip", f"{source}, which is not of OpenAI's kind")
    own = folder / "config.json" if folder and parts[1].get("hf_model_name") else None
    text = own.read_text(encoding="utf-8") if own and own.is_file() else ""
    return OpenClip(size, json.dumps(config, sort_keys=True), text)


@dataclass(frozen=True)
class OpenClip(Family):
    """A CLIP of open_clip. config: its `model_cfg` in JSON; text_config: the config.json of its text tower, if any."""

    config: str
    text_config: str = ""

    @property
    def quick_gelu(self):
        """Whether blocks of open_clip's own towers have QuickGELU."""
        return bool(json.loads(self.config).get("quick_gelu"))

    def other_files(self, source):
        """Return the files of a tokenizer of transformers."""
        has_own = json.loads(self.config)["text_cfg"].get("hf_tokenizer_name")
        return tokenizers.files_beside(source.path) if has_own else []

    def build(self, source):
        """Return the model; a text tower of OpenAI's kind becomes OpenAI's, for the shared-prefix encoder."""
        config = json.loads(self.config)
        text_place = source.path.parent if self.text_config else None
        with building(source):
            model = _open_clip_model(config, text_place)
        fill(model, _in_two_parts(model, read_state_dict(source.path)), source)
        visual = _image_tower(model.visual, config, self.image_resolution)
        if _has_openais_text(config):
            text = {**model.text.state_dict(), "logit_scale": model.logit_scale.detach().reshape(())}
            return with_image_tower(text, visual, model.text.heads, self.quick_gelu, source.name)
        tokenizer = tokenizers.of_open_clip(config["text_cfg"], source)
        return _checked(TwoTowers(visual, _text_tower(model.text, config, tokenizer), model.logit_scale), source)


def _open_clip_model(config, text_place):
    """Return open_clip's CustomTextCLIP or CoCa of a configuration, with random weights."""
    open_clip: Any = optional_package("open_clip", "open-clip", "this backbone")
    vision, text = ({**config[part], "output_tokens": False} for part in ("vision_cfg", "text_cfg"))
    vision["timm_model_pretrained"] = text["hf_model_pretrained"] = False
    if text_place:
        text["hf_model_name"] = str(text_place)
    if name := text.get("hf_model_name"):  # refuses a configuration that brings code of its own
        transformers: Any = optional_package("transformers", "open-clip", name)
        transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    rest = {key: value for key, value in config.items() if key not in ("custom_text", "vision_cfg", "text_cfg")}
    if "multimodal_cfg" in rest:
        return open_clip.coca_model.CoCa(vision_cfg=vision, text_cfg=text, **rest)
    return open_clip.model.CustomTextCLIP(vision_cfg=vision, text_cfg=text, **rest)


def _in_two_parts(model, state):
    """Return a state dict under the names of open_clip's CustomTextCLIP, from its other layouts."""
    open_clip: Any = optional_package("open_clip", "open-clip", "this backbone")
    state = open_clip.convert.convert_state_dict(model, state)  # MobileCLIP's own names
    if "positional_embedding" in state:
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    state = {key: value for key, value in state.items() if not key.endswith(".position_ids")}
    own = model.state_dict()
    for key in {"logit_scale", "logit_bias"} & state.keys() & own.keys():
        state[key] = state[key].reshape(own[key].shape)
    return state


def _image_tower(visual, config, size):
    """Return open_clip's image tower; learned tokens go through plain vision transformers, of its own and of timm."""
    vision = config["vision_cfg"]
    facts = (json.dumps(vision, sort_keys=True), bool(config.get("quick_gelu")))
    prompts, name = {}, f"open_clip's {type(visual).__name__}"
    if hasattr(visual, "trunk"):
        name = f"timm's {vision['timm_model_name']}"
        if type(visual.trunk).__name__ == "VisionTransformer":
            prompts = {"blocks": "trunk.blocks", "entry": "trunk.norm_pre", "width": visual.trunk.embed_dim}
    elif hasattr(visual, "transformer"):
        prompts = {"blocks": "transformer.resblocks", "entry": "ln_pre", "width": visual.conv1.weight.shape[0]}
    return ImageTower(visual, name, size, config["embed_dim"], facts, **prompts)


def _text_tower(text, config, tokenizer):
    """Return open_clip's text tower, its own or one of transformers."""
    if not (name := config["text_cfg"].get("hf_model_name")):
        kind = "CoCa's text tower" if "multimodal_cfg" in config else "open_clip's TextTransformer"
        return TextTower(text, kind, tokenizer, "token_embedding", "transformer.resblocks")
    table, modules = text.transformer.get_input_embeddings(), dict(text.named_modules())
    embedding = next(place for place, module in modules.items() if module is table)
    blocks = "transformer.encoder.layer" if "transformer.encoder.layer" in modules else ""
    masks = type(text.pooler).__name__ != "MaxPooler"  # the others read nothing of the pads
    return TextTower(text, f"transformers' {name}", tokenizer, embedding, blocks, sees_padding=not masks)


def _has_openais_text(config):
    """Return whether the text tower, whatever the image tower, is what OpenAI's class computes."""
    text = {key: value for key, value in config.items() if key != "vision_cfg"}
    try:
        return of_open_clip(text, "").context_length == CONTEXT_LENGTH
    except UserError:
        return False


def siglip_of(config, source):
    """Return the Family of a config.json of transformers' SiglipModel; raises UserError for what it does not say."""
    vision = config.get("vision_config")
    size = vision.get("image_size", 224) if isinstance(vision, dict) else None
    if type(size) is not int or vision.get("vision_use_head", True) is not True:
        raise UserError(
            f"Expected a vision_config with an image_size and SigLIP's pooling head in config.json of {source}."
        )
    computed = {key: value for key, value in config.items() if key not in _NOT_COMPUTED}
    return Siglip(size, json.dumps(computed, sort_keys=True))


@dataclass(frozen=True)
class Siglip(Family):
    """Transformers' SiglipModel: SigLIP, and SigLIP 2 of a fixed image size. config: its config.json."""

    config: str

    def other_files(self, source):
        """Return the files of the tokenizer."""
        return tokenizers.files_beside(source.path)

    def build(self, source):
        """Return the model, with the tokenizer beside its weights."""
        transformers: Any = optional_package("transformers", "hf", source.name)
        with building(source):
            model = transformers.SiglipModel(transformers.SiglipConfig(**json.loads(self.config)))
        state = read_state_dict(source.path)
        fill(model, {key: value for key, value in state.items() if not key.endswith(".position_ids")}, source)
        width, layers = model.config.vision_config.hidden_size, "model.encoder.layers"
        visual = ImageTower(
            _Pooled(model.vision_model),
            "transformers' SiglipVisionModel",
            self.image_resolution,
            width,
            (self.config,),
            blocks=layers,
            entry=f"{layers}.0",
            width=width,
        )
        tokenizer = tokenizers.of_snapshot(source, model.config.text_config.max_position_embeddings)
        name, table = "transformers' SiglipTextModel", "model.embeddings.token_embedding"
        text = TextTower(_Pooled(model.text_model), name, tokenizer, table, layers)
        return _checked(TwoTowers(visual, text, model.logit_scale), source)


class _Pooled(nn.Module):
    """What a model of transformers gives as `pooler_output`."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(inputs).pooler_output


@contextlib.contextmanager
def building(source):
    """Let a library build a model: without effect on random numbers; raises UserError for what it cannot build."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except UserError:
        raise
    except Exception as error:  # libraries raise many types for configurations that they do not know
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0][:160]
        raise UserError(
            f"Expected a configuration that its library can build, but that of {source.name} is refused ({reason}): "
            "correct it, choose another backbone, or put the configuration of its text tower beside the weights."
        ) from error


def fill(model, state, source):
    """Load weights into a library's model; raises UserError for other weights than it has."""
    own = model.state_dict()
    problems = [f"no {key}" for key in own if key not in state and key != "logit_bias"]
    problems += [f"left over {key}" for key in state if key not in own]
    problems += [
        f"{key} of shape {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if problems:
        layout = recognised(state)
        shown = ", ".join(problems[:3]) + (f" and {len(problems) - 3} others" if len(problems) > 3 else "")
        raise UserError(
            f"Expected the weights that the configuration of {source.name} says, but {source.path} "
            f"{f'({layout}) ' if layout else ''}has {shown}: name the architecture that it has."
        )
    model.load_state_dict(state, strict=False)
    model.float().eval()


def _checked(model, source):
    """Return a model whose tokenizer fits; raises UserError for one with more tokens than the text tower knows."""
    tokens, rows = model.text.tokenizer.vocabulary, len(model.token_embedding.weight)
    if tokens > rows:
        raise UserError(
            f"Expected the tokenizer of {source.name} to have at most {rows} tokens, as its weights, but it has "
            f"{tokens}: put the files of its own tokenizer into {source.path.parent}."
        )
    return model
