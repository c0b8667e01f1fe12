"""A training from one's own program: `dspt_atlas.fit`."""

from __future__ import annotations

import filecmp
import inspect
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY

from dspt_atlas import register_standard
from dspt_atlas.config.build import build_cfg
from dspt_atlas.config.files import choose_config, config_path, dataset_path
from dspt_atlas.config.reading import check_choice, is_yaml, own_reader
from dspt_atlas.datasets.embedded import BACKBONES
from dspt_atlas.errors import UserError
from dspt_atlas.paths import caching_in, check_output, expand_home, temporary_name
from dspt_atlas.run.given import write_splits
from dspt_atlas.run.model import Model, load
from dspt_atlas.run.records import CONFIG_FILE
from dspt_atlas.run.runs import run
from dspt_atlas.run.trained import process_unchanged
from dspt_atlas.trainers.clip.photos import NAME as PHOTOS
from dspt_atlas.trainers.registry import NO_METHOD, configuration, pair_of

DATA = "data"  # below a run's folder: the split file of a list or Dataset, and the pictures that were no files


def fit(
    dataset,
    learner: str = "CoOp",
    method: str = "DSPT",
    shots: int | None = 16,
    seed: int = 1,
    backbone: str | None = None,
    epochs: int | None = None,
    output: str | os.PathLike | None = None,
    *,
    val=None,
    test=None,
    classnames: Sequence[str] | None = None,
    config: str | None = None,
    verbose: bool = False,
    **options,
) -> Model:
    """Train as `dspt-atlas train` does with the same configuration and seed, and return the model, as `load` does.

    dataset: the path of a folder, table or split JSON, or a data set's name or yaml (docs/datasets.md); or a list of
    (image, label), or a torch Dataset of such samples. In these, labels are names, or numbers of `classnames`, by
    default of the Dataset's `classes`; `val` and `test` are of the same kinds, and without `test` each class is split
    50/20/30. shots: training images per class, None for all. config: a name or a yaml, None for the learner's for
    few-shot; then another backbone takes the place of one whose weights cannot be had, with a warning. options:
    configuration keys, such as OPTIM__LR=0.01 or **{"OPTIM.LR": 0.01}. output: the run's folder; without it no file
    is left. verbose: print what the command prints. Raises UserError, a ValueError.
    """
    register_standard()
    _check_words(learner, method, options)
    trainer = learner + (method if method != NO_METHOD and pair_of(learner).learns else "")
    check_choice("trainer", trainer, TRAINER_REGISTRY.registered_names(), "learner= and method=")
    pairs = {"DATALOADER.NUM_WORKERS": 0, **{key.replace("__", "."): value for key, value in options.items()}}
    pairs |= {"DATASET.NUM_SHOTS": -1 if shots is None else shots}
    pairs |= {} if epochs is None else {"OPTIM.MAX_EPOCH": epochs}
    pairs |= {} if backbone is None else {"MODEL.BACKBONE.NAME": backbone}
    with tempfile.TemporaryDirectory(prefix="dspt-atlas-") as made, process_unchanged(verbose):
        home = Path(made, "run") if output is None else expand_home(output).absolute()
        check_output(home, "output")
        with caching_in(Path(made, "cache") if output is None else None):
            named, own = _source(dataset, {"val": val, "test": test}, classnames, Path(made, DATA), home / DATA)
            path = config_path(trainer, config) if config else _configuration(trainer, named, shots or 0, pairs)
            files = {"config_file": path, "dataset_config_file": dataset_path(named) if named else None}
            cfg = build_cfg(
                {"trainer": trainer, "seed": seed, "output_dir": str(home), **files},
                [part for pair in {**pairs, **own}.items() for part in pair],
            )
            with _placed(Path(made, DATA), home):
                run(cfg, config_name=path.stem)
            return load(home)


def _check_words(learner, method, options):
    """Raise UserError unless both are names that can be joined to a trainer's, and the options are keys."""
    for name in filter(str.islower, options):
        check_choice("argument of fit", name, list(inspect.signature(fit).parameters)[:-1], "fit's signature")
    for option, word in (("learner", learner), ("method", method)):
        if not isinstance(word, str):
            raise UserError(f"Expected {option} to be a name, got {word!r}; cross-entropy is method={NO_METHOD!r}.")
    if (own := pair_of(learner)).learns and own.method not in ("", NO_METHOD):
        raise UserError(f'{learner} is a learner with a method: give learner="{own.learner}", method="{own.method}".')


def _source(dataset, others, classnames, folder, later) -> tuple[str, dict[str, str]]:
    """Return the name or yaml of a data set, or "", and the keys of one's own data.

    Samples are written into `folder`, but the keys name the place where it will be `later`.
    """
    others = {split: data for split, data in others.items() if data is not None}
    if not isinstance(dataset, (str, os.PathLike)):
        name, images = write_splits(folder, {"train": dataset, **others}, classnames)
        return "", _own("OwnSplit", later / name) | {"DATASET.OWN.IMAGES": str(later / images)}
    if others or classnames is not None:
        raise UserError("val, test and classnames belong to a list or a torch Dataset: leave them out with a path.")
    path = expand_home(dataset).absolute()
    reader = own_reader(path) if os.fspath(dataset) else ""  # "" would be the current folder
    if reader == "OwnFolder" or (reader and not is_yaml(path.name)):
        return "", _own(reader, path)
    try:
        dataset_path(str(dataset))
    except UserError:
        raise UserError(
            f"There is no folder, file or data set {str(dataset)!r}: give the path of a folder, a table or a split "
            "JSON, a list of (image, label), or the name or yaml of a data set, such as caltech101."
        ) from None
    return str(dataset), {}


def _own(kind, path):
    return {"DATASET.NAME": kind, "DATASET.OWN.PATH": str(path)}


def _configuration(trainer, dataset, shots, pairs) -> Path:
    """Return the learner's configuration for a backbone of ours, or for few-shot; warn if a backbone is replaced."""
    backbone = str(pairs.get("MODEL.BACKBONE.NAME", ""))
    if backbone.startswith(PHOTOS) or backbone in BACKBONES:  # PhotoEN-MiniLM too
        return config_path(trainer, configuration(trainer, "embedded" if backbone in BACKBONES else "photos"))
    notes: list[str] = []
    words = tuple(str(part) for pair in pairs.items() for part in pair)
    protocol = "fewshot" if pair_of(trainer).learns else "zeroshot"
    path = choose_config((protocol,), trainer, dataset or "own", shots, words, may_fall_back=True, say=notes.append)
    if notes:
        warnings.warn(" ".join(notes), stacklevel=3)
    return path


@contextmanager
def _placed(made: Path, home: Path):
    """Move a folder of samples, if there is one, into a run's folder; if the run comes to nothing, remove it there.

    Raises UserError if the run's folder has other samples.
    """
    place, is_new = home / DATA, made.is_dir() and not (home / DATA).exists()
    if is_new:
        home.mkdir(parents=True, exist_ok=True)
        temporary = home / temporary_name(DATA)
        shutil.move(made, temporary)
        temporary.rename(place)
    elif made.is_dir():
        files = [str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()]
        if len(filecmp.cmpfiles(made, place, files, shallow=False)[0]) < len(files):
            raise UserError(f"{place} holds other images or labels: choose another output, or remove the folder.")
    try:
        yield
    finally:
        if is_new and not (home / CONFIG_FILE).exists():
            shutil.rmtree(place)
            with suppress(OSError):  # not empty
                home.rmdir()
