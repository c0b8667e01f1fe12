"""The trained model that --eval-only tests: its checkpoint, its training, and whether that training finished."""

from __future__ import annotations

from pathlib import Path

from dassl.engine import TRAINER_REGISTRY
from dassl.utils import load_checkpoint
from yacs.config import CfgNode

from dspt_atlas import register_standard
from dspt_atlas.config.differences import differences
from dspt_atlas.config.effect import reads
from dspt_atlas.config.roles import role
from dspt_atlas.datasets.noise import NoiseRecord
from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten, with_defaults
from dspt_atlas.keys.identities import identity_differences, identity_of
from dspt_atlas.run.records import RESULT_FILE, read_json, read_settings, training_fields
from dspt_atlas.trainers.checkpoints import find_checkpoint
from dspt_atlas.trainers.registry import pair_of

TRAINED_FIELDS = ("dataset", "subsample", "shots", "noise", "seed")  # of result.json
# The meaning of a trained model depends on these keys, so its test has to have the same values as its training.
MEANING = ("TRAINER.", "INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_", "MODEL.BACKBONE.")


def is_zero_shot(trainer: str) -> bool:
    """Return whether a trainer learns nothing."""
    return not pair_of(trainer).learns


def check_model_dir(model_dir: str, trainer: str) -> None:
    """Raise UserError unless --model-dir is a folder; a trainer that learns nothing does not need it."""
    if not model_dir and not is_zero_shot(trainer):
        raise UserError(
            f"--eval-only would test the untrained prompt of {trainer}: give the output folder of its training by "
            "--model-dir."
        )
    if model_dir and not Path(model_dir).is_dir():
        raise UserError(
            f"Expected --model-dir to be the output folder of a training run, but {model_dir} is not a folder."
        )


def tested_model(model_dir: str, load_epoch: int | None, now: dict) -> dict:
    """Return the model that --eval-only tests, for the field `evaluated` of result.json.

    now: `config` and `identity` of the test. Raises UserError for a training that did not finish (unless an epoch is
    given), for another trainer, backbone, or revision, and for a folder without a training.
    """
    name = now["config"]["TRAINER"]["NAME"]
    tested = {"model_dir": "", "epoch": None, "tested_epoch": None, "is_final": True, "checkpoint": None}
    if not model_dir or is_zero_shot(name):
        return {**tested, "trained_on": None}
    tested |= {"model_dir": model_dir, "epoch": load_epoch}
    folder = Path(model_dir)
    training = _training(folder, load_epoch)
    if training["config"]:
        _check_meaning(folder, training, now)
    tested |= _checkpoint(folder, TRAINER_REGISTRY.get(name), load_epoch, training["result"] is not None)
    return {**tested, "trained_on": _trained_on(folder, training, now)}


def _training(folder, load_epoch):
    """Return config, identity and result (None if unfinished) of the training in a folder; raises UserError."""
    if not (folder / RESULT_FILE).is_file():
        if load_epoch is None:
            failed = " (it failed: failed.json says why)" if (folder / "failed.json").is_file() else ""
            raise UserError(
                f"Expected a finished training in {folder}, but there is no {RESULT_FILE}{failed}: finish it first, or "
                "give the epoch to test by --load-epoch."
            )
        return {**read_settings(folder), "result": None}
    result = read_json(folder / RESULT_FILE)
    if result.get("evaluated") is not None:
        raise UserError(
            f"Expected the folder of a training, but {folder} holds a test: give the folder that it tested."
        )
    config = result.get("config")
    return {"config": config if isinstance(config, dict) else {}, "identity": result.get("identity"), "result": result}


def _config_of(training):
    register_standard()  # it declares the keys of all learners and methods
    known = dict(flatten(training["config"]))
    return with_defaults(known, of_trainers=True) if known else {}


def _check_meaning(folder, training, now):
    found = [
        f"{key} is {value!r}, but the training has {before[key]!r}"
        for before in [_config_of(training)]
        for key, value in flatten(now["config"])
        if key in before and before[key] != value and _gives_meaning(key) and reads(before.get("TRAINER.NAME"), key)
    ]
    sides = [
        {"identity": {**identity_of(side), "data": None, "noise": None, "templates": None}} for side in (training, now)
    ]
    found += identity_differences(*sides)
    if found:
        raise UserError(
            f"This test does not fit the model in {folder}: {', '.join(found)}; test it with the settings "
            "of its training."
        )


def _gives_meaning(key):
    return key.startswith(MEANING) and not key.endswith(".PREC") and role(key) == "identity"


def _checkpoint(folder, trainer, load_epoch, is_finished):
    """Return the fields of the checkpoint that is tested."""
    model_name = getattr(trainer, "model_name", None)
    if model_name is None:  # a trainer of another repository, whose files are not known
        return {"tested_epoch": load_epoch, "is_final": load_epoch is None}
    path = find_checkpoint(folder / model_name, load_epoch)
    digest = file_digest(path)
    is_final = is_finished and (load_epoch is None or file_digest(find_checkpoint(folder / model_name)) == digest)
    epoch = load_checkpoint(str(path)).get("epoch")
    return {"tested_epoch": epoch if isinstance(epoch, int) else load_epoch, "is_final": is_final, "checkpoint": digest}


def _trained_on(folder, training, now):
    """Return the data that the tested model was trained on, or None if it is not known."""
    if training["config"] is None:
        return None
    own = dict(flatten(now["config"]))
    others = {
        key: value
        for key, value in _config_of(training).items()
        if key in own and own[key] != value and role(key) == "identity"
    }
    fields = training["result"] or _fields_of_unfinished(folder, training["config"])
    return {
        **{name: fields.get(name) for name in TRAINED_FIELDS},
        "identity": identity_of(training),
        "config": others,
    }


def _fields_of_unfinished(folder, config):
    noise = folder / "noise.json"
    return training_fields(CfgNode(config), NoiseRecord.load(noise) if noise.is_file() else None)


def retrained(before: dict, now: dict, config: dict) -> list[str] | None:
    """Return None if an existing test tested the same checkpoint; otherwise say how its training differs.

    An empty list: the same training, done again. before, now: `evaluated` of result.json; config: of both tests.
    """
    if before.get("checkpoint") == now["checkpoint"] and "tested_epoch" in before:
        return None
    trained = [side.get("trained_on") or {} for side in (before, now)]
    if not all("identity" in side for side in trained):
        return []
    own = dict(flatten(config))
    return differences(*({"config": {**own, **side["config"]}, "identity": side["identity"]} for side in trained))
