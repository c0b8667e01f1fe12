"""CONTRACT.md, sections 10.1, 13 and F03, F06 to F11: reproducibility, killed and resumed runs."""

import os
import random

import numpy as np
import pytest
import torch

from dassl.data import DataManager
from dassl.engine import build_trainer
from dassl.utils import saved_epochs, set_random_seed


class Killed(Exception):
    pass


def train(cfg, seed, kill_after=None):
    """Seed, build and train; optionally die in the middle of the epoch after `kill_after` finished ones."""
    set_random_seed(seed)
    trainer = build_trainer(cfg)
    if kill_after is not None:
        step = trainer.forward_backward

        def dying(batch):
            if trainer.epoch == kill_after and trainer.batch_idx == 1:
                raise Killed
            return step(batch)

        trainer.forward_backward = dying
        with pytest.raises(Killed):
            trainer.train()
    else:
        trainer.train()
    return trainer


def final_state(trainer, cfg):
    path = f"{cfg.OUTPUT_DIR}/prompt_learner/model.pth.tar-4"
    checkpoint = torch.load(path, weights_only=True)
    flat = {}

    def flatten(value, name):
        if isinstance(value, dict):
            for key, inner in value.items():
                flatten(inner, f"{name}.{key}")
        else:
            flat[name] = value.tolist() if torch.is_tensor(value) else value

    flatten(checkpoint, "")
    return flat, (random.random(), np.random.rand(), torch.rand(1).item())


@pytest.mark.parametrize("kill_after", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["OPTIM.NAME", "adam", "TEST.FINAL_MODEL", "best_val"],
        ["DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "2"],
        ["INPUT.TRANSFORMS", "('random_translation', 'cutout', 'gaussian_noise')"],
        ["DATALOADER.NUM_WORKERS", "1", "INPUT.TRANSFORMS", "('random_translation', 'cutout', 'gaussian_noise')"],
    ],
)
def test_a_killed_and_resumed_run_ends_bit_identical(make_cfg, tmp_path, options, kill_after):  # F11
    options = ["TRAIN.CHECKPOINT_FREQ", "1", *options]
    whole_cfg = make_cfg(*options, "OUTPUT_DIR", str(tmp_path / "whole"))
    whole = train(whole_cfg, seed=1)
    expected = final_state(whole, whole_cfg)
    cfg = make_cfg(*options)
    train(cfg, seed=1, kill_after=kill_after)
    resumed = train(cfg, seed=2)  # nothing of the new process's own state matters
    assert final_state(resumed, cfg) == expected
    assert resumed.losses == whole.losses[3 * kill_after :]
    assert resumed.steps == whole.steps == 12


def test_resuming_a_finished_run_only_evaluates(make_cfg, capsys):
    cfg = make_cfg()
    train(cfg, seed=1)
    capsys.readouterr()
    assert train(cfg, seed=1).losses == []
    out = capsys.readouterr().out
    assert f"Found checkpoint at {cfg.OUTPUT_DIR} (will resume training)\n" in out
    assert "Previous epoch: 4\n" in out
    assert "=> result" in out


def test_resume_directory_differs_from_output(make_cfg, tmp_path):
    first = make_cfg("TRAIN.CHECKPOINT_FREQ", "1")
    train(first, seed=1, kill_after=2)
    second = make_cfg("RESUME", first.OUTPUT_DIR, "OUTPUT_DIR", str(tmp_path / "second"))
    assert train(second, seed=1).start_epoch == 2
    assert os.listdir(tmp_path / "second" / "prompt_learner").count("model.pth.tar-4") == 1


@pytest.mark.parametrize("lost", ["checkpoint", "model.pth.tar-4"])
def test_incomplete_checkpoints_start_from_scratch(make_cfg, capsys, lost):  # F07
    cfg = make_cfg()
    train(cfg, seed=1)
    os.remove(f"{cfg.OUTPUT_DIR}/prompt_learner/{lost}")
    trainer = build_trainer(cfg)
    capsys.readouterr()
    assert trainer.resume_model_if_exist(cfg.OUTPUT_DIR) == 0
    assert capsys.readouterr().out == "No checkpoint found, train from scratch\n"


def test_models_of_different_epochs_are_an_error(make_cfg, tmp_path):  # F07
    trainer = build_trainer(make_cfg())
    trainer.register_model("second", torch.nn.Linear(1, 1))
    trainer.save_model(0, str(tmp_path))
    trainer.save_model(1, str(tmp_path))
    (tmp_path / "second" / "checkpoint").write_text("model.pth.tar-1\n")
    with pytest.raises(ValueError, match="'prompt_learner': 2, 'second': 1"):
        trainer.resume_model_if_exist(str(tmp_path))
    (tmp_path / "second" / "checkpoint").write_text("model.pth.tar-2\n")
    assert trainer.resume_model_if_exist(str(tmp_path)) == 2


