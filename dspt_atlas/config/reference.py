"""`dspt-atlas keys`: what each configuration key is; docs/keys.md is its page."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from fnmatch import fnmatchcase

from dspt_atlas.cli import Parser, guarded
from dspt_atlas.config.defaults import default_cfg
from dspt_atlas.config.keys import KEYS, ROLES, Key, flatten
from dspt_atlas.errors import UserError

HEAD = """# Configuration keys

<!-- Made by `dspt-atlas keys --markdown`. -->

A key and its value stand at the end of a command (`OPTIM.LR 0.002`), or in a yaml. `dspt-atlas keys PATTERN` prints what is below of
the keys that match. Refused on the command line: a value that is not allowed, and a key whose need is not met.

The role says what another value means:
"""


def chosen(patterns: list[str]) -> list[Key]:
    """Return the declared keys that hold one of the patterns, in which * stands for anything; all without patterns.

    Raises UserError where none does.
    """
    texts = [pattern.upper() for pattern in patterns]
    found = [key for key in KEYS.values() if not texts or any(fnmatchcase(key.name, f"*{text}*") for text in texts)]
    if not found:
        close = difflib.get_close_matches(texts[0], KEYS, n=1, cutoff=0)
        raise UserError(f"There is no configuration key like {', '.join(patterns)}; did you mean {close[0]}?")
    return found


def facts(key: Key, defaults: dict) -> list[str]:
    """Return default, allowed values ("" for any of the default's type), role, comment and needs of a key."""
    allowed = key.allowed.words.removeprefix("to be ") if key.allowed else ""
    default = '""' if defaults[key.name] == "" else str(defaults[key.name])
    return [default, allowed, key.role, key.comment, ", and ".join(need.words for need in key.needs)]


def as_text(keys: Iterable[Key], defaults: dict) -> str:
    """Return a few lines on each key."""
    lines = []
    for key in keys:
        default, allowed, role, comment, needs = facts(key, defaults)
        more = [role, *([f"allowed: {allowed}"] if allowed else []), *([f"needs {needs}"] if needs else [])]
        lines += [f"{key.name} {default}", f"    {comment}", f"    {'; '.join(more)}"]
    return "\n".join(lines)


def as_page(keys: Iterable[Key], defaults: dict) -> str:
    """Return the page: a table per group of keys."""
    lines = [HEAD, *(f"- **{role}**: {meaning}." for role, meaning in ROLES.items())]
    ordered = sorted(keys, key=_group)
    for group, members in itertools.groupby(ordered, _group):
        lines += [
            "",
            f"## {group}",
            "",
            "| Key | Default | Allowed | Role | What it is | Needs |",
            "|---|---|---|---|---|---|",
        ]
        for key in members:
            default, *more = (fact.replace("|", r"\|") for fact in facts(key, defaults))
            lines.append(f"| `{key.name}` | `{default}` | {' | '.join(more)} |")
    return "\n".join(lines)


def _group(key):
    return ".".join(key.name.split(".")[: 2 if key.node else 1]) if "." in key.name else "The run"


def main(argv: list[str] | None = None) -> int:
    """Print the keys that match; return the exit status."""
    parser = Parser(prog="dspt-atlas keys", description="Say what configuration keys are.")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="part of a key, or a pattern with *")
    parser.add_argument("--markdown", action="store_true", help="print the page docs/keys.md")
    options = parser.parse_args(argv)

    def command():
        defaults = dict(flatten(default_cfg()))
        show = as_page if options.markdown else as_text
        print(show(chosen(options.patterns), defaults))

    return guarded(command, "dspt-atlas keys", "nothing was changed.")
