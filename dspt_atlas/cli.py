"""`dspt-atlas SUB-COMMAND ...`, the one command of this project; it loads only the module of the sub-command."""

from __future__ import annotations

import difflib
import importlib
import sys

from dspt_atlas import __version__
from dspt_atlas.commands import COMMANDS, leave
from dspt_atlas.errors import lacks_package, one_line


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return the exit status."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help"):
        print(overview())
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


def start() -> None:
    """Run the command line of this process and end it."""
    leave(main())
