"""Curves over epochs and noise rates, from result.json files: the line is the mean over seeds, the band their range."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from dspt_atlas.report.figures.profiles import read_numbers
from dspt_atlas.report.figures.style import add_legend, draw_band, file_name, literal, look, panels, save
from dspt_atlas.results.read import Record, noise_kind, read_checked
from dspt_atlas.results.record import history_of
from dspt_atlas.results.rows import name_rows
from dspt_atlas.run.records import RESULT_FILE
from dspt_atlas.trainers.registry import pair_of

Run = tuple[Record, dict]  # a run, and what its result.json holds
Curves = dict[str, dict[str, dict[float, list[float]]]]  # {panel: {method: {x: [value of each seed]}}}
SUMMARY_FILE = "gradient_summary.csv"  # beside result.json
OWN_LOSS = {"CoOp": "CE", "CoCoOp": "CE", "MaPLe": "CE", "GCE": "GCE", "MAE": "MAE", "DSPT": "DSPT"}


def read_curves(folders: list[Path]) -> Curves:
    """Return {noise: {method: {epoch: [test accuracy of each seed]}}}; a method without epochs has the key 0.

    Raises UserError where a result cannot be read.
    """
    curves = new_curves()
    results = {folder: read_checked(folder / RESULT_FILE) for folder in folders}
    for record in name_rows([record for record, _ in results.values()])[0]:
        _add_test_accuracy(curves, record.noise, record.method, results[record.folder][1])
    return curves


def plot_curves(curves: Curves, title: str, stem: Path) -> list[Path]:
    """Draw accuracy over epochs, one panel a noise setting, one line a method; write .png, .svg and .csv."""
    curves = {f"training labels: {noise}": methods for noise, methods in curves.items()}
    return plot_panels(curves, title, stem, "epoch", "accuracy on the clean test set (%)", bottom=0)


def plot_panels(
    curves: Curves, title: str, stem: Path, x: str, y: str, shares: tuple[str, ...] = (), **limits: float
) -> list[Path]:
    """Draw one panel a key of `curves`, one line a method (level where it is known at x = 0 only); write the files.

    shares: the panels of fractions, whose y axis goes from 0 to 1; the others have one axis.
    """
    figure, axes = panels(len(curves), title, share_y=not shares)
    methods = list(dict.fromkeys(method for lines in curves.values() for method in lines))
    for panel, (name, lines) in zip(axes, curves.items(), strict=True):
        for method, points in lines.items():
            if set(points) == {0}:  # nothing is trained
                style = look(methods.index(method))
                level = statistics.fmean(points[0])
                panel.axhline(level, color=style["color"], linestyle=style["linestyle"], label=method)
            else:
                draw_band(panel, points, method, methods.index(method))
        panel.set_title(literal(name))
        panel.set_xlabel(x)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name in shares:
            panel.set_ylabel("share")
            panel.set_ylim(0, 1)
        elif shares and panel is not axes[0]:
            panel.sharey(axes[0])
            panel.tick_params(labelleft=False)
    axes[0].set_ylabel(y)
    axes[0].set_ylim(**limits)
    add_legend(figure, axes)
    rows = (
        [panel, method, at, statistics.fmean(values), min(values), max(values), len(values)]
        for panel, lines in curves.items()
        for method, points in lines.items()
        for at, values in sorted(points.items())
    )
    return save(figure, stem, ["panel", "method", x, "mean", "min", "max", "seeds"], rows)


def new_curves() -> Curves:
    """Return empty curves that grow by themselves."""
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))


def _add_test_accuracy(curves: Curves, panel: str, method: str, result: dict) -> None:
    points = {
        entry["epoch"]: entry["test_accuracy"] for entry in history_of(result) if _is_number(entry.get("test_accuracy"))
    }
    for epoch, accuracy in (points or {0: result["accuracy"]}).items():
        curves[panel][method][epoch].append(accuracy)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _trained(runs: list[Run], *fields: str) -> dict[tuple, list[Run]]:
    """Return the runs that trained or are zero-shot, by data set, shots, classes and further fields of the records."""
    groups = defaultdict(list)
    for record, result in sorted(runs, key=lambda run: (run[0].method, run[0].seed)):
        if not (result.get("evaluated") or {}).get("model_dir"):
            key = (record.dataset, record.shots, record.subsample, *(getattr(record, field) for field in fields))
            groups[key].append((record, result))
    return groups


def _title(dataset: str, shots: int, subsample: str, *more: str) -> str:
    return ", ".join([dataset, f"{shots} shots", *_classes(subsample), *more])


def _classes(subsample: str) -> list[str]:
    return [] if subsample == "all" else [f"{subsample} classes"]


def accuracy_by_epoch(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw the test accuracy over epochs (TEST.PERIOD), one panel a noise setting."""
    for (dataset, shots, subsample), group in _trained(runs).items():
        curves = new_curves()
        for record, result in group:
            _add_test_accuracy(curves, record.noise, record.method, result)
        curves = {panel: lines for panel, lines in curves.items() if any(set(line) != {0} for line in lines.values())}
        if curves:
            stem = out / file_name("accuracy_by_epoch", dataset, *_classes(subsample), f"{shots}shots")
            yield from plot_curves(curves, _title(dataset, shots, subsample), stem)


