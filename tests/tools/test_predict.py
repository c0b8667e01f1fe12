"""Own images classified by a run, as a user calls the script."""

import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dspt_atlas.errors import UserError
from dspt_atlas.run.model import load
from dspt_atlas.run.trained import open_run
from dspt_atlas.tools.predict import main
from dspt_atlas.trainers.kept_classes import CLASSES_FILE, KeptClasses
from support.paths import ROOT
from support.refusals import assert_names


def test_json_has_the_probabilities_of_the_runs_model(tiny_noisy_run, tiny_dataset):
    images = sorted((tiny_dataset / "test").rglob("*.png"))[:3]
    command = [sys.executable, "-m", "dspt_atlas", "predict", "--run", tiny_noisy_run, "--json", "--top", "9", *images]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert [entry["image"] for entry in found] == [str(image) for image in images]
    trainer = open_run(tiny_noisy_run)
    loader = trainer.items_loader([item for item in trainer.dm.dataset.test if item.impath == str(images[0])])
    with trainer.inferring(loader) as batches:
        (logits, _), *rest = batches
    expected = dict(zip(trainer.dm.dataset.classnames, logits.softmax(dim=1)[0].tolist(), strict=True))
    shown = {guess["class"]: guess["probability"] for guess in found[0]["classes"]}
    assert not rest and shown == pytest.approx(expected, abs=1e-5)
    assert list(shown.values()) == sorted(shown.values(), reverse=True) and sum(shown.values()) == pytest.approx(1)


def test_text_has_the_best_classes_of_an_epoch(tiny_noisy_run, tiny_dataset, capsys):
    image = next((tiny_dataset / "test").rglob("*.png"))
    assert main(["--run", str(tiny_noisy_run), "--epoch", "1", "--top", "2", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(image) and len(lines) == 3 and lines[1].strip()[0].isdigit()
    (best,) = load(tiny_noisy_run, epoch=1).predict(image)
    assert lines[1].endswith(best)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: None, "is not a file"),
        (lambda path: path.write_text("no image"), "1 of 1 images cannot be read"),
    ],
)
def test_a_missing_or_unreadable_image_is_named(make, words, tiny_noisy_run, tmp_path, capsys):
    make(tmp_path / "own.png")
    assert main(["--run", str(tiny_noisy_run), str(tmp_path / "own.png")]) == 2
    error = capsys.readouterr().err
    assert words in error and "own.png" in error and error.count("\n") == 1


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert main(["--run", str(tmp_path), str(ROOT / "docs" / "images" / "accuracy_by_epoch.png")]) == 2
    assert_names(capsys.readouterr().err, "config.yaml", tmp_path)


def _answers(capsys, run, images):
    capsys.readouterr()
    status = main(["--run", str(run), "--json", "--top", "9", *map(str, images)])
    out, error = capsys.readouterr()
    return status, json.loads(out) if status == 0 else None, error


@pytest.fixture(scope="module")
def moving_run(train_tiny, tiny_dataset, tmp_path_factory):
    """Return the root of a copy of the data set, images aside from it, and runs that were trained on the copy."""
    root = tmp_path_factory.mktemp("moving")
    shutil.copytree(tiny_dataset, root / tiny_dataset.name)
    images = [
        Path(shutil.copy(path, root / f"{number}.png"))
        for number, path in enumerate(sorted((tiny_dataset / "test").rglob("*.png")))
    ]
    pairs = ["DATASET.ROOT", root]
    return root / tiny_dataset.name, images, {name: train_tiny(name, *pairs) for name in ("CoOp", "ZeroshotCLIP")}


@pytest.mark.parametrize("trainer", ["CoOp", "ZeroshotCLIP"])
def test_answers_do_not_depend_on_what_became_of_the_data_set(trainer, moving_run, capsys):
    data, images, runs = moving_run
    status, before, error = _answers(capsys, runs[trainer], images)
    assert status == 0 and error == "" and {len(entry["classes"]) for entry in before} == {4}
    renamed = data / "train" / "a name that sorts first"
    for split in ("train", "val", "test"):
        (data / split / "yellow duck").rename(data / split / renamed.name)
    try:
        assert _answers(capsys, runs[trainer], images)[:2] == (0, before)
        shutil.move(data, data.with_name("elsewhere"))
        assert _answers(capsys, runs[trainer], images)[:2] == (0, before)
    finally:
        shutil.move(data.with_name("elsewhere"), data)
        for split in ("train", "val", "test"):
            (data / split / renamed.name).rename(data / split / "yellow duck")


def test_a_run_keeps_names_templates_and_input(tiny_noisy_run, tiny_dataset):
    kept = KeptClasses.read(tiny_noisy_run)
    assert kept.classnames == open_run(tiny_noisy_run).dm.dataset.classnames
    assert kept.templates == ["a photo of a {}."]
    assert kept.input["SIZE"] == [32, 32] and kept.input["INTERPOLATION"] == "bilinear"
    assert len(kept.input["PIXEL_MEAN"]) == len(kept.input["PIXEL_STD"]) == 3


