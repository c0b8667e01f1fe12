"""What a run's model does with every image of a split, and what its prompts are near to: `dspt-atlas inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.results.cells import write_csv
from dspt_atlas.tools.predict import best_classes

SPLITS = {"train": "train_x", "val": "val", "test": "test"}
PER_SHEET = 48  # images on one contact sheet
SHOWN = 30  # classes that are printed
NAMED = 100  # classes whose names stand on a picture of the confusion matrix


@dataclass
class Judged:
    """A model's judgement of a split: paths and labels (N,), probabilities (N, C), class names."""

    paths: list[str]
    labels: np.ndarray
    probs: np.ndarray
    names: list[str]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, (N,)."""
        return self.probs.argmax(axis=1)

    @property
    def wrong(self) -> np.ndarray:
        """The indices of misclassified images, the most confident first."""
        indices = np.flatnonzero(self.predicted != self.labels)
        return indices[np.argsort(-self.probs[indices].max(axis=1), kind="stable")]

    @property
    def confusion(self) -> np.ndarray:
        """Counts (C, C); rows are the labels, columns the predictions."""
        from sklearn.metrics import confusion_matrix  # slow to load

        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.names)))

    def rows(self, top: int):
        """Yield path, label, prediction, whether it is right, and the `top` best classes with their probabilities."""
        for path, label, guess, probs in zip(self.paths, self.labels, self.predicted, self.probs, strict=True):
            best = [value for each in best_classes(probs, self.names, top) for value in each.values()]
            yield [path, self.names[label], self.names[guess], int(label == guess), *best]

    def classes(self):
        """Yield class, images, right ones, accuracy in percent, and what the others are mostly taken for."""
        for name, (label, counts) in zip(self.names, enumerate(self.confusion), strict=True):
            total, right = counts.sum(), counts[label]
            counts[label] = 0
            other = self.names[counts.argmax()] if counts.any() else None
            yield [name, int(total), int(right), 100 * right / total if total else None, other]


CLASS_COLUMNS = ("class", "images", "right", "accuracy", "mostly_taken_for")


def judge(trainer, split: str) -> Judged:
    """Return a trainer's judgement of a split; raises UserError if it has no images."""
    from dspt_atlas.run.trained import probabilities

    dataset = trainer.dm.dataset
    items = getattr(dataset, SPLITS[split]) or []
    if not items:
        raise UserError(f"{trainer.cfg.DATASET.NAME} has no {split} images: choose another --split.")
    labels = np.array([item.label for item in items])
    return Judged([item.impath for item in items], labels, probabilities(trainer, items), list(dataset.classnames))


def write_judged(judged: Judged, split: str, out: Path, top: int, most: int) -> list[Path]:
    """Write predictions, classes, confusion matrix and sheets of at most so many wrong images; return the files."""
    from dspt_atlas.report.contact_sheet import draw_sheet

    best = [name for rank in range(1, min(top, len(judged.names)) + 1) for name in (f"class_{rank}", f"prob_{rank}")]
    paths = [out / f"{split}.csv", out / f"{split}_classes.csv"]
    write_csv(paths[0], ["path", "label", "prediction", "is_right", *best], judged.rows(top))
    write_csv(paths[1], CLASS_COLUMNS, judged.classes())
    paths += draw_confusion(judged, out / f"{split}_confusion")
    shown = judged.wrong[:most]
    for number, start in enumerate(range(0, len(shown), PER_SHEET), 1):
        pictures = [(judged.paths[i], _text(judged, i)) for i in shown[start : start + PER_SHEET]]
        paths.append(draw_sheet(pictures, out / f"{split}_wrong_{number}.png"))
    return paths


def _text(judged, i):
    guess = judged.predicted[i]
    return (
        f"{Path(judged.paths[i]).name}\nlabel: {judged.names[judged.labels[i]]}\n"
        f"model: {judged.names[guess]} {judged.probs[i, guess]:.2f}"
    )


def draw_confusion(judged: Judged, stem: Path) -> list[Path]:
    """Draw the confusion matrix, each row as shares of its class; write PNG, SVG and the counts as CSV."""
    from matplotlib.figure import Figure

    from dspt_atlas.report.figures.style import literal, save

    counts, names = judged.confusion, judged.names
    side = 3 + 0.17 * min(len(names), NAMED)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel = figure.subplots()
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    picture = panel.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    figure.colorbar(picture, label="share of the images with this label", shrink=0.8)
    panel.set(xlabel="prediction", ylabel="label")
    if len(names) <= NAMED:
        texts = list(map(literal, names))
        panel.set_xticks(range(len(names)), texts, rotation=90, fontsize=7)
        panel.set_yticks(range(len(names)), texts, fontsize=7)
    rows = ([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    return save(figure, stem, ["label, then prediction", *names], rows)


def write_words(trainer, out: Path, count: int) -> list[Path]:
    """Write and print the words nearest to each learned token; nothing for a run without a learned context."""
    from dspt_atlas.trainers.words import NearestWord, nearest_words

    if not (found := nearest_words(trainer.model, trainer.dm.dataset.classnames, count)):
        print(f"{trainer.cfg.TRAINER.NAME} learns no context of words: no nearest words")
        return []
    write_csv(out / "nearest_words.csv", NearestWord._fields, found)
    lines: dict[tuple, list] = {}
    for word in found:
        lines.setdefault((word.classname, word.token), []).append(f"{word.word} {word.distance:.3f}")
    shown = [[*key, ", ".join(words)] for key, words in list(lines.items())[:SHOWN]]
    print(tabulate(shown, ["class", "token", "nearest words, with Euclidean distance"], disable_numparse=True))
    return [out / "nearest_words.csv"]


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas inspect`."""
    parser = Parser(
        "inspect",
        example="output/emoji --split test val",
        more="It writes predictions, misclassified images, confusion matrix, accuracy per class, and nearest words.",
        pairs=True,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="output folder of a training run")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"], help="(default: test)")
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")
    parser.add_load_epoch()
    parser.add_argument("--top-k", type=int, default=5, help="classes per image (default: 5)")
    parser.add_argument("--images", type=int, default=192, help="misclassified images on sheets (default: 192)")
    parser.add_argument("--nearest", type=int, default=5, help="words per learned token (default: 5)")
    parser.add_output("folder to write to (default: inspect in the run's folder)")
    return parser


def inspect(options) -> None:
    """Write and print all of it; raises UserError."""
    from dspt_atlas.run.trained import open_run

    if low := [name for name in ("top_k", "images", "nearest") if getattr(options, name) < 1]:
        raise UserError(f"Expected --{low[0].replace('_', '-')} of at least 1, got {getattr(options, low[0])}.")
    trainer = open_run(options.run, options.pairs, options.root, options.load_epoch)
    found = {split: judge(trainer, split) for split in dict.fromkeys(options.split)}
    out = options.output or options.run / "inspect"
    paths = []
    for split, judged in found.items():
        if options.output is None:  # of an earlier look at another epoch
            for old in out.glob(f"{split}_wrong_*.png"):
                old.unlink()
        paths += write_judged(judged, split, out, options.top_k, options.images)
        right = len(judged.labels) - len(judged.wrong)
        print(f"{split}: {right} of {len(judged.labels)} right ({100 * right / len(judged.labels):.1f}%)")
        worst = sorted((row for row in judged.classes() if row[1]), key=lambda row: row[3])[:SHOWN]
        print(tabulate(worst, CLASS_COLUMNS, floatfmt=".1f"))
    paths += write_words(trainer, out, options.nearest)
    print(*paths, sep="\n")


main = main_of(build_parser, inspect)
