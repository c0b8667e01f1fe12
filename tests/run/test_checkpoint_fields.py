"""Every field of a checkpoint that is read: impossible values are refused, and the checkpoints do not change."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from dspt_atlas.run.train import main as train_main
from support.interruptions import at_epoch, stop
from support.runs import result_of

NEWEST, NAN = "model.pth.tar-2", float("nan")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("interrupted") / "run"}


@pytest.fixture
def folder(interrupted, arguments, tmp_path, monkeypatch):
    """A run that was stopped after two epochs of three."""
    if not interrupted["folder"].exists():
        with at_epoch(monkeypatch, 3, stop):
            assert train_main(arguments(interrupted["folder"])) == 143
    return shutil.copytree(interrupted["folder"], tmp_path / "run")


def change(path, keys, value):
    """Set a field of a checkpoint, found by a path of keys, to a value, or to what a function makes of the old one."""
    checkpoint = torch.load(path, weights_only=True)
    node = checkpoint
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value(node[keys[-1]]) if callable(value) else value
    torch.save(checkpoint, path)


def without(*keys):
    return lambda value: {key: item for key, item in value.items() if key not in keys}


RESUMED = {
    "epoch above the last": (["epoch"], 99),
    "epoch below 0": (["epoch"], -5),
    "epoch of another file": (["epoch"], 1),
    "epoch in words": (["epoch"], "two"),
    "epoch None": (["epoch"], None),
    "epoch True": (["epoch"], True),
    "epoch 2.0": (["epoch"], 2.0),
    "weights NaN": (["state_dict", "ctx"], lambda value: value * NAN),
    "weights of whole numbers": (["state_dict", "ctx"], lambda value: value.long()),
    "weights of another shape": (["state_dict", "ctx"], lambda value: value[:1]),
    "weights with others": (["state_dict"], lambda value: {**value, "more": torch.zeros(1)}),
    "optimizer in words": (["optimizer"], "sgd"),
    "optimizer without groups": (["optimizer"], without("param_groups")),
    "optimizer without state": (["optimizer"], without("state")),
    "optimizer of two groups": (["optimizer", "param_groups"], lambda value: value * 2),
    "groups in words": (["optimizer", "param_groups"], ["a"]),
    "learning rate NaN": (["optimizer", "param_groups", 0, "lr"], NAN),
    "learning rate in words": (["optimizer", "param_groups", 0, "lr"], "fast"),
    "momentum below 0": (["optimizer", "param_groups", 0, "momentum"], -0.9),
    "momentum buffer NaN": (["optimizer", "state", 0, "momentum_buffer"], lambda value: value * NAN),
    "momentum buffer of another shape": (["optimizer", "state", 0, "momentum_buffer"], torch.zeros(2)),
    "schedule that never ends": (["scheduler", "last_epoch"], 10**12),
    "schedule below 0": (["scheduler", "last_epoch"], -5),
    "schedule of another epoch": (["scheduler", "last_epoch"], 1),
    "schedule in words": (["scheduler", "last_epoch"], "two"),
    "schedule 2.0": (["scheduler", "last_epoch"], 2.0),
    "schedule of a warm-up in words": (["scheduler"], without("last_epoch")),
    "best result in words": (["best_result"], "best"),
    "best result NaN": (["best_result"], NAN),
    "result in words": (["val_result"], "good"),
    "plans in words": (["sampler_plans"], "none"),
    "scaler in words": (["scaler"], "none"),
    "scale NaN": (["scaler"], {"scale": NAN}),
    "extra state in words": (["extra_state"], "none"),
    "extra state None": (["extra_state"], None),
    "no history": (["extra_state"], without("history")),
    "history in words": (["extra_state", "history"], "none"),
    "history of numbers": (["extra_state", "history"], [1, 2]),
    "history of another epoch": (["extra_state", "history"], lambda value: value[:1]),
    "history with an epoch twice": (["extra_state", "history"], lambda value: [value[1], value[1]]),
    "history with words": (["extra_state", "history", 1, "loss"], "low"),
    "random states in words": (["random_state"], "none"),
    "random states None": (["random_state"], None),
    "no state of numpy": (["random_state"], without("numpy")),
    "Python's state too short": (["random_state", "python", "internal"], [1, 2, 3]),
    "Python's state of another version": (["random_state", "python", "version"], 99),
    "Python's state in words": (["random_state", "python", "gauss_next"], "none"),
    "numpy's state too short": (["random_state", "numpy", "key"], torch.zeros(3, dtype=torch.int64)),
    "numpy's state out of range": (["random_state", "numpy", "key"], torch.full((624,), 2**40)),
    "numpy's position out of range": (["random_state", "numpy", "pos"], 10**9),
    "torch's state of another size": (["random_state", "torch"], torch.zeros(3, dtype=torch.uint8)),
    "torch's state of another type": (["random_state", "torch"], torch.zeros(5056)),
}


@pytest.mark.parametrize("keys, value", RESUMED.values(), ids=RESUMED)
def test_a_run_does_not_go_on_from_what_cannot_be_true(keys, value, folder, arguments, capsys):
    change(folder / "prompt_learner" / NEWEST, keys, value)
    before = {path.name: path.read_bytes() for path in (folder / "prompt_learner").iterdir()}
    capsys.readouterr()
    assert train_main(arguments(folder)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "prompt_learner" in error or "checkpoint" in error
    assert {path.name: path.read_bytes() for path in (folder / "prompt_learner").iterdir()} == before
    assert not (folder / "result.json").exists()


def test_what_a_file_says_of_the_schedule_beyond_its_steps_is_not_taken(folder, arguments):
    for name in ("step", "optimizer", "get_last_lr", "base_lrs"):
        change(folder / "prompt_learner" / NEWEST, ["scheduler"], lambda state, name=name: {**state, name: "x"})
    assert train_main(arguments(folder)) == 0
    history = result_of(folder)["history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3]


@pytest.mark.parametrize("name", ["/etc/hostname", "../../elsewhere/model.pth.tar-1", "sub/model.pth.tar-1", ".."])
@pytest.mark.parametrize("is_test", [False, True], ids=["resumed", "tested"])
def test_a_pointer_that_leads_elsewhere_is_refused(name, is_test, folder, arguments, tmp_path):
    for place in (tmp_path / "elsewhere", folder / "prompt_learner" / "sub"):
        place.mkdir()
        shutil.copy(folder / "prompt_learner" / NEWEST, place / "model.pth.tar-1")
    (folder / "prompt_learner" / "checkpoint").write_text(f"{name}\n")
    if is_test:
        (folder / "result.json").write_text(json.dumps({"config": {}}))
        assert train_main(["--eval-only", "--model-dir", str(folder), *arguments(tmp_path / "test")]) == 2
        assert not (tmp_path / "test").exists()
    else:
        assert train_main(arguments(folder)) == 2


@pytest.mark.parametrize("value", [1, -5, "two"])
def test_a_test_of_an_epoch_that_the_file_does_not_hold_is_refused(value, folder, arguments, tmp_path):
    change(folder / "prompt_learner" / NEWEST, ["epoch"], value)
    command = ["--eval-only", "--model-dir", str(folder), "--load-epoch", "2", *arguments(tmp_path / "test")]
    assert train_main(command) == 2
    assert not (tmp_path / "test").exists()


@pytest.mark.parametrize("keys, value", [RESUMED[name] for name in RESUMED if "state" in name.split()])
def test_the_generators_are_as_they_were_after_a_state_that_is_refused(keys, value, folder):
    from dassl.utils import InvalidInputError, get_random_state, set_random_state

    if keys[0] != "random_state":
        pytest.skip("another state")
    path = folder / "prompt_learner" / NEWEST
    change(path, keys, value)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with pytest.raises(InvalidInputError):
        set_random_state(torch.load(path, weights_only=True)["random_state"])
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    set_random_state(get_random_state())


@pytest.mark.parametrize("trainer, keys, value", [
    ("CoOpOLS", ["extra_state", "ols_labels"], torch.zeros(2, 2)),
    ("CoOpOLS", ["extra_state"], without("ols_labels")),
    ("CoOpJoAPR", ["extra_state", "joapr", "threshold"], 7.0),
    ("CoOpJoAPR", ["extra_state", "joapr", "losses"], [torch.zeros(3)]),
    ("CoOpJoAPR", ["extra_state", "joapr"], "none"),
])  # fmt: skip
def test_what_a_method_remembers_is_of_its_kind(trainer, keys, value, arguments, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    command = [
        trainer if argument == "CoOp" else argument for argument in arguments(folder, "TRAINER.JOAPR.WARMUP", "0")
    ]
    with at_epoch(monkeypatch, 3, stop):
        assert train_main(command) == 143
    change(folder / "prompt_learner" / NEWEST, keys, value)
    assert train_main(command) == 2
