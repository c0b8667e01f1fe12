"""The evidence run: planned runs, kept results that are not done again, paired differences, tables."""

import csv
import json
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from dassl.engine import TRAINER_REGISTRY
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from dspt_atlas.errors import UserError
from dspt_atlas.launch.estimate import estimate
from dspt_atlas.launch.job import Run
from dspt_atlas.launch.listing import time_left
from dspt_atlas.plan.evidence import part_names, plan
from dspt_atlas.report import evidence as evidence_tables
from dspt_atlas.report.evidence import build_grids, markdown, to_csv
from dspt_atlas.report.page.page import render_page
from dspt_atlas.report.table import report
from dspt_atlas.results.archive import archiving, read_archive, read_archives, write_archive
from dspt_atlas.results.paired import paired_difference
from dspt_atlas.results.read import load
from dspt_atlas.results.record import to_row
from dspt_atlas.run.train import read_arguments
from dspt_atlas.tools import evidence
from dspt_atlas.trainers.declare import LEARNERS
from dspt_atlas.trainers.registry import pair_of
from support.paths import ROOT
from support.results import SYM, fields_of, trained_on
from support.runs import result_of

NOISE = {"clean", "sym_0.25", "sym_0.5", "sym_0.75", "asym_0.25", "asym_0.5"}


@pytest.fixture(scope="module")
def planned():
    return plan(Path("output"))


def _relative(planned, *kinds):
    """Return (job, folders below output) of runs that are neither ablations nor profiles."""
    relative = [(job, job.folder.relative_to("output").parts) for part, job in planned if part in part_names()[:2]]
    return [(job, parts) for job, parts in relative if parts[0] in kinds]


def _trains(job):
    return not job.option("--model-dir")


def test_every_run_is_planned_once_with_a_registered_trainer_and_after_its_training(planned):
    folders = [job.folder for _, job in planned]
    assert len(set(folders)) == len(folders)
    assert {part for part, _ in planned} == set(part_names())
    assert {job.option("--trainer") for _, job in planned} <= set(TRAINER_REGISTRY.registered_names())
    assert all(folders.index(job.trained_in) <= number for number, (_, job) in enumerate(planned))


def test_the_noise_part_has_eight_methods_six_settings_and_five_seeds(planned):
    parts = [parts for _, parts in _relative(planned, "noisy")]
    assert len(parts) == 8 * 6 * 5
    assert {part[2] for part in parts} == NOISE
    assert {part[4].removeprefix("CoOp") for part in parts} == {
        "ZeroshotCLIP", "", "LS", "GCE", "MAE", "NLPrompt", "JoAPR", "DSPT",
    }  # fmt: skip
    assert {part[-1] for part in parts} == {f"seed{seed}" for seed in range(1, 6)}


def test_the_generalisation_part_has_seven_methods_on_three_prompt_learners_and_three_seeds(planned):
    learned = [run for run in _relative(planned, "base2new", "emoji", "fewshot") if "Zeroshot" not in str(run[1])]
    trained = Counter()
    for job, parts in learned:
        if _trains(job):
            method = (job.option("--trainer"), job.pairs.get("TRAINER.ATLAS.SOFT_LABELS"))
            trained[parts[0], pair_of(job.option("--trainer")).learner] += 1
            assert method[1] or not method[0].endswith("ATLaS")
    for learner in ("CoOp", "CoCoOp", "MaPLe"):
        # one training on the source serves cross-set, styles and 16 shots
        expected = {"base2new": 7 * 3, "emoji": 7 * 3, "fewshot": 7 * (4 if learner == "CoOp" else 2) * 3}
        assert {kind: count for (kind, of), count in trained.items() if of == learner} == expected
        configs = {
            Path(job.option("--config-file")).stem
            for job, _ in learned
            if pair_of(job.option("--trainer")).learner == learner
        }
        assert len(configs) == 1  # the same epochs for all methods
    evaluated = [parts for _, parts in _relative(planned, "evaluation") if "Zeroshot" not in parts[1]]
    assert len(evaluated) == 21 * 3 * 4
    assert {parts[3] for parts in evaluated} == {"emoji_objects", "emoji_v2", "emoji_flat", "emoji_ink"}


