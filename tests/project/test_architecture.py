"""docs/architecture.md draws the rooms as they are: imports follow its arrows, and the arrows make no circle."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support.paths import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
ARROW = re.compile(r"^\s+(\w+)(?:\[.*?\])? --> (\w+)", re.MULTILINE)
# What all rooms share, one file each; dspt_atlas/__init__.py is the facade, cli.py and __main__.py start everything.
SHARED = {"commands", "digests", "environment", "errors", "paths", "seeds", "signals"}
ABOVE = {"", "__main__", "cli"}


def _below():
    """Return each room of the picture with all rooms that it may import."""
    direct = {}
    for source, target in ARROW.findall(PAGE):
        direct.setdefault(source, set()).add(target)
    below = {}
    for room in TopologicalSorter(direct).static_order():  # raises CycleError if there is a circle
        below[room] = {room}.union(*(below[target] for target in direct.get(room, ())))
    return below


def _modules():
    for place in ("dspt_atlas", "dspt_atlas/trainers", "dspt_atlas/datasets"):
        for path in sorted((ROOT / place).rglob("*.py")):
            yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _room(module):
    parts = [*module.split("."), "", ""]
    return "engine" if parts[0] == "dassl" else parts[1] if parts[0] == "dspt_atlas" else None


def _imported(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            is_package = node.module == "dspt_atlas"
            yield from (f"dspt_atlas.{alias.name}" for alias in node.names) if is_package else (str(node.module),)


def test_imports_follow_the_arrows():
    below, seen = _below(), set()
    for path, module in _modules():
        room = _room(module)
        seen.add(room)
        allowed = {} if room in SHARED else below.get(room, {})
        for name in _imported(path) if room not in ABOVE else ():
            target = _room(name)
            is_facade = target in {"register_standard", "__version__"}
            assert target is None or target in SHARED or is_facade or target in allowed, f"{module} imports {name}"
    assert seen - SHARED - ABOVE == set(below) - {"engine"}


@pytest.mark.parametrize("name", re.findall(r"`([\w/]+\.(?:py|yaml))`", PAGE))
def test_each_file_that_the_page_names_exists(name):
    assert any((ROOT / place / name).is_file() for place in ("", "dspt_atlas", "trainers"))


def test_every_room_is_in_the_table():
    rooms = {path.parent.name for path in (ROOT / "dspt_atlas").glob("*/__init__.py")}
    assert all(f"`dspt_atlas/{room}/`" in PAGE or f"`{room}/`" in PAGE for room in rooms)
