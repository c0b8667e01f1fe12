"""Tables from result.json files: numbers, missing cells, formats; and logs of other repositories."""

import csv
import io
import itertools
import json
import shutil
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspt_atlas.report import table as reports
from dspt_atlas.report.figures import draw_figures
from dspt_atlas.results.read import frame_of, load
from dspt_atlas.results.record import to_row
from dspt_atlas.results.render import render
from dspt_atlas.results.tables import build_tables
from support.refusals import refused
from support.results import EVALUATED, SYM, TRAINED, entries, fields_of, runs, trained_on, write_log, write_result
from support.runs import result_of


def test_noise_table_has_means_spreads_and_visible_holes(tmp_path):
    for seed, accuracy in ((1, 80.0), (2, 83.0), (3, 88.0)):
        write_result(tmp_path / f"a{seed}", accuracy, seed=seed)
    for seed, accuracy in ((1, 40.0), (3, 50.0)):
        write_result(tmp_path / f"b{seed}", accuracy, seed=seed, noise=SYM)
    write_result(tmp_path / "c", 78.5, trainer="CoOpDSPT", noise=SYM)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.yaml").write_text("SEED: 2\n")
    text, problems = reports.report([tmp_path])
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert [cell.strip() for cell in rows["method"].split("|")[1:-1]] == ["method", "clean", "sym 0.5"]
    assert [cell.strip() for cell in rows["CoOp"].split("|")[2:-1]] == ["83.7 ± 3.3", "45.0 ± 5.0 (2 seeds)"]
    assert [cell.strip() for cell in rows["CoOpDSPT"].split("|")[2:-1]] == ["–", "78.5 (1 seed)"]
    lacking = ("CoOp, sym 0.5, seed 2", "CoOpDSPT, sym 0.5, seeds 2, 3")
    listed = reports.report([tmp_path], missing=True)[0]
    assert all(words in listed and words not in text for words in lacking)
    assert problems == [f"{tmp_path / 'd'} is not finished (no epoch done)"]


def test_seeds_that_nobody_has_are_missing_when_asked_for(tmp_path):
    write_result(tmp_path / "a", 80.0)
    text, _ = reports.report([tmp_path], wanted_seeds=(1, 2, 3))
    assert "seeds 2, 3" in text


def test_the_difference_to_a_baseline_is_over_common_seeds(tmp_path):
    for seed, ours, theirs in ((1, 60.0, 50.0), (2, 70.0, 64.0)):
        write_result(tmp_path / f"o{seed}", ours, trainer="CoOpDSPT", seed=seed)
        write_result(tmp_path / f"t{seed}", theirs, seed=seed)
    write_result(tmp_path / "o3", 0.0, trainer="CoOpDSPT", seed=3)
    found = entries(tmp_path, baseline="CoOp")
    entry = found[None, "CoOpDSPT", "16 shots"]
    assert entry["difference"] == pytest.approx(8.0) and entry["pairs"] == 2
    half = 12.706 * 2  # Student's t with one degree of freedom, times the standard error of 10 and 6
    assert [entry["difference_low"], entry["difference_high"]] == pytest.approx([8 - half, 8 + half], abs=0.01)
    text = reports.report([tmp_path], baseline="CoOp")[0]
    assert "+8.0 [-17.4, +33.4]" in text and "2 paired seeds" in text and "95 %" in text
    with refused("CoOp, CoOpDSPT", "CoCoOp"):
        reports.report([tmp_path], baseline="CoCoOp")


