"""Without a dassl: a command that needs one names both ways to get it, in one sentence and without a stack trace."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.runs

DSPT_ATLAS = (sys.executable, "-m", "dspt_atlas")
COMMANDS = ("train --trainer CoOp", "run noisy emoji sym 0.5", "sweep embedded_noisy", "evidence", "demo", "labels RUN",
            "predict --run RUN cat.png", "export RUN --to head.pt", "profile RUN",
            "check-data emoji", "download dtd", "adopt FORK")  # fmt: skip
SHELLS = ("dspt/main.sh", "atlas/base2new.sh")
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dassl":
            raise ModuleNotFoundError(f"No module named {name!r}", name="dassl")
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that runs a command in a Python without dassl and returns what it did."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    (tmp_path / "cat.png").touch()
    (tmp_path / "FORK").mkdir()
    (tmp_path / "FORK" / "train.py").touch()
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}

    def run(*command):
        command = list(map(str, command))
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "command",
    [
        (*DSPT_ATLAS, *shlex.split(COMMANDS[0])),
        (sys.executable, ROOT / "train.py", "--trainer", "CoOp"),
        *(("bash", ROOT / "scripts" / script, "emoji", "sym", "0.5") for script in SHELLS[:2]),
        *(("bash", ROOT / "scripts" / script) for script in SHELLS[2:]),
    ],
    ids=lambda command: " ".join(Path(part).name for part in command[1:]),
)
def test_a_command_says_where_to_get_one_with_status_2(command, start):
    done = start(*command)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "github.com/KaiyangZhou/Dassl.pytorch" in done.stderr and "pip install ./engine" in done.stderr


def test_every_other_sub_command_says_it_too(start):
    """In one process, because a command only loads its module before it says so."""
    words = [shlex.split(command) for command in COMMANDS[1:]]
    done = start(sys.executable, "-c", f"from dspt_atlas.cli import main\nprint(*map(main, {words}))")
    assert done.stdout.split() == ["2"] * len(words), done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(words)
    for line, (name, *_) in zip(said, words, strict=True):
        assert line.startswith(f"dspt-atlas {name}: ")
        assert "github.com/KaiyangZhou/Dassl.pytorch" in line and "pip install ./engine" in line


def test_what_a_fork_calls_says_it_too(start):
    done = start(sys.executable, "-c", "import dspt_atlas; dspt_atlas.extend_cfg(None)")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "github.com/KaiyangZhou/Dassl.pytorch" in last and "pip install ./engine" in last


def test_a_module_that_a_dassl_itself_lacks_is_named(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace('"dassl"', '"yacs"'))
    done = start(sys.executable, "-c", "import dspt_atlas; dspt_atlas.extend_cfg")
    assert done.stderr.strip().splitlines()[-1].startswith("ModuleNotFoundError: No module named 'yacs")


@pytest.mark.parametrize("package", ["yacs", "torch"])
def test_another_package_that_is_missing_is_named_in_a_sentence(package, start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace('"dassl"', f'"{package}"'))
    for command in ((sys.executable, ROOT / "train.py"), (*DSPT_ATLAS, "run", "noisy", "emoji", "sym", "0.5")):
        done = start(*command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and package in done.stderr, done.stderr
