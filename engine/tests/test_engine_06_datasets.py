"""CONTRACT.md, sections 6.1 to 6.3: items, data sets, few-shot sampling."""

import ast
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

import dassl
from dassl.data.datasets import DatasetBase, Datum
from dassl.data.datasets.base_dataset import extract_archive
from dassl.utils import set_random_seed


@pytest.fixture
def datum(image_root):
    return Datum(impath=str(image_root / "0.png"), label=2, classname="owl")


def test_datum_is_read_only_and_checked(datum, image_root):
    assert (datum.label, datum.domain, datum.classname) == (2, 0, "owl")
    with pytest.raises(AttributeError):
        datum.label = 3
    with pytest.raises(TypeError, match="PosixPath|WindowsPath"):
        Datum(image_root / "0.png")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):  # F17
        Datum(str(image_root / "gone.png"))


def test_no_check_vanishes_under_python_o():  # F16
    files = list(Path(dassl.__file__).parent.rglob("*.py"))
    asserting = [
        path for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)
    ]
    assert len(files) > 30
    assert asserting == []


def test_pickles_move_both_ways(datum):
    stored = pickle.dumps(datum, pickle.HIGHEST_PROTOCOL)
    assert b"dassl.data.datasets.base_dataset" in stored
    assert list(vars(datum)) == ["_impath", "_label", "_domain", "_classname"]
    moved = Datum.__new__(Datum)
    moved.__dict__.update({**vars(datum), "_impath": "/moved/away.png", "_gttarget": 5})
    del moved.__dict__["_domain"]  # files of forks have more or fewer keys
    loaded = pickle.loads(pickle.dumps([moved], pickle.HIGHEST_PROTOCOL))[0]
    assert (loaded.impath, loaded.label, loaded.domain, loaded._gttarget) == ("/moved/away.png", 2, 0, 5)


def test_dataset_keeps_the_very_lists(make_items):
    train, test = make_items([1, 0, 1, 2]), make_items([0])
    dataset = DatasetBase(train_x=train, test=test)
    assert dataset.train_x is train
    assert dataset.test is test
    assert (dataset.val, dataset.train_u) == (None, None)
    assert dataset.num_classes == 3
    assert list(dataset.lab2cname.items()) == [(0, "class0"), (1, "class1"), (2, "class2")]
    assert dataset.classnames == ["class0", "class1", "class2"]


@pytest.mark.parametrize("empty", [None, []])
def test_empty_train_split_is_explained(empty):  # F18
    with pytest.raises(ValueError, match="train_x"):
        DatasetBase(train_x=empty)


def test_most_frequent_class_name_wins_with_one_warning(make_items):  # F14
    items = make_items([1, 1, 1, 0, 0])
    for item, name in zip(items, ["b", "c", "c", "x", "y"]):
        item.classname = name
    with pytest.warns(UserWarning, match=r"Labels \[0, 1\]") as caught:
        mapping, names = DatasetBase.get_lab2cname(items)
    assert len(caught) == 1
    assert list(mapping.items()) == [(0, "x"), (1, "c")]
    assert names == ["x", "c"]
    truth = DatasetBase(train_x=items, lab2cname={1: "true1", 0: "true0"})
    assert truth.classnames == ["true0", "true1"]


def test_label_gaps_are_filled_from_other_splits_or_refused(make_items):  # F15
    train = make_items([0, 2])
    dataset = DatasetBase(train_x=train, test=make_items([1]))
    assert dataset.classnames == ["class0", "class1", "class2"]
    with pytest.raises(ValueError, match=r"\[1\]"):
        DatasetBase(train_x=train, test=make_items([0]))


def test_domains_are_checked(make_items):
    dataset = DatasetBase(train_x=make_items([0]))
    dataset.domains = ["art", "photo"]
    dataset.check_input_domains(["art"], ("photo",))
    with pytest.raises(AssertionError, match="source_domains"):
        dataset.check_input_domains([], ["photo"])
    with pytest.raises(ValueError, match=r"'art', 'photo'.*\[x\]"):
        dataset.check_input_domains(["art"], ["x"])


def test_splitting_keeps_order(make_items):
    items = make_items([2, 0, 2], domains=[1, 1, 0])
    dataset = DatasetBase.__new__(DatasetBase)  # subclasses call these before the constructor
    assert [(k, [i.impath for i in v]) for k, v in dataset.split_dataset_by_label(items).items()] == [
        (2, ["0.png", "2.png"]),
        (0, ["1.png"]),
    ]
    assert list(dataset.split_dataset_by_domain(items)) == [1, 0]


GOLDEN = {  # section 17
    (2, False): (["c2_1 c2_0 c0_2 c0_0 c1_3 c1_4", "c2_3 c2_4 c0_1 c0_0 c1_3 c1_0"], 0.8933170425576351),
    (7, False): ([" ".join(f"c{c}_{i}" for c in (2, 0, 1) for i in range(5))] * 2, 0.13436424411240122),
    (7, True): (
        [
            "c2_0 c2_4 c2_3 c2_1 c2_2 c2_2 c2_3 c0_3 c0_0 c0_0 c0_4 c0_2 c0_3 c0_0 c1_2 c1_3 c1_1 c1_4 c1_4 c1_0 c1_0",
            None,
        ],
        None,
    ),
}


@pytest.mark.parametrize(("num_shots", "repeat"), GOLDEN)
def test_few_shot_golden_values(make_items, capsys, num_shots, repeat):
    items = make_items([label for _ in range(5) for label in (2, 0, 1)])
    for i, item in enumerate(items):
        item.name = f"c{item.label}_{i // 3}"
    set_random_seed(1)
    dataset = DatasetBase.__new__(DatasetBase)
    chosen = dataset.generate_fewshot_dataset(items, list(items), num_shots=num_shots, repeat=repeat)
    expected, following = GOLDEN[num_shots, repeat]
    for got, want in zip(chosen, expected):
        assert want is None or " ".join(item.name for item in got) == want
    assert following is None or random.random() == following
    assert capsys.readouterr().out == f"Creating a {num_shots}-shot dataset\n"


def test_without_shots_the_sources_come_back(make_items):
    items, dataset = make_items([0]), DatasetBase.__new__(DatasetBase)
    assert dataset.generate_fewshot_dataset(items) is items
    several = dataset.generate_fewshot_dataset(items, items, num_shots=0)
    assert several[0] is items
    assert len(several) == 2


def test_archives_cannot_write_outside(tmp_path):  # F38
    (tmp_path / "file").write_text("x")
    for name in ("../evil", "good"):
        with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
            archive.write(tmp_path / "file", name)
    extract_archive(str(tmp_path / "a.zip"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "good").read_text() == "x"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "file", "../evil")
    with pytest.raises(tarfile.TarError):
        extract_archive(str(tmp_path / "a.tar.gz"), str(tmp_path / "out"))
    assert not (tmp_path / "evil").exists()
    with pytest.raises(NotImplementedError):
        extract_archive("a.rar", ".")
