"""A test counts only for the training that it tests: unfinished, failed, retrained and foreign trainings."""

import json
import os
import shutil

import pytest
import torch
from filelock import FileLock

from dspt_atlas.launch import process
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.pool import execute
from dspt_atlas.launch.state import Journal, scan
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.run.folder import HOLDER_FILE
from dspt_atlas.run.train import main as train_main
from support.paths import CONFIGS
from support.runs import result_of, train_arguments


@pytest.fixture
def arguments(tiny_dataset, tiny_clip_path):
    """Return a function (folder, *pairs, option=value) -> train.py's arguments: three epochs on the tiny data."""

    def build(folder, *pairs, trainer="CoOp", **options):
        kept = () if trainer == "ZeroshotCLIP" else ("TRAIN.CHECKPOINT_FREQ", "1")
        given = {"data": tiny_dataset, "backbone": tiny_clip_path, "trainer": trainer, **options}
        return train_arguments(folder, *pairs, common=("DATASET.NUM_SHOTS", "2", *kept), **given)

    return build


def evaluating(trained, arguments, *more):
    """Return the arguments of a test of a trained model."""
    return ["--eval-only", "--model-dir", str(trained), *more, *arguments]


def unfinish(folder):
    """Make a training look as if it was stopped after its second epoch."""
    (folder / "result.json").unlink()
    (folder / "prompt_learner" / "model.pth.tar-3").unlink()
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-2\n")


def jobs_of(arguments, tmp_path, *pairs):
    """Return a training and the test of its model, as a protocol plans them."""
    train, test = tmp_path / "train", tmp_path / "test"
    return [Job(train, tuple(arguments(train, *pairs))), Job(test, tuple(evaluating(train, arguments(test, *pairs))))]


def test_an_unfinished_training_is_tested_only_where_an_epoch_is_named(arguments, tmp_path, capsys):
    trained, tested = tmp_path / "train", tmp_path / "test"
    assert train_main(arguments(trained)) == 0
    unfinish(trained)
    assert train_main(evaluating(trained, arguments(tested))) == 2
    assert "--load-epoch" in capsys.readouterr().err and not tested.exists()
    assert train_main(evaluating(trained, arguments(tested), "--load-epoch", "2")) == 0
    evaluated = result_of(tested)["evaluated"]
    assert (evaluated["tested_epoch"], evaluated["is_final"]) == (2, False)


def test_a_test_of_an_unfinished_training_knows_what_it_was_trained_on(arguments, tmp_path):
    noise = ["DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"]
    trained, finished, unfinished = (tmp_path / name for name in ("train", "finished", "unfinished"))
    assert train_main(arguments(trained, "OPTIM.LR", "0.5", *noise, seed=2)) == 0
    assert train_main(evaluating(trained, arguments(finished), "--load-epoch", "2")) == 0
    unfinish(trained)
    assert train_main(evaluating(trained, arguments(unfinished), "--load-epoch", "2")) == 0
    known = result_of(unfinished)["evaluated"]["trained_on"]
    assert known == result_of(finished)["evaluated"]["trained_on"]
    assert known["seed"] == 2 and known["config"]["OPTIM.LR"] == 0.5 and known["noise"]["rate"] == 0.5


def test_a_training_without_a_key_of_its_learner_is_tested_with_the_default_alone(arguments, tmp_path):
    trained = tmp_path / "train"
    assert train_main(arguments(trained)) == 0
    result = result_of(trained)
    del result["config"]["TRAINER"]["COOP"]["CLASS_TOKEN_POSITION"]  # an older version's
    (trained / "result.json").write_text(json.dumps(result))
    key = "TRAINER.COOP.CLASS_TOKEN_POSITION"
    assert train_main(evaluating(trained, arguments(tmp_path / "middle", key, "middle"))) == 2
    assert not (tmp_path / "middle").exists()
    assert train_main(evaluating(trained, arguments(tmp_path / "end", key, "end"))) == 0


def test_a_test_does_not_take_the_folder_of_an_unfinished_training(arguments, tmp_path):
    folder = tmp_path / "train"
    assert train_main(arguments(folder)) == 0
    unfinish(folder)
    assert train_main(evaluating(folder, arguments(folder), "--load-epoch", "2")) == 2
    assert not (folder / "result.json").exists()
    assert train_main(arguments(folder)) == 0 and result_of(folder)["evaluated"] is None


def test_zero_shot_is_the_same_run_with_and_without_eval_only(arguments, tmp_path):
    folders = tmp_path / "one", tmp_path / "other"
    ways = [], ["--eval-only"], ["--eval-only", "--model-dir", str(tmp_path)]
    for folder, (first, *more) in zip(folders, (ways, ways[::-1]), strict=True):
        assert train_main([*first, *arguments(folder, trainer="ZeroshotCLIP")]) == 0
        before = (folder / "result.json").read_bytes()
        for way in more:
            assert train_main([*way, *arguments(folder, trainer="ZeroshotCLIP")]) == 0
            assert (folder / "result.json").read_bytes() == before


