"""The check of a GPU machine, on a CPU with tiny weights: cases run, skipped ones are named, failures stop nothing."""

import json
import os
import subprocess
import sys
from collections import Counter

import device
import device_backbones
import device_cases
import pytest
import torch

from support.paths import BENCHMARKS


def figures_and_tables(folder):
    """Return the contents of the two files that a check leaves."""
    return (folder / "figures.json").read_text(), (folder / "tables.md").read_text()


@pytest.mark.slow
def test_every_case_runs_and_agrees_on_a_cpu(tmp_path):
    command = ["bash", BENCHMARKS / "device.sh", tmp_path, "--cpu", "--budget", "3600"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    figures, tables = figures_and_tables(tmp_path)
    figures = json.loads(figures)
    assert not figures["failed"] and not figures["skipped"]
    rows = figures["stages"]["precision"]
    combinations = {(row["learner"], row["method"], row["precision"]) for row in rows}
    assert len(combinations) == len(rows) == len(device_cases.LEARNERS) * 4
    assert {method for _, method, _ in combinations} == set(device_cases.METHODS)
    assert all(row["logits"] == 0 for row in rows if row["precision"] == "fp32")
    assert all(row["logits"] > 0 for row in rows if row["precision"] != "fp32")
    backbones = figures["stages"].get("backbones", [])
    assert {row["backbone"] for row in backbones} == {
        name for name in device_backbones.TINY if not device_backbones.missing_packages(name)
    }
    assert all(row["logits"] == 0 for row in backbones if row["precision"] == "fp32")
    assert all(row["stopped halfway"] > 1e-3 for row in figures["stages"]["resume"])
    assert [row["bit for bit"] for row in figures["stages"]["resume"]] == [True] * len(device_cases.LEARNERS)
    assert [row["prompts"] < 1e-4 for row in figures["stages"]["cache"]] == [True] * len(device_cases.CACHED)
    assert all(row["1 - cosine"] < 1e-6 for row in figures["stages"]["speed"])
    assert tables.strip() in done.stdout and "MaPLe" in tables


def test_what_the_budget_does_not_reach_is_named(tmp_path, private_cache):
    assert device.main([str(tmp_path), "--cpu", "--budget", "0"]) == 0
    figures, tables = figures_and_tables(tmp_path)
    skipped = json.loads(figures)["skipped"]
    assert skipped[0] == "precision CoOp CE"
    assert all(name in tables for name in skipped)
    stages = [name.split()[0] for name in skipped]
    learners, others = len(device_cases.LEARNERS), {"cache": len(device_cases.CACHED), "backbones": 3}
    missing = [name for name in device_backbones.TINY if device_backbones.missing_packages(name)]
    others["backbones"] -= sum(1 + (name in device_backbones.WITH_VISUAL_PROMPTS) for name in missing)
    expected = Counter(dict.fromkeys(("precision", "resume", "speed"), learners) | others)
    assert Counter(stages) == +expected


def test_a_second_call_goes_on_where_the_first_one_stopped(tmp_path, private_cache, capsys):
    path, done = tmp_path / "figures.json", {"cache CoOp fp32": 1.0}
    rows = [{"learner": "CoOp", "precision": "fp32", "ok": True}]
    first = {"machine": device.machine_facts("cpu"), "stages": {"cache": rows}, "seconds": done, "failed": {}}
    path.write_text(json.dumps(first))
    assert device.main([str(tmp_path), "--cpu", "--budget", "0", "--stage", "cache"]) == 0
    figures = json.loads(path.read_text())
    assert figures["stages"]["cache"] == rows and figures["seconds"] == done
    assert "cache CoOp fp32" not in figures["skipped"] and len(figures["skipped"]) == len(device_cases.CACHED) - 1

    path.write_text(json.dumps({**first, "machine": {"device": "another"}}))
    before = path.read_text()
    with pytest.raises(SystemExit) as ended:
        device.main([str(tmp_path), "--cpu", "--budget", "0"])
    assert ended.value.code == 2 and "another" in capsys.readouterr().err and path.read_text() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        device.main([str(tmp_path / "out")])
    assert ended.value.code == 2 and "--cpu" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_failed_case_keeps_its_rows_and_is_named(capsys):
    def case():
        yield {"learner": "CoOp", "ok": True}
        raise ZeroDivisionError("of weights")

    rows, error = device.run_case(case)
    assert rows == [{"learner": "CoOp", "ok": True}] and "ZeroDivisionError" in str(error)
    figures = {"machine": {}, "stages": {"speed": rows}, "failed": {"speed CoOp": error}, "skipped": []}
    assert "ZeroDivisionError" in device.tables(figures)
    assert "test_device" in capsys.readouterr().err


def test_figures_beyond_a_tolerance_are_told_apart():
    for precision, limits in device_cases.TOLERANCES.items():
        assert device_cases.is_within(limits, precision)
        assert not any(device_cases.is_within({**limits, key: 1.01 * limits[key]}, precision) for key in limits)
    assert device_cases.direction(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])) == pytest.approx(1)
    assert device_cases.relative(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0])) == 0.25