@pytest.mark.parametrize("stored", [True, False])
def test_a_better_best_model_is_not_overwritten(make_cfg, stored):  # F08
    cfg = make_cfg("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1")
    first = build_trainer(cfg)
    results = iter([50.0, 40.0])
    first.test = lambda split=None: next(results)
    with pytest.raises(StopIteration):
        first.train()
    folder = f"{cfg.OUTPUT_DIR}/prompt_learner"
    if not stored:  # a file of another engine
        checkpoint = torch.load(f"{folder}/model.pth.tar-2", weights_only=True)
        five = ("state_dict", "epoch", "optimizer", "scheduler", "val_result")
        torch.save({key: checkpoint[key] for key in five}, f"{folder}/model.pth.tar-2")
    second = build_trainer(cfg)
    second.test = lambda split=None: 45.0
    second.train()
    assert second.best_result == 50.0
    assert torch.load(f"{folder}/model-best.pth.tar", weights_only=True)["val_result"] == 50.0


def test_the_best_model_of_another_directory_is_deployed_if_nothing_beats_it(make_cfg, tmp_path):
    options = ["TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", "1"]
    first = make_cfg(*options)
    trainer = build_trainer(first)
    results = iter([50.0, 40.0])
    trainer.test = lambda split=None: next(results)
    with pytest.raises(StopIteration):
        trainer.train()
    second = build_trainer(make_cfg(*options, "RESUME", first.OUTPUT_DIR, "OUTPUT_DIR", str(tmp_path / "second")))
    second.test = lambda split=None: 45.0
    second.train()
    best = torch.load(tmp_path / "second" / "prompt_learner" / "model-best.pth.tar", weights_only=True)
    assert best["val_result"] == second.best_result == 50.0
    assert torch.equal(second.model[1].weight, best["state_dict"]["1.weight"])


def test_without_its_file_a_best_result_is_forgotten(make_cfg):
    cfg = make_cfg("TEST.FINAL_MODEL", "best_val")
    trainer = build_trainer(cfg)
    trainer.best_result = 99.0
    trainer.save_model(1, cfg.OUTPUT_DIR)
    resumed = train(cfg, seed=1)
    assert resumed.start_epoch == 2
    assert os.path.isfile(f"{cfg.OUTPUT_DIR}/prompt_learner/model-best.pth.tar")


def test_grad_scaler_travels_with_the_checkpoint(make_cfg, tmp_path):  # F11
    class Scaler:
        scale = 4.0

        def state_dict(self):
            return {"scale": self.scale}

        def load_state_dict(self, state):
            self.scale = state["scale"]

    trainer = build_trainer(make_cfg())
    trainer.scaler = Scaler()
    trainer.save_model(0, str(tmp_path))
    trainer.scaler.scale = 1.0
    trainer.resume_model_if_exist(str(tmp_path))
    assert trainer.scaler.scale == 4.0


def test_evaluation_and_iteration_cost_one_torch_draw_each(make_cfg):
    trainer = build_trainer(make_cfg())

    def draws(action):
        """How many int64 numbers of the torch generator an action consumes; the other two generators are untouched."""
        set_random_seed(0)
        others = random.getstate(), np.random.get_state()[1].tolist()
        action()
        assert (random.getstate(), np.random.get_state()[1].tolist()) == others
        state = torch.get_rng_state()
        torch.manual_seed(0)
        for count in range(5):
            if torch.equal(torch.get_rng_state(), state):
                return count
            torch.empty((), dtype=torch.int64).random_()
        raise AssertionError("more than four draws")

    assert draws(trainer.test) == 1
    assert draws(lambda: next(iter(trainer.train_loader_x.batch_sampler))) == 1
    assert draws(lambda: iter(trainer.train_loader_x)) == 1
    assert draws(lambda: DataManager(trainer.cfg)) == 0


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(make_cfg, capsys):
    cfg = make_cfg("TRAIN.CHECKPOINT_FREQ", 1)
    train(cfg, seed=1)
    newest = max(saved_epochs(f"{cfg.OUTPUT_DIR}/prompt_learner"))
    for epoch, expected in ((newest, newest - 1), (newest - 1, newest - 2)):
        with open(f"{cfg.OUTPUT_DIR}/prompt_learner/model.pth.tar-{epoch}", "r+b") as file:
            file.truncate(300)
        capsys.readouterr()
        assert build_trainer(cfg).resume_model_if_exist(cfg.OUTPUT_DIR) == expected
        assert "going back to the checkpoint before it" in capsys.readouterr().out
