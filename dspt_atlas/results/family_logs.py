"""Results of other repositories of the CoOp family, which write a log.txt and no result.json."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from dspt_atlas.datasets.noise import PLACES, clean_name, names_file
from dspt_atlas.errors import UserError
from dspt_atlas.paths import CONFIGS
from dspt_atlas.run.records import read_json

_MEASURE = re.compile(r"\* (accuracy|macro_f1): (\S*)%")
_STARTS = ("Finish training", "Finished training", "=> result")
_TRAINED_FOLDER = re.compile(r"(?m)^model_dir: (\S.*)$")
# datasets/noisy.py prints this line when it has made wrong labels.
_APPLIED = re.compile(r"(?m)^Label noise: (\S+) (\S+) \((\w+)\), seed ")
_NOISE_FILE = "noise.json"


def read_family_log(folder: Path) -> dict | None:
    """Return a log's last evaluation in the fields of result.json, or None if there is none after training.

    A folder's log.txt holds the configuration as a yaml dump after `** Config **`, and the arguments before it. Raises
    UserError with the file's name if it cannot be understood.
    """
    path = folder / "log.txt"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        config = _config(text)
        values = _measures(text)
        return _fields(folder, text, config, values) if config is not None and "accuracy" in values else None
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path} is not a log that can be read ({type(error).__name__}: {error}): it is left out."
        ) from error


def _fields(folder, text, config, values):
    dataset, trainer = config["DATASET"], config["TRAINER"]["NAME"]
    noise, is_known = _noise(folder, text, dataset)
    model_dir = _TRAINED_FOLDER.search(text) if re.search(r"(?m)^eval_only: True$", text) else None
    evaluated = None
    if model_dir:
        place = model_dir.group(1).strip()
        evaluated = {"model_dir": place, "epoch": _load_epoch(text), "trained_on": _trained_on(place, config, noise)}
    return {
        "trainer": trainer,
        "dataset": clean_name(dataset["NAME"]),
        "seed": config["SEED"],
        "shots": dataset["NUM_SHOTS"],
        "subsample": dataset.get("SUBSAMPLE_CLASSES", "all"),
        "noise": noise,
        "noise_verified": is_known,
        "evaluated": evaluated,
        "config": config,
        "config_name": _config_name(text),
        "macro_f1": values.get("macro_f1", float("nan")),
        "accuracy": values["accuracy"],
        "read_from": "log.txt",
    }


def _config(text: str) -> dict | None:
    _, found, rest = text.partition("** Config **")
    if not found:
        return None
    lines = []
    for line in rest.splitlines()[1:]:
        if set(line) == {"*"}:  # below the title
            continue
        if not re.match(r"\s*(- |[A-Za-z_0-9]+:)", line):
            break
        lines.append(line)
    try:
        config = yaml.safe_load("\n".join(lines))
        return config if config["DATASET"]["NAME"] and config["TRAINER"]["NAME"] else None
    except (yaml.YAMLError, KeyError, TypeError):
        return None


def _measures(text: str) -> dict[str, float]:
    """Return the last accuracy and macro-F1 after the first line that ends training or starts a result."""
    lines = text.splitlines()
    is_training = any(line.startswith("epoch [") for line in lines)
    starts = _STARTS[:2] if is_training else _STARTS
    first = next((number for number, line in enumerate(lines) if line.strip() in starts), len(lines))
    return {match[1]: float(match[2]) for line in lines[first:] if (match := _MEASURE.search(line))}


def _config_name(text: str) -> str:
    match = re.search(r"(?m)^config_file: (\S+)$", text)
    return Path(match[1]).stem if match else ""


def _load_epoch(text: str) -> int | None:
    match = re.search(r"(?m)^load_epoch: (\d+)$", text)
    return int(match[1]) if match else None


def _noise(folder: Path, text: str, dataset: dict) -> tuple[dict | None, bool]:
    """Return the noise in our fields, and whether it is known to have been applied rather than only configured.

    The applied noise is in noise.json, or in the line that our data sets print to the log. NLPrompt's keys alone do not
    prove it: another Dassl has them and does nothing.
    """
    if (folder / _NOISE_FILE).is_file():
        kept = read_json(folder / _NOISE_FILE)
        return {name: kept.get(name) for name in ("family", "type", "rate", "per_class")}, True
    ours = dataset.get("NOISE") or {}
    if applied := _APPLIED.search(text):
        per_class = applied[3] == "relabel" and bool(ours.get("PER_CLASS"))
        return {"type": applied[1], "rate": float(applied[2]), "family": applied[3], "per_class": per_class}, True
    if names_file(ours) or (ours.get("TYPE", "none") != "none" and ours.get("RATE") != 0):
        fields = {name: ours.get(name.upper()) for name in ("family", "type", "rate", "per_class")}
        fields["file"] = next(filter(None, map(ours.get, PLACES)), "")
        return {name: value for name, value in fields.items() if value is not None}, False
    if dataset.get("NOISE_LABEL"):
        return {
            "family": "relabel",
            "type": dataset.get("NOISE_TYPE", ""),
            "rate": float(dataset.get("NOISE_RATE", 0)),
        }, False
    return None, True


def _trained_on(model_dir: str, config: dict, noise: dict | None) -> dict | None:
    """Return the training data of a tested model, by its folder train_base/{dataset} or output/{dataset}, or None."""
    parts = Path(model_dir).parts
    shots = [int(match[1] or match[2]) for part in parts if (match := re.search(r"^shots_(\d+)$|_(\d+)shots", part))]
    is_base = "train_base" in parts
    own = clean_name(config["DATASET"]["NAME"])
    source = own if is_base else _source(parts, config["TRAINER"]["NAME"], own)
    if source is None:
        return None
    return {
        "dataset": source,
        "subsample": "base" if is_base else "",
        "shots": (shots or [config["DATASET"]["NUM_SHOTS"]])[0],
        "noise": noise,
    }


def _source(parts: tuple[str, ...], trainer: str, own: str) -> str | None:
    """Return the data set of the folder above the trainer's, as in output/imagenet/CoOp/rn50_16shots/seed1."""
    if trainer not in parts[1:]:
        return None
    name = parts[parts.index(trainer) - 1]
    if name.replace("_", "").lower() == own.lower():
        return own
    file = CONFIGS / "datasets" / f"{name}.yaml"
    known = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return ((known or {}).get("DATASET") or {}).get("NAME") or name
