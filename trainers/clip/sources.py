"""What a backbone's name stands for: OpenAI's, a file, open_clip's or a snapshot of transformers."""

import json
from pathlib import Path
from typing import NamedTuple

import clip

from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.trainers.clip.architectures import (
    Architecture,
    of_open_clip,
    of_transformers,
    open_clip_architecture,
)
from dspt_atlas.trainers.clip.checkpoints import checkpoint_path, optional_package

OPEN_CLIP_CONFIG = "open_clip_config.json"
_WEIGHTS = {
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "hf": ("model.safetensors", "pytorch_model.bin"),
}


class Source(NamedTuple):
    """A backbone as a person names it, and the file of its weights.

    layout: "openai", "open_clip" or "hf" if the name says it, or "". architecture: from the configuration that comes
    with the weights, or that the name says; None without one.
    """

    name: str
    path: Path
    layout: str = ""
    architecture: Architecture | None = None


def find(backbone, clip_dir=None):
    """Return the source of a backbone; downloads OpenAI's and open_clip's first; raises UserError.

    backbone: one of OpenAI's names, the path of a checkpoint, `openai:FILE`, `open_clip:ARCH=FILE`,
    `open_clip:ARCH/TAG`, `open_clip:FOLDER` or `hf:FOLDER`.
    """
    name = str(backbone)
    layout, _, place = name.partition(":")
    if layout == "openai":
        return Source(name, Path(checkpoint_path(place)), layout)
    if layout == "hf":
        config = _read_config(expand_home(place), "config.json", "hf:FOLDER")
        return Source(name, _weights_in(place, layout), layout, of_transformers(config, name))
    if layout == "open_clip":
        return _of_open_clip(name, place)
    layout = "openai" if name in clip.available_models() else ""
    return Source(name, Path(checkpoint_path(name, clip_dir)), layout)


def _of_open_clip(name, place):
    arch, has_file, file = place.partition("=")
    if has_file:
        architecture = open_clip_architecture(arch)
        return Source(name, Path(checkpoint_path(file)), "open_clip", architecture)
    if expand_home(place).is_dir():
        config = _read_config(expand_home(place), OPEN_CLIP_CONFIG, "open_clip:FOLDER").get("model_cfg")
        architecture = of_open_clip(config if isinstance(config, dict) else {}, name)
        return Source(name, _weights_in(place, "open_clip"), "open_clip", architecture)
    arch, _, tag = place.partition("/")
    if not tag or "/" in tag:
        raise UserError(
            f"Expected open_clip:ARCH=FILE, open_clip:ARCH/TAG, or open_clip:FOLDER with {OPEN_CLIP_CONFIG}, got "
            f"'{name}'."
        )
    architecture = open_clip_architecture(arch)
    return Source(name, _pretrained(arch, tag, architecture), "open_clip", architecture)


def _pretrained(arch, tag, architecture):
    """Return the file of open_clip's weights of a tag, which the package downloads; raises UserError."""
    open_clip = optional_package("open_clip", "open_clip", f"open_clip:{arch}/{tag} (not for open_clip:{arch}=FILE)")
    if not (config := open_clip.get_pretrained_cfg(arch, tag)):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
        raise UserError(f"Expected a tag of open_clip's {arch} ({tags}), got '{tag}'.")
    if bool(config.get("quick_gelu")) != architecture.quick_gelu:
        other = arch.removesuffix("-quickgelu") if architecture.quick_gelu else f"{arch}-quickgelu"
        raise UserError(
            f"Expected the activation that {tag} was trained with, but {arch} has the other one: use "
            f"open_clip:{other}/{tag}."
        )
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # the package, its hub and the network raise many types
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        raise UserError(
            f"Could not download open_clip:{arch}/{tag} ({reason}): fetch its file on a machine with network access "
            f"and name it as open_clip:{arch}=FILE."
        ) from error


def _read_config(folder, file, form):
    path = folder / file
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise UserError(f"Expected {form} with a {file} in it, but {path} cannot be read ({reason}).") from error
    if not isinstance(config, dict):
        raise UserError(f"Expected keys and values in {path}, got {type(config).__name__}.")
    return config


def _weights_in(place, layout):
    folder = expand_home(place)
    if (path := next((folder / name for name in _WEIGHTS[layout] if (folder / name).is_file()), None)) is None:
        raise UserError(f"Expected weights in the folder {folder}, but it has none of {', '.join(_WEIGHTS[layout])}.")
    return path
