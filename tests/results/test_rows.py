"""Rows are identities: results of different experiments share no cell, and labels say what differs."""

import csv
import io
import itertools
import json
import subprocess
import sys

import pytest

from dspt_atlas.report import table as reports
from dspt_atlas.report.figures import draw_figures
from dspt_atlas.report.page.page import render_page
from dspt_atlas.results.read import load
from dspt_atlas.results.tables import build_tables
from dspt_atlas.run.train import run_arguments
from support.results import SYM, entries, runs, trained_on, write_result
from support.runs import result_of

FIRST = {"learner": 1, "method": 1, "backbone": 1}


def identity(data=None, backbone=None, noise=None, drawn=None, init=None, **revisions):
    """Return the field of result.json."""
    digests = {"data": data, "backbone": backbone, "noise": noise, "init_weights": init}
    return {"identity": {**digests, "revisions": {**FIRST, **revisions}, "drawn_seed": drawn}}


def change(folder, *keys_and_value, top=None):
    """Set a key of a result's configuration, and fields of the result."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    if keys_and_value:
        *groups, name, value = keys_and_value
        node = result["config"]
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    path.write_text(json.dumps(result | (top or {})))


def rows(*roots):
    """Return {(label, data set): {seed: accuracy}}."""
    found = {}
    for record in runs(roots):
        cell = found.setdefault((record.row, record.dataset), {})
        assert record.seed not in cell
        cell[record.seed] = record.accuracy
    return found


def labels(*roots):
    return {record.row for record in runs(roots)}


@pytest.mark.parametrize(("trainer", "rows_of"), [("CoOp", 1), ("CoOpDSPT", 2), ("AnothersCoOp", 2)])
def test_keys_that_a_trainer_does_not_read_make_no_row(trainer, rows_of, tmp_path):
    for seed, temperature in enumerate((0.5, 1.0), 1):
        write_result(tmp_path / str(seed), 50.0, trainer=trainer, seed=seed)
        change(tmp_path / str(seed), "TRAINER", "DSPT", "TEMPERATURE", temperature)
    assert len(labels(tmp_path)) == rows_of


def test_seeds_of_two_learning_rates_are_two_rows(tmp_path):
    write_result(tmp_path / "a", 50.0, seed=1, lr=0.02)
    write_result(tmp_path / "b", 25.0, seed=2, lr=0.5)
    assert rows(tmp_path) == {("CoOp [LR=0.02]", "Emoji"): {1: 50.0}, ("CoOp [LR=0.5]", "Emoji"): {2: 25.0}}
    found = entries(tmp_path)
    assert {key[1]: entry["mean"] for key, entry in found.items()} == {"CoOp [LR=0.02]": 50.0, "CoOp [LR=0.5]": 25.0}


def test_a_noisy_column_is_of_the_same_settings_as_the_clean_one(tmp_path):
    write_result(tmp_path / "a", 50.0, lr=0.02)
    write_result(tmp_path / "b", 25.0, lr=0.5, noise=SYM)
    assert labels(tmp_path) == {"CoOp [LR=0.02]", "CoOp [LR=0.5]"}


def test_shots_may_have_settings_of_their_own(tmp_path):
    for shots, epochs in ((1, 50), (2, 100), (16, 200)):  # as CoOp has it
        write_result(tmp_path / str(shots), 50.0, shots=shots)
        change(tmp_path / str(shots), "OPTIM", "MAX_EPOCH", epochs)
    assert labels(tmp_path) == {"CoOp"}


def test_the_mean_over_data_sets_is_of_the_same_settings(tmp_path):
    for dataset, lr in (("A", 0.1), ("B", 0.1), ("C", 0.2)):
        write_result(tmp_path / dataset, 80.0 + 100 * lr, dataset=dataset, lr=lr, subsample="base")
    found = entries(tmp_path)
    assert (
        found["mean of 3 data sets", "CoOp [LR=0.1]", "base"]["mean"] == 90
        and found["mean of 3 data sets", "CoOp [LR=0.2]", "base"]["mean"] == 100
    )


def test_the_configuration_s_name_is_the_label_where_it_tells_all(tmp_path):
    for number, (lr, name, seed) in enumerate(((0.1, "rn50", 1), (0.1, "rn50", 2), (0.2, "vit", 1))):
        write_result(tmp_path / str(number), 60.0, lr=lr, config_name=name, seed=seed)
        change(tmp_path / str(number), "MODEL", "OTHER", lr)
    assert labels(tmp_path) == {"CoOp [rn50]", "CoOp [vit]"}
    write_result(tmp_path / "third", 60.0, lr=0.3, config_name="vit", seed=2)
    change(tmp_path / "third", "MODEL", "OTHER", 0.3)
    assert labels(tmp_path) == {f"CoOp [OTHER={lr}, LR={lr}]" for lr in (0.1, 0.2, 0.3)}


def test_many_differences_are_told_by_those_that_tell_rows_apart(tmp_path):
    for number in (1, 2, 3):
        write_result(tmp_path / str(number), 60.0, seed=number)
        for key in "ABCDEFGH":
            change(tmp_path / str(number), "NEW", key, number if key == "C" else number // 2)
    assert labels(tmp_path) == {f"CoOp [C={number}, 7 more]" for number in (1, 2, 3)}


def test_observing_keys_machine_keys_and_keys_of_one_dassl_only_never_name_a_row(tmp_path):
    for number, (group, key, value) in enumerate((
        ("TEST", "PERIOD", 1), ("TRAIN", "GRADIENT_PROFILE", True), ("DATALOADER", "NUM_WORKERS", 8),
        ("DATASET", "ROOT", "/elsewhere"), ("TRAINER", "OF_ANOTHER_DASSL", 0.5),
    )):  # fmt: skip
        write_result(tmp_path / str(number), 60.0 + number, seed=number)
        change(tmp_path / str(number), group, key, value)
    write_result(tmp_path / "plain", 60.0, seed=9)
    assert rows(tmp_path) == {("CoOp", "Emoji"): {**{n: 60.0 + n for n in range(5)}, 9: 60.0}}
    write_result(tmp_path / "again", 60.0, seed=9)
    for key in "ABC":
        change(tmp_path / "again", "NEW", key, 1)
    change(tmp_path / "again", "TEST", "PERIOD", 1)
    assert labels(tmp_path) == {"CoOp"} and len(runs([tmp_path])) == 6


def test_the_seed_of_noise_is_told_of_noisy_runs_only(tmp_path):
    for seed, noise in ((1, SYM), (2, SYM), (3, None)):
        write_result(tmp_path / str(seed), 60.0, seed=seed, noise=noise)
        change(tmp_path / str(seed), "DATASET", "NOISE", {"SEED": seed})
    assert labels(tmp_path) == {"CoOp", "CoOp [NOISE.SEED=1]", "CoOp [NOISE.SEED=2]"}


def test_a_key_that_a_result_lacks_is_unknown_where_the_others_differ(tmp_path):
    for seed, value in ((1, 1), (2, 2), (3, None)):
        write_result(tmp_path / str(seed), 60.0, seed=seed)
        change(tmp_path / str(seed), "NEW", *(("KEY", value) if value else ("OTHER", 0)))
    assert labels(tmp_path) == {"CoOp [KEY=1]", "CoOp [KEY=2]", "CoOp [KEY=unknown]"}


def test_two_backbone_files_of_one_name_are_two_rows_and_an_older_result_is_of_neither(tmp_path):
    for seed, digest in ((1, "a" * 64), (2, "b" * 64)):
        write_result(tmp_path / str(seed), 60.0, seed=seed, **identity(backbone=digest))
        change(tmp_path / str(seed), "MODEL", "BACKBONE", "NAME", "ViT-B/16")
    assert labels(tmp_path) == {"CoOp [weights aaaaaa]", "CoOp [weights bbbbbb]"}
    write_result(tmp_path / "old", 60.0, seed=3)
    change(tmp_path / "old", "MODEL", "BACKBONE", "NAME", "ViT-B/16")
    assert labels(tmp_path) == {"CoOp [weights aaaaaa]", "CoOp [weights bbbbbb]", "CoOp [weights unknown]"}


def test_rows_name_the_layout_and_architecture_of_a_backbone_and_the_end_of_its_path(tmp_path):
    places = {
        "open_clip:ViT-B-32=/weights/first/w.pt": "open_clip:ViT-B-32=w.pt",
        "open_clip:ViT-B-32-quickgelu=/weights/first/w.pt": "open_clip:ViT-B-32-quickgelu=w.pt",
        "open_clip:ViT-B-32/laion2b": "open_clip:ViT-B-32/laion2b",
        "hf:/weights/siglip": "hf:siglip",
    }
    for seed, place in enumerate(places):
        write_result(tmp_path / str(seed), 60.0, seed=seed, **identity(backbone=str(seed) * 64))
        change(tmp_path / str(seed), "MODEL", "BACKBONE", "NAME", place)
    assert labels(tmp_path) == {f"CoOp [{name}]" for name in places.values()}


def test_an_older_result_counts_to_the_one_file_that_its_backbone_s_name_stands_for(tmp_path):
    for seed, (name, digest) in enumerate((("ViT-B/16", "a" * 64), ("/x/vit.pt", "a" * 64), ("ViT-B/16", None))):
        write_result(tmp_path / str(seed), 60.0, seed=seed, **(identity(backbone=digest) if digest else {}))
        change(tmp_path / str(seed), "MODEL", "BACKBONE", "NAME", name)
    assert labels(tmp_path) == {"CoOp"}
    write_result(tmp_path / "other", 60.0, seed=3)
    change(tmp_path / "other", "MODEL", "BACKBONE", "NAME", "RN50")
    assert labels(tmp_path) == {"CoOp [ViT-B/16]", "CoOp [RN50]"}


def test_revisions_and_precision_are_told_where_they_differ(tmp_path):
    write_result(tmp_path / "old", 60.0, trainer="MaPLe", precision="fp32")
    write_result(tmp_path / "new", 70.0, trainer="MaPLe", precision="fp32", **identity(learner=2))
    assert labels(tmp_path) == {"MaPLe [learner revision 1]", "MaPLe [learner revision 2]"}
    write_result(tmp_path / "cpu", 60.0, precision="fp32")
    write_result(tmp_path / "gpu", 61.0, precision="fp16", seed=2)
    assert {"CoOp [fp32]", "CoOp [fp16]"} < labels(tmp_path)


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
def test_two_own_data_sets_of_one_name_are_two_tables_in_any_order(tmp_path, order):
    for name, (data, accuracy) in {"x": ("a" * 64, 90.0), "y": ("b" * 64, 10.0)}.items():
        write_result(tmp_path / name, accuracy, dataset="animals", **identity(data=data))
        change(tmp_path / name, "DATASET", "OWN", {"PATH": "animals", "IMAGES": ""})
        change(tmp_path / name, "DATASET", "ROOT", f"/data/{name}")
    found = rows(*(tmp_path / name for name in order))
    assert found == {
        ("CoOp", "animals (x/animals)"): {1: 90.0},
        ("CoOp", "animals (y/animals)"): {1: 10.0},
    }


def test_data_that_were_corrected_in_place_are_another_data_set(tmp_path):
    for seed, data in ((1, "a" * 64), (2, "b" * 64)):
        write_result(tmp_path / str(seed), 50.0, seed=seed, **identity(data=data))
    assert rows(tmp_path).keys() == {("CoOp", "Emoji (data aaaaaa)"), ("CoOp", "Emoji (data bbbbbb)")}


def test_older_results_of_one_name_and_two_files_are_two_data_sets(tmp_path):
    for seed, path in ((1, "/d/one/split.json"), (2, "/d/two/split.json")):
        write_result(tmp_path / str(seed), 50.0, seed=seed, dataset="split")
        change(tmp_path / str(seed), "DATASET", "OWN", "PATH", path)
    assert {dataset for _, dataset in rows(tmp_path)} == {"split (one/split.json)", "split (two/split.json)"}


def test_older_results_of_two_splits_of_one_folder_are_two_data_sets(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path / str(seed), 50.0, seed=seed, dataset="animals")
        change(tmp_path / str(seed), "DATASET", "OWN", {"PATH": "/d/animals", "SPLIT_SEED": seed})
    assert {dataset for _, dataset in rows(tmp_path)} == {f"animals (/d/animals, {seed})" for seed in (1, 2)}


def test_data_that_moved_are_the_same_data(tmp_path):
    for seed, path in ((1, "/d/one/split.json"), (2, "/d/two/split.json")):
        write_result(tmp_path / str(seed), 50.0, seed=seed, dataset="split", **identity(data="a" * 64))
        change(tmp_path / str(seed), "DATASET", "OWN", "PATH", path)
    assert rows(tmp_path) == {("CoOp", "split"): {1: 50.0, 2: 50.0}}


def a_test(dataset="Emoji", epoch=None, tested_epoch=None, is_final=True, config=None, **trained):
    """Return the field `evaluated` of a test of today's."""
    own = {"dataset": dataset, "subsample": "all", "shots": 16, "noise": None, "seed": 1, "config": config or {}}
    own |= identity() | trained
    return {"model_dir": "x", "epoch": epoch, "tested_epoch": tested_epoch, "is_final": is_final, "trained_on": own}


