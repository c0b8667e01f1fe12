"""From a person's decisions to a corrected data set that OwnCSV reads: `dspt-atlas labels apply`."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from dspt_atlas.commands import Parser, command_line, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.paths import expand_home, write_atomically
from dspt_atlas.tools.check_data import data_set

CONFIG = "corrected.yaml"
NAMES = {
    "path": "path image file",
    "decision": "decision",
    "new_label": "newlabel",
    "given_label": "givenlabel",
}


class Decision(NamedTuple):
    """What a person decided on an image: its line in the file, the decision, the new class name or "", and the old."""

    line: int
    decision: str
    new_label: str
    given_label: str


def add_data_options(parser: Parser) -> None:
    """Add the options that name data without a run."""
    parser.add_argument("--dataset", default="", help="without RUN: name from configs/datasets, or a yaml")
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")


def check_source(options) -> None:
    """Raise UserError unless a run or a data set is given."""
    if bool(options.run) == bool(options.dataset):
        raise UserError("Expected a run's folder, or --dataset NAME: give one of the two.")


def source_words(options) -> list[str]:
    """Return the words of a command line that name the data."""
    root = ["--root", options.root] if options.root else []
    return [*root, *options.pairs, *([str(options.run)] if options.run else ["--dataset", options.dataset])]


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas labels apply`."""
    parser = Parser(
        "labels apply",
        example="label_decisions.csv output/mine",
        more="Write a corrected copy of a data set's lists as a table for OwnCSV; print the commands to train on it. "
        "Images stay where they are; undecided ones keep their label. DECISIONS.csv is saved by the page of "
        "`dspt-atlas labels`, or yours: the columns path (absolute, or relative as in noise.json), decision (right, "
        "suggested, other, remove) and new_label.",
        advice="nothing was changed.",
        pairs=True,
    )
    parser.add_argument("decisions", metavar="DECISIONS.csv", type=Path)
    parser.add_argument("run", nargs="?", metavar="RUN", type=Path, help="the run whose labels were judged")
    add_data_options(parser)
    parser.add_output(
        "folder to write to, without an earlier correction (default: RUN_corrected, or label_corrections)"
    )
    return parser


def apply_decisions(options) -> None:
    """Write the corrected table and print what it holds; raises UserError, and then writes nothing."""
    from dspt_atlas.datasets.class_table import CLASS_TABLE
    from dspt_atlas.datasets.noise import image_root
    from dspt_atlas.run.records import dataset_name

    check_source(options)
    out = options.output or _default_output(options.run)
    cfg, dataset, splits = _data(options)
    classnames = list(dataset.classnames)
    _check_names(classnames)
    root = os.path.abspath(image_root(dataset, cfg))
    decisions = read_decisions(options.decisions, classnames, _finder(root, splits))
    _check_known(options.decisions, decisions, splits, root)
    corrected = correct(splits, decisions)
    check_classes(splits, corrected)
    table = out / f"{dataset_name(cfg).replace('/', '_')}.csv"
    files = {table: _table(corrected, classnames)}
    prompts = _prompts_of(cfg, dataset)
    if words := getattr(dataset, "prompt_words", {}):
        files[out / CLASS_TABLE] = _lines(
            ("folder", "name", "prompt"), [(name, name, word) for name, word in words.items()]
        )
    if options.run:
        files[out / CONFIG] = _config(cfg, table, prompts)
    if there := [path for path in (*files, out / CLASS_TABLE, out / CONFIG) if path.exists()]:
        raise UserError(f"{there[0]} is there already, and nothing is overwritten: give another folder by --output.")
    for path, text in files.items():
        write_atomically(path, text)
    _print_counts(splits, corrected, decisions)
    print("\n".join(map(str, files)))
    _print_commands(options, out, table, splits, corrected, prompts)


def _default_output(run: Path | None) -> Path:
    if run is None:
        return Path("label_corrections")
    run = run if run.name not in ("", "..") else run.resolve()
    return run.with_name(f"{run.name}_corrected")


def _data(options):
    """Return configuration, data set, and all its lists with the labels that were judged."""
    from dassl.data.datasets import DATASET_REGISTRY

    from dspt_atlas.run.trained import quiet, run_cfg
    from dspt_atlas.tools.labels.lists import all_lists

    with quiet():
        if options.run:
            cfg = run_cfg(options.run, options.pairs, options.root)
            kind = DATASET_REGISTRY.get(cfg.DATASET.NAME)
        else:
            kind, cfg, _ = data_set(options.dataset, options.root, options.pairs)
        dataset = kind(cfg)
        return cfg, dataset, all_lists(dataset, cfg)


