"""Warnings of check-data about data that can be read; link loops, hidden folders, classes with the same prompt."""

import contextlib
import json
import os
import shutil

import numpy as np
import pytest
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from PIL import Image

from dspt_atlas.config.defaults import extend_cfg
from dspt_atlas.config.files import find_dataset
from dspt_atlas.datasets import register_all
from dspt_atlas.datasets.formats import class_folders, folder_images
from dspt_atlas.datasets.pitfalls import identical_files, pitfalls
from dspt_atlas.errors import UserError
from dspt_atlas.tools import check_data as check_data_command

SPECIES = ("wren", "tit")


@pytest.fixture
def warnings_of():
    """Return a function (root, data set, KEY, VALUE, ...) -> the warnings."""
    register_all()

    def warn(root, name="OwnFolder", *options):
        cfg = get_cfg_default()
        extend_cfg(cfg)
        cfg.merge_from_list(["DATASET.ROOT", str(root), *options])
        dataset = find_dataset(name)
        splits = dataset.__new__(dataset).read(cfg)
        return list(pitfalls(dataset, cfg, splits, identical_files(splits)))

    return warn


def tree(*parts, count=4):
    """Return the paths of images 0 to count - 1 of each combination of folders."""
    paths = [""]
    for names in parts:
        paths = [f"{path}{name}/" for path in paths for name in names]
    return [f"{path}{number}.png" for path in paths for number in range(count)]


@pytest.mark.parametrize("paths, named", [
    pytest.param(tree(("cars",), ("audi", "bmw")) + tree(("birds",), SPECIES),
                 ("birds", "cars", "DATASET.OWN.PATH"), id="a folder above several data sets"),
    pytest.param(tree(("birds", "cars"), ("train", "test"), ("a", "b")), ("birds", "cars", "DATASET.OWN.PATH"),
                 id="a folder above several data sets with splits"),
    pytest.param(
        tree(("photo", "sketch"), SPECIES), ("photo", "sketch", "tit, wren", "domains"), id="domains as classes"
    ),
    pytest.param(tree(("train", "test"), ("photo", "sketch"), SPECIES), ("photo", "sketch", "domains"),
                 id="domains as classes in splits"),
    pytest.param(tree(("Train", "Eval"), SPECIES), ("Eval, Train", "small letters"), id="Train and Eval as classes"),
    pytest.param(tree(("dev", "train")), ("dev, train",), id="dev as a class"),
    pytest.param(tree(("Validation", *SPECIES)), ("Validation",), id="Validation as a class"),
    pytest.param(tree(("raw", *SPECIES)), ("raw",), id="raw as a class"),
    pytest.param(tree(("train", "test"), SPECIES) + tree(("dev", "raw"), SPECIES), ("dev, raw", "not read"),
                 id="folders beside train and test"),
    pytest.param(tree(("male", "female")) + ["1.png", "2.png"], ("found: 2", "1.png", "folder of one class"),
                 id="a folder of one class"),
])  # fmt: skip
def test_folders_that_are_probably_not_meant_are_warned_of(paths, named, tmp_path, write_images, warnings_of):
    write_images(tmp_path, paths)
    warnings = warnings_of(tmp_path)
    assert any(all(name in warning for name in named) for warning in warnings), warnings


@pytest.mark.parametrize("paths", [
    tree(SPECIES), tree(("train", "val", "test"), SPECIES), tree(("bus", "train")), tree(SPECIES, ("2024",)),
    tree(SPECIES) + tree(SPECIES, ("more",)),
])  # fmt: skip
def test_plain_folders_are_not_warned_of(paths, tmp_path, write_images, warnings_of):
    write_images(tmp_path, paths)
    (tmp_path / "README.txt").write_text("about the birds")
    assert warnings_of(tmp_path) == []


def test_splits_as_classes_are_not_called_domains_too(tmp_path, write_images, warnings_of):
    write_images(tmp_path, tree(("Train", "Eval"), SPECIES))
    assert len(warnings_of(tmp_path)) == 1


