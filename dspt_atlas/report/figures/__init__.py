"""Figures from a tree of results; each is written as PNG, SVG and PDF, and its numbers as CSV."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FIGURES = {  # a figure is a function of that name, in a module here that loads torch or matplotlib
    "noise_rate": "curves",
    "memorisation": "curves",
    "accuracy_by_epoch": "curves",
    "base_new": "curves",
    "gradient_epochs": "curves",
    "prompt_gradient_epochs": "curves",
    "gradient_norm": "gradients",
    "csl": "soft_labels",
    "isl": "soft_labels",
    "learners": "learners",
}


def draw_figures(results: list[Path], out: Path, names: tuple[str, ...] = (), columns: int = 2) -> list[Path]:
    """Draw figures of the finished runs under folders into `out`, all or those with `names`; return the files.

    They are as wide as one or two columns of a paper. Without `names`, figures that cannot be drawn from these runs are
    left out, and a line says so. Raises UserError for an unknown name, without finished runs, and if the runs have no
    data for a named figure.
    """
    from dspt_atlas.report.figures.curves import with_history
    from dspt_atlas.results.read import load

    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise UserError(f'There is no figure "{unknown[0]}"; the figures are {", ".join(FIGURES)}.')
    runs = with_results(load(results, with_history).frame)
    if runs.empty:
        raise UserError(f"No finished run in {', '.join(map(str, results))}.")
    paths = []
    for name in names or FIGURES:
        try:
            paths += draw(name, runs, Path(out), columns)
        except UserError as error:
            if names:
                raise
            print(f"Left out: {error}")
    return paths


def with_results(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a result, not only a log."""
    return runs[[file.name != "log.txt" for file in runs["file"]]]


def figure(name: str) -> Callable:
    """Return the function that draws a figure of runs into a folder and yields the files."""
    return getattr(importlib.import_module(f"{__name__}.{FIGURES[name]}"), name)


def draw(name: str, runs: pd.DataFrame, out: Path, columns: int = 2) -> list[Path]:
    """Draw one figure of runs (of `load` with `with_history`), so many columns of a paper wide; return its files.

    Raises UserError if the runs have no data for it.
    """
    from dspt_atlas.report.figures.style import sized

    with sized(columns):
        paths = list(figure(name)(runs, out))
    if not paths:
        raise UserError(f"The runs have no data for the figure {name}: docs/figures.md says what it needs.")
    return paths


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas figures`."""
    parser = Parser("figures", example="output/ --output figures --figure memorisation")
    parser.add_argument("results", nargs="+", metavar="RESULTS", type=Path)
    parser.add_output("folder to write to", required=True)
    parser.add_argument("--figure", nargs="+", default=[], metavar="NAME", help=f"only these of {', '.join(FIGURES)}")
    parser.add_argument(
        "--columns", type=int, choices=(1, 2), default=2, help="columns of a paper that a figure takes (default: 2)"
    )
    return parser


def print_figures(options) -> None:
    """Draw the figures that are asked for and print the files; raises UserError."""
    for path in draw_figures(options.results, options.output, tuple(options.figure), options.columns):
        print(path)


main = main_of(build_parser, print_figures)
