"""The identity of a run that a configuration describes: its data, its backbone, its noise, and its code's revisions."""

from __future__ import annotations

import os

from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from dspt_atlas.config.build import plain
from dspt_atlas.config.roles import data_keys
from dspt_atlas.datasets.digest import data_identity, templates_digest
from dspt_atlas.datasets.embedded import backbone_checkpoint
from dspt_atlas.datasets.own_noise import noise_digest
from dspt_atlas.digests import file_digest
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import flatten
from dspt_atlas.keys.identities import FIRST_REVISIONS
from dspt_atlas.trainers.clip import model as clip_model

_DATA: dict[tuple, dict] = {}


def described_run(cfg, fresh: bool = True) -> dict:
    """Return `config` and `identity` of the run that a configuration describes, as in its files."""
    return {"config": plain(cfg), "identity": run_identity(cfg, fresh)}


def run_identity(cfg, fresh: bool = True) -> dict:
    """Return the digests of a run's data, templates, backbone, noise file and weights, and its code's revisions.

    `classes` describes the data by split and class. Not `fresh`: data that this process has read before is not read
    again. Raises UserError if data, weights or noise cannot be read.
    """
    data = _data(cfg, fresh)
    return {
        "data": data["digest"],
        "classes": data["classes"],
        **model_identity(cfg),
        "noise": noise_digest(cfg.DATASET.NOISE),
        "templates": templates_identity(cfg),
        "init_weights": _init_weights_digest(cfg.MODEL.INIT_WEIGHTS),
        "drawn_seed": None,
    }


def templates_identity(cfg, dataset=None) -> str | None:
    """Return the digest of the data set's own templates, None if they are as declared here, or if nothing reads them.

    dataset: the object; without it, the registered class counts.
    """
    reads = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "reads_templates", None)
    if reads is None or not reads(cfg):
        return None
    return templates_digest(dataset or DATASET_REGISTRY.get(cfg.DATASET.NAME))


def model_identity(cfg) -> dict:
    """Return the part of `run_identity` without data: the backbone's digest, and the revisions of the code."""
    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    revisions = trainer.revisions(cfg) if hasattr(trainer, "revisions") else {}
    return {
        "backbone": clip_model.weights_digest(backbone_checkpoint(cfg.MODEL.BACKBONE.NAME), cfg.MODEL.CLIP_DIR or None),
        "revisions": {**FIRST_REVISIONS, **revisions, "backbone": clip_model.REVISION},
    }


def _data(cfg, fresh):
    values = dict(flatten(cfg))
    key = tuple(repr(values[name]) for name in data_keys())
    if fresh or key not in _DATA:
        _DATA[key] = data_identity(cfg)
    return _DATA[key]


def _init_weights_digest(path):
    if not path:
        return None
    if not os.path.isfile(path):
        raise UserError(f'Expected MODEL.INIT_WEIGHTS to be a checkpoint file, but "{path}" is not a file.')
    return file_digest(path)
