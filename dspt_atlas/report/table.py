"""The report on folders of runs: tables, and what is missing; the command behind scripts/parse_results.py."""

from __future__ import annotations

import sys
from pathlib import Path

from dspt_atlas.commands import Parser
from dspt_atlas.errors import UserError
from dspt_atlas.results.published import add_published
from dspt_atlas.results.read import Record, load
from dspt_atlas.results.tables import build_tables, render
from dspt_atlas.results.tables import wanted_seeds as seeds_of

FORMATS = ("github", "latex", "csv", "json")


def report(
    roots, wanted_seeds=(), form="github", baseline="", measure="accuracy", published=False
) -> tuple[str, list[str]]:
    """Return the tables of the runs under folders as text, and a line for every run that is unfinished or unreadable.

    wanted_seeds are added to those that are found; published adds other people's figures, marked. Raises UserError
    where there are no results, or not of the baseline.
    """
    records, problems = load(roots)
    if not records:
        found = "".join(f"; {line.rstrip('.')}" for line in problems)
        raise UserError(f"No finished run in {', '.join(map(str, roots))}{found}.")
    check_baseline(records, baseline)
    seeds = seeds_of(records, wanted_seeds)
    tables = build_tables(records, measure)
    note = add_published(tables) if published else ""
    text = render(tables, seeds, form, baseline)
    return f"{text}\n\n{note}" if note and form not in ("csv", "json") else text, problems


def check_baseline(records: list[Record], baseline: str) -> None:
    """Raise UserError if there are no results of the baseline; "" is none."""
    methods = sorted({record.method for record in records})
    if baseline and baseline not in methods:
        raise UserError(f'There are no results of the baseline "{baseline}"; there are {", ".join(methods)}.')


def add_table_options(parser: Parser) -> None:
    """Add the folders, and the options on what tables show."""
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path)
    parser.add_argument("--baseline", default="", help="method to show differences to, such as CoOp")
    parser.add_argument("--measure", choices=("accuracy", "macro_f1"), default="accuracy")
    parser.add_seeds((), "seeds that should be there, besides those found")
    parser.add_argument("--published", action="store_true", help="add other people's published figures, marked")


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas table`."""
    parser = Parser(
        "table",
        example="output/ --baseline CoOp --format latex",
        more="Mean ± population standard deviation in percent, (seeds present/wanted).",
        advice="nothing was changed.",
    )
    parser.add_argument("--format", choices=FORMATS, default="github")
    add_table_options(parser)
    return parser


def print_tables(options) -> None:
    """Print the tables of folders of results, and on standard error what is not counted."""
    text, problems = report(
        options.folders, options.seeds, options.format, options.baseline, options.measure, options.published
    )
    print(text)
    for problem in problems:
        print(f"Not counted: {problem}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Print the tables of folders of results; return the exit status."""
    return build_parser().call(print_tables, argv)
