"""`dspt-atlas inspect`: predictions, classes, confusion matrix and sheets agree with the run's own evaluation."""

import csv
import json

import numpy as np
import pytest
import torch
from clip.simple_tokenizer import SimpleTokenizer
from PIL import Image

import dspt_atlas as da
from dspt_atlas.report.contact_sheet import draw_sheet
from dspt_atlas.run.trained import open_run
from dspt_atlas.tools.inspect_run import Judged, main


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def looked(tiny_noisy_run, tmp_path_factory):
    """Folder of the command's files on all three splits."""
    out = tmp_path_factory.mktemp("looked")
    assert main([str(tiny_noisy_run), "--split", "train", "val", "test", "--top-k", "3", "--output", str(out)]) == 0
    return out


def test_predictions_and_classes_are_those_of_the_runs_own_test(looked, tiny_noisy_run):
    result = json.loads((tiny_noisy_run / "result.json").read_text())
    rows, classes = rows_of(looked / "test.csv"), rows_of(looked / "test_classes.csv")
    assert sum(row["is_right"] == "1" for row in rows) == result["correct"] and len(rows) == result["total"]
    assert {row["class"]: float(row["accuracy"]) for row in classes} == pytest.approx(result["per_class_accuracy"])
    model = da.load(tiny_noisy_run)
    expected = model.probabilities([row["path"] for row in rows]).topk(3)
    for row, probs, labels in zip(rows, *map(torch.Tensor.tolist, expected), strict=True):
        assert [float(row[f"prob_{rank}"]) for rank in (1, 2, 3)] == pytest.approx(probs, abs=1e-6)
        assert row["prediction"] == row["class_1"] == model.classnames[labels[0]]
        assert (row["is_right"] == "1") == (row["label"] == row["prediction"])
    given = [sample["given"] for sample in json.loads((tiny_noisy_run / "noise.json").read_text())["samples"]]
    assert [model.classnames.index(row["label"]) for row in rows_of(looked / "train.csv")] == given
    assert len(rows_of(looked / "val.csv")) == 8


def test_the_confusion_matrix_counts_each_image_once_and_its_picture_is_drawn(looked):
    counts = rows_of(looked / "test_confusion.csv")
    pairs = [(row["label"], row["prediction"]) for row in rows_of(looked / "test.csv")]
    for row in counts:
        label = row.pop("label, then prediction")
        assert {name: int(count) for name, count in row.items()} == {name: pairs.count((label, name)) for name in row}
    assert np.asarray(Image.open(looked / "test_confusion.png").convert("L")).min() < 128


def test_classes_are_mostly_taken_for_their_most_frequent_mistake():
    labels, guesses = np.array([0, 0, 0, 1, 1]), [1, 2, 2, 1, 1]
    judged = Judged(list("abcde"), labels, np.eye(3)[guesses], ["x", "y", "z"])
    assert list(judged.classes()) == [["x", 3, 0, 0, "z"], ["y", 2, 2, 100, None], ["z", 0, 0, None, None]]
    assert judged.wrong.tolist() == [0, 1, 2]


def test_misclassified_images_are_on_sheets_of_limited_size(tiny_noisy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("dspt_atlas.tools.inspect_run.PER_SHEET", 2)
    assert main([str(tiny_noisy_run), "--images", "3", "--output", str(tmp_path)]) == 0
    sheets = [Image.open(path) for path in sorted(tmp_path.glob("test_wrong_*.png"))]
    assert len(sheets) == 2 and sheets[0].width > sheets[1].width and sheets[0].height == sheets[1].height


def test_long_texts_and_other_alphabets_fit_under_an_image(tmp_path, write_images):
    write_images(tmp_path, ["a.png"])
    path = draw_sheet([(str(tmp_path / "a.png"), f"{'long ' * 50}\nсова, Käuzchen, $5")], tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels[-30:, -6:].min() == 255 and pixels[-40:].min() < 128


def test_nearest_words_are_those_of_a_loop_over_the_vocabulary(looked, tiny_noisy_run):
    trainer = open_run(tiny_noisy_run)
    table, tokenizer = trainer.model.clip_model.token_embedding.weight.double(), SimpleTokenizer()
    found = rows_of(looked / "nearest_words.csv")
    assert len(found) == 4 * 5
    for number, vector in enumerate(trainer.model.prompt_learner.ctx.detach().double(), 1):
        distances = (table - vector).square().sum(dim=1).sqrt()
        order = distances.argsort()[:5].tolist()
        rows = [row for row in found if row["token"] == str(number)]
        assert [row["word"] for row in rows] == [tokenizer.decode([token]).strip() for token in order]
        assert [float(row["distance"]) for row in rows] == pytest.approx(distances[order].tolist(), abs=1e-3)


@pytest.mark.parametrize(
    "learner, pairs",
    [
        ("CoOp", ("TRAINER.COOP.CTX_INIT", "a photo of a")),
        ("CoCoOp", ("TRAINER.COCOOP.CTX_INIT", "a photo of a")),
        ("DePTCoOp", ("TRAINER.COOP.CTX_INIT", "a photo of a")),
    ],
)
def test_a_context_that_has_hardly_moved_is_near_its_first_words(learner, pairs, train_tiny):
    words = da.load(train_tiny(learner, "OPTIM.LR", 1e-6, *pairs)).nearest_words(2)
    assert list(words[words["rank"] == 1]["word"]) == ["a", "photo", "of", "a"]
    assert {*words["classname"]} == {""} and max(words["distance"][words["rank"] == 1]) < 0.01


def test_a_context_per_class_has_the_words_of_each_class_and_zero_shot_has_none(train_tiny, tmp_path, capsys):
    model = da.load(train_tiny("CoOp", "TRAINER.COOP.CSC", True))
    words = model.nearest_words(1)
    assert list(dict.fromkeys(words["classname"])) == model.classnames and len(words) == 4 * 4
    folder = train_tiny("ZeroshotCLIP")
    assert da.load(folder).nearest_words().empty
    assert main([str(folder), "--output", str(tmp_path)]) == 0
    assert not (tmp_path / "nearest_words.csv").exists() and "ZeroshotCLIP" in capsys.readouterr().out


def test_the_runs_own_folder_holds_the_sheets_of_the_last_look_alone(train_tiny):
    folder = train_tiny("CoOp")
    old = folder / "inspect" / "test_wrong_9.png"
    old.parent.mkdir()
    old.touch()
    assert main([str(folder)]) == 0
    assert not old.exists() and (folder / "inspect" / "test.csv").is_file()


@pytest.mark.parametrize(
    "arguments, words", [(["nowhere"], "nowhere"), (["nowhere", "--top-k", "0"], "--top-k"), ([], "RUN")]
)
def test_mistakes_are_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    error = capsys.readouterr().err
    assert status == 2 and words in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
