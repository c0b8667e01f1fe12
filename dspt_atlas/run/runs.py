"""One run in its folder: skipped if done, resumed if not, refused if another run is there."""

from __future__ import annotations

import contextlib
import gc
import json
import secrets
from pathlib import Path

import torch
import yaml
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

from dspt_atlas.config.differences import differences
from dspt_atlas.datasets.embedded import backbone_checkpoint
from dspt_atlas.datasets.noise import clean_pairs, names_file
from dspt_atlas.datasets.noisy import clean_class
from dspt_atlas.datasets.reader import ImageDataset, reading_once
from dspt_atlas.environment import host_kind, versions
from dspt_atlas.errors import UserError, one_line
from dspt_atlas.paths import check_output, write_atomically
from dspt_atlas.run.folder import FolderRemovedError, came_to_nothing, hold, log, remove_start
from dspt_atlas.run.identity import described_run
from dspt_atlas.run.records import (
    CONFIG_FILE,
    IDENTITY_FILE,
    RESULT_FILE,
    checkpoint_epochs,
    read_result,
    read_settings,
    run_record,
)
from dspt_atlas.run.tested import check_model_dir, is_zero_shot, retrained, tested_model

ANOTHER = "choose another output folder, or remove this one"


@reading_once()
def run(cfg, eval_only=False, model_dir="", load_epoch=None, no_train=False, config_name=""):
    """Train and evaluate, or only evaluate with eval_only, in cfg.OUTPUT_DIR; return the content of result.json.

    A finished folder is only read; an unfinished run resumes from its last checkpoint. With no_train the trainer is
    only built and None is returned. config_name goes into the result. Raises UserError if the folder belongs to another
    configuration or process.
    """
    _check_resume(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    check_output(folder, "--output-dir")
    data = clean_class(DATASET_REGISTRY.get(cfg.DATASET.NAME))
    if isinstance(data, type) and issubclass(data, ImageDataset):
        data.check_output(cfg, folder)
    if eval_only:
        check_model_dir(model_dir, cfg.TRAINER.NAME)
    now = described_run(cfg)
    evaluated = tested_model(model_dir, load_epoch, now) if eval_only else None
    result = _finished(folder, now, evaluated)
    if result is not None:
        return result
    with hold(folder) as is_new:
        result = _finished(folder, now, evaluated)
        if result is None:
            check_unchanged(folder, read_settings(folder), now)
            if eval_only:
                _check_untrained(folder)
            if cfg.RESUME:
                check_unchanged(cfg.RESUME, read_settings(cfg.RESUME), now)
            result = _run_locked(cfg, now, folder, evaluated, no_train, config_name, is_new)
    return result


def _check_resume(cfg):
    if cfg.RESUME and not any(Path(cfg.RESUME).glob("*/checkpoint")):
        reason = "has none" if Path(cfg.RESUME).is_dir() else "is not a folder"
        raise UserError(f"Expected --resume to be a folder with checkpoints, but {cfg.RESUME} {reason}.")


def _check_untrained(folder):
    if epochs := checkpoint_epochs(folder):
        raise UserError(
            f"{folder} holds a training up to epoch {epochs[-1]}, and a test would take its place: choose another "
            "--output-dir."
        )


def _run_locked(cfg, now, folder, evaluated, no_train, config_name, is_new):
    trainer = None
    _draw_seed(cfg, now, folder)
    try:
        (folder / RESULT_FILE).unlink(missing_ok=True)  # of a checkpoint that no longer exists
        write_atomically(folder / CONFIG_FILE, yaml.safe_dump(now["config"]))  # first: it says that a run is here
        write_atomically(folder / IDENTITY_FILE, json.dumps(now["identity"]) + "\n")
        with log(folder / "log.txt"):
            _print_settings(cfg, evaluated)
            trainer = build(cfg, now["identity"], is_test=evaluated is not None)
            if no_train:
                return None
            _train_or_evaluate(trainer, folder, evaluated)
            result = run_record(cfg, now, trainer, evaluated, config_name)
            write_atomically(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    except BaseException as error:
        if is_new and came_to_nothing(folder, error):
            models, made = ((), ()) if trainer is None else (trainer.get_model_names(), getattr(trainer, "made", ()))
            remove_start(folder, models, made)
        raise
    del trainer
    gc.collect()
    return result


def _draw_seed(cfg, now, folder):
    """Store the drawn seed of a run without a seed, also for resuming; raises UserError for two different seeds."""
    if cfg.SEED < 0:
        kept = [read_settings(source)["identity"] or {} for source in filter(None, (folder, cfg.RESUME))]
        drawn = {seed for identity in kept if isinstance(seed := identity.get("drawn_seed"), int)}
        if len(drawn) > 1:
            raise UserError(
                f"{folder} holds a run with another drawn seed than {cfg.RESUME}: choose another --output-dir."
            )
        now["identity"]["drawn_seed"] = drawn.pop() if drawn else secrets.randbelow(2**31)


def _train_or_evaluate(trainer, folder, evaluated):
    (folder / "failed.json").unlink(missing_ok=True)
    try:
        if evaluated is None:
            trainer.train()
        else:
            trainer.load_model(evaluated["model_dir"], epoch=evaluated["epoch"])
            trainer.test()
    except FolderRemovedError:
        raise
    except Exception as error:
        failure = {"epoch": getattr(trainer, "epoch", 0) + 1, "error": one_line(error)}
        with contextlib.suppress(OSError):
            write_atomically(folder / "failed.json", json.dumps(failure) + "\n")
        raise
    finally:
        trainer.close_writer()


def build(cfg, identity=None, is_test=False):
    """Seed the generators and build the trainer; an embedded backbone's name is replaced by its path.

    identity: for checkpoints; for a run without a seed it holds the drawn seed. is_test: nothing is trained.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if is_test and names_file(cfg.DATASET.NOISE):  # the file fits the training's images, perhaps of other classes
        cfg.merge_from_list(clean_pairs())
    cfg.MODEL.BACKBONE.NAME = backbone_checkpoint(cfg.MODEL.BACKBONE.NAME)
    drawn = (identity or {}).get("drawn_seed")
    if cfg.SEED < 0 and drawn is not None:
        print(f"No seed is set: the seed {drawn} was drawn, and {IDENTITY_FILE} keeps it")
        cfg.SEED = drawn
    cfg.freeze()
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    if cfg.USE_CUDA and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
    elif cfg.USE_CUDA:
        print("Computing on the CPU, because there is no GPU")
    trainer = build_trainer(cfg)
    trainer.identity = {name: value for name, value in (identity or {}).items() if name != "classes"}
    return trainer


def _finished(folder, now, evaluated):
    """Return the result of a finished folder, or None if the run is not done.

    A test is done again if its checkpoint was trained again. Raises UserError if the folder is another run's.
    """
    if not (folder / RESULT_FILE).is_file():
        return None
    result = read_result(folder)
    before = result["evaluated"]
    check_unchanged(folder, result, now)
    if is_zero_shot(now["config"]["TRAINER"]["NAME"]):  # zero-shot gives one number, with --eval-only or without
        before = evaluated = None
    asked = [None if side is None else side.get("epoch") for side in (before, evaluated)]
    if (before is None) != (evaluated is None) or asked[0] != asked[1]:
        raise UserError(
            f"{folder} holds the result of {_described(before)}, not of {_described(evaluated)}: choose another "
            "--output-dir."
        )
    if before is not None and evaluated is not None:
        changes = retrained(before, evaluated, now["config"])
        if changes:
            raise UserError(
                f"{folder} holds the test of another model: the training now has {', '.join(changes)}; choose another "
                "--output-dir, or remove the folder."
            )
        if changes is not None:
            print(f"Testing again: the checkpoint in {evaluated['model_dir']} has changed since the test in {folder}")
            return None
    if not isinstance(result.get("identity"), dict):
        print(f"NOTE: {folder} is of a version that did not record data and weights: they are not compared")
    print(f"Finished already: {folder}{_accuracy(result)}; remove it to run again")
    return result


def _accuracy(result):
    accuracy = result.get("accuracy")
    return "" if accuracy is None else f" (accuracy {accuracy:.1f}%)"


def _described(evaluated):
    if evaluated is None:
        return "a training run"
    return f"evaluating {evaluated.get('model_dir') or 'zero-shot'} (epoch {evaluated.get('epoch')})"


def check_unchanged(folder, before: dict, now: dict, advice: str = ANOTHER) -> None:
    """Raise UserError if the run in a folder is not the one that is asked for; the message has the differences.

    Both have `config` and, if it is known, `identity`. advice: what to do.
    """
    if changes := differences(before, now):
        raise UserError(f"{folder} belongs to another run: this run has {', '.join(changes)}; {advice}.")


def _print_settings(cfg, evaluated):
    for title, content in (("Config", str(cfg)), ("System info", yaml.safe_dump({**versions(), "host": host_kind()}))):
        line = f"** {title} **"
        print("*" * len(line), line, "*" * len(line), content, sep="\n")
    if evaluated is not None:
        print(f"Evaluating {_described(evaluated)}")
