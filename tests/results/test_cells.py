"""Names with a meaning for other programs: formulas of spreadsheets in CSV, dollars of mathematics in pictures."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from dspt_atlas.report.figures.curves import Plot, plot_panels
from dspt_atlas.report.figures.soft_labels import plot_images, plot_matrix
from dspt_atlas.report.table import report
from dspt_atlas.results.cells import csv_text, plain_cell, read_csv, safe_cell, write_csv
from dspt_atlas.tools.labels.command import contact_sheet, main
from dspt_atlas.tools.labels.errors import LabelErrors, Labels
from support.runs import result_of

FORMULAS = ('=HYPERLINK("http://x")', "+1-2", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''+x")
DOLLARS = ("$^$", r"$\frac{", "$5 or $10", r"\$x$", "a_$b")


@given(st.text(alphabet="=+-@'\t\r\n＝ab1. \"", max_size=6))
@example("'=1")
@example("''")
def test_no_text_is_a_formula_and_every_text_comes_back(text):
    cell = safe_cell(text)
    assert plain_cell(cell) == text
    is_number = cell == text and any(letter.isdigit() for letter in text)
    assert is_number or not cell.startswith(tuple("=+-@\t\r\n＝"))


def test_numbers_stay_numbers():
    assert [safe_cell(value) for value in (-1.5, 3, None, True, "-1e-3", "+2")] == [-1.5, 3, None, True, "-1e-3", "+2"]
    assert csv_text(["x"], [[-0.5]]) == "x\n-0.5\n"


def test_a_table_comes_back_as_it_was_written(tmp_path):
    write_csv(tmp_path / "t.csv", ["name", "=x"], [[name, 1] for name in FORMULAS])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]
    assert read_csv(tmp_path / "t.csv") == [{"name": name, "=x": "1"} for name in FORMULAS]


def _drawn(paths):
    """Return the texts of a figure as its SVG notes them, and the paths that are empty."""
    svg = next(path for path in paths if path.suffix == ".svg").read_text(encoding="utf-8")
    notes = [line.strip() for line in svg.splitlines() if "<!--" in line]
    return [note.removeprefix("<!--").removesuffix("-->").strip() for note in notes]


def test_dollars_are_drawn_as_they_are(tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    curves = {name: {f"CoOp {name}": {0: [1.0], 1: [2.0, 3.0]}, f"level {name}": {0: [1.0]}} for name in DOLLARS}
    methods = {row: "CE" for lines in curves.values() for row in lines}
    texts = _drawn(plot_panels(curves, Plot("all $ of $ them", methods, "epoch", "%"), tmp_path / "curves"))
    assert {*DOLLARS, "all $ of $ them", *(f"CoOp {name}" for name in DOLLARS)} <= {*texts}
    matrix = np.full((5, 5), 0.2)
    assert {*DOLLARS} <= {*_drawn(plot_matrix(matrix, list(DOLLARS), "$a$", tmp_path / "matrix"))}
    items = [SimpleNamespace(impath=str(image), label=label) for label in range(5)]
    texts = _drawn(plot_images(items, matrix, list(DOLLARS), "$a$", tmp_path / "images"))
    assert {*DOLLARS, "$a$; filled: the given label", *(f"given: {name}" for name in DOLLARS)} <= {*texts}


def test_a_contact_sheet_of_names_with_dollars_is_drawn(tmp_path):
    image = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(image)
    given, probs = np.arange(5), np.eye(5)[[1, 2, 3, 4, 0]]
    labels = Labels(["train"] * 5, [*range(5)], [str(image)] * 5, list(DOLLARS), given, (given + 2) % 5)
    errors = LabelErrors(labels, probs)
    assert contact_sheet(errors, tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.parametrize("names", [("=1+1", "@SUM(A1)"), ("$^$", "$5")], ids=["formulas", "dollars"])
def test_label_errors_of_such_names(names, tiny_clip_path, tmp_path):
    for number, name in enumerate(names):
        folder = tmp_path / "data" / "set" / name
        folder.mkdir(parents=True)
        for count in range(4):
            Image.new("RGB", (8, 8), (60 * count, 90 * number, 0)).save(folder / f"{count}.png")
    yaml = tmp_path / "set.yaml"
    yaml.write_text("DATASET:\n  NAME: OwnFolder\n  OWN:\n    PATH: set\n")
    command = ["--dataset", yaml, "--config", "rn50", "--root", tmp_path / "data", "--out", tmp_path / "out"]
    command += ["--", "MODEL.BACKBONE.NAME", tiny_clip_path, "DATALOADER.NUM_WORKERS", "0"]
    assert main([str(part) for part in command]) == 0
    found = read_csv(tmp_path / "out" / "label_errors.csv")
    assert {row["given_label"] for row in found} == {*names}
    text = (tmp_path / "out" / "label_errors.csv").read_text(encoding="utf-8")
    assert ",=" not in text and ",@" not in text


def test_tables_of_a_data_set_whose_name_is_a_formula(tiny_noisy_run, tmp_path):
    result = result_of(tiny_noisy_run)
    result["config"]["DATASET"]["OWN"]["PATH"] = "=1+1"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps({**result, "dataset": "=1+1"}))
    cells = [cell for row in csv.reader(io.StringIO(report([tmp_path], form="csv")[0])) for cell in row]
    assert any(cell.startswith("'=1+1") for cell in cells) and not any(cell.startswith("=") for cell in cells)