def test_ablations_change_one_setting_each(planned):
    values = {}
    for part, job in planned:
        if part == "ablations":
            changed = [key for key in job.pairs if key.startswith("TRAINER.") and not key.endswith("SOFT_LABELS")]
            assert len(changed) == 1 and "ablation_" in str(job.folder)
            values.setdefault(changed[0].removeprefix("TRAINER."), set()).add(job.pairs[changed[0]])
    assert values.pop("ATLAS.PERIOD") == {"3", "5", "10"}  # 2 is the default
    assert values.pop("ATLAS.ALPHA") == {"0.05", "0.2", "0.5", "1"}  # 0.1
    assert values.pop("DSPT.PRECISION") == {"bf16"} and "1.0" not in values.pop("DSPT.TEMPERATURE")
    assert set(values) == {"ATLAS.CSL_TEMPERATURE", "ATLAS.ISL_TEMPERATURE", "TFKD.MULTIPLIER"}


def test_the_headline_comes_first_and_seeds_are_complete_method_by_method(planned):
    first = [job for _, job in planned[:40]]
    assert all("noisy/emoji/sym_0.5/" in job.folder.as_posix() for job in first)
    trainers = [job.option("--trainer") for job in first]
    assert all(len(set(trainers[start : start + 5])) == 1 for start in range(0, 40, 5))


def test_the_estimate_is_within_two_hours_on_two_cores_and_grows_with_epochs(planned):
    def seconds(planned):
        estimate(runs := [Run(job) for _, job in planned])
        return sum(run.seconds or 0 for run in runs)

    assert seconds([(part, job) for part, job in planned if part not in ("learners", "photos")]) < 2 * 2 * 3600
    assert seconds(plan(Path("output"), pairs=("OPTIM.MAX_EPOCH", "2"))) < seconds(planned)


def test_what_the_protocols_did_already_has_the_same_folder_and_configuration(planned, capsys):
    from dspt_atlas.tools import run_plan as plan_command

    arguments = [
        "noisy",
        "emoji",
        "sym",
        "0.5",
        "--trainer",
        "CoOpDSPT",
        "--seeds",
        "1",
        "--output",
        "output",
        "--dry-run",
    ]
    assert plan_command.main(arguments) == 0
    (theirs,) = capsys.readouterr().out.splitlines()
    ours = [job for _, job in planned if f"--output-dir {job.folder} " in theirs]
    assert len(ours) == 1
    cfg, _ = read_arguments(shlex.split(theirs)[2:])
    assert cfg == read_arguments(list(ours[0].arguments))[0]


def tiny(backbone, *arguments):
    return [
        "--seeds", "1", "--workers", "1", "--only", "shots_16/CoOp/emoji_rn_ep20/", "clean/shots_16/ZeroshotCLIP/",
        *map(str, arguments), "--", "MODEL.BACKBONE.NAME", backbone, "OPTIM.MAX_EPOCH", "1", "INPUT.VIEWS", "1",
        "DATALOADER.TRAIN_X.BATCH_SIZE", "480", "DATALOADER.NUM_WORKERS", "0", "TRAINER.COOP.N_CTX", "2",
    ]  # fmt: skip


