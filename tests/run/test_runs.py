"""A run's folder: its files, when it is skipped, resumed or refused, and its state after signals and failures."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from dspt_atlas import environment, paths
from dspt_atlas.config.build import build_cfg
from dspt_atlas.errors import NonFiniteError, UserError
from dspt_atlas.paths import write_atomically
from dspt_atlas.run.runs import run
from dspt_atlas.run.train import build_parser, run_arguments
from dspt_atlas.run.train import main as train_main
from dspt_atlas.seeds import derive_seed
from dspt_atlas.signals import Interrupted
from dspt_atlas.trainers.trainer import PromptTrainer
from support.paths import ROOT
from support.refusals import refused
from support.runs import NOISY, result_of, train_arguments

EPOCHS = 3


@pytest.fixture
def arguments(tiny_dataset, tiny_clip_path):
    """Return a function (folder, *pairs, option=value) -> train.py's arguments of a run of DSPT with label noise."""
    given = {"data": tiny_dataset, "backbone": tiny_clip_path, "trainer": "CoOpDSPT", "common": NOISY}
    return partial(train_arguments, **given)


def _comparable(folder):
    """Return a result without what differs between two machines or moments."""
    result = result_of(folder)
    for key in ("seconds", "peak_memory_bytes", "config", "commit"):
        del result[key]
    result.get("atlas", {}).pop("seconds", None)
    result["history"] = [{k: v for k, v in entry.items() if k != "seconds"} for entry in result["history"]]
    return result


def _prompts(folder, epoch=EPOCHS):
    path = folder / "prompt_learner" / f"model.pth.tar-{epoch}"
    return torch.load(path, weights_only=True)["state_dict"]


def test_result_says_what_was_done(arguments, tmp_path):
    folder = tmp_path / "run"
    returned = run_arguments(arguments(folder))
    result = result_of(folder)
    assert result == json.loads(json.dumps(returned))
    assert (result["schema_version"], result["trainer"], result["dataset"], result["seed"]) == (
        1,
        "CoOpDSPT",
        "tiny",
        1,
    )
    assert (result["shots"], result["subsample"], result["evaluated"], result["config_name"]) == (
        -1,
        "all",
        None,
        "rn50_ep50",
    )
    assert (result["noise"]["type"], result["noise"]["rate"], result["noise"]["realised_rate"]) == ("sym", 0.5, 0.5)
    assert result["accuracy"] == pytest.approx(100 * result["correct"] / result["total"])
    assert len(result["per_class_accuracy"]) == 4 and len(result["history"]) == EPOCHS
    assert result["seconds"] > 0 and result["peak_memory_bytes"] > 0
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert set(result["host"]) == {"cpu", "cores", "gpu", "system"} and os.uname().nodename not in json.dumps(
        result["host"]
    )
    assert result["config"] == yaml.safe_load((folder / "config.yaml").read_text())
    assert sum(s["clean"] != s["given"] for s in json.loads((folder / "noise.json").read_text())["samples"]) == 12
    assert not (folder / ".holder.json").exists()


