"""Runs on one's own data: broken images, names apart from prompts, domains, a test set alone."""

import csv
import shutil
from collections import Counter

import numpy as np
import pytest

from dspt_atlas import results
from dspt_atlas.datasets.noise import NoiseRecord
from dspt_atlas.run.model import load
from dspt_atlas.run.train import run_arguments
from dspt_atlas.run.trained import open_run
from support.refusals import refused
from support.runs import NOISY, result_of, train_arguments


@pytest.fixture
def data(tiny_dataset, tmp_path):
    """A copy of the tiny images, to change."""
    return shutil.copytree(tiny_dataset, tmp_path / "data" / "tiny")


@pytest.fixture
def train(data, tiny_clip_path, tmp_path):
    """Return a function (*pairs, **options) -> the folder of a run of one epoch."""

    def run(*pairs, name="run", flags=(), **options):
        settings = {"data": data, "backbone": tiny_clip_path, "epochs": 1, **options}
        run_arguments([*flags, *train_arguments(tmp_path / name, *pairs, **settings)])
        return tmp_path / name

    return run


def test_a_run_lists_the_images_that_it_left_out(train, data):
    broken = data / "train" / "blue" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with refused(broken, "--skip-broken"):
        train()
    for name, flags, pairs in (("run", ["--skip-broken"], ()), ("again", [], ("DATASET.SKIP_BROKEN", "True"))):
        folder = train(*pairs, flags=flags, name=name)
        result = result_of(folder)
        assert result["skipped_images"] == ["train/blue/2.png"] and result["num_train"] == 23
        lines = (folder / "log.txt").read_text().splitlines()
        assert sum("1 of 48 images" in line and str(broken) in line for line in lines) == 1
    for path in (data / "test").rglob("*.png"):
        path.write_bytes(b"")
    with refused("test split", "17 of 48 images"):
        train(name="none", flags=["--skip-broken"])


def test_tables_show_names_and_prompts_say_other_words(train, data):
    (data / "classes.csv").write_text("folder,name,prompt\nblue,B,a blue thing\n")
    folder = train()
    assert set(result_of(folder)["per_class_accuracy"]) == {"B", "green_square", "red circle", "yellow duck"}
    model = load(folder)
    other = model.with_classes(["a blue thing", "green_square", "red circle", "yellow duck"])
    assert model.classnames[0] == "B" and (model.text_features() == other.text_features()).all()
    (data / "classes.csv").write_text("folder,name,prompt\nblue,B,azure\n")
    with refused(folder, "data"):
        train()


def test_domains_train_and_test(train, data, tmp_path):
    for domain, split in (("photo", "train"), ("sketch", "test")):
        shutil.copytree(data / split, tmp_path / "domains" / domain)
    domains = "DATASET.SOURCE_DOMAINS", "['photo']", "DATASET.TARGET_DOMAINS", "['sketch']"
    result = result_of(train(*domains, data=tmp_path / "domains"))
    assert (result["num_train"], result["total"]) == (20, 16) and result["dataset"] == "domains, photo to sketch"


def test_a_test_set_alone_is_tested_and_not_trained_on(train, data, capsys):
    trained = train()
    shutil.rmtree(data / "train")
    shutil.rmtree(data / "val")
    capsys.readouterr()
    with refused("--eval-only"):
        train("INPUT.CACHE", "features", "INPUT.VIEWS", 2, name="not_trained")
    assert "views" not in capsys.readouterr().out  # nothing was encoded for it
    tested = train(name="tested", flags=["--eval-only", "--model-dir", str(trained)])
    assert result_of(tested)["accuracy"] == result_of(trained)["accuracy"]


def _files(folder):
    return sorted(path for path in folder.rglob("*"))


@pytest.mark.parametrize("place", ["data/tiny/train", "data/tiny/train/output", "data/tiny/train/blue/run", "link/run"])
def test_a_run_does_not_write_among_the_classes(place, train, data, tmp_path):
    (tmp_path / "link").symlink_to(data / "train")
    before = _files(data)
    with refused("--output-dir", data / "train"):
        train(name=place, data=data / "train")
    assert _files(data) == before