@pytest.mark.slow
def test_evidence_is_cut_short_resumed_and_not_repeated_where_only_the_small_results_are(
    tiny_resnet_clip_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = tiny(tiny_resnet_clip_path, "--docs", "docs", "--minutes", "0")
    assert evidence.main(arguments) == 0
    said = capsys.readouterr().out
    assert "3 runs, 3 to do" in said and "3 runs are left" in said
    assert not Path("docs").exists() and not Path("output").exists()

    assert evidence.main(tiny(tiny_resnet_clip_path, "--docs", "docs")) == 0
    printed = capsys.readouterr().out
    assert "[3/3]" in printed and "runs are left" not in printed
    archives = sorted(Path("docs/runs").iterdir())
    assert [path.name for path in archives] == ["generalisation.results.jsonl", "noise.results.jsonl"]
    kept = read_archives(Path("docs/runs"))
    assert sorted(kept) == sorted(
        path.parent.relative_to("output").as_posix() for path in Path("output").rglob("result.json")
    )
    text = "".join(path.read_text() for path in archives)
    assert len(text) < 10_000 * len(kept) and str(tmp_path) not in text.replace(tiny_resnet_clip_path, "")
    for folder, result in kept.items():
        theirs = json.loads(Path("output", folder, "result.json").read_text())
        assert all(result[name] == theirs[name] for name in ("accuracy", "macro_f1", "seed", "identity"))
    assert "CoOp" in Path("docs/tables.md").read_text() and "| H" in report([Path("docs/runs")])[0]

    # another machine: the kept results alone
    shutil.rmtree("output")
    assert evidence.main(tiny(tiny_resnet_clip_path, "--docs", "docs")) == 0
    assert "3 runs, 0 to do" in capsys.readouterr().out and not Path("output").exists()
    (tested,) = [folder for folder in kept if "test_new" in folder]
    write_archive(
        archives[0], {folder: result for folder, result in read_archive(archives[0]).items() if folder != tested}
    )
    assert evidence.main(tiny(tiny_resnet_clip_path, "--docs", "docs", "--dry-run")) == 0
    captured = capsys.readouterr()
    assert "3 runs, 2 to do" in captured.err and len(captured.out.splitlines()) == 2  # the test needs its training
    other = [*tiny(tiny_resnet_clip_path, "--docs", "docs", "--dry-run"), "OPTIM.LR", "0.5"]
    assert evidence.main(other) == 0
    assert "3 runs, 2 to do" in capsys.readouterr().err  # zero-shot has no learning rate


def test_the_time_of_runs_is_estimated_from_kept_ones_and_the_unknown_is_counted(tmp_path):
    jobs = [job for part, job in plan(tmp_path, (1, 2)) if part == "photos" and "caltech101/clean" in str(job.folder)]
    one, other = (next(job for job in jobs if job.folder.match(f"*/CoOp/*_lr0.01/seed{seed}")) for seed in (1, 2))
    alike = next(job for job in jobs if job.folder.match("*/CoOp/*_lr0.002/seed1"))
    seconds = {one: 600.0, alike: 60.0}  # runs with the same keys count more than those with others
    results = {job.folder.relative_to(tmp_path).as_posix(): {"seconds": each} for job, each in seconds.items()}
    assert time_left(evidence._estimated([alike, one, other], [other], tmp_path, results)) == time_left(
        [Run(other, seconds=600.0)]
    )
    assert "unknown" in time_left(evidence._estimated([other], [other], tmp_path, {}))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--part", "everything"], "everything"),
        (["--minutes", "nan"], "--minutes"),
        (["--seeds", "-1"], "--seeds"),
        (["--only", "imagenet"], "imagenet"),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = evidence.main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err
    assert status == 2 and expected in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_tables_of_nothing_are_refused(tmp_path, capsys):
    assert evidence.main(["--tables-only", "--docs", str(tmp_path / "docs")]) == 2
    assert str(tmp_path / "docs") in capsys.readouterr().err and not (tmp_path / "docs").exists()


def test_a_long_history_is_thinned_and_keeps_its_last_epoch():
    history = [{"epoch": epoch, "train_loss": 1 / 3, "seconds": 1.5} for epoch in range(1, 51)]
    result = {"config": {"OUTPUT_DIR": "x", "SEED": 1}, "history": history, "per_class_accuracy": {"cat": 1.0}}
    small = evidence.trimmed(result, Path("output"))
    assert [entry["epoch"] for entry in small["history"]] == list(range(2, 51, 2))
    assert small["history"][-1] == {"epoch": 50, "train_loss": 0.3333}
    assert small["config"] == {"SEED": 1} and "per_class_accuracy" not in small
    assert len(result["history"]) == 50 and "OUTPUT_DIR" in result["config"]  # the run's own is left alone


VALUES = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=8)


@given(VALUES, st.sampled_from([0.9, 0.95]))
@settings(deadline=None)
def test_the_interval_is_that_of_a_paired_t_test(pairs, confidence):
    values, baseline = ({number: pair[side] for number, pair in enumerate(pairs)} for side in (0, 1))
    ours = paired_difference(values, baseline, confidence)
    assert ours.pairs == len(pairs) and ours.low <= ours.mean + 1e-9 and ours.mean <= ours.high + 1e-9
    differences = [a - b for a, b in pairs]
    if max(differences) - min(differences) > 1e-6:  # scipy has no interval for equal differences
        interval = ttest_rel(*map(list, zip(*pairs, strict=True))).confidence_interval(confidence)
        assert (ours.low, ours.high) == pytest.approx(tuple(interval), rel=1e-6, abs=1e-6)


@given(VALUES)
@settings(deadline=None)
def test_a_difference_changes_its_sign_with_its_sides_and_ignores_what_is_in_one_alone(pairs):
    values, baseline = ({number: pair[side] for number, pair in enumerate(pairs)} for side in (0, 1))
    there, back = paired_difference(values, baseline), paired_difference(baseline, values)
    assert (back.mean, back.low, back.high) == pytest.approx((-there.mean, -there.high, -there.low), abs=1e-9)
    assert paired_difference({**values, "more": 3.0}, {**baseline, "other": 1.0}) == there


def test_one_pair_has_no_interval_and_none_no_difference():
    alone = paired_difference({1: 70.0, 2: 60.0}, {1: 65.0})
    assert (alone.mean, alone.low, alone.high, alone.pairs) == (5.0, None, None, 1)
    assert paired_difference({1: 70.0}, {2: 65.0}) is None


