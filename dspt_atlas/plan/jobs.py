"""The runs that a protocol consists of, as arguments of train.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dspt_atlas.config.benchmarks import CROSS_DATASET, DOMAIN_GENERALISATION, EMBEDDED
from dspt_atlas.config.build import read_yaml
from dspt_atlas.config.effect import used_pairs
from dspt_atlas.config.keys import flatten
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.paths import CONFIGS, expand_home
from dspt_atlas.trainers.clip.model import checkpoint_path

EMBEDDED_CONFIGS = {"CoOp": "emoji_rn", "CoCoOp": "emoji_rn", "MaPLe": "emoji_vit"}
_COCOOP, _MAPLE = "vit_b16_c4_ep10_batch1_ctxv1", "vit_b16_c2_ep5_batch4_2ctx"
# What the papers use for each protocol; CoOp's few-shot configurations depend on the shots.
DEFAULT_CONFIGS = {
    "noisy": {"CoOp": "rn50_ep50", "CoCoOp": _COCOOP, "MaPLe": _MAPLE},
    "fewshot": {"CoOp": "rn50", "CoCoOp": _COCOOP, "MaPLe": _MAPLE},
    "zeroshot": {"CoOp": "rn50"},
    "base2new": {"CoOp": "vit_b16_ep50_ctxv1", "CoCoOp": _COCOOP, "MaPLe": _MAPLE},
    "transfer": {"CoOp": "vit_b16_ep50", "CoCoOp": _COCOOP, "MaPLe": f"{_MAPLE}_cross_datasets"},
}
FEWSHOT_COOP = {1: "rn50_ep50", 2: "rn50_ep100", 4: "rn50_ep100"}  # 8 and 16: rn50
SWAP_TYPES = ("symflip", "pairflip")


@dataclass(frozen=True)
class Settings:
    """What the jobs of one call share.

    `root` is "" where --root is not given. `pairs` are trailing KEY VALUE pairs, `config` is "" for the protocol's own,
    `label` goes into the folders' names.
    """

    root: str
    output: Path
    seeds: tuple[int, ...]
    config: str = ""
    soft_labels: str = ""
    pairs: tuple[str, ...] = ()
    may_fall_back: bool = True
    label: str = ""


def learner_of(trainer: str) -> str:
    """Return the prompt learner whose configurations a trainer uses; raises UserError."""
    if trainer.startswith("Zeroshot"):
        return "CoOp"
    learners = [folder.name for folder in (CONFIGS / "trainers").iterdir() if folder.is_dir()]
    fitting = [learner for learner in learners if trainer.startswith(learner)]
    if not fitting:
        raise UserError(
            f"No configurations for {trainer} in {CONFIGS / 'trainers'}: add a folder named like its prompt learner."
        )
    return max(fitting, key=len)


def config_path(trainer: str, name: str) -> Path:
    """Return the yaml of a configuration: a path as it is, a name from the trainer's or its prompt learner's folder."""
    if name.endswith((".yaml", ".yml")):
        return expand_home(name).resolve()
    folders = [CONFIGS / "trainers" / folder for folder in (trainer, learner_of(trainer))]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    there = sorted(path.stem for path in folders[-1].glob("*.yaml"))
    raise UserError(
        f'There is no configuration "{name}" for {trainer}; there are {", ".join(there)}, or name a yaml file.'
    )


def choose_config(protocol: str, trainer: str, dataset: str, shots: int, settings: Settings) -> Path:
    """Return the configuration that is asked for, else the embedded one for embedded data, else the protocol's own.

    Where OpenAI's weights of the protocol's own cannot be had, the embedded backbone takes their place, and says so.
    """
    if settings.config:
        return config_path(trainer, settings.config)
    learner = learner_of(trainer)
    if dataset in EMBEDDED:
        return config_path(trainer, EMBEDDED_CONFIGS[learner])
    name = DEFAULT_CONFIGS[protocol][learner]
    if protocol == "fewshot" and learner == "CoOp":
        name = "rn50_ep50" if dataset == "imagenet" else FEWSHOT_COOP.get(shots, name)
    path = config_path(trainer, name)
    reason = _missing_weights(path, settings.pairs) if settings.may_fall_back else None
    if reason is None:
        return path
    print(
        f"NOTE: {reason}\nNOTE: until then the small embedded backbone is used (--config {EMBEDDED_CONFIGS[learner]}); "
        "its results are no results of CLIP.",
        file=sys.stderr,
    )
    return config_path(trainer, EMBEDDED_CONFIGS[learner])


_KNOWN_WEIGHTS = {}


def _missing_weights(config: Path, pairs: tuple[str, ...]) -> str | None:
    """Return why the weights of a configuration's backbone cannot be had, or None."""
    overrides = dict(zip(pairs[::2], pairs[1::2], strict=False))
    model = read_yaml(config).get("MODEL", {})
    backbone = overrides.get("MODEL.BACKBONE.NAME", model.get("BACKBONE", {}).get("NAME", ""))
    key = (backbone, overrides.get("MODEL.CLIP_DIR"))
    if key not in _KNOWN_WEIGHTS:
        try:
            checkpoint_path(*key)
            _KNOWN_WEIGHTS[key] = None
        except UserError as error:
            _KNOWN_WEIGHTS[key] = str(error)
    return _KNOWN_WEIGHTS[key]


def dataset_path(name: str) -> Path:
    """Return the yaml of a data set: a path as it is, a name from configs/datasets; raises UserError."""
    if name.endswith((".yaml", ".yml")):
        return expand_home(name).resolve()
    path = CONFIGS / "datasets" / f"{name}.yaml"
    if not path.is_file():
        there = sorted(path.stem for path in path.parent.glob("*.yaml"))
        raise UserError(f'There is no data set "{name}"; there are {", ".join(there)}, or name a yaml file.')
    return path


