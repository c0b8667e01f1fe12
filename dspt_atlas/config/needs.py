"""A run before it starts: trainer, data, and where keys were given; they decide which keys have an effect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeGuard

import clip
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from dspt_atlas.datasets.noise import names_file
from dspt_atlas.datasets.noisy import clean_class
from dspt_atlas.keys.declare import node_of
from dspt_atlas.trainers.clip_trainer import ClipTrainer
from dspt_atlas.trainers.declare import LEARNERS, METHODS
from dspt_atlas.trainers.zeroshot import ZeroshotCLIP

OFF = (False, "", 0, -1, [], "none", "all")  # a key that is switched off needs nothing


def is_ours(trainer: object) -> TypeGuard[type[ClipTrainer]]:
    """Return whether a trainer belongs to this package; the keys that other trainers read are not known."""
    is_one = isinstance(trainer, type) and issubclass(trainer, ClipTrainer)
    return is_one and trainer.__module__.startswith("dspt_atlas.trainers.")


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Return whether a key is one of these, in which * stands for anything."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def nodes_of(trainer: object) -> tuple[str, ...]:
    """Return the groups TRAINER.<NODE> that a trainer's learner, its head and its method read."""
    return tuple(filter(None, (getattr(trainer, name, "") for name in ("config_node", "head_node", "method_node"))))


def is_of_learner(key: str) -> bool:
    """Return whether a key is a prompt learner's."""
    return node_of(key) in {node for learner in LEARNERS.values() for node in nodes_of(learner)}


def is_of_method(key: str) -> bool:
    """Return whether a key is a method's."""
    return node_of(key) in {method.method_node for method in METHODS.values()}


@dataclass(frozen=True)
class Run:
    """A run before it starts: configuration, options of train.py, and where its keys were given."""

    cfg: CfgNode
    options: dict
    command: set[str]
    files: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    trained: dict | None = None  # the flat configuration of the training that --eval-only tests
    otherwise: dict = field(default_factory=dict)  # the flat configuration without the command line

    @property
    def trainer(self) -> type | None:
        """Return the trainer's class, or None if it is not ours."""
        trainer = TRAINER_REGISTRY.get(self.cfg.TRAINER.NAME)
        return trainer if is_ours(trainer) else None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the nodes TRAINER.<NODE> of learner and method, also of another repository's trainer if it says so."""
        return nodes_of(TRAINER_REGISTRY.get(self.cfg.TRAINER.NAME))

    @property
    def dataset(self) -> type:
        """Return the data set's class, without label noise."""
        return clean_class(DATASET_REGISTRY.get(self.cfg.DATASET.NAME))

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
        noise = self.cfg.DATASET.NOISE
        return noise.TYPE != "none" or names_file(noise)

    @property
    def has_backbone_of_openai(self) -> bool:
        """Return whether the backbone has one of OpenAI's names."""
        return self.cfg.MODEL.BACKBONE.NAME in clip.available_models()

    def is_data(self, *names: str) -> bool:
        """Return whether the data set belongs to one of our classes with these names."""
        bases = self.dataset.__mro__ if isinstance(self.dataset, type) else ()
        return any(base.__name__ in names and base.__module__.startswith("dspt_atlas.datasets.") for base in bases)

    def value(self, key: str):
        """Return a key's value, tuples as lists."""
        node = self.cfg
        for part in key.split("."):
            node = node[part]
        return list(node) if isinstance(node, tuple) else node

    def given(self, *patterns: str) -> list[str]:
        """Return the given keys that match, in alphabetical order."""
        return sorted(key for key in self.command | self.files if matches(key, patterns))

    def is_off(self, key: str) -> bool:
        """Return whether a key's value switches it off, or is the value that it has if the key is not given."""
        return self.value(key) in OFF or (key in self.command and self.value(key) == self.otherwise.get(key))
