"""The command `dspt-atlas demo`: the plan demo."""

from __future__ import annotations

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.tools import run_plan as command


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas demo`."""
    return command.build_parser(read_plan("demo"), "demo")


main = main_of(build_parser, command.run_plan)