def test_tests_of_other_epochs_and_of_another_training_are_other_rows(tmp_path):
    write_result(tmp_path / "final", 80.0)
    write_result(tmp_path / "e1", 20.0, evaluated=a_test(epoch=1, tested_epoch=1, is_final=False))
    write_result(tmp_path / "e4", 40.0, evaluated=a_test(epoch=4, tested_epoch=4, is_final=False))
    write_result(tmp_path / "other", 60.0, evaluated=a_test(seed=2, config={"OPTIM.LR": 0.5}))
    assert {label: cell for (label, _), cell in rows(tmp_path).items()} == {
        "CoOp [LR=0.1]": {1: 80.0},
        "CoOp [epoch 1, LR=0.1]": {1: 20.0},
        "CoOp [epoch 4, LR=0.1]": {1: 40.0},
        "CoOp [LR=0.5]": {2: 60.0},
    }


def test_an_older_test_of_an_epoch_is_told_too_and_the_last_epoch_is_the_final_one(tmp_path):
    for name, epoch in (("e1", 1), ("last", 50)):
        write_result(tmp_path / name, float(epoch), evaluated={**trained_on("Emoji"), "epoch": epoch})
        change(tmp_path / name, "OPTIM", "MAX_EPOCH", 50)
    assert labels(tmp_path) == {"CoOp", "CoOp [epoch 1]"}


