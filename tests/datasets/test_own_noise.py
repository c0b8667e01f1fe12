"""Wrong labels that people bring: tables of given and clean labels, transition matrices, lists of wrong samples."""

import json

import numpy as np
import pytest

from dspt_atlas.datasets.noise import NoiseRecord
from dspt_atlas.plan.step import noise_folder, noise_pairs
from support.refusals import refused


@pytest.fixture
def load(tmp_path, write_images, load_dataset):
    """Return a function (KEY, VALUE, ...) -> 3 classes with 4 training images each, with the wrong labels."""
    root = tmp_path / "data"
    write_images(root, [f"train/{c}/{n}.png" for c in "abc" for n in range(4)])
    write_images(root, [f"test/{c}/0.png" for c in "abc"])
    return lambda *options: load_dataset("NoisyOwnFolder", root, *options)


@pytest.fixture
def file(tmp_path):
    """Return a function (name, text) -> the path of a file with this text."""

    def write(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def _changed(dataset):
    record = dataset.noise
    return {
        path: given
        for path, clean, given in zip(record.paths, record.clean, record.given, strict=True)
        if clean != given
    }


@pytest.mark.parametrize(
    "text",
    [
        "path,given,clean\ntrain/a/0.png,b,a\ntrain/c/3.png,0,2\ntrain/b/1.png,b,b\ntest/a/0.png,c,a\n",
        "train/a/0.png;b\ntrain/c/3.png;a\n",
        "noisy_label\tfilename\nb\ttrain/a/0.png\na\ttrain/c/3.png\n",
    ],
)
def test_a_table_of_given_labels_is_filed_as_ones_own(text, load, file):
    dataset = load("DATASET.NOISE.FILE", file("mine.csv", text))
    assert _changed(dataset) == {"train/a/0.png": 1, "train/c/3.png": 0}
    record = dataset.noise
    assert (record.family, record.type, record.rate) == ("own", "own", round(2 / 12, 4))
    assert [item.label for item in dataset.train_x] == record.given


def test_the_data_s_own_label_may_be_the_given_one(load, file):
    dataset = load("DATASET.NOISE.FILE", file("mine.csv", "path,given,clean\ntrain/a/0.png,a,c\n"))
    assert dataset.noise.clean[0] == 2 and dataset.train_x[0].label == 0 and dataset.noise.rate == round(1 / 12, 4)


def test_a_run_s_record_of_them_gives_the_same_labels(load, file, tmp_path):
    first = load("DATASET.NOISE.FILE", file("mine.csv", "path,given,clean\ntrain/a/0.png,a,c\ntrain/b/0.png,c,b\n"))
    first.noise.save(tmp_path / "noise.json")
    again = load("DATASET.NOISE.FILE", str(tmp_path / "noise.json"))
    assert again.noise == first.noise == NoiseRecord.load(tmp_path / "noise.json")


@pytest.mark.parametrize("text, facts", [
    ("path,given\ntrain/a/0.png,x\n", ("line 2", "x")),
    ("path,given\ntrain/a/0.png,7\n", ("line 2", "7")),
    ("path,given,clean\ntrain/a/0.png,b,c\n", ("line 2", "train/a/0.png")),
    ("path,given\nelsewhere/0.png,b\n", ("12", "subset.csv")),
    ("path,weight,size\ntrain/a/0.png,1,2\n", ("weight", "given")),
    ("path,given\ntrain/a/0.png,b\ntrain/b/0.png,c\n./train/a/0.png,c\n", ("line 2", "line 4", "train/a/0.png")),
    ("path,given,clean\ntrain/a/0.png,a,b\ntrain/a/0.png,0,c\n", ("line 2", "line 3")),
    ("path,given\ntrain/b/0.png,c\ntest/a/0.png,b\ntest/a/0.png,c\n", ("line 3", "line 4")),
    ("path,given\ntrain/a/0.png,\n", ("line 2",)),
])  # fmt: skip
def test_a_table_that_does_not_fit_is_refused(text, facts, load, file):
    with refused(*facts):
        load("DATASET.NOISE.FILE", file("mine.csv", text))


def test_a_line_may_stand_twice_and_a_path_may_be_written_in_several_ways(load, file):
    text = "path,given,clean\n./train//a/0.png,b,a\ntrain/a/0.png,1,0\ntrain/b/../a/0.png,b,\n"
    assert _changed(load("DATASET.NOISE.FILE", file("mine.csv", text))) == {"train/a/0.png": 1}


@pytest.mark.parametrize("key, name, text", [
    ("FILE", "mine.csv", "path,given\ntrain/a/0.png,b\ntrain/a/O.png,b\ntrain/d/0.png,b\ntest/b/0.png,c\n"),
    ("WRONG", "w.txt", "train/a/0.png\ntrain/a/O.png\ntrain/d/0.png\ntest/b/0.png\n"),
])  # fmt: skip
def test_paths_that_no_image_has_are_counted_in_a_note(key, name, text, load, file, capsys):
    load(f"DATASET.NOISE.{key}", file(name, text), *([] if key == "FILE" else ["DATASET.NOISE.TYPE", "asym"]))
    (note,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE"))
    assert "2 of the 4" in note and "train/a/O.png" in note and name in note
    text = text.replace("train/a/O.png", "train/a/1.png").replace("train/d/0.png", "train/b/0.png")
    load(f"DATASET.NOISE.{key}", file(name, text), *([] if key == "FILE" else ["DATASET.NOISE.TYPE", "asym"]))
    assert "NOTE" not in capsys.readouterr().out


def test_a_table_of_all_classes_serves_base_and_new_classes(load, file):
    text = "path,given\ntrain/a/0.png,b\ntrain/b/1.png,0\ntrain/c/0.png,a\n"
    base = load("DATASET.NOISE.FILE", file("mine.csv", text), "DATASET.SUBSAMPLE_CLASSES", "base")
    assert _changed(base) == {"train/a/0.png": 1, "train/b/1.png": 0} and base.num_classes == 2
    chosen = "DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.BASE_CLASSES", ["b", "c"]
    text = "path,given\ntrain/b/0.png,2\ntrain/c/0.png,b\ntrain/a/0.png,c\n"
    assert _changed(load("DATASET.NOISE.FILE", file("mine.csv", text), *chosen)) == {
        "train/b/0.png": 1, "train/c/0.png": 0,
    }  # fmt: skip


@pytest.mark.parametrize("label", ["x", "c"])
def test_whether_a_table_is_refused_does_not_depend_on_the_seed(label, load, file):
    text = "path,given\n" + "".join(f"train/{c}/{n}.png,{c}\n" for c in "ab" for n in range(4))
    options = "DATASET.NUM_SHOTS", 1, "DATASET.SUBSAMPLE_CLASSES", "base", "DATASET.NOISE.FILE"
    used = {item.impath for item in load(*options, file("mine.csv", text)).train_x}
    line = next(f"train/a/{n}.png,a" for n in range(4) if not any(path.endswith(f"a/{n}.png") for path in used))
    text = text.replace(line, f"{line[:-1]}{label}")
    for seed in range(3):
        with refused("mine.csv", f'"{label}"'):
            load(*options, file("mine.csv", text), "SEED", seed)


@pytest.mark.parametrize("text, facts", [
    ("path,given\ntrain/b/1.png,a\ntrain/a/0.png,c\ntrain/b/0.png,2\n", ("line 3", '"c"', "a/0.png", "base")),
    ("path,given,clean\ntrain/a/0.png,a,c\n", ("line 2", '"c"', "base")),
    ("path,given\ntrain/a/0.png,3\n", ("line 2", "below 3")),
])  # fmt: skip
def test_a_label_outside_of_the_base_classes_is_refused(text, facts, load, file):
    with refused("mine.csv", *facts):
        load("DATASET.NOISE.FILE", file("mine.csv", text), "DATASET.SUBSAMPLE_CLASSES", "base")


def test_a_transition_matrix_is_drawn_from(load, file, tmp_path):
    rows = "0.5 0.5 0\n0 1 0\n1,0,0\n"
    dataset = load("DATASET.NOISE.MATRIX", file("t.txt", rows))
    record = dataset.noise
    assert (record.family, record.type, record.rate) == ("matrix", "matrix", 0.5)
    assert record.given[4:] == [1] * 4 + [0] * 4 and set(record.given[:4]) <= {0, 1}
    np.save(tmp_path / "t.npy", np.array([[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]))
    assert load("DATASET.NOISE.MATRIX", str(tmp_path / "t.npy")).noise == record
    drawn = {tuple(load("DATASET.NOISE.MATRIX", file("t.txt", rows), "SEED", seed).noise.given) for seed in range(9)}
    assert len(drawn) > 1


@pytest.mark.parametrize("text, facts", [
    ("1 0\n0 1\n", ("3 x 3", "(2, 2)")),
    ("1 0 0\n0 0.5 0.4\n0 0 1\n", ("row 1", "0.9")),
    ("1 0 0\n0 1 0\n-1 1 1\n", ("row 2",)),
    ("a b c\n", ("t.txt",)),
])  # fmt: skip
def test_a_matrix_that_is_none_is_refused(text, facts, load, file):
    with refused(*facts):
        load("DATASET.NOISE.MATRIX", file("t.txt", text))


@pytest.mark.parametrize("name, text", [
    ("w.txt", "0\n5\n"), ("w.txt", "train/a/0.png\ntrain/b/1.png\ntest/a/0.png\n"), ("w.csv", "index\n0\n5\n"),
    ("w.csv", "path,note\ntrain/a/0.png,x\ntrain/b/1.png,y\n"), ("w.json", json.dumps([0, 5])),
])  # fmt: skip
def test_listed_samples_become_wrong(name, text, load, file):
    dataset = load("DATASET.NOISE.WRONG", file(name, text), "DATASET.NOISE.TYPE", "asym")
    assert _changed(dataset) == {"train/a/0.png": 1, "train/b/1.png": 2}
    assert (dataset.noise.family, dataset.noise.type) == ("listed", "asym")


@pytest.mark.parametrize("options, facts", [
    (("DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.MATRIX", "t.txt"), ("WRONG", "MATRIX")),
    ((), ("DATASET.NOISE.TYPE",)),
    (("DATASET.NOISE.TYPE", "asym"), ("sample 12",)),
])  # fmt: skip
def test_a_list_that_does_not_fit_is_refused(options, facts, load, file):
    with refused(*facts):
        load("DATASET.NOISE.WRONG", file("w.txt", "12\n"), *options)


@pytest.mark.parametrize("name, content, facts", [
    ("w.txt", "0\n-1\n", ("sample -1", "12")),
    ("w.json", json.dumps({"train/a/0.png": False}), ("w.json", "dict")),
    ("w.npy", np.array([True, False, False]), ("w.npy", "3", "12")),
])  # fmt: skip
def test_a_list_that_means_no_samples_of_this_run_is_refused(name, content, facts, load, file, tmp_path):
    if isinstance(content, str):
        file(name, content)
    else:
        np.save(tmp_path / name, content)
    with refused(*facts):
        load("DATASET.NOISE.WRONG", str(tmp_path / name), "DATASET.NOISE.TYPE", "sym")


def test_plans_name_folders_after_the_file():
    assert noise_folder("own labels/mine.csv") == "own_mine" and noise_folder("matrix t.npy") == "matrix_t"
    assert noise_pairs("own labels/mine.csv") == ["DATASET.NOISE.FILE", "labels/mine.csv"]
