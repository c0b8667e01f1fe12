"""result.json: the record of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from dspt_atlas.datasets.noise import PLACES, clean_name, relative_path
from dspt_atlas.environment import git_commit, host_kind, versions
from dspt_atlas.errors import UserError
from dspt_atlas.paths import CONFIG_FILE, IDENTITY_FILE, RESULT_FILE

SCHEMA_VERSION = 1
SECTIONS = {"OUTPUT_DIR", "SEED", "INPUT", "DATASET", "DATALOADER", "MODEL", "OPTIM", "TRAIN", "TEST", "TRAINER"}


def run_record(cfg, now: dict, trainer, evaluated: dict | None, config_name: str) -> dict:
    """Return the content of result.json: identity, measures in percent, the trainer's report, config, machine.

    now: the run's `config` and `identity`.
    """
    from dspt_atlas.config.needs import nodes_of  # these import torch, which readers of results do without
    from dspt_atlas.trainers.measures import functions
    from dspt_atlas.trainers.registry import pair_of

    return {
        "schema_version": SCHEMA_VERSION,
        "trainer": cfg.TRAINER.NAME,
        **pair_of(cfg.TRAINER.NAME)._asdict(),  # learner, method
        "nodes": list(nodes_of(type(trainer))) or None,
        **training_fields(cfg, getattr(trainer.dm.dataset, "noise", None)),
        "config_name": config_name,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "split": cfg.TEST.SPLIT,
        "evaluated": evaluated,
        "num_classes": trainer.num_classes,
        "num_train": len(trainer.dm.dataset.train_x),
        "skipped_images": [
            relative_path(trainer.dm.dataset, cfg, path) for path in getattr(trainer.dm.dataset, "skipped", ())
        ],
        **trainer.results,
        **trainer.report,
        "measures": {name: digest for name, digest in functions().items() if name in trainer.results},
        "identity": {name: value for name, value in now["identity"].items() if name != "classes"},
        "config": now["config"],
        "versions": versions(),
        "commit": git_commit(),
        "host": host_kind(),
    }


def training_fields(cfg, noise) -> dict:
    """Return data set, classes, shots, noise and seed of a configuration; noise: the record of wrong labels."""
    return {
        "dataset": dataset_name(cfg),
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "shots": cfg.DATASET.NUM_SHOTS,
        "noise": _noise(cfg, noise),
        "seed": cfg.SEED,
    }


def checkpoint_epochs(folder: Path, model: str = "*") -> list[int]:
    """Return the epochs of a run's checkpoints, ascending; temporary files of a killed run do not count."""
    suffixes = {path.name.removeprefix("model.pth.tar-") for path in Path(folder).glob(f"{model}/model.pth.tar-*")}
    return sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())


def dataset_name(cfg) -> str:
    """Return the data set's name without its noise; for your own data, the name of the folder or file."""
    data = cfg.DATASET
    if not data.OWN.PATH:
        return clean_name(data.NAME)
    domains = [" and ".join(names) for names in (data.SOURCE_DOMAINS, data.TARGET_DOMAINS)]
    return Path(data.OWN.PATH).stem + (f", {' to '.join(domains)}" if all(domains) else "")


def _noise(cfg, record) -> dict | None:
    if record is None:
        return None
    fields = ("family", "type", "rate", "realised_rate", "seed", "per_class")
    file = next(filter(None, (cfg.DATASET.NOISE[key] for key in PLACES)), "")
    return {**{name: getattr(record, name) for name in fields}, "file": file}


def read_settings(folder: Path) -> dict:
    """Return `config` and `identity` of a run that was started in a folder, each None if its file is missing.

    Raises UserError if a file is damaged.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else None
    identity = read_json(folder / IDENTITY_FILE) if (folder / IDENTITY_FILE).is_file() else None
    return {"config": config, "identity": identity}


def read_config(folder: Path) -> dict:
    """Return the configuration in a run's folder, or {} without one; raises UserError if it is damaged."""
    path = Path(folder) / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        content = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data() or {}
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}).") from error
    return content if isinstance(content, dict) else {}


def _read_config(path):
    try:
        content = read_config(path.parent)
    except UserError:
        content = {}
    if not SECTIONS <= content.keys():
        raise UserError(
            f"Expected {path} to be a run's configuration, but it is damaged or something else: choose another "
            "--output-dir, or move the file away."
        )
    return content


def read_result(folder: Path) -> dict:
    """Return the result.json of a folder, with the classes of its identity.json if that belongs to the same data.

    Raises UserError if it is damaged or has another schema version.
    """
    path = Path(folder) / RESULT_FILE
    result = read_json(path)
    if result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{folder} holds a result of schema version {result.get('schema_version')!r}, not {SCHEMA_VERSION}: choose "
            "another --output-dir, or remove the folder."
        )
    kinds = {"config": dict, "evaluated": (dict, type(None)), "accuracy": (int, float, type(None))}
    if not all(isinstance(result.get(name), kind) for name, kind in kinds.items()):
        raise UserError(f"{path} is damaged: remove it to do the run again.")
    identity = read_settings(folder)["identity"] or {}
    own = result.get("identity")
    if isinstance(own, dict) and own.get("data") == identity.get("data"):
        own["classes"] = identity.get("classes")
    return result


def read_json(path: Path) -> dict:
    """Return a JSON object from a file; raises UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): remove it to do the run again.") from error
    if not isinstance(content, dict):
        raise UserError(f"Expected a JSON object in {path}, got {type(content).__name__}.")
    return content
