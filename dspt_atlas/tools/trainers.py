"""`dspt-atlas trainers`: which prompt learner goes with which method; docs/methods.md has this table."""

from __future__ import annotations

from tabulate import tabulate

from dspt_atlas.commands import Parser, main_of

FIRST = ("DSPT", "ATLaS")  # methods that this project is about


def table() -> str:
    """Return in markdown a row per prompt learner and a column per method."""
    from dspt_atlas import register_standard  # it loads torch
    from dspt_atlas.trainers.declare import LEARNERS, METHODS
    from dspt_atlas.trainers.registry import METHOD_TRAINERS, NO_METHOD

    register_standard()
    methods = [*FIRST, *sorted(METHODS.keys() - {*FIRST}, key=str.lower)]
    rows = [
        [learner, "yes", *("yes" if learner + method in METHOD_TRAINERS else "–" for method in methods)]
        for learner in sorted(LEARNERS, key=str.lower)
    ]
    return tabulate(rows, ["prompt learner", NO_METHOD, *methods], tablefmt="github", disable_numparse=True)


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas trainers`."""
    return Parser(
        "trainers",
        example="",
        more="A trainer's name is the prompt learner's followed by the method's, such as KgCoOpDSPT; CE adds nothing.",
    )


def print_table(options) -> None:
    """Print the table."""
    print(table())


main = main_of(build_parser, print_table)
