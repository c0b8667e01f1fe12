"""Bad input, one table (bad_input_cases.py): one sentence, the right exit status, no stack trace, nothing left."""

import os
import subprocess
import sys

import pytest

from dspt_atlas.report import table as reports
from dspt_atlas.run.train import main as train_main
from dspt_atlas.tools import check_data
from dspt_atlas.tools import run_plan as plan_command
from support import bad_input_cases as table
from support.paths import ROOT

COMMANDS = {
    "train": (train_main, "dspt-atlas train: "),
    "results": (reports.main, "dspt-atlas table: "),
    "protocol": (plan_command.main, ""),
    "check_data": (check_data.main, ""),
}
SUBPROCESSES = ("unknown trainer", "prompts that are a pickle bomb", "image that is truncated", "seed in words")


@pytest.fixture
def place(tmp_path, tiny_clip_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network
    place = table.Place(tmp_path, tiny_clip_path)
    place.images("cat", "dog")
    return place


def _files(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


def _status(command, argv):
    main = COMMANDS[command][0]
    try:
        return main(argv)
    except SystemExit as stop:  # argparse's
        return stop.code


@pytest.mark.parametrize("name", table.CASES)
def test_bad_input(name, place, capsys):
    case = table.CASES[name]
    argv = case.prepare(place)
    before = _files(place.root)
    capsys.readouterr()
    status = _status(case.command, argv)
    out, error = capsys.readouterr()
    assert status == case.status, error
    assert "Traceback" not in error
    after = _files(place.root)
    assert before.items() <= after.items() or status == table.WORKS
    if status == table.WORKS:
        assert case.named in out + error
        assert case.command != "train" or (place.out / "result.json").is_file()
    else:
        (sentence,) = error.strip().splitlines()
        assert sentence.startswith(COMMANDS[case.command][1]) and case.named in sentence
        assert after.keys() == before.keys()


def test_there_are_sixty_cases():
    assert sum(case.status != table.WORKS for case in table.CASES.values()) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBPROCESSES)
def test_bad_input_from_a_shell(name, place):
    case = table.CASES[name]
    command = [sys.executable, str(ROOT / "train.py"), *case.prepare(place)]
    before = _files(place.root)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr.count("\n")) == (case.status, 1) and case.named in done.stderr
    assert _files(place.root) == before
