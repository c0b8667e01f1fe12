"""Results of other repositories of the CoOp family, which leave a log.txt and no result.json."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

_MEASURE = re.compile(r"\* (accuracy|macro_f1): ([\d.eE+-]+)%")
_STARTS = ("Finish training", "Finished training", "=> result")
_TRAINED_FOLDER = re.compile(r"(?m)^model_dir: (\S.*)$")


def read_family_log(folder: Path) -> dict | None:
    """Return a log's last evaluation in the fields of result.json, or None if there is none after training.

    A folder's log.txt holds the configuration as a yaml dump after `** Config **`, and the arguments before it.
    """
    text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
    config = _config(text)
    values = _measures(text)
    if config is None or "accuracy" not in values:
        return None
    dataset, trainer = config["DATASET"], config["TRAINER"]["NAME"]
    model_dir = _TRAINED_FOLDER.search(text) if re.search(r"(?m)^eval_only: True$", text) else None
    return {
        "trainer": trainer,
        "dataset": dataset["NAME"],
        "seed": config["SEED"],
        "shots": dataset["NUM_SHOTS"],
        "subsample": dataset.get("SUBSAMPLE_CLASSES", "all"),
        "noise": _noise(dataset),
        "evaluated": {"trained_on": _trained_on(model_dir.group(1).strip(), config)} if model_dir else None,
        "config": config,
        "config_name": _config_name(text),
        "macro_f1": values.get("macro_f1", float("nan")),
        "accuracy": values["accuracy"],
    }


def _config(text: str) -> dict | None:
    _, found, rest = text.partition("** Config **")
    if not found:
        return None
    lines = []
    for line in rest.splitlines()[2:]:  # the title's last line and the line of asterisks below it
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


def _noise(dataset: dict) -> dict | None:
    """Return NLPrompt's noise keys in our fields."""
    if not dataset.get("NOISE_LABEL"):
        return None
    return {"family": "relabel", "type": dataset.get("NOISE_TYPE", ""), "rate": float(dataset.get("NOISE_RATE", 0))}


def _trained_on(model_dir: str, config: dict) -> dict:
    """Return what an evaluated model was trained on, by its folder: train_base/{dataset}, or output/{dataset}."""
    parts = Path(model_dir).parts
    shots = [int(match[1] or match[2]) for part in parts if (match := re.search(r"^shots_(\d+)$|_(\d+)shots", part))]
    source = config["DATASET"]["NAME"] if "train_base" in parts else _source(parts, config["TRAINER"]["NAME"])
    return {
        "dataset": source or config["DATASET"]["NAME"],
        "subsample": "",
        "shots": (shots or [config["DATASET"]["NUM_SHOTS"]])[0],
        "noise": None,
    }


def _source(parts: tuple[str, ...], trainer: str) -> str | None:
    """Return the folder above the trainer's, as in output/imagenet/CoOp/rn50_16shots/seed1."""
    if trainer not in parts[1:]:
        return None
    name = parts[parts.index(trainer) - 1]
    return "ImageNet" if name == "imagenet" else name
