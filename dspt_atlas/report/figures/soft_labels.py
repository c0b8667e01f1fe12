"""ATLaS's soft labels of a run: the similarities of the classes, and CLIP's similarities of single images."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dspt_atlas.datasets.images import read_image
from dspt_atlas.report.figures.style import file_name, literal, save
from dspt_atlas.results.archive import read_archive
from dspt_atlas.run.records import RESULT_FILE
from dspt_atlas.run.trained import open_run, quiet


def csl(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw the soft labels of all classes that ATLaS made of class similarities, as a heat map with class names."""
    for dataset, trainer in _atlas_trainers(runs, "csl"):
        matrix = _similarity(trainer)
        title = f"{dataset}: class-wise similarities $u$ of ATLaS (CSL)"
        yield from plot_matrix(matrix, trainer.dm.dataset.classnames, title, out / file_name("csl", dataset))


def isl(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw six training images with the five largest entries of their soft labels by ATLaS."""
    for dataset, trainer in _atlas_trainers(runs, "isl"):
        items, labels = trainer.dm.dataset.train_x, _similarity(trainer)
        # From the least to the most certain, so that both kinds are seen.
        order = np.argsort([labels[i, item.label] for i, item in enumerate(items)])
        chosen = order[np.linspace(0, len(order) - 1, 6).round().astype(int)]
        title = f"{dataset}: training images and their instance-wise similarities (ISL)"
        names = trainer.dm.dataset.classnames
        yield from plot_images(
            [items[i] for i in chosen], labels[chosen], names, title, out / file_name("isl", dataset)
        )


def _atlas_trainers(runs, kind):
    """Yield each data set and the untrained trainer of its ATLaS run of most classes, set to a kind of soft labels."""
    atlas = runs[runs["has_soft_labels"].astype(bool)]
    largest = atlas.sort_values("num_classes", ascending=False, kind="stable", na_position="last")
    for run in largest.drop_duplicates("dataset").itertuples():
        with _folder_of(run) as folder:
            yield run.dataset, open_run(folder, ["TRAINER.ATLAS.SOFT_LABELS", kind], prompts=False)


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


def _similarity(trainer):
    with quiet():
        return trainer.build_similarity().cpu().numpy()


def plot_matrix(matrix: np.ndarray, names: list[str], title: str, stem: Path) -> list[Path]:
    """Draw a (C, C) matrix as a heat map whose diagonal is left white, with names; write .png, .svg and .csv."""
    side = max(4.0, 0.17 * len(names) + 2)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel = figure.subplots()
    shown = np.where(np.eye(len(names), dtype=bool), np.nan, matrix)
    image = panel.imshow(shown, cmap="Greys", interpolation="nearest")
    shown_names = [literal(name) for name in names]
    panel.set_xticks(range(len(names)), shown_names, rotation=90, fontsize=7)
    panel.set_yticks(range(len(names)), shown_names, fontsize=7)
    panel.set_xlabel("gets this share")
    panel.set_ylabel("given label")
    panel.set_title(
        f"{literal(title)}\n(the diagonal, {matrix.diagonal().mean():.2f} on average, is left white)", fontsize=10
    )
    figure.colorbar(image, ax=panel, shrink=0.7, label="share")
    rows = [[name, *row.tolist()] for name, row in zip(names, matrix, strict=True)]
    return save(figure, stem, ["given label", *names], rows)


def plot_images(items, labels: np.ndarray, names: list[str], title: str, stem: Path) -> list[Path]:
    """Draw images with the five largest entries of their rows of `labels` (n, C); write .png, .svg and .csv."""
    figure = Figure(figsize=(11, 2.0 * ((len(items) + 1) // 2) + 0.5), layout="constrained")
    axes = list(figure.subplots((len(items) + 1) // 2, 4, squeeze=False, width_ratios=(1, 1.6, 1, 1.6)).flat)
    rows = []
    for number, (item, row) in enumerate(zip(items, labels, strict=True)):
        picture, bars = axes[2 * number], axes[2 * number + 1]
        picture.imshow(read_image(item.impath))
        picture.set_title(f"given: {literal(names[item.label])}", fontsize=9)
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
        bars.set_yticks(range(len(best)), [literal(names[c]) for c in best], fontsize=8)
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.set_xlabel("share", fontsize=8)
    for panel in axes:
        if not panel.patches:
            panel.axis("off")
    figure.suptitle(f"{literal(title)}; filled: the given label", fontsize=11)
    return save(figure, stem, ["image", "given label", "class", "share"], rows)
