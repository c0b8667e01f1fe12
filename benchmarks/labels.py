"""How well wrong labels are found: python benchmarks/labels.py FILE.csv [--root DATA] [--seeds 1,2,3].

Errors are planted into the training, validation and test lists of the embedded benchmark and, with --root, of
Caltech101. Judges of all these images: ours (cross-fitted), zero-shot CLIP, CoOp with cross-entropy trained on all
given training labels, and with --refit CoOp trained anew without each fold (the embedded benchmark alone, because it is
slow). A line of the file is one judge, data set, rate and seed; docs/labels.md has the means. With --way FILE.csv, the
whole way to corrected labels and a trained model is measured too.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dspt_atlas.cli import main as command_line
from dspt_atlas.datasets.noise import corrupt_labels
from dspt_atlas.datasets.pitfalls import content_keys
from dspt_atlas.environment import host_kind
from dspt_atlas.paths import CONFIGS
from dspt_atlas.results.cells import read_csv, write_csv
from dspt_atlas.run.train import run_arguments
from dspt_atlas.run.trained import open_run, open_zero_shot, probabilities
from dspt_atlas.tools.labels.command import FOLDS
from dspt_atlas.tools.labels.errors import SCORES, LabelErrors, Labels, auroc
from dspt_atlas.tools.labels.judge import fold_numbers, judge_all
from dspt_atlas.tools.labels.lists import all_lists, labels_of

DATA = {"Emoji": ("emoji", "emoji_rn"), "Caltech101": ("caltech101", "photo_en")}
KINDS = {"sym": (0.2, 0.5), "asym": (0.2,)}
COLUMNS = (
    "data", "kind", "rate", "seed", "judge", "images", "wrong", "auroc", "precision_at_100", "precision_at_wrong",
    "cleanlab_precision", "cleanlab_recall", "cleanlab_auroc", "seconds", "machine",
)  # fmt: skip


class Planted(NamedTuple):
    """A data set with planted errors: name, kind, rate, seed, table, true labels by path, and the backbone's yaml."""

    data: str
    kind: str
    rate: float
    seed: int
    table: Path
    clean: dict[str, int]
    config: str


def plant(data, kind, rate, seed, root, folder) -> Planted:
    """Write a table of the data set in which a share of the labels of each list is wrong."""
    name, config = DATA[data]
    trainer = open_zero_shot(name, config, root)
    names, splits = trainer.dm.dataset.classnames, all_lists(trainer.dm.dataset, trainer.cfg)
    rows, clean = [], {}
    for number, (split, items) in enumerate(splits._asdict().items()):
        given = corrupt_labels([item.label for item in items], len(names), kind, rate, 100 * seed + number)
        rows += [(item.impath, label, names[label], split) for item, label in zip(items, given, strict=True)]
        clean |= {item.impath: item.label for item in items}
    table = folder / f"{data}_{kind}_{rate}_{seed}.csv"
    write_csv(table, ("path", "label", "classname", "split"), rows)
    return Planted(data, kind, rate, seed, table, clean, config)


def of_table(table):
    """Return the pairs that name a table as data."""
    return ["DATASET.NAME", "OwnCSV", "DATASET.OWN.PATH", str(table), "DATASET.ROOT", str(table.parent)]


def zero_shot(planted):
    """Return the zero-shot trainer of a table."""
    return open_zero_shot("own_csv", planted.config, str(planted.table.parent), of_table(planted.table)[2:4])


def cross_fitted(planted):
    """Return labels and probabilities of our judge."""
    return judge_all(zero_shot(planted), FOLDS)


def by_zero_shot(planted):
    """Return labels and probabilities of zero-shot CLIP."""
    return judged(zero_shot(planted))


def judged(trainer) -> tuple[Labels, np.ndarray]:
    """Return all labels of a trainer's data set, and its model's probabilities of them, list by list."""
    splits = all_lists(trainer.dm.dataset, trainer.cfg)
    return labels_of(trainer.dm.dataset, splits), np.concatenate([probabilities(trainer, items) for items in splits])


def train(table, config, folder):
    """Train CoOp with cross-entropy on all given training labels of a table; return the trainer."""
    options = [
        "--trainer",
        "CoOp",
        "--config-file",
        str(CONFIGS / "trainers" / "CoOp" / f"{config}.yaml"),
        "--seed",
        "1",
    ]
    options += ["--dataset-config-file", str(CONFIGS / "datasets" / "own_csv.yaml"), "--output-dir", str(folder)]
    run_arguments([*options, *of_table(table)[2:], "INPUT.VIEWS", "1", "OPTIM.MAX_EPOCH", "10"])
    return open_run(folder)


def trained(planted):
    """Return labels and probabilities of CoOp that learned from the training list."""
    return judged(train(planted.table, planted.config, planted.table.with_suffix(".run")))


def refitted(planted):
    """Return labels and probabilities of CoOp, trained anew without each fold."""
    labels = judged_lists(planted)
    fold, probs = fold_numbers(labels.given, content_keys(labels.paths), FOLDS, 1), None
    for number in range(FOLDS):
        table = planted.table.with_name(f"{planted.table.stem}_fold{number}.csv")
        rows = [
            (path, label, labels.names[label], "test" if own == number else "train")
            for path, label, own in zip(labels.paths, labels.given, fold, strict=True)
        ]
        write_csv(table, ("path", "label", "classname", "split"), rows)
        trainer = train(table, planted.config, table.with_suffix(".run"))
        own = probabilities(trainer, trainer.dm.dataset.test)
        probs = np.empty((len(fold), own.shape[1]), own.dtype) if probs is None else probs
        probs[fold == number] = own
    return labels, probs