def test_a_run_next_to_the_splits_is_not_read(train, data):
    for place in ("data/tiny", "data/tiny/test/run"):
        with refused("--output-dir", data):
            train(name=place)
    trained = train(name="data/tiny/output/run")
    assert result_of(train(name="data/tiny/output/again"))["num_train"] == result_of(trained)["num_train"] == 24


def test_labels_that_people_bring_are_filed_as_what_they_are(train, data, tmp_path):
    (tmp_path / "mine.csv").write_text("path,given,clean\ntrain/blue/0.png,red circle,blue\n")
    folder = train("DATASET.NOISE.FILE", tmp_path / "mine.csv")
    noise = result_of(folder)["noise"]
    assert (noise["family"], noise["realised_rate"]) == ("own", 1 / 24)
    assert set(results(folder)["noise"]) == {"own (file)"}
    assert open_run(folder).dm.dataset.noise.given[0] == 2
    (tmp_path / "mine.csv").write_text("path,given,clean\ntrain/blue/1.png,red circle,blue\n")
    with refused(folder, "DATASET.NOISE.FILE"):
        train("DATASET.NOISE.FILE", tmp_path / "mine.csv")


@pytest.mark.parametrize("noise", [(), (*NOISY[:-1], "0.25")])
def test_the_images_of_few_shots_are_a_table_for_training_if_tests_are_added(
    noise, train, data, tmp_path, load_dataset
):
    folder = train("DATASET.NUM_SHOTS", "2", *noise)
    rows = list(csv.DictReader((folder / "subset.csv").open()))
    assert Counter(row["split"] for row in rows) == {"train": 8, "val": 8}
    items = open_run(folder).dm.dataset.train_x
    assert [(str(data / row["path"]), int(row["label"])) for row in rows[:8]] == [(i.impath, i.label) for i in items]
    labels = {row["classname"]: row["label"] for row in rows}
    tests = sorted(data.glob("test/*/*.png"))
    lines = [f",{path.relative_to(data)},{labels[path.parent.name]},{path.parent.name},test\n" for path in tests]
    table = tmp_path / "again.csv"
    table.write_text((folder / "subset.csv").read_text() + "".join(lines))
    again = load_dataset("OwnCSV", tmp_path, "DATASET.OWN.PATH", str(table), "DATASET.OWN.IMAGES", str(data))
    assert [(item.impath, item.label) for item in again.train_x] == [(item.impath, item.label) for item in items]
    assert [item.impath for item in again.test] == list(map(str, tests))
    with refused("OwnCSV", "test"):
        load_dataset("OwnCSV", tmp_path, "DATASET.OWN.PATH", str(folder / "subset.csv"))


@pytest.mark.parametrize("kind", ["matrix", "listed", "own"])
def test_a_run_with_brought_labels_is_opened_with_these_and_judges_new_classes_without_them(
    kind, train, data, tmp_path
):

    matrix = np.full((2, 2), 0.5)  # of the two base classes
    np.savetxt(tmp_path / "matrix.csv", matrix, delimiter=",")
    (tmp_path / "wrong.txt").write_text("0\n3\n")
    (tmp_path / "own.csv").write_text("path,given\ntrain/blue/0.png,green_square\n")
    pairs = {
        "matrix": ["DATASET.NOISE.MATRIX", tmp_path / "matrix.csv"],
        "listed": ["DATASET.NOISE.WRONG", tmp_path / "wrong.txt", "DATASET.NOISE.TYPE", "sym"],
        "own": ["DATASET.NOISE.FILE", tmp_path / "own.csv"],
    }[kind]
    run = train(*pairs, "DATASET.SUBSAMPLE_CLASSES", "base", "TEST.NEW_CLASSES", True, "TEST.PERIOD", 1)
    assert result_of(run)["noise"]["family"] == kind
    assert list(open_run(run).dm.dataset.noise.given) == NoiseRecord.load(run / "noise.json").given
    test = train(*pairs, "DATASET.SUBSAMPLE_CLASSES", "new", name="new", flags=["--eval-only", "--model-dir", str(run)])
    frame = results(run, test)
    assert list(frame["noise_family"]) == [kind] * 2
    assert len(set(frame["noise"])) == 1
    assert set(frame["subsample"]) == {"base", "new"}