def test_an_unknown_origin_says_so_and_is_never_the_target_s_own(tmp_path):
    write_result(tmp_path / "own", 80.0)
    write_result(tmp_path / "unknown", 30.0, seed=2, evaluated={"model_dir": "x", "epoch": None, "trained_on": None})
    write_result(tmp_path / "new", 30.0, subsample="new", evaluated={"model_dir": "x", "epoch": 3, "trained_on": None})
    assert labels(tmp_path) == {"CoOp", "CoOp [origin unknown]", "CoOp [epoch 3, origin unknown]"}
    zero = {"model_dir": "", "epoch": None, "trained_on": None}
    write_result(tmp_path / "zero", 30.0, trainer="ZeroshotCLIP", evaluated=zero)
    assert "ZeroshotCLIP" in labels(tmp_path)


def test_a_model_of_base_classes_tested_on_all_is_not_one_of_all_classes(tmp_path):
    write_result(tmp_path / "all", 80.0)
    write_result(tmp_path / "of_base", 50.0, seed=2, evaluated=a_test(subsample="base", seed=2))
    write_result(tmp_path / "new", 50.0, subsample="new", evaluated=a_test(subsample="base"))
    write_result(tmp_path / "saw_new", 90.0, seed=2, subsample="new", evaluated=a_test(subsample="all", seed=2))
    assert labels(tmp_path) == {"CoOp", "CoOp [trained on base classes]", "CoOp [trained on all classes]"}


