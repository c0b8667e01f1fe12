"""Plans: a yaml of your own is run without a line of Python; values on the command line override it in every step."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from dspt_atlas.cli import main
from dspt_atlas.errors import UserError
from dspt_atlas.plan.planner import PLANS, plan_names, read_plan
from dspt_atlas.tools import run_plan as command
from support.refusals import assert_names
from support.results import SYM, write_result

NOISY_BASE_TO_NEW = """
protocol: base2new
datasets: emoji
learners: [CoOp, CoCoOp]
methods: [CE, ATLaS]
soft_labels: [ls, csl]
noise: [none, sym 0.5]
seeds: [0, 1]
train:
  folder: mine/{dataset}/{noise}/{trainer}/{config}/seed{seed}
tests:
  - folder: mine_new/{dataset}/{noise}/{trainer}/{config}/seed{seed}
    DATASET.SUBSAMPLE_CLASSES: new
"""


@pytest.fixture
def jobs_of(tmp_path):
    """Return a function (text of a plan) -> its runs."""

    def make(text, **given):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return read_plan(path).jobs("", tmp_path / "output", (), given)

    return make


def test_a_new_protocol_is_a_yaml(jobs_of, tmp_path):
    jobs = jobs_of(NOISY_BASE_TO_NEW)
    trainings = [job for job in jobs if job.trained_in == job.folder]
    assert len(trainings) == 2 * 3 * 2 * 2 and len(jobs) == 2 * len(trainings)  # CE, and ATLaS with ls and csl
    assert trainings[0].folder == tmp_path / "output/mine/emoji/clean/CoOp/emoji_rn/seed0"
    assert {job.pairs["DATASET.SUBSAMPLE_CLASSES"] for job in trainings} == {"base"}
    for training, test in zip(jobs[::2], jobs[1::2], strict=True):
        assert test.trained_in == training.folder and test.pairs["DATASET.SUBSAMPLE_CLASSES"] == "new"
        assert test.pairs["DATASET.NOISE.TYPE"] == training.pairs["DATASET.NOISE.TYPE"]


def test_the_noisy_base_to_new_that_comes_with_it_has_no_more_than_twenty_lines(capsys):
    assert len((PLANS / "noisy_base2new.yaml").read_text().splitlines()) <= 20
    arguments = ["noisy_base2new", "emoji", "asym", "0.25", "--trainer", "CoOpDSPT", "--seeds", "3", "--dry-run"]
    assert command.main(arguments) == 0
    train, test = map(shlex.split, capsys.readouterr().out.splitlines())
    assert "--eval-only" in test and train[train.index("DATASET.NOISE.RATE") + 1] == "0.25"
    assert test[test.index("--model-dir") + 1] == train[train.index("--output-dir") + 1]
    assert test[test.index("DATASET.SUBSAMPLE_CLASSES") + 1] == "new"


@pytest.mark.slow
def test_a_new_protocol_runs_and_is_tabulated(tiny_dataset, tiny_clip_path, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    arguments = ["noisy_base2new", str(tmp_path / "tiny.yaml"), "sym", "0.5", "--trainer", "CoOp", "--seeds", "1"]
    arguments += ["--shots", "2", "--root", str(tiny_dataset.parent), "--output", str(tmp_path / "output")]
    arguments += ["--config", "rn50_ep50", "--", "MODEL.BACKBONE.NAME", tiny_clip_path, "OPTIM.MAX_EPOCH", "1"]
    assert command.main([*arguments, "TRAINER.COOP.N_CTX", "2", "DATALOADER.NUM_WORKERS", "0"]) == 0
    results = [json.loads(path.read_text()) for path in sorted((tmp_path / "output").rglob("result.json"))]
    test = next(result for result in results if result["subsample"] == "new")
    assert test["evaluated"]["trained_on"]["noise"]["rate"] == 0.5 and len(results) == 2
    printed = capsys.readouterr().out
    assert "sym 0.5" in printed and "new" in printed


def test_what_is_given_wins_in_every_step(jobs_of):
    text = "datasets: emoji\nsteps:\n  - {protocol: noisy, learners: CoOp, steps: [{noise: none}, {noise: sym 0.5}]}\n"
    jobs = jobs_of(text + "  - {protocol: fewshot, trainers: MaPLe}\n", trainers=["CoOpDSPT"], seeds=[7])
    assert [job.option("--trainer") for job in jobs] == ["CoOpDSPT"] * 3
    assert {job.option("--seed") for job in jobs} == {"7"}


def test_a_step_may_name_its_folders_itself(jobs_of, tmp_path):
    text = "protocol: noisy\ndatasets: emoji\ntrainers: CoOpDSPT\nseeds: 1\nTRAINER.DSPT.TEMPERATURE: [0.5, 2.0]\n"
    folders = [job.folder for job in jobs_of(text + "label: t_{TRAINER.DSPT.TEMPERATURE}\n")]
    assert [folder.parent.name for folder in folders] == ["emoji_rn_t_0.5", "emoji_rn_t_2.0"]
    assert str(folders[0]).startswith(str(tmp_path))


@pytest.mark.parametrize(
    "text, named",
    [
        ("protocol: noisy\nlabel: x_{OPTIM.LR}\n", "OPTIM.LR"),
        ("protocol: own.yaml\n", "own.yaml"),
        ("protocol: embedded\n", "embedded"),
        ("train: {folder: 'x/{colour}'}\n", "colour"),
        ("train: 3\n", "train"),
        ("protocol: noisy\ntests: [{DATASET.SUBSAMPLE_CLASSES: new}]\n", "tests"),
        ("protocol: transfer\n", "--targets"),
    ],
)
def test_a_mistake_in_a_plan_names_what_is_wrong(text, named, jobs_of):
    with pytest.raises(UserError) as caught:
        jobs_of(f"datasets: emoji\ntrainers: CoOp\n{text}")
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_own_data_need_a_configuration_that_somebody_names(jobs_of, tmp_path):
    (tmp_path / "tiny.yaml").write_text(f"DATASET:\n  NAME: OwnFolder\n  ROOT: {tmp_path}\n")
    text = f"datasets: {tmp_path / 'tiny.yaml'}\ntrainers: CoOp\nseeds: 1\ntrain: {{folder: 'x/seed{{seed}}'}}\n"
    with pytest.raises(UserError) as caught:
        jobs_of(text)
    assert "configs" in str(caught.value)
    (job,) = jobs_of(f"{text}configs: rn50\n")
    assert job.option("--config-file").endswith("CoOp/rn50.yaml")


OWN_NOISE = "protocol: noisy\ndatasets: emoji\ntrainers: CoOp\nseeds: 1\n"


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Write noise files below the plan's folder and below the working folder, which is another; return both folders."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("a/labels.csv", "b/labels.csv", "b/labels.npy", "my own labels.csv", "here/c/labels.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("path,given\n")
    return tmp_path, tmp_path / "here"


def noise_files(jobs):
    return [job.pairs["DATASET.NOISE.FILE"] for job in jobs]


@pytest.mark.parametrize(
    "listed, expected, words",
    [
        ("own a/labels.csv", ["a/labels.csv"], ["own_labels"]),
        ("own c/labels.csv", ["here/c/labels.csv"], ["own_labels"]),  # as before, where the plan has none
        ("own my own labels.csv", ["my own labels.csv"], ["own_my own labels"]),
        ("own a/labels.csv, own b/labels.csv", ["a/labels.csv", "b/labels.csv"], ["own_a_labels", "own_b_labels"]),
        ("own b/labels.csv, own b/labels.npy", ["b/labels.csv", "b/labels.npy"], ["own_labels_csv", "own_labels_npy"]),
        ("own a/labels.csv, own a/../a/labels.csv", ["a/labels.csv"], ["own_labels"]),
    ],
)
def test_noise_files_of_a_plan_are_next_to_it_and_have_folders_of_their_own(listed, expected, words, jobs_of, tables):
    jobs = jobs_of(f"{OWN_NOISE}noise: [{listed}]\n")
    assert noise_files(jobs) == [str(tables[0] / name) for name in expected]
    for job, word in zip(jobs, words, strict=True):
        assert f"/{word}/" in f"{job.folder}/"


def test_other_files_of_a_plan_are_next_to_it_too(jobs_of, tables):
    (tables[0] / "drawings.yaml").write_text(f"DATASET: {{NAME: OwnFolder, ROOT: {tables[0] / 'a'}}}\n")
    text = "trainers: CoOp\nseeds: 1\ndatasets: drawings.yaml\nconfigs: mine.yaml\nMODEL.INIT_WEIGHTS: a/labels.csv\n"
    (tables[0] / "mine.yaml").write_text("OPTIM: {LR: 0.1}\n")
    (tables[0] / "shape.yaml").write_text("train: {folder: '{dataset}/{config}/seed{seed}'}\n")
    (job,) = jobs_of(text + "protocol: shape.yaml\n")
    files = [job.option("--dataset-config-file"), job.option("--config-file"), job.pairs["MODEL.INIT_WEIGHTS"]]
    assert files == [str(tables[0] / name) for name in ("drawings.yaml", "mine.yaml", "a/labels.csv")]


@pytest.mark.parametrize(
    "line",
    ["noise: own d/labels.csv", "datasets: d/labels.yaml", "configs: d/labels.yaml", "protocol: d/labels.yaml",
     "MODEL.INIT_WEIGHTS: d/labels", "MODEL.INIT_WEIGHTS: [d/labels, a/labels.csv]", "targets: d/labels.yaml"],
)  # fmt: skip
def test_a_file_that_is_missing_is_refused_before_any_run(line, jobs_of, tables):
    with pytest.raises(UserError) as caught:
        jobs_of(f"{OWN_NOISE.replace(line.split(':')[0] + ':', '# ')}{line}\n")
    assert all(str(folder / "d" / "labels") in str(caught.value) for folder in tables)
    assert line.split(":")[0] in str(caught.value) and "own.yaml" in str(caught.value)


def test_files_of_the_command_line_are_relative_to_the_working_folder(tables, capsys):
    (tables[1] / "a").mkdir()
    (tables[1] / "a" / "labels.csv").write_text("path,given\n")
    words = ["noisy", "emoji", "own", "a/labels.csv,c/labels.csv", "--seeds", "1", "--trainer", "CoOp", "--dry-run"]
    assert command.main(words) == 0
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    files = [line[line.index("DATASET.NOISE.FILE") + 1] for line in printed]
    assert files == [str(tables[1] / name) for name in ("a/labels.csv", "c/labels.csv")]


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_runs_among_images_are_refused_before_a_file_is_written(command, tiny_dataset, tmp_path, monkeypatch, capsys):
    photos = shutil.copytree(tiny_dataset / "train", tmp_path / "photos")
    (tmp_path / "plan.yaml").write_text(
        "protocol: fewshot\ndatasets: own_folder\ntrainers: CoOp\nconfigs: emoji_rn\nshots: 2\nseeds: [1, 2]\n"
    )
    monkeypatch.chdir(photos)
    before = sorted(photos.rglob("*"))
    capsys.readouterr()
    assert main([command, "../plan.yaml", "--root", "."]) == 2
    assert_names(capsys.readouterr().err, photos, "--output")
    assert sorted(photos.rglob("*")) == before
    assert main([command, "../plan.yaml", "--root", ".", "--output", "../output", "--dry-run"]) == 0


@pytest.mark.parametrize(
    "words, facts",
    [
        (["none", "--soft-labels", "foo"], ["--soft-labels", "foo", "isl"]),
        (["own", "nowhere.csv"], ["--noise", "nowhere.csv"]),
        (["none", "--config", "nowhere.yaml"], ["--config", "nowhere.yaml"]),
        (["none", "OPTIM.LT", "1"], ["command line", "OPTIM.LT"]),
        (["none", "SEED", "1"], ["command line", "SEED", "seeds"]),
        (["none", "--dataset", "nowhere.yaml"], ["--dataset", "nowhere.yaml"]),
    ],
)
def test_a_mistake_of_the_command_line_does_not_blame_the_plan(words, facts, capsys):
    assert command.main(["noisy", "emoji", *words, "--seeds", "1", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert all(fact in error for fact in facts) and "noisy.yaml" not in error, error


def test_a_plan_may_exclude_what_the_command_line_replaces(jobs_of):
    text = "protocol: noisy\ndatasets: emoji\ntrainers: [CoOp, CoOpDSPT]\nseeds: 1\nnoise: [none, sym 0.5]\n"
    text += "exclude: [{trainers: CoOp, noise: none}]\n"
    assert len(jobs_of(text)) == 3 and len(jobs_of(text, trainers=["CoOpDSPT"])) == 2
    with pytest.raises(UserError) as caught:
        jobs_of(text.replace("{trainers: CoOp,", "{trainers: CoCoOp,"), seeds=[1])
    assert "CoCoOp" in str(caught.value)


def test_each_plan_can_be_named():
    assert {"noisy", "embedded", "evidence", "demo", "dspt_noisy"} <= set(plan_names())


def test_a_plan_s_file_takes_every_spelling_of_a_data_set(jobs_of):
    text = "protocol: transfer\ntrainers: CoOp\nseeds: 1\nshots: 2\n"
    spelled = jobs_of(text + "datasets: Emoji\ntargets: [EmojiV2, emojiflat]\n")
    usual = jobs_of(text + "datasets: emoji\ntargets: [emoji_v2, emoji_flat]\n")
    assert [job.arguments for job in spelled] == [job.arguments for job in usual]


def test_a_plan_leaves_out_a_data_set_in_any_spelling(jobs_of):
    text = "protocol: fewshot\ntrainers: CoOp\nseeds: 1\nshots: [1, 2]\ndatasets: [Emoji, EmojiV2]\n"
    jobs = jobs_of(text + "exclude: [{datasets: emojiv2, shots: 1}, {datasets: Emoji}]\n")
    assert [job.pairs["DATASET.NUM_SHOTS"] for job in jobs] == ["2"]
    assert jobs[0].option("--dataset-config-file").endswith("emoji_v2.yaml")


def test_a_plan_whose_runs_are_all_refused_shows_no_table_of_other_runs(tmp_path, capsys):
    words = ["noisy", "emoji", "sym", "0.5", "--trainer", "CoOp", "--seeds", "1", "--config", "emoji_rn"]
    assert command.main([*words, "--output", str(tmp_path), "--dry-run"]) == 0
    command_of_run = shlex.split(capsys.readouterr().out)
    write_result(
        Path(command_of_run[command_of_run.index("--output-dir") + 1]), 12.34, dataset="Emoji", noise=SYM, seed=7
    )
    assert command.main([*words, "--output", str(tmp_path)]) == 2
    output, errors = capsys.readouterr()
    assert "12.3" not in output and "1 of 1" in errors
