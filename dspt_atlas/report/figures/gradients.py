"""The gradient's norm against p_y: theory as lines, a run's training samples as points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dspt_atlas.report.figures.curves import title_of
from dspt_atlas.report.figures.style import COLOURS, add_legend, file_name, name_panel, panels, save
from dspt_atlas.results.cells import read_numbers
from dspt_atlas.trainers.gradients import LOSSES, logit_gradients

PROFILE_FILE = "gradient_profile.csv"  # next to result.json


def theory(loss, p_y: torch.Tensor, num_classes: int, rivals: int) -> torch.Tensor:
    """Return the norm of dL/dz, (N,), if `rivals` other classes share 1 - p_y (N,) equally and no class has more."""
    p = torch.full((len(p_y), num_classes), 1e-30, dtype=torch.float64)
    p[:, 0] = p_y
    p[:, 1 : rivals + 1] = ((1 - p_y) / rivals)[:, None]
    label = torch.zeros(len(p_y), dtype=torch.int64)
    return logit_gradients(loss, p.log(), label).norm(dim=1)


def gradient_norm(runs: pd.DataFrame, out: Path) -> Iterator[Path]:
    """Draw the norms in each run's gradient_profile.csv (`dspt-atlas profile`), its last profiled epoch."""
    for run in runs[runs["num_classes"].notna()].itertuples():
        path = run.folder / PROFILE_FILE
        if path.is_file():
            samples = read_numbers(path, ("loss", "index", "wrong"))
            last = max((sample["epoch"] for sample in samples), default=0)
            samples = [sample for sample in samples if sample["epoch"] == last]
            where = (run.dataset, "" if run.subsample == "all" else run.subsample, run.row, run.noise)
            stem = file_name("gradient_norm", *where, f"{run.shots}shots", f"seed{run.seed}")
            title = title_of(runs.loc[[run.Index]], f"labels {run.noise}")
            yield from plot_norms(
                samples, int(run.num_classes), f"{title}: samples of {run.row}, epoch {last}", out / stem
            )


def plot_norms(samples: list[dict], num_classes: int, title: str, stem: Path) -> list[Path]:
    """Draw norms by logits (with theory) and by prompts against p_y, above each other for each loss; write the files.

    samples: rows of a gradient profile, of one epoch.
    """
    figure, pairs = _pairs_of_panels(len(LOSSES), title)
    p_y = torch.linspace(1e-4, 1 - 1e-4, 400, dtype=torch.float64)
    rows = [
        [s["loss"], kind, s["index"], s["wrong"], s["p_y"], s[f"{kind}_norm"]]
        for s in samples
        for kind in ("logit", "prompt")
    ]
    for (name, loss), (logit, prompt) in zip(LOSSES.items(), pairs, strict=True):
        for rivals, style, label in (
            (1, "-", "theory: one other class has the rest"),
            (num_classes - 1, "--", "theory: all other classes share the rest"),
        ):
            norms = theory(loss, p_y, num_classes, rivals)
            logit.plot(p_y, norms, "k", linestyle=style, lw=1.2, label=label, zorder=3)
            rows += [[name, label, "", "", *pair] for pair in zip(p_y.tolist(), norms.tolist(), strict=True)]
        for panel, kind in ((logit, "logit"), (prompt, "prompt")):
            for wrong, label, style in (
                ("0", "sample, right label", {"marker": "o", "facecolors": "none", "edgecolors": COLOURS[0], "s": 7}),
                ("1", "sample, wrong label", {"marker": "x", "color": COLOURS[1], "s": 8}),
            ):
                chosen = [s for s in samples if s["loss"] == name and s["wrong"] == wrong]
                xs, ys = ([float(s[key]) for s in chosen] for key in ("p_y", f"{kind}_norm"))
                panel.scatter(xs, ys, label=label, linewidths=0.6, **style)
        is_first = logit.get_subplotspec().is_first_col()
        name_panel(logit, name, "", "gradient norm, logits" if is_first else "")
        name_panel(prompt, "", "probability of the given label", "gradient norm, prompt" if is_first else "")
        logit.set_xlim(-0.03, 1.03)
        prompt.set_xlim(-0.03, 1.03)
    add_legend(figure, [panel for pair in pairs for panel in pair])
    return save(figure, stem, ["loss", "kind", "index", "wrong", "p_y", "norm"], rows)


def _pairs_of_panels(count: int, title: str) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Return a figure and so many pairs of panels, one above the other, as many beside each other as can be read."""
    across = min(count, max(2, int(rcParams["figure.figsize"][0] // 1.6)))
    rows = -(-count // across)
    figure, axes = panels(2 * across * rows, title, height=1.7, across=across, share_y="row")
    pairs = [
        (axes[2 * across * row + column], axes[2 * across * row + across + column])
        for row in range(rows)
        for column in range(across)
    ]
    for panel in (panel for pair in pairs[count:] for panel in pair):
        panel.remove()
    return figure, pairs[:count]
