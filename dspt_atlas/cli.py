"""`dspt-atlas SUB-COMMAND ...`, the one command of this project; it loads only the module of the sub-command."""

from __future__ import annotations

import argparse
import difflib
import functools
import importlib
import sys

from dspt_atlas import __version__
from dspt_atlas.commands import COMMANDS, leave
from dspt_atlas.errors import lacks_package, one_line

PAGE_HEAD = """# Commands

<!-- Made by `dspt-atlas --help --markdown`. -->

`python -m dspt_atlas` is the same as `dspt-atlas`. The exit status is 0 after success, 1 after a failure, 2 after a
mistake of yours, which is told in one sentence, and 130 or 143 after Ctrl-C or SIGTERM. `dspt-atlas run PLAN --help`
shows the options of each plan; below are those of `noisy`.
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return the exit status."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(page() if rest == ["--markdown"] else overview())
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {close[0]}? " if close else ""
        print(f'dspt-atlas: there is no sub-command "{name}"; {advice}see dspt-atlas --help', file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(f"dspt_atlas.{COMMANDS[name].module}")
    except ModuleNotFoundError as error:
        if not lacks_package(error):
            raise
        print(f"dspt-atlas {name}: {one_line(error)}", file=sys.stderr)
        return 2
    return module.main(rest)


def overview() -> str:
    """Return the help: one line per sub-command."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.line}" for name, command in COMMANDS.items())
    return "\n".join(
        [
            "usage: dspt-atlas SUB-COMMAND ...",
            "",
            "Prompt learning with CLIP when some labels are wrong.",
            "",
            *lines,
            "",
            "dspt-atlas SUB-COMMAND --help says more and has an example.",
        ]
    )


def page() -> str:
    """Return docs/commands.md: what --help says, of the command and of each sub-command."""
    lines = [PAGE_HEAD, "```text", overview(), "```"]
    modules = {name: command.module for name, command in COMMANDS.items()} | {"labels apply": "tools.labels.apply"}
    for name, module in sorted(modules.items(), key=lambda item: [*COMMANDS].index(item[0].split()[0])):
        parser = importlib.import_module(f"dspt_atlas.{module}").build_parser()
        lines += ["", f"## {name}", ""]
        for one in _with_own_commands(parser):
            one.formatter_class = functools.partial(argparse.RawDescriptionHelpFormatter, width=100)
            lines += ["```text", one.format_help().rstrip(), "```"]
    return "\n".join(lines)


def _with_own_commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(own for parsers in choices for own in parsers.values())]


def start() -> None:
    """Run the command line of this process and end it."""
    leave(main())
