"""A measure is named in one place; it is stored in result.json and shown everywhere."""

import csv
import io
import json

import pytest
import torch

from dspt_atlas.report import table as reports
from dspt_atlas.report.page.page import render_page
from dspt_atlas.trainers.measures import MEASURES, Measure
from support.results import entries, write_result


def ece(probabilities, labels):
    """Return the expected calibration error in percent, over ten bins of equal width (Guo et al. 2017)."""
    confidence, predicted = probabilities.max(dim=1)
    bins = (10 * confidence).long().clamp(max=9)
    gaps = (predicted == labels).float() - confidence
    return 100 * torch.zeros(10).index_add(0, bins.cpu(), gaps.cpu()).abs().sum() / len(labels)


@pytest.fixture
def with_ece(monkeypatch):
    monkeypatch.setitem(MEASURES, "ece", Measure("ece", "ECE", decimals=2, higher_is_better=False, of=ece))


def test_a_new_measure_is_in_each_result(with_ece, train_tiny):
    result = json.loads((train_tiny("CoOp") / "result.json").read_text())
    assert 0 <= result["ece"] <= 100


def test_a_new_measure_is_in_tables_csv_latex_and_page(with_ece, tmp_path, capsys):
    for seed, value in ((1, 4.0), (2, 5.0)):
        write_result(tmp_path / str(seed), 80.0, seed=seed, ece=value)
    for form in ("github", "latex"):
        assert reports.main([str(tmp_path), "--measures", "ece", "--format", form]) == 0
        text = capsys.readouterr().out
        assert "4.50 ± 0.50 (2/2)" in text and "lower is better" in text
    text, _ = reports.report([tmp_path], form="csv", measures=["accuracy", "ece"])
    assert [(row["measure"], float(row["mean"])) for row in csv.DictReader(io.StringIO(text))] == [
        ("accuracy", 80.0), ("ece", 4.5),
    ]  # fmt: skip
    page = render_page([tmp_path], measures=["ece"], figures=False)[0].decode()
    assert "4.50 ± 0.50 (2/2)" in page and '"ECE"' in page


def test_a_result_from_before_a_measure_is_a_hole_of_its_table(with_ece, tmp_path):
    write_result(tmp_path / "old", 80.0, seed=1)
    write_result(tmp_path / "new", 90.0, seed=2, ece=5.0)
    (entry,) = entries(tmp_path, measures=["ece"]).values()
    assert (entry["mean"], entry["seeds"], entry["missing_seeds"]) == (5.0, [2], [1])


def test_two_measures_are_two_tables_that_say_which_they_are(tmp_path):
    write_result(tmp_path / "a", 80.0)
    text, _ = reports.report([tmp_path], measures=["accuracy", "macro_f1"])
    assert "Emoji, by shots, accuracy" in text and "Emoji, by shots, macro F1" in text