def test_new_classes_of_another_data_set_are_a_transfer(tmp_path):
    write_result(tmp_path / "base", 80.0, subsample="base")
    write_result(tmp_path / "moved", 50.0, subsample="new", evaluated=a_test("ImageNet"))
    text, _ = reports.report([tmp_path])
    assert entries(tmp_path)["Emoji", "CoOp", "new"]["mean"] is None
    assert "Cross-dataset from ImageNet, 16 shots, new classes" in text


def test_val_and_test_are_two_rows(tmp_path):
    for seed, (split, accuracy) in enumerate((("test", 60.0), ("val", 90.0))):
        write_result(tmp_path / split, accuracy, split=split, seed=seed)
        change(tmp_path / split, "TEST", "SPLIT", split)
    assert labels(tmp_path) == {"CoOp", "CoOp [val split]"}


def test_the_training_s_data_and_the_test_s_are_told_where_they_are_not_the_same(tmp_path):
    other = a_test(identity=identity(data="b" * 64)["identity"])
    write_result(tmp_path / "test", 50.0, evaluated=other, **identity(data="a" * 64))
    assert labels(tmp_path) == {"CoOp [trained on data bbbbbb]"}


def test_what_a_test_had_otherwise_is_told_and_what_only_training_reads_is_the_training_s(tmp_path):
    write_result(tmp_path / "own", 80.0)
    change(tmp_path / "own", "TRAINER", "COOP", {"PREC": "fp16"})
    trained = {"TRAINER.COOP.PREC": "fp16", "OPTIM.LR": 0.1}
    for seed, (name, precision, rate) in enumerate((("same", "fp16", 0.9), ("other", "fp32", 0.1)), start=2):
        write_result(tmp_path / name, 50.0, seed=seed, lr=rate, evaluated=a_test(seed=seed, config=trained))
        change(tmp_path / name, "TRAINER", "COOP", {"PREC": precision})
    revised = a_test(seed=4, **identity(backbone="a" * 64))
    write_result(tmp_path / "revised", 50.0, seed=4, evaluated=revised, **identity(learner=2, backbone="b" * 64))
    assert {record.row: record.accuracy for record in runs([tmp_path])}.keys() == {
        "CoOp",
        "CoOp [tested with TRAINER.COOP.PREC=fp32]",
        "CoOp [tested with learner revision 2, weights bbbbbb]",
    }