def _check_names(classnames) -> None:
    """Raise UserError if two classes have one name, because decisions and the table name classes."""
    for name, count in Counter(classnames).items():
        if count > 1:
            raise UserError(
                f'Expected each class to have its own name, but {count} classes are called "{name}" and a table of '
                "names cannot tell them apart: rename all but one of them in the data's lists."
            )


def _finder(root: str, splits) -> Callable[[str], str]:
    """Return a function from a path in a table to that image's path in the data; paths of no image stay."""
    from dspt_atlas.datasets.noise import image_place  # it loads torch

    known = [item.impath for items in splits for item in items]
    there = {**{os.path.abspath(path): path for path in known}, **{path: path for path in known}}

    def find(text):
        return there.get(text) or there.get(image_place(root, text.replace("\\", "/")), text)

    return find


def read_decisions(path: Path, classnames: list[str], find: Callable[[str], str]) -> dict[str, Decision]:
    """Return {path of an image: Decision} of a table, without undecided rows; raises UserError.

    find: from a path in the table to that of the data.
    """
    from dspt_atlas.datasets.tables import known_columns, read_rows
    from dspt_atlas.report.page.decisions import DECISIONS, OTHER, RIGHT, SUGGESTED
    from dspt_atlas.results.cells import plain_cell

    header, *rows = read_rows(path)
    columns = known_columns(header.cells, NAMES)
    if not {"path", "decision"} <= columns.keys():
        raise UserError(f"{path}: expected the columns path, decision and new_label, got {', '.join(header.cells)}.")
    found: dict[str, Decision] = {}
    for line, cells in rows:
        row = {name: plain_cell(cells[number]) for name, number in columns.items()}
        decision, new = row["decision"].lower(), row.get("new_label", "")
        if not decision:
            continue
        if decision not in DECISIONS:
            raise UserError(
                f'{path}, line {line}: expected one of {", ".join(DECISIONS)} as decision, got "{row["decision"]}".'
            )
        is_new = decision in (SUGGESTED, OTHER)
        if is_new and new not in classnames:
            raise UserError(
                f'{path}, line {line}: expected the name of a class as new_label, got "{new}"; the classes are '
                f"{', '.join(classnames[:20])}{' and others' if len(classnames) > 20 else ''}."
            )
        own = Decision(line, decision, new if is_new else "", row.get("given_label", ""))
        before = found.setdefault(find(row["path"]), own)
        if (before.decision == RIGHT, before.new_label) != (own.decision == RIGHT, own.new_label):
            raise UserError(
                f"{path}: lines {before.line} and {line} decide differently on {row['path']}: keep one of them."
            )
    return found


def _check_known(path, decisions, splits, root) -> None:
    """Raise UserError for a decision on an image that the data does not have, or has with another label."""
    known = {item.impath: item for items in splits for item in items}
    for image, decision in decisions.items():
        if image not in known:
            raise UserError(
                f"{path}, line {decision.line}: {image} is not an image of this data: give the run or the data that "
                f"was judged, and paths that are absolute or relative to {root}."
            )
        given = known[image].classname
        if decision.given_label not in ("", given):
            raise UserError(
                f'{path}, line {decision.line}: {image} was judged as "{decision.given_label}", but the data says '
                f'"{given}" now: judge the labels again, or give the data that was judged.'
            )


def correct(splits, decisions: dict[str, Decision]):
    """Return the splits with new class names, and without removed images; labels (numbers) are not changed."""
    kept = [[item for item in items if not _is_removed(item, decisions)] for items in splits]
    return type(splits)(*([_renamed(item, decisions.get(item.impath)) for item in items] for items in kept))


def _is_removed(item, decisions):
    return item.impath in decisions and decisions[item.impath].decision == "remove"


def _renamed(item, decision):
    return item._replace(classname=decision.new_label) if decision and decision.new_label else item


