"""What each configuration key needs to have an effect: a method, an optimiser, a transform, some data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import clip
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from dspt_atlas.datasets.cifar import CIFARN
from dspt_atlas.datasets.own import OwnDataset, OwnFolder, OwnSplit
from dspt_atlas.datasets.reader import ImageDataset
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.learners.prompts import MOST_MAPLE_WORDS
from dspt_atlas.trainers.registry import COOP_METHODS, METHODS, STANDARD_TRAINERS
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

OFF = (False, "", 0, -1, [], "none", "all")  # a key that is switched off promises nothing
# TRAINER.<NODE>: the class whose trainers read it.
NODES = {
    **{trainer.config_node: trainer for trainer in STANDARD_TRAINERS if getattr(trainer, "config_node", "")},
    **{name.upper(): method for name, method in (METHODS | COOP_METHODS).items()},
    "ZEROSHOT": ZeroshotCLIP,
}
TRAINING = (
    "OPTIM.*", "TRAIN.GRADIENT_PROFILE", "DATALOADER.TRAIN_X.*", "INPUT.VIEWS", "MODEL.INIT_WEIGHTS", "RESUME",
    "TEST.PERIOD", "TEST.NEW_CLASSES", "TEST.FINAL_MODEL",
)  # fmt: skip
LEARNERS = ("TRAINER.COOP.*", "TRAINER.COCOOP.*", "TRAINER.MAPLE.*")
METHOD_NODES = tuple(f"TRAINER.{name.upper()}.*" for name in METHODS | COOP_METHODS)


def is_ours(trainer: object) -> bool:
    """Return whether a trainer is one of this package: what others read is not known."""
    is_ours = isinstance(trainer, type) and issubclass(trainer, ClipTrainer)
    return is_ours and trainer.__module__.startswith("dspt_atlas.trainers.")


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Return whether a key is one of these, in which * stands for anything."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Run:
    """What a run will be: configuration, options of train.py, and where its keys were given."""

    cfg: CfgNode
    options: dict
    command: set[str]
    files: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    trained: dict | None = None  # the flat configuration of the training that --eval-only tests
    otherwise: dict = field(default_factory=dict)  # the flat configuration without the command line

    @property
    def trainer(self) -> type | None:
        """Return the trainer's class, None where it is none of ours."""
        trainer = TRAINER_REGISTRY.get(self.cfg.TRAINER.NAME)
        return trainer if is_ours(trainer) else None

    @property
    def dataset(self) -> type:
        """Return the data set's class, without label noise."""
        dataset = DATASET_REGISTRY.get(self.cfg.DATASET.NAME)
        return getattr(dataset, "clean_class", dataset)

    @property
    def is_evaluation(self) -> bool:
        """Return whether a trained model is only tested."""
        return bool(self.options.get("eval_only"))

    @property
    def is_zero_shot(self) -> bool:
        """Return whether nothing is learned."""
        return self.trainer is not None and issubclass(self.trainer, ZeroshotCLIP)

    @property
    def has_noise(self) -> bool:
        """Return whether label noise is asked for."""
        return self.cfg.DATASET.NOISE.TYPE != "none" or bool(self.cfg.DATASET.NOISE.FILE)

    def is_data(self, *classes: type) -> bool:
        """Return whether the data set is of one of these classes."""
        return isinstance(self.dataset, type) and issubclass(self.dataset, classes)

    def value(self, key: str):
        """Return a key's value, tuples as lists."""
        node = self.cfg
        for part in key.split("."):
            node = node[part]
        return list(node) if isinstance(node, tuple) else node

    def given(self, *patterns: str) -> list[str]:
        """Return the keys that a person gave, of those that match, in alphabetical order."""
        return sorted(key for key in self.command | self.files if matches(key, patterns))

    def is_off(self, key: str) -> bool:
        """Return whether a key's value switches it off, or is what it would be if the key were not given."""
        return self.value(key) in OFF or (key in self.command and self.value(key) == self.otherwise.get(key))


@dataclass(frozen=True)
class Need:
    """Keys by pattern, the condition under which they have an effect, and that condition in words."""

    keys: tuple[str, ...]
    has_effect: Callable[[Run], bool]
    words: str


