"""Labels that a model contradicts, the most probable errors first: `dspt-atlas labels`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from dspt_atlas.commands import Parser, command_line
from dspt_atlas.digests import text_digest
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, write_atomically
from dspt_atlas.results.cells import write_csv
from dspt_atlas.tools.labels import apply
from dspt_atlas.tools.labels.errors import COLUMNS, SCORES, UNKNOWN, LabelErrors

FOLDS = 5
ON_SHEET = 24  # images on the contact sheet
JUDGES = {  # the words of each choice, and the ending of its files
    "cross-fitted": ("a classifier of frozen image features that did not learn from the image judged", ""),
    "run": ("the run, which learned from these images", "_run"),
    "zero-shot": ("zero-shot CLIP, which learned from no label", "_zero_shot"),
}


def label_errors(
    run: str | os.PathLike,
    zero_shot: bool = False,
    score: str = "normalized_margin",
    root: str = "",
    judge: str = "cross-fitted",
    folds: int = FOLDS,
) -> pd.DataFrame:
    """Return the table of `dspt-atlas labels RUN`, the most probable errors first; nothing is written.

    judge: "cross-fitted" judges all images of all splits, each by a classifier that did not learn from it, in `folds`;
    "run" and "zero-shot" (zero_shot=True) judge the labels that the run learned from. root: folder of the data sets, ""
    for the run's. Raises UserError.
    """
    from dspt_atlas.run.trained import process_unchanged

    for name, value, choices in (("score", score, SCORES), ("judge", judge, JUDGES)):
        if value not in choices:
            raise UserError(f"Expected {name} to be one of {', '.join(choices)}, got {value!r}.")
    with process_unchanged():
        return _judged(expand_home(run), "zero-shot" if zero_shot else judge, score, folds, root).frame


def _judged(run, judge, score, folds, root="", pairs=()) -> LabelErrors:
    """Return the judgement of a run's labels."""
    from dspt_atlas.run.trained import open_run

    is_run = judge == "run"
    pairs = pairs if is_run else ["TRAINER.NAME", "ZeroshotCLIP", *pairs]
    return _judgement(open_run(run, pairs, root, prompts=is_run), judge, score, folds)


def _judgement(trainer, judge, score, folds) -> LabelErrors:
    from dspt_atlas.tools.labels.judge import judge_all, judge_training

    if not isinstance(folds, int) or folds < 2:
        raise UserError(f"Expected at least 2 folds, got {folds!r}: an image must not judge itself.")
    labels, probs = judge_all(trainer, folds) if judge == "cross-fitted" else judge_training(trainer)
    return LabelErrors(labels, probs, score)


def contact_sheet(errors: LabelErrors, path: Path, count: int = ON_SHEET) -> Path:
    """Draw the most probable label errors with given, predicted and (if known) true label; write a PNG."""
    from dspt_atlas.report.contact_sheet import draw_sheet

    labels = errors.labels

    def text(i):
        predicted = errors.predicted[i]
        lines = [f"given: {labels.names[labels.given[i]]}"]
        lines.append(f"model: {labels.names[predicted]} {errors.probs[i, predicted]:.2f}")
        if labels.clean is not None and labels.clean[i] != UNKNOWN:
            is_wrong = labels.clean[i] != labels.given[i]
            lines.append(f"true: {labels.names[labels.clean[i]]}" if is_wrong else "given label is right")
        return "\n".join(lines)

    return draw_sheet([(labels.paths[i], text(i)) for i in errors.order[:count]], path)


