"""A measure is named in one place; it is stored in result.json and shown everywhere."""

import csv
import io
import json
from functools import partial

import pytest
import torch

from dspt_atlas.digests import function_digest
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
    for form, cell in (("github", "4.50 ± 0.50"), ("latex", "4.50{\\scriptsize$\\pm$0.50}")):
        assert reports.main([str(tmp_path), "--measures", "ece", "--format", form]) == 0
        text = capsys.readouterr().out
        assert cell in text and "lower is better" in text
    text, _ = reports.report([tmp_path], form="csv", measures=["accuracy", "ece"])
    assert [(row["measure"], float(row["mean"])) for row in csv.DictReader(io.StringIO(text))] == [
        ("accuracy", 80.0), ("ece", 4.5),
    ]  # fmt: skip
    page = render_page([tmp_path], measures=["ece"], figures=False)[0].decode()
    assert "4.50 ± 0.50" in page and '"ECE"' in page


def test_a_result_from_before_a_measure_is_a_hole_of_its_table(with_ece, tmp_path):
    write_result(tmp_path / "old", 80.0, seed=1)
    write_result(tmp_path / "new", 90.0, seed=2, ece=5.0)
    (entry,) = entries(tmp_path, measures=["ece"]).values()
    assert (entry["mean"], entry["seeds"], entry["missing_seeds"]) == (5.0, [2], [1])


def test_two_measures_are_two_tables_that_say_which_they_are(tmp_path):
    write_result(tmp_path / "a", 80.0)
    text, _ = reports.report([tmp_path], measures=["accuracy", "macro_f1"])
    assert "Emoji, by shots, accuracy" in text and "Emoji, by shots, macro F1" in text


def ece_of_five_bins(probabilities, labels):
    return ece(probabilities, labels) / 2


def test_two_functions_of_one_name_share_neither_a_row_nor_a_mean_and_the_accuracy_does(with_ece, tmp_path):
    for seed, function in enumerate((ece, ece, ece_of_five_bins), 1):
        digests = {"measures": {"ece": function_digest(function)}}
        write_result(tmp_path / str(seed), 80.0 + seed, seed=seed, ece=float(seed), **digests)
    found = entries(tmp_path, measures=["ece"]).values()
    assert sorted((entry["mean"], entry["seeds"]) for entry in found) == [(1.5, [1, 2]), (3.0, [3])]
    assert len({entry["method"] for entry in found}) == 2
    (accuracy,) = entries(tmp_path).values()
    assert accuracy["seeds"] == [1, 2, 3]


def test_measures_without_a_recorded_function_share_a_row_only_with_each_other(with_ece, tmp_path):
    for seed, more in enumerate(({}, {}, {"measures": {"ece": function_digest(ece)}}), 1):
        write_result(tmp_path / str(seed), 80.0, seed=seed, ece=float(seed), macro_f1=float(seed), **more)
    found = entries(tmp_path, measures=["ece"]).values()
    assert sorted(entry["seeds"] for entry in found) == [[1, 2], [3]]
    (built_in,) = entries(tmp_path, measures=["macro_f1"]).values()
    assert built_in["seeds"] == [1, 2, 3]


def test_a_result_names_the_function_of_each_of_its_measures(with_ece, train_tiny):
    result = json.loads((train_tiny("CoOp") / "result.json").read_text())
    assert result["measures"] == {"ece": function_digest(ece)}


def _of(text):
    space = {}
    exec(text, space)  # noqa: S102 - a function without a file
    return space["f"]


def _with(bins):
    def f():
        return bins

    return f


def test_a_functions_digest_follows_what_it_computes_and_not_how_it_is_laid_out(monkeypatch):
    assert function_digest(_of("def f(): return 1")) != function_digest(_of("def f(): return 2"))
    assert function_digest(_with(10)) != function_digest(_with(15)) != function_digest(partial(_with(15), bins=1))
    assert function_digest(lambda p, y: 1) != function_digest(lambda p, y: 2)
    before = function_digest(ece_of_five_bins)
    assert before == function_digest(ece_of_five_bins) != function_digest(ece)
    monkeypatch.setitem(globals(), "ece", _with(10))  # a function that it calls
    assert function_digest(ece_of_five_bins) != before
