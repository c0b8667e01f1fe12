"""Every data set on a small tree in its true layout, and every malformed one refused with a sentence."""

import json

import pytest
import yaml
from dassl.data.datasets import DATASET_REGISTRY

from dspt_atlas.datasets import register_all
from dspt_atlas.datasets.catalogue import CATALOGUE
from dspt_atlas.datasets.reader import SplitFileDataset
from dspt_atlas.errors import UserError
from support.refusals import refused

SPLIT_FILE_FOLDERS = {
    "Caltech101": "caltech-101/101_ObjectCategories",
    "OxfordPets": "oxford_pets/images",
    "StanfordCars": "stanford_cars",
    "OxfordFlowers": "oxford_flowers/jpg",
    "Food101": "food-101/images",
    "SUN397": "sun397/SUN397",
    "DescribableTextures": "dtd/images",
    "EuroSAT": "eurosat/2750",
    "UCF101": "ucf101/UCF-101-midframes",
}
WNIDS = {"n01440764": "tench", "n01443537": "goldfish", "n03126707": "construction crane", "n02012849": "crane bird"}


def _names(items):
    return [(item.label, item.classname) for item in items]


def _write_classnames(root, folder="imagenet"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    lines = [f"{wnid} {name}\n" for wnid, name in WNIDS.items()]
    (root / folder / "classnames.txt").write_text("".join(lines))


@pytest.mark.parametrize("name", SPLIT_FILE_FOLDERS)
def test_split_files(name, tmp_path, write_images, load_dataset):
    folder = tmp_path / SPLIT_FILE_FOLDERS[name]
    rows = {split: [[f"{c}/{split}.jpg", y, c] for y, c in enumerate("ab")] for split in ("train", "val", "test")}
    write_images(folder, [row[0] for split in rows.values() for row in split])
    split_file = tmp_path / SPLIT_FILE_FOLDERS[name].split("/")[0] / f"split_zhou_{name}.json"
    split_file.write_text(json.dumps(rows))
    before = sorted(tmp_path.rglob("*"))
    dataset = load_dataset(f"Noisy{name}", tmp_path, "DATASET.NUM_SHOTS", 1, "DATASET.NOISE.TYPE", "asym")
    assert [item.impath for item in dataset.test] == [str(folder / "a/test.jpg"), str(folder / "b/test.jpg")]
    assert _names(dataset.val) == _names(dataset.train_x) == [(0, "a"), (1, "b")]
    assert dataset.templates[0].count("{}") == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing is written


def test_aircraft(tmp_path, write_images, load_dataset):
    folder = tmp_path / "fgvc_aircraft"
    write_images(folder / "images", ["0034.jpg", "0035.jpg", "0036.jpg", "0037.jpg"])
    (folder / "variants.txt").write_text("DH-82\nA340-600 X\n")
    (folder / "images_variant_train.txt").write_text("0034 A340-600 X\n0035 DH-82\n")
    (folder / "images_variant_val.txt").write_text("0036 DH-82\n")
    (folder / "images_variant_test.txt").write_text("0037 A340-600 X\n")
    dataset = load_dataset("FGVCAircraft", tmp_path)
    assert _names(dataset.train_x) == [(1, "A340-600 X"), (0, "DH-82")]
    assert dataset.test[0].impath == str(folder / "images" / "0037.jpg")
    (folder / "images_variant_val.txt").write_text("0036 Spitfire\n")
    with pytest.raises(UserError, match="Spitfire"):
        load_dataset("FGVCAircraft", tmp_path)


@pytest.fixture
def imagenet(tmp_path, write_images):
    for wnid in WNIDS:
        write_images(tmp_path / "imagenet" / "images", [f"train/{wnid}/{n}.JPEG" for n in range(3)])
        write_images(tmp_path / "imagenet" / "images", [f"val/{wnid}/v.JPEG"])
    _write_classnames(tmp_path)
    return tmp_path


def test_imagenet_counts_labels_in_the_order_of_wnids(imagenet, load_dataset):
    dataset = load_dataset("ImageNet", imagenet, "DATASET.NUM_SHOTS", 2)
    assert dataset.classnames == ["tench", "goldfish", "crane bird", "construction crane"]
    assert (len(dataset.train_x), dataset.val, len(dataset.test)) == (8, None, 4)
    assert dataset.test[2].impath == str(imagenet / "imagenet" / "images" / "val" / "n02012849" / "v.JPEG")


def test_images_of_imagenets_archive_that_lie_flat_are_named_with_the_folder_that_is_missing(imagenet, load_dataset):
    val = imagenet / "imagenet" / "images" / "val"
    for wnid in WNIDS:
        (val / wnid / "v.JPEG").rename(val / f"{wnid}.JPEG")
        (val / wnid).rmdir()
    first = min(WNIDS)
    with pytest.raises(UserError) as error:
        load_dataset("ImageNet", imagenet)
    assert all(text in str(error.value) for text in (f"{val} ", f"{len(WNIDS)} ", f"{first}.JPEG", f" {first},"))


def test_imagenet_without_a_class_name(imagenet, load_dataset, write_images):
    write_images(imagenet / "imagenet" / "images" / "train", ["n99/x.jpg"])
    with pytest.raises(UserError, match='classnames.txt.*"n99"'):
        load_dataset("ImageNet", imagenet)
    (imagenet / "imagenet" / "classnames.txt").write_text("n01440764\n")
    with pytest.raises(UserError, match='"n01440764 tench"'):
        load_dataset("ImageNet", imagenet)


def test_imagenetv2_folders_are_class_numbers(tmp_path, write_images, load_dataset):
    images = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    write_images(images, [f"{label}/x.jpeg" for label in range(4)])
    _write_classnames(tmp_path, "imagenetv2")
    dataset = load_dataset("ImageNetV2", tmp_path)
    assert [item.impath.split("/")[-2] for item in dataset.test] == ["0", "1", "2", "3"]
    assert dataset.classnames == ["tench", "goldfish", "crane bird", "construction crane"]
    write_images(images, ["17/x.jpeg"])
    with pytest.raises(UserError, match='"0" to "3"; "17"'):
        load_dataset("ImageNetV2", tmp_path)


@pytest.mark.parametrize(
    "name, folder, wnids",
    [
        ("ImageNetSketch", "imagenet-sketch/images", sorted(WNIDS)),
        ("ImageNetA", "imagenet-adversarial/imagenet-a", ["n01443537", "n03126707"]),
        ("ImageNetR", "imagenet-rendition/imagenet-r", ["n01443537", "n02012849"]),
    ],
)
def test_imagenet_variants_count_the_wnids_that_are_there(name, folder, wnids, imagenet, write_images, load_dataset):
    write_images(imagenet / folder, [f"{wnid}/{n}.jpg" for wnid in wnids for n in range(3)])
    (imagenet / folder / "README.txt").write_text("not a class")
    dataset = load_dataset(name, imagenet, "DATASET.NUM_SHOTS", 1)
    assert dataset.classnames == [WNIDS[wnid] for wnid in wnids]
    assert dataset.source_classnames == [WNIDS[wnid] for wnid in sorted(WNIDS)]
    assert len(dataset.test) == 3 * len(wnids)  # a test set is never sampled
    assert dataset.train_x is dataset.test
    with refused(name):
        load_dataset(f"Noisy{name}", imagenet, "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", 0.5)


def test_food101n_trains_on_the_web_and_tests_on_food101(tmp_path, write_images, load_dataset):
    names = ("apple_pie", "apple pie"), ("waffles", "waffles")
    rows = {s: [[f"{c}/{s}.jpg", y, name] for y, (c, name) in enumerate(names)] for s in ("train", "val", "test")}
    write_images(tmp_path / "food-101" / "images", [row[0] for split in rows.values() for row in split])
    (tmp_path / "food-101" / "split_zhou_Food101.json").write_text(json.dumps(rows))
    web = tmp_path / "Food-101N_release"
    write_images(web / "images", ["waffles/1.jpg", "apple_pie/2.jpg"])
    (web / "meta").mkdir()
    (web / "meta" / "imagelist.tsv").write_text("class_name/key\nwaffles/1.jpg\napple_pie/2.jpg\n")
    dataset = load_dataset("Food101N", tmp_path)
    assert _names(dataset.train_x) == [(1, "waffles"), (0, "apple pie")]
    assert dataset.train_x[0].impath == str(web / "images" / "waffles" / "1.jpg")
    assert len(dataset.test) == 2 and "food-101" in dataset.test[0].impath
    (web / "meta" / "imagelist.tsv").write_text("class_name/key\nsoup/1.jpg\n")
    with refused("imagelist.tsv", '"soup/1.jpg"'):
        load_dataset("Food101N", tmp_path)


def _rewrite(root, change):
    path = root / "caltech-101" / "split_zhou_Caltech101.json"
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


@pytest.mark.parametrize(
    "change, facts",
    [
        (lambda r: r["train"][3].__setitem__(0, "../../secret.jpg"), ("train", "entry 3", "../../secret.jpg")),
        (lambda r: r["val"][0].__setitem__(0, "/etc/passwd"), ("val", "/etc/passwd")),
        (lambda r: r["val"][0].__setitem__(0, "C:\\x.jpg"), ("val", "x.jpg")),
        (lambda r: r["val"][0].__setitem__(0, ""), ("val", "entry 0")),
        (lambda r: r["train"][0].__setitem__(1, "2"), ("train", "entry 0", "'2'")),
        (lambda r: r["train"][0].__setitem__(1, True), ("train", "entry 0", "True")),
        (lambda r: r["train"][0].pop(), ("train", "entry 0")),
        (lambda r: r.update(train={}), ("train", "list")),
        (lambda r: r.update(train=[]), ("train",)),
        (lambda r: r.pop("test"), ("test",)),
        (lambda r: (r.pop("test"), r.pop("train")), ('"train"', '"val"', '"test"')),
        (lambda r: r.update(train=[row for row in r["train"] if row[1] != 2]), ('"name_2"', "label 2")),
        (lambda r: [row.__setitem__(1, row[1] - 1) for s in r.values() for row in s], ("-1",)),
        (lambda r: r["train"][0].__setitem__(2, "other"), ('"other"', '"name_2"')),
        (lambda r: r["test"][0].__setitem__(2, "other"), ('"other"', "2", '"name_2"')),
        (lambda r: r["test"][0].__setitem__(1, 9), ("9",)),
        (lambda r: r["test"].append(r["train"][0]), ("dir2/train0.jpg",)),
        (lambda r: r["val"].append(r["val"][0]), ("dir2/val0.jpg",)),
        (
            lambda r: r["test"][0].__setitem__(0, "dir0/absent.jpg"),
            ("1 of 80", "absent.jpg"),
        ),
    ],
)
def test_malformed_split_files_are_refused(change, facts, caltech_tree, load_dataset):
    _rewrite(caltech_tree, change)
    with refused(*facts):
        load_dataset("Caltech101", caltech_tree)


BROKEN = [(b"{", "JSON"), (b" \n", ""), (b'"\xff\xfe\x80"', "UTF-8"), (b"[]", '"train"')]


@pytest.mark.parametrize("content, fact", BROKEN)
def test_broken_split_files_are_refused(content, fact, caltech_tree, load_dataset):
    path = caltech_tree / "caltech-101" / "split_zhou_Caltech101.json"
    path.write_bytes(content)
    with refused(path, fact):
        load_dataset("Caltech101", caltech_tree)


def test_two_spellings_of_one_path_are_one_image(caltech_tree, load_dataset):
    _rewrite(caltech_tree, lambda rows: rows["test"].append(["./dir2//train0.jpg", 2, "name_2"]))
    with refused("dir2/train0.jpg"):
        load_dataset("Caltech101", caltech_tree)


def test_a_layout_off_by_one_folder_is_recognised(caltech_tree, load_dataset):
    split = caltech_tree / "caltech-101" / "split_zhou_Caltech101.json"
    split.rename(caltech_tree / "split_zhou_Caltech101.json")
    with refused(split, caltech_tree / "split_zhou_Caltech101.json"):
        load_dataset("Caltech101", caltech_tree)


@pytest.mark.parametrize("root", ["", "absent"])
def test_a_missing_data_root_is_refused(root, tmp_path, load_dataset):
    with pytest.raises(UserError, match="--root DIR"):
        load_dataset("Caltech101", root and tmp_path / root)


def test_all_are_registered_once_and_configured(request):
    register_all()
    register_all()
    names = {dataset.__name__ for dataset in CATALOGUE}
    assert len(names) == 15
    folder = request.config.rootpath / "configs" / "datasets"
    configured = {yaml.safe_load(path.read_text())["DATASET"]["NAME"] for path in folder.glob("*.yaml")}
    assert names <= configured <= set(DATASET_REGISTRY.registered_names())
    assert all(dataset.split_file for dataset in CATALOGUE if issubclass(dataset, SplitFileDataset))


def test_a_name_that_a_fork_registered_stays_its_own():
    register_all()
    ours = DATASET_REGISTRY.get("EuroSAT")
    theirs = type("EuroSAT", (), {})
    DATASET_REGISTRY.register(theirs, force=True)
    register_all()
    try:
        assert DATASET_REGISTRY.get("EuroSAT") is theirs
    finally:
        DATASET_REGISTRY.register(ours, force=True)