@pytest.fixture
def old_run(tiny_noisy_run, tmp_path):
    """Return a copy of a run from before classes.json."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_noisy_run, folder)
    (folder / CLASSES_FILE).unlink()
    return folder


def test_an_older_run_has_the_names_of_its_result_and_says_so(old_run, tiny_noisy_run, tiny_dataset, capsys):
    images = sorted((tiny_dataset / "test").rglob("*.png"))[:3]
    expected = _answers(capsys, tiny_noisy_run, images)[1]
    status, found, note = _answers(capsys, old_run, images)
    assert (status, found) == (0, expected)
    assert note.count("\n") == 1 and CLASSES_FILE in note and str(old_run) in note


@pytest.mark.parametrize("damage", ["no result", "a class missing", "names told apart by their label", "damaged file"])
def test_a_run_whose_class_names_are_not_known_is_refused(damage, old_run, tiny_dataset, capsys):
    path = old_run / "result.json"
    result = json.loads(path.read_text())
    shares = list(result["per_class_accuracy"].items())
    if damage == "no result":
        path.unlink()
    elif damage == "damaged file":
        (old_run / CLASSES_FILE).write_text('{"classnames": ["a", 3], "templates": [], "input": {}}')
    else:
        shares = shares[1:] if damage == "a class missing" else [("same (0)", 1.0), *shares[1:]]
        path.write_text(json.dumps({**result, "per_class_accuracy": dict(shares)}))
    image = next((tiny_dataset / "test").rglob("*.png"))
    status, _, error = _answers(capsys, old_run, [image])
    assert status == 2 and error.count("\n") == 1 and CLASSES_FILE in error


def test_a_resumed_run_keeps_its_classes(tmp_path):
    kept = KeptClasses(["cat", "dog"], [], {"SIZE": [2, 2], "INTERPOLATION": "b", "PIXEL_MEAN": [], "PIXEL_STD": []})
    kept.save(tmp_path)
    kept.save(tmp_path, is_resumed=True)
    more = KeptClasses(["cat", "cow", "dog"], [], kept.input)
    with pytest.raises(UserError, match="cow"):
        more.save(tmp_path, is_resumed=True)
    assert KeptClasses.read(tmp_path) == kept
    more.save(tmp_path)
    assert KeptClasses.read(tmp_path) == more


def test_a_root_has_no_effect_and_that_is_said(tiny_noisy_run, tiny_dataset, capsys):
    image = next((tiny_dataset / "test").rglob("*.png"))
    assert main(["--run", str(tiny_noisy_run), "--root", "nowhere", str(image)]) == 0
    assert "--root" in capsys.readouterr().err


def test_a_replaced_backbone_is_refused(tiny_noisy_run, tiny_dataset, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(tiny_noisy_run, folder)
    config = folder / "config.yaml"
    settings = yaml.safe_load(config.read_text())
    weights = torch.load(settings["MODEL"]["BACKBONE"]["NAME"], weights_only=True)
    weights["logit_scale"] = weights["logit_scale"] + 1
    torch.save(weights, tmp_path / "other.pt")
    settings["MODEL"]["BACKBONE"]["NAME"] = str(tmp_path / "other.pt")
    config.write_text(yaml.safe_dump(settings))
    status, _, error = _answers(capsys, folder, [next((tiny_dataset / "test").rglob("*.png"))])
    assert status == 2 and str(folder) in error and error.count("\n") == 1


def test_csv_and_json_lines_of_folders_and_globs_hold_what_the_model_says(tiny_noisy_run, tiny_dataset, capsys):
    folder, pattern = tiny_dataset / "test" / "blue", str(tiny_dataset / "test" / "red*" / "**" / "*.png")
    images = [*sorted(folder.iterdir()), *sorted((tiny_dataset / "test" / "red circle").iterdir())]
    model = load(tiny_noisy_run)
    probs, order = model.probabilities(images).sort(dim=1, descending=True, stable=True)
    options = ["--top-k", "2", "--batch-size", "3"]
    assert main([str(tiny_noisy_run), *options, str(folder), "--format", "csv", pattern]) == 0
    out, error = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert error == "" and [row["image"] for row in rows[::2]] == list(map(str, images))
    assert [row["rank"] for row in rows] == ["1", "2"] * len(images)
    assert [row["class"] for row in rows] == [model.classnames[c] for c in order[:, :2].flatten()]
    assert [float(row["probability"]) for row in rows] == pytest.approx(probs[:, :2].flatten().tolist(), abs=1e-6)
    assert main([str(tiny_noisy_run), *options, str(folder), "--format", "jsonl", pattern]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["image"] for entry in entries] == list(map(str, images))
    assert [guess["class"] for entry in entries for guess in entry["classes"]] == [row["class"] for row in rows]


def test_a_corrupt_image_is_left_out_and_named_with_a_count(tiny_noisy_run, tiny_dataset, tmp_path, capsys):
    for number, path in enumerate(sorted((tiny_dataset / "test").rglob("*.png"))[:3]):
        shutil.copy(path, tmp_path / f"{number}.png")
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    assert main([str(tiny_noisy_run), str(tmp_path), "--format", "jsonl", "--batch-size", "1"]) == 0
    out, error = capsys.readouterr()
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(tmp_path / f"{n}.png") for n in (1, 2)]
    assert str(tmp_path / "0.png") in error and "1 of 3" in error


def test_other_classes_come_from_a_file(tiny_noisy_run, tiny_dataset, tmp_path, capsys):
    image = next((tiny_dataset / "test").rglob("*.png"))
    names = tmp_path / "names.txt"
    names.write_text("owl\n\npaper clip\n", encoding="utf-8-sig")
    assert main([str(tiny_noisy_run), str(image), "--classnames", str(names), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert {guess["class"] for guess in entry["classes"]} == {"owl", "paper clip"}
    assert main([str(tiny_noisy_run), str(image), "--classnames", str(image)]) == 2
    assert str(image) in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["nowhere/*.png"], ["{tmp_path}"], ["{image}", "--top-k", "0"]])
def test_words_without_an_image_are_refused(words, tiny_noisy_run, tiny_dataset, tmp_path, capsys):
    image = next((tiny_dataset / "test").rglob("*.png"))
    words = [word.format(tmp_path=tmp_path, image=image) for word in words]
    assert main([str(tiny_noisy_run), *words]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
