"""`dspt-atlas keys` explains each configuration key; docs/keys.md is its page."""

from __future__ import annotations

import difflib
import itertools
from fnmatch import fnmatchcase

from dspt_atlas.commands import Parser, main_of
from dspt_atlas.errors import UserError
from dspt_atlas.keys.declare import KEYS, ROLES, Key, flatten

HEAD = """# Configuration keys

<!-- Made by `dspt-atlas keys --markdown`. -->

Write a key with its value at the end of a command (`OPTIM.LR 0.002`), or in a yaml file. `dspt-atlas keys PATTERN`
prints the entries of the keys that match. A value that is not allowed is refused. A key on the command line is also
refused if its need is not met.

The role says what another value means:
"""


def chosen(patterns: list[str]) -> list[Key]:
    """Return the declared keys that contain one of the patterns (* stands for anything); without patterns, all keys.

    Raises UserError if no key matches.
    """
    wanted = [f"*{pattern.upper()}*" for pattern in patterns or ("",)]
    found = [key for key in KEYS.values() if any(fnmatchcase(key.name, pattern) for pattern in wanted)]
    if not found:
        (close,) = difflib.get_close_matches(patterns[0].upper(), KEYS, n=1, cutoff=0)
        raise UserError(f"There is no configuration key like {', '.join(patterns)}; did you mean {close}?")
    return found


def told(key: Key, defaults: dict) -> tuple[str, str]:
    """Return the default of a key, and a text: its meaning, the allowed values, and its needs to have an effect."""
    parts = [key.comment]
    parts += [f"allowed: {key.allowed.words.removeprefix('to be ')}"] if key.allowed else []
    parts += [f"needs {', and '.join(need.words for need in key.needs)}"] if key.needs else []
    return '""' if defaults[key.name] == "" else str(defaults[key.name]), "; ".join(parts)


def as_text(keys: list[Key], defaults: dict) -> str:
    """Return two lines per key."""
    lines = [(key, *told(key, defaults)) for key in keys]
    return "\n".join(f"{key.name} {default} ({key.role})\n    {text}" for key, default, text in lines)


def as_page(keys: list[Key], defaults: dict) -> str:
    """Return the page: a table for each group of keys."""
    lines = [HEAD, *(f"- **{role}**: {meaning}." for role, meaning in ROLES.items())]
    for group, members in itertools.groupby(sorted(keys, key=lambda key: (_group(key), key.name)), _group):
        lines += ["", f"## {group}", "", "| Key | Default | Role | What it is |", "|---|---|---|---|"]
        for key in members:
            default, text = (part.replace("|", r"\|") for part in told(key, defaults))
            lines.append(f"| `{key.name}` | `{default}` | {key.role} | {text} |")
    return "\n".join(lines)


def _group(key):
    return f"TRAINER.{key.node}" if key.node else key.name.partition(".")[0] if "." in key.name else "The run"


def build_parser() -> Parser:
    """Return the parser of `dspt-atlas keys`."""
    parser = Parser("keys", example="NOISE", more="It tells its default, its role, what is allowed and what it needs.")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="part of a key, in which * stands for anything")
    parser.add_argument("--markdown", action="store_true", help="print the page docs/keys.md")
    return parser


def print_keys(options) -> None:
    """Print the keys that match; raises UserError if none does."""
    from dspt_atlas.config.defaults import default_cfg  # it loads torch, and declares the keys of learners and methods

    defaults = dict(flatten(default_cfg()))
    show = as_page if options.markdown else as_text
    print(show(chosen(options.patterns), defaults))


main = main_of(build_parser, print_keys)
