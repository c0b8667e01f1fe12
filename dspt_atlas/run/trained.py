"""Using a run after its training: its data with the same wrong labels, its prompts, its probabilities."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.config.build import build_cfg
from dspt_atlas.config.files import choose_config, config_path, dataset_path
from dspt_atlas.config.reading import read_yaml
from dspt_atlas.datasets.embedded import backbone_checkpoint
from dspt_atlas.datasets.noise import REAL, NoiseRecord, file_pairs
from dspt_atlas.datasets.reader import reading_once
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.run.identity import model_identity, run_identity
from dspt_atlas.run.records import RESULT_FILE, read_json, read_settings
from dspt_atlas.run.runs import build, check_unchanged
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.features.views import seeded
from dspt_atlas.trainers.kept_classes import CLASSES_FILE, KeptClasses, without_data

AS_TRAINED = "give the data, the root and the weights of its training"
_printing = threading.RLock()


class _OthersOutput:
    """Standard output that drops what one thread prints."""

    def __init__(self):
        self._stream, self._thread = sys.stdout, threading.get_ident()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text):
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self):
        self._stream.flush()


@contextlib.contextmanager
def quiet(verbose: bool = False):
    """Drop lines that trainers print in this thread, because a command's output is its result; one thread at a time."""
    with _printing, contextlib.nullcontext() if verbose else contextlib.redirect_stdout(_OthersOutput()):
        yield


@contextlib.contextmanager
def process_unchanged(verbose: bool = False):
    """Restore the global random generators and cuDNN's choice of algorithms after a block that is also `quiet`."""
    with quiet(verbose), torch.random.fork_rng(range(torch.cuda.device_count())), seeded(0):
        benchmark = torch.backends.cudnn.benchmark
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark


def run_config(folder: Path) -> dict:
    """Return a run's configuration from config.yaml, or from result.json; raises UserError without one."""
    folder = Path(folder)
    if (folder / "config.yaml").is_file():
        return read_yaml(folder / "config.yaml")
    if (folder / RESULT_FILE).is_file():
        config = read_json(folder / RESULT_FILE).get("config")
        if isinstance(config, dict):
            return config
    raise UserError(
        f"Expected the output folder of a run (--output-dir of train.py), but there is no config.yaml in {folder}."
    )


@reading_once()
def open_run(folder: Path, pairs: Sequence[str] = (), root: str = "", epoch: int | None = None, prompts: bool = True):
    """Return the trainer of a run with its data, also its wrong labels, and the prompts that it learned.

    epoch: of the checkpoint, None for the best or newest. pairs: KEY VALUE pairs that override the run's configuration.
    prompts False: the untrained trainer. Raises UserError.
    """
    folder, noise = Path(folder), _noise_of(folder)
    with quiet():
        cfg = run_cfg(folder, pairs, root)
        before = {"identity": _known_identity(folder)}
        check_unchanged(folder, before, {"identity": _identity_now(cfg, prompts)}, AS_TRAINED)
        trainer = build(cfg, before["identity"])
        if noise is not None and list(trainer.dm.dataset.noise.given) != list(noise.given):
            raise UserError(f"{folder} was trained on other labels than {cfg.DATASET.NAME} has now: restore the data.")
        if prompts:
            trainer.load_model(str(folder), epoch=epoch)
    return trainer


def run_cfg(folder: Path, pairs: Sequence[str] = (), root: str = ""):
    """Return the configuration of a run, with the wrong labels that it had; arguments as in `open_run`."""
    noise = _noise_of(folder)
    if noise is not None and noise.family != REAL:  # the data set's own wrong labels are already there
        pairs = [*file_pairs(Path(folder) / "noise.json"), *pairs]
    return build_cfg({"root": root or None}, pairs, run_config(folder))


def _noise_of(folder):
    path = Path(folder) / "noise.json"
    return NoiseRecord.load(path) if path.is_file() else None


