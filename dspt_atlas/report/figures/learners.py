"""Prompt learners side by side: a row per learner, a mark per method, a panel per setting."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from dspt_atlas.report.figures.curves import ACCURACY_ON_TEST, title_of
from dspt_atlas.report.figures.style import add_legend, file_name, literal, looks, name_panel, panels, save
from dspt_atlas.results.order import METHODS, in_order, place

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
    for (dataset, shots), group in own.groupby(["dataset", "shots"], sort=False):
        if group["learner"].nunique() > 1:
            stem = out / file_name("learners", dataset, f"{shots}shots")
            yield from _plot(in_order(group), title_of(group), stem)


def _plot(group, title, stem):
    names, methods = list(dict.fromkeys(group["learner"])), group.sort_values("method", key=_places, kind="stable")
    methods = dict(zip(methods["label"], methods["method"], strict=True))
    labels, styles = list(methods), looks(methods)
    settings = list(dict.fromkeys(group.sort_values(["is_part", "panel"], kind="stable")["panel"]))
    figure, axes = panels(len(settings), title, height=1.0 + 0.2 * len(names))
    lines = []
    for axis, setting in zip(axes, settings, strict=True):
        own = group[group["panel"] == setting]
        for (learner, label), found in own.groupby(["learner", "label"], sort=False):
            number, values = labels.index(label), list(found["accuracy"])
            at = names.index(learner) + 0.5 * ((number + 1) / (len(labels) + 1) - 0.5)
            axis.plot([min(values), max(values)], [at, at], color=styles[label]["color"], lw=1)
            axis.plot(statistics.fmean(values), at, label=label, **{**styles[label], "linestyle": ""})
            lines.append([setting, learner, label, statistics.fmean(values), min(values), max(values), len(values)])
        name_panel(axis, setting, ACCURACY_ON_TEST)
        axis.set_yticks(range(len(names)), [literal(name) for name in names])
    axes[0].invert_yaxis()
    add_legend(figure, axes)
    return save(figure, stem, ["panel", "learner", "method", "mean", "min", "max", "seeds"], lines)


def _places(methods: pd.Series) -> pd.Series:
    return methods.map(lambda method: place(method, METHODS))
