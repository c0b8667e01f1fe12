"""CONTRACT.md, section 11.3: what a checkpoint says of its run is checked before any of it is restored."""

import pytest
import torch
from torch import nn

from dassl import utils
from dassl.engine import build_trainer


def state_of(**changes):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "state_dict": model.state_dict(),
        "epoch": 3,
        "optimizer": optimizer.state_dict(),
        "scheduler": None,
        **changes,
    }


@pytest.mark.parametrize("changes", [
    {"epoch": -5}, {"epoch": "three"}, {"epoch": None}, {"epoch": 2}, {"epoch": True}, {"optimizer": "sgd"},
    {"optimizer": {"param_groups": [{"lr": float("inf")}]}}, {"optimizer": {"param_groups": ["a"]}},
    {"scheduler": {"last_epoch": -1}}, {"val_result": "good"}, {"best_result": float("nan")}, {"scaler": [1]},
    {"extra_state": 5}, {"random_state": 5}, {"sampler_plans": 5},
])  # fmt: skip
def test_a_field_that_cannot_be_true_is_refused(changes, tmp_path):
    torch.save(state_of(**changes), tmp_path / "model.pth.tar-3")
    (tmp_path / "checkpoint").write_text("model.pth.tar-3\n")
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    with pytest.raises(utils.InvalidInputError, match=r"model\.pth\.tar-3"):
        utils.resume_from_checkpoint(str(tmp_path), model)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", ["/etc/hostname", "../model.pth.tar-3", "sub/model.pth.tar-3", ".."])
def test_a_pointer_does_not_lead_out_of_its_folder(name, tmp_path):
    for folder in (tmp_path, tmp_path / "run", tmp_path / "run" / "sub"):
        folder.mkdir(exist_ok=True)
        torch.save(state_of(), folder / "model.pth.tar-3")
    (tmp_path / "run" / "checkpoint").write_text(f"{name}\n")
    with pytest.raises(utils.InvalidInputError):
        utils.find_checkpoint(str(tmp_path / "run"))


@pytest.mark.parametrize("plan", ["abc", [0, 10**6], [-1], [0.5], 5])
def test_a_plan_of_other_indices_is_refused(plan, make_cfg):
    cfg = make_cfg("DATALOADER.TRAIN_X.SAMPLER", "RandomDomainSampler", "DATALOADER.TRAIN_X.N_DOMAIN", "2")
    trainer = build_trainer(cfg)
    trainer.save_model(0, cfg.OUTPUT_DIR)
    path = f"{cfg.OUTPUT_DIR}/prompt_learner/model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=True)
    assert "train_loader_x" in checkpoint["sampler_plans"]
    torch.save({**checkpoint, "sampler_plans": {"train_loader_x": plan}}, path)
    with pytest.raises(utils.InvalidInputError):
        trainer.resume_model_if_exist(cfg.OUTPUT_DIR)


def test_more_epochs_than_the_run_has_are_refused(make_cfg):
    cfg = make_cfg()
    trainer = build_trainer(cfg)
    trainer.save_model(cfg.OPTIM.MAX_EPOCH, cfg.OUTPUT_DIR)
    with pytest.raises(utils.InvalidInputError, match=str(cfg.OPTIM.MAX_EPOCH + 1)):
        trainer.resume_model_if_exist(cfg.OUTPUT_DIR)


@pytest.mark.parametrize("weights", [[1], {"weight": 5}, {5: torch.zeros(1)}])
def test_initial_weights_that_are_none_are_refused(weights, tmp_path):
    torch.save({"weights": 1} if weights == [1] else weights, tmp_path / "file")
    with pytest.raises(utils.InvalidInputError):
        utils.load_pretrained_weights(nn.Linear(2, 1), str(tmp_path / "file"))