def test_differences_of_h_and_of_means_are_over_common_seeds_too(tmp_path):
    accuracies = {  # by trainer and data set: (seed, base, new)
        ("CoOp", "A"): [(1, 80.0, 60.0), (2, 90.0, 80.0), (3, 70.0, 70.0)],
        ("CoOp", "B"): [(1, 50.0, 40.0)],
        ("CoOpDSPT", "A"): [(1, 82.0, 64.0)],
        ("CoOpDSPT", "B"): [(1, 51.0, 43.0), (2, 99.0, 99.0)],
    }
    for (trainer, dataset), runs_of in accuracies.items():
        for seed, *both in runs_of:
            for subsample, accuracy in zip(("base", "new"), both, strict=True):
                tested = {"evaluated": trained_on(dataset, seed=seed)} if subsample == "new" else {}
                folder = tmp_path / trainer / dataset / str(seed) / subsample
                write_result(
                    folder, accuracy, trainer=trainer, dataset=dataset, seed=seed, subsample=subsample, **tested
                )
    found = entries(tmp_path, baseline="CoOp")
    own = statistics.harmonic_mean
    h = found["A", "CoOpDSPT", "H"]
    assert h["difference"] == pytest.approx(own([82, 64]) - own([80, 60])) and h["pairs"] == 1
    mean = found["mean of 2 data sets", "CoOpDSPT", "base"]
    assert mean["difference"] == pytest.approx((2 + 1) / 2) and mean["pairs"] == 1
    assert found["mean of 2 data sets", "CoOpDSPT", "H"]["difference"] == pytest.approx(
        own([(82 + 51) / 2, (64 + 43) / 2]) - own([(80 + 50) / 2, (60 + 40) / 2])
    )
    lines = [line for line in reports.report([tmp_path])[0].splitlines() if line.startswith("| mean of 2")]
    assert all(line.count("(of different seeds)") == 3 for line in lines) and len(lines) == 2


def test_h_of_base_and_new_with_other_seeds_is_marked(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path / f"base{seed}", 80.0, seed=seed, subsample="base")
        tested = trained_on("Emoji", seed=seed)
        write_result(tmp_path / f"new{seed}", 60.0, seed=seed, subsample="new", evaluated=tested)
    assert "different seeds" not in reports.report([tmp_path])[0]
    shutil.rmtree(tmp_path / "new1")
    assert "(of different seeds)" in reports.report([tmp_path])[0]


def test_base_new_and_harmonic_mean(tmp_path):
    for dataset, base, new in (("A", 80.0, 60.0), ("B", 90.0, 70.0)):
        write_result(tmp_path / dataset / "base", base, dataset=dataset, subsample="base")
        write_result(tmp_path / dataset / "new", new, dataset=dataset, subsample="new", evaluated=trained_on(dataset))
    write_result(tmp_path / "A" / "other", 50.0, trainer="MaPLe", dataset="A", subsample="base")
    found = entries(tmp_path)
    assert found["A", "CoOp", "H"]["mean"] == pytest.approx(2 * 80 * 60 / 140)
    mean = "mean of 2 data sets"
    assert (found[mean, "CoOp", "base"]["mean"], found[mean, "CoOp", "new"]["mean"]) == (85.0, 65.0)
    assert found[mean, "CoOp", "H"]["mean"] == pytest.approx(2 * 85 * 65 / 150)
    assert found["A", "MaPLe", "H"]["mean"] is None
    assert "50.0 (1 of 2 data sets)" in reports.report([tmp_path])[0]


def test_transfer_separates_other_data_from_other_versions(tmp_path):
    write_result(tmp_path / "source", 70.0)
    for number, (target, accuracy) in enumerate((("EmojiObjects", 30.0), ("Other", 50.0), ("EmojiInk", 20.0))):
        write_result(tmp_path / f"t{number}", accuracy, dataset=target, evaluated=trained_on("Emoji"))
    text, _ = reports.report([tmp_path])
    cross, domain = text.split("Cross-dataset from Emoji, 16 shots")[1].split(
        "Domain generalisation from Emoji, 16 shots"
    )
    assert "EmojiInk" not in cross and "EmojiObjects" not in domain
    assert "70.0" in cross and "70.0" in domain and "mean of" not in domain
    assert entries(tmp_path)[None, "CoOp", "mean of 2 targets"]["mean"] == 40.0


