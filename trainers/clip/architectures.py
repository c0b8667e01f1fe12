"""What configurations of open_clip and transformers say of a CLIP of OpenAI's kind, and its files alone do not."""

from typing import NamedTuple

from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.checkpoints import optional_package

OPENAIS_HEAD_WIDTH = 64
VOCABULARY = 49408  # tokens of OpenAI's tokenizer


class Architecture(NamedTuple):
    """The arguments of OpenAI's `clip.model.CLIP`, and what it has fixed: attention heads and the activation.

    image_resolution: in pixels, of a side. vision_layers: blocks of a ViT, or of a ResNet's four stages.
    vision_patch_size: None for a ResNet. quick_gelu: whether blocks have x·sigmoid(1.702x), or the exact GELU.
    """

    embed_dim: int
    image_resolution: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    vision_patch_size: int | None
    vision_heads: int
    context_length: int
    vocab_size: int
    transformer_width: int
    transformer_heads: int
    transformer_layers: int
    quick_gelu: bool

    def shapes(self):
        """Return the part that the shapes of weights say too."""
        hidden = ("vision_heads", "transformer_heads", "quick_gelu")
        return {key: value for key, value in self._asdict().items() if key not in hidden}

    @property
    def inner_width(self):
        """Width of what the image tower's attention works on."""
        return self.vision_width if self.vision_patch_size else 32 * self.vision_width

    def not_openais(self):
        """Return what differs from OpenAI's models and is not in the shapes of weights; () for nothing."""
        found = (self.quick_gelu, self.vision_heads, self.transformer_heads)
        openais = (True, openais_heads(self.inner_width), openais_heads(self.transformer_width))
        return () if found == openais else found


def openais_heads(width):
    """Return the number of attention heads that OpenAI's models have at a width."""
    return max(1, width // OPENAIS_HEAD_WIDTH)


# Embedding; image tower: size, layers, width, patch, width of a head; text tower: width, heads, layers.
_PUBLISHED = {
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 64, 512, 8, 12),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 64, 512, 8, 12),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 64, 640, 10, 12),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 64, 768, 12, 12),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 64, 1024, 16, 12),
    "ViT-B-32": (512, 224, 12, 768, 32, 64, 512, 8, 12),
    "ViT-B-32-256": (512, 256, 12, 768, 32, 64, 512, 8, 12),
    "ViT-B-16": (512, 224, 12, 768, 16, 64, 512, 8, 12),
    "ViT-B-16-plus-240": (640, 240, 12, 896, 16, 64, 640, 10, 12),
    "ViT-L-14": (768, 224, 24, 1024, 14, 64, 768, 12, 12),
    "ViT-L-14-336": (768, 336, 24, 1024, 14, 64, 768, 12, 12),
    "ViT-H-14": (1024, 224, 32, 1280, 14, 80, 1024, 16, 24),
    "ViT-H-14-378": (1024, 378, 32, 1280, 14, 80, 1024, 16, 24),
}
_QUICK = "-quickgelu"
_DEFAULTS = {  # open_clip's, where a configuration does not have a key
    "vision_cfg": {
        "image_size": 224,
        "layers": 12,
        "width": 768,
        "patch_size": 16,
        "head_width": OPENAIS_HEAD_WIDTH,
        "mlp_ratio": 4.0,
        "pool_type": "tok",
        "pos_embed_type": "learnable",
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": VOCABULARY,
        "width": 512,
        "heads": 8,
        "layers": 12,
        "mlp_ratio": 4.0,
        "pool_type": "argmax",
        "proj_type": "linear",
    },
}
_FIXED = ("mlp_ratio", "pool_type", "pos_embed_type", "proj_type")  # OpenAI's class has these values and no others
_TRAININGS = ("patch_dropout", "pad_id", "eos_id", "init_logit_scale", "custom_text")  # without effect on features


def published_architecture(name):
    """Return one of the published architectures by open_clip's name, or None."""
    known = _PUBLISHED.get(name.removesuffix(_QUICK))
    return _architecture(*known, quick_gelu=name.endswith(_QUICK)) if known else None


def open_clip_config(name):
    """Return the configuration of an architecture by open_clip's name, from the package; raises UserError."""
    known = f"{', '.join(_PUBLISHED)}, each also with {_QUICK}"
    open_clip = optional_package("open_clip", "open-clip", f"the architecture '{name}' (known without it: {known})")
    config = open_clip.get_model_config(name)
    if config is None:
        raise UserError(
            f"Expected an architecture of open_clip, got '{name}', which open_clip {open_clip.__version__} does not "
            "know: `open_clip.list_models()` lists them."
        )
    return config


def published_name(shapes):
    """Return open_clip's name of a published architecture with these shapes of weights, or None."""
    return next((name for name, known in _PUBLISHED.items() if _architecture(*known).shapes() == shapes), None)


def _architecture(
    embed,
    size,
    layers,
    width,
    patch,
    head,
    text_width,
    heads,
    text_layers,
    context=77,
    words=VOCABULARY,
    quick_gelu=False,
):
    inner = width if patch else 32 * width  # a ResNet pools by attention over its last stage
    return Architecture(
        embed, size, layers, width, patch, inner // head, context, words, text_width, heads, text_layers, quick_gelu
    )


