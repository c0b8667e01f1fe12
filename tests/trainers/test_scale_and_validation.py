"""MODEL.LOGIT_SCALE, and the accuracy on noisy validation labels that settings are chosen by."""

import pytest

from dspt_atlas.datasets.noisy import noisy_validation, register_noisy
from dspt_atlas.trainers.clip.model import load_clip

NOISE = ("DATASET.NOISE.TYPE", "asym", "DATASET.NOISE.RATE", 0.5)


def test_the_logit_scale_is_the_backbones_own_or_the_one_asked_for(tiny_run, tiny_clip_path, tmp_path):
    own, asked = (
        tiny_run("CoOp", tiny_clip_path, tmp_path / str(scale), "MODEL.LOGIT_SCALE", scale) for scale in (0.0, 30.0)
    )
    assert own.model.clip_model.logit_scale == load_clip(tiny_clip_path).logit_scale
    assert asked.model.clip_model.logit_scale.exp().item() == pytest.approx(30)


def test_validation_labels_are_as_wrong_as_training_labels(tiny_run, tiny_clip_path, tmp_path):
    register_noisy()
    noisy = tiny_run("CoOp", tiny_clip_path, tmp_path / "noisy", "TEST.NOISY_VAL", True, *NOISE)
    dataset = noisy.dm.dataset
    labels = [
        (item.impath, item.label, other.label)
        for item, other in zip(dataset.val, noisy_validation(dataset), strict=True)
    ]
    assert sum(clean != given for _, clean, given in labels) == len(labels) // 2
    assert all(given in (clean, (clean + 1) % 4) for _, clean, given in labels)
    noisy.train()
    history = noisy.report["history"]
    right = noisy.loader_accuracy(noisy.items_loader(noisy_validation(dataset)))
    assert history[-1]["noisy_val_accuracy"] == right and "noisy_val_accuracy" not in history[0]


def test_without_noise_validation_labels_stay(tiny_run, tiny_clip_path, tmp_path):
    dataset = tiny_run("CoOp", tiny_clip_path, tmp_path).dm.dataset
    assert noisy_validation(dataset) == dataset.val
