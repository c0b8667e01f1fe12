"""What a backbone's name stands for: OpenAI's, a file, open_clip's or a snapshot of transformers."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import clip

from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.trainers.clip import photos, photos_minilm
from dspt_atlas.trainers.clip.architectures import Architecture, of_transformers
from dspt_atlas.trainers.clip.checkpoints import OPEN_CLIP_CONFIG, checkpoint_path, optional_package
from dspt_atlas.trainers.clip.libraries import kind_of_open_clip, open_clip_architecture, siglip_of
from dspt_atlas.trainers.clip.towers import Family

PROCESSOR = "preprocessor_config.json"
_OF_PILLOW = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers, which transformers saves
_WEIGHTS = {
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "hf": ("model.safetensors", "pytorch_model.bin"),
}


class Preprocessing(NamedTuple):
    """How a backbone's images were made in its training; the defaults are OpenAI's.

    interpolation: a value of INPUT.INTERPOLATION, or the name of another one; "" if it is not said.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = ""
    is_squeezed: bool = False  # into a square, not cropped to one

    def pixels(self):
        """Return the values of INPUT.PIXEL_MEAN and INPUT.PIXEL_STD by their last names."""
        return {"PIXEL_MEAN": list(self.mean), "PIXEL_STD": list(self.std)}


_OF_PHOTOS = {
    photos.NAME: (photos.text_file, photos.PhotoEN),
    photos_minilm.NAME: (photos_minilm.encoder_file, photos_minilm.PhotoENMiniLM),
}
_EFFICIENTNET_LITE = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "bicubic")  # as its authors scale pixels
_SIGLIP = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", is_squeezed=True)


class Source(NamedTuple):
    """A backbone as a person names it, and the file of its weights.

    layout: "openai", "open_clip", "hf" or "photos" if the name says it, or "". architecture: from the configuration
    that comes with the weights, or that the name says; None without one. preprocessing: of the images, from there too.
    """

    name: str
    path: Path
    layout: str = ""
    architecture: Architecture | Family | None = None
    preprocessing: Preprocessing = Preprocessing()


def find(backbone, clip_dir=None):
    """Return the source of a backbone; downloads OpenAI's and open_clip's first; raises UserError.

    backbone: one of OpenAI's names, PhotoEN, PhotoEN-MiniLM, the path of a checkpoint, `openai:FILE`,
    `open_clip:ARCH=FILE`, `open_clip:ARCH/TAG`, `open_clip:FOLDER` or `hf:FOLDER`.
    """
    name = str(backbone)
    layout, _, place = name.partition(":")
    if layout == "openai":
        return Source(name, Path(checkpoint_path(place)), layout)
    if layout == "hf":
        config = _read_config(expand_home(place), "config.json", "hf:FOLDER")
        is_siglip = config.get("model_type") == "siglip"
        architecture = siglip_of(config, name) if is_siglip else of_transformers(config, name)
        preprocessing = _of_processor(expand_home(place), _SIGLIP if is_siglip else Preprocessing())
        return Source(name, _weights_in(place, layout), layout, architecture, preprocessing)
    if layout == "open_clip":
        return _of_open_clip(name, place)
    if name in _OF_PHOTOS:
        file, family = _OF_PHOTOS[name]
        return Source(name, file(), "photos", family(), _EFFICIENTNET_LITE)
    layout = "openai" if name in clip.available_models() else ""
    return Source(name, Path(checkpoint_path(name, clip_dir)), layout)


def _of_open_clip(name, place):
    if expand_home(place).is_dir():
        config = _read_config(expand_home(place), OPEN_CLIP_CONFIG, "open_clip:FOLDER")
        model, images = (config.get(key) for key in ("model_cfg", "preprocess_cfg"))
        architecture = kind_of_open_clip(model if isinstance(model, dict) else {}, name, expand_home(place))
        preprocessing = _preprocessing(images if isinstance(images, dict) else {}, name)
        return Source(name, _weights_in(place, "open_clip"), "open_clip", architecture, preprocessing)
    arch, has_file, file = place.partition("=")
    if has_file:
        architecture = open_clip_architecture(arch)
        path = Path(checkpoint_path(file))
        preprocessing = _of_tags(arch) if isinstance(architecture, Family) else Preprocessing()
        return Source(name, path, "open_clip", architecture, preprocessing)
    arch, _, tag = place.partition("/")
    if not tag or "/" in tag:
        raise UserError(
            f"Expected open_clip:ARCH=FILE, open_clip:ARCH/TAG, or open_clip:FOLDER with {OPEN_CLIP_CONFIG}, got "
            f"'{name}'."
        )
    architecture = open_clip_architecture(arch)
    path, preprocessing = _pretrained(arch, tag, architecture)
    return Source(name, path, "open_clip", architecture, preprocessing)


@functools.cache  # the package asks the hub each time
def _pretrained(arch, tag, architecture):
    """Return the file of a tag's weights, which open_clip downloads, and the Preprocessing; raises UserError."""
    open_clip = optional_package("open_clip", "open-clip", f"open_clip:{arch}/{tag} (not for open_clip:{arch}=FILE)")
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
        path = Path(open_clip.download_pretrained(config))
    except Exception as error:  # the package, its hub and the network raise many types
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        raise UserError(
            f"Could not download open_clip:{arch}/{tag} ({reason}): fetch its file on a machine with network access "
            f"and name it as open_clip:{arch}=FILE."
        ) from error
    return path, _preprocessing(config, f"open_clip:{arch}/{tag}")


def _of_tags(arch):
    """Return the Preprocessing of all tags of an architecture that open_clip knows, OpenAI's if they have several."""
    open_clip = optional_package("open_clip", "open-clip", arch)
    tags = [open_clip.get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    found = {_preprocessing(tag, arch) for tag in tags}
    return found.pop() if len(found) == 1 else Preprocessing()


def preprocessing_of(backbone):
    """Return how a backbone's images were made in its training; downloads open_clip's tags first; raises UserError."""
    others = str(backbone).startswith(("open_clip:", "hf:")) or backbone in _OF_PHOTOS
    return find(backbone).preprocessing if others else Preprocessing()


def _preprocessing(config, source):
    """Return what open_clip's `preprocess_cfg` says; OpenAI's values where it says nothing. Raises UserError."""
    default = Preprocessing()
    values = {key: config.get(key) or getattr(default, key) for key in ("mean", "std")}
    for key, value in values.items():
        if not isinstance(value, (list, tuple)) or [type(one) for one in value] != [float] * 3:
            raise UserError(f"Expected three numbers as the {key} of the images of {source}, got {value!r}.")
    interpolation = config.get("interpolation") or ""
    mode = config.get("resize_mode")
    return Preprocessing(tuple(values["mean"]), tuple(values["std"]), str(interpolation), mode == "squash")


def _of_processor(folder, default):
    """Return what transformers' preprocessor_config.json says, `default` without one; raises UserError."""
    if not (folder / PROCESSOR).is_file():
        return default
    config = _read_config(folder, PROCESSOR, "hf:FOLDER")
    resample, size = config.get("resample"), config.get("size")
    is_squeezed = isinstance(size, dict) and "height" in size and not config.get("do_center_crop")
    theirs = {
        "mean": config.get("image_mean"),
        "std": config.get("image_std"),
        "interpolation": "" if resample is None else _OF_PILLOW.get(resample, f"Pillow's {resample}"),
        "resize_mode": "squash" if is_squeezed else "shortest",
    }
    return _preprocessing(theirs, f"{folder / PROCESSOR}")


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