def test_a_training_that_failed_gets_no_test(arguments, tmp_path):
    jobs = jobs_of(arguments, tmp_path, "OPTIM.LR", "1e38", "OPTIM.WARMUP_EPOCH", "-1")
    assert execute(jobs, workers=1) == 2
    assert not (tmp_path / "test").exists() and (tmp_path / "train" / "failed.json").is_file()


def test_a_training_that_another_process_is_at_gets_no_test(arguments, tmp_path):
    train, test = jobs_of(arguments, tmp_path)
    assert train_main(list(train.arguments)) == 0
    unfinish(train.folder)
    (train.folder / HOLDER_FILE).write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with FileLock(train.folder / ".lock"):
        assert execute([train, test], workers=1) == os.EX_TEMPFAIL
    assert not test.folder.exists()
    (train.folder / HOLDER_FILE).unlink()
    assert execute([train, test], workers=1) == 0
    assert result_of(test.folder)["accuracy"] == result_of(train.folder)["accuracy"]


def test_a_test_is_done_again_where_the_model_was_trained_again(arguments, tmp_path):
    train, test = jobs_of(arguments, tmp_path)
    assert execute([train, test], workers=1) == 0
    first = result_of(test.folder)["evaluated"]
    path = train.folder / "prompt_learner" / "model.pth.tar-3"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["ctx"] *= -5
    torch.save(checkpoint, path)
    assert execute([train, test], workers=1) == 0
    second = result_of(test.folder)["evaluated"]
    assert second["checkpoint"] != first["checkpoint"] and second["is_final"]
    before = (test.folder / "result.json").stat().st_mtime_ns
    assert execute([train, test], workers=1) == 0  # and not a third time
    assert (test.folder / "result.json").stat().st_mtime_ns == before


def test_a_test_of_before_checkpoints_were_noted_is_done_again(arguments, tmp_path):
    jobs = jobs_of(arguments, tmp_path)
    assert execute(jobs, workers=1) == 0
    old = result_of(tmp_path / "test")
    old["evaluated"] = {name: old["evaluated"][name] for name in ("model_dir", "epoch", "trained_on")}
    old["accuracy"] = 1.0
    (tmp_path / "test" / "result.json").write_text(json.dumps(old))
    assert execute(jobs, workers=1) == 0
    assert result_of(tmp_path / "test")["accuracy"] == result_of(tmp_path / "train")["accuracy"]


def test_the_test_of_a_model_with_another_learning_rate_is_refused_in_the_same_folder(arguments, tmp_path, capsys):
    jobs = jobs_of(arguments, tmp_path)
    assert execute(jobs, workers=1) == 0
    before = (tmp_path / "test" / "result.json").read_bytes()
    shutil.rmtree(tmp_path / "train")
    assert train_main(arguments(tmp_path / "train", "OPTIM.LR", "0.5")) == 0
    capsys.readouterr()
    assert train_main(list(jobs[1].arguments)) == 2
    assert "OPTIM.LR 0.5" in capsys.readouterr().err
    assert (tmp_path / "test" / "result.json").read_bytes() == before
    assert train_main(evaluating(tmp_path / "train", arguments(tmp_path / "other"))) == 0
    trained_on = result_of(tmp_path / "other")["evaluated"]["trained_on"]
    assert trained_on["config"] == {"OPTIM.LR": 0.5}
    assert trained_on["identity"]["data"] == result_of(tmp_path / "train")["identity"]["data"]


@pytest.mark.parametrize(
    ("pairs", "options", "named"),
    [
        ((), {"trainer": "CoOpDSPT"}, "TRAINER.NAME"),
        (("TRAINER.COOP.CLASS_TOKEN_POSITION", "front"), {}, "CLASS_TOKEN_POSITION"),
        (("INPUT.PIXEL_MEAN", "[0.5, 0.5, 0.5]"), {}, "PIXEL_MEAN"),
    ],
)
def test_a_model_is_tested_as_what_it_was_trained_as(pairs, options, named, arguments, tmp_path, capsys):
    epochs = ("OPTIM.MAX_EPOCH", "1")
    assert train_main(arguments(tmp_path / "train", *epochs)) == 0
    assert train_main(evaluating(tmp_path / "train", arguments(tmp_path / "test", *epochs, *pairs, **options))) == 2
    assert named in capsys.readouterr().err and not (tmp_path / "test").exists()


def test_a_model_is_tested_with_the_weights_that_it_was_trained_on(arguments, tmp_path, tiny_clip_path, capsys):
    assert train_main(arguments(tmp_path / "train", "OPTIM.MAX_EPOCH", "1")) == 0
    weights = torch.load(tiny_clip_path, weights_only=True)
    weights["visual.proj"] = weights["visual.proj"] * 2
    torch.save(weights, tmp_path / "other.pt")
    other = arguments(tmp_path / "test", "OPTIM.MAX_EPOCH", "1", backbone=tmp_path / "other.pt")
    assert train_main(evaluating(tmp_path / "train", other)) == 2
    assert "backbone" in capsys.readouterr().err


