"""What names stand for: the yaml and class of a data set, and the yaml of a trainer in a protocol."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from dspt_atlas.config.benchmarks import EMBEDDED
from dspt_atlas.config.reading import DATASETS, dataset_name, is_yaml, read_yaml, registered_name
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.paths import CONFIGS, expand_home
from dspt_atlas.trainers.clip.sources import find
from dspt_atlas.trainers.registry import configuration, configurations_folder


def dataset_path(name: str) -> Path:
    """Return the yaml of a data set: the path itself, or that of a name as `dataset_name` reads it."""
    if is_yaml(name):
        return expand_home(name).resolve()
    return DATASETS / f"{dataset_name(name)}.yaml"


def find_dataset(name):
    """Return our data set class of a name in any spelling ("OxfordPets", "oxford_pets"), or of a yaml's name."""
    registered = registered_name(name)
    found = DATASET_REGISTRY.get(registered) if registered in DATASET_REGISTRY.registered_names() else None
    if isinstance(found, type) and issubclass(found, ImageDataset):
        return found
    ours = ", ".join(path.stem for path in sorted(DATASETS.glob("*.yaml")))
    raise UserError(f'"{registered}" is not one of our data sets; these are {ours}.')


def config_path(trainer: str, name: str) -> Path:
    """Return the yaml of a configuration: the path, or a name from the trainer's or its prompt learner's folder."""
    if is_yaml(name):
        return expand_home(name).resolve()
    folders = [CONFIGS / "trainers" / folder for folder in (trainer, configurations_folder(trainer))]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    there = ", ".join(sorted(path.stem for path in folders[-1].glob("*.yaml"))) or "none"
    raise UserError(f'There is no configuration "{name}" for {trainer}; use {there}, or a yaml file.')


def choose_config(
    protocols: tuple[str, ...],
    trainer: str,
    dataset: str,
    shots: int,
    pairs: tuple[str, ...],
    may_fall_back: bool,
    say: Callable[[str], object] | None = None,
) -> Path:
    """Return the configuration of embedded data, or that of the first protocol for which the prompt learner has one.

    With `may_fall_back` another backbone takes its place if its weights cannot be had: PhotoEN, or without that, or for
    a learner that PhotoEN does not suit, the one of the emoji; lines that say so are printed once, or go to `say`.
    """
    say = say or _say_once
    if dataset in EMBEDDED:
        return config_path(trainer, configuration(trainer, "embedded"))
    path = config_path(trainer, _declared(protocols, trainer, dataset, shots))
    reason = _missing_weights(path, pairs) if may_fall_back and "MODEL.BACKBONE.NAME" not in pairs[::2] else None
    if reason is None:
        return path
    path, why_not_photos = _in_place(trainer)
    say(reason)
    say(f"until then {_backbone(path)} is used (--config {path.stem}); its results are not results of CLIP.")
    if why_not_photos:
        say(f"not PhotoEN: {why_not_photos}")
    return path


def _in_place(trainer):
    """Return the configuration of PhotoEN, or of the emoji's backbone and in a sentence why not PhotoEN."""
    try:
        photos = config_path(trainer, configuration(trainer, "photos"))
        find(_backbone(photos))
    except UserError as error:
        return config_path(trainer, configuration(trainer, "embedded")), str(error)
    return photos, ""


@functools.cache
def _say_once(text):
    print(f"NOTE: {text}", file=sys.stderr)


def _declared(protocols, trainer, dataset, shots):
    if not protocols:
        raise UserError(
            "Expected configs in the plan, or a protocol of configs/plans for which prompt learners have one."
        )
    *others, last = protocols
    for protocol in others:
        try:
            return configuration(trainer, protocol, dataset, shots)
        except UserError:
            continue
    return configuration(trainer, last, dataset, shots)


def _backbone(config):
    return read_yaml(config).get("MODEL", {}).get("BACKBONE", {}).get("NAME", "")


_KNOWN_WEIGHTS = {}


def _missing_weights(config: Path, pairs: tuple[str, ...]) -> str | None:
    """Return why the weights of a configuration's backbone cannot be downloaded, or None."""
    key = (_backbone(config), dict(zip(pairs[::2], pairs[1::2], strict=False)).get("MODEL.CLIP_DIR"))
    if key not in _KNOWN_WEIGHTS:
        try:
            find(*key)
            _KNOWN_WEIGHTS[key] = None
        except UserError as error:
            _KNOWN_WEIGHTS[key] = str(error)
    return _KNOWN_WEIGHTS[key]


def named_root(dataset: str, config: str, pairs: tuple[str, ...]) -> str:
    """Return the first DATASET.ROOT that pairs, a configuration's file or a data set's name; "" if there is none."""
    files = [path for path in (dataset_path(dataset), config) if is_yaml(str(path))]
    named = dict(item for path in files for item in flatten(read_yaml(path)))
    return str({**named, **dict(zip(pairs[::2], pairs[1::2], strict=True))}.get("DATASET.ROOT") or "")


def root_argument(dataset: str, config: str, root: str, pairs: tuple[str, ...]) -> str:
    """Return the --root of a run: the given one, or "" if a yaml names one, or $DATA, or data."""
    if root or named_root(dataset, config, pairs):
        return root
    return str(expand_home(os.environ.get("DATA") or "data").absolute())  # a run may start in another folder
