"""Accuracy against epoch from result.json files, as a picture and as numbers."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

from .paths import write_atomically
from .records import RESULT_FILE, read_json
from .results import noise_label

STYLES = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ((0, (5, 1)), "v"), ((0, (1, 1)), "x"))
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito


def read_curves(folders: list[Path]) -> dict[str, dict[str, dict[int, list[float]]]]:
    """Return {noise: {method: {epoch: [test accuracy of each seed]}}}; a method without epochs has the key 0."""
    curves = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for folder in folders:
        result = read_json(folder / RESULT_FILE)
        curve = curves[noise_label(result["noise"])][result["trainer"]]
        points = {entry["epoch"]: entry["test_accuracy"] for entry in result["history"] if "test_accuracy" in entry}
        for epoch, accuracy in (points or {0: result["accuracy"]}).items():
            curve[epoch].append(accuracy)
    return curves


def plot_curves(curves: dict, title: str, stem: Path) -> list[Path]:
    """Draw one panel a noise setting, one line a method, the band its seeds' range; write .png, .svg and .csv."""
    figure = Figure(figsize=(4.6 * len(curves), 3.8), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)
    for panel, (noise, methods) in zip(panels[0], curves.items(), strict=True):
        last = max(epoch for points in methods.values() for epoch in points)
        for number, (method, points) in enumerate(methods.items()):
            _draw(panel, method, points, last, number)
        panel.set_title(f"training labels: {noise}")
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("accuracy on the clean test set (%)")
    panels[0][0].set_ylim(bottom=0)
    figure.suptitle(title)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    paths = []
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=150)
        paths.append(stem.with_suffix(f".{suffix}"))
        write_atomically(paths[-1], buffer.getvalue())
    paths.append(stem.with_suffix(".csv"))
    write_atomically(paths[-1], _csv(curves))
    return paths


def _draw(panel, method: str, points: dict[int, list[float]], last: int, number: int) -> None:
    style, marker = STYLES[number % len(STYLES)]
    colour = COLOURS[number % len(COLOURS)]
    if set(points) == {0}:  # nothing is trained
        panel.axhline(statistics.fmean(points[0]), color=colour, linestyle=style, label=method)
        return
    epochs = sorted(points)
    means = [statistics.fmean(points[epoch]) for epoch in epochs]
    marks = max(1, len(epochs) // 8)
    panel.plot(
        epochs,
        means,
        color=colour,
        linestyle=style,
        marker=marker,
        markevery=(number % marks, marks),
        ms=4,
        label=method,
    )
    panel.fill_between(
        epochs, [min(points[e]) for e in epochs], [max(points[e]) for e in epochs], color=colour, alpha=0.2, lw=0
    )


def _csv(curves: dict) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["labels", "method", "epoch", "mean", "min", "max", "seeds"])
    for noise, methods in curves.items():
        for method, points in methods.items():
            for epoch, values in sorted(points.items()):
                writer.writerow([noise, method, epoch, statistics.fmean(values), min(values), max(values), len(values)])
    return file.getvalue()
