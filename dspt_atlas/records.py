"""result.json: what a finished run says about itself."""

from __future__ import annotations

import json
from pathlib import Path

from .environment import git_commit, host_kind, versions
from .errors import UserError

RESULT_FILE = "result.json"
SCHEMA_VERSION = 1


def run_record(cfg, config: dict, trainer, evaluated: dict | None, config_name: str) -> dict:
    """Return the content of result.json: identity, measures in percent, what the trainer reports, config, machine."""
    return {
        "schema_version": SCHEMA_VERSION,
        "trainer": cfg.TRAINER.NAME,
        "dataset": dataset_name(cfg),
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "subsample": cfg.DATASET.SUBSAMPLE_CLASSES,
        "config_name": config_name,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "split": cfg.TEST.SPLIT,
        "noise": _noise(cfg, getattr(trainer.dm.dataset, "noise", None)),
        "evaluated": evaluated,
        "num_classes": trainer.num_classes,
        "num_train": len(trainer.dm.dataset.train_x),
        **trainer.results,
        **trainer.report,
        "config": config,
        "versions": versions(),
        "commit": git_commit(),
        "host": host_kind(),
    }


def checkpoint_epochs(folder: Path, model: str = "*") -> list[int]:
    """Return the epochs of a run's checkpoints, ascending; a killed run's temporary files are none."""
    suffixes = {path.name.removeprefix("model.pth.tar-") for path in Path(folder).glob(f"{model}/model.pth.tar-*")}
    return sorted(int(suffix) for suffix in suffixes if suffix.isdecimal())


def dataset_name(cfg) -> str:
    """Return the data set's name without its noise; for one's own data the folder's or file's."""
    own = cfg.DATASET.OWN.PATH
    return Path(own).stem if own else cfg.DATASET.NAME.removeprefix("Noisy")


def _noise(cfg, record) -> dict | None:
    if record is None:
        return None
    fields = ("family", "type", "rate", "realised_rate", "seed", "per_class")
    return {**{name: getattr(record, name) for name in fields}, "file": cfg.DATASET.NOISE.FILE}


def read_json(path: Path) -> dict:
    """Return a JSON object from a file; raises UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): remove it, and the run is done again.") from error
    if not isinstance(content, dict):
        raise UserError(f"Expected a JSON object in {path}, got {type(content).__name__}.")
    return content
