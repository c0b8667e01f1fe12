"""TRAIN.LOGGERS: TensorBoard and Weights & Biases, offline, without doubled points, and never worth a training."""

import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from dspt_atlas.results.read import load
from dspt_atlas.run.train import main as train_main
from dspt_atlas.trainers.loggers import LOGGERS, points_of_tensorboard, scalars_of
from support.interruptions import at_epoch, stop
from support.runs import result_of

TENSORBOARD, WANDB = ("TRAIN.LOGGERS", "['tensorboard']"), ("TRAIN.LOGGERS", "['wandb']")


@pytest.fixture
def wandb(monkeypatch):
    module = pytest.importorskip("wandb", reason="no wandb here: pip install 'dspt-atlas[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return module


def tensorboard_points(folder):
    """Return [(tag, step)] of all files in a run's folder, those that are there twice twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=False)
    tags = events.Reload().Tags()["scalars"]
    return [(tag, event.step) for tag in tags for event in events.Scalars(tag)]


def records(content, block=32768):
    """Yield the records of a LevelDB log with a head of 7 bytes, as W&B writes it."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def wandb_points(folder):
    """Return [(tag, value)] in the offline files of a run's folder, without those that W&B adds."""
    from wandb.proto import wandb_internal_pb2

    points = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for content in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            found = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            axis = next((name for name in ("batch", "epoch") if name in found), None)
            points += [(tag, int(found[axis])) for tag in found if axis and "/" in tag]
    return points


def test_without_loggers_nothing_is_imported_and_no_folder_is_made(arguments, tmp_path):
    script = (
        "import sys; from dspt_atlas.run.train import main; status = main(sys.argv[1:]); "
        "assert not [name for name in sys.modules if name.split('.')[0] in ('tensorboard', 'wandb')]; sys.exit(status)"
    )
    command = [sys.executable, "-c", script, *arguments(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "run" / "tensorboard").exists() and not (tmp_path / "run" / "wandb").exists()


def test_tensorboard_has_steps_epochs_and_the_test(arguments, tmp_path):
    assert train_main(arguments(tmp_path / "run", *TENSORBOARD)) == 0
    points = tensorboard_points(tmp_path / "run")
    assert len(points) == len(set(points))
    assert {("train/loss", 0), ("epoch/test_accuracy", 0), ("epoch/test_accuracy", 2)} <= set(points)
    assert {tag for tag, _ in points} >= {"train/lr", "epoch/wrong_memorised", "test/accuracy"}


@pytest.mark.parametrize("name", LOGGERS)
def test_a_resumed_run_goes_on_in_the_same_log_and_no_point_is_there_twice(name, arguments, tmp_path, request):
    if name == "wandb":
        request.getfixturevalue("wandb")
    folder, pairs = tmp_path / "run", ("TRAIN.LOGGERS", f"['{name}']")
    points_of = {"tensorboard": tensorboard_points, "wandb": wandb_points}[name]
    with pytest.MonkeyPatch.context() as patch, at_epoch(patch, 2, stop):
        assert train_main(arguments(folder, *pairs)) == 143
    before = set(points_of(folder))
    assert before
    # As after a kill: the last checkpoint is lost, so that an epoch is trained again.
    last = max((folder / "prompt_learner").glob("model.pth.tar-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    last.unlink()
    assert train_main(arguments(folder, *pairs)) == 0
    after = points_of(folder)
    assert len(after) == len(set(after)) and before < set(after)
    assert ("epoch/test_accuracy", 2) in after
    if name == "wandb":
        assert len({path.stem for path in folder.glob("wandb/offline-run-*/*.wandb")}) == 1


def test_loggers_do_not_change_the_training(wandb, arguments, tmp_path):
    runs = {"plain": (), "logged": ("TRAIN.LOGGERS", "['tensorboard', 'wandb']")}
    for name, pairs in runs.items():
        assert train_main(arguments(tmp_path / name, *pairs)) == 0
    plain, logged = (result_of(tmp_path / name) for name in runs)
    assert plain["accuracy"] == logged["accuracy"]
    assert [epoch["train_loss"] for epoch in plain["history"]] == [epoch["train_loss"] for epoch in logged["history"]]
    assert train_main(arguments(tmp_path / "logged")) == 0  # finished already, with other loggers
    loaded = load([tmp_path])
    assert loaded.lines == [] and len(loaded.results) == 2


def test_wandb_is_offline_and_its_files_are_no_runs(wandb, arguments, tmp_path, monkeypatch):
    assert train_main(arguments(tmp_path / "run", *WANDB)) == 0
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    (tmp_path / "run" / "wandb" / "files").mkdir()
    (tmp_path / "run" / "wandb" / "files" / "config.yaml").write_text("")  # as W&B writes online
    assert load([tmp_path]).lines == []


@pytest.mark.parametrize("name", LOGGERS)
def test_a_package_that_is_missing_is_named_before_training(name, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, LOGGERS[name], None)
    assert train_main(arguments(tmp_path / "run", "TRAIN.LOGGERS", f"['{name}']")) == 2
    error = capsys.readouterr().err
    assert f"dspt-atlas[{name}]" in error and not (tmp_path / "run").exists()


def test_another_logger_is_refused(arguments, tmp_path, capsys):
    assert train_main(arguments(tmp_path / "run", "TRAIN.LOGGERS", "['mlflow']")) == 2
    assert "tensorboard" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "close"])
def test_a_logger_that_fails_is_left_and_the_run_goes_on(method, arguments, tmp_path, monkeypatch, capsys):
    from torch.utils.tensorboard import SummaryWriter

    def fail(self, *args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, method, fail)
    assert train_main(arguments(tmp_path / "run", *TENSORBOARD)) == 0
    assert len(result_of(tmp_path / "run")["history"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert len(lines) == 1 and "No space left" in lines[0]


def test_a_start_that_comes_to_nothing_leaves_no_log(wandb, arguments, tmp_path):
    def raise_signal(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, at_epoch(patch, 1, raise_signal):
        assert train_main(arguments(tmp_path / "run", "TRAIN.LOGGERS", "['tensorboard', 'wandb']")) == 143
    assert not (tmp_path / "run").exists()


def test_a_damaged_end_of_tensorboards_file_costs_the_end_only(arguments, tmp_path):
    assert train_main(arguments(tmp_path / "run", *TENSORBOARD)) == 0
    (path,) = Path(tmp_path, "run", "tensorboard").iterdir()
    whole = points_of_tensorboard(path.parent)
    path.write_bytes(path.read_bytes()[:-7])
    rest = points_of_tensorboard(path.parent)
    assert rest < whole and len(rest) > len(whole) / 2


def test_scalars_of_an_epoch_are_its_numbers():
    entry = {"epoch": 3, "test_accuracy": 50.0, "note": "x", "gradient": {"CE": {"right": 1.5, "wrong": None}}}
    assert dict(scalars_of(entry)) == {"epoch/test_accuracy": 50.0, "gradient/CE/right": 1.5}
