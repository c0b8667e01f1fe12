"""Prompt learners side by side: a row per learner, a mark per method, a panel per setting."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dspt_atlas.report.figures.style import add_legend, file_name, literal, look, panels, save

PANELS = {"base": "base classes", "new": "new classes"}


def learners(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw each prompt learner's accuracy by method: after training by given labels, and on base and new classes."""
    at_home = runs["source"].isna() | (runs["source"] == runs["dataset"])
    own = runs.loc[at_home & runs["learns"].astype(bool)]
    panel = ("labels " + own["noise"]).where(own["subsample"] == "all", own["subsample"].map(PANELS))
    label = [
        row.replace(f"{learner}{'' if method == 'CE' else method}", method, 1)
        for row, learner, method in zip(own["row"], own["learner"], own["method"], strict=True)
    ]
    own = own.assign(panel=panel, label=label, is_part=own["subsample"] != "all")
    own = own.sort_values(["is_part", "panel", "seed"], kind="stable")
    for (dataset, shots), group in own.groupby(["dataset", "shots"], sort=False):
        if group["learner"].nunique() > 1:
            stem = out / file_name("learners", dataset, f"{shots}shots")
            yield from _plot(group, f"{dataset}, {shots} shots", stem)


def _plot(group, title, stem):
    names, labels = sorted(set(group["learner"]), key=str.lower), sorted(set(group["label"]))
    settings = list(dict.fromkeys(group["panel"]))
    figure, axes = panels(len(settings), title, width=3.6, height=1.6 + 0.3 * len(names))
    lines = []
    for axis, setting in zip(axes, settings, strict=True):
        own = group[group["panel"] == setting]
        for (learner, label), found in own.groupby(["learner", "label"], sort=False):
            number, values = labels.index(label), list(found["accuracy"])
            at = names.index(learner) + 0.5 * ((number + 1) / (len(labels) + 1) - 0.5)
            style = {key: value for key, value in look(number).items() if key != "linestyle"}
            axis.plot([min(values), max(values)], [at, at], color=style["color"], lw=1)
            axis.plot(statistics.fmean(values), at, linestyle="", ms=5, label=label, **style)
            lines.append([setting, learner, label, statistics.fmean(values), min(values), max(values), len(values)])
        axis.set_title(literal(setting))
        axis.set_xlabel("accuracy on the clean test set (%)")
        axis.set_yticks(range(len(names)), [literal(name) for name in names])
    axes[0].invert_yaxis()
    add_legend(figure, axes)
    return save(figure, stem, ["panel", "learner", "method", "mean", "min", "max", "seeds"], lines)