def _row(kind, method, seed, accuracy, label="", **fields):
    """Return a row as the kept results give it."""
    host, made_on = {"cpu": "Some CPU", "cores": 2, "gpu": None}, {"commit": "0123456789abcdef+changes"}
    trainer, _, soft_labels = method.partition(" (")
    fields = {"config_name": "emoji_rn_ep20", "soft_labels": soft_labels.removesuffix(")") or "ls", **fields}
    result = fields_of(accuracy, trainer=trainer, seed=seed, **made_on, host=host, versions={"torch": "2.2"}, **fields)
    return {**to_row(result), "kind": kind, "label": label, "folder": Path(kind, label, method, str(seed))}


def test_tables_show_means_paired_differences_missing_seeds_and_what_they_were_made_on():
    runs = [
        _row("noisy", method, seed, accuracy + seed, noise=SYM)
        for method, accuracy, seeds in (
            ("CoOp", 30.0, (1, 2, 3)),
            ("CoOpDSPT", 60.0, (1, 2)),
            ("ZeroshotCLIP", 50.0, (1,)),
        )
        for seed in seeds
    ]
    runs += [_row("noisy", "CoOpDSPT", seed, 61.0, "ablation_temperature_2.0", noise=SYM) for seed in (1, 2)]
    noise, ablation = build_grids(runs)
    text = markdown(noise)
    assert list(noise.cells) == ["ZeroshotCLIP", "CoOp", "CoOpDSPT"]
    assert all(cell in text for cell in ("| 61.5 ± 0.5 (2 seeds) ", "| 32.0 ± 0.8 (3 seeds) ", "| 51.0 (1 seed) "))
    assert "+30.0 [+30.0, +30.0]" in text and "+19.0" not in text and "+20.0 (1 pair)" in text
    found = {row["row"]: row["missing_seeds"] for row in csv.DictReader(evidence_tables.to_csv([noise]).splitlines())}
    assert found["CoOpDSPT"] == "3 4 5"
    assert "0123456789 with changes" in text and "2 cores of Some CPU, no GPU, torch 2.2" in text
    assert "dspt-atlas evidence --part noise" in text
    assert list(ablation.cells) == ["CoOpDSPT", "temperature 2.0"] and len(ablation.cells["CoOpDSPT"]["sym 0.5"]) == 2


def test_base_new_tables_pair_the_harmonic_means_and_csv_is_unrounded():
    accuracies = {
        ("CoOp", "base"): 80.0,
        ("CoOp", "new"): 60.0,
        ("CoOpATLaS (csl)", "base"): 79.0,
        ("CoOpATLaS (csl)", "new"): 65.0,
    }
    runs = [
        _row("base2new", method, seed, accuracy + seed / 3, subsample=part)
        for (method, part), accuracy in accuracies.items()
        for seed in (1, 2, 3)
    ]
    (grid,) = build_grids(runs)
    assert grid.columns == ["base", "new", "H per seed"]
    rows = list(csv.DictReader(evidence_tables.to_csv([grid]).splitlines()))
    (h,) = [row for row in rows if row["column"] == "H per seed" and row["baseline"] == "CoOp"]

    def harmonic(base, new):
        return 2 * base * new / (base + new)

    differences = [harmonic(79 + s / 3, 65 + s / 3) - harmonic(80 + s / 3, 60 + s / 3) for s in (1, 2, 3)]
    assert float(h["difference"]) == pytest.approx(sum(differences) / 3)
    assert h["pairs"] == "3" and float(h["low"]) < float(h["difference"]) < float(h["high"])
    assert h["seeds"] == "1 2 3" and h["missing_seeds"] == ""


def test_over_several_data_sets_a_seed_is_one_pair_of_means_over_those_that_both_have():
    accuracies = {"CoOp": {1: (50.0, 30.0), 2: (52.0, 31.0)}, "CoOpATLaS (csl)": {1: (56.0, 32.0), 2: (55.0, None)}}
    runs = [
        _row("evaluation", method, seed, accuracy, dataset=dataset, evaluated=trained_on("Emoji", seed=seed))
        for method, seeds in accuracies.items()
        for seed, pair in seeds.items()
        for dataset, accuracy in zip(("EmojiV2", "EmojiInk"), pair, strict=True)
        if accuracy is not None
    ]
    (grid,) = build_grids(runs)
    rows = list(csv.DictReader(evidence_tables.to_csv([grid]).splitlines()))
    (difference,) = [row for row in rows if row["column"] == "mean of 2 targets" and row["baseline"] == "CoOp"]
    assert difference["pairs"] == "2"
    assert float(difference["difference"]) == pytest.approx(((6 + 2) / 2 + 3) / 2)
    assert "2 paired seeds" in markdown(grid) and "95 %" in markdown(grid)