def named_root(dataset: str, config: str, pairs: tuple[str, ...]) -> str:
    """Return the DATASET.ROOT that pairs, a configuration's file or a data set's name, the first of these; "" if none does."""
    files = [path for path in (dataset_path(dataset), config) if str(path).endswith((".yaml", ".yml"))]
    named = dict(item for path in files for item in flatten(read_yaml(path)))
    return str({**named, **dict(zip(pairs[::2], pairs[1::2], strict=True))}.get("DATASET.ROOT") or "")


def root_argument(dataset: str, config: str, settings: Settings) -> str:
    """Return the --root of a run: as given, "" where a yaml names one, else $DATA, else data."""
    if settings.root or named_root(dataset, config, settings.pairs):
        return settings.root
    return str(expand_home(os.environ.get("DATA") or "data").absolute())  # a sweep's runs may start in another folder


class Planner:
    """Makes the jobs of one trainer and protocol, in the family's folders.

    Of the pairs, which several trainers may share, a job gets those that its trainer can depend on.
    """

    def __init__(self, settings: Settings, protocol: str, trainer: str):
        self.settings = replace(settings, pairs=used_pairs(trainer, settings.pairs))
        self.protocol, self.trainer = protocol, trainer

    def _job(self, folder, dataset, config, seed, shots, *pairs, model_dir=None):
        settings = self.settings
        arguments = ["--dataset-config-file", str(dataset_path(dataset)), "--config-file", str(config)]
        arguments += ["--trainer", self.trainer, "--seed", str(seed), "--output-dir", str(folder)]
        if dataset not in EMBEDDED and (root := root_argument(dataset, str(config), settings)):
            arguments += ["--root", root]
        if model_dir is not None:
            arguments += ["--eval-only", "--model-dir", str(model_dir)]
        arguments += ["DATASET.NUM_SHOTS", str(shots), *pairs]
        if self._uses_soft_labels():
            arguments += ["TRAINER.ATLAS.SOFT_LABELS", settings.soft_labels]
        return Job(folder, (*arguments, *settings.pairs))

    def _uses_soft_labels(self):
        return bool(self.settings.soft_labels) and self.trainer.endswith("ATLaS")

    def _config(self, dataset, shots):
        """Return the configuration and the name of its folder."""
        path = choose_config(self.protocol, self.trainer, dataset, shots, self.settings)
        parts = (path.stem, self.settings.soft_labels if self._uses_soft_labels() else "", self.settings.label)
        return path, "_".join(filter(None, parts))

    def _tails(self, dataset, shots):
        """Yield (configuration, {trainer}/{cfg}/seed{s}, seed) for every seed."""
        config, name = self._config(dataset, shots)
        for seed in self.settings.seeds:
            yield config, Path(self.trainer, name, f"seed{seed}"), seed

    def noisy(self, dataset: str, shots: int, noise_type: str, rate: float) -> Iterator[Job]:
        """Yield training under label noise."""
        family = "swap" if noise_type in SWAP_TYPES else "relabel"
        setting = "clean" if noise_type == "none" else f"{noise_type}_{rate:g}"
        pairs = ("DATASET.NOISE.TYPE", noise_type)
        pairs += () if noise_type == "none" else ("DATASET.NOISE.RATE", f"{rate:g}")
        pairs += ("DATASET.NOISE.FAMILY", family) if family == "swap" else ()
        for config, tail, seed in self._tails(dataset, shots):
            folder = self.settings.output / "noisy" / Path(dataset).stem / setting / f"shots_{shots}" / tail
            yield self._job(folder, dataset, config, seed, shots, *pairs)

    def fewshot(self, dataset: str, shots: int) -> Iterator[Job]:
        """Yield clean training on all classes."""
        for config, tail, seed in self._tails(dataset, shots):
            folder = self.settings.output / "fewshot" / Path(dataset).stem / f"shots_{shots}" / tail
            yield self._job(folder, dataset, config, seed, shots)

    def base2new(self, dataset: str, shots: int) -> Iterator[Job]:
        """Yield training on the base classes, which ends with their test, and the test on the new classes."""
        for config, tail, seed in self._tails(dataset, shots):
            train, test = (
                self.settings.output / "base2new" / part / Path(dataset).stem / f"shots_{shots}" / tail
                for part in ("train_base", "test_new")
            )
            key = "DATASET.SUBSAMPLE_CLASSES"
            yield self._job(train, dataset, config, seed, shots, key, "base")
            yield self._job(test, dataset, config, seed, shots, key, "new", model_dir=train)

    def transfer(self, source: str, shots: int, targets: tuple[str, ...]) -> Iterator[Job]:
        """Yield training on a source and tests on targets, which share the source's configuration."""
        config, name = self._config(source, shots)
        for seed in self.settings.seeds:
            tail = Path(self.trainer, f"{name}_{shots}shots")
            train = self.settings.output / Path(source).stem / tail / f"seed{seed}"
            yield self._job(train, source, config, seed, shots)
            for target in targets:
                folder = self.settings.output / "evaluation" / tail / Path(target).stem / f"seed{seed}"
                yield self._job(folder, target, config, seed, shots, model_dir=train)


def default_targets(protocol: str, source: str) -> tuple[str, ...]:
    """Return the targets of a source in cross-dataset or domain generalisation; raises UserError if it has none."""
    table = CROSS_DATASET if protocol == "crossdataset" else DOMAIN_GENERALISATION
    if source not in table:
        raise UserError(
            f"There are no targets for the source {source}: name them by --targets, or use one of {', '.join(table)}."
        )
    return table[source]
