"""Yamls of trainers: a base, and children with only the differences, which merge to the papers' settings."""

from pathlib import Path

import pytest
import yaml

from dspt_atlas.config.reading import read_yaml
from dspt_atlas.keys.declare import flatten
from support.paths import CONFIGS

DEPT = {
    "MODEL.BACKBONE.NAME": "ViT-B/16",
    "OPTIM.LR": 0.0035,
    "OPTIM.MAX_EPOCH": 10,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
    "TRAINER.LINEAR_PROBE.WEIGHT": 0.7,
    "TRAINER.LINEAR_PROBE.LR_FACTOR": 6.5,
}
PATHS = sorted((CONFIGS / "trainers").rglob("*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_yaml_says_only_what_its_base_does_not(path):
    own = yaml.safe_load(path.read_text())
    base = own.pop("_BASE_", None)
    if base is not None:
        inherited = dict(flatten(read_yaml(path.parent / base)))
        assert [key for key, value in flatten(own) if inherited.get(key) == value] == []


@pytest.mark.parametrize(
    "name, expected",
    [
        ("CoOp/rn101_ep100_ctxv1", {"MODEL.BACKBONE.NAME": "RN101", "OPTIM.MAX_EPOCH": 100, "TRAINER.COOP.N_CTX": 4}),
        ("CoCoOp/vit_l14_c4_ep10_batch1", {"MODEL.BACKBONE.NAME": "ViT-L/14", "DATALOADER.TRAIN_X.BATCH_SIZE": 1}),
        (
            "MaPLe/vit_b32_c2_ep5_batch4_2ctx_cross_datasets",
            {
                "MODEL.BACKBONE.NAME": "ViT-B/32",
                "OPTIM.LR": 0.0026,
                "OPTIM.MAX_EPOCH": 2,
                "TRAINER.MAPLE.PROMPT_DEPTH": 3,
            },
        ),
        ("DePTCoOp/vit_b16_c16_ep10_batch4", {**DEPT, "TRAINER.COOP.N_CTX": 16}),
        ("DePTKgCoOp/vit_b16_c4_ep10_batch4_ctxv1", {**DEPT, "TRAINER.KGCOOP.N_CTX": 4, "TRAINER.KGCOOP.W": 2.0}),
        (
            "DePTMaPLe/vit_b16_c2_ep10_batch4_2ctx",
            {**DEPT, "TRAINER.MAPLE.N_CTX": 2, "TRAINER.MAPLE.PROMPT_DEPTH": 9},
        ),
    ],
)
def test_children_merge_to_the_familys_settings(name, expected):
    merged = dict(flatten(read_yaml(Path(CONFIGS, "trainers", f"{name}.yaml"))))
    assert merged.items() >= {**expected, "OPTIM.LR_SCHEDULER": "cosine", "DATALOADER.TEST.BATCH_SIZE": 100}.items()