def test_shots_are_columns_in_their_order(tmp_path):
    for shots in (16, 1, 2):
        write_result(tmp_path / str(shots), 50.0 + shots, shots=shots)
    text, _ = reports.report([tmp_path])
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    assert [cell.strip() for cell in header.split("|")[2:-1]] == ["1 shot", "2 shots", "16 shots"]


def test_one_experiment_in_two_folders_counts_once(tmp_path):
    write_result(tmp_path / "a", 80.0)
    write_result(tmp_path / "b", 80.0)
    assert len(runs([tmp_path])) == 1


def test_two_experiments_are_never_averaged_as_one(tmp_path):
    write_result(tmp_path / "x" / "seed1", 80.0)
    write_result(tmp_path / "y" / "seed1", 60.0, lr=0.2, config_name="vit")
    write_result(tmp_path / "z" / "seed1", 40.0, lr=0.3, config_name="vit")
    assert {record.row: record.accuracy for record in runs([tmp_path])} == {
        "CoOp [LR=0.1]": 80.0,
        "CoOp [LR=0.2]": 60.0,
        "CoOp [LR=0.3]": 40.0,
    }


def test_a_method_that_is_told_apart_by_a_key_keeps_its_line_over_noise_and_seeds(tmp_path):
    for lr, noise, seed in itertools.product((0.1, 0.2), (None, SYM), (1, 2)):
        write_result(tmp_path / f"{lr}_{noise is None}" / f"seed{seed}", 80.0 + lr, lr=lr, noise=noise, seed=seed)
    write_result(tmp_path / "default" / "seed3", 70.0, seed=3)
    text, _ = reports.report([tmp_path])
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| CoOp")
    }
    assert {name: [cell.strip() for cell in row] for name, row in rows.items()} == {
        "CoOp [LR=0.1]": ["76.7 ± 4.8", "80.1 ± 0.0 (2 seeds)"],
        "CoOp [LR=0.2]": ["80.2 ± 0.0 (2 seeds)", "80.2 ± 0.0 (2 seeds)"],
    }


def test_keys_are_named_by_as_much_of_their_end_as_tells_them_apart(tmp_path):
    for number, (width, rate, other) in enumerate(((1, 2, 3), (4, 2, 3), (1, 5, 3), (1, 2, 6))):
        write_result(tmp_path / str(number), 80.0, lr=None)
        path = tmp_path / str(number) / "result.json"
        result = json.loads(path.read_text())
        result["config"] |= {"A": {"SIZE": width}, "B": {"SIZE": rate, "OWN": other}}
        path.write_text(json.dumps(result))
    names = {record.folder.name: record.row for record in runs([tmp_path])}
    assert names == {
        "0": "CoOp [A.SIZE=1, OWN=3, B.SIZE=2]",
        "1": "CoOp [A.SIZE=4, OWN=3, B.SIZE=2]",
        "2": "CoOp [A.SIZE=1, OWN=3, B.SIZE=5]",
        "3": "CoOp [A.SIZE=1, OWN=6, B.SIZE=2]",
    }


def test_a_test_has_the_shots_and_labels_of_its_training(tmp_path):
    trained = trained_on("Emoji", shots=4, noise=SYM)
    write_result(tmp_path / "base", 80.0, shots=4, noise=SYM, subsample="base")
    write_result(tmp_path / "new", 60.0, shots=-1, subsample="new", evaluated=trained)
    write_result(tmp_path / "again", 70.0, shots=-1, evaluated=trained, config_name=None)
    records = {record.folder.name: record for record in runs([tmp_path])}
    assert {record.shots for record in records.values()} == {4} and {record.noise for record in records.values()} == {
        "sym 0.5"
    }
    assert {name: record.source for name, record in records.items()} == {"base": None, "new": "Emoji", "again": None}
    assert records["again"].config_name == ""