def test_extensions_that_are_not_read_are_warned_of(tmp_path, write_images, warnings_of):
    write_images(tmp_path, tree(SPECIES))
    for name in ("a.cr2", "b.CR2", "c.mp4", "bare"):
        (tmp_path / "wren" / name).write_bytes(b"an image")
    (warning,) = warnings_of(tmp_path)
    assert all(word in warning for word in ("2 of .cr2", "1 of .mp4", "1 of no extension", "wren/a.cr2"))


def test_jfif_is_a_jpeg_and_is_read(tmp_path, write_images, warnings_of):
    write_images(tmp_path, [path.replace("png", "jfif") for path in tree(SPECIES)])
    assert len(folder_images(tmp_path)) == 8 and warnings_of(tmp_path) == []


def test_identical_files_in_two_splits_or_two_classes_are_warned_of(tmp_path, write_images, warnings_of):
    write_images(tmp_path, tree(("train", "test"), SPECIES))
    shutil.copy(tmp_path / "train/wren/0.png", tmp_path / "test/wren/copy.png")
    (warning,) = warnings_of(tmp_path)
    assert "train/wren/0.png" in warning and "test/wren/copy.png" in warning and "found: 1," in warning
    shutil.copy(tmp_path / "train/wren/1.png", tmp_path / "train/tit/copy.png")
    _, warning = warnings_of(tmp_path)
    assert "train/wren/1.png" in warning and "train/tit/copy.png" in warning and "found: 1," in warning


def test_contents_are_compared_for_tables_and_published_data_too(caltech_tree, warnings_of):
    assert warnings_of(caltech_tree, "Caltech101") == []
    images = caltech_tree / "caltech-101" / "101_ObjectCategories"
    shutil.copy(images / "dir0/train0.jpg", images / "dir0/test2.jpg")
    (warning,) = warnings_of(caltech_tree, "Caltech101")
    assert "dir0/train0.jpg" in warning and "dir0/test2.jpg" in warning


@pytest.fixture
def check_data(capsys):
    """Return a function (arguments) -> (exit status, output) of `dspt-atlas check-data`."""

    def call(*arguments):
        status = check_data_command.main(list(map(str, arguments)))
        return status, capsys.readouterr().out

    return call


def test_check_data_prints_warnings_and_images_that_are_turned_or_scaled(tmp_path, write_images, check_data):
    write_images(tmp_path, tree(("raw", *SPECIES)))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "wren/0.png") as image:
        image.save(tmp_path / "wren/0.png", exif=exif)
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 4000).save(tmp_path / "wren/1.png")
    status, out = check_data("OwnFolder", "--root", tmp_path)
    assert status == 0 and out.count("WARNING: ") == 1
    turned = out.partition("1 of 12 images are turned")[2]
    assert f"{tmp_path}/wren/0.png" in turned and f"{tmp_path}/wren/1.png" in turned.partition("1 of 12 images have")[2]
    Image.fromarray(np.full((3, 4), 70000, np.int32)).save(tmp_path / "wren/1.tif")
    status, out = check_data("OwnFolder", "--root", tmp_path)
    assert status == 2 and f"{tmp_path}/wren/1.tif" in out.partition("1 of 13 images cannot be read")[2]


# Links and hidden folders


