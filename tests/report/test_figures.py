"""Figures of a tree of results: their numbers, figures that are left out, mistakes."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib import pyplot as plt

from dspt_atlas.errors import UserError
from dspt_atlas.report.figures import FIGURES, curves, draw_figures, main
from dspt_atlas.report.figures.curves import Plot, plot_panels
from dspt_atlas.report.figures.style import draw_beside, panels
from support.runs import result_of

pytestmark = pytest.mark.runs


def rows(path):
    return list(csv.DictReader(path.open()))


@pytest.fixture
def vary(tmp_path):
    """Return a function (run, name, **changes) that writes a run's result.json with changes under tmp_path/tree."""

    def write(run, name, **changes):
        result = result_of(run)
        result.update(changes)
        result["config"]["SEED"] = result["seed"]
        result["config"]["TRAINER"]["NAME"] = result["trainer"]
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "result.json").write_text(json.dumps(result))

    return write


def sym(rate):
    return {"family": "relabel", "type": "sym", "rate": rate, "realised_rate": rate, "seed": 1, "per_class": False}


def test_accuracy_against_noise_rate_has_the_seeds_and_the_clean_runs(tiny_noisy_run, vary, tmp_path):
    for seed, accuracy in ((1, 60.0), (2, 70.0)):
        vary(tiny_noisy_run, f"half{seed}", seed=seed, accuracy=accuracy, noise=sym(0.5))
        vary(tiny_noisy_run, f"clean{seed}", seed=seed, accuracy=accuracy + 20, noise=None)
    vary(tiny_noisy_run, "other", accuracy=75.0, noise=sym(0.5), trainer="CoOpDSPT")
    vary(tiny_noisy_run, "clean_only", accuracy=10.0, noise=None, trainer="CoOpTFKD")
    png, svg, pdf, table = draw_figures([tmp_path / "tree"], tmp_path / "out", ("noise_rate",))
    assert png.read_bytes().startswith(b"\x89PNG") and "<svg" in svg.read_text() and pdf.read_bytes()[:4] == b"%PDF"
    found = {(row["method"], float(row["wrong training labels (%)"])): row for row in rows(table)}
    assert found.keys() == {("CoOp", 0.0), ("CoOp", 50.0), ("CoOpDSPT", 50.0)}
    assert [float(found["CoOp", 50.0][key]) for key in ("mean", "min", "max", "seeds")] == [65, 60, 70, 2]
    assert float(found["CoOp", 0.0]["mean"]) == 85


@given(st.lists(st.integers(0, 2465), min_size=1, max_size=7), st.integers(1, 7))
@example([3], 5)  # the mean of five equal accuracies is rounded below them
def test_bars_reach_from_the_least_to_the_greatest_seed(correct, times):
    values = [100 * count / 2465 for count in correct] * times
    figure, (panel,) = panels(1)
    draw_beside(panel, {0.5: values}, "CoOp", 0.0, {"color": "black"})
    (bars,) = panel.containers[0][2]
    ends = bars.get_segments()[0][:, 1]
    assert list(ends) == pytest.approx([min(values), max(values)])
    plt.close(figure)


def test_curves_over_epochs_are_those_of_the_history(tiny_noisy_run, tiny_base_run, tmp_path):
    history = result_of(tiny_noisy_run)["history"]
    paths = draw_figures([tiny_noisy_run], tmp_path, ("memorisation", "accuracy_by_epoch", "gradient_epochs"))
    tables = {path.name.split("_tiny")[0]: rows(path) for path in paths if path.suffix == ".csv"}

    def last(name, panel):
        return [float(row["mean"]) for row in tables[name] if row["panel"].startswith(panel) and row["epoch"] == "2"]

    assert last("memorisation", "right labels") == [history[-1]["right_accuracy"]]
    assert last("memorisation", "wrong labels: predicted as given") == [history[-1]["wrong_memorised"]]
    assert last("accuracy_by_epoch", "training labels: sym 0.5") == [history[-1]["test_accuracy"]]
    assert last("gradient_epochs", "share of wrong") == [history[-1]["gradient"]["CE"]["wrong_share"]]
    history = result_of(tiny_base_run)["history"]
    table = rows(draw_figures([tiny_base_run], tmp_path, ("base_new",))[-1])
    shown = {(row["panel"], int(row["epoch"])): float(row["mean"]) for row in table}
    assert (
        shown["new classes", 2] == history[1]["new_accuracy"]
        and shown["base classes", 1] == history[0]["test_accuracy"]
    )