def noise_rate(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw the accuracy against the noise rate, one panel a noise type; clean runs of its methods are rate 0."""
    for (dataset, shots, classes), group in _trained([run for run in runs if run[0].subsample == "all"]).items():
        curves, clean = new_curves(), defaultdict(list)
        for record, _ in group:
            if record.noise == "clean":
                clean[record.method].append(record.values["accuracy"])
            else:
                panel = record.noise.replace(noise_kind(record.noise_type, record.noise_rate), record.noise_type, 1)
                curves[panel][record.method][100 * record.noise_rate].append(record.values["accuracy"])
        for lines in curves.values():
            has_zero_shot = any(method.startswith("Zeroshot") for method in lines)
            for method, values in clean.items():
                if method in lines or (method.startswith("Zeroshot") and not has_zero_shot):
                    lines[method][0.0] = values
        if any(len(line) > 1 for lines in curves.values() for line in lines.values()):
            curves = {f"noise: {noise}": dict(sorted(lines.items())) for noise, lines in curves.items()}
            stem = out / file_name("noise_rate", dataset, f"{shots}shots")
            y = "accuracy on the clean test set (%)"
            yield from plot_panels(
                curves, _title(dataset, shots, classes), stem, "wrong training labels (%)", y, bottom=0
            )


def memorisation(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw over epochs how rightly and wrongly labelled training samples are predicted while they are learned."""
    names = {
        "right_accuracy": "right labels: predicted as given",
        "wrong_memorised": "wrong labels: predicted as given (memorised)",
        "wrong_corrected": "wrong labels: predicted as the true class",
    }
    for (dataset, shots, classes, noise), group in _trained(runs, "noise").items():
        curves = _history_curves(group, names)
        if curves:
            stem = out / file_name("memorisation", dataset, *_classes(classes), noise, f"{shots}shots")
            title = _title(dataset, shots, classes, noise)
            yield from plot_panels(curves, title, stem, "epoch", "training samples (%)", bottom=0, top=100)


def base_new(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw accuracy on base and new classes over epochs (TEST.PERIOD, TEST.NEW_CLASSES), a figure a learner."""
    names = {"test_accuracy": "base classes", "new_accuracy": "new classes"}
    for (dataset, shots, _, noise), group in _trained(runs, "noise").items():
        learners = defaultdict(list)
        for record, result in group:
            if any("new_accuracy" in entry for entry in history_of(result)):
                learners[pair_of(result["trainer"]).learner].append((record, result))
        for learner, members in learners.items():
            stem = out / file_name("base_new", dataset, learner, noise, f"{shots}shots")
            title = _title(dataset, shots, "all", learner, f"labels {noise}")
            yield from plot_panels(_history_curves(members, names), title, stem, "epoch", "test accuracy (%)")


def gradient_epochs(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw mean norms of samples' gradients by the logits over epochs (TRAIN.GRADIENT_PROFILE), own loss of each."""
    yield from _gradients_by_epoch(runs, out, ("gradient_epochs", "logits"), _logged_gradients)


def prompt_gradient_epochs(runs: list[Run], out: Path) -> Iterator[Path]:
    """Draw mean norms of the samples' gradients by the prompt at each profiled checkpoint, own loss of each run."""
    yield from _gradients_by_epoch(runs, out, ("prompt_gradient_epochs", "prompt"), _profiled_gradients, "prompt_")


def _gradients_by_epoch(runs, out, figure, read, prefix=""):
    name, of = figure
    names = {
        f"{prefix}right": "right labels",
        f"{prefix}wrong": "wrong labels",
        f"{prefix}wrong_share": "share of wrong labels in all norms",
    }
    for (dataset, shots, classes, noise), group in _trained(runs, "noise").items():
        profiled = [(record, {"history": list(read(record, result))}) for record, result in group]
        curves = _history_curves(profiled, names)
        if curves:
            stem = out / file_name(name, dataset, *_classes(classes), noise, f"{shots}shots")
            title = _title(dataset, shots, classes, noise, f"gradient with respect to the {of}")
            shares = (names[f"{prefix}wrong_share"],)
            yield from plot_panels(curves, title, stem, "epoch", "mean gradient norm", shares, bottom=0)


def _logged_gradients(record, result):
    loss = own_loss(result["trainer"])
    for entry in history_of(result):
        gradient = entry.get("gradient")
        if loss and isinstance(gradient, dict) and isinstance(gradient.get(loss), dict):
            yield {**gradient[loss], "epoch": entry["epoch"]}


def _profiled_gradients(record, result):
    """Yield the lines of the run's summary (`dspt-atlas profile`) that are of its own loss."""
    path, loss = record.folder / SUMMARY_FILE, own_loss(result["trainer"])
    for line in read_numbers(path, ("loss",)) if path.is_file() else ():
        if line.pop("loss") == loss:
            yield line


def own_loss(trainer: str) -> str | None:
    """Return which of the profiled losses a trainer minimises, None for another one."""
    learner = pair_of(trainer).learner
    return OWN_LOSS.get(trainer.removeprefix(learner) or learner)


def _history_curves(runs: list[Run], names: dict[str, str]) -> Curves:
    """Return {name: {method: {epoch: values}}} of history entries; what is absent or None is left out."""
    curves = new_curves()
    for key, name in names.items():
        for record, result in runs:
            for entry in history_of(result):
                if _is_number(entry.get(key)):
                    curves[name][record.method][entry["epoch"]].append(entry[key])
    return curves