def test_links_are_followed_once_and_hidden_folders_never(tmp_path, write_images):
    write_images(tmp_path, ["set/wren/1.png", "set/wren/.ipynb_checkpoints/1-checkpoint.png", "elsewhere/2.png"])
    wren = tmp_path / "set/wren"
    (wren / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    (wren / "self").symlink_to(wren, target_is_directory=True)
    (wren / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (wren / "again").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (wren / "nowhere").symlink_to(wren / "nowhere")
    found = folder_images(wren)
    assert [os.path.relpath(path, tmp_path) for path in found] == ["set/wren/1.png", "set/wren/again/2.png"]


def test_a_link_to_a_folder_above_is_no_class(tmp_path, write_images):
    write_images(tmp_path, tree(SPECIES))
    (tmp_path / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "above").symlink_to(tmp_path.parent, target_is_directory=True)
    (tmp_path / "owl").symlink_to(tmp_path / "wren", target_is_directory=True)
    assert class_folders(tmp_path) == ["owl", "tit", "wren"]


# Prompts


def imagenet(root, write_images, names):
    folder = root / "imagenet"
    wnids = [f"n0000000{number}" for number in range(len(names))]
    write_images(folder / "images", [f"{split}/{wnid}/{split}.jpg" for split in ("train", "val") for wnid in wnids])
    lines = [f"{wnid} {name}\n" for wnid, name in zip(wnids, names, strict=True)]
    (folder / "classnames.txt").write_text("".join(lines))


@pytest.mark.parametrize("name", ["ImageNet", "NoisyImageNet"])
def test_imagenets_two_pairs_of_equal_names_are_said_and_not_refused(
    name, tmp_path, write_images, load_dataset, capsys
):
    """OpenAI's list calls labels 657 and 744 "missile", 836 and 837 "sunglasses"; accuracies are published with it."""
    imagenet(tmp_path, write_images, ["missile", "sunglasses", "tench", "sunglasses", "missile"])
    load_dataset(name, tmp_path)
    out = capsys.readouterr().out
    assert '0 "missile" and 4 "missile"' in out and '1 "sunglasses" and 3 "sunglasses"' in out


def test_published_lists_of_other_data_sets_may_not_repeat_a_name(caltech_tree, load_dataset):
    path = caltech_tree / "caltech-101" / "split_zhou_Caltech101.json"
    path.write_text(path.read_text().replace("name_3", "Name 1"))
    with pytest.raises(UserError, match='1 "name_1" and 3 "Name 1"'):
        load_dataset("Caltech101", caltech_tree)


def test_the_real_class_names_of_caltech101_all_differ(shared_data, load_dataset):
    assert load_dataset("Caltech101", shared_data, "DATASET.NUM_SHOTS", 1).num_classes == 100


def test_all_classes_of_our_embedded_data_differ(load_dataset, tmp_path):
    for name in ("Emoji", "EmojiObjects", "EmojiV2", "EmojiFlat"):
        load_dataset(name, tmp_path, "DATASET.NUM_SHOTS", 1)


@pytest.mark.parametrize("name, is_refused", [("ForeignBirds", True), ("ImageNetForeign", False)])
def test_data_sets_of_a_fork_are_checked_too(
    name, is_refused, tiny_dataset, tiny_run, tiny_clip_path, tmp_path, capsys
):
    class Foreign(DatasetBase):
        def __init__(self, cfg):
            names = ("Owl", "blue", "owl")
            images = sorted((tiny_dataset / "train" / "blue").iterdir())
            items = [Datum(str(images[label]), label, classname=name) for label, name in enumerate(names)]
            super().__init__(train_x=items, val=items, test=items)

    Foreign.__name__ = name
    DATASET_REGISTRY.register(Foreign, force=True)
    refused = pytest.raises(UserError, match='0 "Owl" and 2 "owl"')
    with refused if is_refused else contextlib.nullcontext():
        tiny_run("CoOp", tiny_clip_path, tmp_path / "run", "DATASET.NAME", name)
    assert is_refused or '0 "Owl" and 2 "owl"' in capsys.readouterr().out


def test_a_label_of_a_fork_is_refused_without_building_a_set_of_its_size(tiny_dataset):
    image = str(next((tiny_dataset / "train" / "blue").iterdir()))
    items = [Datum(image, 0, classname="a"), Datum(image, 99999999999, classname="b")]
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 4, 5, 6\]"):
        DatasetBase(train_x=items)


def test_names_that_differ_to_the_tokenizer_are_kept(tmp_path, write_images, load_dataset):
    names = ["owl", "owls", "barn owl", "barnowl", "café", "cafe", "cat-dog", "cat dog"]
    rows = [[f"{n}.png", label, name] for label, name in enumerate(names) for n in (label,)]
    write_images(tmp_path, [f"{split}{row[0]}" for split in ("train", "test") for row in rows])
    splits = {split: [[split + path, label, name] for path, label, name in rows] for split in ("train", "test")}
    (tmp_path / "split.json").write_text(json.dumps(splits))
    assert load_dataset("OwnSplit", tmp_path, "DATASET.OWN.PATH", "split.json").classnames == names
