"""`dspt-atlas labels apply`: the corrected table is read by OwnCSV, has what was decided, and replaces nothing."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from dspt_atlas.cli import main
from dspt_atlas.report.page.decisions import COLUMNS
from dspt_atlas.results.cells import write_csv
from dspt_atlas.tools.labels.apply import CONFIG, Decision, correct
from dspt_atlas.tools.labels.lists import all_lists


@pytest.fixture
def birds(tmp_path, write_images):
    """A data root with the folder `birds`: four classes, one with a name for spreadsheets, in train, val and test."""
    names = ("great tit", "wren", "owl", "=1+1")
    counts = {"train": 3, "val": 1, "test": 2}
    write_images(tmp_path / "data" / "birds", [f"{split}/{name}/{number}.png" for split, count in counts.items()
                                               for name in names for number in range(count)])  # fmt: skip
    rows = "".join(f'{name},{name},"{name}, a bird"\n' for name in names)
    (tmp_path / "data" / "birds" / "classes.csv").write_text("folder,name,prompt\n" + rows)
    (tmp_path / "birds.yaml").write_text(
        "DATASET: {NAME: OwnFolder, OWN: {PATH: birds}}\nMODEL: {BACKBONE: {NAME: EmojiRN}}\n"
    )
    return tmp_path / "data" / "birds"


@pytest.fixture
def apply(birds, tmp_path, capsys):
    """Return a function (rows, option=value) -> exit status, standard error; rows: image below the data, decision..."""

    def call(rows, header=COLUMNS, **options):
        paths = [[split, str(birds / path), *rest] for split, path, *rest in rows]
        write_csv(tmp_path / "decisions.csv", header, paths)
        given = {"dataset": tmp_path / "birds.yaml", "root": birds.parent, "output": tmp_path / "out", **options}
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        capsys.readouterr()
        status = main(["labels", "apply", str(tmp_path / "decisions.csv"), *words])
        return status, capsys.readouterr().err

    return call


DECIDED = [
    ("train", "train/wren/0.png", "wren", "suggested", "owl"),
    ("train", "train/wren/1.png", "wren", "right", ""),
    ("test", "test/=1+1/0.png", "=1+1", "other", "great tit"),
    ("test", "test/great tit/1.png", "great tit", "other", "=1+1"),
    ("val", "val/owl/0.png", "owl", "remove", ""),
]


def listed(dataset):
    """Return {(split, path): class name}."""
    lists = {"train": dataset.train_x, "val": dataset.val or [], "test": dataset.test}
    return {(split, item.impath): item.classname for split, items in lists.items() for item in items}


def test_own_csv_reads_what_was_decided_and_everything_else_as_before(apply, birds, load_dataset, tmp_path):
    files = {path: path.read_bytes() for path in birds.rglob("*.*")}
    before = load_dataset("OwnFolder", birds.parent, "DATASET.OWN.PATH", "birds")
    assert apply(DECIDED) == (0, "")
    table = tmp_path / "out" / "birds.csv"
    assert sorted(path.name for path in table.parent.iterdir()) == ["birds.csv", "classes.csv"]
    after = load_dataset("OwnCSV", birds.parent, "DATASET.OWN.PATH", str(table))
    expected = listed(before)
    for split, path, _, decision, new in DECIDED:
        if decision == "remove":
            del expected[split, str(birds / path)]
        elif new:
            expected[split, str(birds / path)] = new
    assert listed(after) == expected and len(expected) == 23
    assert after.classnames == before.classnames and after.prompt_words == before.prompt_words
    assert {path: path.read_bytes() for path in birds.rglob("*.*")} == files


def test_nothing_decided_keeps_all_lists(apply, birds, load_dataset, tmp_path):
    assert apply([("train", "train/wren/0.png", "wren", "", "")])[0] == 0
    before = load_dataset("OwnFolder", birds.parent, "DATASET.OWN.PATH", "birds")
    after = load_dataset("OwnCSV", birds.parent, "DATASET.OWN.PATH", str(tmp_path / "out" / "birds.csv"))
    assert listed(after) == listed(before)


@pytest.mark.parametrize(
    "rows, facts",
    [
        ([("train", "train/wren/9.png", "wren", "right", "")], ["line 2", "wren/9.png"]),
        ([("train", "train/wren/0.png", "wren", "perhaps", "")], ["line 2", "perhaps", "remove"]),
        ([("train", "train/wren/0.png", "wren", "other", "kiwi")], ["line 2", "kiwi", "great tit"]),
        ([("train", "train/wren/0.png", "wren", "suggested", "")], ["line 2", "new_label"]),
        ([("train", "train/wren/0.png", "owl", "right", "")], ["line 2", '"owl"', '"wren"']),
        (
            [("train", "train/wren/0.png", "wren", "remove", ""), ("train", "train/wren/0.png", "wren", "right", "")],
            ["lines 2 and 3", "wren/0.png"],
        ),
        ([("train", f"train/wren/{n}.png", "wren", "remove", "") for n in range(3)], ['"wren"', "3"]),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(rows, facts, apply, tmp_path):
    status, error = apply(rows)
    assert status == 2 and error.count("\n") == 1 and not (tmp_path / "out").exists()
    assert all(fact in error for fact in facts), error


def test_two_classes_of_one_name_are_not_made_one(tmp_path, write_images, capsys):
    names = {"n01": "kite", "n02": "missile", "n03": "missile"}  # as in ImageNet's published list
    folder = tmp_path / "imagenet"
    write_images(folder / "images", [f"{split}/{wnid}/0.png" for split in ("train", "val") for wnid in names])
    (folder / "classnames.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in names.items()))
    (tmp_path / "decisions.csv").write_text("path,decision\n,\n")
    words = ["--dataset", "imagenet", "--root", tmp_path, "--output", tmp_path / "out"]
    assert main(["labels", "apply", *map(str, [tmp_path / "decisions.csv", *words])]) == 2
    assert '"missile"' in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_class_may_go_as_a_whole(apply, birds, load_dataset, tmp_path):
    gone = [(path.parts[-3], str(path.relative_to(birds)), "owl", "remove", "") for path in birds.glob("*/owl/*.png")]
    assert len(gone) == 6 and apply(gone)[0] == 0
    after = load_dataset("OwnCSV", birds.parent, "DATASET.OWN.PATH", str(tmp_path / "out" / "birds.csv"))
    assert after.classnames == ["=1+1", "great tit", "wren"]


@pytest.mark.parametrize("gone", [(), ('owl; "barn"',)])
def test_classes_keep_their_order(gone, tmp_path, write_images, load_dataset):
    names = ("wren, brown", 'owl; "barn"', "kiwi")
    left = [name for name in names if name not in gone]
    paths = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in names for n in range(2)]
    write_images(tmp_path / "birds", paths)
    rows = [(path, names.index(path.split("/")[1]), path.split("/")[1], path.split("/")[0]) for path in paths]
    write_csv(tmp_path / "birds" / "mine.csv", ("path", "label", "classname", "split"), rows)
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("DATASET: {NAME: OwnCSV, OWN: {PATH: mine.csv}}\n")
    decided = [(path, "remove" if path.split("/")[1] in gone else "right") for path in paths]
    write_csv(tmp_path / "decisions.csv", ("path", "decision"), decided)
    words = ["--dataset", yaml, "--root", tmp_path / "birds", "--output", tmp_path / "out"]
    assert main(["labels", "apply", *map(str, [tmp_path / "decisions.csv", *words])]) == 0
    after = load_dataset("OwnCSV", tmp_path / "birds", "DATASET.OWN.PATH", str(tmp_path / "out" / "mine.csv"))
    assert after.classnames == left


def test_paths_are_relative_to_the_images_or_absolute(apply, birds, load_dataset, tmp_path, monkeypatch):
    decided = ["train/wren/0.png", "./train/wren/1.png", f"{birds}/train/../train/owl/0.png", r"test\wren\0.png"]
    write_csv(tmp_path / "mine.csv", ("path", "decision"), [(path, "remove") for path in decided])
    words = ["--dataset", tmp_path / "birds.yaml", "--root", birds.parent, "--output", tmp_path / "out"]
    monkeypatch.chdir(tmp_path)
    assert main(["labels", "apply", *map(str, [tmp_path / "mine.csv", *words])]) == 0
    after = load_dataset("OwnCSV", birds.parent, "DATASET.OWN.PATH", str(tmp_path / "out" / "birds.csv"))
    before = load_dataset("OwnFolder", birds.parent, "DATASET.OWN.PATH", "birds")
    gone = {("train", "train/wren/0.png"), ("train", "train/wren/1.png"), ("train", "train/owl/0.png")}
    gone.add(("test", "test/wren/0.png"))
    assert listed(before).keys() - listed(after).keys() == {(split, str(birds / path)) for split, path in gone}


def test_one_image_by_two_paths_is_one_image(birds, tmp_path, capsys):
    rows = [("train/wren/0.png", "remove"), (str(birds / "train/wren/0.png"), "right")]
    write_csv(tmp_path / "mine.csv", ("path", "decision"), rows)
    words = ["--dataset", tmp_path / "birds.yaml", "--root", birds.parent, "--output", tmp_path / "out"]
    assert main(["labels", "apply", *map(str, [tmp_path / "mine.csv", *words])]) == 2
    assert "lines 2 and 3" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["birds.csv", "classes.csv", CONFIG])
def test_no_file_is_replaced(name, apply, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    status, error = apply(DECIDED)
    assert status == 2 and name in error
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_table_that_a_spreadsheet_wrote_is_read(birds, apply, load_dataset, tmp_path, monkeypatch):
    text = "Path;Decision;New label\r\n" + f"{birds}/train/wren/0.png;Remove;\r\n"
    (tmp_path / "mine.csv").write_bytes(text.encode("utf-16"))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    words = ["--dataset", tmp_path / "birds.yaml", "--root", birds.parent, "--output", tmp_path / "out"]
    assert main(["labels", "apply", *map(str, [tmp_path / "mine.csv", *words])]) == 0
    assert len(list(csv.reader((tmp_path / "out" / "birds.csv").open()))) == 24
    (tmp_path / "mine.csv").write_text("path,verdict\na,b\n")
    assert main(["labels", "apply", *map(str, [tmp_path / "mine.csv", *words])]) == 2


def test_a_run_or_a_data_set_is_needed(tmp_path, capsys):
    (tmp_path / "decisions.csv").write_text("path,decision\na.png,right\n")
    assert main(["labels", "apply", str(tmp_path / "decisions.csv")]) == 2
    assert "--dataset" in capsys.readouterr().err


def test_the_lists_of_others_data_sets_are_items_too(tiny_registered, tiny_dataset, load_dataset):
    dataset = load_dataset(tiny_registered, tiny_dataset)
    splits = all_lists(dataset, None)
    path = splits.val[0].impath
    corrected = correct(splits, {path: Decision(2, "other", dataset.classnames[1], "")})
    assert [len(items) for items in corrected] == [24, 8, 16]
    assert [item.classname for item in corrected.val[:2]] == [dataset.classnames[1], dataset.classnames[0]]


def test_a_run_on_base_classes_is_trained_again_on_these(tiny_base_run, tmp_path):
    (tmp_path / "decisions.csv").write_text("path,decision\n,\n")
    out = tmp_path / "out"
    assert main(["labels", "apply", str(tmp_path / "decisions.csv"), str(tiny_base_run), "--output", str(out)]) == 0
    again = ["train", "--config-file", str(out / CONFIG), "--output-dir", str(tmp_path / "run")]
    assert main(again) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["num_classes"] == 2 and result["trainer"] == "CoOpATLaS" and result["num_train"] == 12


def test_the_configuration_of_corrected_labels_can_be_used_from_another_folder(
    tiny_base_run, tiny_dataset, tmp_path, monkeypatch
):
    (tmp_path / "decisions.csv").write_text("path,decision\n,\n")
    monkeypatch.chdir(tiny_dataset.parent)
    words = [str(tmp_path / "decisions.csv"), str(tiny_base_run), "--root", ".", "--output", str(tmp_path / "out")]
    assert main(["labels", "apply", *words]) == 0
    config = yaml.safe_load((tmp_path / "out" / CONFIG).read_text())
    assert Path(config["DATASET.ROOT"]) == tiny_dataset.parent.resolve()


@pytest.fixture(scope="module")
def csc_run(train_tiny, tiny_dataset, tmp_path_factory):
    """Output folder of a run with a context per class, whose classes are numbered against the alphabet."""
    images = sorted(path.relative_to(tiny_dataset) for path in tiny_dataset.glob("*/*/*.*"))
    names = sorted({path.parts[1] for path in images}, reverse=True)
    rows = [(tiny_dataset / path, names.index(path.parts[1]), path.parts[1], path.parts[0]) for path in images]
    table = tmp_path_factory.mktemp("table") / "against.csv"
    write_csv(table, ("path", "label", "classname", "split"), rows)
    own = ["DATASET.NAME", "OwnCSV", "DATASET.OWN.PATH", table, "TRAINER.COOP.CSC", True, "OPTIM.MAX_EPOCH", 1]
    return train_tiny("CoOp", *own)


def test_a_context_per_class_is_tested_on_the_corrected_data_and_counts_the_same(csc_run, tmp_path, capsys):
    (tmp_path / "decisions.csv").write_text("path,decision\n,\n")
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["labels", "apply", str(tmp_path / "decisions.csv"), str(csc_run), "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    (test,) = re.findall(r"^ +dspt-atlas (train .*--eval-only.*)$", printed, re.MULTILINE)
    assert main(shlex.split(test)) == 0
    before, after = (json.loads((folder / "result.json").read_text()) for folder in (csc_run, out / "before"))
    kept = ("accuracy", "per_class_accuracy")
    assert {key: before.get(key) for key in kept} == {key: after.get(key) for key in kept}
    assert list(before["per_class_accuracy"]) == sorted(before["per_class_accuracy"], reverse=True)


def test_a_context_per_class_is_refused_with_the_first_class_of_another_order(csc_run, tiny_dataset, tmp_path, capsys):
    names = json.loads((csc_run / "classes.json").read_text())["classnames"]
    own = ["DATASET.NAME", "OwnFolder", "DATASET.OWN.PATH", str(tiny_dataset)]
    words = ["--config-file", csc_run / "config.yaml", "--eval-only", "--model-dir", csc_run]
    assert main(["train", *map(str, words), *own, "--output-dir", str(tmp_path / "test")]) == 2
    error = capsys.readouterr().err
    assert f'"{names[0]}"' in error and f'"{names[-1]}"' in error and "classes.json" in error
    assert not (tmp_path / "test" / "result.json").exists()


# Their prompts are made from the data set's own template.
@pytest.mark.parametrize("learner, pairs", [("ProGrad", ()), ("TCP", ("TRAINER.TCP.BLOCK", 1))])
def test_the_corrected_data_keep_the_hand_written_prompts(learner, pairs, train_tiny, tiny_dataset, tmp_path, capsys):
    splits = {"train": [], "val": [], "test": []}
    names = sorted(path.name for path in (tiny_dataset / "train").iterdir())
    for path in sorted(tiny_dataset.glob("*/*/*.*")):
        place = "/".join(path.parts[-3:])
        splits[path.parts[-3]].append([place, names.index(path.parts[-2]), path.parts[-2]])
    shutil.copytree(tiny_dataset, tmp_path / "oxford_pets" / "images")
    (tmp_path / "oxford_pets" / "split_zhou_OxfordPets.json").write_text(json.dumps(splits))
    run = train_tiny(learner, "DATASET.NAME", "OxfordPets", "DATASET.ROOT", tmp_path, "OPTIM.MAX_EPOCH", 1, *pairs)
    (tmp_path / "decisions.csv").write_text("path,decision\n,\n")
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["labels", "apply", str(tmp_path / "decisions.csv"), str(run), "--output", str(out)]) == 0
    (again, test) = re.findall(r"^ +dspt-atlas (train .*)$", capsys.readouterr().out, re.MULTILINE)
    for command in (test, again):
        assert main(shlex.split(command)) == 0
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, out / "before", out / "after")]
    assert results[0]["accuracy"] == results[1]["accuracy"] == results[2]["accuracy"]
    losses = [result["history"][-1]["train_loss"] for result in (results[0], results[2])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert json.loads((run / "classes.json").read_text()) == json.loads((out / "after" / "classes.json").read_text())


def test_after_it_a_run_is_trained_tested_and_compared(train_tiny, tmp_path, capsys):
    run = train_tiny("CoOp", "DATASET.NUM_SHOTS", 4, "OPTIM.MAX_EPOCH", 1)
    assert main(["labels", str(run), "--worst", "5", "--output", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "label_errors.csv").open()))
    chosen = [row for row in rows if row["split"] == "test"][:2]
    other = next(row["given_label"] for row in rows if row["given_label"] != chosen[0]["given_label"])
    cells = [["test", chosen[0]["path"], chosen[0]["given_label"], "other", other]]
    cells.append(["test", chosen[1]["path"], chosen[1]["given_label"], "remove", ""])
    write_csv(tmp_path / "decisions.csv", COLUMNS, cells)
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["labels", "apply", str(tmp_path / "decisions.csv"), str(run), "--output", str(out)]) == 0
    commands = re.findall(r"^ +dspt-atlas (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    results = {name: json.loads((out / name / "result.json").read_text()) for name in ("before", "after")}
    assert len(re.findall(r"^\| CoOp", printed, re.MULTILINE)) == 2 and printed.count("by shots") == 1
    for result in results.values():
        assert result["dataset"] == "tiny" and result["shots"] == 4 and f"{result['accuracy']:.1f}" in printed
    assert len(rows) == 48 and results["after"]["num_train"] == 16
