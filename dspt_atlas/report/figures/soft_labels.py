"""ATLaS's soft labels of a run: the similarities of the classes, and CLIP's similarities of single images."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.figure import Figure

from dspt_atlas.datasets.images import read_image
from dspt_atlas.report.figures.style import file_name, literal, save, wrapped
from dspt_atlas.results.archive import read_archive
from dspt_atlas.run.records import RESULT_FILE
from dspt_atlas.run.trained import open_run, quiet

SMALLEST = 4.0  # points of letters that can be read; there are no names below it


def csl(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw the soft labels of all classes that ATLaS made of class similarities, as a heat map with class names."""
    for run, trainer in _atlas_trainers(runs, "csl"):
        matrix = _similarity(trainer)
        title = f"{_where(run)}: class-wise similarities u of ATLaS (CSL)"
        yield from plot_matrix(matrix, trainer.dm.dataset.classnames, title, out / file_name("csl", run.dataset))


def isl(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw six training images with the five largest entries of their soft labels by ATLaS."""
    for run, trainer in _atlas_trainers(runs, "isl"):
        items, labels = trainer.dm.dataset.train_x, _similarity(trainer)
        # From the least to the most certain, so that both kinds are seen.
        order = np.argsort([labels[i, item.label] for i, item in enumerate(items)])
        chosen = order[np.linspace(0, len(order) - 1, 6).round().astype(int)]
        title = f"{_where(run)}: training images and their instance-wise similarities (ISL)"
        names = trainer.dm.dataset.classnames
        yield from plot_images(
            [items[i] for i in chosen], labels[chosen], names, title, out / file_name("isl", run.dataset)
        )


def _atlas_trainers(runs, kind):
    """Yield the run of most classes of each data set and its untrained trainer, set to a kind of soft labels."""
    atlas = runs[runs["has_soft_labels"].astype(bool)]
    largest = atlas.sort_values("num_classes", ascending=False, kind="stable", na_position="last")
    for run in largest.drop_duplicates("dataset").itertuples():
        with _folder_of(run) as folder:
            yield run, open_run(folder, ["TRAINER.ATLAS.SOFT_LABELS", kind], prompts=False)


@contextlib.contextmanager
def _folder_of(run):
    """Give the folder of a run; for a run in an archive, give a temporary folder with its result."""
    if run.file.parent == run.folder:
        yield run.folder
        return
    result = read_archive(run.file)[run.folder.relative_to(run.file.parent).as_posix()]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")
        yield Path(folder)


def _where(run):
    return ", ".join(filter(None, (run.dataset, run.backbone)))


def _similarity(trainer):
    with quiet():
        return trainer.build_similarity().cpu().numpy()


def plot_matrix(matrix: np.ndarray, names: list[str], title: str, stem: Path) -> list[Path]:
    """Draw a (C, C) matrix as a heat map whose diagonal is left white, with names that can be read; write the files."""
    width = rcParams["figure.figsize"][0]
    letters = min(rcParams["font.size"] - 1, 0.5 * width * 72 / len(names))  # points
    figure = Figure(figsize=(width, 0.9 * width), layout="constrained")
    panel = figure.subplots()
    shown = np.where(np.eye(len(names), dtype=bool), np.nan, matrix)
    image = panel.imshow(shown, cmap="Greys", interpolation="nearest")
    if letters >= SMALLEST:
        shown_names = [literal(name) for name in names]
        panel.set_xticks(range(len(names)), shown_names, rotation=90, fontsize=letters)
        panel.set_yticks(range(len(names)), shown_names, fontsize=letters)
    panel.set(xlabel="gets this share", ylabel="given label")
    diagonal = f"the diagonal, {matrix.diagonal().mean():.2f} on average, is left white"
    figure.suptitle(wrapped(f"{title} ({diagonal})", width - 0.2, rcParams["font.size"] + 1))
    figure.colorbar(image, ax=panel, shrink=0.7, label="share")
    rows = [[name, *row.tolist()] for name, row in zip(names, matrix, strict=True)]
    return save(figure, stem, ["given label", *names], rows)


def plot_images(items, labels: np.ndarray, names: list[str], title: str, stem: Path) -> list[Path]:
    """Draw images with the five largest entries of their rows of `labels` (n, C); write the files."""
    width = rcParams["figure.figsize"][0]
    across = max(1, int(width // 3))
    rows_of_images = -(-len(items) // across)
    figure = Figure(figsize=(width, 1.3 * rows_of_images + 0.6), layout="constrained")
    axes = list(figure.subplots(rows_of_images, 2 * across, squeeze=False, width_ratios=(1, 1.6) * across).flat)
    rows = []
    for number, (item, row) in enumerate(zip(items, labels, strict=True)):
        picture, bars = axes[2 * number], axes[2 * number + 1]
        picture.imshow(read_image(item.impath))
        picture.set_title(f"given: {literal(names[item.label])}")
        best = np.argsort(row)[::-1][:5]
        rows += [[item.impath.rsplit("/", 1)[-1], names[item.label], names[c], float(row[c])] for c in best]
        filled = ["#555555" if c == item.label else "white" for c in best]
        bars.barh(
            range(len(best)),
            row[best],
            color=filled,
            edgecolor="black",
            hatch=["" if c == item.label else "///" for c in best],
        )
        bars.set_yticks(range(len(best)), [literal(names[c]) for c in best])
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.set_xlabel("share")
    for panel in axes:
        if not panel.patches:
            panel.axis("off")
    figure.suptitle(wrapped(f"{title}; filled: the given label", width - 0.2, rcParams["font.size"] + 1))
    return save(figure, stem, ["image", "given label", "class", "share"], rows)