def test_initial_weights_are_told(tmp_path):
    for seed, (path, digest) in enumerate((("", None), ("/x/start.pt", "a" * 64), ("/y/start.pt", "b" * 64))):
        write_result(tmp_path / str(seed), 50.0, seed=seed, **identity(init=digest))
        change(tmp_path / str(seed), "MODEL", "INIT_WEIGHTS", path)
    assert labels(tmp_path) == {"CoOp [no initial weights]", "CoOp [x/start.pt]", "CoOp [y/start.pt]"}


def test_unseeded_runs_are_seeds_of_their_own_and_wanted_of_nobody(tmp_path):
    write_result(tmp_path / "seeded", 60.0, seed=1)
    write_result(tmp_path / "d1", 50.0, trainer="CoOpDSPT", seed=-1, **identity(drawn=77))
    write_result(tmp_path / "d2", 52.0, trainer="CoOpDSPT", seed=-1, **identity(drawn=78))
    for name in ("o1", "o2"):
        write_result(tmp_path / name, 40.0, trainer="MaPLe", seed=-1)
    assert rows(tmp_path)["CoOpDSPT", "Emoji"] == {77: 50.0, 78: 52.0} and len(rows(tmp_path)["MaPLe", "Emoji"]) == 2
    text = reports.report([tmp_path])[0]
    assert "60.0 (1 seed)" in text and "51.0 ± 1.0 " in text
    missing = {key[1]: entry["missing_seeds"] for key, entry in entries(tmp_path).items()}
    assert missing["CoOp"] == [] and missing["CoOpDSPT"] == [1]


def test_the_same_experiment_in_two_folders_counts_once_and_another_number_is_named(tmp_path):
    for name, accuracy in (("a", 60.0), ("b", 60.0), ("c", 61.0)):
        write_result(tmp_path / name, accuracy)
    loaded = load([tmp_path])
    records, (problem,) = runs([tmp_path]), loaded.lines
    assert [record.accuracy for record in records] == [60.0]
    assert str(tmp_path / "c") in problem and str(tmp_path / "a") in problem and "61" in problem
    page = render_page([tmp_path], figures=False)[0].decode()
    assert '"done", "CoOp"' in page


def test_noise_is_a_column_and_no_mean_is_over_clean_and_noisy(tmp_path):
    for dataset, noise, accuracy in itertools.product("AB", (None, SYM), (80.0,)):
        folder = tmp_path / f"{dataset}_{noise is None}"
        write_result(folder, accuracy - 40 * bool(noise), dataset=dataset, noise=noise, subsample="base")
    found = [entry for entry in json.loads(reports.report([tmp_path], form="json")[0]) if entry["column"] == "base"]
    means = {(e["data set"], e["noise"]): (e["mean"], e["noise_type"], e["noise_rate"]) for e in found}
    mean = "mean of 2 data sets"
    assert means[mean, "clean"] == (80.0, "none", 0.0) and means[mean, "sym 0.5"] == (40.0, "sym", 0.5)
    (head, *_) = csv.reader(io.StringIO(reports.report([tmp_path], form="csv")[0]))
    assert {"noise_type", "noise_rate"} < set(head)


def test_noise_per_class_another_family_and_two_files_are_columns_of_their_own(tmp_path):
    kinds = [SYM, {**SYM, "per_class": True}, {**SYM, "family": "swap"}]
    kinds += [{**SYM, "file": f"/n/{name}.json"} for name in "ab"]
    for number, noise in enumerate(kinds):
        digest = identity(noise=str(number) * 64) if noise.get("file") else {}
        write_result(tmp_path / str(number), 50.0 + number, noise=noise, **digest)
        if noise.get("file"):
            change(tmp_path / str(number), "DATASET", "NOISE", {"FILE": noise["file"]})
    assert {record.noise: record.accuracy for record in runs([tmp_path])} == {
        "sym 0.5": 50.0,
        "sym 0.5 (per class)": 51.0,
        "sym 0.5 (swap)": 52.0,
        "sym 0.5 (a.json)": 53.0,
        "sym 0.5 (b.json)": 54.0,
    }


def _brought(folder, seed, rate, digest, path="/n/own.csv", family="own", kind="own", trainer="CoOp", **more):
    """Write a result of labels that a file made wrong; rate: the realised one, as a run files it."""
    noise = {"family": family, "type": kind, "rate": rate, "realised_rate": rate, "seed": -1, "file": path}
    write_result(folder, 40.0 + seed, seed=seed, noise=noise, trainer=trainer, **identity(noise=digest * 64), **more)
    change(folder, "DATASET", "NOISE", {"FILE" if family == "own" else "WRONG": path})