def check_classes(before, after) -> None:
    """Raise UserError if a class keeps images but none to train on, or if fewer than two classes are left."""
    trained = {item.classname for item in after.train or after.test}
    tested = Counter(item.classname for items in after for item in items)
    if lost := sorted(tested.keys() - trained):
        raise UserError(
            f'With these decisions no training image of "{lost[0]}" is left, but {tested[lost[0]]} others: keep one, '
            "or remove the others as well."
        )
    if len(trained) < 2 or (before.test and not after.test):
        raise UserError("With these decisions fewer than two classes or no test image are left: keep more images.")


def _table(splits, classnames) -> str:
    """Return the table; its labels keep the order of the classes, in which results and learned contexts stand."""
    left = {item.classname for items in splits for item in items}
    labels = {name: label for label, name in enumerate(name for name in classnames if name in left)}
    listed = [(split, item) for split, items in splits._asdict().items() for item in items]
    rows = [(item.impath, labels[item.classname], item.classname, split) for split, item in listed]
    return _lines(("path", "label", "classname", "split"), rows)


def _lines(header, rows) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])  # a data set reads the names as they are
    return text.getvalue()


def _prompts_of(cfg, dataset) -> str:
    """Return the name of the data set whose hand-written prompts the table has to keep, "" if nothing reads others."""
    from dassl.engine import TRAINER_REGISTRY

    from dspt_atlas.trainers.templates import has_own_prompts, prompts_name

    reads = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "reads_templates", None) if cfg.TRAINER.NAME else None
    is_read = reads is None or reads(cfg)
    return name if is_read and has_own_prompts(dataset, name := prompts_name(cfg)) else ""


def _config(cfg, table: Path, prompts: str) -> str:
    """Return a run's configuration as a yaml, where it is not the default, with the table as its data."""
    from dspt_atlas.config.build import plain
    from dspt_atlas.config.defaults import default_cfg
    from dspt_atlas.keys.declare import flatten

    default = dict(flatten(plain(default_cfg())))
    own = {key: value for key, value in flatten(plain(cfg)) if value != default.get(key) and key != "OUTPUT_DIR"}
    kept = ("DATASET.NUM_SHOTS", "DATASET.ROOT", "DATASET.CHECK_IMAGES")
    own = {key: value for key, value in own.items() if not key.startswith("DATASET.") or key in kept}
    own.pop("TEST.NEW_CLASSES", None)  # the table has the classes of the run alone
    own |= {"DATASET.NAME": "OwnCSV", "DATASET.OWN.PATH": str(table.resolve())}
    own |= {"DATASET.OWN.PROMPTS_OF": prompts} if prompts else {}
    if "DATASET.ROOT" in own:  # the file may be used from another folder
        own["DATASET.ROOT"] = str(expand_home(str(own["DATASET.ROOT"])).resolve())
    return yaml.safe_dump(own)


def _print_counts(before, after, decisions) -> None:
    counts = Counter(decision.decision for decision in decisions.values())
    total = sum(map(len, before))
    print(
        f"{len(decisions)} of {total} images decided: {counts['right']} right, {counts['suggested']} as suggested, "
        f"{counts['other']} with another label, {counts['remove']} removed; {total - len(decisions)} keep their label"
    )
    for split, items in before._asdict().items():
        own = [decisions[item.impath] for item in items if item.impath in decisions]
        changed = sum(bool(decision.new_label) for decision in own)
        if items:
            print(
                f"  {split}: {len(items)} images before, {len(getattr(after, split))} now, {changed} with a new label"
            )


def _print_commands(options, out, table, before, after, prompts) -> None:
    if not options.run:
        pairs = ["DATASET.OWN.PATH", table.resolve(), *(["DATASET.OWN.PROMPTS_OF", prompts] if prompts else [])]
        print(f"Look at it:\n  {command_line('check-data', 'OwnCSV', '--root', out, *pairs)}")
        print("Train on it as on any own data: DATASET.NAME OwnCSV, and these DATASET.OWN keys (docs/datasets.md)")
        return
    train = ["train", "--config-file", out / CONFIG]
    print("Train again:\n  " + command_line(*train, "--output-dir", out / "after"))
    if before.test != after.test:
        print("Test labels have changed, so the accuracy of the old run is one on other labels.")
    print("Test the old model on the corrected test images:")
    print("  " + command_line(*train, "--eval-only", "--model-dir", options.run, "--output-dir", out / "before"))
    print(
        f'Compare the two, on the same labels (the old one is "trained on data ..."):\n  {command_line("table", out)}'
    )


main = main_of(build_parser, apply_decisions)
