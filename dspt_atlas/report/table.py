"""The report on folders of runs: tables, and missing runs; the command behind scripts/parse_results.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.results.published import add_published
from dspt_atlas.results.read import load
from dspt_atlas.results.render import FORMATS, render
from dspt_atlas.results.tables import Table, build_tables
from dspt_atlas.results.tables import wanted_seeds as seeds_of
from dspt_atlas.trainers.measures import ACCURACY, MEASURES


def report(
    roots, wanted_seeds=(), form="github", baseline="", measures=(ACCURACY.name,), published=False, missing=False
) -> tuple[str, list[str]]:
    """Return the tables of the runs under folders as text, and a line for every run that is unfinished or unreadable.

    wanted_seeds are added to the seeds of the runs; measures: names of MEASURES; published adds other people's figures
    with a mark; missing, or wanted_seeds, lists the seeds that cells lack. Raises UserError if there are no results, or
    none of the baseline.
    """
    loaded = load(roots)
    if loaded.frame.empty:
        found = "".join(f"; {line.rstrip('.')}" for line in loaded.lines)
        raise UserError(f"No finished run in {', '.join(map(str, roots))}{found}.")
    check_baseline(loaded.frame, baseline)
    tables, note = make_tables(loaded.frame, measures, published)
    text = render(tables, seeds_of(loaded.frame, wanted_seeds), form, baseline, missing or bool(wanted_seeds))
    note = f"% {note}" if note and form == "latex" else note
    return f"{text}\n\n{note}" if note and form not in ("csv", "json") else text, loaded.lines


def make_tables(results: pd.DataFrame, measures=(ACCURACY.name,), published=False) -> tuple[list[Table], str]:
    """Return the tables of results for each measure, and a note on added figures of other people."""
    tables = [table for name in measures for table in build_tables(results, MEASURES[name])]
    note = add_published(tables) if published else ""
    for table in tables:
        if len(measures) > 1:
            table.title += f", {table.measure.title}"
        if not table.measure.higher_is_better:
            table.note = f"{table.note}; lower is better".removeprefix("; ")
    return tables, note


def check_baseline(results: pd.DataFrame, baseline: str) -> None:
    """Raise UserError if there are no results of the baseline, with any settings; "" means no baseline."""
    names = sorted({row.partition(" [")[0] for row in results["row"]})
    if baseline and baseline not in (*names, *results["row"]):
        raise UserError(f'There are no results of the baseline "{baseline}", but of {", ".join(names)}.')


def add_table_options(parser: Parser) -> None:
    """Add the folders, and the options on what tables show."""
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path)
    parser.add_argument("--baseline", default="", help="method to show differences to, such as CoOp")
    parser.add_argument(
        "--measures", "--measure", nargs="+", choices=MEASURES, default=[ACCURACY.name], help="default: accuracy"
    )
    parser.add_seeds((), "seeds that should be there, besides those of the runs; those that cells lack are listed")
    parser.add_argument("--missing", action="store_true", help="list the seeds that cells lack")
    parser.add_argument("--published", action="store_true", help="add other people's published figures, with a mark")


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas table`."""
    parser = Parser(
        "table",
        example="output/ --baseline CoOp --format latex",
        more="A caption says what the cells are; latex needs the package booktabs.",
        advice="nothing was changed.",
    )
    parser.add_argument("--format", choices=FORMATS, default="github")
    add_table_options(parser)
    return parser


def print_tables(options) -> None:
    """Print the tables of folders of results, and the runs that do not count on standard error."""
    text, problems = report(
        options.folders,
        options.seeds,
        options.format,
        options.baseline,
        options.measures,
        options.published,
        options.missing,
    )
    print(text)
    for problem in problems:
        print(f"Not counted: {problem}", file=sys.stderr)


main = main_of(build_parser, print_tables)