@pytest.mark.parametrize("family, kind, label", [("own", "own", "own (file)"), ("listed", "sym", "sym (listed, file)")])
def test_seeds_with_the_labels_of_one_file_share_a_cell_and_two_files_do_not(family, kind, label, tmp_path):
    for (seed, rate), trainer in itertools.product(((1, 0.25), (2, 0.3), (3, 0.35)), ("CoOp", "CoOpDSPT")):
        _brought(tmp_path / f"{trainer}{seed}", seed, rate, "a", family=family, kind=kind, trainer=trainer)
    found = json.loads(reports.report([tmp_path], form="json", baseline="CoOp")[0])
    assert [(entry["column"], entry["seeds"], entry["mean"]) for entry in found] == [(label, [1, 2, 3], 42.0)] * 2
    assert found[1]["pairs"] == 3 and all(entry["noise_rate"] == pytest.approx(0.3) for entry in found)
    _brought(tmp_path / "copy", 4, 0.3, "a", "/elsewhere/own.csv", family=family, kind=kind)
    assert {record.noise for record in runs([tmp_path])} == {label}
    _brought(tmp_path / "other", 1, 0.3, "b", "/n/other.csv", family=family, kind=kind)
    columns = {record.noise for record in runs([tmp_path])}
    assert len(columns) == 2 and sum("other.csv" in column for column in columns) == 1


def test_the_labels_of_one_file_are_one_point_of_the_figure_over_rates(tmp_path):
    for seed, rate in ((1, 0.2), (2, 0.4)):
        _brought(tmp_path / f"own{seed}", seed, rate, "a")
        write_result(tmp_path / f"clean{seed}", 80.0, seed=seed)
    (table,) = (path for path in draw_figures([tmp_path], tmp_path, ("noise_rate",)) if path.suffix == ".csv")
    rates = [float(row["wrong training labels (%)"]) for row in csv.DictReader(table.open())]
    assert sorted({*rates}) == [0.0, pytest.approx(30.0)]


def test_programs_are_told_the_family_and_the_label_of_a_noise(tmp_path):
    write_result(tmp_path / "clean", 80.0)
    write_result(tmp_path / "drawn", 70.0, noise={**SYM, "rate": 0.25})
    _brought(tmp_path / "listed", 1, 0.25, "a", family="listed", kind="sym")
    facts = {(row.noise, row.noise_family, row.noise_type, row.noise_rate) for row in runs([tmp_path])}
    assert facts == {
        ("clean", "none", "none", 0.0),
        ("sym 0.25", "relabel", "sym", 0.25),
        ("sym (listed, file)", "listed", "sym", 0.25),
    }
    rows = csv.DictReader(io.StringIO(reports.report([tmp_path], form="csv")[0]))
    assert {(row["noise"], row["noise_family"], row["noise_type"], float(row["noise_rate"])) for row in rows} == facts


def test_no_cell_of_a_csv_is_a_formula(tmp_path):
    write_result(tmp_path / "a", 50.0, dataset="=1+1", trainer="@me")
    (row,) = csv.DictReader(io.StringIO(reports.report([tmp_path], form="csv")[0]))
    assert row["table"].startswith("'=") and row["method"] == "'@me" and float(row["mean"]) == 50.0


def test_h_is_the_harmonic_mean_of_the_means_and_the_head_says_so(tmp_path):
    for seed, base, new in ((1, 80.0, 20.0), (2, 80.0, 80.0)):
        write_result(tmp_path / f"b{seed}", base, subsample="base", seed=seed)
        write_result(
            tmp_path / f"n{seed}", new, subsample="new", seed=seed, evaluated=a_test(subsample="base", seed=seed)
        )
    assert entries(tmp_path)["Emoji", "CoOp", "H"]["mean"] == pytest.approx(2 * 80 * 50 / 130)
    for form in ("github", "latex"):
        text = reports.report([tmp_path], form=form)[0].lower()
        assert text.index("harmonic mean") < text.index("method")
    assert "harmonic mean" in render_page([tmp_path], figures=False)[0].decode()


def test_h_over_data_sets_needs_base_and_new_of_the_same(tmp_path):
    for dataset, halves in (("A", ("base", "new")), ("B", ("base",))):
        for half in halves:
            write_result(tmp_path / f"{dataset}_{half}", 50.0, dataset=dataset, subsample=half)
    assert entries(tmp_path)["mean of 2 data sets", "CoOp", "H"]["mean"] is None


