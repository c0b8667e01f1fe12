"""The scripts as users run them: any directory, wrong arguments, dry runs, set-up; every protocol in one process."""

import json
import multiprocessing
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dspt_atlas.config.benchmarks import EMBEDDED
from dspt_atlas.config.build import register_standard
from dspt_atlas.config.files import config_path, dataset_path
from dspt_atlas.errors import UserError
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.pool import execute, worker_pool
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.tools import demo
from dspt_atlas.tools import run_plan as plan_command
from dspt_atlas.trainers.registry import LEARNERS, METHOD_TRAINERS, configuration, pair_of
from support.paths import ROOT, SCRIPTS
from support.runs import OF_LEARNERS

PROTOCOL_SCRIPTS = ("fewshot", "base2new", "crossdataset", "domain_generalisation", "zeroshot", "main")


def bash(script, *arguments, cwd, **environment):
    environment = {**os.environ, "PYTHON": sys.executable, **environment}
    command = ["bash", str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture
def tiny_yaml(tiny_dataset, tmp_path):
    """Return a function name -> yaml of the tiny data set under that name."""

    def write(name):
        link = tmp_path / "data" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tiny_dataset)
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {name}\n")
        return str(path)

    return write


def tiny_pairs(backbone, trainer="CoOp"):
    training = ["OPTIM.MAX_EPOCH", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
    own = [str(part) for part in OF_LEARNERS.get(pair_of(trainer).learner, ())]
    pairs = [] if trainer == "ZeroshotCLIP" else [*training, *own]
    return ["--", "MODEL.BACKBONE.NAME", backbone, "DATALOADER.NUM_WORKERS", "0", *pairs]


def config_of(trainer):
    return "rn50_c4_ep10_batch1" if pair_of(trainer).learner == "CoCoOp" else configuration(trainer, "noisy")


register_standard()
# Not all that is registered: the engine's tests, collected beside these, register trainers of their own.
TRAINERS = sorted({*LEARNERS, "ZeroshotCLIP", *METHOD_TRAINERS})
THROUGH_ALL = [name for name in TRAINERS if name not in METHOD_TRAINERS or pair_of(name).learner == "CoOp"]


@pytest.fixture
def protocol(tiny_yaml, tiny_clip_path, tmp_path, capsys):
    """Return a function (trainer, protocol, arguments) that does a protocol and returns the tables that it prints."""

    def run(trainer, name, *arguments):
        common = ["--trainer", trainer, "--seeds", "1", "--root", str(tmp_path / "data")]
        common += ["--output", str(tmp_path / "out put"), "--config", config_of(trainer), "--workers", "1"]
        assert plan_command.main([name, *arguments, *common, *tiny_pairs(tiny_clip_path, trainer)]) == 0
        return capsys.readouterr().out.split("\n\n", 1)[1]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("trainer", THROUGH_ALL)
def test_every_learner_and_every_method_goes_through_every_protocol(trainer, protocol, tiny_yaml, tmp_path):
    source, target = tiny_yaml("source"), tiny_yaml("target")
    assert "sym 0.5" in protocol(trainer, "noisy", source, "sym", "0.5", "--shots", "2")
    assert "1 shot " in protocol(trainer, "fewshot", source, "--shots", "1,2")
    assert "| H" in protocol(trainer, "base2new", source, "--shots", "2")
    # What learns nothing has no source, and by itself a table of each data set.
    title = "target, by shots" if trainer == "ZeroshotCLIP" else "Cross-dataset from source"
    assert title in protocol(trainer, "crossdataset", source, "--targets", target, "--shots", "2")
    output, tail = tmp_path / "out put", Path(trainer, config_of(trainer))
    folders = [
        output / "noisy" / "source" / "sym_0.5" / "shots_2" / tail / "seed1",
        output / "fewshot" / "source" / "shots_1" / tail / "seed1",
        output / "base2new" / "train_base" / "source" / "shots_2" / tail / "seed1",
        output / "base2new" / "test_new" / "source" / "shots_2" / tail / "seed1",
        output / "source" / trainer / f"{tail.name}_2shots" / "seed1",
        output / "evaluation" / trainer / f"{tail.name}_2shots" / "target" / "seed1",
    ]
    for folder in folders:
        assert (folder / "result.json").is_file(), folder


@pytest.mark.slow
@pytest.mark.parametrize("trainer", sorted({*TRAINERS} - {*THROUGH_ALL}))
def test_every_other_pair_goes_through_the_noisy_protocol(trainer, protocol, tiny_yaml):
    assert "sym 0.5" in protocol(trainer, "noisy", tiny_yaml("source"), "sym", "0.5", "--shots", "2")


@pytest.mark.slow
def test_runs_in_several_processes_end_as_in_one(tiny_yaml, tiny_clip_path, tmp_path, capsys):
    source, accuracies = tiny_yaml("source"), []
    for workers in ("1", "2"):
        output = tmp_path / f"output{workers}"
        arguments = [source, "--trainer", "CoOp", "--seeds", "1,2", "--root", str(tmp_path / "data"), "--shots", "2"]
        arguments += ["--config", config_of("CoOp"), "--output", str(output), "--workers", workers]
        assert plan_command.main(["base2new", *arguments, *tiny_pairs(tiny_clip_path)]) == 0
        files = sorted(output.rglob("result.json"))
        accuracies.append([(file.relative_to(output), json.loads(file.read_text())["accuracy"]) for file in files])
    assert len(accuracies[0]) == 4
    assert accuracies[0] == accuracies[1]


def test_a_failed_run_stops_no_other_and_shows_in_the_status(tiny_yaml, tiny_clip_path, tmp_path, capsys):
    good = ["--dataset-config-file", tiny_yaml("good"), "--root", str(tmp_path / "data"), "--trainer", "ZeroshotCLIP"]
    good += [
        "--backbone",
        tiny_clip_path,
        "--seed",
        "1",
        "--output-dir",
        str(tmp_path / "good"),
        "DATALOADER.NUM_WORKERS",
        "0",
    ]
    planned = [Job(Path("bad"), ("--trainer", "Nothing")), Job(tmp_path / "good", tuple(good))]
    assert execute(planned, workers=1) == 2
    out = capsys.readouterr().out
    assert 'There is no trainer "Nothing"' in out and "[2/2]" in out and "accuracy" in out.splitlines()[-1]
    assert (tmp_path / "good" / "result.json").is_file()


def test_lists_of_data_sets_name_files_that_exist():
    for plan in ("crossdataset", "domain_generalisation"):
        for source, targets in read_plan(plan).shape.targets.items():
            for name in (source, *targets):
                assert dataset_path(name).is_file()
    assert all(dataset_path(name).is_file() for name in EMBEDDED)


@pytest.mark.parametrize(
    "trainer, learner",
    [
        ("CoOp", "CoOp"),
        ("CoOpATLaS", "CoOp"),
        ("CoCoOpDSPT", "CoCoOp"),
        ("MaPLeGCE", "MaPLe"),
        ("ZeroshotCLIP", "CoOp"),
    ],
)
def test_methods_use_their_prompt_learners_configurations(trainer, learner):
    assert config_path(trainer, config_of(trainer)).parent.name == learner


def test_runs_in_parallel_start_loader_workers_as_a_single_run_does():
    with worker_pool(1) as pool:
        assert pool.submit(multiprocessing.get_start_method).result() == multiprocessing.get_start_method()
        assert pool.submit(torch.get_num_threads).result() == 1


def dry_run(protocol, *arguments, capsys):
    assert plan_command.main([protocol, *arguments, "--dry-run", "--root", str(ROOT)]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def _option(command, name):
    return command[command.index(name) + 1]


def test_fewshot_chooses_the_papers_epochs(capsys):
    commands = dry_run("fewshot", "caltech101", "--trainer", "CoOpDSPT", "--seeds", "1", capsys=capsys)
    found = {_option(c, "DATASET.NUM_SHOTS"): Path(_option(c, "--config-file")).stem for c in commands}
    assert found == {"1": "rn50_ep50", "2": "rn50_ep100", "4": "rn50_ep100", "8": "rn50", "16": "rn50"}
    commands = dry_run("fewshot", "imagenet", "--trainer", "CoOp", "--seeds", "1", capsys=capsys)
    assert {Path(_option(c, "--config-file")).stem for c in commands} == {"rn50_ep50"}


def test_protocols_have_the_papers_runs(capsys):
    commands = dry_run("noisy", "caltech101", "sym,asym", "0.25,0.5", "--trainer", "CoOp,CoOpDSPT", capsys=capsys)
    assert len(commands) == 2 * 2 * 2 * 3 and {_option(c, "--seed") for c in commands} == {"1", "2", "3"}
    assert {_option(c, "DATASET.NOISE.RATE") for c in commands} == {"0.25", "0.5"}
    train, test = dry_run(
        "base2new", "emoji", "--trainer", "MaPLeATLaS", "--seeds", "0", "--soft-labels", "isl", capsys=capsys
    )
    assert _option(test, "--model-dir") == _option(train, "--output-dir") and "--eval-only" not in train
    assert (_option(train, "DATASET.SUBSAMPLE_CLASSES"), _option(test, "DATASET.SUBSAMPLE_CLASSES")) == ("base", "new")
    assert _option(train, "TRAINER.ATLAS.SOFT_LABELS") == "isl" and "/emoji_vit_isl/" in _option(train, "--output-dir")
    commands = dry_run("crossdataset", "imagenet", "--trainer", "MaPLe", "--seeds", "1", capsys=capsys)
    assert len(commands) == 11 and all("cross_datasets" in _option(c, "--config-file") for c in commands)
    commands = dry_run("domain_generalisation", "imagenet", "--trainer", "CoOp", "--seeds", "1", capsys=capsys)
    assert [Path(_option(c, "--dataset-config-file")).stem for c in commands[1:]] == [
        "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r",
    ]  # fmt: skip


def test_pairs_after_the_dashes_reach_every_run(capsys):
    command = ["noisy", "emoji", "none", "--trainer", "CoOp", "--seeds", "1", "--dry-run", "--", "OPTIM.LR", "0.1"]
    assert plan_command.main(command) == 0
    assert capsys.readouterr().out.strip().endswith("OPTIM.LR 0.1")


BAD_CALLS = {
    "no plan": ([], "Expected a plan"),
    "unknown plan": (["noise"], "noisy_base2new"),
    "unknown data set": (["noisy", "emojy", "sym", "0.5"], "caltech101"),
    "unknown type": (["noisy", "emoji", "sim", "0.5"], "pairflip"),
    "rate in percent": (["noisy", "emoji", "sym", "50"], "50"),
    "rate in words": (["noisy", "emoji", "sym", "half"], "half"),
    "rate not a number": (["noisy", "emoji", "sym", "nan"], "nan"),
    "no rate": (["noisy", "emoji", "sym"], "needs a rate"),
    "unknown trainer": (["noisy", "emoji", "sym", "0.5", "--trainer", "CoOpDSP"], "did you mean CoOpDSPT?"),
    "unknown config": (["noisy", "emoji", "sym", "0.5", "--config", "rn49"], "rn50_ep50"),
    "seed in words": (["noisy", "emoji", "sym", "0.5", "--seeds", "one"], "--seeds"),
    "a rate without wrong labels": (["noisy", "emoji", "none", "0.5"], "0.5"),
    "rates without wrong labels": (["noisy", "emoji", "none,none", "0,0.5", "--seeds", "1"], "0.5"),
    "no shots": (["noisy", "emoji", "sym", "0.5", "--shots", "0"], "--shots"),
    "odd pairs": (["noisy", "emoji", "sym", "0.5", "--", "OPTIM.LR"], "odd number"),
    "no data set": (["fewshot"], "--dataset"),
    "no targets": (["crossdataset", "emoji_ink"], "--targets"),
    "no data": (["noisy", "caltech101", "sym", "0.5", "--root", "nowhere"], "nowhere"),
    "unknown benchmark": (["everything"], "embedded"),
}


@pytest.mark.parametrize("arguments, expected", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_wrong_call_is_refused_in_one_sentence(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert plan_command.main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_trainer_without_configurations_is_named():
    with pytest.raises(UserError, match="TheirLearner"):
        config_path("TheirLearner", "rn50")


@pytest.mark.parametrize("family", ["dspt", "atlas"])
@pytest.mark.parametrize("name", PROTOCOL_SCRIPTS)
def test_scripts_are_thin_and_executable(family, name):
    script = SCRIPTS / family / f"{name}.sh"
    assert script.stat().st_mode & stat.S_IXUSR
    assert len(script.read_text().splitlines()) <= 5


@pytest.mark.slow
def test_scripts_run_from_anywhere_with_environment_as_defaults(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    done = bash(SCRIPTS / "dspt" / "main.sh", "emoji", "sym", "0.5", "--dry-run", cwd=folder, SEEDS="4 5", OUTPUT="o o")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("--seed ")[1].split()[0] for line in lines] == ["4", "5"]
    assert all("--trainer CoOpDSPT" in line and "'o o/noisy/emoji/sym_0.5" in line for line in lines)
    done = bash(SCRIPTS / "atlas" / "base2new.sh", "--help", cwd=folder)
    assert "usage: dspt-atlas run" in done.stdout and "default: CoOpATLaS" in " ".join(done.stdout.split())
    done = bash(SCRIPTS / "dspt" / "main.sh", "emoji", "sim", "0.5", cwd=folder)
    assert done.returncode == 2 and done.stderr.startswith("dspt-atlas run:")
    assert not list(folder.iterdir())


def test_scripts_say_what_to_do_without_an_installation(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = bash(SCRIPTS / "dspt" / "main.sh", "emoji", "sym", "0.5", cwd=tmp_path, PYTHON=str(python))
    assert done.returncode == 2 and "scripts/demo.sh" in done.stderr


def test_set_up_installs_once_and_again_after_a_change(tmp_path):
    """With a Python that notes what pip is asked for instead of installing."""
    project = tmp_path / "a clone"
    (project / "scripts" / "lib").mkdir(parents=True)
    (project / "engine").mkdir()
    shutil.copy(SCRIPTS / "lib" / "setup.sh", project / "scripts" / "lib")
    for name in ("pyproject.toml", "setup.py", "engine/setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, project / name)
    prefix = tmp_path / "environment"
    prefix.mkdir()
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in\n"-m pip"*) echo "$PWD: $*" >> "{tmp_path}/pip.log";;\n'
        f'*sys.prefix*) echo "{prefix}";;\n*) exec "{sys.executable}" "$@";;\nesac\n'
    )
    python.chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_text(
        f'source "{project}/scripts/lib/setup.sh"\nsetup "$@" || exit $?\necho "rest: ${{ARGUMENTS[*]}}"\n'
    )

    def installs():
        done = bash(script, "--no-venv", "-x", "-q", cwd=tmp_path, PYTHON=str(python))
        assert done.returncode == 0 and "rest: -x -q" in done.stdout, done.stderr
        return (tmp_path / "pip.log").read_text().splitlines()

    first = installs()
    assert len(first) == 2 and "torch torchvision" in first[0] and f"{project}: " in first[1]
    assert f"-c {project}/constraints.txt" in first[1] and first[1].endswith("-e ./engine -e .[test]")
    assert installs() == first
    (project / "constraints.txt").write_text("")
    assert len(installs()) == 4


@pytest.mark.slow
def test_demo_prints_a_table_and_a_picture(tiny_resnet_clip_path, tmp_path, private_cache, capsys):
    arguments = ["--seeds", "1", "--shots", "1", "--workers", "1", "--output", str(tmp_path / "demo"), "--"]
    arguments += ["MODEL.BACKBONE.NAME", tiny_resnet_clip_path, "OPTIM.MAX_EPOCH", "2", "INPUT.VIEWS", "1"]
    arguments += ["DATALOADER.NUM_WORKERS", "0"]
    assert demo.main(arguments) == 0
    said = capsys.readouterr().out
    for method in ("ZeroshotCLIP", "CoOp", "CoOpGCE", "CoOpDSPT"):
        assert any(line.startswith(f"| {method} ") for line in said.splitlines())
    (picture,) = [line.split(": ", 1)[1].split(" (")[0] for line in said.splitlines() if line.startswith("Picture: ")]
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert demo.main(arguments) == 0
    assert capsys.readouterr().out.count("accuracy") == said.count("accuracy")