def _known_identity(folder):
    """Return the identity of an existing run, with the classes if they are known; None for an old run."""
    settings = read_settings(folder)
    if settings["identity"] is None and (folder / RESULT_FILE).is_file():
        return read_json(folder / RESULT_FILE).get("identity")
    return settings["identity"]


def _identity_now(cfg, prompts):
    """Return the identity that the run would have now; without its prompts, only the data counts."""
    now = {**run_identity(cfg), "noise": None}
    return now if prompts else {"data": now["data"], "classes": now["classes"]}


def open_for_prediction(folder: Path, epoch: int | None = None):
    """Return the trainer of a run for classifying images, with the class names of its training, without its data set.

    epoch: of the checkpoint, None for the best or newest. Raises UserError, also if the class names are not known.
    """
    folder, config = Path(folder), run_config(folder)
    kept = KeptClasses.read(folder)
    keys = {**dict(flatten(config)), **(kept.keys if kept else {}), "INPUT.CACHE": "none", "MODEL.INIT_WEIGHTS": ""}
    with quiet():
        cfg = build_cfg({}, before=keys).clone()
        check_unchanged(folder, {"identity": _known_identity(folder)}, {"identity": model_identity(cfg)}, AS_TRAINED)
        cfg.defrost()
        cfg.MODEL.BACKBONE.NAME = backbone_checkpoint(cfg.MODEL.BACKBONE.NAME)
        kept = kept or _classes_of_result(folder, cfg)
        trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
        if not issubclass(trainer, ClipTrainer):
            raise UserError(f"Expected a run of one of our trainers, but {cfg.TRAINER.NAME} is of another repository.")
        trainer = without_data(trainer, kept)(cfg)
        trainer.load_model(str(folder), epoch=epoch)
    return trainer


def _classes_of_result(folder, cfg):
    """Return the classes from the result of a run without classes.json, and say so; raises UserError without them."""
    result = read_json(folder / RESULT_FILE) if (folder / RESULT_FILE).is_file() else {}
    names = list(result.get("per_class_accuracy") or {})
    # If classes have the same name, the result adds the label.
    is_shared = any(name.endswith(f" ({label})") for label, name in enumerate(names))
    if not names or len(names) != result.get("num_classes") or is_shared:
        raise UserError(
            f"{folder} has no {CLASSES_FILE}, and no {RESULT_FILE} with the names of all classes, so the classes of "
            "its prompts are not known: start its training again, in another folder."
        )
    print(f"NOTE: {folder} has no {CLASSES_FILE}; the class names are those of its {RESULT_FILE}", file=sys.stderr)
    return KeptClasses.of(cfg, SimpleNamespace(classnames=names, templates=_templates(cfg)))


def _templates(cfg):
    return getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "templates", ())


def open_zero_shot(dataset: str, config: str = "", root: str = "", pairs: Sequence[str] = ()):
    """Return the trainer of zero-shot CLIP on a data set: a name from configs/datasets, or a yaml's path.

    config: of the backbone, a name or a yaml's path, or "" for that of the zero-shot protocol. Raises UserError.
    """
    dataset_file = dataset_path(dataset)
    if config:
        chosen = config_path("ZeroshotCLIP", config)
    else:
        chosen = choose_config(("zeroshot",), "ZeroshotCLIP", dataset, 0, tuple(pairs), may_fall_back=True)
    arguments = {
        "root": root or None,
        "trainer": "ZeroshotCLIP",
        "config_file": chosen,
        "dataset_config_file": dataset_file,
        "seed": None if "SEED" in pairs else 1,
    }
    with quiet():
        return build(build_cfg(arguments, list(pairs)))


def probabilities(trainer, items) -> np.ndarray:
    """Return softmax of the logits of items under the test transform, (N, C) float32, in the order of the items."""
    with quiet(), trainer.inferring(trainer.items_loader(items)) as batches:
        return torch.cat([logits.float().softmax(dim=1).cpu() for logits, _ in batches]).numpy()
