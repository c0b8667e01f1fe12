"""Few-shot subsets and base/new classes: published subsets reproduced, one generator, no use of global state."""

import hashlib
import random
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yacs.config import CfgNode

from dspt_atlas.datasets.fewshot import chosen_classes, few_shot_splits, sample_few_shot, subsample_classes
from dspt_atlas.errors import UserError


class Sample(NamedTuple):
    impath: str
    label: int
    classname: str = ""


GOLDEN = [  # seed, shots, classes, sizes, first and last training image, digests of train and val
    (1, 1, "all", (100, 100, 2465), "Faces/image_0201.jpg", "yin_yang/image_0036.jpg", "33173bedf9ad", "d8cdaf6e3fcf"),
    (1, 2, "all", (200, 200, 2465), "Faces/image_0201.jpg", "yin_yang/image_0058.jpg", "124d5e5f5047", "bcd862b4736c"),
    (1, 4, "all", (400, 400, 2465), "Faces/image_0201.jpg", "yin_yang/image_0012.jpg", "f996bf609c4e", "9562109330fe"),
    (1, 8, "all", (800, 400, 2465), "Faces/image_0201.jpg", "yin_yang/image_0037.jpg", "edc8b6967dfb", "7937b0dafbd4"),
    (
        1,
        16,
        "all",
        (1600, 400, 2465),
        "Faces/image_0201.jpg",
        "yin_yang/image_0027.jpg",
        "e60a836bd33c",
        "53555d3fce94",
    ),
    (2, 1, "all", (100, 100, 2465), "Faces/image_0102.jpg", "yin_yang/image_0036.jpg", "9a0e5969df4d", "fc02914307ca"),
    (
        2,
        16,
        "all",
        (1600, 400, 2465),
        "Faces/image_0102.jpg",
        "yin_yang/image_0002.jpg",
        "62be9f804c23",
        "0ac3f0ace7d7",
    ),
    (3, 1, "all", (100, 100, 2465), "Faces/image_0382.jpg", "yin_yang/image_0045.jpg", "239363f8e685", "226e9e0ddda3"),
    (
        3,
        16,
        "all",
        (1600, 400, 2465),
        "Faces/image_0382.jpg",
        "yin_yang/image_0055.jpg",
        "8c465c68bff4",
        "bf481ac8e217",
    ),
    (
        1,
        16,
        "base",
        (800, 200, 1549),
        "Faces/image_0201.jpg",
        "helicopter/image_0011.jpg",
        "ccf176e5e125",
        "257802093342",
    ),
    (1, 16, "new", (800, 200, 916), "ibis/image_0051.jpg", "yin_yang/image_0027.jpg", "d039d7143041", "0ad400cb9573"),
]


def _digest(paths):
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:12]


@pytest.mark.parametrize("seed, shots, classes, sizes, first, last, train_digest, val_digest", GOLDEN)
def test_published_subsets_of_caltech101(
    seed, shots, classes, sizes, first, last, train_digest, val_digest, shared_data, load_dataset
):
    options = ["SEED", seed, "DATASET.NUM_SHOTS", shots, "DATASET.SUBSAMPLE_CLASSES", classes]
    dataset = load_dataset("Caltech101", shared_data, *options)
    images = f"{shared_data / 'caltech-101' / '101_ObjectCategories'}/"
    train = [item.impath.removeprefix(images) for item in dataset.train_x]
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == sizes
    assert (train[0], train[-1]) == (first, last)
    assert _digest(train) == train_digest
    assert _digest([item.impath.removeprefix(images) for item in dataset.val]) == val_digest
    assert dataset.num_classes == (100 if classes == "all" else 50)


def test_all_of_caltech101_with_its_names(shared_data, load_dataset):
    dataset = load_dataset("Caltech101", shared_data)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)
    assert dataset.classnames[:5] == ["face", "leopard", "motorbike", "accordion", "airplane"]
    assert dataset.classnames[-3:] == ["windsor_chair", "wrench", "yin_yang"]


