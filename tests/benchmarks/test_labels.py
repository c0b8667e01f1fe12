"""benchmarks/labels.py: it plants what it says, finds it, and docs/labels.md has its means."""

import csv

import labels
import pytest

from dspt_atlas.results.cells import read_csv
from support.paths import ROOT


def test_the_figures_of_the_page_are_those_of_the_files():
    files = (ROOT / "docs" / "evidence" / name for name in ("labels.csv", "labels_self_confidence.csv"))
    rows = [row for file in files for row in labels.means(read_csv(file))]
    text = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith(tuple(f"| {data} |" for data in labels.DATA))]
    assert table == [f"| {' | '.join(map(str, row))} |" for row in rows] and len(rows) > 6


@pytest.mark.slow
@pytest.mark.runs
def test_errors_are_planted_into_all_lists_and_found_better_than_by_zero_shot_clip(tmp_path):
    planted = labels.plant("Emoji", "sym", 0.2, 7, "", tmp_path)
    rows = list(csv.DictReader(planted.table.open()))
    for split, count in (("train", 1920), ("val", 480), ("test", 1200)):
        own = [row for row in rows if row["split"] == split]
        assert len(own) == count
        assert sum(planted.clean[row["path"]] != int(row["label"]) for row in own) == count // 5
    ours, theirs = (
        dict(zip(labels.COLUMNS, labels.measure(planted, name, labels.JUDGES[name], ""), strict=True))
        for name in ("cross-fitted", "zero-shot")
    )
    assert ours["wrong"] == theirs["wrong"] == 720 and ours["precision_at_100"] == 100
    assert ours["auroc"] > 99 and ours["auroc"] > theirs["auroc"] + 5


def test_the_example_of_the_page_has_the_accuracies_of_its_file():
    text = (ROOT / "docs" / "labels.md").read_text(encoding="utf-8")
    found = {row["step"]: f"{float(row['accuracy']):.1f}" for row in read_csv(ROOT / "docs/evidence/labels_way.csv")}
    assert f"| CoOp                          | {found['after']} " in text
    assert f"| CoOp [trained on data 783bcf] | {found['before']} " in text and f"{found['mine']} on the wrong" in text
