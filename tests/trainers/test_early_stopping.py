"""TRAIN.PATIENCE, the epoch that validation chooses, and samplers of Dassl over cached features."""

import pytest
import torch
from dassl.utils import load_checkpoint

from dspt_atlas.trainers.checkpoints import find_checkpoint

BEST = ("TEST.FINAL_MODEL", "best_val")
STANDING_STILL = (*BEST, "OPTIM.LR", 1e-12, "OPTIM.MAX_EPOCH", 6, "TRAIN.PATIENCE", 2)


def epochs_of(trainer):
    """Return the epochs of a trainer's history, and its accuracies on validation images."""
    history = trainer.report["history"]
    return [entry["epoch"] for entry in history], [entry["val_accuracy"] for entry in history]


def test_training_stops_when_validation_is_no_better_and_the_best_epoch_is_tested(tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, *STANDING_STILL)
    trainer.train()
    epochs, accuracies = epochs_of(trainer)
    assert epochs == [1, 2, 3] and len(set(accuracies)) == 1
    assert trainer.report["chosen_epoch"] == 1 and trainer.results["accuracy"] >= 0
    assert find_checkpoint(tmp_path / "prompt_learner", 3).is_file()


def test_a_killed_run_that_had_reached_its_stop_does_not_train_on(tiny_run, tiny_clip_path, tmp_path):
    class Killed(Exception):
        pass

    def killed():
        raise Killed

    first = tiny_run("CoOp", tiny_clip_path, tmp_path, *STANDING_STILL)
    first.after_train = killed
    with pytest.raises(Killed):
        first.train()
    second = tiny_run("CoOp", tiny_clip_path, tmp_path, *STANDING_STILL)
    second.train()
    assert epochs_of(second) == epochs_of(first) and second.report["chosen_epoch"] == 1


@pytest.mark.parametrize("options, first_of_best", [(BEST, True), ((), False)])
def test_the_result_says_which_epoch_is_tested(options, first_of_best, tiny_run, tiny_clip_path, tmp_path):
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path, "OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.5, *options)
    trainer.train()
    chosen = trainer.report["chosen_epoch"]
    if first_of_best:
        epochs, accuracies = epochs_of(trainer)
        assert chosen == epochs[accuracies.index(max(accuracies))]
        assert load_checkpoint(str(find_checkpoint(tmp_path / "prompt_learner")))["epoch"] == chosen
    else:
        assert chosen == 4 and "val_accuracy" not in trainer.report["history"][-1]


@pytest.mark.parametrize("sampler", ["RandomClassSampler", "RandomDomainSampler", "SeqDomainSampler"])
def test_every_sampler_of_dassl_draws_the_same_with_cached_features(
    sampler, tiny_run, tiny_clip_path, tmp_path, monkeypatch
):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path / "cache"))
    drawn = {}
    for cache in ("none", "features"):
        options = ("DATALOADER.TRAIN_X.SAMPLER", sampler, "DATALOADER.TRAIN_X.N_INS", 2, "INPUT.VIEWS", 1)
        trainer = tiny_run("CoOp", tiny_clip_path, tmp_path / cache, *options, "INPUT.CACHE", cache)
        loader = trainer.with_cached_features(trainer.train_loader_x)
        torch.manual_seed(0)
        batches = list(loader)
        drawn[cache] = [batch["index"].tolist() for batch in batches]
        if sampler == "RandomClassSampler":
            assert all(torch.bincount(batch["label"]).tolist() == [2] * 4 for batch in batches)
    assert drawn["none"] == drawn["features"] != []


def test_epochs_without_a_validation_are_not_counted(tiny_run, tiny_clip_path, tmp_path):
    tiny_run("CoOp", tiny_clip_path, tmp_path / "first", "OPTIM.MAX_EPOCH", 3, "OPTIM.LR", 1e-12).train()
    options = ("OPTIM.MAX_EPOCH", 6, "OPTIM.LR", 1e-12, "RESUME", str(tmp_path / "first"), "TRAIN.PATIENCE", 2)
    trainer = tiny_run("CoOp", tiny_clip_path, tmp_path / "second", *BEST, *options)
    trainer.train()
    assert [entry["epoch"] for entry in trainer.report["history"]] == [1, 2, 3, 4, 5, 6]
    assert trainer.report["chosen_epoch"] == 4
