"""The scripts that `dspt-atlas adopt` brings: a folder per set of KEY VALUE pairs, each run once, named in tables."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from dspt_atlas.report.table import report
from dspt_atlas.tools import adopt
from support.paths import ROOT

CSL, ISL = (("TRAINER.ATLAS.SOFT_LABELS", kind) for kind in ("csl", "isl"))

# A fork's train.py in which nothing is learned: it leaves what a fork's run leaves, and notes its arguments.
TRAIN = """
import json, pathlib, sys
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index("--output-dir") + 1])
folder.joinpath("prompt_learner").mkdir(parents=True, exist_ok=True)
(folder / "log.txt").write_text("Label noise: as asked\\n" if "CoOpClean" not in arguments else "")
if "--eval-only" not in arguments:
    (folder / "prompt_learner" / "model.pth.tar-7").write_text(json.dumps(arguments))
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-7\\n")
with open("calls.json", "a") as file:
    file.write(json.dumps(arguments) + "\\n")
sys.exit(3 if "FAIL" in arguments else 0)
"""


@pytest.fixture
def fork(tmp_path):
    """A fork with the scripts and two yamls, and a train.py in which nothing is learned."""
    shutil.copytree(ROOT / "dspt_atlas" / "tools" / "fork", tmp_path / "scripts" / "dspt_atlas")
    for name in ("datasets/blobs", "trainers/CoOp/rn50_ep50", "trainers/CoOp/vit_b16_ep50_ctxv1"):
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("SEED: 1\n")
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def _start(fork, script, *arguments, **environment):
    variables = {**os.environ, "PYTHON": sys.executable, "DATA": "data", "SEEDS": "1", "OMP_NUM_THREADS": "1"}
    variables.update(environment)
    command = ["bash", f"scripts/dspt_atlas/{script}.sh", *map(str, arguments)]
    return subprocess.run(command, cwd=fork, env=variables, capture_output=True, text=True, timeout=300, check=False)


def _calls(fork):
    path = fork / "calls.json"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


NOISY, BASE2NEW = ("noisy", "CoOpATLaS", "blobs", "sym", "0.5"), ("base2new", "CoOpATLaS", "blobs")


@pytest.mark.parametrize("command, runs", [(NOISY, 1), (BASE2NEW, 2)])
def test_other_pairs_are_another_run_and_the_same_ones_are_finished(command, runs, fork):
    for done, pairs in enumerate([CSL, ISL, CSL], start=1):
        started = _start(fork, *command, *pairs)
        assert started.returncode == 0, started.stderr
        assert len(_calls(fork)) == runs * min(done, 2)
    folders = {path.parent for path in fork.rglob("done")}
    assert len(folders) == 2 * runs
    assert sum("csl" in str(folder) for folder in folders) == sum("isl" in str(folder) for folder in folders) == runs
    assert all(call[-2:] in (list(CSL), list(ISL)) for call in _calls(fork))


def test_a_whole_number_as_rate_is_of_the_key_s_type(fork):
    assert _start(fork, "noisy", "CoOpDSPT", "blobs", "none", "0").returncode == 0
    (call,) = _calls(fork)
    assert call[call.index("DATASET.NOISE.RATE") + 1] == "0.0"


def test_values_that_make_the_same_folder_name_are_still_told_apart(fork):
    assert _start(fork, *NOISY, "OUTPUT.NOTE", "a/b").returncode == 0
    refused = _start(fork, *NOISY, "OUTPUT.NOTE", "a b")
    assert refused.returncode == 2 and "command.txt" in refused.stderr
    long = [f"TRAINER.ATLAS.{'X' * 150}{number}" for number in (1, 2)]
    assert [_start(fork, *NOISY, key, "v").returncode for key in long] == [0, 0]
    assert len(_calls(fork)) == 3


def test_a_yaml_that_was_edited_is_another_run(fork):
    assert _start(fork, *NOISY).returncode == 0
    (fork / "configs/trainers/CoOp/rn50_ep50.yaml").write_text("SEED: 2\n")
    assert _start(fork, *NOISY).returncode == 2
    assert len(_calls(fork)) == 1


def test_what_an_older_script_finished_is_not_taken_for_this_run(fork):
    assert _start(fork, *NOISY).returncode == 0
    (folder,) = (path.parent for path in fork.rglob("done"))
    (folder / "command.txt").unlink()
    (folder / "done").write_text("")
    assert _start(fork, *NOISY).returncode == 2
    assert len(_calls(fork)) == 1


@pytest.mark.parametrize("command", [NOISY, BASE2NEW])
def test_a_key_without_a_value_is_refused(command, fork):
    assert _start(fork, *command, "OPTIM.LR").returncode == 2
    assert not _calls(fork)


def test_a_yaml_that_is_not_there_is_named_with_those_that_are(fork):
    refused = _start(fork, "noisy", "CoOpATLaS", "blob", "sym", "0.5")
    assert refused.returncode == 2 and "blobs.yaml" in refused.stderr and refused.stderr.count("\n") == 1
    assert _start(fork, *NOISY, CONFIG="CoOp/rn500").returncode == 2


def test_a_run_that_failed_is_not_finished_and_its_log_is_kept(fork):
    assert _start(fork, *NOISY, "FAIL", "FAIL").returncode != 0
    assert not list(fork.rglob("done"))
    assert _start(fork, *NOISY, "FAIL", "FAIL").returncode != 0
    assert len(_calls(fork)) == 2
    assert len(list(fork.rglob("log.txt"))) == len(list(fork.rglob("log.1.txt"))) == 1


def test_a_run_without_the_noise_that_was_asked_for_is_not_finished(fork):
    refused = _start(fork, "noisy", "CoOpClean", "blobs", "sym", "0.5")
    assert refused.returncode != 0 and "Label noise" in refused.stderr
    assert not list(fork.rglob("done"))
    assert _start(fork, "noisy", "CoOpClean", "blobs", "sym", "0.0").returncode == 0


def test_a_training_that_was_done_anew_is_tested_anew_at_its_last_epoch(fork):
    assert _start(fork, *BASE2NEW).returncode == 0
    test = _calls(fork)[1]
    assert test[test.index("--load-epoch") + 1] == "7"
    shutil.rmtree(fork / "output/base2new/train_base")
    (fork / "train.py").write_text(TRAIN.replace("json.dumps(arguments)", "'other weights'", 1))
    assert _start(fork, *BASE2NEW).returncode == 0
    assert ["--eval-only" in call for call in _calls(fork)] == [False, True, False, True]


# With the miniature fork's own train.py, to the table


@pytest.mark.slow
def test_a_forks_runs_become_rows_that_name_data_set_method_and_noise(tiny_fork, tiny_dataset, tmp_path):
    assert adopt.main([str(tiny_fork)]) == 0
    applied = subprocess.run(["git", "apply", "scripts/dspt_atlas/train.patch"], cwd=tiny_fork, check=False)
    assert applied.returncode == 0
    settings = {"DATA": str(tiny_dataset.parent), "SHOTS": "4", "CONFIG": "CoOp/rn50_ep50"}
    for trainer, rate in (("KgCoOp", "0.25"), ("CoOp", "0.25"), ("CoOp", "0.5")):
        done = _start(tiny_fork, "noisy", trainer, "blobs", "sym", rate, **settings)
        assert done.returncode == 0, done.stderr
    (log,) = (tiny_fork / "output/noisy/blobs/sym-0.25/KgCoOp").rglob("log.txt")
    assert "Template: a blob of {}." in log.read_text()
    done = _start(tiny_fork, "base2new", "CoOp", "caltech101", **settings)
    assert done.returncode == 0, done.stderr
    text, problems = report([tiny_fork / "output"])
    assert not problems
    for shown in ("Blobs", "Caltech101", "KgCoOp", "CoOp", "sym 0.25", "sym 0.5"):
        assert shown in text
    for hidden in ("Noisy", "RATE", "not verified"):
        assert hidden not in text
