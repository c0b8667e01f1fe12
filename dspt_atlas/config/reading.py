"""Reading yaml files and words of a command line; it loads no torch."""

from __future__ import annotations

import copy
import difflib
import functools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from dspt_atlas.errors import UserError
from dspt_atlas.paths import CONFIGS, expand_home

DATASETS = CONFIGS / "datasets"


def read_yaml(path: str | Path, children: tuple[Path, ...] = ()) -> dict:
    """Return a yaml file as a nested dict, merged into that of its `_BASE_`, a path relative to the file."""
    path = expand_home(path)
    if path.resolve() in children:
        raise UserError(f"{children[0]}: _BASE_ leads back to {path}; take it out of one of the files.")
    try:
        content = copy.deepcopy(_parsed(path.read_text(encoding="utf-8"))) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace("\n", " ")
        raise UserError(f"Expected a yaml file at {path}, but it cannot be read: {reason}.") from error
    if not isinstance(content, dict):
        raise UserError(f"Expected KEY: value lines in {path}, got {type(content).__name__}.")
    base = content.pop("_BASE_", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UserError(f"Expected one file as _BASE_ in {path}, got {base!r}.")
    return _overlay(read_yaml(path.parent / base, (*children, path.resolve())), content)


@functools.lru_cache(256)
def _parsed(text):
    return yaml.safe_load(text)  # a sweep reads the same files for each of its runs


def _overlay(base: dict, child: dict) -> dict:
    merged = dict(base)
    for key, value in child.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _overlay(base[key], value) if nested else value
    return merged


def is_yaml(name: str) -> bool:
    """Return whether a name is the name of a yaml file, and not a word for one."""
    return name.endswith((".yaml", ".yml"))


def dataset_name(name: str) -> str:
    """Return the name in configs/datasets of a data set that is spelled so or as registered; another yaml as it is.

    "OxfordPets", "oxfordpets" and "oxford_pets" are the same. Raises UserError for an unknown name.
    """
    if is_yaml(name):
        path = expand_home(name).resolve()
        return path.stem if path.parent == DATASETS.resolve() else name
    there = tuple(sorted(DATASETS.glob("*.yaml")))
    names = _spellings(there)
    if _simple(name) not in names:
        raise UserError(
            f'There is no data set "{name}"{_own(name)}; use {", ".join(path.stem for path in there)}, or a yaml file.'
        )
    return names[_simple(name)]


def _own(name):
    """Return in words how the images of a folder or file with this name are read, or that there is none."""
    reader = own_reader(name)
    if not reader:
        return ", and no folder or file of this name"
    if reader == "OwnFolder":
        return f", but a folder: {dataset_name(reader)} --root {shlex.quote(name)} reads it"
    return f", but a file: {dataset_name(reader)} DATASET.OWN.PATH {shlex.quote(os.path.abspath(name))} reads it"


def own_reader(path: str | Path) -> str:
    """Return the registered name of the data set that reads your folder, table or split JSON; "" if there is none."""
    if os.path.isdir(path):
        return "OwnFolder"
    if os.path.isfile(path):
        return "OwnSplit" if str(path).lower().endswith(".json") else "OwnCSV"
    return ""


@functools.cache
def _spellings(there):
    registered = {_simple(read_yaml(path)["DATASET"]["NAME"]): path.stem for path in there}
    return registered | {_simple(path.stem): path.stem for path in there}


def registered_name(name: str) -> str:
    """Return the registered name of a data set in any spelling, or that of a yaml; raises UserError."""
    path = name if is_yaml(name) else DATASETS / f"{dataset_name(name)}.yaml"
    return read_yaml(path).get("DATASET", {}).get("NAME", name)


def _simple(name):
    return name.replace("_", "").lower()


def key_value_pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    """Return KEY VALUE KEY VALUE ... as pairs; raises UserError for an odd number."""
    if len(values) % 2:
        raise UserError(f"Expected KEY VALUE pairs at the end of the command, got an odd number: {' '.join(values)}.")
    return list(zip(values[::2], values[1::2], strict=True))


def check_choice(what: str, name: str, choices: list[str], option: str) -> None:
    """Raise UserError unless `name` is one of the choices."""
    if name in choices:
        return
    if not name:
        raise UserError(f"No {what} is given: give one by {option}; the choices are {', '.join(sorted(choices))}.")
    by_letters = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_letters, n=1)
    advice = f"did you mean {by_letters[close[0]]}? T" if close else "t"
    raise UserError(f'There is no {what} "{name}"; {advice}he choices are {", ".join(sorted(choices))}.')
