"""Without a dassl: an import and every command name both ways to get one, in one sentence and without a stack trace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT, SCRIPTS

PYTHONS = sorted(path for path in (SCRIPTS).glob("*.py"))
SHELLS = sorted(path for folder in ("dspt", "atlas") for path in (SCRIPTS / folder).glob("*.sh"))
MODULES = ("dspt_atlas.plan.protocols", "dspt_atlas.report.table", "dspt_atlas.cli")
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
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHON": sys.executable}

    def run(*command):
        command = list(map(str, command))
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, ROOT / "train.py"),
        *((sys.executable, path, "--help") for path in PYTHONS),
        *((sys.executable, "-m", module) for module in MODULES),
        *(("bash", path) for path in (*SHELLS, ROOT / "scripts/adopt.sh", ROOT / "scripts/evidence.sh")),
    ],
    ids=lambda command: "_".join(Path(part).name for part in command),
)
def test_a_command_says_where_to_get_one_with_status_2(command, start):
    done = start(*command)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "github.com/KaiyangZhou/Dassl.pytorch" in done.stderr and "pip install ./engine" in done.stderr


def test_an_import_says_it_too(start):
    done = start(sys.executable, "-c", "import dspt_atlas")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "github.com/KaiyangZhou/Dassl.pytorch" in last and "pip install ./engine" in last


def test_a_module_that_a_dassl_itself_lacks_is_named(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE.replace('"dassl"', '"yacs"'))
    done = start(sys.executable, "-c", "import dspt_atlas")
    assert done.stderr.strip().splitlines()[-1].startswith("ModuleNotFoundError: No module named 'yacs")
