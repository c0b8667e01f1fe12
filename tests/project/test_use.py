"""The examples in docs/use.md run as they stand, on a small run."""

import re
import runpy
import shlex

import pytest

from dspt_atlas.cli import main
from support.paths import ROOT

TEXT = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tiny_noisy_run, tiny_dataset, tmp_path, monkeypatch):
    """The folders and files that the examples name, as the current folder."""
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "mine").symlink_to(tiny_noisy_run)
    for name, image in {"photos/cat": "blue/0", "photos/dog": "blue/1", "more/of/them": "blue/2"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").symlink_to(tiny_dataset / "test" / f"{image}.png")
    (tmp_path / "folders").symlink_to(tiny_dataset / "test")
    (tmp_path / "names.txt").write_text("owl\npaper clip\n")
    monkeypatch.chdir(tmp_path)


def test_the_commands_run(place, tiny_noisy_run, capsys):
    for line in re.findall(r"^    dspt-atlas (.*)$", TEXT, re.MULTILINE):
        assert main(shlex.split(line)) == 0, capsys.readouterr().err
    assert "names.txt" in TEXT and "photos/cat.png" in capsys.readouterr().out


def test_the_python_examples_run(place, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.py").write_text("\n".join(blocks))
    names = runpy.run_path(str(tmp_path / "mine.py"))
    assert names["mine"].classnames == names["named"].classnames == names["wings"].classnames == names["folder"].classes
    assert 0 <= names["mine"].accuracy <= 100 and len(names["frame"]) == 2 and len(names["errors"]) == 16
    assert len(names["predicted"]) == len(names["folder"]) == sum(map(len, names["rows"]))
    assert names["others"].shape == (2, names["features"].shape[1]) and 0 <= names["right"] <= len(names["folder"])
