"""Your own images: class folders, a split JSON, a CSV table."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from dspt_atlas.datasets.formats import image_suffixes
from dspt_atlas.datasets.images import read_image
from dspt_atlas.datasets.prompts import prompt_names
from dspt_atlas.errors import UserError
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
        (["1.jpg"], ("1 images", "1.jpg")),
        (["train/a/1.jpg", "test/a/1.jpg", "Train/a/1.jpg"], ("train", "Train")),
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


@pytest.mark.parametrize("path", [3, 1.5, True, None, ["wren/0.png"], {}, "", " ", "a\0.png", "/a\0.png", "\ud800.png"])
def test_what_is_no_path_is_refused_with_its_place(path, class_folders, load_dataset):
    rows = {split: [[f"{c}/{n}.png", y, c] for y, c in enumerate(("wren", "blue_tit"))]
            for n, split in enumerate(("train", "test"))}  # fmt: skip
    rows["test"].append([path, 0, "wren"])
    (class_folders / "split.json").write_text(json.dumps(rows))
    options = ("DATASET.OWN.PATH", "split.json", "DATASET.OWN.IMAGES", "my birds")
    with refused("split.json, test, entry 2", repr(path)):
        load_dataset("OwnSplit", class_folders, *options)


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


ROWS = [(f"{c}/{n}.png", c) for c in ("wren", "blue_tit") for n in range(10)]
SPLITS = ["train"] * 5 + ["val"] * 2 + ["test"] * 3


def _lines(*rows, delimiter=","):
    return "".join(delimiter.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("text", [
    pytest.param(_lines(("image", "label"), *ROWS, delimiter=";"), id="semicolons"),
    pytest.param(_lines(("filename", "target"), *ROWS, delimiter="\t"), id="tabs"),
    pytest.param(_lines(*ROWS), id="no header"),
    pytest.param(_lines(("Bild", "Klasse"), *ROWS, delimiter=";"), id="names of columns in another language"),
    pytest.param(_lines(*((*row, split) for row, split in zip(ROWS, SPLITS * 2, strict=True))), id="no header, splits"),
    pytest.param(_lines(("Class", "Image Path"), *(row[::-1] for row in ROWS)), id="another order"),
    pytest.param(_lines(("", "path", "class", "size"), *((str(n), *row, "9") for n, row in enumerate(ROWS))),
                 id="further columns"),
    pytest.param(_lines(("path", "class", "target"), *((*row, str(int(row[1] == "wren"))) for row in ROWS)),
                 id="a number and a name"),
    pytest.param(_lines(("subset", "path", "class"),
                        *((split.title(), *row) for row, split in zip(ROWS, SPLITS * 2, strict=True)), ("", "", "")),
                 id="splits with capitals, and a line of delimiters"),
])  # fmt: skip
def test_tables_as_people_write_them(text, class_folders, load_dataset):
    dataset = load_dataset("OwnCSV", class_folders, *_csv(class_folders, text))
    assert dataset.classnames == ["blue_tit", "wren"]
    assert [_counts(split) for split in (dataset.train_x, dataset.val, dataset.test)] == [
        {0: 5, 1: 5}, {0: 2, 1: 2}, {0: 3, 1: 3}
    ]  # fmt: skip
    assert all(f"/{item.classname}/" in item.impath for item in dataset.train_x)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_tables_in_the_encodings_of_spreadsheets(encoding, class_folders, load_dataset):
    text = _lines(("path", "class"), *((path, "mésange" if name == "blue_tit" else name) for path, name in ROWS))
    (class_folders / "my birds" / "table.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    dataset = load_dataset("OwnCSV", class_folders, "DATASET.OWN.PATH", "my birds/table.csv")
    assert dataset.classnames == ["mésange", "wren"]


def test_absolute_paths_are_read(class_folders, load_dataset):
    folder = class_folders / "my birds"
    text = _lines(("path", "class"), *((f"{folder}/{path}", name) for path, name in ROWS))
    (class_folders / "elsewhere").mkdir()
    (class_folders / "elsewhere" / "t.csv").write_text(text)
    dataset = load_dataset("OwnCSV", class_folders, "DATASET.OWN.PATH", "elsewhere/t.csv")
    assert len(dataset.train_x) == 10
    rows = {split: [[f"{folder}/{c}/{n}.png", y, c] for y, c in enumerate(("wren", "blue_tit"))]
            for n, split in enumerate(("train", "test"))}  # fmt: skip
    (class_folders / "split.json").write_text(json.dumps(rows))
    assert load_dataset("OwnSplit", class_folders, "DATASET.OWN.PATH", "split.json").num_classes == 2


def test_numbers_need_a_table_of_names(class_folders, load_dataset):
    text = _lines(("path", "label"), *((path, str(int(name == "wren"))) for path, name in ROWS))
    options = _csv(class_folders, text)
    with refused("line 2", "classes.csv"):
        load_dataset("OwnCSV", class_folders, *options)
    (class_folders / "my birds" / "classes.csv").write_text("0,blue tit\n1,wren\n")
    assert load_dataset("OwnCSV", class_folders, *options).classnames == ["blue tit", "wren"]


@pytest.mark.parametrize(
    "name, path, other", [("OwnCSV", "split.json", "OwnSplit"), ("OwnSplit", "t.csv", "OwnCSV"),
                          ("OwnFolder", "t.csv", "OwnCSV"), ("OwnCSV", "my birds", "DATASET.OWN.PATH")]
)  # fmt: skip
def test_the_data_set_that_reads_a_file_is_named(name, path, other, class_folders, load_dataset):
    for file in ("split.json", "t.csv"):
        (class_folders / file).write_text("{}")
    with refused(path, other):
        load_dataset(name, class_folders, "DATASET.OWN.PATH", path)


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "testing", "validation"), ("TRAIN", "TEST", "Valid")]
)
def test_split_folders_have_their_usual_names(names, tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"{split}/{c}/{split}.jpg" for split in names for c in "ab"])
    dataset = load_dataset("OwnFolder", tmp_path)
    assert dataset.classnames == ["a", "b"] and len(dataset.val or []) == 2 * (len(names) - 2)
    assert _paths(dataset.test, tmp_path) == [f"{names[1]}/{c}/{names[1]}.jpg" for c in "ab"]


def test_a_test_folder_alone_can_be_tested(tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"test/{c}/{n}.jpg" for c in "ab" for n in range(2)])
    dataset = load_dataset("OwnFolder", tmp_path)
    assert dataset.test_only and len(dataset.test) == 4


@pytest.fixture
def write_run():
    def write(folder):
        """Write what a run leaves in its folder, of which some may be images that `fit` was given."""
        for name in ("config.yaml", "identity.json", "log.txt", "prompt_learner/checkpoint"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("content\n")
        (folder / "prompt_learner" / "model.pth.tar-1").write_bytes(b"content")

    return write


@pytest.mark.parametrize("place", ["", "output/birds/seed1", "wren/run", "run"])
@pytest.mark.parametrize("choice", ["top", "leaves"])
def test_runs_among_the_classes_are_not_read(place, choice, class_folders, write_images, write_run, load_dataset):
    folder = class_folders / "my birds"
    write_run(folder / place)
    if place:
        write_images(folder, [f"{place}/data/images/train/{n}.png" for n in range(4)])
    dataset = load_dataset("OwnFolder", folder, "DATASET.OWN.CLASSES", choice)
    assert dataset.classnames == ["blue_tit", "wren"]
    assert len(dataset.train_x) + len(dataset.val) + len(dataset.test) == 20


def test_a_test_folder_with_runs_next_to_it_is_alone(tmp_path, write_images, write_run, load_dataset):
    write_images(tmp_path, [f"test/{c}/{n}.jpg" for c in "ab" for n in range(2)])
    write_run(tmp_path / "output" / "run")
    assert load_dataset("OwnFolder", tmp_path).test_only


def test_nested_classes_are_the_innermost_folders(tmp_path, write_images, load_dataset):
    kinds = ("birds/wren", "birds/tit", "cars/red/audi", "cars/other", "birds/other")
    write_images(tmp_path, [f"{split}/{kind}/{split}.jpg" for split in ("train", "test") for kind in kinds])
    assert load_dataset("OwnFolder", tmp_path).classnames == ["birds", "cars"]
    dataset = load_dataset("OwnFolder", tmp_path, "DATASET.OWN.CLASSES", "leaves")
    assert dataset.classnames == ["audi", "birds other", "cars other", "tit", "wren"]
    assert _paths(dataset.test, tmp_path)[0] == "test/cars/red/audi/test.jpg"


@pytest.mark.parametrize("suffix", ["jp2", "tga", "ico", "JPEG"])
def test_every_extension_that_pillow_reads_is_an_image(suffix, tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"{c}/{n}.{suffix}" for c in "ab" for n in range(2)])
    assert len(load_dataset("OwnFolder", tmp_path).train_x) == 2


def test_heic_images_are_read_with_their_package(tmp_path, write_images, load_dataset):
    pytest.importorskip("pillow_heif", reason="needs the extra heic")
    assert ".heic" in image_suffixes()
    write_images(tmp_path, [f"{c}/{n}.heic" for c in "ab" for n in range(2)])
    dataset = load_dataset("OwnFolder", tmp_path)
    assert len(dataset.train_x) == 2
    assert read_image(dataset.train_x[0].impath).mode == "RGB"


def test_only_heic_images_name_the_package(tmp_path, write_images):
    write_images(tmp_path, ["a/1.jpg", "a/2.jpg", "b/1.jpg"])
    (tmp_path / "b/1.jpg").rename(tmp_path / "b/1.heic")
    code = (
        "import sys; sys.modules['pillow_heif'] = None; from dspt_atlas.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "check-data", "OwnFolder", "--root", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and "pillow-heif" in done.stdout + done.stderr


def test_classes_csv_gives_names_and_prompts(class_folders, load_dataset):
    (class_folders / "my birds" / "classes.csv").write_text(
        "folder;name;prompt\nwren;Wren (T. troglodytes);wren, a small bird\nblue_tit;Blue tit;\n"
    )
    dataset = load_dataset("OwnFolder", class_folders, "DATASET.OWN.PATH", "my birds")
    assert dataset.classnames == ["Blue tit", "Wren (T. troglodytes)"]
    assert prompt_names(dataset) == ["Blue tit", "wren, a small bird"]


def test_a_class_that_the_table_misspells_is_refused(class_folders, load_dataset):
    (class_folders / "my birds" / "classes.csv").write_text("folder,name\nwrn,Wren\nblue_tit,Tit\n")
    with refused("wrn", "wren"):
        load_dataset("OwnFolder", class_folders, "DATASET.OWN.PATH", "my birds")


@pytest.mark.parametrize(
    "names, line",
    [
        (("n01440764", "n01443537"), "n01440764,tench"),
        (("001.Black_footed_Albatross", "002.Wren"), "Albatross"),
        (("8", "9", "10"), "`10,"),
        (("1.5", "2020-01", "#7"), "`#7,"),
    ],
)
def test_ids_as_names_are_asked_about(names, line, tmp_path, write_images, load_dataset, capsys):
    write_images(tmp_path, [f"{c}/{n}.png" for c in names for n in range(4)])
    load_dataset("OwnFolder", tmp_path)
    assert line in capsys.readouterr().out
    (tmp_path / "classes.csv").write_text("".join(f"{name},{word}\n" for name, word in zip(names, "abc", strict=False)))
    assert sorted(load_dataset("OwnFolder", tmp_path).classnames) == list("abc"[: len(names)])
    assert "classes.csv" not in capsys.readouterr().out


def test_source_and_target_domains(tmp_path, write_images, load_dataset):
    domains = ("photo", "sketch", "cartoon")
    write_images(tmp_path, [f"{d}/{c}/{n}.png" for d in domains for c in "ab" for n in range(5)])
    options = ("DATASET.SOURCE_DOMAINS", ["photo", "cartoon"], "DATASET.TARGET_DOMAINS", ["sketch"])
    dataset = load_dataset("OwnFolder", tmp_path, *options)
    assert [len(split) for split in (dataset.train_x, dataset.val, dataset.test)] == [16, 4, 10]
    assert {item.impath.split("/")[-3] for item in dataset.test} == {"sketch"}
    assert {item.domain for item in dataset.train_x} == {0, 1}
    for wrong in (["photo"], ["clipart"], []):
        with refused("photo", "sketch"):
            load_dataset("OwnFolder", tmp_path, *options[:3], wrong)


def test_broken_and_missing_images_are_left_out_on_request(tmp_path, write_images, load_dataset, private_cache):
    folder = tmp_path / "data"
    write_images(folder, [f"{split}/{c}/{n}.jpg" for split in ("train", "test") for c in "ab" for n in range(3)])
    (folder / "train/a/1.jpg").write_bytes((folder / "train/a/1.jpg").read_bytes()[:50])
    (folder / "test/b/2.jpg").write_bytes(b"")
    for _ in range(2):  # found, then remembered
        dataset = load_dataset("OwnFolder", folder, "DATASET.SKIP_BROKEN", True)
        assert sorted(dataset.skipped) == [f"{folder}/test/b/2.jpg", f"{folder}/train/a/1.jpg"]
        assert (len(dataset.train_x), len(dataset.test)) == (5, 5)


def test_a_table_without_splits_is_split(class_folders, load_dataset):
    rows = "".join(f"{c}/{n}.png,{c}\n" for c in ("wren", "blue_tit") for n in range(10))
    dataset = load_dataset("OwnCSV", class_folders, *_csv(class_folders, "path,classname\n" + rows))
    assert [len(split) for split in (dataset.train_x, dataset.val, dataset.test)] == [10, 4, 6]


@pytest.mark.parametrize(
    "text, facts",
    [
        ("picture,classname\nx,y\n", ("picture", "path", "classname")),
        ("path,split\nx,train\n", ("path", "split", "label")),
        ("path,classname,split\n", ("path", "classname")),
        ("path,classname,split\nwren/1.png,wren,holdout\n", ("line 2", "train, val or test")),
        ("path,label,split\nwren/1.png,0,train\n", ("line 2",)),
        ("path,classname,split\nwren/1.png,wren,train\nwren/2.png,,test\n", ("line 3",)),
        ("path,classname,split\n../secret.png,wren,train\n", ("../secret.png",)),
        ("path,classname,split\nwren/1.png,wren,train\nwren/1.png,wren,test\n", ("wren/1.png",)),
        ("path,classname,split\nwren/1.png,wren,train\nblue_tit/1.png,tit,test\n", ('"tit"', "label 0", "test")),
        (
            "path,classname,split\nblue_tit/1.png,tit,train\nwren/1.png,wren,val\nblue_tit/2.png,tit,test\n",
            ('"wren"', "label 1", "val"),
        ),
        ("", ()),
    ],
)
def test_malformed_tables_are_refused(text, facts, class_folders, load_dataset):
    with refused(*facts or ["table.csv"]):
        load_dataset("OwnCSV", class_folders, *_csv(class_folders, text))


BIRDS = ("finch", "owl", "robin", "wren")


@pytest.mark.parametrize(
    "pairs, base, new",
    [
        ((), ["finch", "owl"], ["robin", "wren"]),
        (("DATASET.BASE_CLASSES", ["wren", "finch", "owl"]), ["finch", "owl", "wren"], ["robin"]),
        (
            ("DATASET.BASE_CLASSES", ["wren", "robin"], "DATASET.NEW_CLASSES", ["finch", "owl"]),
            ["robin", "wren"],
            ["finch", "owl"],
        ),
    ],
)
def test_base_and_new_classes_can_be_listed(pairs, base, new, tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"{split}/{c}/{split}.png" for c in BIRDS for split in ("train", "test")])
    found = {}
    for choice in ("base", "new"):
        try:
            dataset = load_dataset("OwnFolder", tmp_path, "DATASET.SUBSAMPLE_CLASSES", choice, *pairs)
        except UserError:
            assert choice == "new" and len(new) == 1  # nothing can be learned or measured with one class
            return
        found[choice] = dataset.classnames
        assert (
            [item.label for item in dataset.train_x] == [item.label for item in dataset.test] == [0, 1, 2][: len(base)]
        )
    assert found == {"base": base, "new": new}


@pytest.mark.parametrize(
    "pairs, named",
    [
        (("DATASET.BASE_CLASSES", ["wren", "eagle"]), ("eagle", "robin")),
        (("DATASET.BASE_CLASSES", ["wren", "owl"], "DATASET.NEW_CLASSES", ["owl", "robin"]), ("owl",)),
        (("DATASET.BASE_CLASSES", list(BIRDS)), ("BASE_CLASSES",)),
    ],
)
def test_lists_of_classes_that_do_not_fit_are_refused(pairs, named, tmp_path, write_images, load_dataset):
    write_images(tmp_path, [f"{split}/{c}/{split}.png" for c in BIRDS for split in ("train", "test")])
    with refused(*named):
        load_dataset("OwnFolder", tmp_path, "DATASET.SUBSAMPLE_CLASSES", "base", *pairs)


def test_own_data_may_have_the_prompts_of_another_data_set(load_dataset, tmp_path, write_images):
    write_images(tmp_path, [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in "12"])
    dataset = load_dataset("OwnFolder", tmp_path, "DATASET.OWN.PROMPTS_OF", "OxfordPets")
    assert dataset.templates == ("a photo of a {}, a type of pet.",)
    with refused("PROMPTS_OF", "OxfordPets"):
        load_dataset("OwnFolder", tmp_path, "DATASET.OWN.PROMPTS_OF", "OxfordPet")
