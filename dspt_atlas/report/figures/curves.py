"""Curves over epochs and noise rates: a line is the mean over seeds, its band or bars are their range."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dspt_atlas.report.figures.style import (
    add_legend,
    draw_band,
    draw_beside,
    file_name,
    looks,
    name_panel,
    panels,
    save,
)
from dspt_atlas.results.cells import read_numbers
from dspt_atlas.results.order import in_order
from dspt_atlas.results.record import history_of, noise_kind
from dspt_atlas.results.tables import noises_of, shots_in_words

Curves = dict[str, dict[str, dict[float, list[float]]]]  # {panel: {method: {x: [value of each seed]}}}
ACCURACY_ON_TEST = "accuracy on the clean test set (%)"
SUMMARY_FILE = "gradient_summary.csv"  # next to result.json
OWN_LOSS = {"CE", "GCE", "MAE", "DSPT"}  # the methods whose loss is profiled under their name


def with_history(result: dict, path: Path) -> dict:
    """Return the epochs of a result, the column that curves need besides those of every data frame of results."""
    return {"history": history_of(result)}


@dataclass(frozen=True)
class Plot:
    """What panels of curves show: titles, {row: method} of the lines in their order, names of the axes.

    shares: panels of fractions, with a y axis from 0 to 1; the other panels share one axis. rates: whether x has few
    values, each with a tick, at which lines stand side by side. limits: of the y axis.
    """

    title: str
    methods: dict[str, str]
    x: str
    y: str
    shares: tuple[str, ...] = ()
    rates: bool = False
    limits: dict[str, float] = field(default_factory=dict)


def plot_panels(curves: Curves, plot: Plot, stem: Path) -> list[Path]:
    """Draw one panel per key of `curves`, one line per row (level if it is known at x = 0 only); write the files."""
    figure, axes = panels(len(curves), plot.title, share_y="none" if plot.shares else "all")
    for panel, (name, lines) in zip(axes, curves.items(), strict=True):
        _draw_lines(panel, lines, plot)
        is_first = panel.get_subplotspec().is_first_col()
        name_panel(panel, name, plot.x, "share" if name in plot.shares else plot.y if is_first else "")
        if name in plot.shares:
            panel.set_ylim(0, 1)
        elif plot.shares and panel is not axes[0]:
            panel.sharey(axes[0])
            panel.tick_params(labelleft=is_first)
    axes[0].set_ylim(**plot.limits)
    add_legend(figure, axes)
    rows = (
        [panel, method, at, statistics.fmean(values), min(values), max(values), len(values)]
        for panel, lines in curves.items()
        for method, points in lines.items()
        for at, values in sorted(points.items())
    )
    return save(figure, stem, ["panel", "method", plot.x, "mean", "min", "max", "seeds"], rows)


def _draw_lines(panel: Axes, lines: dict[str, dict[float, list[float]]], plot: Plot) -> None:
    styles, rows = looks(plot.methods), [row for row in plot.methods if row in lines]
    ticks = sorted({x for points in lines.values() for x in points})
    width = 0.3 * min((b - a for a, b in itertools.pairwise(ticks)), default=1)
    for number, row in enumerate(rows):
        points, style = lines[row], styles[row]
        if set(points) == {0} and not plot.rates:  # nothing is trained
            panel.axhline(
                statistics.fmean(points[0]), color=style["color"], linestyle=style["linestyle"], label=row, zorder=1
            )
        elif plot.rates:
            draw_beside(panel, points, row, width * ((number + 0.5) / len(rows) - 0.5), style)
        else:
            draw_band(panel, points, row, number, style)
    if plot.rates:
        panel.set_xticks(ticks)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def methods_of(runs: pd.DataFrame) -> dict[str, str]:
    """Return {row: method} of runs, in the order of tables."""
    ordered = in_order(runs)
    return dict(zip(ordered["row"], ordered["method"], strict=True))


def new_curves() -> Curves:
    """Return empty curves; new keys are added when they are used."""
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))


def _add_test_accuracy(curves: Curves, run) -> None:
    points = {entry["epoch"]: entry["test_accuracy"] for entry in run.history if _is_number(entry.get("test_accuracy"))}
    for epoch, accuracy in (points or {0: run.accuracy}).items():
        curves[run.noise][run.row][epoch].append(accuracy)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _trained(runs: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """Yield (key, runs) of those that trained, or are zero-shot, by data set, shots, classes and further columns."""
    trained = runs[~runs["is_test"].astype(bool)].sort_values(["row", "seed"], kind="stable")
    yield from trained.groupby(["dataset", "shots", "subsample", *columns], sort=False)


def title_of(runs: pd.DataFrame, *more: str) -> str:
    """Return a title of runs of one data set: its name, the shots, the backbones, and more."""
    backbones = " and ".join(sorted(set(runs["backbone"]) - {""}))
    parts = (runs["dataset"].iloc[0], shots_in_words(runs["shots"].iloc[0]), backbones, *more)
    return ", ".join(filter(None, parts))


def _classes(subsample: str) -> list[str]:
    return [] if subsample == "all" else [f"{subsample} classes"]


def accuracy_by_epoch(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw the test accuracy over epochs (TEST.PERIOD), one panel per noise setting."""
    for (dataset, shots, subsample), group in _trained(runs):
        curves = new_curves()
        for run in group.itertuples():
            _add_test_accuracy(curves, run)
        curves = {
            f"training labels: {noise}": lines
            for noise, lines in curves.items()
            if any(set(line) != {0} for line in lines.values())
        }
        if curves:
            stem = out / file_name("accuracy_by_epoch", dataset, *_classes(subsample), f"{shots}shots")
            title = title_of(group, *_classes(subsample))
            plot = Plot(title, methods_of(group), "epoch", ACCURACY_ON_TEST, limits={"bottom": 0})
            yield from plot_panels(curves, plot, stem)


