"""Label errors found by a model: scores and counts against other implementations, files, zero-shot, mistakes."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dspt_atlas.tools.labels.command import main
from dspt_atlas.tools.labels.errors import COLUMNS, SCORES, LabelErrors, Labels


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


def errors_of(probs, given, clean=None, names=None):
    count, classes = probs.shape
    names = names or [f"class {number}" for number in range(classes)]
    return LabelErrors(
        Labels(["train"] * count, [*range(count)], [*map(str, range(count))], names, given, clean), probs
    )


def test_cleanlab_finds_a_contradicted_label_in_the_same_probabilities():
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab is not installed: pip install cleanlab")
    labels = np.repeat([0, 1, 2], 20)
    probs = (np.full((60, 3), 0.02) + 0.94 * np.eye(3)[labels]).astype(np.float32)
    labels[[0, 30]] = 2
    judged = errors_of(probs, labels).cleanlab
    assert judged is not None
    found, quality = judged
    assert found.nonzero()[0].tolist() == [0, 30] == sorted(quality.argsort()[:2].tolist())
    theirs = rank.get_label_quality_scores(labels, probs, method="normalized_margin", adjust_pred_probs=True)
    assert np.allclose(quality, theirs)


def test_classes_without_an_image_do_not_stop_cleanlab():
    pytest.importorskip("cleanlab", reason="cleanlab is not installed: pip install cleanlab")
    probs, labels = random_case(2, samples=30, classes=6)
    labels = np.where(labels == 5, 0, labels)
    judged = errors_of(probs, labels).cleanlab
    assert judged is not None
    found, quality = judged
    assert found.shape == quality.shape == (30,) and np.isfinite(quality).all()


def test_precision_recall_and_auroc_by_hand():
    clean = np.array([0, 0, 1, 1, -1])  # of the last one it is not known
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3], [0.9, 0.1]])
    labels = np.array([0, 1, 1, 1, 1])  # sample 1 is wrong; the model contradicts 1, 3 and 4
    errors = errors_of(probs, labels, clean)
    assert errors.order.tolist() == [4, 1, 3, 2, 0]
    ours = list(errors.agreement())[:2]
    assert ours == [["another class predicted", 2, 50, 100, 100], ["worst 1", 1, 100, 100, None]]
    assert [row[-2:] for row in errors.rows()][:2] == [[None, None], ["class 0", 1]]


@pytest.mark.parametrize("zero_shot", [False, True])
def test_a_run_s_own_images_give_a_table_and_a_contact_sheet(zero_shot, tiny_noisy_run, tmp_path, capsys):
    options = ["--zero-shot"] if zero_shot else ["--judge", "run", "--score", "self_confidence"]
    assert main([str(tiny_noisy_run), *options, "--worst", "6", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    stem = "label_errors_zero_shot" if zero_shot else "label_errors_run"
    rows = list(csv.DictReader((tmp_path / f"{stem}.csv").open()))
    samples = json.loads((tiny_noisy_run / "noise.json").read_text())["samples"]
    wrong = sum(sample["clean"] != sample["given"] for sample in samples)
    assert len(rows) == len(samples) == 24 and sum(row["is_wrong"] == "1" for row in rows) == wrong == 12
    score = "normalized_margin" if zero_shot else "self_confidence"
    quality = [float(row[score]) for row in rows]
    assert quality == sorted(quality) and all(row["label_quality"] == row[score] for row in rows)
    assert all((row["is_label_issue"] == "1") == (row["given_label"] != row["predicted_label"]) for row in rows)
    assert list(rows[0]) == list(COLUMNS) and {row["split"] for row in rows} == {"train"}
    assert "12 known" in printed and "AUROC" in printed
    with Image.open(tmp_path / f"{stem}.png") as sheet:
        assert len(sheet.convert("L").getcolors()) > 50  # the images are on it


def test_a_data_set_needs_no_training(tiny_dataset, tiny_clip_path, tmp_path, capsys):
    yaml = tmp_path / "own.yaml"
    yaml.write_text(f"DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: {tiny_dataset.name}\n")
    options = ["--dataset", str(yaml), "--config", "rn50", "--root", str(tiny_dataset.parent), "--out", str(tmp_path)]
    assert main([*options, "--", "MODEL.BACKBONE.NAME", tiny_clip_path]) == 0
    assert "train 24" not in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "label_errors.csv").open()))
    assert len(rows) == 48 and {row["clean_label"] for row in rows} == {""}


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--dataset NAME"),
        (["nowhere"], "no config.yaml in nowhere"),
        (["nowhere", "--worst", "0"], "--worst of at least 1"),
        (["nowhere", "--zero-shot", "--judge", "run"], "--judge run"),
        (["--dataset", "emoji", "--judge", "run"], "--judge"),
        (["--dataset", "emojis"], 'no data set "emojis"'),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
