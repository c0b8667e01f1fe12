"""Training samples whose label the model contradicts, the most probable errors first: `dspt-atlas labels`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home
from dspt_atlas.results.cells import write_csv

NOTE = "A trained run judges images that it was trained on; zero-shot CLIP (--zero-shot) was not trained on them."


def self_confidence(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return p_y, (N,), of probabilities (N, C) and given labels (N,); cleanlab's `self_confidence`.

    >>> self_confidence(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 1]))
    array([0.9, 0.3])
    """
    return probs[np.arange(len(labels)), labels]


def normalized_margin(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return (p_y - max_{k != y} p_k + 1) / 2, (N,) in [0, 1]; cleanlab's `normalized_margin`.

    Below 0.5 the model predicts another class than the given one.

    >>> normalized_margin(np.array([[0.75, 0.25], [0.75, 0.25]]), np.array([0, 1]))
    array([0.75, 0.25])
    """
    others = probs.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return (self_confidence(probs, labels) - others.max(axis=1) + 1) / 2


SCORES = {"normalized_margin": normalized_margin, "self_confidence": self_confidence}


@dataclass
class LabelErrors:
    """A model's judgement of given labels (N,): probabilities (N, C), and quality (N,), which is low if it contradicts.

    `is_issue` (N,): another class is predicted. `clean` (N,) are the true labels, or None if they are not known.
    `cleanlab` (N,) is the result of its `find_label_issues` on the same probabilities, or None if it is not installed.
    """

    paths: list[str]
    names: list[str]
    given: np.ndarray
    clean: np.ndarray | None
    probs: np.ndarray
    quality: np.ndarray
    is_issue: np.ndarray
    cleanlab: np.ndarray | None

    @property
    def order(self) -> np.ndarray:
        """Return the indices of the samples, the most probable label errors first."""
        return np.argsort(self.quality, kind="stable")

    def rows(self):
        """Yield the table's rows in that order, under COLUMNS."""
        predicted = self.probs.argmax(axis=1)
        margins, confidences = (score(self.probs, self.given) for score in SCORES.values())
        for rank, i in enumerate(self.order, 1):
            given, clean = self.names[self.given[i]], None if self.clean is None else self.names[self.clean[i]]
            yield [
                rank, i, self.paths[i], given, self.names[predicted[i]], self.quality[i], confidences[i], margins[i],
                int(self.is_issue[i]), None if self.cleanlab is None else int(self.cleanlab[i]), clean,
                None if self.clean is None else int(self.given[i] != self.clean[i]),
            ]  # fmt: skip

    @property
    def frame(self) -> pd.DataFrame:
        """Return the rows as a data frame."""
        return pd.DataFrame(self.rows(), columns=list(COLUMNS))

    def agreement(self):
        """Yield precision and recall against the known wrong labels, in percent, for our rule and cleanlab's.

        A further row is for as many of the worst samples as labels are wrong. AUROC is that of the quality. A figure
        without a meaning is None.
        """
        from sklearn.metrics import precision_score, recall_score, roc_auc_score  # slow to load, as below

        wrong = self.clean != self.given
        worst = np.zeros_like(wrong)
        worst[self.order[: wrong.sum()]] = True
        auroc = 100 * roc_auc_score(wrong, -self.quality) if 0 < wrong.sum() < len(wrong) else None
        nothing: Any = 0  # scikit-learn's own default is a word
        found = {"another class predicted": self.is_issue, f"worst {wrong.sum()}": worst}
        if self.cleanlab is not None:
            found["cleanlab find_label_issues"] = self.cleanlab
        for name, mask in found.items():
            rates = [score(wrong, mask, zero_division=nothing) for score in (precision_score, recall_score)]
            yield [name, int(mask.sum()), *(100 * rate for rate in rates), None if mask is self.cleanlab else auroc]


COLUMNS = (
    "rank", "index", "path", "given_label", "predicted_label", "label_quality", "self_confidence", "normalized_margin",
    "is_label_issue", "cleanlab_issue", "clean_label", "is_wrong",
)  # fmt: skip


def label_errors(
    run: str | os.PathLike, zero_shot: bool = False, score: str = "normalized_margin", root: str = ""
) -> pd.DataFrame:
    """Return the table of `dspt-atlas labels RUN`, the most probable errors first; nothing is written.

    zero_shot: untrained zero-shot CLIP judges the run's labels. root: folder of the data sets, "" for the run's. Raises
    UserError.
    """
    from dspt_atlas.run.trained import process_unchanged

    if score not in SCORES:
        raise UserError(f"Expected score to be one of {', '.join(SCORES)}, got {score!r}.")
    with process_unchanged():
        return find_label_errors(_judge(expand_home(run), zero_shot, root), score).frame


def _judge(run, zero_shot=False, root="", pairs=()):
    """Return the trainer that judges a run's labels."""
    from dspt_atlas.run.trained import open_run

    pairs = ["TRAINER.NAME", "ZeroshotCLIP", *pairs] if zero_shot else pairs
    return open_run(run, pairs, root, prompts=not zero_shot)


def find_label_errors(trainer, score: str = "normalized_margin") -> LabelErrors:
    """Return the judgement of a trainer's current model on its training labels."""
    from dspt_atlas.run.trained import probabilities

    items = trainer.dm.dataset.train_x
    noise = getattr(trainer.dm.dataset, "noise", None)
    given = np.array([item.label for item in items])
    probs = probabilities(trainer, items)
    return LabelErrors(
        paths=[item.impath for item in items],
        names=trainer.dm.dataset.classnames,
        given=given,
        clean=None if noise is None else np.array(noise.clean),
        probs=probs,
        quality=SCORES[score](probs, given),
        is_issue=probs.argmax(axis=1) != given,
        cleanlab=cleanlab_issues(given, probs),
    )


def cleanlab_issues(labels: np.ndarray, probs: np.ndarray) -> np.ndarray | None:
    """Return the mask (N,) of cleanlab's `find_label_issues` with its defaults, or None if it is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return None
    return find_label_issues(labels, probs.astype(np.float64), n_jobs=1)


def contact_sheet(errors: LabelErrors, path: Path, count: int = 25) -> Path:
    """Draw the most probable label errors with given, predicted and (if known) true label; write a PNG."""
    from dspt_atlas.report.contact_sheet import draw_sheet

    def text(i):
        predicted = errors.probs[i].argmax()
        lines = [f"given: {errors.names[errors.given[i]]}"]
        lines.append(f"model: {errors.names[predicted]} {errors.probs[i, predicted]:.2f}")
        if errors.clean is not None:
            is_wrong = errors.clean[i] != errors.given[i]
            lines.append(f"true: {errors.names[errors.clean[i]]}" if is_wrong else "given label is right")
        return "\n".join(lines)

    return draw_sheet([(errors.paths[i], text(i)) for i in errors.order[:count]], path)


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas labels`."""
    parser = Parser(
        "labels",
        example="output/emoji --zero-shot --worst 50",
        more=f"Give a run, or a data set. It writes label_errors.csv and a contact sheet of the worst. {NOTE}",
        pairs=True,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", type=Path, help="output folder of a training run")
    parser.add_argument("--zero-shot", action="store_true", help="ask untrained zero-shot CLIP about the run's labels")
    parser.add_argument("--dataset", default="", help="without RUN: name from configs/datasets, or a yaml")
    parser.add_argument("--config", default="", help="without RUN: configuration of the backbone, name or yaml")
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")
    parser.add_argument("--score", choices=SCORES, default="normalized_margin")
    parser.add_argument("--worst", type=int, default=25, help="images on the contact sheet (default: 25)")
    parser.add_output("folder to write to (default: the run's, or label_errors)")
    return parser


def print_label_errors(options) -> None:
    """Write the ranking and the contact sheet and print the findings; raises UserError."""
    from dspt_atlas.run.trained import open_zero_shot
    from dspt_atlas.trainers.registry import pair_of

    if bool(options.run) == bool(options.dataset):
        raise UserError(
            "Expected a run's folder, or --dataset NAME for zero-shot CLIP on a data set: give one of the two."
        )
    if options.worst < 1:
        raise UserError(f"Expected --worst of at least 1, got {options.worst}.")
    if options.run:
        trainer = _judge(options.run, options.zero_shot, options.root, options.pairs)
    else:
        trainer = open_zero_shot(options.dataset, options.config, options.root, options.pairs)
    errors = find_label_errors(trainer, options.score)
    out = options.output or options.run or Path("label_errors")
    name = "label_errors_zero_shot" if options.run and options.zero_shot else "label_errors"
    write_csv(out / f"{name}.csv", COLUMNS, errors.rows())
    contact_sheet(errors, out / f"{name}.png", options.worst)
    print(f"{errors.is_issue.sum()} of {len(errors.given)} training samples have another predicted label than given")
    if errors.clean is not None:
        wrong = int((errors.clean != errors.given).sum())
        header = [f"against {wrong} known wrong labels", "found", "precision %", "recall %", "AUROC %"]
        print(tabulate(errors.agreement(), header, floatfmt=".1f", missingval="–"))
    elif errors.cleanlab is not None:
        both = int((errors.cleanlab & errors.is_issue).sum())
        print(f"cleanlab's find_label_issues finds {errors.cleanlab.sum()}, {both} of them among these")
    if errors.cleanlab is None:
        print("cleanlab is not installed, so there is no comparison with it: pip install cleanlab")
    if pair_of(trainer.cfg.TRAINER.NAME).learns:
        print(f"Note: {NOTE}")
    print(f"{out / name}.csv\n{out / name}.png")


main = main_of(build_parser, print_label_errors)
