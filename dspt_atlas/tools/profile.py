"""The command `dspt-atlas profile`."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.report.figures import draw_figures


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas profile`."""
    parser = Parser("profile", example="output/emoji --samples 128", more="Under every loss, at every checkpoint.")
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="output folder of a training run")
    parser.add_argument("--samples", type=int, default=256, help="training samples to profile, at most (default: 256)")
    parser.add_argument("--root", default="", help="folder of the data sets (default: the run's)")
    parser.add_output("folder for figures (default: figures/ in the run's folder)")
    return parser


def print_profiles(options) -> None:
    """Profile runs, print the summaries and draw the figures; raises UserError."""
    from dspt_atlas.tools.gradient_profile import SUMMARY_COLUMNS, profile_run  # it loads torch

    if options.samples < 1:
        raise UserError(f"Expected --samples of at least 1, got {options.samples}.")
    for folder in options.runs:
        summary = profile_run(folder, options.samples, options.root)
        print(f"{folder}\n{tabulate(summary, SUMMARY_COLUMNS, floatfmt='.3f', missingval='–')}")
        names = ("gradient_norm", "prompt_gradient_epochs")
        for path in draw_figures([folder], options.output or folder / "figures", names):
            print(path)


main = main_of(build_parser, print_profiles)