def _optimiser(*names):
    return lambda run: run.cfg.OPTIM.NAME in names


def _transform(*names):
    return lambda run: any(name in run.cfg.INPUT.TRANSFORMS for name in names)


def _soft_labels(*kinds):
    return lambda run: not _is_atlas(run) or run.cfg.TRAINER.ATLAS.SOFT_LABELS in kinds


def _is_atlas(run):
    return run.trainer is not None and issubclass(run.trainer, METHODS["ATLaS"])


def _is_data(*classes):
    return lambda run: run.is_data(*classes)


NEEDS = (
    Need(("OPTIM.MOMENTUM",), _optimiser("sgd", "rmsprop"), "OPTIM.NAME sgd or rmsprop"),
    Need(("OPTIM.SGD_*",), _optimiser("sgd"), "OPTIM.NAME sgd"),
    Need(("OPTIM.RMSPROP_ALPHA",), _optimiser("rmsprop"), "OPTIM.NAME rmsprop"),
    Need(
        ("OPTIM.ADAM_*",), _optimiser("adam", "amsgrad", "radam", "adamw"), "OPTIM.NAME adam, amsgrad, radam or adamw"
    ),
    Need(("OPTIM.NEW_LAYERS", "OPTIM.BASE_LR_MULT"), lambda run: run.cfg.OPTIM.STAGED_LR, "OPTIM.STAGED_LR True"),
    Need(
        ("OPTIM.STEPSIZE", "OPTIM.GAMMA"),
        lambda run: run.cfg.OPTIM.LR_SCHEDULER != "cosine",
        "OPTIM.LR_SCHEDULER single_step or multi_step",
    ),
    Need(("OPTIM.WARMUP_[!E]*",), lambda run: run.cfg.OPTIM.WARMUP_EPOCH > 0, "OPTIM.WARMUP_EPOCH above 0"),
    Need(("OPTIM.WARMUP_CONS_LR",), lambda run: run.cfg.OPTIM.WARMUP_TYPE == "constant", "OPTIM.WARMUP_TYPE constant"),
    Need(("OPTIM.WARMUP_MIN_LR",), lambda run: run.cfg.OPTIM.WARMUP_TYPE == "linear", "OPTIM.WARMUP_TYPE linear"),
    Need(("INPUT.CROP_PADDING",), _transform("random_crop"), "random_crop in INPUT.TRANSFORMS"),
    Need(("INPUT.RRCROP_SCALE",), _transform("random_resized_crop"), "random_resized_crop in INPUT.TRANSFORMS"),
    Need(("INPUT.CUTOUT_*",), _transform("cutout"), "cutout in INPUT.TRANSFORMS"),
    Need(("INPUT.GN_*",), _transform("gaussian_noise"), "gaussian_noise in INPUT.TRANSFORMS"),
    Need(
        ("INPUT.RANDAUGMENT_N",),
        _transform("randaugment", "randaugment_fixmatch", "randaugment2"),
        "randaugment, randaugment2 or randaugment_fixmatch in INPUT.TRANSFORMS",
    ),
    Need(("INPUT.RANDAUGMENT_M",), _transform("randaugment"), "randaugment in INPUT.TRANSFORMS"),
    Need(("INPUT.COLORJITTER_*",), _transform("colorjitter"), "colorjitter in INPUT.TRANSFORMS"),
    Need(("INPUT.RGS_P",), _transform("randomgrayscale"), "randomgrayscale in INPUT.TRANSFORMS"),
    Need(("INPUT.GB_*",), _transform("gaussian_blur"), "gaussian_blur in INPUT.TRANSFORMS"),
    Need(("INPUT.PIXEL_*",), _transform("normalize"), "normalize in INPUT.TRANSFORMS"),
    Need(
        ("DATALOADER.TRAIN_X.N_DOMAIN",),
        lambda run: run.cfg.DATALOADER.TRAIN_X.SAMPLER == "RandomDomainSampler",
        "DATALOADER.TRAIN_X.SAMPLER RandomDomainSampler",
    ),
    Need(
        ("DATALOADER.TRAIN_X.N_INS",),
        lambda run: run.cfg.DATALOADER.TRAIN_X.SAMPLER == "RandomClassSampler",
        "DATALOADER.TRAIN_X.SAMPLER RandomClassSampler",
    ),
    Need(
        (
            "MODEL.HEAD.*",
            "MODEL.BACKBONE.PRETRAINED",
            "TRAIN.COUNT_ITER",
            "DATALOADER.TRAIN_U.*",
            "DATALOADER.K_TRANSFORMS",
            "DATALOADER.RETURN_IMG0",
        ),
        lambda run: run.trainer is None,
        "a trainer of another repository",
    ),
    Need(
        (
            "DATASET.NUM_LABELED",
            "DATASET.VAL_PERCENT",
            "DATASET.STL10_FOLD",
            "DATASET.CIFAR_C_*",
            "DATASET.ALL_AS_UNLABELED",
        ),
        lambda run: not run.is_data(ImageDataset),
        "a data set of another repository",
    ),
    Need(
        ("DATASET.SOURCE_DOMAINS", "DATASET.TARGET_DOMAINS"),
        lambda run: bool(getattr(run.dataset, "domains", True)),
        "a data set with domains",
    ),
    Need(
        ("DATASET.NOISE.SEED", "DATASET.NOISE.PER_CLASS", "DATASET.NOISE.FAMILY"),
        lambda run: run.has_noise or "DATASET.NOISE.TYPE" in run.command,  # one line serves clean and noisy runs
        "DATASET.NOISE.TYPE",
    ),
    Need(
        ("DATASET.NOISE.SEED", "DATASET.NOISE.PER_CLASS", "DATASET.NOISE.FAMILY"),
        lambda run: not run.cfg.DATASET.NOISE.FILE,
        "an empty DATASET.NOISE.FILE, whose labels are used as they are",
    ),
    Need(
        ("DATASET.NOISE.PER_CLASS",),
        lambda run: run.cfg.DATASET.NOISE.FAMILY != "swap",
        "DATASET.NOISE.FAMILY relabel, since swap counts within each class",
    ),
    Need(("DATASET.OWN.*",), _is_data(OwnDataset), "OwnFolder, OwnSplit or OwnCSV as data set"),
    Need(
        ("DATASET.OWN.IMAGES",),
        lambda run: not run.is_data(OwnFolder),
        "OwnSplit or OwnCSV as data set, since OwnFolder names its images by DATASET.OWN.PATH",
    ),
    Need(("DATASET.OWN.SPLIT_SEED",), lambda run: not run.is_data(OwnSplit), "OwnFolder or OwnCSV as data set"),
    Need(("DATASET.CIFARN.*",), _is_data(CIFARN), "CIFAR10N or CIFAR100N as data set"),
    Need(
        ("MODEL.CLIP_DIR",),
        lambda run: run.cfg.MODEL.BACKBONE.NAME in clip.available_models(),
        "a backbone of OpenAI's, by its name",
    ),
    Need(
        ("TRAINER.MAPLE.CTX_INIT",),
        lambda run: run.cfg.TRAINER.MAPLE.N_CTX <= MOST_MAPLE_WORDS,
        f"TRAINER.MAPLE.N_CTX of at most {MOST_MAPLE_WORDS}, above which the family's context is random",
    ),
    Need(("TRAINER.ATLAS.CSL_*",), _soft_labels("csl"), "TRAINER.ATLAS.SOFT_LABELS csl"),
    Need(("TRAINER.ATLAS.ISL_*",), _soft_labels("isl"), "TRAINER.ATLAS.SOFT_LABELS isl"),
    Need(("TRAINER.ATLAS.TEMPLATE",), _soft_labels("csl", "isl"), "TRAINER.ATLAS.SOFT_LABELS csl or isl"),
    Need(
        ("TRAINER.ATLAS.HARD_LOSS",),
        lambda run: not _is_atlas(run) or run.cfg.TRAINER.ATLAS.PERIOD > 1,
        "TRAINER.ATLAS.PERIOD above 1, since with 1 each epoch has soft labels",
    ),
)