def decisions_page(errors: LabelErrors, path: Path, count: int, name: str, judge: str, command: str) -> Path:
    """Write the page on which a person decides on the most probable label errors."""
    from dspt_atlas.report.page.decisions import Doubt, render_decisions_page

    labels = errors.labels
    doubts = (
        Doubt(
            rank,
            labels.splits[i],
            labels.paths[i],
            labels.names[labels.given[i]],
            labels.names[errors.predicted[i]],
            float(errors.probs[i, labels.given[i]]),
            float(errors.probs[i, errors.predicted[i]]),
        )
        for rank, i in enumerate(errors.order[:count], 1)
    )
    title = f"Doubtful labels of {name}"
    known_by = text_digest([*labels.names, *zip(labels.paths, labels.given.tolist(), strict=True)])
    page = render_decisions_page(title, doubts, len(labels.given), judge, labels.names, command, known_by)
    write_atomically(path, page)
    return path


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas labels`."""
    parser = Parser(
        "labels",
        example="output/emoji --worst 500",
        more="Give a run, or a data set. It writes label_errors.csv, a contact sheet of the worst, and a page on which "
        "you decide: label_errors.html. `dspt-atlas labels apply --help` says how to use your decisions.",
        pairs=True,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", type=Path, help="output folder of a training run")
    parser.add_argument(
        "--judge",
        choices=JUDGES,
        help="cross-fitted (default): all images, each judged by a classifier that did not learn from it; run, "
        "zero-shot: the images that the run learned from, judged by it or by untrained CLIP",
    )
    parser.add_argument("--zero-shot", action="store_true", help="the same as --judge zero-shot")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"of cross-fitting (default: {FOLDS})")
    parser.add_argument("--config", default="", help="without RUN: configuration of the backbone, name or yaml")
    apply.add_data_options(parser)
    parser.add_argument("--score", choices=SCORES, default="normalized_margin")
    parser.add_argument("--worst", type=int, default=200, help="images on the page (default: 200)")
    parser.add_output("folder to write to (default: the run's, or label_errors)")
    return parser


def print_label_errors(options) -> None:
    """Write the ranking, the sheet and the page, and print the findings; raises UserError."""
    from dspt_atlas.run.trained import open_zero_shot

    apply.check_source(options)
    if options.worst < 1:
        raise UserError(f"Expected --worst of at least 1, got {options.worst}.")
    if options.zero_shot and options.judge not in (None, "zero-shot"):
        raise UserError(f"--zero-shot and --judge {options.judge} are two judges: give one.")
    judge = "zero-shot" if options.zero_shot else options.judge or "cross-fitted"
    if options.run:
        errors = _judged(options.run, judge, options.score, options.folds, options.root, options.pairs)
    elif judge == "run":
        raise UserError("--judge run needs a run's folder: give one, or another --judge.")
    else:
        trainer = open_zero_shot(options.dataset, options.config, options.root, options.pairs)
        errors = _judgement(trainer, judge, options.score, options.folds)
    out = options.output or options.run or Path("label_errors")
    words, ending = JUDGES[judge]
    stem = out / f"label_errors{ending}"
    write_csv(stem.with_suffix(".csv"), COLUMNS, errors.rows())
    contact_sheet(errors, stem.with_suffix(".png"), min(options.worst, ON_SHEET))
    source = apply.source_words(options)
    command = command_line("labels", "apply", "label_decisions.csv", *source)
    decisions_page(errors, stem.with_suffix(".html"), options.worst, str(source[-1]), words, command)
    _print_findings(errors, words)
    print("\n".join(str(stem.with_suffix(ending)) for ending in (".csv", ".png", ".html")))
    print(f"Open the page, decide, save your decisions, then: {command}")


def _print_findings(errors, words):
    labels, theirs = errors.labels, errors.cleanlab
    print(f"{len(labels.given)} labels, judged by {words}")
    found, all_of = (
        Counter(splits) for splits in ([labels.splits[i] for i in errors.is_issue.nonzero()[0]], labels.splits)
    )
    listed = ", ".join(f"{split} {found[split]} of {count}" for split, count in all_of.items())
    print(f"Another class than the given one is predicted for {errors.is_issue.sum()} images ({listed})")
    if labels.clean is not None:
        wrong = int(((labels.clean != labels.given) & (labels.clean != UNKNOWN)).sum())
        header = [f"against {wrong} known wrong labels", "found", "precision %", "recall %", "AUROC %"]
        print(tabulate(errors.agreement(), header, floatfmt=".1f", missingval="–"))
    elif theirs is not None:
        both = int((theirs[0] & errors.is_issue).sum())
        print(f"cleanlab's find_label_issues finds {theirs[0].sum()}, {both} of them among these")
    if theirs is None:
        print("cleanlab is not installed, so there is no comparison with it: pip install cleanlab")


def main(argv: list[str] | None = None) -> int:
    """Do `dspt-atlas labels ...` or `dspt-atlas labels apply ...`; return the exit status."""
    if argv and argv[0] == "apply":
        return apply.main(argv[1:])
    return build_parser().call(print_label_errors, argv)
