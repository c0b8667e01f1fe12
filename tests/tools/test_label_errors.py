"""Label errors found by a model: scores and counts against other implementations, files, zero-shot, mistakes."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dspt_atlas.tools.label_errors import SCORES, LabelErrors, cleanlab_issues, main


def random_case(seed, samples=12, classes=4):
    generator = np.random.default_rng(seed)
    return generator.dirichlet(np.ones(classes), samples), generator.integers(0, classes, samples)


@given(st.integers(0, 10_000))
def test_scores_are_those_of_a_loop_and_fall_below_half_where_the_label_is_contradicted(seed):
    probs, labels = random_case(seed)
    margins = SCORES["normalized_margin"](probs, labels)
    for row, label, confidence, margin in zip(
        probs, labels, SCORES["self_confidence"](probs, labels), margins, strict=True
    ):
        others = max(value for k, value in enumerate(row) if k != label)
        assert confidence == row[label] and margin == pytest.approx((row[label] - others + 1) / 2)
    assert ((margins < 0.5) == (probs.argmax(axis=1) != labels)).all()


def test_scores_are_cleanlabs():
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab is not installed: pip install cleanlab")
    probs, labels = random_case(1, samples=50)
    for name, score in SCORES.items():
        theirs = rank.get_label_quality_scores(labels, probs, method=name)
        assert np.allclose(score(probs, labels), theirs)


def test_cleanlab_finds_a_contradicted_label_in_the_same_probabilities():
    pytest.importorskip("cleanlab", reason="cleanlab is not installed: pip install cleanlab")
    labels = np.repeat([0, 1, 2], 20)
    probs = np.full((60, 3), 0.02) + 0.94 * np.eye(3)[labels]
    labels[[0, 30]] = 2
    assert cleanlab_issues(labels, probs.astype(np.float32)).nonzero()[0].tolist() == [0, 30]


def test_precision_recall_and_auroc_by_hand():
    clean = np.array([0, 0, 1, 1])
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
    labels = np.array([0, 1, 1, 1])  # sample 1 is wrong; the model contradicts 1 and 3
    quality = SCORES["self_confidence"](probs, labels)
    errors = LabelErrors(list("abcd"), ["x", "y"], labels, clean, probs, quality, probs.argmax(axis=1) != labels, None)
    assert errors.order.tolist() == [1, 3, 2, 0]
    assert list(errors.agreement()) == [["another class predicted", 2, 50, 100, 100], ["worst 1", 1, 100, 100, 100]]


@pytest.mark.parametrize("zero_shot", [False, True])
def test_a_run_gives_a_table_and_a_contact_sheet(zero_shot, tiny_noisy_run, tmp_path, capsys):
    options = ["--zero-shot"] if zero_shot else ["--score", "self_confidence"]
    assert main([str(tiny_noisy_run), *options, "--worst", "6", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    stem = "label_errors_zero_shot" if zero_shot else "label_errors"
    rows = list(csv.DictReader((tmp_path / f"{stem}.csv").open()))
    samples = json.loads((tiny_noisy_run / "noise.json").read_text())["samples"]
    wrong = sum(sample["clean"] != sample["given"] for sample in samples)
    assert len(rows) == len(samples) == 24 and sum(row["is_wrong"] == "1" for row in rows) == wrong == 12
    score = "normalized_margin" if zero_shot else "self_confidence"
    quality = [float(row[score]) for row in rows]
    assert quality == sorted(quality) and all(row["label_quality"] == row[score] for row in rows)
    assert all((row["is_label_issue"] == "1") == (row["given_label"] != row["predicted_label"]) for row in rows)
    assert "against 12 known wrong labels" in printed and "AUROC" in printed
    assert ("trained on" in printed) != zero_shot
    with Image.open(tmp_path / f"{stem}.png") as sheet:
        assert len(sheet.convert("L").getcolors()) > 50  # the images are on it


def test_a_data_set_needs_no_training(tiny_dataset, tiny_clip_path, tmp_path, capsys):
    yaml = tmp_path / "own.yaml"
    yaml.write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    options = ["--dataset", str(yaml), "--config", "rn50", "--root", str(tiny_dataset.parent), "--out", str(tmp_path)]
    assert main([*options, "--", "MODEL.BACKBONE.NAME", tiny_clip_path]) == 0
    assert "of 24 training samples" in capsys.readouterr().out
    assert "" == next(csv.DictReader((tmp_path / "label_errors.csv").open()))["clean_label"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--dataset NAME"),
        (["nowhere"], "no config.yaml in nowhere"),
        (["nowhere", "--worst", "0"], "--worst of at least 1"),
        (["--dataset", "emojis"], 'no data set "emojis"'),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