def test_a_finished_run_is_skipped_and_a_changed_one_refused(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train_main(arguments(folder)) == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train_main(arguments(folder, "DATALOADER.NUM_WORKERS", "1", "TRAIN.PRINT_FREQ", "1")) == 0
    assert str(folder) in capsys.readouterr().out
    assert train_main(arguments(folder, "OPTIM.LR", "0.5", "TRAINER.COOP.N_CTX", "3")) == 2
    error = capsys.readouterr().err
    assert "OPTIM.LR 0.5" in error and "TRAINER.COOP.N_CTX 3" in error and "NUM_WORKERS" not in error
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("trainer", ["CoOpDSPT", "MaPLeATLaS"])
def test_an_interrupted_run_ends_as_if_it_never_was(trainer, arguments, tmp_path, monkeypatch, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_arguments(arguments(whole, trainer=trainer))
    torch.rand(17)  # whatever happened before in this process
    original = PromptTrainer.forward_backward

    def interrupt(self, batch):
        if self.epoch == 1 and self.batch_idx == 1:
            raise Interrupted(signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(PromptTrainer, "forward_backward", interrupt)
    assert train_main(arguments(broken, trainer=trainer)) == 143
    error = capsys.readouterr().err
    assert "SIGTERM" in error and "dspt-atlas train --dataset-config-file" in error
    assert not (broken / "result.json").exists()
    monkeypatch.setattr(PromptTrainer, "forward_backward", original)
    assert train_main(arguments(broken, "OPTIM.LR", "0.5", trainer=trainer)) == 2
    assert train_main(arguments(broken, trainer=trainer)) == 0
    assert _comparable(broken) == _comparable(whole)
    if trainer == "CoOpDSPT":
        assert all(torch.equal(value, _prompts(whole)[name]) for name, value in _prompts(broken).items())
    assert (broken / "log.txt").read_text().count("** Config **") == 2


def test_evaluation_says_what_it_evaluated(arguments, tmp_path):
    trained = tmp_path / "trained"
    first = run_arguments(arguments(trained))
    folder = tmp_path / "evaluated"
    result = run_arguments(["--eval-only", "--model-dir", str(trained), *arguments(folder)])
    assert result["accuracy"] == first["accuracy"] and result["per_class_accuracy"] == first["per_class_accuracy"]
    assert result["evaluated"]["trained_on"]["dataset"] == "tiny" and result["evaluated"]["model_dir"] == str(trained)
    earlier = ["--eval-only", "--model-dir", str(trained), "--load-epoch", "2"]
    assert train_main([*earlier, *arguments(folder)]) == 2  # the folder holds another epoch's
    assert train_main([*earlier, *arguments(tmp_path / "epoch2")]) == 0
    assert train_main([*earlier[:3], "--load-epoch", "9", *arguments(tmp_path / "epoch9")]) == 2


def test_a_second_start_is_refused_with_the_holder(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    holder = {"pid": 4242, "host": "elsewhere"}
    (folder / ".holder.json").write_text(json.dumps(holder))
    with FileLock(folder / ".lock"):
        assert train_main(arguments(folder)) == 75
    assert "process 4242 on elsewhere" in capsys.readouterr().err
    assert train_main(arguments(folder)) == 0  # the holder's file alone, left by a dead process, does not block


def test_a_loss_that_is_not_finite_stops_and_is_listed(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train_main(arguments(folder, "OPTIM.LR", "1e38", trainer="CoOp")) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
    failure = json.loads((folder / "failed.json").read_text())
    assert failure["epoch"] >= 1 and "not finite" in failure["error"] or "nan" in failure["error"]
    assert not (folder / "result.json").exists()


def test_a_failure_is_forgotten_once_it_goes_well(arguments, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(PromptTrainer, "before_epoch", lambda self: (_ for _ in ()).throw(NonFiniteError("broken")))
        assert train_main(arguments(folder)) == 2
    assert (folder / "failed.json").exists()
    assert train_main(arguments(folder)) == 0
    assert not (folder / "failed.json").exists()


def test_a_folder_that_cannot_be_made(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        assert train_main(arguments(folder)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and str(tmp_path / "file") in error


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(paths.os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_no_train_builds_and_writes_no_result(arguments, tmp_path):
    assert run_arguments(["--no-train", *arguments(tmp_path / "run")]) is None
    assert not (tmp_path / "run" / "result.json").exists()


def test_damaged_records_are_refused(arguments, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text("{")
    assert train_main(arguments(folder)) == 2
    (folder / "result.json").unlink()
    (folder / "config.yaml").write_text("a: [")
    assert train_main(arguments(folder)) == 2
    assert "damaged" in capsys.readouterr().err


def test_eval_only_needs_a_model(arguments, tmp_path):
    options = build_parser().parse_args(arguments(tmp_path / "run"))
    with pytest.raises(UserError, match="--model-dir"):
        run(build_cfg(vars(options), options.pairs), eval_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("signum, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_with_the_customary_status(signum, status, arguments, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), *arguments(folder, epochs=100_000)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 240
        while not (folder / "prompt_learner" / "checkpoint").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        process.send_signal(signum)
        error = process.communicate(timeout=120)[1]
    assert second.returncode == 75 and f"process {process.pid} on {os.uname().nodename}" in second.stderr
    assert process.returncode == status and signum.name in error
    assert "Traceback" not in error and not (folder / "result.json").exists()


@given(st.integers(0, 2**40), st.lists(st.text() | st.integers(), max_size=3))
def test_derived_seeds_are_stable_and_in_range(seed, names):
    assert 0 <= derive_seed(seed, *names) < 2**63
    assert derive_seed(seed, *names) == derive_seed(seed, *names)
    assert derive_seed(seed, *names) != derive_seed(seed + 1, *names)


def test_derived_seeds_tell_uses_apart():
    assert derive_seed(1, "a", "bc") != derive_seed(1, "ab", "c")
    assert derive_seed(1, "1") != derive_seed(1, 1)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DSPT_ATLAS_CACHE", str(tmp_path))
    assert paths.cache_dir() == tmp_path
    monkeypatch.delenv("DSPT_ATLAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert paths.cache_dir() == Path("/x/dspt-atlas")


def test_no_commit_without_git(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "package" / "environment.py"))
    assert environment.git_commit.__wrapped__() is None


def test_an_unreadable_image_is_named_before_training(arguments, tiny_dataset, tmp_path):
    copy = tmp_path / "copy" / tiny_dataset.name
    shutil.copytree(tiny_dataset, copy)
    broken = next(path for path in sorted(copy.rglob("*.png")) if "train" in path.parts)
    broken.write_bytes(broken.read_bytes()[:40])
    argv = arguments(tmp_path / "run")
    argv[argv.index("--root") + 1] = str(copy.parent)
    with refused("1 of ", broken):
        run_arguments(argv)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("model.pth*"))
