"""From a command line to a configuration: defaults, data set yaml, trainer yaml, arguments, trailing pairs."""

from __future__ import annotations

import difflib
import json
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.transforms import INTERPOLATION_MODES
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from dspt_atlas import register_standard
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.effect import check_effect, say
from dspt_atlas.config.files import dataset_path
from dspt_atlas.config.needs import Run
from dspt_atlas.config.reading import check_choice, key_value_pairs, read_yaml
from dspt_atlas.datasets.embedded import backbone_checkpoint
from dspt_atlas.datasets.noise import names_file
from dspt_atlas.environment import host_kind
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import check_values, flatten
from dspt_atlas.paths import is_utf8
from dspt_atlas.trainers.clip.model import backbone_input_size
from dspt_atlas.trainers.clip.sources import preprocessing_of

ARGUMENT_KEYS = {
    "root": "DATASET.ROOT",
    "output_dir": "OUTPUT_DIR",
    "resume": "RESUME",
    "seed": "SEED",
    "source_domains": "DATASET.SOURCE_DOMAINS",
    "target_domains": "DATASET.TARGET_DOMAINS",
    "transforms": "INPUT.TRANSFORMS",
    "trainer": "TRAINER.NAME",
    "backbone": "MODEL.BACKBONE.NAME",
    "head": "MODEL.HEAD.NAME",
    "clip_dir": "MODEL.CLIP_DIR",
    "skip_broken": "DATASET.SKIP_BROKEN",
}


def build_cfg(arguments: dict, pairs: Sequence[str] = (), before: dict | None = None) -> CfgNode:
    """Return the frozen configuration of a run.

    arguments: the values of train.py's options by their names, None if not given. pairs: KEY VALUE KEY VALUE ...
    before: the configuration of an older run, which the others override. INPUT.SIZE, PIXEL_MEAN and PIXEL_STD follow
    the backbone unless they are given, INTERPOLATION too if the backbone says it. There are never more workers than
    cores. Raises UserError, also for keys and options that cannot have an effect in this run.
    """
    register_standard()
    cfg = default_cfg()
    resumed, files = merge(cfg, flatten(before or {}), "the run's configuration"), set()
    data = arguments.get("dataset_config_file")
    data = data if not data or Path(data).is_file() else dataset_path(data)  # a name too
    for path in (data, arguments.get("config_file")):
        if path:
            files |= merge(cfg, flatten(read_yaml(path)), path)
    otherwise = dict(flatten(plain(cfg)))
    options = {key: arguments.get(name) for name, key in ARGUMENT_KEYS.items()}
    command = merge(cfg, ((key, value) for key, value in options.items() if value is not None), "the arguments")
    command |= merge(cfg, key_value_pairs(pairs), "the command line")
    check_choice("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names(), "--trainer")
    check_choice("data set", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names(), "--dataset-config-file")
    _use_noisy_variant(cfg)
    check_values(cfg)
    differences = follow_backbone(cfg, resumed | files | command)
    check_effect(Run(cfg, arguments, command, files, resumed, _trained(arguments), otherwise))
    for text in differences:
        say(text)
    cfg.DATALOADER.NUM_WORKERS = min(cfg.DATALOADER.NUM_WORKERS, int(host_kind()["cores"] or 1))
    cfg.freeze()
    return cfg


def plain(cfg: CfgNode) -> dict:
    """Return a configuration as JSON and yaml files hold it: nested dicts, sequences as lists."""
    return json.loads(json.dumps(cfg))


def _trained(arguments: dict) -> dict | None:
    """Return the flat configuration of the tested training, {} if it is not known, None without a folder."""
    folder = Path(arguments.get("model_dir") or "")
    if not (arguments.get("eval_only") and arguments.get("model_dir") and folder.is_dir()):
        return None
    path = folder / "config.yaml"
    return dict(flatten(read_yaml(path))) if path.is_file() else {}


def merge(cfg: CfgNode, items, source: str | Path) -> set[str]:
    """Set dotted keys of `cfg` from (key, value) items and return the keys.

    Strings are read as Python literals unless the key is a string. Raises UserError for unknown keys and wrong types.
    """
    keys = set()
    for key, value in items:
        current = _lookup(cfg, key, source)
        if isinstance(value, str) and not is_utf8(value):
            raise UserError(f"{source}: expected {key} to be text in UTF-8 without NUL, got {value!r}.")
        try:
            cfg.merge_from_list([key, _fitting(value, current)])
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{source}: expected {key} to be {type(current).__name__}, like its default {current!r}, got {value!r}."
            ) from error
        keys.add(key)
    return keys


def _lookup(cfg: CfgNode, key: str, source: str | Path):
    node = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            known = [known_key for known_key, _ in flatten(cfg)]
            close = difflib.get_close_matches(key.upper(), known, n=1)
            advice = f"did you mean {close[0]}?" if close else "dspt-atlas keys lists them."
            raise UserError(f"{source}: there is no configuration key {key}; {advice}")
        node = node[part]
    if isinstance(node, CfgNode):
        raise UserError(
            f"{source}: {key} is a group of keys: give one of {', '.join(f'{key}.{name}' for name in node)}."
        )
    return node


def _fitting(value, current):
    """Return a value for yacs to decode: an int becomes a float if the key is one; a string key keeps its text."""
    if isinstance(value, str):
        try:
            decoded = literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # it raises these for wrong text
            decoded = value
        if isinstance(current, str):
            return repr(value if not isinstance(decoded, str) else decoded)
        value = decoded
    if value is None:
        raise TypeError("a value is needed")
    if isinstance(current, float) and type(value) is int:
        return float(value)
    if isinstance(current, (tuple, list)) and not isinstance(value, (tuple, list)):
        raise TypeError("a sequence is needed")
    return value


def _use_noisy_variant(cfg: CfgNode) -> None:
    noise = cfg.DATASET.NOISE
    noisy = f"Noisy{cfg.DATASET.NAME}"
    if (noise.TYPE != "none" or names_file(noise)) and noisy in DATASET_REGISTRY.registered_names():
        cfg.DATASET.NAME = noisy


def follow_backbone(cfg: CfgNode, given: set[str]) -> list[str]:
    """Set the keys of INPUT that are not given, and return in words how images differ from the backbone's training."""
    if not cfg.MODEL.BACKBONE.NAME:
        raise UserError("No backbone is given: give one by --backbone or in the file of --config-file, such as RN50.")
    name = cfg.MODEL.BACKBONE.NAME
    if "INPUT.SIZE" not in given:
        size = backbone_input_size(backbone_checkpoint(name))
        cfg.INPUT.SIZE = (size, size)
    images = preprocessing_of(name)
    differences = []
    trained = images.pixels() | ({"INTERPOLATION": images.interpolation} if images.interpolation else {})
    for key, value in trained.items():
        if f"INPUT.{key}" not in given and value in (INTERPOLATION_MODES if key == "INTERPOLATION" else [value]):
            cfg.INPUT[key] = value
        elif cfg.INPUT[key] != value:
            differences.append(f"INPUT.{key} is {cfg.INPUT[key]}, but {name} was trained with {value}")
    if images.is_squeezed:
        differences.append(f"{name} was trained with images squeezed into a square; here the longer side is cropped")
    return differences
