"""Your own images: class folders, a split JSON, a CSV table."""

import json
from collections import Counter

import pytest

from support.refusals import refused


def _paths(items, root):
    return [item.impath.removeprefix(f"{root}/") for item in items]


def _counts(items):
    return Counter(item.label for item in items)


@pytest.fixture
def class_folders(tmp_path, write_images):
    write_images(tmp_path, [f"my birds/{c}/{n}.png" for c in ("wren", "blue_tit") for n in range(10)])
    return tmp_path


def test_class_folders_are_split_within_each_class(class_folders, load_dataset):
    options = ("DATASET.OWN.PATH", "my birds")
    dataset = load_dataset("OwnFolder", class_folders, *options)
    assert dataset.classnames == ["blue_tit", "wren"]
    splits = dataset.train_x, dataset.val, dataset.test
    assert [_counts(split) for split in splits] == [{0: 5, 1: 5}, {0: 2, 1: 2}, {0: 3, 1: 3}]
    assert len({item.impath for split in splits for item in split}) == 20
    other_run = load_dataset("OwnFolder", class_folders, *options, "SEED", 2)
    assert _paths(other_run.test, "") == _paths(dataset.test, "")
    other_split = load_dataset("OwnFolder", class_folders, *options, "DATASET.OWN.SPLIT_SEED", 2)
    assert _paths(other_split.test, "") != _paths(dataset.test, "")


def test_the_root_itself_may_hold_the_classes(class_folders, load_dataset):
    dataset = load_dataset("OwnFolder", class_folders / "my birds")
    assert dataset.num_classes == 2


@pytest.mark.parametrize("val, found", [("val", 2), ("valid", 2), (None, 0)])
def test_split_folders_are_used_as_they_are(val, found, tmp_path, write_images, load_dataset):
    splits = ["train", "test"] + [val] * bool(val)
    write_images(tmp_path, [f"{split}/{c}/{split}.jpg" for split in splits for c in "ab"])
    dataset = load_dataset("OwnFolder", tmp_path)
    assert _paths(dataset.train_x, tmp_path) == ["train/a/train.jpg", "train/b/train.jpg"]
    assert _paths(dataset.test, tmp_path) == ["test/a/test.jpg", "test/b/test.jpg"]
    assert len(dataset.val or []) == found


def test_a_class_may_be_called_train(tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"{c}/{n}.jpg" for c in ("bus", "train") for n in range(4)])
    assert load_dataset("OwnFolder", tmp_path).classnames == ["bus", "train"]


@pytest.mark.parametrize(
    "paths, facts",
    [
        (["a/1.jpg", "a/2.jpg", "b/1.jpg"], ('"b"', "1")),
        (["train/a/1.jpg", "val/a/1.jpg"], ("train", "test")),
        (["train/a/1.jpg", "test/b/1.jpg"], ("test", '"b"')),
        (["1.jpg"], ()),
        (["a/1.jpg", "a/2.jpg", "b/.hidden.jpg"], ("b",)),
    ],
)
def test_unusable_folders_are_refused(paths, facts, tmp_path, write_images, load_dataset):
    write_images(tmp_path, paths)
    with refused(*facts or [tmp_path]):
        load_dataset("OwnFolder", tmp_path)


def test_a_split_json_of_your_own(class_folders, load_dataset):
    names = ("wren", "blue_tit")
    splits = ("train", "val", "test")
    rows = {split: [[f"{c}/{n}.png", y, c] for y, c in enumerate(names)] for n, split in enumerate(splits)}
    (class_folders / "split.json").write_text(json.dumps(rows))
    options = ("DATASET.OWN.PATH", "split.json", "DATASET.OWN.IMAGES", "my birds")
    dataset = load_dataset("OwnSplit", class_folders, *options)
    assert dataset.classnames == ["wren", "blue_tit"]
    assert _paths(dataset.test, class_folders) == ["my birds/wren/2.png", "my birds/blue_tit/2.png"]
    options += ("DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)
    noisy = load_dataset("NoisyOwnSplit", class_folders, *options)
    assert noisy.noise.paths == ["wren/0.png", "blue_tit/0.png"]


def _csv(folder, text):
    (folder / "my birds" / "table.csv").write_text(text)
    return "DATASET.OWN.PATH", "my birds/table.csv"


@pytest.mark.parametrize(
    "text, names",
    [
        (
            "path,classname,split\nwren/1.png,wren,train\nblue_tit/1.png,Tit,train\nwren/2.png,wren,test\n",
            ["Tit", "wren"],
        ),
        ("path,label,split\nwren/1.png,wren,train\nblue_tit/1.png,Tit,train\nwren/2.png,wren,test\n", ["Tit", "wren"]),
        (
            (
                "path, label, classname, split\nwren/1.png,0,wren,train\n"
                "blue_tit/1.png,1,Tit,Train\nwren/2.png,0,wren, test\n"
            ),
            ["wren", "Tit"],
        ),
    ],
)
def test_tables(text, names, class_folders, load_dataset):
    dataset = load_dataset("OwnCSV", class_folders, *_csv(class_folders, text))
    assert dataset.classnames == names
    assert _paths(dataset.train_x, class_folders / "my birds") == ["wren/1.png", "blue_tit/1.png"]
    assert _paths(dataset.test, class_folders / "my birds") == ["wren/2.png"]


def test_a_table_without_splits_is_split(class_folders, load_dataset):
    rows = "".join(f"{c}/{n}.png,{c}\n" for c in ("wren", "blue_tit") for n in range(10))
    dataset = load_dataset("OwnCSV", class_folders, *_csv(class_folders, "path,classname\n" + rows))
    assert [len(split) for split in (dataset.train_x, dataset.val, dataset.test)] == [10, 4, 6]


@pytest.mark.parametrize(
    "text, facts",
    [
        ("image,classname\nx,y\n", ("path", "classname")),
        ("path,split\nx,train\n", ("path", "classname")),
        ("path,classname,split\n", ("path", "classname")),
        ("path,classname,split\nwren/1.png,wren,training\n", ("line 2", "train, val or test")),
        ("path,label,split\nwren/1.png,0,train\n", ("line 2",)),
        ("path,classname,split\nwren/1.png,wren,train\nwren/2.png,,test\n", ("line 3",)),
        ("path,classname,split\n../secret.png,wren,train\n", ("../secret.png",)),
        ("path,classname,split\nwren/1.png,wren,train\nwren/1.png,wren,test\n", ("wren/1.png",)),
        ("path,classname,split\nwren/1.png,wren,train\nblue_tit/1.png,tit,test\n", ("[0]",)),
        ("", ()),
    ],
)
def test_malformed_tables_are_refused(text, facts, class_folders, load_dataset):
    with refused(*facts or ["table.csv"]):
        load_dataset("OwnCSV", class_folders, *_csv(class_folders, text))
