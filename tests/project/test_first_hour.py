"""The commands of docs/first_hour.md run as they stand, one after the other, and tell what the page says they tell."""

import re
import runpy
import shlex

import pytest

from dspt_atlas.cli import main
from support.paths import ROOT

PAGE = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TABLES = re.findall(r"^```\n(\| method.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def accuracies(text):
    """[(method without digests, accuracy)] of each line of tables."""
    rows = re.findall(r"^\| (\w+)( \[trained on data \w+\])? +\| ([\d.]+) +\|$", text, re.MULTILINE)
    return [(method, bool(other), float(accuracy)) for method, other, accuracy in rows]


@pytest.mark.slow
def test_the_first_hour(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = ""
    for number, (language, text) in enumerate(BLOCKS):
        if language == "python":
            (tmp_path / f"{number}.py").write_text(text)
            runpy.run_path(f"{number}.py")
        for line in text.replace("\\\n", "").splitlines() if language == "bash" else ():
            program, *words = shlex.split(line)
            assert program == "dspt-atlas" and main(words) == 0, capsys.readouterr().err
        said += capsys.readouterr().out
    printed = accuracies(said)
    for *row, accuracy in accuracies("".join(TABLES)):  # another machine rounds otherwise
        assert any(found[:2] == tuple(row) and abs(found[2] - accuracy) < 3 for found in printed)
    counts = re.search(r"(\d+) right, 0 as suggested, (\d+) with another label", said)
    assert counts and f"{counts[1]} are right and {counts[2]} are wrong" in PAGE
    assert (tmp_path / "report.html").is_file() and len(accuracies("".join(TABLES))) == 5