def test_all_forms_figures_and_the_page_have_the_same_labels(tmp_path):
    history = [{"epoch": epoch, "test_accuracy": 10.0 * epoch} for epoch in (1, 2, 3)]
    for number, lr in enumerate((0.02, 0.5)):
        write_result(tmp_path / "tree" / str(number), 50.0, seed=number, lr=lr, history=history)
    expected = {"CoOp [LR=0.02]", "CoOp [LR=0.5]"}
    texts = [reports.report([tmp_path / "tree"], form=form)[0] for form in ("github", "latex", "csv", "json")]
    texts.append(render_page([tmp_path / "tree"], figures=False)[0].decode())
    (drawn,) = (p for p in draw_figures([tmp_path / "tree"], tmp_path, ("accuracy_by_epoch",)) if p.suffix == ".csv")
    assert all(label in text for label, text in itertools.product(expected, [*texts, drawn.read_text()]))


def test_figures_never_pool_runs_of_all_and_of_base_classes(tmp_path):
    history = [{"epoch": epoch, "right_accuracy": 50.0, "wrong_memorised": 5.0} for epoch in (1, 2)]
    for subsample in ("all", "base"):
        write_result(tmp_path / "tree" / subsample, 50.0, subsample=subsample, noise=SYM, history=history)
    paths = draw_figures([tmp_path / "tree"], tmp_path, ("memorisation",))
    tables = [list(csv.DictReader(path.open())) for path in paths if path.suffix == ".csv"]
    assert len(tables) == 2 and {row["seeds"] for table in tables for row in table} == {"1"}


def test_real_runs_and_their_tests_are_the_rows_that_they_are(arguments, tmp_path):
    def run(name, *pairs, test_of=None, options=()):
        given = arguments(tmp_path / name, *pairs)
        place = given.index("--output-dir")
        tested = ["--eval-only", "--model-dir", str(tmp_path / test_of), *options] if test_of else []
        run_arguments([*given[:place], *tested, *given[place:]])

    run("a")
    run("slow", "OPTIM.LR", "0.0001")
    run("final", test_of="a")
    run("by_number", test_of="a", options=("--load-epoch", "3"))
    run("epoch2", test_of="a", options=("--load-epoch", "2"))
    run("val", "TEST.SPLIT", "val", test_of="a")
    run("of_slow", test_of="slow", options=("--load-epoch", "2"))
    records, problems = runs([tmp_path]), load([tmp_path]).lines
    found = {record.row: record.folder.name for record in records}
    (own, other) = (f"LR={lr}" for lr in (result_of(tmp_path / "a")["config"]["OPTIM"]["LR"], 0.0001))
    assert problems == [] and found == {
        f"CoOp [{own}]": "a",
        f"CoOp [{other}]": "slow",
        f"CoOp [epoch 2, {own}]": "epoch2",
        f"CoOp [val split, {own}]": "val",
        f"CoOp [epoch 2, {other}]": "of_slow",
    }
    again = tmp_path / "a" / "result.json"
    again.write_text(again.read_text().replace('"accuracy"', '"accuracy_of_before"', 1))
    assert sum("final" in problem or str(again) in problem for problem in load([tmp_path]).lines) == 1


def test_zero_shot_stands_beside_the_models_of_every_source(tmp_path):
    """With or without the folder of a training: nothing was trained, so that its row is one, and its data set's too."""
    trained = {"dataset": "Emoji", "subsample": "all", "shots": 16, "noise": None, "seed": 1}
    tested = {"model_dir": "train", "epoch": None, "trained_on": trained}
    write_result(tmp_path / "coop", 60.0, dataset="EmojiObjects", evaluated=tested)
    write_result(tmp_path / "zero", 50.0, trainer="ZeroshotCLIP", dataset="EmojiObjects")
    write_result(tmp_path / "home", 40.0, trainer="ZeroshotCLIP", dataset="Emoji")
    write_result(tmp_path / "elsewhere", 30.0, trainer="ZeroshotCLIP", dataset="Pets")
    (table,) = [table for table in build_tables(load([tmp_path]).frame) if "from Emoji" in table.title]
    assert table.columns == ["Emoji", "EmojiObjects"]
    assert [key[-1].split(" [")[0] for key in table.rows] == ["ZeroshotCLIP", "CoOp"]
    zero_shot, learned = table.rows.values()
    assert (zero_shot["Emoji"].mean, zero_shot["EmojiObjects"].mean, learned["EmojiObjects"].mean) == (40, 50, 60)


def test_templates_tell_rows_apart_and_an_older_result_has_those_that_are_declared(tmp_path):
    declared, others = ({"identity": {"templates": digest, "revisions": FIRST}} for digest in (None, "ab" * 32))
    for seed, more in enumerate(({}, {}, declared, others, others), 1):
        write_result(tmp_path / str(seed), 50.0, trainer="KgCoOp", seed=seed, **more)
    found = {label: sorted(seeds) for (label, _), seeds in rows(tmp_path).items()}
    assert sorted(found.values()) == [[1, 2, 3], [4, 5]]
    assert any("ababab" in label for label in found)


