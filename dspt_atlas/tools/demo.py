"""The command `dspt-atlas demo`: the plan demo."""

from __future__ import annotations

from dspt_atlas.commands import Parser
from dspt_atlas.plan.planner import read_plan
from dspt_atlas.tools import run_plan as command


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas demo`."""
    return command.build_parser(read_plan("demo"), "demo")


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    return build_parser().call(command.run_plan, argv)