def test_the_folder_of_a_test_is_not_a_training(arguments, tmp_path):
    jobs = jobs_of(arguments, tmp_path, "OPTIM.MAX_EPOCH", "1")
    assert execute(jobs, workers=1) == 0
    assert train_main(evaluating(tmp_path / "test", arguments(tmp_path / "second"))) == 2


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "CoOp"])
def test_logits_that_are_not_finite_give_no_result(trainer, arguments, tmp_path, tiny_clip_path):
    weights = torch.load(tiny_clip_path, weights_only=True)
    weights["logit_scale"] = torch.tensor(float("inf"))
    torch.save(weights, tmp_path / "broken.pt")
    folder = tmp_path / "run"
    assert train_main(arguments(folder, trainer=trainer, backbone=tmp_path / "broken.pt")) == 2
    assert not (folder / "result.json").exists()


def test_a_test_on_the_validation_split_is_another_run(arguments, tmp_path):
    jobs = jobs_of(arguments, tmp_path, "OPTIM.MAX_EPOCH", "1")
    assert execute(jobs, workers=1) == 0
    again = evaluating(tmp_path / "train", arguments(tmp_path / "test", "OPTIM.MAX_EPOCH", "1", "TEST.SPLIT", "val"))
    assert train_main(again) == 2


def test_a_run_resumed_from_a_finished_one_can_be_tested(arguments, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train_main(arguments(first, "OPTIM.MAX_EPOCH", "1")) == 0
    assert train_main(["--resume", str(first), *arguments(second, "OPTIM.MAX_EPOCH", "1")]) == 0
    assert train_main(evaluating(second, arguments(tmp_path / "test", "OPTIM.MAX_EPOCH", "1"))) == 0
    assert result_of(tmp_path / "test")["accuracy"] == result_of(second)["accuracy"] == result_of(first)["accuracy"]


@pytest.fixture
def sweep(tiny_dataset, tiny_clip_path, tmp_path):
    """Return a function (config yaml) -> the jobs of a sweep of one base-to-new run."""
    data = tmp_path / "tiny.yaml"
    data.write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")

    def plan(config):
        path = tmp_path / "sweep.yaml"
        path.write_text(
            f"protocol: base2new\ndatasets: {data}\ntrainers: CoOp\nconfigs: {config}\nseeds: 1\nshots: 2\n"
            f"MODEL.BACKBONE.NAME: {tiny_clip_path}\nDATALOADER.NUM_WORKERS: 0\nTRAINER.COOP.N_CTX: 2\n"
        )
        return read_plan(path).jobs(str(tiny_dataset.parent), tmp_path / "output")

    return plan


def write_config(path, epochs):
    base = CONFIGS / "trainers" / "CoOp" / "rn50_ep50.yaml"
    path.write_text(f"_BASE_: {base}\nOPTIM:\n  MAX_EPOCH: {epochs}\n")
    return path


def test_a_sweep_takes_no_result_of_a_yaml_that_was_edited_since(sweep, tmp_path):
    config = write_config(tmp_path / "own.yaml", 1)
    jobs = sweep(config)
    assert execute(jobs, workers=1) == 0
    journal = Journal(tmp_path / "failures.jsonl")
    assert [run.state for run in scan(jobs, journal)] == ["done", "done"]
    write_config(config, 2)
    train, test = scan(sweep(config), journal)
    assert train.state == "failed" and "OPTIM.MAX_EPOCH 2" in train.detail
    assert test.state != "done"


def test_a_sweep_tests_again_what_was_trained_again(sweep, tmp_path):
    jobs = sweep(write_config(tmp_path / "own.yaml", 1))
    assert execute(jobs, workers=1) == 0
    journal = Journal(tmp_path / "failures.jsonl")
    shutil.rmtree(jobs[0].folder)
    assert [run.state for run in scan(jobs, journal)] == ["new", "new"]
    assert train_main(list(jobs[0].arguments)) == 0
    path = jobs[0].folder / "prompt_learner" / "model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, "note": "trained on another machine"}, path)
    assert [run.state for run in scan(jobs, journal)] == ["done", "new"]


def test_the_same_run_by_two_ways_is_the_same_run(sweep, tmp_path, tiny_dataset, monkeypatch):
    train, test = sweep(write_config(tmp_path / "own.yaml", 1))
    monkeypatch.chdir(tmp_path)

    def relative(arguments):
        return [argument.replace(f"{tmp_path}/", "") for argument in arguments]

    assert execute([Job(job.folder, tuple(relative(job.arguments))) for job in (train, test)]) == 0
    before = [(job.folder / "result.json").stat().st_mtime_ns for job in (train, test)]
    monkeypatch.chdir(tiny_dataset)
    assert [run.state for run in scan([train, test], Journal(tmp_path / "failures.jsonl"))] == ["done", "done"]
    for job in (train, test):
        assert process.run_process([*process.TRAIN, *job.arguments], job.folder) == (0, "")
    assert [(job.folder / "result.json").stat().st_mtime_ns for job in (train, test)] == before
