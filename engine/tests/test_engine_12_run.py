"""CONTRACT.md, sections 11.1 and 12: a whole run, its lines and its files; the few-epoch run of section 17."""

import os
import re

import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import set_random_seed


def test_few_epoch_run(make_cfg, capsys):
    cfg = make_cfg()
    set_random_seed(1)
    build_trainer(cfg).train()
    out = capsys.readouterr().out
    assert (
        re.findall(r"lr (\S+)", out)
        == (
            "1.0000e-05 1.0000e-05 1.0000e-02 1.0000e-02 1.0000e-02 8.5355e-03 8.5355e-03 8.5355e-03 5.0000e-03 "
            "5.0000e-03 5.0000e-03 1.4645e-03"
        ).split()
    )
    number = r"\d+\.\d{4}"
    line = (
        r"epoch \[1/4\] batch \[3/3\] time \d\.\d{3} \(\d\.\d{3}\) data \d\.\d{3} \(\d\.\d{3}\) "
        rf"loss {number} \({number}\) acc {number} \({number}\) lr 1\.0000e-02 eta \d:\d\d:\d\d"
    )
    assert re.search(f"^{line}$", out, re.MULTILINE)
    order = [
        "Loading trainer: EngineToyTrainer",
        "Seed: unseeded",
        "Loading dataset: EngineToyData",
        "Building transform_train",
        "Building transform_test",
        "# classes  3",
        "Loading evaluator: Classification",
        "No checkpoint found, train from scratch",
        f"Initialize tensorboard (log_dir={cfg.OUTPUT_DIR}/tensorboard)",
        "epoch [1/4] batch [1/3]",
        "epoch [4/4] batch [3/3]",
        f"Checkpoint saved to {cfg.OUTPUT_DIR}/prompt_learner/model.pth.tar-4",
        "Finish training\nFinished training\nDeploy the last-epoch model\nEvaluate on the *test* set\n=> result\n",
        "Elapsed: 0:00:",
    ]
    positions = [out.index(text) for text in order]
    assert positions == sorted(positions)

    folder = f"{cfg.OUTPUT_DIR}/prompt_learner"
    assert sorted(os.listdir(cfg.OUTPUT_DIR)) == ["prompt_learner", "tensorboard"]
    assert sorted(os.listdir(folder)) == ["checkpoint", "model.pth.tar-4"]
    checkpoint = torch.load(f"{folder}/model.pth.tar-4", weights_only=True)
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= set(checkpoint)
    assert (checkpoint["epoch"], checkpoint["val_result"]) == (4, None)


def test_effective_seed_is_printed(make_cfg, capsys):  # F13
    build_trainer(make_cfg("SEED", "0"))
    assert "Seed: 0\n" in capsys.readouterr().out


def test_scalars_are_running_averages(make_cfg):
    event = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = make_cfg("OPTIM.MAX_EPOCH", "2")
    trainer = build_trainer(cfg)
    trainer.train()
    scalars = event.EventAccumulator(f"{cfg.OUTPUT_DIR}/tensorboard").Reload()
    losses = [(e.step, pytest.approx(e.value, rel=1e-6)) for e in scalars.Scalars("train/loss")]
    expected = [trainer.losses[0], sum(trainer.losses[:2]) / 2, sum(trainer.losses[:3]) / 3]
    assert [value for _, value in losses[:3]] == expected
    assert [step for step, _ in losses] == list(range(6))
    assert {"train/lr", "train/acc", "test/accuracy", "test/macro_f1"} <= set(scalars.Tags()["scalars"])


@pytest.mark.parametrize("frequency", [0, 2])
def test_best_val_files(make_cfg, capsys, frequency):
    cfg = make_cfg("TEST.FINAL_MODEL", "best_val", "TRAIN.CHECKPOINT_FREQ", str(frequency))
    trainer = build_trainer(cfg)
    results = iter([30.0, 50.0, 50.0, 40.0, 99.0])
    trainer.test = lambda split=None: next(results)
    trainer.train()
    folder = f"{cfg.OUTPUT_DIR}/prompt_learner"
    periodic = ["model.pth.tar-2", "model.pth.tar-4"] if frequency else ["model.pth.tar-4"]
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-best.pth.tar", *periodic]
    best = torch.load(f"{folder}/model-best.pth.tar", weights_only=True)
    assert (best["epoch"], best["val_result"], trainer.best_result) == (2, 50.0, 50.0)
    out = capsys.readouterr().out
    assert "Deploy the model with the best val performance\nLoad " in out
    assert "(epoch=2, val_result=50.0)" in out
    with open(f"{folder}/checkpoint") as file:
        assert file.read() == "model.pth.tar-4\n"


def test_no_test(make_cfg, capsys):
    build_trainer(make_cfg("TEST.NO_TEST", "True", "TEST.FINAL_MODEL", "best_val")).train()
    assert "=> result" not in capsys.readouterr().out


def test_evaluation_alone_writes_nothing(make_cfg):
    cfg = make_cfg()
    build_trainer(cfg).test()
    assert not os.path.exists(cfg.OUTPUT_DIR)
