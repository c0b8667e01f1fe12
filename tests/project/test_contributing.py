"""The code in CONTRIBUTING.md works as it stands."""

import json
import re
import subprocess
import sys

import pytest

from dspt_atlas.plan.planner import read_plan
from support.paths import ROOT
from support.runs import result_of

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The most lines that each kind of thing may take, blank ones not counted.
LIMITS = {"A criterion": 12, "A prompt learner": 50, "A measure": 15, "A plan": 20, "A data set": 12}


@pytest.mark.parametrize("section", LIMITS)
def test_each_thing_is_short_and_in_one_place(section):
    (block,) = re.findall(
        rf"^## {section}\n(?:(?!^## ).*\n)*?```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE
    )
    assert len([line for line in block.splitlines() if line.strip()]) <= LIMITS[section]


def test_a_learner_with_a_regulariser_is_one_short_file():
    lines = (ROOT / "trainers" / "learners" / "kgcoop.py").read_text().splitlines()
    assert len(lines) <= 50 and any("def regulariser" in line for line in lines)


def test_the_plan_is_expanded(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    jobs = read_plan(tmp_path / "mine.yaml").jobs("", tmp_path / "output", (), {"seeds": [1]})
    assert len({job.folder for job in jobs}) == 2 * 2 * 2 * 2  # learners, methods, noise, training and test


@pytest.mark.slow
def test_the_examples_run(tiny_dataset, tiny_clip_path, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    script = tmp_path / "mine.py"
    script.write_text("\n".join(blocks))
    images = tmp_path / "birds" / "images"
    images.parent.mkdir()
    images.symlink_to(tiny_dataset)
    classes = sorted(folder.name for folder in (tiny_dataset / "train").iterdir())
    splits = {
        split: [
            [path.relative_to(tiny_dataset).as_posix(), label, name]
            for label, name in enumerate(classes)
            for path in sorted((tiny_dataset / split / name).iterdir())
        ]
        for split in ("train", "val", "test")
    }
    (tmp_path / "birds" / "split_birds.json").write_text(json.dumps(splits))
    trainer, folder = "AnchoredFocal", tmp_path / "output"  # the new learner with the new criterion, on the new data
    command = [sys.executable, str(script), "--trainer", trainer, "--backbone", tiny_clip_path, "--seed", "1"]
    command += ["--root", str(tmp_path), "--output-dir", str(folder), "DATASET.NAME", "Birds"]
    command += ["OPTIM.MAX_EPOCH", "2", "OPTIM.NAME", "sgd", "OPTIM.LR_SCHEDULER", "cosine"]
    command += ["DATASET.NUM_SHOTS", "2", "DATASET.NOISE.TYPE", "sym", "DATASET.NOISE.RATE", "0.5"]
    command += ["DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "4"]
    command += ["INPUT.TRANSFORMS", "('random_flip', 'normalize')"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = result_of(folder)
    assert result["trainer"] == trainer and 0 <= result["ece"] <= 100