def test_the_contract_s_synthetic_example():  # engine/CONTRACT.md, section 17
    items = [Sample(f"c{label}_{i}", label) for i in range(5) for label in (2, 0, 1)]
    train, val = few_shot_splits(items, items, 2, 1)
    assert [item.impath for item in train] == ["c2_1", "c2_0", "c0_2", "c0_0", "c1_3", "c1_4"]
    assert [item.impath for item in val] == ["c2_3", "c2_4", "c0_1", "c0_0", "c1_3", "c1_0"]
    assert sample_few_shot(items, 2, 1) == train


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 99)
)
def test_subsets_are_seeded_and_complete(labels, shots, seed, disturbance):
    items = [Sample(str(index), label) for index, label in enumerate(labels)]
    random.seed(disturbance)
    before = random.getstate()
    subset = sample_few_shot(items, shots, seed)
    assert random.getstate() == before
    assert subset == sample_few_shot(items, shots, seed)
    assert len(set(subset)) == len(subset) and set(subset) <= set(items)
    assert list(dict.fromkeys(item.label for item in subset)) == list(dict.fromkeys(labels))
    for label in set(labels):
        chosen = [item for item in subset if item.label == label]
        available = [item for item in items if item.label == label]
        assert len(chosen) == min(shots, len(available))
        if len(available) < shots:
            assert chosen == available


@pytest.mark.parametrize("shots", [0, -1])
def test_no_shots_keep_everything_in_order(shots):
    items = [Sample(str(index), index % 3) for index in range(9)]
    assert sample_few_shot(items, shots, 1) == items


def test_validation_gets_at_most_four_shots():
    items = [Sample(str(index), index % 2) for index in range(40)]
    assert [len(split) for split in few_shot_splits(items, items, 16, 0)] == [32, 8]
    assert [len(split) for split in few_shot_splits(items, items, 3, 0)] == [6, 6]


def test_a_negative_seed_draws_from_the_global_generator_and_says_so(capsys):
    items = [Sample(str(index), 0) for index in range(40)]
    random.seed(5)
    train, _ = few_shot_splits(items, [], 4, -1)
    random.seed(5)
    assert train == random.sample(items, 4)
    assert "no seed" in capsys.readouterr().out


def test_base_and_new_share_the_classes_and_count_from_zero():
    train = [Sample(f"train{label}", label, f"name{label}") for label in (4, 0, 3, 1, 2)]
    test = [Sample(f"test{label}", label, f"name{label}") for label in range(5)]
    base, base_test = subsample_classes("base", train, test)
    new, new_test = subsample_classes("new", train, test)
    assert [(item.label, item.classname) for item in base_test] == [(0, "name0"), (1, "name1"), (2, "name2")]
    assert [(item.label, item.classname) for item in new_test] == [(0, "name3"), (1, "name4")]
    assert [item.impath for item in (*base, *new)] == ["train0", "train1", "train2", "train4", "train3"]
    assert subsample_classes("all", train, test) == (train, test)


def test_two_classes_of_one_name_are_listed_together():  # as ImageNet's missiles
    items = [Sample(str(label), label, name) for label, name in enumerate(("missile", "owl", "missile", "wren"))]
    chosen = {}
    for choice in ("base", "new"):
        data = {"SUBSAMPLE_CLASSES": choice, "BASE_CLASSES": ["missile"], "NEW_CLASSES": []}
        (kept,) = chosen_classes(SimpleNamespace(DATASET=CfgNode(data)), items)
        chosen[choice] = [(item.impath, item.label) for item in kept]
    assert chosen == {"base": [("0", 0), ("2", 1)], "new": [("1", 0), ("3", 1)]}


@pytest.mark.parametrize("choice, labels", [("old", (0, 1)), ("new", (0,))])
def test_impossible_choices_of_classes_are_refused(choice, labels):
    with pytest.raises(UserError, match=choice):
        subsample_classes(choice, [Sample("", label) for label in labels])


def test_sampling_comes_before_the_base_new_split(caltech_tree, load_dataset):
    options = ["DATASET.NUM_SHOTS", 2, "DATASET.SUBSAMPLE_CLASSES"]
    everything, base, new = (load_dataset("Caltech101", caltech_tree, *options, c) for c in ("all", "base", "new"))
    assert {item.impath for item in everything.train_x} == {item.impath for item in (*base.train_x, *new.train_x)}
    assert {item.impath for item in everything.val} == {item.impath for item in (*base.val, *new.val)}
    assert (base.classnames, new.classnames) == (["name_0", "name_1", "name_2"], ["name_3", "name_4"])
