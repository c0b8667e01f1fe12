"""The commands of docs/first_hour.md run as they stand, one after the other, and tell what the page says they tell."""

import re
import runpy
import shlex

import pytest

from dspt_atlas.cli import main
from support.paths import ROOT

PAGE = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^\| method .*?\n\n", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_first_hour(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for language, text in BLOCKS:
        if language == "python":
            (tmp_path / "make_photos.py").write_text(text)
            runpy.run_path("make_photos.py")
        for line in text.splitlines() if language == "bash" else ():
            program, *words = shlex.split(line)
            assert program == "dspt-atlas" and main(words) == 0, capsys.readouterr().err
    assert len(list((tmp_path / "photos").rglob("*.png"))) == 480