def noise_rate(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw the accuracy against the noise rate, one panel per noise type; clean runs of its methods are rate 0."""
    for (dataset, shots, _), group in _trained(runs[runs["subsample"] == "all"]):
        curves, clean = new_curves(), defaultdict(list)
        untrained, noises = {*group.loc[~group["learns"].astype(bool), "row"]}, noises_of(group)
        for run in group.itertuples():
            if run.noise == "clean":
                clean[run.row].append(run.accuracy)
            else:
                panel = run.noise.replace(noise_kind(run.noise_type, run.noise_rate), run.noise_type, 1)
                curves[panel][run.row][100 * noises[run.noise]["noise_rate"]].append(run.accuracy)
        for lines in curves.values():
            has_untrained = not untrained.isdisjoint(lines)
            for method, values in clean.items():
                if method in lines or (method in untrained and not has_untrained):
                    lines[method][0.0] = values
        if any(len(line) > 1 for lines in curves.values() for line in lines.values()):
            curves = {f"noise: {noise}": lines for noise, lines in curves.items()}
            stem, rates = out / file_name("noise_rate", dataset, f"{shots}shots"), "wrong training labels (%)"
            plot = Plot(title_of(group), methods_of(group), rates, ACCURACY_ON_TEST, rates=True, limits={"bottom": 0})
            yield from plot_panels(curves, plot, stem)


def memorisation(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw over epochs the predictions of rightly and wrongly labelled samples during training."""
    names = {
        "right_accuracy": "right labels: predicted as given",
        "wrong_memorised": "wrong labels: predicted as given (memorised)",
        "wrong_corrected": "wrong labels: predicted as the true class",
    }
    for (dataset, shots, classes, noise), group in _trained(runs, "noise"):
        curves = _history_curves(group, names)
        if curves:
            stem = out / file_name("memorisation", dataset, *_classes(classes), noise, f"{shots}shots")
            title, limits = title_of(group, *_classes(classes), f"labels {noise}"), {"bottom": 0, "top": 100}
            plot = Plot(title, methods_of(group), "epoch", "training samples (%)", limits=limits)
            yield from plot_panels(curves, plot, stem)


def base_new(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw accuracy on base and new classes over epochs (TEST.PERIOD, TEST.NEW_CLASSES), a figure per learner."""
    names = {"test_accuracy": "base classes", "new_accuracy": "new classes"}
    for (dataset, shots, _, noise), group in _trained(runs, "noise"):
        is_shown = [any("new_accuracy" in entry for entry in history) for history in group["history"]]
        for learner, members in group[is_shown].groupby("learner", sort=False):
            stem = out / file_name("base_new", dataset, learner, noise, f"{shots}shots")
            title = title_of(members, learner, f"labels {noise}")
            plot = Plot(title, methods_of(members), "epoch", "test accuracy (%)")
            yield from plot_panels(_history_curves(members, names), plot, stem)


def gradient_epochs(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw mean norms of samples' gradients by the logits over epochs (TRAIN.GRADIENT_PROFILE), for each own loss."""
    yield from _gradients_by_epoch(runs, out, ("gradient_epochs", "logits"), _logged_gradients)


def prompt_gradient_epochs(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw mean norms of samples' gradients by the prompt at each profiled checkpoint, for each run's own loss."""
    yield from _gradients_by_epoch(runs, out, ("prompt_gradient_epochs", "prompt"), _profiled_gradients, "prompt_")


def _gradients_by_epoch(runs, out, figure, read, prefix=""):
    name, of = figure
    names = {
        f"{prefix}right": "right labels",
        f"{prefix}wrong": "wrong labels",
        f"{prefix}wrong_share": "share of wrong labels in all norms",
    }
    for (dataset, shots, classes, noise), group in _trained(runs, "noise"):
        curves = _history_curves(group.assign(history=[list(read(run)) for run in group.itertuples()]), names)
        if curves:
            stem = out / file_name(name, dataset, *_classes(classes), noise, f"{shots}shots")
            title = title_of(group, *_classes(classes), f"labels {noise}", f"gradient with respect to the {of}")
            shares, limits = (names[f"{prefix}wrong_share"],), {"bottom": 0}
            plot = Plot(title, methods_of(group), "epoch", "mean gradient norm", shares, limits=limits)
            yield from plot_panels(curves, plot, stem)


def _logged_gradients(run):
    for entry in run.history:
        gradient = entry.get("gradient")
        if run.method in OWN_LOSS and isinstance(gradient, dict) and isinstance(gradient.get(run.method), dict):
            yield {**gradient[run.method], "epoch": entry["epoch"]}


def _profiled_gradients(run):
    """Yield the lines of the run's summary (`dspt-atlas profile`) that are of its own loss."""
    path = run.folder / SUMMARY_FILE
    for line in read_numbers(path, ("loss",)) if path.is_file() else ():
        if line.pop("loss") == run.method and run.method in OWN_LOSS:
            yield line


def _history_curves(runs: pd.DataFrame, names: dict[str, str]) -> Curves:
    """Return {name: {method: {epoch: values}}} of history entries; missing values are left out."""
    curves = new_curves()
    for key, name in names.items():
        for row, history in zip(runs["row"], runs["history"], strict=True):
            for entry in history:
                if _is_number(entry.get(key)):
                    curves[name][row][entry["epoch"]].append(entry[key])
    return curves