def of_open_clip(config, source):
    """Return the architecture that an open_clip configuration describes; `source` is where it comes from.

    Raises UserError for everything that OpenAI's `clip.model.CLIP` does not compute.
    """
    towers = {}
    for part, defaults in _DEFAULTS.items():
        given = config.get(part)
        given = given if isinstance(given, dict) else {}
        towers[part] = {**defaults, **given}
        for key, value in given.items():
            if value != defaults[key] if key in _FIXED else key not in (*defaults, *_TRAININGS) and value:
                raise _unsupported(source, f"{part}.{key} {value!r}")
    for key, value in config.items():
        if key not in (*_DEFAULTS, "embed_dim", "quick_gelu", *_TRAININGS) and value:
            raise _unsupported(source, f"{key} {value!r}")
    image, text = towers["vision_cfg"], towers["text_cfg"]
    layers, is_resnet = image["layers"], isinstance(image["layers"], (list, tuple))
    sizes = [config.get("embed_dim"), side(image["image_size"]), *(layers if is_resnet else [layers]), image["width"]]
    sizes += [image["head_width"], *(text[key] for key in ("width", "heads", "layers", "context_length", "vocab_size"))]
    patch = None if is_resnet else side(image["patch_size"])
    _check_sizes([*sizes, *([] if is_resnet else [patch])], source)
    architecture = _architecture(
        config["embed_dim"],
        side(image["image_size"]),
        tuple(layers) if is_resnet else layers,
        image["width"],
        patch,
        image["head_width"],
        *(text[key] for key in ("width", "heads", "layers", "context_length", "vocab_size")),
        quick_gelu=bool(config.get("quick_gelu")),
    )
    return _checked(architecture, source)


# Transformers' own defaults: its configurations may leave them out.
_SHARED = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
_TEXT = {
    **_SHARED,
    "hidden_size": 512,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": VOCABULARY,
    "eos_token_id": 49407,
}
_IMAGE = {**_SHARED, "hidden_size": 768, "num_attention_heads": 12, "image_size": 224, "patch_size": 32}
_ACTIVATIONS = {"quick_gelu": True, "gelu": False}
_END_TOKENS = (2, 49407)  # with 2, transformers reads the largest token, as OpenAI does; 49407 is the largest


def of_transformers(config, source):
    """Return the architecture that the config.json of transformers' CLIPModel describes; raises UserError otherwise."""
    if config.get("model_type") != "clip":
        raise _unsupported(source, f"model_type {config.get('model_type')!r}", "transformers' CLIPModel or SiglipModel")
    # Old configurations have `text_config_dict` too, and in transformers it is the one that counts.
    text, image = (
        {**defaults, **dict(config.get(f"{part}_config_dict") or config.get(f"{part}_config") or {})}
        for part, defaults in (("text", _TEXT), ("vision", _IMAGE))
    )
    if str(text["hidden_act"]) not in _ACTIVATIONS or image["hidden_act"] != text["hidden_act"]:
        raise _unsupported(source, f"hidden_act {text['hidden_act']!r} in text and {image['hidden_act']!r} in images")
    for part, tower in (("text_config", text), ("vision_config", image)):
        if tower["layer_norm_eps"] != 1e-5:
            raise _unsupported(source, f"{part}.layer_norm_eps {tower['layer_norm_eps']!r}")
    if text["eos_token_id"] not in _END_TOKENS:
        raise _unsupported(source, f"text_config.eos_token_id {text['eos_token_id']!r}")
    heads = image["num_attention_heads"]
    values = (
        config.get("projection_dim", 512),
        side(image["image_size"]),
        image["num_hidden_layers"],
        image["hidden_size"],
        side(image["patch_size"]),
        heads,
        *(text[key] for key in ("max_position_embeddings", "vocab_size", "hidden_size", "num_attention_heads")),
        text["num_hidden_layers"],
    )
    _check_sizes(values, source)
    return _checked(Architecture._make([*values, _ACTIVATIONS[text["hidden_act"]]]), source)


def side(size):
    """Return the side of a square that is given as [side, side] or as a number; other values do not change."""
    return size[0] if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1] else size


def _check_sizes(sizes, source):
    if wrong := [size for size in sizes if type(size) is not int or size < 1]:
        raise _unsupported(source, f"a size of {wrong[0]!r}")


def _checked(architecture, source):
    """Return an architecture; raises UserError for heads and widths that cannot be, and for another tokenizer."""
    text = (architecture.transformer_width, architecture.transformer_heads)
    for width, heads in ((architecture.inner_width, architecture.vision_heads), text):
        if heads < 1 or width % heads or width % openais_heads(width) or width < OPENAIS_HEAD_WIDTH:
            raise _unsupported(source, f"{heads} attention heads at a width of {width}")
    if architecture.vocab_size != VOCABULARY:
        raise _unsupported(source, f"a vocabulary of {architecture.vocab_size} tokens in place of {VOCABULARY}")
    return architecture


def _unsupported(source, found, expected="a CLIP of OpenAI's kind (ViT or ModifiedResNet, causal text tower)"):
    return UserError(
        f"Expected {expected}, but {source} has {found}, which nothing here computes: choose another backbone."
    )
