"""One run in its folder: skipped if done, resumed if not, refused if it is another's or its configuration changed."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import platform
import shutil
import signal
import sys
from pathlib import Path

import torch
import yaml
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from filelock import FileLock, Timeout

from .benchmarks import backbone_checkpoint
from .environment import host_kind, is_alive, versions
from .errors import MISTAKES, UserError, one_line
from .launch import flatten
from .paths import write_atomically
from .records import RESULT_FILE, SCHEMA_VERSION, read_json, run_record
from .trainers.monitor import NonFiniteError

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

HOLDER_FILE = ".holder.json"  # beside the lock, which process holds it
SECONDS_OF_WORKERS = 20  # that a data loader's workers may outlive a process that was killed


class Interrupted(BaseException):
    """SIGINT or SIGTERM came; `exit_status` is 130 or 143."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


class FolderRemovedError(FileNotFoundError):
    """The output folder was removed, and perhaps made anew by another process, while a run wrote into it."""


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
    with _lock(folder):
        result = _finished(folder, config, evaluated)
        if result is None:
            _check_unchanged(folder, _read_config(folder), config)
            result = _run_locked(cfg, config, folder, evaluated, no_train, config_name)
    return result


def _run_locked(cfg, config, folder, evaluated, no_train, config_name):
    _remove_leftovers(folder)
    is_new = not (folder / "config.yaml").exists()
    there = _content(folder)
    try:
        write_atomically(folder / "config.yaml", yaml.safe_dump(config))
        with _log(folder / "log.txt"):
            _print_settings(cfg, evaluated)
            trainer = build(cfg)
            if no_train:
                return None
            _train_or_evaluate(trainer, folder, evaluated)
            result = run_record(cfg, config, trainer, evaluated, config_name)
            write_atomically(folder / RESULT_FILE, json.dumps(result, indent=1) + "\n")
    except BaseException as error:
        if is_new and _came_to_nothing(folder, there, error):
            _remove(set(folder.iterdir()) - there)
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


def _content(folder):
    return {*folder.iterdir(), *folder.glob("*/model*")}


def _came_to_nothing(folder, before, error):
    """Return whether a failed start left nothing worth keeping: no checkpoint, and no failure to be looked into."""
    if isinstance(error, (NonFiniteError, FolderRemovedError)):
        return False
    saved = set(folder.glob("*/model*")) - before
    return not saved and isinstance(error, (Interrupted, OSError, *MISTAKES))


def _remove(paths):
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _remove_leftovers(folder):
    """Remove the temporary files of a process that was killed while it wrote."""
    _remove([*folder.glob(".*.json.*"), *folder.glob(".config.yaml.*"), *folder.glob("*/*.tmp[0-9]*")])


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


@contextlib.contextmanager
def _lock(folder):
    """Hold the folder (created if missing); raises UserError, naming the holder, if another process does.

    The operating system drops the lock of a process that died.
    """
    created = next((parent for parent in reversed((folder, *folder.parents)) if not parent.exists()), None)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / HOLDER_FILE
    try:
        _acquire(lock, holder)
        write_atomically(holder, json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n")
        yield
    finally:
        if lock.is_locked:
            holder.unlink(missing_ok=True)
            lock.release()
        if created is not None and folder.is_dir() and not any(path.name != ".lock" for path in folder.iterdir()):
            shutil.rmtree(created)


def _acquire(lock, holder):
    for seconds in (0, SECONDS_OF_WORKERS):
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=seconds)
            return
        pid, host = _read_holder(holder)
        if host != platform.node() or is_alive(pid):
            break
    who = f"process {pid} on {host}" if pid else "another process"
    raise UserError(f"{lock.lock_file[:-6]} is being written by {who}: wait for it, or choose another --output-dir.")


def running_process(folder: Path) -> str | None:
    """Return which process is at a run, as far as its folder tells; None if there is none or it died on this machine.

    The lock itself is left alone, so that looking never refuses a start. Of another machine its last word counts.
    """
    pid, host = _read_holder(Path(folder) / HOLDER_FILE)
    if pid is None or (host == platform.node() and not is_alive(pid)):
        return None
    return f"process {pid} on {host}"


def _read_holder(path):
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return int(holder["pid"]), str(holder["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


class _Tee:
    """A text stream that writes to the console and to a file."""

    def __init__(self, console, file):
        self.console, self.file = console, file

    def __getattr__(self, name):
        return getattr(self.console, name)

    def write(self, text):
        self.console.write(text)
        self.file.write(text)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self):
        self.console.flush()
        self.file.flush()
        if os.fstat(self.file.fileno()).st_nlink == 0:
            folder = os.path.dirname(self.file.name)
            raise FolderRemovedError(errno.ENOENT, "the output folder was removed during the run", folder)


@contextlib.contextmanager
def _log(path):
    """Copy standard output to a file, appending, so that a resumed run has one log."""
    with open(path, "a", encoding="utf-8") as file, contextlib.redirect_stdout(_Tee(sys.stdout, file)):
        if file.tell() and not path.read_bytes().endswith(b"\n"):  # the last line of a process that was killed
            file.write("\n")
        yield


def _print_settings(cfg, evaluated):
    for title, content in (("Config", str(cfg)), ("System info", yaml.safe_dump({**versions(), "host": host_kind()}))):
        line = f"** {title} **"
        print("*" * len(line), line, "*" * len(line), content, sep="\n")
    if evaluated is not None:
        print(f"Evaluating {_described((evaluated['model_dir'], evaluated['epoch']))}")