def judged_lists(planted) -> Labels:
    """Return all labels of a table."""
    trainer = zero_shot(planted)
    return labels_of(trainer.dm.dataset, all_lists(trainer.dm.dataset, trainer.cfg))


JUDGES = {"cross-fitted": cross_fitted, "zero-shot": by_zero_shot, "CoOp, cross-entropy": trained}
REFIT = {"CoOp, cross-entropy, per fold": refitted}


def measure(planted, name, judge, machine, score="normalized_margin"):
    """Return a line of the file."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        labels, probs = judge(planted)
    seconds = time.perf_counter() - start
    labels.clean = np.array([planted.clean[path] for path in labels.paths])
    errors, wrong = LabelErrors(labels, probs, score), labels.clean != labels.given
    found = {row[0]: row[2:] for row in errors.agreement()}
    precision = [100 * wrong[errors.order[:count]].mean() for count in (100, wrong.sum())]
    theirs = found.get("cleanlab find_label_issues", (None,) * 3)
    about = [planted.data, planted.kind, planted.rate, planted.seed, name, len(wrong), int(wrong.sum())]
    return [*about, auroc(wrong, errors.quality), *precision, *theirs, round(seconds, 1), machine]


def whole_way(folder: Path, most: int = 700) -> list[tuple[str, float]]:
    """Return test accuracies of CoOp with 16 shots, before and after a person who knows decides on the worst labels."""
    planted = plant("Emoji", "sym", 0.2, 1, "", folder)
    run, out, decisions = folder / "mine", folder / "corrected", folder / "decisions.csv"
    command = ["train", "--trainer", "CoOp", "--config-file", CONFIGS / "trainers" / "CoOp" / "emoji_rn.yaml"]
    command += ["--dataset-config-file", CONFIGS / "datasets" / "own_csv.yaml", "--seed", 1, "--output-dir", run]
    done(*command, "DATASET.NUM_SHOTS", 16, *of_table(planted.table)[2:])
    done("labels", run)
    names = {row["label"]: row["classname"] for row in read_csv(planted.table)}
    rows = []
    for row in read_csv(run / "label_errors.csv")[:most]:
        true = names[str(planted.clean[row["path"]])]
        rows.append((row["path"], *(("right", "") if true == row["given_label"] else ("other", true))))
    write_csv(decisions, ("path", "decision", "new_label"), rows)
    done("labels", "apply", decisions, run, "--output", out)
    again = ["train", "--config-file", out / "corrected.yaml", "--output-dir"]
    done(*again, out / "before", "--eval-only", "--model-dir", run)
    done(*again, out / "after")
    steps = {"mine": run, "before": out / "before", "after": out / "after"}
    return [(step, json.loads((place / "result.json").read_text())["accuracy"]) for step, place in steps.items()]


def done(*words):
    """Do a command; raises SystemExit if it fails."""
    if status := command_line([str(word) for word in words]):
        raise SystemExit(status)


def means(rows) -> list[list]:
    """Return the rows of docs/labels.md's table: the setting, the judge, the number of seeds, and means over them."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["data"], row["kind"], row["rate"], row["judge"]].append(row)
    figures = ("auroc", "precision_at_100", "precision_at_wrong", "cleanlab_auroc")
    return [
        [*key, len(own), *(f"{np.mean([float(row[name]) for row in own]):.1f}" for name in figures)]
        for key, own in groups.items()
    ]


def main():
    """Measure and write the file after each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--root", default="", help="folder with caltech-101; without it, only the embedded benchmark")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument(
        "--refit", action="store_true", help="also train CoOp anew without each fold, for the first seed"
    )
    parser.add_argument("--score", choices=SCORES, default="normalized_margin")
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=list(JUDGES))
    parser.add_argument("--way", type=Path, help="also measure the whole way, and write this file")
    options = parser.parse_args()
    machine, lines = f"one core of {host_kind()['cpu']}", []
    seeds = [int(seed) for seed in options.seeds.split(",")]
    settings = [(kind, rate, seed) for kind, rates in KINDS.items() for rate in rates for seed in seeds]
    with tempfile.TemporaryDirectory() as folder:
        if options.way:
            write_csv(options.way, ("step", "accuracy"), whole_way(Path(folder)))
        for data in ["Emoji", *(["Caltech101"] if options.root else [])]:
            for kind, rate, seed in settings:
                planted = plant(data, kind, rate, seed, options.root, Path(folder))
                judges = {name: JUDGES[name] for name in options.judges} | (
                    REFIT if options.refit and data == "Emoji" and seed == seeds[0] else {}
                )
                for name, judge in judges.items():
                    lines.append(measure(planted, name, judge, machine, options.score))
                    print(*lines[-1][:-1], flush=True)
                    write_csv(options.file, COLUMNS, lines)


if __name__ == "__main__":
    main()