def test_the_order_of_settings_does_not_make_another_experiment(tmp_path):
    write_result(tmp_path / "a", 80.0)
    write_result(tmp_path / "b", 80.0)
    result = result_of(tmp_path / "b")
    result["config"] = dict(reversed(result["config"].items()))
    (tmp_path / "b" / "result.json").write_text(json.dumps(result))
    assert len(runs([tmp_path])) == 1


def test_kinds_of_soft_labels_are_methods_of_their_own(tmp_path):
    for kind in ("ls", "csl"):
        write_result(tmp_path / kind, 50.0, trainer="CoOpATLaS", soft_labels=kind)
    assert {record.row for record in runs([tmp_path])} == {"CoOpATLaS (ls)", "CoOpATLaS (csl)"}
    write_result(tmp_path / "own", 50.0, trainer="MyTrainer", soft_labels="isl", atlas={"alpha": 0.1})
    assert "MyTrainer (isl)" in {record.row for record in runs([tmp_path])}


def test_what_cannot_be_read_is_named(tmp_path):
    write_result(tmp_path / "good", 80.0)
    write_result(tmp_path / "newer", 80.0, schema_version=2)
    for name, content in (("damaged", "{"), ("list", "[]"), ("partial", '{"schema_version": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    (tmp_path / "failed" / "prompt_learner").mkdir(parents=True)
    (tmp_path / "failed" / "config.yaml").write_text("")
    (tmp_path / "failed" / "failed.json").write_text('{"epoch": 4, "error": "not finite"}')
    (tmp_path / "half" / "prompt_learner").mkdir(parents=True)
    (tmp_path / "half" / "config.yaml").write_text("")
    (tmp_path / "half" / "prompt_learner" / "model.pth.tar-7").write_text("")
    problems = load([tmp_path]).lines
    assert len(runs([tmp_path])) == 1 and len(problems) == 6
    joined = "\n".join(problems)
    for part in ("schema version 2", "failed in epoch 4: not finite", "7 epochs done", "damaged", "list", "partial"):
        assert part in joined
    assert str(tmp_path / "partial" / "result.json") in joined


def test_an_unfinished_run_is_named_once(tmp_path):
    folder = tmp_path / "half" / "prompt-learner"  # a trainer may name its model with a hyphen
    folder.mkdir(parents=True)
    (tmp_path / "half" / "config.yaml").write_text("")
    (tmp_path / "half" / "log.txt").write_text("")
    (folder / "model.pth.tar-7").write_text("")
    for temporary in ("model.pth.tar-8.tmp123", "model.pth.tar-8.tmp-9"):
        (folder / temporary).write_text("")
    assert load([tmp_path]).lines == [f"{tmp_path / 'half'} is not finished (7 epochs done)"]
    (tmp_path / "half" / "failed.json").write_text("{")
    (problem,) = load([tmp_path]).lines
    assert str(tmp_path / "half" / "failed.json") in problem


def test_empty_and_absent_folders_are_refused(tmp_path, capsys):
    assert reports.main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert reports.main([str(tmp_path / "nowhere")]) == 2
    assert str(tmp_path / "nowhere") in capsys.readouterr().err


def test_formats_agree(tmp_path):
    write_result(tmp_path / "a", 80.125)
    write_result(tmp_path / "b", 81.5, seed=2)
    from_json = entries(tmp_path)[None, "CoOp", "16 shots"]
    (row,) = csv.DictReader(io.StringIO(reports.report([tmp_path], form="csv")[0]))
    assert float(row["mean"]) == from_json["mean"] == 80.8125 and row["seeds"] == "1 2"
    assert from_json["std"] == statistics.pstdev([80.125, 81.5])
    latex, _ = reports.report([tmp_path], form="latex")
    assert "\\begin{tabular}" in latex and "80.8{\\scriptsize$\\pm$0.7}" in latex
    assert entries(tmp_path, measures=["macro_f1"])[None, "CoOp", "16 shots"]["mean"] == 80.8125 / 2


accuracies = st.lists(st.floats(0, 100), min_size=1, max_size=6)


@given(st.dictionaries(st.sampled_from(["CoOp", "CoOpDSPT", "MaPLe"]), accuracies, min_size=1), st.randoms())
@settings(deadline=None, max_examples=30)
def test_merging_does_not_depend_on_the_order(by_method, random):
    rows = [
        {**to_row(fields_of(value, trainer=method, seed=seed)), "folder": None, "file": None}
        for method, values in by_method.items()
        for seed, value in enumerate(values)
    ]
    expected = render(build_tables(frame_of(rows)), set(range(6)), "json")
    random.shuffle(rows)
    assert render(build_tables(frame_of(rows)), set(range(6)), "json") == expected
    for entry in json.loads(expected):
        values = by_method[entry["method"]]
        assert entry["mean"] == pytest.approx(statistics.fmean(values))
        assert entry["std"] == pytest.approx(statistics.pstdev(values), abs=1e-9)
        assert len(entry["seeds"]) + len(entry["missing_seeds"]) == 6


def test_family_logs_without_result_are_read(tmp_path):
    write_log(tmp_path / "a", TRAINED)
    write_log(tmp_path / "b", TRAINED.replace("93.3", "94.3"), seed=2)
    write_log(tmp_path / "crashed", TRAINED.split("Finish")[0], seed=3)
    (record, _), problems = runs([tmp_path]), load([tmp_path]).lines
    assert (record.row, record.dataset, record.shots, record.config_name) == (
        "CoOp",
        "Caltech101",
        16,
        "vit_b16_ep50",
    )
    assert (record.accuracy, record.macro_f1) == (93.3, 90.1)
    assert problems == [f"{tmp_path / 'crashed'} is not finished (no epoch done)"] and record.folder == tmp_path / "a"
    assert entries(tmp_path)[None, "CoOp", "16 shots"]["mean"] == pytest.approx(93.8)


def test_family_logs_of_base_to_new_and_cross_dataset(tmp_path):
    train = "output/base2new/train_base/caltech101/shots_16/CoOp/vit_b16_ep50/seed1"
    write_log(tmp_path / "base", TRAINED, subsample="base")
    write_log(tmp_path / "new", EVALUATED, subsample="new", model_dir=train)
    write_log(
        tmp_path / "dtd", EVALUATED, dataset="DescribableTextures", model_dir="output/imagenet/CoOp/vit_16shots/seed1"
    )
    found = entries(tmp_path)
    assert found["Caltech101", "CoOp", "H"]["mean"] == pytest.approx(2 * 93.3 * 55.5 / (93.3 + 55.5))
    assert found[None, "CoOp", "DescribableTextures"]["mean"] == 55.5
    assert "Cross-dataset from ImageNet, 16 shots" in reports.report([tmp_path])[0]


def test_curves_have_every_seed_and_the_untrained_method(tmp_path):
    history = [{"epoch": epoch, "test_accuracy": 10.0 * epoch} for epoch in (1, 2, 3)]
    write_result(tmp_path / "a", 30.0, history=history)
    write_result(
        tmp_path / "b", 36.0, seed=2, history=[{**entry, "test_accuracy": 12.0 * entry["epoch"]} for entry in history]
    )
    write_result(tmp_path / "z", 25.0, trainer="ZeroshotCLIP")
    png, svg, _, table = draw_figures([tmp_path], tmp_path, ("accuracy_by_epoch",))
    assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text()
    rows = list(csv.DictReader(table.open()))
    assert [row["mean"] for row in rows] == ["11.0", "22.0", "33.0", "25.0"] and rows[0]["seeds"] == "2"
    assert (rows[0]["method"], rows[0]["min"], rows[0]["max"]) == ("CoOp", "10.0", "12.0")
    assert (rows[-1]["method"], rows[-1]["epoch"]) == ("ZeroshotCLIP", "0")
