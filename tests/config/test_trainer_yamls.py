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
DEEP = {"MODEL.BACKBONE.NAME": "ViT-B/16", "OPTIM.LR": 0.0025, "DATALOADER.TRAIN_X.BATCH_SIZE": 4}


def deep(node, text, vision, depth_text, depth_vision, **others):
    """The keys of a learner with prompts in both towers."""
    values = {"N_CTX_TEXT": text, "N_CTX_VISION": vision, "CTX_INIT": "a photo of a"}
    values |= {"PROMPT_DEPTH_TEXT": depth_text, "PROMPT_DEPTH_VISION": depth_vision, **others}
    return {**DEEP, **{f"TRAINER.{node}.{key}": value for key, value in values.items()}}


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
        ("IVLP/vit_b16_c2_ep20_batch4_4+4ctx", {**deep("IVLP", 4, 4, 9, 9), "OPTIM.MAX_EPOCH": 20}),
        (
            "IVLP/vit_b16_c2_ep5_batch4_2+2ctx",
            {**deep("IVLP", 2, 2, 12, 12), "OPTIM.MAX_EPOCH": 5, "OPTIM.LR": 0.0035},
        ),
        ("IVLP/vit_b16_c2_ep5_batch4_4ctx_language_only", {**deep("IVLP", 4, 0, 12, 0), "OPTIM.MAX_EPOCH": 5}),
        (
            "VPT/vit_b16_c2_ep5_batch4_8ctx",
            {**DEEP, "OPTIM.MAX_EPOCH": 5, "TRAINER.VPT.N_CTX_VISION": 8, "TRAINER.VPT.PROMPT_DEPTH_VISION": 12},
        ),
        (
            "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx",
            {**deep("PROMPTSRC", 4, 4, 9, 9, GPA_MEAN=15, GPA_STD=1), "OPTIM.MAX_EPOCH": 20},
        ),
        (
            "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets",
            {**deep("PROMPTSRC", 4, 4, 3, 3, GPA_MEAN=6, GPA_STD=10), "OPTIM.MAX_EPOCH": 20},
        ),
        (
            "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot",
            {**deep("PROMPTSRC", 4, 4, 9, 9, GPA_MEAN=30, GPA_STD=30), "OPTIM.MAX_EPOCH": 50},
        ),
        (
            "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot_late",
            {**deep("PROMPTSRC", 4, 4, 9, 9, GPA_MEAN=45, GPA_STD=5), "OPTIM.MAX_EPOCH": 50},
        ),
        (
            "PromptSRC/vit_l14_c2_ep20_batch8_4+4ctx",
            {"MODEL.BACKBONE.NAME": "ViT-L/14", "OPTIM.LR": 0.005, "DATALOADER.TRAIN_X.BATCH_SIZE": 8},
        ),
    ],
)
def test_children_merge_to_the_familys_settings(name, expected):
    merged = dict(flatten(read_yaml(Path(CONFIGS, "trainers", f"{name}.yaml"))))
    assert merged.items() >= {**expected, "OPTIM.LR_SCHEDULER": "cosine", "DATALOADER.TEST.BATCH_SIZE": 100}.items()