def test_the_tables_say_how_many_planned_runs_are_left_by_part(tmp_path):
    _, first = plan(Path("output"))[0]
    kept = {first.folder.relative_to("output").as_posix(), "of/another/plan"}
    planned = len(plan(Path("output")))
    assert evidence_tables.progress(kept).startswith(f"1 of {planned:,} planned runs are kept; left: noise 239, ")


def test_all_planned_runs_are_kept_and_nothing_else(planned):
    kept = read_archives(ROOT / "docs" / "evidence" / "runs").keys()
    part_of = {job.folder.relative_to("output").as_posix(): part for part, job in planned}
    assert kept <= part_of.keys()
    assert {part_of[folder] for folder in part_of.keys() - kept} <= {
        "learners",
        "photos",
    }  # a new learner has no run yet


def test_an_archive_is_read_like_the_folders_that_it_holds(tiny_noisy_run, tmp_path):
    result = result_of(tiny_noisy_run)
    for seed in (2, 1):
        folder = tmp_path / "folders" / f"seed{seed}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({**result, "seed": seed}))
    lines = {f"seed{seed}": {**result, "seed": seed} for seed in (2, 1)}
    write_archive(tmp_path / "archive" / "some.results.jsonl", lines)
    assert report([tmp_path / "archive"]) == report([tmp_path / "folders"])
    assert (
        render_page([tmp_path / "archive"], figures=False)[1] == render_page([tmp_path / "folders"], figures=False)[1]
    )


def test_a_batch_that_is_interrupted_keeps_the_results_that_it_has(tmp_path):
    path = tmp_path / "noise.results.jsonl"
    write_archive(path, {"b": {"accuracy": 2.0}})
    with pytest.raises(KeyboardInterrupt), archiving(tmp_path) as archive:
        archive("noise", "c", {"accuracy": 3.0})
        archive("noise", "a", {"accuracy": 1.0})
        raise KeyboardInterrupt
    assert list(read_archive(path)) == ["a", "b", "c"]
    assert [path.name for path in tmp_path.iterdir()] == ["noise.results.jsonl"]


@pytest.mark.parametrize("damage", ["{", '{"folder": ', "[]", "{}", "\udcff"])
def test_a_damaged_archive_is_named_and_left_as_it_is(damage, tiny_noisy_run, tmp_path):
    path = tmp_path / "some.results.jsonl"
    path.write_bytes(damage.encode("utf-8", "surrogateescape") + b"\n")
    before = path.read_bytes()
    (problem,) = load([tmp_path]).lines
    assert str(path) in problem
    with pytest.raises(UserError, match=re.escape(str(path))), archiving(tmp_path) as archive:
        archive("some", "seed1", evidence.kept(tiny_noisy_run, tiny_noisy_run.parent, tmp_path))
    assert path.read_bytes() == before


def test_the_learners_table_compares_each_with_its_own_cross_entropy_and_others_do_not_show_its_runs():
    accuracies = {"CoOp": 30.0, "CoOpDSPT": 60.0, "KgCoOp": 50.0, "KgCoOpDSPT": 55.0}
    runs = [
        {**_row("noisy", trainer, seed, accuracy, noise=SYM), "part": "learners", "is_of_learners": True}
        for trainer, accuracy in accuracies.items()
        for seed in (1, 2, 3)
    ]
    (grid,) = build_grids(runs)
    assert (grid.name, list(grid.cells)) == ("learners", ["CoOp", "CoOpDSPT", "KgCoOp", "KgCoOpDSPT"])
    lines = {line[1]: line for line in list(csv.reader(to_csv([grid]).splitlines()))[1:] if line[7]}
    assert {row: float(line[8]) for row, line in lines.items()} == {"CoOpDSPT": 30.0, "KgCoOpDSPT": 5.0}


def test_the_plan_of_learners_has_each_declared_learner_with_three_methods():
    jobs = [job for part, job in plan(Path("output"), (1,)) if part == "learners"]
    trainers = {job.option("--trainer") for job in jobs}
    wanted = {learner + method for learner in LEARNERS for method in ("", "DSPT", "ATLaS")}
    assert wanted - trainers == {"CoOp", "CoOpDSPT"} - trainers  # their noisy runs belong to the part noise
    assert all("TRAIN.GRADIENT_SHARE" in job.pairs for job in jobs if "--eval-only" not in job.arguments)
