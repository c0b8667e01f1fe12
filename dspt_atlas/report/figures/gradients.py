"""The gradient's norm against p_y: theory as lines, a run's training samples as points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from dspt_atlas.report.figures.style import add_legend, file_name, panels, save
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
            title = f"{run.dataset}, {run.shots} shots, labels {run.noise}: samples of {run.row}, epoch {last}"
            yield from plot_norms(samples, int(run.num_classes), title, out / stem)


def plot_norms(samples: list[dict], num_classes: int, title: str, stem: Path) -> list[Path]:
    """Draw norms by logits (with theory) and by prompts against p_y, one column per loss; write .png, .svg and .csv.

    samples: rows of a gradient profile, of one epoch.
    """
    figure, axes = panels(len(LOSSES), title, width=3.3, height=6.4, rows=2)
    p_y = torch.linspace(1e-4, 1 - 1e-4, 400, dtype=torch.float64)
    rows = [
        [s["loss"], kind, s["index"], s["wrong"], s["p_y"], s[f"{kind}_norm"]]
        for s in samples
        for kind in ("logit", "prompt")
    ]
    for (name, loss), logit, prompt in zip(LOSSES.items(), axes[: len(LOSSES)], axes[len(LOSSES) :], strict=True):
        for rivals, style, label in (
            (1, "-", "theory: one other class has the rest"),
            (num_classes - 1, "--", "theory: all other classes share the rest"),
        ):
            norms = theory(loss, p_y, num_classes, rivals)
            logit.plot(p_y, norms, "k", linestyle=style, lw=1.2, label=label, zorder=3)
            rows += [[name, label, "", "", *pair] for pair in zip(p_y.tolist(), norms.tolist(), strict=True)]
        for panel, kind in ((logit, "logit"), (prompt, "prompt")):
            for wrong, label, style in (
                ("0", "sample, right label", {"marker": "o", "facecolors": "none", "edgecolors": "#0072b2", "s": 14}),
                ("1", "sample, wrong label", {"marker": "x", "color": "#d55e00", "s": 16}),
            ):
                chosen = [s for s in samples if s["loss"] == name and s["wrong"] == wrong]
                xs, ys = ([float(s[key]) for s in chosen] for key in ("p_y", f"{kind}_norm"))
                panel.scatter(xs, ys, label=label, linewidths=0.8, **style)
        logit.set_title(name)
        logit.set_xlim(-0.03, 1.03)
        prompt.set_xlim(-0.03, 1.03)
        prompt.set_xlabel("$p_y$, probability of the given label")
    axes[0].set_ylabel("gradient norm, logits")
    axes[len(LOSSES)].set_ylabel("gradient norm, prompt")
    add_legend(figure, axes, most=1)
    return save(figure, stem, ["loss", "kind", "index", "wrong", "p_y", "norm"], rows)