def test_a_learner_that_reads_the_keys_of_another_makes_rows_by_them_and_not_by_those_of_a_third(tmp_path):
    for seed, (node, length) in enumerate((("COOP", 4), ("COOP", 8), ("COCOOP", 4), ("COCOOP", 8)), 1):
        trainer = f"Anchored{node[:3]}"
        write_result(
            tmp_path / str(seed), 50.0, trainer=trainer, learner=trainer, method="CE", seed=seed, nodes=["COOP"]
        )
        change(tmp_path / str(seed), "TRAINER", node, {"N_CTX": length})
    assert sorted(labels(tmp_path)) == ["AnchoredCOC", "AnchoredCOO [N_CTX=4]", "AnchoredCOO [N_CTX=8]"]


def test_an_older_result_without_one_of_our_keys_had_its_default(tmp_path):
    for seed, classes in ((1, ["ant"]), (2, None), (3, [])):
        write_result(tmp_path / str(seed), 60.0, seed=seed, subsample="base")
        if classes is not None:
            change(tmp_path / str(seed), "DATASET", "BASE_CLASSES", classes)
    assert {frozenset(cell) for cell in rows(tmp_path).values()} == {frozenset({1}), frozenset({2, 3})}


@pytest.mark.parametrize("trainer, node, key, default, other", [
    ("CoOp", "COOP", "CSC", False, True), ("CoOpDSPT", "DSPT", "TEMPERATURE", 1.0, 0.5),
])  # fmt: skip
def test_an_older_result_had_the_default_of_a_key_of_its_learner_or_method(
    trainer, node, key, default, other, tmp_path
):
    for seed, value in ((1, other), (2, None), (3, default)):
        write_result(tmp_path / str(seed), 60.0, seed=seed, trainer=trainer)
        if value is not None:
            change(tmp_path / str(seed), "TRAINER", node, key, value)
    assert {frozenset(cell) for cell in rows(tmp_path).values()} == {frozenset({1}), frozenset({2, 3})}
    (tmp_path / "3" / "result.json").unlink()  # without a result that has the default
    assert {frozenset(cell) for cell in rows(tmp_path).values()} == {frozenset({1}), frozenset({2})}


def test_which_keys_zero_shot_depends_on_is_known_without_torch():
    keys = {"INPUT.PIXEL_MEAN": True, "MODEL.BACKBONE.NAME": True, "OPTIM.LR": False, "LOSS.T": False}
    code = f"""if True:
        import sys
        from dspt_atlas.results.record import depends_on
        found = {{key: depends_on("ZeroshotCLIP", "ZeroshotCLIP", "", ("ZEROSHOT",), key) for key in {[*keys]}}}
        sys.exit(f"{{found}}" if found != {keys} or "torch" in sys.modules else 0)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_keys_of_another_code_are_unknown_where_they_are_missing(tmp_path):
    for seed in (1, 2):
        write_result(tmp_path / str(seed), 60.0, seed=seed)
    change(tmp_path / "1", "TRAINER", "COOP", "ANOTHERS", 3)
    assert [sorted(cell) for cell in rows(tmp_path).values()] == [[1, 2]]


def test_lists_of_base_and_new_classes_tell_only_their_own_runs_apart(tmp_path):
    for number, (subsample, classes) in enumerate((s, c) for s in ("all", "base") for c in ([], ["ant"])):
        write_result(tmp_path / str(number), 60.0, seed=number, subsample=subsample)
        change(tmp_path / str(number), "DATASET", "BASE_CLASSES", classes)
        change(tmp_path / str(number), "DATASET", "NEW_CLASSES", classes)
        change(tmp_path / str(number), "DATASET", "SUBSAMPLE_CLASSES", subsample)
    assert {frozenset(cell) for cell in rows(tmp_path).values()} == {frozenset({0, 1, 2}), frozenset({3})}


def test_rows_with_other_settings_are_compared_with_the_baseline_of_the_same_settings(tmp_path):
    for rate, both in ((0.002, (60.0, 65.0)), (0.02, (50.0, 70.0))):
        for trainer, accuracy in zip(("CoOp", "CoOpDSPT"), both, strict=True):
            folder = tmp_path / f"{trainer}{rate}"
            write_result(folder, accuracy, trainer=trainer)
            change(folder, "OPTIM", "LR", rate)
    found = {key[1]: entry["difference"] for key, entry in entries(tmp_path, baseline="CoOp").items()}
    assert found["CoOpDSPT [LR=0.002]"] == 5.0 and found["CoOpDSPT [LR=0.02]"] == 20.0
    named = entries(tmp_path, baseline="CoOp [LR=0.02]")
    assert named[None, "CoOpDSPT [LR=0.002]", "16 shots"]["difference"] == 15.0