def test_the_same_figure_is_the_same_bytes(tmp_path):
    curves = {"clean": {"CoOp": {1.0: [50.0, 60.0], 2.0: [55.0, 65.0]}}}
    for folder in ("a", "b"):
        plot_panels(curves, Plot("twice", {"CoOp": "CE"}, "epoch", "%"), tmp_path / folder / "figure")
    for suffix in ("svg", "png", "pdf", "csv"):
        first, second = ((tmp_path / folder / f"figure.{suffix}").read_bytes() for folder in ("a", "b"))
        assert first == second, suffix


def test_shares_have_an_axis_of_their_own_and_norms_have_one_together(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "save", lambda figure, *_: drawn.append(figure) or [])
    values = {"right": (4.0, 2.0), "wrong": (48.0, 30.0), "share": (0.9, 0.7)}
    lines = {panel: {"CoOp": {1.0: [first], 2.0: [last]}} for panel, (first, last) in values.items()}
    plot = Plot("title", {"CoOp": "CE"}, "epoch", "norm", ("share",), limits={"bottom": 0})
    plot_panels(lines, plot, tmp_path / "stem")
    right, wrong, share = (panel.get_ylim() for panel in drawn[0].axes)
    assert right == wrong and right[0] == 0 and right[1] > 48 and share == (0, 1)


def test_soft_labels_are_those_of_the_run(tiny_base_run, tmp_path):
    paths = draw_figures([tiny_base_run], tmp_path, ("csl", "isl"))
    matrix, images = (rows(path) for path in paths if path.suffix == ".csv")
    names = [row["given label"] for row in matrix]
    assert len(names) == 2 and list(matrix[0]) == ["given label", *names]
    for row in matrix:
        shares = [float(row[name]) for name in names]
        assert sum(shares) == pytest.approx(1, abs=1e-5) and max(shares) == float(row[row["given label"]])
    assert len(images) == 6 * len(names) and all(0 <= float(row["share"]) <= 1 for row in images)


def test_a_tree_without_more_than_results_still_gives_curves(tiny_noisy_run, tmp_path, capsys):
    (tmp_path / "tree").mkdir()
    shutil.copy(tiny_noisy_run / "result.json", tmp_path / "tree")
    paths = draw_figures([tmp_path / "tree"], tmp_path / "out")
    assert {"memorisation", "gradient_epochs"} <= {path.name.split("_tiny")[0] for path in paths}
    left_out = capsys.readouterr().out
    assert "the figure base_new" in left_out and "the figure gradient_norm" in left_out


def test_new_classes_need_a_run_on_base_classes(train_tiny):
    with pytest.raises(UserError, match="SUBSAMPLE_CLASSES base"):
        train_tiny("CoOp", "TEST.NEW_CLASSES", True, "TEST.PERIOD", 1)


def test_evaluating_new_classes_does_not_change_the_training(tiny_base_run, train_tiny):
    pairs = ["DATASET.SUBSAMPLE_CLASSES", "base", "TRAINER.ATLAS.SOFT_LABELS", "csl"]
    plain = train_tiny("CoOpATLaS", *pairs)
    with_new, without = (result_of(run) for run in (tiny_base_run, plain))
    assert with_new["accuracy"] == without["accuracy"]
    assert [e["train_loss"] for e in with_new["history"]] == [e["train_loss"] for e in without["history"]]


@pytest.mark.parametrize(
    "figure, words",
    [("nothing", ", ".join(FIGURES)), ("base_new", "figure base_new")],
)
def test_mistakes_are_one_sentence_and_write_nothing(figure, words, tiny_noisy_run, tmp_path, capsys):
    assert main([str(tiny_noisy_run), "--out", str(tmp_path / "out"), "--figure", figure]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_script_says_where_there_is_no_run(tmp_path):
    command = [sys.executable, "-m", "dspt_atlas", "figures", ".", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2 and " ." in done.stderr and done.stderr.count("\n") == 1
