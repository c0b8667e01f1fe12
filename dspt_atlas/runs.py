"""One run in its folder: skipped if done, resumed if not, refused if it is another's or its configuration changed."""

from __future__ import annotations

import contextlib
import gc
import json
from pathlib import Path

import torch
import yaml
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

from .benchmarks import backbone_checkpoint
from .environment import host_kind, versions
from .errors import UserError, one_line
from .identity import flatten
from .paths import write_atomically
from .records import RESULT_FILE, SCHEMA_VERSION, read_json, run_record
from .run_folder import FolderRemovedError, came_to_nothing, contents, hold, log, remove, remove_leftovers

# What may differ between two starts of one run: where things are, how they are computed, what is printed.
IRRELEVANT_KEYS = {
    "OUTPUT_DIR",
    "RESUME",
    "VERBOSE",
    "USE_CUDA",
    "DATASET.ROOT",
    "DATALOADER.NUM_WORKERS",
    "INPUT.CACHE_GB",
    "MODEL.CLASS_CHUNK",
    "MODEL.CLIP_DIR",
    "TRAIN.CHECKPOINT_FREQ",
    "TRAIN.PRINT_FREQ",
}


def run(cfg, eval_only=False, model_dir="", load_epoch=None, no_train=False, config_name=""):
    """Train and evaluate, or with eval_only evaluate a trained model, in cfg.OUTPUT_DIR; return what result.json holds.

    A finished folder is only read; an unfinished one goes on from its last checkpoint. With no_train the trainer is
    only built and None is returned. config_name is noted. Raises UserError where the folder belongs to another
    configuration or process.
    """
    if eval_only and not model_dir and not cfg.TRAINER.NAME.startswith("Zeroshot"):
        raise UserError(
            f"--eval-only would score the untrained prompt of {cfg.TRAINER.NAME}: name the output folder of its "
            "training by --model-dir."
        )
    if eval_only and model_dir and not Path(model_dir).is_dir():
        raise UserError(
            f"Expected --model-dir to be the output folder of a training run, but {model_dir} is no folder."
        )
    if cfg.RESUME and not any(Path(cfg.RESUME).glob("*/checkpoint")):
        reason = "has none" if Path(cfg.RESUME).is_dir() else "is no folder"
        raise UserError(f"Expected --resume to be a folder with checkpoints, but {cfg.RESUME} {reason}.")
    folder = Path(cfg.OUTPUT_DIR)
    evaluated = _evaluated(model_dir, load_epoch) if eval_only else None
    config = yaml.safe_load(cfg.dump())
    result = _finished(folder, config, evaluated)
    if result is not None:
        return result
    with hold(folder):
        result = _finished(folder, config, evaluated)
        if result is None:
            _check_unchanged(folder, _read_config(folder), config)
            result = _run_locked(cfg, config, folder, evaluated, no_train, config_name)
    return result


def _run_locked(cfg, config, folder, evaluated, no_train, config_name):
    remove_leftovers(folder)
    is_new = not (folder / "config.yaml").exists()
    there = contents(folder)
    try:
        write_atomically(folder / "config.yaml", yaml.safe_dump(config))
        with log(folder / "log.txt"):
            _print_settings(cfg, evaluated)
            trainer = build(cfg)
            if no_train:
                return None
            _train_or_evaluate(trainer, folder, evaluated)
            result = run_record(cfg, config, trainer, evaluated, config_name)
            write_atomically(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    except BaseException as error:
        if is_new and came_to_nothing(folder, there, error):
            remove(set(folder.iterdir()) - there)
        raise
    del trainer
    gc.collect()
    return result


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


def build(cfg):
    """Seed the generators and build the trainer, with the embedded backbone's name replaced by its path."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.BACKBONE.NAME = backbone_checkpoint(cfg.MODEL.BACKBONE.NAME)
    cfg.freeze()
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    if cfg.USE_CUDA and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
    elif cfg.USE_CUDA:
        print("Computing on the CPU: no GPU is there")
    return build_trainer(cfg)


def _evaluated(model_dir, load_epoch):
    """Return what --eval-only scores: the folder, the epoch, and the data that the model was trained on, if known."""
    evaluated = {"model_dir": model_dir, "epoch": load_epoch, "trained_on": None}
    result = Path(model_dir, RESULT_FILE)
    if model_dir and result.is_file():
        trained = read_json(result)
        evaluated["trained_on"] = {key: trained.get(key) for key in ("dataset", "subsample", "shots", "noise", "seed")}
    return evaluated


def _finished(folder, config, evaluated):
    """Return the result of a finished folder, else None; raises UserError if its configuration is another."""
    if not (folder / RESULT_FILE).is_file():
        return None
    result = read_json(folder / RESULT_FILE)
    if result.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{folder} holds a result of schema version {result.get('schema_version')!r}, not {SCHEMA_VERSION}: choose "
            "another --output-dir, or remove the folder."
        )
    _check_unchanged(folder, result.get("config"), config)
    accuracy = result.get("accuracy")
    try:
        before, now = (
            None if side is None else (side["model_dir"], side["epoch"])
            for side in (result.get("evaluated"), evaluated)
        )
        shown = "" if accuracy is None else f" (accuracy {accuracy:.1f}%)"
    except (KeyError, TypeError, ValueError) as error:
        damage = f"{folder / RESULT_FILE} is damaged ({error})"
        raise UserError(f"{damage}: remove it, and the run is done again.") from error
    if before != now:
        raise UserError(
            f"{folder} holds the result of {_described(before)}, not of {_described(now)}: choose another --output-dir."
        )
    print(f"Finished already: {folder}{shown}; remove it to run again")
    return result


def _described(evaluated):
    return "a training run" if evaluated is None else f"evaluating {evaluated[0] or 'zero-shot'} (epoch {evaluated[1]})"


def _read_config(folder):
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: remove the folder, or choose another --output-dir.")
    return content


def _check_unchanged(folder, before, now):
    if changes := config_changes(before, now):
        raise UserError(
            f"{folder} belongs to another configuration: {', '.join(changes)}; choose another --output-dir, or remove "
            "the folder."
        )


def config_changes(before: dict | None, now: dict) -> list[str]:
    """Return what differs between two configurations of a run, where it matters; keys of one of them alone do not."""
    if not isinstance(before, dict):
        return []
    before, now = dict(flatten(before)), dict(flatten(now))
    return [
        f"{key} {before[key]!r} -> {now[key]!r}"
        for key in now
        if key in before and key not in IRRELEVANT_KEYS and before[key] != now[key]
    ]


def _print_settings(cfg, evaluated):
    for title, content in (("Config", str(cfg)), ("System info", yaml.safe_dump({**versions(), "host": host_kind()}))):
        line = f"** {title} **"
        print("*" * len(line), line, "*" * len(line), content, sep="\n")
    if evaluated is not None:
        print(f"Evaluating {_described((evaluated['model_dir'], evaluated['epoch']))}")
